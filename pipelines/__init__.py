"""The DAG, its compiled YAML, and the command line that drives everything."""
