"""One folder per Kubeflow component: thin, typed, launches one stage, declares its artifacts."""
