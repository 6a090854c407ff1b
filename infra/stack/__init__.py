"""The server profile on one machine: `python -m infra.stack up|down|status|env`.

PostgreSQL, an S3 server, MLflow with accounts, a Ray of two nodes, Prometheus, and who starts the endpoint: each a
process of its own that outlives the command, with its port, its log and its folder below one data folder.

Its supervisor is our own, of one page: systemd is not in every container, supervisord knows no readiness and would keep
the secrets in its configuration, and the rest, tables, accounts, keys, would be ours all the same.

services.py   which they are, in the order they start
supervisor.py starts, looks at and ends them
service.py    one of them
"""
