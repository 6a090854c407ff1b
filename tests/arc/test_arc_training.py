"""The loop body: alternation, delays, resuming, and that it makes a few-step generator."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from arc_toy import (
    CHANNELS,
    TEXT,
    Perceptron,
    ToyEncoder,
    pretrain_toy,
    sample_toy,
    toy_arc,
    toy_dit_config,
    toy_latents,
)
from arc_unet import UNet1d

from sonarc.arc import ArcData, ArcTrainer
from sonarc.checkpoint import load_checkpoint, save_checkpoint
from sonarc.contracts.config import ArcConfig
from sonarc.contracts.errors import CheckpointError, DataError, ModelInputError
from sonarc.dit import DiT
from sonarc.metrics.frechet import frechet_distance, gaussian
from sonarc.training import DivergedError


@pytest.fixture
def base() -> DiT:
    torch.manual_seed(0)
    return DiT(toy_dit_config(), TEXT).requires_grad_(False).eval()


def data_of(config: ArcConfig) -> ArcData:
    return ArcData(toy_latents(64), ToyEncoder(), config, patch=1)


def one_step(trainer: ArcTrainer, data: ArcData, step: int) -> dict[str, float]:
    (batch_d, draws_d), (batch_g, draws_g) = data(step, "discriminator"), data(step, "generator")
    return trainer.step(step, (batch_d, batch_g), (draws_d, draws_g))


def weights(module: torch.nn.Module) -> torch.Tensor:
    return torch.cat([p.detach().flatten() for p in module.parameters()]).clone()


def test_the_generator_waits_while_the_discriminator_learns(base: DiT) -> None:
    config = toy_arc(batch=8, generator_delay=2)
    trainer, data = ArcTrainer(base, config), data_of(config)
    for step in range(3):
        g, d = weights(trainer.generator), weights(trainer.discriminator)
        metrics = one_step(trainer, data, step)
        assert torch.equal(weights(trainer.generator), g) == (step < 2)
        assert not torch.equal(weights(trainer.discriminator), d)
        assert ("loss_g" in metrics) == (step == 2)


def test_rates_rise_over_the_warm_up(base: DiT) -> None:
    config = toy_arc(batch=4, warmup_steps=4, generator_delay=0)
    trainer, data = ArcTrainer(base, config), data_of(config)
    rates = []
    for step in range(5):
        one_step(trainer, data, step)
        rates.append(trainer.optimizer_d.param_groups[0]["lr"] / config.lr_discriminator)
    assert rates == pytest.approx([0.25, 0.5, 0.75, 1, 1])


def test_the_average_follows_the_weights_after_the_step(base: DiT) -> None:
    # The reference averages before the step and leaves the duration embedder out.
    config = toy_arc(batch=4, generator_delay=0, ema=0.0)
    trainer = ArcTrainer(base, config)
    one_step(trainer, data_of(config), 0)
    averaged, current = trainer.ema.state_dict(), trainer.generator.state_dict()
    assert averaged.keys() == current.keys()
    assert any("seconds_total" in name for name in averaged)
    for name, value in current.items():
        assert torch.equal(averaged[name], value)


def test_a_resumed_training_goes_on_exactly(base: DiT, tmp_path: Path) -> None:
    config = toy_arc(batch=8, generator_delay=1)
    data, straight = data_of(config), ArcTrainer(base, config)
    for step in range(2):
        one_step(straight, data, step)
    uri, _ = save_checkpoint(
        tmp_path.as_uri(), kind="generator", step=2, attempt=1, position=32, config={}, config_sha256="x",
        model=straight.ema.state_dict(), state=straight.state(),
    )  # fmt: skip
    resumed = ArcTrainer(base, config, seed=123)
    saved = load_checkpoint(uri)
    resumed.load(saved.model, saved.state)
    for step in range(2, 4):
        assert one_step(straight, data, step) == one_step(resumed, data_of(config), step)
    for name, value in straight.ema.state_dict().items():
        assert torch.equal(value, resumed.ema.state_dict()[name])
    for name, tensors in straight.state().items():
        for key, value in tensors.items():
            assert torch.equal(value, resumed.state()[name][key]), (name, key)


def test_a_checkpoint_before_the_generators_first_step_resumes(base: DiT, tmp_path: Path) -> None:
    config = toy_arc(batch=4, generator_delay=5)
    trainer, data = ArcTrainer(base, config), data_of(config)
    one_step(trainer, data, 0)
    uri, _ = save_checkpoint(
        tmp_path.as_uri(), kind="generator", step=1, attempt=1, position=8, config={}, config_sha256="x",
        model=trainer.ema.state_dict(), state=trainer.state(),
    )  # fmt: skip
    resumed = ArcTrainer(base, config)
    saved = load_checkpoint(uri)
    resumed.load(saved.model, saved.state)
    assert one_step(resumed, data, 1) == one_step(trainer, data, 1)


def test_a_state_without_a_part_is_refused_by_name(base: DiT) -> None:
    trainer = ArcTrainer(base, toy_arc())
    state = trainer.state()
    del state["opt_d"]
    with pytest.raises(CheckpointError, match="opt_d"):
        trainer.load(trainer.ema.state_dict(), state)


def test_a_gradient_that_is_not_finite_stops_before_the_weights_are_spoilt(base: DiT) -> None:
    config = toy_arc(batch=4)
    trainer, data = ArcTrainer(base, config), data_of(config)
    (batch, draws), (batch_g, draws_g) = data(0, "discriminator"), data(0, "generator")
    spoilt = dataclasses.replace(batch.real, x0_BCT=batch.real.x0_BCT * float("nan"))
    with pytest.raises(DivergedError):
        trainer.step(0, (dataclasses.replace(batch, real=spoilt), batch_g), (draws, draws_g))
    assert weights(trainer.discriminator).isfinite().all()


def test_a_model_without_a_feature_tap_is_refused() -> None:
    with pytest.raises(ModelInputError, match="Linear has no feature tap"):
        ArcTrainer(torch.nn.Linear(2, 2), toy_arc())


def test_both_sides_see_different_clips_and_workers_see_parts_of_one_batch() -> None:
    config = toy_arc(batch=8)
    data = data_of(config)
    (whole, draws), (other, _) = data(3, "discriminator"), data(3, "generator")
    assert not torch.equal(whole.real.x0_BCT, other.real.x0_BCT)
    part, part_draws = data(3, "discriminator", slice(4, 8))
    assert torch.equal(part.real.x0_BCT, whole.real.x0_BCT[4:])
    assert torch.equal(part.wrong.tokens_BLE, whole.wrong.tokens_BLE[4:])
    assert torch.equal(part.unlike_B, whole.unlike_B[4:])
    assert torch.equal(part_draws.renoise_BCT, draws.renoise_BCT[4:])


def test_wrong_prompts_come_from_other_concepts() -> None:
    latents, config = toy_latents(64), toy_arc(batch=32)
    seen: list[list[str]] = []

    class Recorder(ToyEncoder):
        def __call__(self, prompts):
            seen.append(list(prompts))
            return super().__call__(prompts)

    data = ArcData(latents, Recorder(), config, patch=1)
    seen.clear()
    batch, _ = data(0, "discriminator")
    own, wrong = seen
    assert bool(batch.unlike_B.all())
    assert all(a.split()[1] != b.split()[1] for a, b in zip(own, wrong, strict=True))


def test_true_lengths_are_rounded_up_to_tokens() -> None:
    latents = dataclasses.replace(toy_latents(64), frames_N=np.full(64, 5))
    batch, _ = ArcData(latents, ToyEncoder(), toy_arc(batch=4), patch=2)(0, "generator")
    assert batch.real.mask_BT.sum(1).tolist() == [6] * 4


def test_clips_of_one_concept_are_refused_for_the_contrastive_term() -> None:
    alike = dataclasses.replace(toy_latents(8), concepts=["the same"] * 8)
    with pytest.raises(DataError, match="the same"):
        ArcData(alike, ToyEncoder(), toy_arc(), patch=1)
    ArcData(alike, ToyEncoder(), toy_arc(contrastive_weight=0.0), patch=1)


def test_latents_that_are_not_finite_are_refused() -> None:
    latents = toy_latents(8)
    latents.latents_NCT[3, 0, 0] = np.nan
    with pytest.raises(DataError, match="NaN"):
        ArcData(latents, ToyEncoder(), toy_arc(), patch=1)


@pytest.mark.parametrize(
    ("make", "pretrained", "steps"),
    [(Perceptron, 400, 100), (lambda: UNet1d(CHANNELS, TEXT), 150, 40)],
    ids=["perceptron", "unet"],
)
def test_post_training_makes_one_step_samples_better(
    make: Callable[[], torch.nn.Module], pretrained: int, steps: int
) -> None:
    # One step of a flow model gives the mean of what fits the prompt; here it is nothing. No transformer is
    # needed for it: ARC takes any velocity model with a feature tap.
    latents, held_out, config = toy_latents(512), toy_latents(512, seed=1), toy_arc()
    real = gaussian(held_out.latents_NCT.reshape(512, -1))
    base = pretrain_toy(latents, pretrained, make)
    trainer, data = ArcTrainer(base, config), ArcData(latents, ToyEncoder(), config, patch=1)
    for step in range(steps):
        one_step(trainer, data, step)
    trainer.generator.load_state_dict(trainer.ema.state_dict())

    def distance(model: torch.nn.Module) -> float:
        return frechet_distance(gaussian(sample_toy(model, held_out, steps=1)), real)

    assert distance(trainer.generator) < 0.8 * distance(base)


@pytest.mark.parametrize("penalty", [0.0, 0.5])
def test_recomputed_activations_change_nothing(base: DiT, penalty: float) -> None:
    config = toy_arc(batch=8, generator_delay=0, penalty_weight=penalty)
    plain = ArcTrainer(base, config)
    base.recompute = True
    saving, data = ArcTrainer(base, config), data_of(config)
    for step in range(2):
        assert one_step(saving, data, step) == pytest.approx(one_step(plain, data, step), rel=1e-4)
    assert torch.allclose(weights(saving.generator), weights(plain.generator), atol=1e-5)
    assert torch.allclose(weights(saving.discriminator), weights(plain.discriminator), atol=1e-5)
