"""What the rooms hand each other: configuration, locations, manifests, keys, results, errors. No torch."""
