"""Build the container images: `python -m infra.images`."""
