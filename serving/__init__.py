"""The endpoint: a Ray Serve application, its API, the playground, and what starts, swaps and stops it."""
