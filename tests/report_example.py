"""A finished run as the tests see it: scores of a plausible shape, and tones instead of music."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import soundfile

from sonarc.contracts.dataset import SplitCount
from sonarc.contracts.machine import Machine
from sonarc.contracts.scores import Difference, ModelName, Score, ScoreSheet
from sonarc.contracts.tuning import Against, LossWeights, Trial, TunedWeights
from sonarc.report.summary import DatasetLine, GateLine, ModelLine, RuleLine, RunSummary, StageLine

RATE = 44_100
VARIANTS = ("real", "codec", "base@50", "base@4", "generator@8", "generator@4")
PROMPTS = ("a slow fiddle tune in D major", "a bright hi-hat <loop> & snare", "a low church organ chord")


def example_sheet() -> ScoreSheet:
    rows: list[tuple[ModelName, int, float, float]] = [
        ("real", 0, 1.0, 3.1),
        ("codec", 0, 1.0, 21.4),
        ("base", 50, 2.5, 33.0),
        ("base", 8, 2.5, 46.8),
        ("base", 4, 1.0, 76.2),
        ("base", 4, 2.5, 61.9),
        ("generator", 8, 1.0, 27.9),
        ("generator", 4, 1.0, 29.1),
        ("generator", 2, 1.0, 31.6),
        ("generator", 1, 1.0, 34.4),
    ]
    scores = []
    for model, steps, cfg, fd in rows:
        place = {"model": model, "steps": steps, "cfg": cfg, "n": 240}
        scores.append(Score(metric="fd_yamnet", value=fd, low=fd - 1.2, high=fd + 1.9, **place))
        scores.append(Score(metric="fd_aisfx", value=fd * 0.8, low=fd * 0.75, high=fd * 0.86, **place))
        scores.append(Score(metric="adherence", value=0.6 - fd / 400, better="higher", **place))
        scores.append(Score(metric="recall", value=0.9 - fd / 200, better="higher", **place))
        scores.append(Score(metric="kid_yamnet", value=fd / 9, **place))
        for metric in ("precision", "density", "coverage", "diversity"):
            scores.append(Score(metric=metric, value=0.7 - fd / 200, better="higher", **place))
        if steps:
            scores.append(Score(metric="realtime", value=240 / steps / cfg, better="higher", unit="s/s", **place))
    sanity: list[tuple[ModelName, int]] = [("real", 0), ("codec", 0), ("generator", 4)]
    for model, steps in sanity:
        place = {"model": model, "steps": steps, "n": 240, "better": "near"}
        scores.append(Score(metric="silent_fraction", value=0.0, **place))
        scores.append(Score(metric="side_db", value=-14.2 - steps / 4, unit="dB", **place))
        scores.append(Score(metric="rolloff_hz", value=9_120.0 - 300 * steps, unit="Hz", **place))
    return ScoreSheet(
        scores=tuple(scores),
        differences=(
            Difference(metric="fd_yamnet", a="generator@4", b="base@4", value=-32.8, low=-36.0, high=-29.9, n=240),
            Difference(metric="adherence", a="generator@4", b="base@4", value=0.003, low=-0.011, high=0.017, n=240),
        ),
    )


def example_tuning() -> TunedWeights:
    """Three trials, the second of which was taken."""
    trials = [
        Trial(
            number=number,
            weights=LossWeights(contrastive_weight=contrastive, penalty_weight=0.1 * number),
            frechet=frechet,
            adherence=0.4,
            against_default=Against(value=frechet - 31.0, low=frechet - 32.0, high=frechet - 30.0) if number else None,
        )
        for number, (contrastive, frechet) in enumerate([(1.0, 31.0), (0.52, 28.4), (1.7, 30.6)])
    ]
    space = {"contrastive_weight": (0.5, 2.0), "penalty_weight": (0.0, 0.2)}
    return TunedWeights(weights=trials[1].weights, chosen=1, trials=tuple(trials), space=space)


def example_summary() -> RunSummary:
    seconds = {
        "sources": 41.2, "ingest": 38.9, "encode": 31.5, "reference": 12.4, "pretrain": 322.0, "tune": 84.6,
        "posttrain": 158.3, "evaluate": 141.7, "gate": 1.9, "promote": 6.2, "deploy": 17.8, "smoke": 3.1,
    }  # fmt: skip
    counts = {"ingest": {"clips": 1598, "quarantined": 7}, "pretrain": {"steps": 1000}, "tune": {"trials": 3}}
    return RunSummary(
        run_id="laptop-20260102-030405",
        preset="laptop",
        config_sha256="c0" * 32,
        status="succeeded",
        started="2026-01-02T03:04:05+00:00",
        total_seconds=912.4,
        machine=Machine(cpu="Example CPU", cores=2, memory_gb=16.4, system="Linux x86_64"),
        versions={"python": "3.11.9", "torch": "2.13.0"},
        stages=tuple(
            StageLine(
                name=name,
                status="succeeded",
                seconds=value,
                work_seconds=value,
                cached=name == "sources",
                counts=counts.get(name, {}),
            )
            for name, value in seconds.items()
        ),
        dataset=DatasetLine(
            sha256="da" * 32,
            version=1,
            clips=1598,
            seconds=3_911.0,
            splits={
                "train": SplitCount(clips=1120, groups=410, seconds=2_740.0),
                "valid": SplitCount(clips=160, groups=60, seconds=391.0),
                "test": SplitCount(clips=318, groups=119, seconds=780.0),
            },
            quarantined={"empty_file": 1, "not_audio": 1, "truncated": 1, "too_short": 4},
        ),
        scores=example_sheet(),
        gate=GateLine(
            passed=True,
            rules=(
                RuleLine(
                    rule="fd_yamnet@4 minus the base's is below 0 over its whole interval",
                    passed=True,
                    detail="the interval's far end -29.9 is below 0",
                ),
                RuleLine(
                    rule="fd_yamnet@4 minus the champion's is below 2",
                    passed=None,
                    detail="skipped: there is no champion",
                ),
            ),
        ),
        model=ModelLine(name="sonarc", version="1", alias="champion", package_sha256="ab" * 32),
        endpoint="http://127.0.0.1:8420",
    )


def write_example_samples(folder: Path, prompts: tuple[str, ...] = PROMPTS, seconds: float = 0.4) -> None:
    """Tones in stereo, each variant a different timbre, and samples.json beside them."""
    folder.mkdir(parents=True, exist_ok=True)
    time_S = np.arange(int(seconds * RATE)) / RATE
    entries = []
    for number, prompt in enumerate(prompts):
        files = {}
        for place, variant in enumerate(VARIANTS):
            name = f"{number:02d}-{variant.replace('@', '-')}.wav"
            pitch = 196.0 * (number + 1)
            partials = [np.sin(2 * np.pi * pitch * k * time_S) / k for k in range(1, 3 + place)]
            tone_S = 0.2 * np.exp(-2 * time_S) * np.sum(partials, axis=0)
            soundfile.write(folder / name, np.stack([tone_S, 0.7 * tone_S], axis=1), RATE)
            files[variant] = name
        entries.append(
            {"prompt": prompt, "key": f"{number:020d}-000", "seconds": seconds, "seed": 1000 + number, "files": files}
        )
    (folder / "samples.json").write_text(json.dumps(entries), encoding="utf-8")
