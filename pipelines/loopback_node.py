"""`ray start` of another node on loopback: `python -m pipelines.loopback_node start --address 127.0.0.1:6379 …`.

Ray stays on loopback only where it is told that no cluster of several nodes is meant (`private_env`), and its command
then refuses a second node. That refusal alone is lifted here, in this process: what it starts stays on loopback.
"""

from __future__ import annotations


def main() -> None:
    """Ray's command, with its own arguments."""
    from ray._private import ray_constants, services
    from ray.scripts import scripts

    services.resolve_ip_for_localhost = lambda host: host
    ray_constants.ENABLE_RAY_CLUSTER = True
    scripts.main()


if __name__ == "__main__":
    main()
