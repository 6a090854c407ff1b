"""The stages of the pipeline: order, inputs, and what enters each stage's key."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class StageSpec:
    """One stage.

    Attributes:
        inputs: upstream stages whose outputs it reads.
        config: dotted paths of the config slice that shapes its outcome.
        code: packages and modules whose source shapes its outcome.
        ray: whether it runs as a Ray job (else in the component's own process).
        cached: whether an earlier outcome under the same key may stand in.
    """

    inputs: tuple[str, ...]
    config: tuple[str, ...]
    code: tuple[str, ...]
    ray: bool = True
    cached: bool = True


_MODEL = ("sonarc.dit", "sonarc.text", "sonarc.flow", "sonarc.training", "sonarc.data", "sonarc.checkpoint")
_TRAINING = ("ray_jobs.training", "ray_jobs.worker")
_CODEC = ("sonarc.assets.codec-v3", "sonarc.codec")
_SCORING = ("sonarc.samplers", "sonarc.runtime", "sonarc.metrics", "sonarc.assets.clap-v1", *_CODEC)

STAGES: dict[str, StageSpec] = {
    "sources": StageSpec((), ("audio", "data.sources", "data.demo"), ("sonarc.demo", "ray_jobs.sources")),
    "ingest": StageSpec(
        ("sources",), ("audio", "data"), ("sonarc.audio", "sonarc.data", "ray_jobs.ingest", "ray_jobs.parallel")
    ),
    "encode": StageSpec(
        ("ingest",),
        ("codec",),
        (*_CODEC, "sonarc.data", "ray_jobs.encode", "ray_jobs.parallel"),
    ),
    "reference": StageSpec(
        ("ingest",), ("audio", "evaluate.reference", "evaluate.embedders"), ("sonarc.metrics", "ray_jobs.reference")
    ),
    "pretrain": StageSpec(
        ("encode",),
        ("audio", "text", "dit", "pretrain"),
        (*_MODEL, "ray_jobs.pretrain", *_TRAINING),
    ),
    "tune": StageSpec(
        ("ingest", "encode", "reference", "pretrain"),
        ("audio", "codec", "arc", "tune", "evaluate.embedders", "evaluate.clap"),
        (*_MODEL, *_SCORING, "sonarc.arc", "sonarc.tuning", "ray_jobs.tune"),
    ),
    "posttrain": StageSpec(
        ("encode", "pretrain", "tune"),
        ("audio", "arc"),
        (*_MODEL, "sonarc.arc", "ray_jobs.posttrain", *_TRAINING),
    ),
    "evaluate": StageSpec(
        ("ingest", "encode", "reference", "pretrain", "posttrain"),
        ("audio", "codec", "evaluate"),
        (*_MODEL, *_SCORING, "ray_jobs.evaluate"),
    ),
    "gate": StageSpec(("evaluate",), ("gate",), ("sonarc.tracking",), ray=False, cached=False),
    "promote": StageSpec(
        ("gate", "ingest", "encode", "pretrain", "posttrain", "evaluate"),
        ("registry",),
        ("sonarc.tracking",),
        ray=False,
        cached=False,
    ),
    "deploy": StageSpec(("promote",), ("serve",), ("serving",), ray=False, cached=False),
    "smoke": StageSpec(("deploy",), ("serve", "audio"), ("serving",), ray=False, cached=False),
}
"""Every stage, in the order it runs."""
