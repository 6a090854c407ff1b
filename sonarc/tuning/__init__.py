"""The search for the ARC loss weights: a study that many processes share, its trials, the choice and the figures."""
