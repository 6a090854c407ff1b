"""A measurement in a fresh interpreter, so that its memory, threads and environment are its own."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Mapping
from typing import Any

from sonarc.contracts.computing import computing_env
from sonarc.contracts.errors import StageError


def in_own_process(
    module: str, *arguments: str, env: Mapping[str, str] | None = None, computing: int = 0
) -> dict[str, Any]:
    """The JSON that `python -m <module> <arguments>` prints last.

    Args:
        env: more variables.
        computing: threads of the environment that stages compute in; 0: the environment as it is.

    Raises:
        StageError: it failed; the message ends with its last line.
    """
    whole = os.environ | (computing_env(computing) if computing else {}) | dict(env or {})
    command = [sys.executable, "-m", module, *arguments]
    done = subprocess.run(command, env=whole, capture_output=True, text=True, check=False)
    if done.returncode:
        last = (done.stderr.strip().splitlines() or ["no message"])[-1]
        raise StageError(f"The measurement {module} {' '.join(arguments)} failed: {last}", "Is there enough memory?")
    found: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return found
