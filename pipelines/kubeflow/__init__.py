"""The pipeline on a cluster's Kubeflow: profiles, versions, what changed, submission, runs."""
