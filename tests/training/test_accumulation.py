"""Micro batches and workers: however a batch is cut, its gradients are those of the whole."""

from __future__ import annotations

import copy
from collections.abc import Iterator

import pytest
import torch
from arc_toy import ToyEncoder, toy_arc, toy_model, uneven_latents
from torch import Tensor, nn

import sonarc.arc.steps
import sonarc.arc.warmup
import sonarc.training.pretraining
from sonarc.arc import ArcData, ArcTrainer
from sonarc.contracts.config import ArcConfig, OdeWarmupConfig, PretrainConfig
from sonarc.dit import DiT
from sonarc.training.accumulation import cut, micro_batches
from sonarc.training.pretraining import PretrainBatches, Pretrainer

ROUNDING = 2e-5
"""Of float32, against a tensor's largest value."""


@pytest.fixture(autouse=True)
def float32(monkeypatch: pytest.MonkeyPatch) -> None:
    """bfloat16 products would hide what float32's rounding shows."""
    for module in (sonarc.arc.steps, sonarc.arc.warmup, sonarc.training.pretraining):
        monkeypatch.setattr(module, "autocast", lambda _: torch.autocast("cpu", enabled=False))


@pytest.fixture
def base() -> DiT:
    return toy_model()


def gradients(module: nn.Module) -> dict[str, Tensor]:
    return {name: p.grad.clone() for name, p in module.named_parameters() if p.grad is not None}


def assert_alike(found: dict[str, Tensor], expected: dict[str, Tensor]) -> None:
    assert found.keys() == expected.keys()
    for name, value in expected.items():
        assert (found[name] - value).abs().max() <= ROUNDING * float(value.abs().max()) + 1e-6, name


def mean_gradients(trainers: list[nn.Module]) -> dict[str, Tensor]:
    """What DDP leaves on every worker."""
    each = [gradients(trainer) for trainer in trainers]
    return {name: torch.stack([found[name] for found in each]).mean(0) for name in each[0]}


@pytest.mark.parametrize(
    ("batch", "workers", "micro", "pieces", "sizes"),
    [(16, 1, None, 1, {16}), (16, 1, 5, 4, {4}), (16, 3, 2, 3, {1, 2}), (5, 2, 1, 2, {1, 2}), (4, 4, 3, 1, {1})],
)
def test_every_worker_has_as_many_micro_batches(
    batch: int, workers: int, micro: int | None, pieces: int, sizes: set[int]
) -> None:
    assert micro_batches(batch, workers, micro) == pieces
    parts = [batch * (n + 1) // workers - batch * n // workers for n in range(workers)]
    found = [[piece.stop - piece.start for piece in cut(part, pieces)] for part in parts]
    assert {size for part in found for size in part} == sizes
    assert sum(size for part in found for size in part) == batch


def pretrained(base: DiT, micro_batch: int | None, steps: int = 2) -> tuple[Pretrainer, list[dict[str, float]]]:
    config = PretrainConfig(batch=7, lr=1e-4, warmup_steps=1)
    batches = PretrainBatches(uneven_latents(), ToyEncoder(), config, patch=1)
    trainer = Pretrainer(copy.deepcopy(base), config, micro_batch=micro_batch)
    return trainer, [trainer.update(step, batches.at(step)) for step in range(steps)]


@pytest.mark.parametrize("micro_batch", [1, 3])
def test_pretraining_in_micro_batches_learns_what_whole_ones_teach(base: DiT, micro_batch: int) -> None:
    whole, expected = pretrained(base, None)
    cut_up, found = pretrained(base, micro_batch)
    for one, other in zip(found, expected, strict=True):
        assert one == pytest.approx(other, rel=1e-4)
    assert_alike(gradients(cut_up.model), gradients(whole.model))
    assert_alike(dict(cut_up.ema.state_dict()), dict(whole.ema.state_dict()))


def test_pretraining_by_workers_in_micro_batches_averages_to_the_whole_batch(base: DiT) -> None:
    config = PretrainConfig(batch=7, lr=1e-4, warmup_steps=1)
    batches = PretrainBatches(uneven_latents(), ToyEncoder(), config, patch=1)
    whole, found = pretrained(base, None, steps=1)
    shared = []
    for part in (slice(0, 3), slice(3, 7)):
        shared.append(Pretrainer(copy.deepcopy(base), config, workers=2, micro_batch=2))
        shared[-1]._backward(batches.at(0, part))
    # The whole batch's are clipped by its norm.
    clip = min(1.0, config.grad_clip / found[0]["grad_norm"])
    averaged = mean_gradients([trainer.model for trainer in shared])
    assert_alike({name: value * clip for name, value in averaged.items()}, gradients(whole.model))


CONFIGS = {
    "all terms": toy_arc(batch=7, generator_delay=0, penalty_weight=0.5, clap_weight=0.1, lr_generator=1e-4),
    "least squares": toy_arc(batch=7, generator_delay=0, loss="lsgan", head={"kind": "convnext"}),
    "warm-up": toy_arc(batch=7, steps=9, ode_warmup=OdeWarmupConfig(steps=8, sampling_steps=4, refresh=2)),
}


class Quiet:
    """An alignment that asks each clip to be quiet."""

    def __call__(self, clean_BCT: Tensor, cond: object, mask_BT: Tensor) -> Tensor:
        return clean_BCT.square().mean((1, 2)).mean()


def arc_trainer(base: DiT, config: ArcConfig, **given: int | None) -> ArcTrainer:
    return ArcTrainer(copy.deepcopy(base), config, alignment=Quiet(), **given)  # type: ignore[arg-type]


def arc_step(trainer: ArcTrainer, config: ArcConfig, part: slice = slice(None), step: int = 0) -> dict[str, float]:
    data = ArcData(uneven_latents(), ToyEncoder(), config, patch=1)
    (batch_d, draws_d), (batch_g, draws_g) = data(step, "discriminator", part), data(step, "generator", part)
    return trainer.step(step, (batch_d, batch_g), (draws_d, draws_g))


@pytest.mark.parametrize("micro_batch", [1, 3])
@pytest.mark.parametrize("name", CONFIGS)
def test_arc_in_micro_batches_learns_what_whole_ones_teach(base: DiT, name: str, micro_batch: int) -> None:
    config = CONFIGS[name]
    whole, cut_up = arc_trainer(base, config), arc_trainer(base, config, micro_batch=micro_batch)
    for step in range(2):
        expected, found = arc_step(whole, config, step=step), arc_step(cut_up, config, step=step)
        assert found == pytest.approx(expected, rel=1e-3, abs=1e-6)
    for mine, theirs in ((cut_up.generator, whole.generator), (cut_up.discriminator, whole.discriminator)):
        assert gradients(mine).keys() == gradients(theirs).keys()
        for key, value in mine.state_dict().items():
            # A norm or a difference of scores takes a head's bias out again: its gradient is rounding, of which Adam
            # makes steps.
            if not (key.startswith("head.") and key.endswith("bias")):
                assert torch.allclose(value, theirs.state_dict()[key], atol=5e-5), key


@pytest.fixture
def unclipped() -> Iterator[ArcConfig]:
    yield CONFIGS["all terms"].model_copy(update={"grad_clip": 1e9, "lr_discriminator": 1e-12})


def test_arc_by_workers_averages_to_the_whole_batch(base: DiT, unclipped: ArcConfig) -> None:
    """Though their parts differ in valid scores and in clips without a wrong prompt. Rates next to nothing: the
    discriminator that the generator meets stays as it was."""
    whole = arc_trainer(base, unclipped)
    expected = arc_step(whole, unclipped)
    shared, figures = [], []
    for part in (slice(0, 3), slice(3, 7)):
        shared.append(arc_trainer(base, unclipped, workers=2, micro_batch=2))
        figures.append(arc_step(shared[-1], unclipped, part))
    assert_alike(mean_gradients([t.discriminator for t in shared]), gradients(whole.discriminator))
    assert_alike(mean_gradients([t.generator for t in shared]), gradients(whole.generator))
    for name in ("loss", "loss_d", "loss_c", "r1", "r2", "loss_g", "loss_clap", "score_gap", "contrast_gap"):
        assert (figures[0][name] + figures[1][name]) / 2 == pytest.approx(expected[name], rel=1e-4, abs=1e-6), name
