"""One module per distributed job: `python -m ray_jobs.<stage> --request request.json`."""
