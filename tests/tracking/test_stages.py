"""The stages `gate` and `promote` on a real registry, from the results of the stages before them."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from tiny_promotion import GATE, Pipeline

from sonarc.contracts.config import GateConfig
from sonarc.contracts.errors import GateRefused, TrackingError
from sonarc.contracts.package import read_package
from sonarc.tracking.registry import Registry, read_registration


def test_candidate_that_passes_is_packaged_registered_and_promoted(tmp_path: Path, tracking_uri: str) -> None:
    torch.manual_seed(0)
    pipeline = Pipeline(tmp_path, tracking_uri)
    gate = pipeline.run("gate")
    assert (gate.metrics["passed"], gate.counts) == (1.0, {"rules": 2, "failed": 0, "skipped": 1})
    promoted = pipeline.run("promote")
    registry = Registry(tracking_uri, pipeline.store)
    champion = registry.resolve("sonarc", "champion")
    assert champion == read_registration(promoted.outputs["registration"].uri)
    package = read_package(champion.package_uri)
    assert package.sha256() == promoted.outputs["package"].sha256 == champion.package_sha256
    base = read_package(package.lineage.base_uri)
    assert (base.kind, base.sha256()) == ("base", package.lineage.base_sha256)
    assert registry.version("sonarc-base", "1").package_sha256 == base.sha256()
    assert len(registry.audit("sonarc")) == 1


def test_second_promotion_of_the_same_candidate_changes_nothing(tmp_path: Path, tracking_uri: str) -> None:
    pipeline = Pipeline(tmp_path, tracking_uri)
    first = [pipeline.run(stage).outputs for stage in ("gate", "promote")]
    second = [pipeline.run(stage).outputs for stage in ("gate", "promote")]
    assert first == second
    assert len(Registry(tracking_uri, pipeline.store).audit("sonarc")) == 1


def test_refused_candidate_is_not_promoted(tmp_path: Path, tracking_uri: str) -> None:
    pipeline = Pipeline(tmp_path, tracking_uri, silent=0.5)
    assert pipeline.run("gate").metrics["passed"] == 0.0
    with pytest.raises(GateRefused, match="silent_fraction@4 is below"):
        pipeline.run("promote")
    assert Registry(tracking_uri, pipeline.store).resolve("sonarc", "champion") is None


def test_champion_that_the_evaluation_left_out_closes_the_gate(tmp_path: Path, tracking_uri: str) -> None:
    first = Pipeline(tmp_path, tracking_uri)
    first.run("gate")
    first.run("promote")
    second = Pipeline(tmp_path, tracking_uri, seed=1)
    assert second.run("gate").metrics["passed"] == 0.0


def test_a_model_may_arrive_under_an_alias_of_its_own(tmp_path: Path, tracking_uri: str) -> None:
    for seed in (0, 1):
        pipeline = Pipeline(tmp_path, tracking_uri, seed=seed)
        registry = pipeline.config.registry.model_copy(update={"arrival": "candidate"})
        gate = GateConfig(rules=GATE.rules[:1])
        pipeline.config = pipeline.config.model_copy(update={"registry": registry, "gate": gate})
        pipeline.run("gate")
        pipeline.run("promote")
    found = Registry(tracking_uri, pipeline.store)
    champion, candidate = found.resolve("sonarc", "champion"), found.resolve("sonarc", "candidate")
    assert champion is not None and candidate is not None
    assert (champion.version, candidate.version) == ("1", "2")  # the first has nobody to be tried beside


def test_promotion_needs_a_registry(tmp_path: Path) -> None:
    pipeline = Pipeline(tmp_path, None)
    pipeline.run("gate")
    with pytest.raises(TrackingError, match="registry"):
        pipeline.run("promote")
