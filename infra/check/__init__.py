"""What `make manifests` does with the overlays: render them, hold them against schemas and rules."""
