"""A Ray of one's own with the cluster's application on it, as a process: `python cluster_endpoint.py PORT ARGS`.

It says "up" when the application stands, and ends with its standard input.
"""

from __future__ import annotations

import json
import sys

from patient_ray import start_ray


def main(port: int, args: dict[str, object]) -> None:
    import ray
    from ray import serve
    from ray.serve.config import HTTPOptions

    from serving.cluster import build

    start_ray(num_cpus=4, object_store_memory=128 * 1024 * 1024, _node_ip_address="127.0.0.1")
    serve.start(http_options=HTTPOptions(host="127.0.0.1", port=port))
    serve.run(build(args), name="sonarc", route_prefix="/")
    print("up", flush=True)
    sys.stdin.read()
    serve.shutdown()
    ray.shutdown()


if __name__ == "__main__":
    main(int(sys.argv[1]), json.loads(sys.argv[2]))
