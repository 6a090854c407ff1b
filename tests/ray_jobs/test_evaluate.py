"""The reference is pinned once; evaluation scores every row on it and leaves scores, samples and figures."""

from __future__ import annotations

from pathlib import Path

import pytest
import soundfile
import torch
from tiny_package import SAMPLES, make_codec
from tiny_stages import encode, ingest, leave, random_clap

from ray_jobs import evaluate, reference
from sonarc.checkpoint import save_checkpoint, sections
from sonarc.contracts import store
from sonarc.contracts.config import SonarcConfig
from sonarc.contracts.errors import DataError
from sonarc.contracts.presets import load
from sonarc.contracts.reference import read_reference, write_reference
from sonarc.contracts.result import StageRequest, StageResult, write_result
from sonarc.contracts.scores import ScoreSheet, read_scores
from sonarc.contracts.stage import Work, execute
from sonarc.dit import DiT
from sonarc.report.samples import read_samples
from sonarc.tracking.runs import NullRun

REFERENCE = load("ci").evaluate.reference
Upstream = tuple[SonarcConfig, Path]


@pytest.fixture(scope="module")
def upstream(tmp_path_factory: pytest.TempPathFactory) -> Upstream:
    """Stages up to posttrain: forty groups of two clips, a random codec, a random DiT as base and generator."""
    root = tmp_path_factory.mktemp("store")
    codec_uri = make_codec(root, seed=0)
    config = load(
        "ci",
        [
            f"audio.samples={SAMPLES}",
            f"codec.uri={codec_uri}",
            f"evaluate.clap={random_clap(root)}",
            "evaluate.clips=24",
            "evaluate.sample_prompts=2",
            "compute.threads=1",
        ],
    )
    ingest(root, config)
    encode(root, config)
    for seed, (stage, output) in enumerate((("pretrain", "base"), ("posttrain", "generator"))):
        _train(root, config, stage, output, seed)
    _execute(root, config, "reference", reference.run)
    return config, root


@pytest.fixture(scope="module")
def evaluated(upstream: Upstream) -> StageResult:
    config, root = upstream
    return _execute(root, config, "evaluate", evaluate.run)


@pytest.fixture(scope="module")
def sheet(evaluated: StageResult) -> ScoreSheet:
    return read_scores(evaluated.outputs["scores"].uri)


def test_every_row_has_every_score(sheet: ScoreSheet) -> None:
    sampled = [("base", 4, 1.0), ("base", 4, 2.5), ("generator", 4, 1.0), ("generator", 1, 1.0)]
    everywhere = ["fd_yamnet", "fd_aisfx", "kid_yamnet", "recall", "coverage", "adherence", "silent_fraction"]
    for model, steps, cfg in [("real", 0, 1.0), ("codec", 0, 1.0), *sampled]:
        metrics = {s.metric for s in sheet.scores if (s.model, s.steps, s.cfg) == (model, steps, cfg)}
        assert set(everywhere) <= metrics, (model, steps)
        assert ("kl_yamnet" in metrics) is (model != "real")
        assert ({"diversity", "realtime"} <= metrics) is (model in ("base", "generator"))
    assert len({(s.metric, s.model, s.steps, s.cfg) for s in sheet.scores}) == len(sheet.scores)


def test_scores_say_what_they_were_measured_with(upstream: Upstream, sheet: ScoreSheet) -> None:
    pinned = read_reference(store.join(upstream[1].as_uri(), "pinned", REFERENCE))
    spaces = {space.name: space for space in pinned.spaces}
    for score in sheet.scores:
        if score.metric.startswith("fd_"):
            assert score.reference_sha256 == pinned.sha256()
            assert score.embedder_sha256 == spaces[score.metric.removeprefix("fd_")].embedder_sha256
            assert score.n_real == len(pinned.keys)
            assert score.low is not None and score.high is not None and score.low <= score.value <= score.high
        if score.model == "generator" and score.metric == "adherence":
            assert (score.n, score.sampler, score.seeds) == (24, "pingpong", (1_000, 1_023))


def test_real_clips_are_nearer_to_the_reference_than_a_random_model(sheet: ScoreSheet) -> None:
    for metric in ("fd_yamnet", "fd_aisfx"):
        real, generator = sheet.get(metric, "real", 0), sheet.get(metric, "generator", 4)
        assert real is not None and generator is not None and real.value < generator.value


def test_differences_are_those_of_the_scores_against_the_best_guidance(sheet: ScoreSheet) -> None:
    found = {(d.metric, d.a, d.b): d for d in sheet.differences}
    assert {metric for metric, _, _ in found} == {"fd_yamnet", "fd_aisfx", "adherence", "recall"}
    for (metric, a, b), difference in found.items():
        assert (a, b) == ("generator@4", "base@4")
        generator, base = sheet.get(metric, "generator", 4), sheet.get(metric, "base", 4)
        assert generator is not None and base is not None
        assert difference.value == pytest.approx(generator.value - base.value)
        assert difference.low <= difference.value <= difference.high


def test_samples_are_real_audio_of_the_asked_length(upstream: Upstream, evaluated: StageResult) -> None:
    folder = store.local_path(evaluated.outputs["samples"].uri)
    assert folder is not None
    samples = read_samples(folder)
    assert len(samples) == 2
    for sample in samples:
        assert set(sample.files) == {"real", "codec", "base@4", "generator@4", "generator@1"}
        for name in sample.files.values():
            audio, rate = soundfile.read(folder / name)
            assert rate == 44_100 and audio.shape == (round(sample.seconds * rate), 2)
    pictures = folder.parent / "figures"
    assert all((pictures / name).read_bytes()[:4] == b"\x89PNG" for name in ("fd_steps.png", "fd_seconds.png"))


def test_scores_repeat(upstream: Upstream, sheet: ScoreSheet) -> None:
    config, root = upstream
    again = read_scores(_execute(root, config, "evaluate", evaluate.run).outputs["scores"].uri)
    values = [
        {(s.metric, s.model, s.steps, s.cfg): s.value for s in one.scores if s.metric != "realtime"}
        for one in (sheet, again)
    ]
    assert values[0] == pytest.approx(values[1], rel=1e-3, abs=1e-3)


def test_a_pinned_reference_is_never_remade(upstream: Upstream) -> None:
    config, root = upstream
    folder = root / "pinned" / REFERENCE
    before = {file.name: file.stat().st_mtime_ns for file in folder.iterdir()}
    result = _execute(root, config, "reference", reference.run)
    assert {file.name: file.stat().st_mtime_ns for file in folder.iterdir()} == before
    assert result.outputs["reference"].sha256 == read_reference(folder.as_uri()).sha256()
    assert result.counts["reference_clips"] >= 2


@pytest.mark.parametrize("damage", ["embedder", "embeddings", "length"])
def test_a_reference_that_does_not_fit_is_refused(upstream: Upstream, tmp_path: Path, damage: str) -> None:
    config, root = upstream
    for name in ("reference.json", "embeddings.safetensors"):
        store.write_bytes(
            (tmp_path / "pinned" / REFERENCE / name).as_uri(),
            (root / "pinned" / REFERENCE / name).read_bytes(),
        )
    folder = (tmp_path / "pinned" / REFERENCE).as_uri()
    manifest = read_reference(folder)
    if damage == "embedder":
        spaces = tuple(space.model_copy(update={"embedder_sha256": "0" * 64}) for space in manifest.spaces)
        write_reference(folder, manifest.model_copy(update={"spaces": spaces}))
    elif damage == "length":
        write_reference(folder, manifest.model_copy(update={"samples": 16_384}))
    else:
        store.write_bytes(store.join(folder, "embeddings.safetensors"), b"something else")
    told = {"embedder": "pinned with the embedder", "embeddings": "is not the file", "length": "16384 samples"}
    with pytest.raises(DataError, match=told[damage]):
        _execute(root, config, "reference", reference.run, into=tmp_path)


def _execute(root: Path, config: SonarcConfig, stage: str, work: Work, into: Path | None = None) -> StageResult:
    stages = ("ingest", "encode", "pretrain", "posttrain", "reference")
    inputs = {name: (root / name).as_uri() for name in stages if (root / name / "result.json").exists()}
    request = StageRequest(stage=stage, store=(into or root).as_uri(), config=config, inputs=inputs)
    result = execute(request, work, NullRun())
    if stage in stages and into is None:
        write_result((root / stage).as_uri(), result)
    return result


def _train(root: Path, config: SonarcConfig, stage: str, output: str, seed: int) -> None:
    torch.manual_seed(seed)
    model = DiT(config.dit, config.text.width)
    uri, manifest = save_checkpoint(
        (root / stage / "checkpoints").as_uri(),
        kind="base" if output == "base" else "generator",
        step=1,
        attempt=1,
        position=0,
        model=model.state_dict(),
        config=sections(config).model_dump(mode="json"),
        config_sha256="0",
    )
    leave(root, stage, output, uri, manifest.sha256())
