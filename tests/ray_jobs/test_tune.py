"""The search for loss weights: the default first, resumable, and what it leaves."""

from __future__ import annotations

import math
import os
import signal
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import ray
import torch
from tune_job import request_for

from ray_jobs import tune
from sonarc.arc import ArcTrainer
from sonarc.checkpoint import save_checkpoint, sections
from sonarc.contracts import store
from sonarc.contracts.config import SonarcConfig
from sonarc.contracts.dataset import read_latents
from sonarc.contracts.errors import ConfigError, StageError
from sonarc.contracts.presets import load
from sonarc.contracts.stage import execute
from sonarc.contracts.tuning import LossWeights
from sonarc.dit import DiT
from sonarc.tracking.runs import NullRun
from sonarc.tuning import trial as one_trial
from sonarc.tuning.ledger import Ledger
from sonarc.tuning.results import Measured, diverged
from sonarc.tuning.storage import VARIABLE, place_of
from sonarc.tuning.trial import Measure, Report, Settings
from sonarc.tuning.validation import Heard

pytestmark = pytest.mark.usefixtures("ray_local")


def tiny(*overrides: str) -> SonarcConfig:
    weights = ["arc.contrastive_weight=1.0", "tune.contrastive_weight=[0.25, 4]", "tune.penalty_weight=[0, 1]"]
    return load("ci", ["tune.trials=4", *weights, "compute.threads=1", *overrides])


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("SONARC_CACHE", str(tmp_path / "cache"))
    monkeypatch.delenv(VARIABLE, raising=False)
    return tmp_path / "cache"


def write_base(root: Path, config: SonarcConfig) -> str:
    torch.manual_seed(0)
    model = DiT(config.dit, config.text.width)
    for parameter in model.parameters():
        torch.nn.init.normal_(parameter, std=0.1)
    uri, _ = save_checkpoint(
        store.join(root.as_uri(), "checkpoints"), kind="base", step=1, attempt=1, position=0, model=model.state_dict(),
        config=sections(config).model_dump(mode="json"), config_sha256="x",
    )  # fmt: skip
    return uri


def bowl(log: Path) -> Measure:
    """Distance is least at contrastive weight 2; adherence rises with it. Every call leaves a line in `log`."""

    def measure(settings: Settings, weights: LossWeights, report: Report) -> Measured:
        with log.open("a") as file:
            file.write(f"{weights.contrastive_weight}\n")
        distance = abs(math.log(weights.contrastive_weight / 2)) + weights.penalty_weight
        drawn = tuple(
            distance + 0.01 * math.sin(n) for n in range(50)
        )  # a resample is a little easier or harder for all
        return Measured(distance, weights.contrastive_weight / 10, {10: {"loss_d": 0.5}}, drawn)

    return measure


class RecordedRun(NullRun):
    """Keeps what nested runs were told."""

    def __init__(self) -> None:
        super().__init__()
        self.children: dict[str, dict[str, Any]] = {}
        self.files: list[str] = []

    def log_file(self, path: Path, folder: str = "") -> None:
        self.files.append(f"{folder}/{path.name}")

    @contextmanager
    def child(self, name: str) -> Iterator[NullRun]:
        said = self.children.setdefault(name, {})

        class Child(NullRun):
            def log_params(self, params: Any) -> None:
                said.update(params)

            def log_metrics(self, metrics: Any, step: int | None = None) -> None:
                said.update(metrics)

        yield Child()


def test_the_configured_weights_come_first_and_the_best_are_handed_on(tmp_path: Path, cache: Path) -> None:
    run, log = RecordedRun(), tmp_path / "log"
    request = request_for(tmp_path, tiny())
    result = execute(request, lambda context: tune.tune(context, bowl(log)), run)

    document = store.read_json(result.outputs["weights"].uri)
    first, *others = document["trials"]
    assert first["number"] == 0 and LossWeights(**first["weights"]) == LossWeights(
        contrastive_weight=1.0, penalty_weight=0.0
    )
    assert len(others) == 3 and all(t["weights"] != first["weights"] for t in others)
    chosen = document["trials"][document["chosen"]]
    assert chosen["weights"] == document["weights"]
    admitted = [t["frechet"] for t in document["trials"] if t["adherence"] >= first["adherence"] - 0.02]
    assert chosen["frechet"] == min(admitted)
    assert result.counts == {"trials": 4, "failed": 0, "stopped": 0, "chosen": document["chosen"]}
    assert set(run.children) == {f"trial-{n}" for n in range(4)}
    assert run.children["trial-0"]["frechet"] == pytest.approx(first["frechet"])
    assert run.children["trial-0"]["loss_d"] == 0.5
    assert run.files == ["study/history.svg", "study/importance.svg", "study/parallel.svg"]
    assert not list(cache.rglob("study.db")), "a finished study stays in the result, not in the cache"


def test_a_killed_search_goes_on_where_it_was(tmp_path: Path) -> None:
    log, whole_log, fuse = tmp_path / "log", tmp_path / "whole", tmp_path / "fuse"
    count = bowl(log)

    def dies_once(settings: Settings, weights: LossWeights, report: Report) -> Measured:
        if log.exists() and len(log.read_text().split()) == 2 and not fuse.exists():
            fuse.touch()
            raise ConfigError("pulled the plug")
        return count(settings, weights, report)

    request = request_for(tmp_path, tiny())
    with pytest.raises(ConfigError, match="pulled the plug"):
        execute(request, lambda context: tune.tune(context, dies_once), NullRun())
    resumed = execute(request, lambda context: tune.tune(context, dies_once), NullRun())
    assert len(log.read_text().split()) == 4, "finished trials were measured again"

    whole = execute(request, lambda context: tune.tune(context, bowl(whole_log)), NullRun())
    assert resumed.outputs["weights"].sha256 == whole.outputs["weights"].sha256


def test_a_trial_that_diverges_fails_alone(tmp_path: Path) -> None:
    def measure(settings: Settings, weights: LossWeights, report: Report) -> Measured:
        if weights.contrastive_weight == 1.0:
            return Measured(20.0, 0.3, {})
        return Measured(math.nan, math.nan, {})

    request = request_for(tmp_path, tiny("tune.trials=3", "tune.parallel=2"))
    result = execute(request, lambda context: tune.tune(context, measure), NullRun())
    assert result.counts == {"trials": 3, "failed": 2, "stopped": 0, "chosen": 0}
    assert store.read_json(result.outputs["weights"].uri)["trials"][1]["frechet"] is None


def test_a_search_in_which_all_diverge_fails(tmp_path: Path) -> None:
    def measure(settings: Settings, weights: LossWeights, report: Report) -> Measured:
        return Measured(math.nan, math.nan, {})

    request = request_for(tmp_path, tiny("tune.trials=2"))
    with pytest.raises(StageError, match="All 2 trials diverged"):
        execute(request, lambda context: tune.tune(context, measure), NullRun())


def test_a_term_that_is_switched_off_stays_off_and_a_wide_default_is_kept(tmp_path: Path) -> None:
    seen = tmp_path / "seen"

    def measure(settings: Settings, weights: LossWeights, report: Report) -> Measured:
        with seen.open("a") as file:
            file.write(f"{weights.contrastive_weight} {weights.penalty_weight}\n")
        return Measured(1.0, 0.5, {})

    config = tiny("tune.trials=3", "arc.contrastive_weight=0.0", "arc.penalty_weight=7.0")
    execute(request_for(tmp_path, config), lambda context: tune.tune(context, measure), NullRun())
    lines = [tuple(map(float, line.split())) for line in seen.read_text().splitlines()]
    assert lines[0] == (0.0, 7.0)
    assert all(contrastive == 0 and 0 <= penalty <= 7 for contrastive, penalty in lines)


def test_trials_share_one_warm_up_and_are_none_the_worse_for_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = tiny()
    request = request_for(tmp_path, config)
    base = write_base(tmp_path, config)
    latents = request.input_results()["encode"].outputs["latents"].uri
    settings = Settings(config, base, read_latents(latents).dataset_uri, latents, "")
    heard: list[torch.Tensor] = []

    class Ears:
        def score(self, model: torch.nn.Module, *_: Any, **__: Any) -> Heard:
            heard.append(torch.cat([p.detach().flatten() for p in model.parameters()]).clone())
            return Heard(1.0, 0.5)

    monkeypatch.setattr(one_trial, "_validation", lambda *_: Ears())
    warmed: list[int] = []
    warm_up = ArcTrainer._warm_up
    monkeypatch.setattr(ArcTrainer, "_warm_up", lambda self, *a: warmed.append(a[1]) or warm_up(self, *a))
    one_trial._warmed.cache_clear()
    one, other = (
        LossWeights(contrastive_weight=1.0, penalty_weight=0.0),
        LossWeights(contrastive_weight=4.0, penalty_weight=1.0),
    )
    for weights in (one, other, one):
        assert one_trial.measure(settings, weights, lambda *_: False).curves.keys() == {
            config.arc.ode_warmup.steps + config.tune.steps
        }
    assert warmed == list(range(config.arc.ode_warmup.steps))
    assert torch.equal(heard[0], heard[2])
    assert not torch.equal(heard[0], heard[1])


def test_a_trial_that_is_better_by_chance_alone_is_not_taken(tmp_path: Path) -> None:
    def measure(settings: Settings, weights: LossWeights, report: Report) -> Measured:
        random = np.random.default_rng(round(1e6 * weights.contrastive_weight))
        distance = 10.0 if weights.contrastive_weight == 1.0 else 9.9
        return Measured(distance, 0.5, {}, tuple((distance + random.normal(0, 1, 100)).tolist()))

    result = execute(request_for(tmp_path, tiny()), lambda context: tune.tune(context, measure), NullRun())

    document = store.read_json(result.outputs["weights"].uri)
    assert result.counts["chosen"] == 0 and document["weights"]["contrastive_weight"] == 1.0
    against = document["trials"][1]["against_default"]
    assert against["low"] < against["value"] < 0 < against["high"]
    assert document["trials"][0]["against_default"] is None


def test_more_can_be_searched_and_reaches_the_training(tmp_path: Path) -> None:
    config = tiny(
        "tune.trials=2", "tune.lr_ratio=[1, 4]", "tune.penalty_sigma=[0.01, 0.1]", "tune.noise_mean=[-1, 0]",
        "tune.adversarial_weight=[0.5, 2]",
    )  # fmt: skip

    def measure(settings: Settings, weights: LossWeights, report: Report) -> Measured:
        better = weights.noise_mean != settings.config.arc.noise_discriminator.mean
        return Measured(1.0 if better else 2.0, 0.5, {}, (1.0 if better else 2.0,) * 50)

    result = execute(request_for(tmp_path, config), lambda context: tune.tune(context, measure), NullRun())

    default, other = (
        LossWeights(**trial["weights"]) for trial in store.read_json(result.outputs["weights"].uri)["trials"]
    )
    assert default.applied(config.arc) == config.arc
    assert result.counts["chosen"] == 1
    arc = other.applied(config.arc)
    assert other.lr_ratio is not None and 1 <= other.lr_ratio <= 6
    assert arc.lr_discriminator == pytest.approx(other.lr_ratio * config.arc.lr_generator)
    assert arc.noise_discriminator.mean == other.noise_mean and arc.penalty_sigma == other.penalty_sigma
    assert arc.lr_generator == config.arc.lr_generator


def test_a_search_begun_in_another_space_is_refused(tmp_path: Path, cache: Path) -> None:
    def stopped(settings: Settings, weights: LossWeights, report: Report) -> Measured:
        raise ConfigError("pulled the plug")

    request = request_for(tmp_path, tiny())
    with pytest.raises(ConfigError, match="pulled the plug"):
        execute(request, lambda context: tune.tune(context, stopped), NullRun())
    (place,) = (cache / "tune").iterdir()
    wider, other = tiny("tune.penalty_weight=[0, 9]"), tiny('tune.objectives=["frechet","adherence"]')
    with pytest.raises(ConfigError, match=r"begun in another space.*'penalty_weight': \[0\.0, 1\.0\]"):
        Ledger(place_of(place), f"sonarc-tune-{place.name}", wider)
    with pytest.raises(ConfigError, match=r"begun for other objectives: \['frechet'\], not"):
        Ledger(place_of(place), f"sonarc-tune-{place.name}", other)


def test_an_empty_range_is_refused() -> None:
    with pytest.raises(ConfigError, match=r"the range of lr_ratio, 4\.0 to 1\.0, is empty"):
        tiny("tune.lr_ratio=[4, 1]")


def test_a_trial_whose_process_dies_is_tried_once_more_and_then_fails_alone(tmp_path: Path) -> None:
    log = tmp_path / "log"

    def measure(settings: Settings, weights: LossWeights, report: Report) -> Measured:
        if weights.contrastive_weight != 1.0:
            with log.open("a") as file:
                file.write("died\n")
            os.kill(os.getpid(), signal.SIGKILL)
        return Measured(1.0, 0.5, {})

    request = request_for(tmp_path, tiny("tune.trials=2"))
    result = execute(request, lambda context: tune.tune(context, measure), NullRun())

    assert result.counts == {"trials": 2, "failed": 1, "stopped": 0, "chosen": 0}
    assert log.read_text() == "died\ndied\n"


def test_a_trial_that_falls_behind_is_stopped_on_its_way(tmp_path: Path) -> None:
    log = tmp_path / "log"

    def measure(settings: Settings, weights: LossWeights, report: Report) -> Measured:
        late = sum(1 for _ in log.open()) if log.exists() else 0
        with log.open("a") as file:
            file.write("begun\n")
        if report(2, 10.0 + late):
            return diverged(stopped=True)
        return Measured(10.0 + late, 0.5, {}, (10.0 + late,) * 50)

    run = RecordedRun()
    config = tiny("tune.trials=4", "tune.steps=4", "tune.rungs=1", "tune.parallel=1")
    result = execute(request_for(tmp_path, config), lambda context: tune.tune(context, measure), run)

    trials = store.read_json(result.outputs["weights"].uri)["trials"]
    assert [trial["stopped"] for trial in trials] == [False, False, True, True]
    assert [trial["rungs"] for trial in trials] == [{"2": 10.0 + n} for n in range(4)]
    assert result.counts == {"trials": 4, "failed": 0, "stopped": 2, "chosen": 0}
    assert [run.children[f"trial-{n}"]["state"] for n in range(4)] == ["measured"] * 2 + ["stopped"] * 2


def test_a_pareto_front_is_searched_and_drawn(tmp_path: Path) -> None:
    def measure(settings: Settings, weights: LossWeights, report: Report) -> Measured:
        distance = 10.0 if weights.contrastive_weight == 1.0 else 5.0 + weights.penalty_weight
        return Measured(distance, 0.5 + weights.penalty_weight, {}, (distance,) * 50, 0.4)

    run = RecordedRun()
    config = tiny("tune.trials=5", 'tune.objectives=["frechet","adherence","diversity"]')
    result = execute(request_for(tmp_path, config), lambda context: tune.tune(context, measure), run)

    document = store.read_json(result.outputs["weights"].uri)
    assert document["objectives"] == ["frechet", "adherence", "diversity"] and document["chosen"] > 0
    assert {trial["diversity"] for trial in document["trials"]} == {0.4}
    assert result.metrics["diversity"] == run.children["trial-0"]["diversity"] == 0.4
    assert "study/pareto.svg" in run.files


def test_a_trial_reserves_what_it_is_given(tmp_path: Path) -> None:
    def measure(settings: Settings, weights: LossWeights, report: Report) -> Measured:
        cpus = ray.get_runtime_context().get_assigned_resources()["CPU"]
        return Measured(float(cpus), 0.5)

    config = tiny("tune.trials=1", "compute.trial_cpus=1.5")
    result = execute(request_for(tmp_path, config), lambda context: tune.tune(context, measure), NullRun())
    assert result.metrics["frechet"] == 1.5


def test_rungs_are_heard_on_the_way_and_change_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    heard: list[torch.Tensor] = []
    asked: list[tuple[int, float]] = []

    class Ears:
        def distance(self, model: torch.nn.Module, *_: Any, clips: int, **__: Any) -> float:
            return float(clips)

        def score(self, model: torch.nn.Module, *_: Any, **__: Any) -> Heard:
            heard.append(torch.cat([p.detach().flatten() for p in model.parameters()]).clone())
            return Heard(1.0, 0.5)

    def report(step: int, distance: float) -> bool:
        asked.append((step, distance))
        return len(asked) > 3

    monkeypatch.setattr(one_trial, "_validation", lambda *_: Ears())
    weights, base = LossWeights(contrastive_weight=1.0, penalty_weight=0.0), write_base(tmp_path, tiny())
    measured = []
    for rungs in (0, 3, 3):
        config = tiny("tune.steps=4", f"tune.rungs={rungs}", "tune.rung_clips=9")
        latents = request_for(tmp_path, config).input_results()["encode"].outputs["latents"].uri
        settings = Settings(config, base, read_latents(latents).dataset_uri, latents, "")
        one_trial._warmed.cache_clear()
        measured.append(one_trial.measure(settings, weights, report))
    first = config.arc.ode_warmup.steps
    assert asked == [(first + step, 9.0) for step in (1, 2, 3, 1)]
    assert torch.equal(heard[0], heard[1]) and len(heard) == 2
    assert [found.stopped for found in measured] == [False, False, True]
    assert measured[1].curves[first + 2]["rung_frechet"] == 9.0
