"""The images as built: what is in them, and that they run: alone, and as the whole pipeline. `make test-containers`.

As the user they are made for, without rights, on a root that cannot be written.
"""

from __future__ import annotations

import contextlib
import json
import os
import re
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest
import soundfile
from tiny_package import make_package

from infra.images.engine import Engine
from pipelines.local import run_pipeline
from pipelines.places import Places
from serving import control
from serving.state import stands
from sonarc.contracts.config import ServeConfig
from sonarc.contracts.presets import load
from sonarc.contracts.processes import end_tree
from sonarc.contracts.stages import STAGES

pytestmark = [pytest.mark.slow, pytest.mark.timeout(7_200)]
ROOT = Path(__file__).resolve().parents[2]
RECORD = ROOT / "build" / "images" / "images.json"
ROLES = ("pipeline", "worker", "serve")
MB_AT_MOST = {"pipeline": 1_500, "worker": 3_500, "serve": 3_000}
CONFINED = ("--read-only", "--cap-drop", "all", "--security-opt", "no-new-privileges")


@pytest.fixture(scope="module")
def engine() -> Engine:
    found = Engine.find(RECORD.parent)
    assert found.program != "buildah", "buildah builds, but runs no image. Install podman or docker."
    return found


@pytest.fixture(scope="module")
def images(engine: Engine) -> dict[str, dict[str, str]]:
    """What `make images` wrote; made now where it is missing."""
    if not RECORD.exists():
        subprocess.run([sys.executable, "-m", "infra.images"], cwd=ROOT, check=True)
    found: dict[str, dict[str, str]] = json.loads(RECORD.read_text(encoding="utf-8"))["images"]
    return found


def run(
    engine: Engine, image: dict[str, str], *words: str, options: tuple[str, ...] = ("--network", "none")
) -> subprocess.CompletedProcess[str]:
    """A command in an image."""
    command = [engine.program, "run", "--rm", *CONFINED, "--tmpfs", "/tmp", *options, image["reference"], *words]
    return subprocess.run(
        command, env=os.environ | dict(engine.environment), capture_output=True, text=True, check=False
    )


@pytest.mark.parametrize("role", ROLES)
def test_nobody_special_runs_it_and_nothing_gives_rights(
    engine: Engine, images: dict[str, dict[str, str]], role: str
) -> None:
    look = "id -u; find / -xdev -perm /6000 -type f; find /app /usr /etc /bin /lib -xdev -user 10001 -print"
    assert run(engine, images[role], "sh", "-c", look).stdout.split() == ["10001"]
    assert run(engine, images[role], "sh", "-c", "touch /app/x").returncode != 0


@pytest.mark.parametrize("role", ROLES)
def test_no_installer_cache_or_address_is_left(engine: Engine, images: dict[str, dict[str, str]], role: str) -> None:
    look = "ls -d /app/bin/pip* ~root/.cache /srv/* /mnt/* /tmp/* /etc/pip.conf /etc/apt/sources.list* 2>/dev/null"
    assert run(engine, images[role], "sh", "-c", look).stdout.split() == []
    told = json.dumps(engine.inspect(images[role]["reference"]))
    configured = subprocess.run(
        [sys.executable, "-m", "pip", "config", "list"], capture_output=True, text=True, check=True
    ).stdout
    addresses = set(re.findall(r"(?:https?|file)://[^'\s]+", configured))
    for address in addresses:
        assert address not in told
        found = run(engine, images[role], "grep", "-rlF", address, "/etc", "/app/bin", "/app/pyvenv.cfg")
        assert found.stdout == "", address
    assert not re.search(r"(?i)password|secret|token|://", told.replace("://localhost", ""))


@pytest.mark.parametrize("role", ROLES)
def test_its_contents_are_listed(engine: Engine, images: dict[str, dict[str, str]], role: str) -> None:
    document = json.loads(run(engine, images[role], "cat", "/app/sbom.cdx.json").stdout)
    names = {part["name"]: part["version"] for part in document["components"]}
    assert document["bomFormat"] == "CycloneDX"
    assert {"sonarc", "ray", "libc6", "libpython3.11-stdlib"} <= set(names)
    assert names["ray"] == "2.60.0"
    assert ("torch" in names) is (role != "pipeline")
    (RECORD.parent / f"{role}.cdx.json").write_text(json.dumps(document, indent=1), encoding="utf-8")


@pytest.mark.parametrize("role", ROLES)
def test_it_is_labelled_and_of_a_reasonable_size(engine: Engine, images: dict[str, dict[str, str]], role: str) -> None:
    found = engine.inspect(images[role]["reference"])
    labels = found.get("Labels") or found["Config"]["Labels"]
    assert labels["org.opencontainers.image.title"] == f"sonarc-{role}"
    assert re.fullmatch(r"[0-9a-f]{40}", labels["org.opencontainers.image.revision"])
    assert found["Size"] / 1e6 < MB_AT_MOST[role]


def test_the_pipeline_image_has_the_command_line_and_no_torch(
    engine: Engine, images: dict[str, dict[str, str]]
) -> None:
    help_ = run(engine, images["pipeline"], "sonarc", "--help")
    assert help_.returncode == 0, help_.stderr
    assert "sonarc run" in help_.stdout
    program = "import components.launch, pipelines.execute, ray.job_submission, sonarc.tracking.stages, serving.stages"
    done = run(
        engine,
        images["pipeline"],
        "python",
        "-c",
        f"{program}\nimport importlib.util as u; print(u.find_spec('torch'))",
    )
    assert done.stdout.split() == ["None"], done.stderr


def test_the_worker_image_runs_ray(engine: Engine, images: dict[str, dict[str, str]]) -> None:
    program = (
        "import ray, torch, ray_jobs.pretrain, ray_jobs.tune, ray_jobs.evaluate\n"
        "ray.init(address='local', num_cpus=2, include_dashboard=False, object_store_memory=1 << 27)\n"
        "@ray.remote\ndef total(n): return float(torch.arange(n).sum())\n"
        "print('sum', ray.get(total.remote(10)))\n"
    )
    options = ("--network", "host", "--shm-size", "1g")
    done = run(engine, images["worker"], "python", "-c", program, options=options)
    assert "sum 45.0" in done.stdout, done.stderr


@pytest.fixture(scope="module")
def docker_api(engine: Engine, tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """Docker's API at DOCKER_HOST: the engine's own, or podman's."""
    if engine.program == "docker":
        yield
        return
    socket = tmp_path_factory.mktemp("podman") / "podman.sock"
    command = [engine.program, "system", "service", "--time", "0", f"unix://{socket}"]
    service = subprocess.Popen(command, env=os.environ | dict(engine.environment), start_new_session=True)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("DOCKER_HOST", f"unix://{socket}")
        try:
            for _ in range(300):
                if socket.exists():
                    break
                time.sleep(0.2)
            yield
        finally:
            end_tree(service.pid)


@pytest.fixture
def named(images: dict[str, dict[str, str]]) -> Iterator[None]:
    """SONARC_IMAGES names what was built."""
    from components.image import VARIABLE, image

    with pytest.MonkeyPatch.context() as patch:
        patch.setenv(VARIABLE, str(RECORD))
        image.cache_clear()
        yield
    image.cache_clear()


@pytest.fixture
def open_folder(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A folder that the containers' user can reach; pytest's own are closed to others."""
    folder = tmp_path_factory.mktemp("containers")
    for place in (folder, *folder.parents[:2]):
        with contextlib.suppress(PermissionError):
            place.chmod(0o755)
    yield folder
    shutil.rmtree(folder, ignore_errors=True)


@pytest.mark.usefixtures("docker_api", "named")
def test_the_serve_image_becomes_ready_when_a_model_is_deployed(open_folder: Path) -> None:
    from pipelines.containers import Containers, standing_server

    package_uri, manifest = make_package(open_folder)
    package_sha256 = manifest.sha256()
    runs = open_folder / "runs"
    containers = Containers.of(load("ci"), runs, (open_folder / "store").as_uri(), "")
    with standing_server(runs, containers):
        for _ in range(600):
            if stands(runs):
                break
            time.sleep(0.2)
        try:
            state = control.deploy(package_uri, package_sha256, ServeConfig(threads=1), runs)
            assert httpx.get(f"{state.address}/readyz").json()["package_sha256"] == package_sha256
            answer = httpx.post(f"{state.address}/v1/audio/generations", json={"prompt": "a bell"}, timeout=60)
            assert answer.status_code == 200
        finally:
            control.stop(runs)
    assert control.status(runs) is None


@pytest.mark.usefixtures("docker_api", "named")
def test_the_whole_pipeline_runs_in_containers(open_folder: Path) -> None:
    places = Places(
        runs=open_folder / "runs",
        store=(open_folder / "store").as_uri(),
        tracking=f"sqlite:///{open_folder / 'mlflow' / 'mlflow.db'}",
    )
    try:
        outcome = run_pipeline(load("ci"), places, quiet=True, runner="docker")
        assert outcome.error is None, f"{outcome.error}\n{_end_of_logs(outcome.folder)}"
        assert {line.status for line in outcome.summary.stages} == {"succeeded"}
        assert [line.name for line in outcome.summary.stages] == list(STAGES)
        state = control.status(places.runs)
        assert state is not None
        answer = httpx.post(f"{state.address}/v1/audio/generations", json={"prompt": "a piano"}, timeout=60)
        (open_folder / "answer.wav").write_bytes(answer.content)
        assert soundfile.info(open_folder / "answer.wav").samplerate == 44_100
    finally:
        control.stop(places.runs)


def _end_of_logs(folder: Path) -> str:
    """What a failure is understood by: the folder is gone when it is read."""
    logs = [
        file for file in (folder / "pipeline.log", folder / "ray.log", folder.parent / "serve.log") if file.exists()
    ]
    return "\n".join(f"{file.name}:\n{file.read_text('utf-8', 'replace')[-6_000:]}" for file in logs)
