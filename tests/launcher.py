"""A component's process: `launch STORE AUDIO ADDRESS` runs the stage `sources`, `cleanup ADDRESS` ends what is left.

A process of its own, because Ray takes the way to be let in from the environment, once.
"""

from __future__ import annotations

import json
import sys

from components.launch import cleanup, launch
from sonarc.contracts.presets import load

RUN = "a-run"


def main(verb: str, *arguments: str) -> None:
    if verb == "cleanup":
        print(json.dumps(cleanup(RUN, ray_address=arguments[0])))
        return
    store_uri, audio, address = arguments
    source = json.dumps([{"name": "mine", "uri": audio}])
    record = launch(
        "sources",
        config=load("ci", [f"data.sources={source}"]).model_dump_json(),
        store_uri=store_uri,
        tracking="",
        ray_address=address,
        progress="",
        inputs={},
        run_name=RUN,
    )
    print(record.model_dump_json(by_alias=True))


if __name__ == "__main__":
    main(*sys.argv[1:])
