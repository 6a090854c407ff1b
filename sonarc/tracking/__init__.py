"""All that speaks to MLflow, and the only place that does: runs, the gate, the registry, model packages.

MLflow is imported inside functions: a job without tracking never pays for it.
"""
