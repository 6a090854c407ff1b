"""The program that builds and keeps images: docker, podman or buildah, whichever is here."""

from __future__ import annotations

import contextlib
import json
import os
import resource
import shutil
import subprocess
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

PROGRAMS = ("docker", "podman", "buildah")
PID_MAX = Path("/proc/sys/kernel/pid_max")


@dataclass(frozen=True)
class Engine:
    """One of PROGRAMS.

    Attributes:
        program: its name.
        environment: what is added to its environment.
    """

    program: str
    environment: Mapping[str, str] = field(default_factory=dict)

    @classmethod
    def find(cls, state: Path, wanted: str = "") -> Engine:
        """The wanted program, or the first that works.

        Args:
            state: folder for what the program is told about a confined machine.
            wanted: one of PROGRAMS, or empty.

        Raises:
            SystemExit: there is none.
        """
        for program in (wanted,) if wanted else PROGRAMS:
            if shutil.which(program) is None:
                continue
            engine = cls(program, confined(state) if program != "docker" else {})
            if program == "docker" and engine._run("info", check=False).returncode:
                continue  # the client is here, the engine is not
            return engine
        raise SystemExit(f"No {wanted or 'docker, podman or buildah'} that works is here. Install podman, for one.")

    def build(
        self,
        target: str,
        tag: str,
        dockerfile: Path,
        context: Path,
        arguments: Mapping[str, str],
        epoch: int,
        *,
        cached: bool = True,
    ) -> None:
        """Build one stage of a Dockerfile, without a network, every file as old as `epoch`, and tag it.

        Without the builder's cache where another build's steps would fit: they would bring their own times along.
        """
        words = [
            "build",
            *([] if cached else ["--no-cache"]),
            "--target",
            target,
            "--tag",
            tag,
            "--file",
            str(dockerfile),
            "--network",
            "none",
        ]
        for name, value in arguments.items():
            words += ["--build-arg", f"{name}={value}"]
        if self.program == "docker":
            words += ["--output", "type=docker,rewrite-timestamp=true", "--provenance=false"]
        else:
            words += ["--timestamp", str(epoch), "--layers", "--format", "oci"]
        self._run(*words, str(context), capture=False)

    def inspect(self, tag: str) -> dict[str, Any]:
        """What the program says of an image: Id, Size, Digest or RepoDigests, Config."""
        words = ["inspect", "--type", "image", tag] if self.program == "buildah" else ["image", "inspect", tag]
        found = json.loads(self._run(*words).stdout)
        document: dict[str, Any] = found[0] if isinstance(found, list) else found
        return document

    def digest(self, tag: str) -> str:
        """The image's digest, `sha256:…`: of its manifest where the program knows it, else its own id."""
        document = self.inspect(tag)
        for name in ("Digest", "FromImageDigest"):
            if document.get(name):
                return str(document[name])
        pushed = [str(name).rpartition("@")[2] for name in document.get("RepoDigests") or ()]
        return pushed[0] if pushed else str(document["Id"])

    def push(self, tag: str, target: str) -> str:
        """Send an image to a registry; gives the digest it has there. Credentials are those of the program's login."""
        if self.program == "docker":
            self._run("tag", tag, target)
            self._run("push", "--quiet", target)
            return self.digest(target)
        with tempfile.TemporaryDirectory() as folder:
            digest = Path(folder) / "digest"
            self._run("push", "--quiet", "--digestfile", str(digest), tag, target)
            return digest.read_text(encoding="utf-8").strip()

    def _run(self, *words: str, check: bool = True, capture: bool = True) -> subprocess.CompletedProcess[str]:
        done = subprocess.run(
            [self.program, *words],
            env=os.environ | dict(self.environment),
            capture_output=capture,
            text=True,
            check=False,
        )
        if check and done.returncode:
            raise SystemExit(
                f"{self.program} {words[0]} failed with code {done.returncode}. {done.stderr or ''}".strip()
            )
        return done


def confined(state: Path) -> dict[str, str]:
    """What podman and buildah must be told on a machine that grants no higher limits than it has; else nothing.

    By themselves they ask for more open files and processes than such a machine allows, and no container starts.
    """
    if "CONTAINERS_CONF" in os.environ or os.geteuid() != 0 or _may_raise_limits():
        return {}
    files = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    processes = resource.getrlimit(resource.RLIMIT_NPROC)[1]
    with contextlib.suppress(OSError, ValueError):  # podman lowers its own to this
        processes = min(processes, int(PID_MAX.read_text(encoding="ascii")))
    limits = [f"nofile={files}:{files}", f"nproc={processes}:{processes}"]
    lines = ["[containers]", f"default_ulimits = {json.dumps(limits)}"]
    if shutil.which("runc"):
        lines += ["[engine]", 'runtime = "runc"']
    state.mkdir(parents=True, exist_ok=True)
    file = state / "containers.conf"
    file.write_text("\n".join(lines) + "\n", encoding="utf-8")
    return {"CONTAINERS_CONF": str(file)}


def _may_raise_limits() -> bool:
    """Whether this process has CAP_SYS_RESOURCE."""
    status = Path("/proc/self/status").read_text(encoding="ascii")
    (effective,) = (line.split()[1] for line in status.splitlines() if line.startswith("CapEff"))
    return bool(int(effective, 16) & 1 << 24)
