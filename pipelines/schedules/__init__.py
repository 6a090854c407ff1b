"""Retraining on a schedule: one set of verbs, kept by Kubeflow on a cluster and by Sonarc itself on one machine."""
