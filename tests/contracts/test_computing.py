"""The environment that tensors are computed in."""

from __future__ import annotations

import json
import os
import subprocess
import sys

from sonarc.contracts.computing import computing_env

CHILD = """
import json, os, sys
from sonarc.contracts.computing import restart_for_computing
print("begun", flush=True)
restart_for_computing(3)
print(json.dumps([sys.argv[1:], dict(os.environ)]))
"""


def test_a_process_begins_again_once_with_its_arguments_and_the_variables_malloc_reads_at_its_start() -> None:
    env = {name: value for name, value in os.environ.items() if name not in computing_env(3)}
    done = subprocess.run(
        [sys.executable, "-c", CHILD, "--size", "tiny"], env=env, capture_output=True, text=True, check=True
    )
    *begun, last = done.stdout.splitlines()
    arguments, found = json.loads(last)
    assert begun == ["begun", "begun"]
    assert arguments == ["--size", "tiny"]
    assert computing_env(3).items() <= found.items()


def test_a_process_that_has_them_goes_on() -> None:
    done = subprocess.run(
        [sys.executable, "-c", CHILD], env=os.environ | computing_env(3), capture_output=True, text=True, check=True
    )
    assert done.stdout.splitlines()[:-1] == ["begun"]
