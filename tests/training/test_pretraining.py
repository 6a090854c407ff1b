"""Pre-training without Ray: it learns, it resumes exactly, workers share a batch exactly."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
import torch

from sonarc.checkpoint import load_checkpoint, save_checkpoint
from sonarc.contracts.config import DiTConfig, NoiseConfig, PretrainConfig
from sonarc.contracts.errors import CheckpointError, DataError
from sonarc.data import LatentSet
from sonarc.dit import DiT
from sonarc.text import TextStates
from sonarc.training import DivergedError
from sonarc.training.pretraining import PretrainBatches, Pretrainer, pretrain_loss

WIDTH = 8
SHAPE = DiTConfig(latent_channels=4, width=32, depth=2, heads=2, patch=2, cond_width=WIDTH)
CONFIG = PretrainConfig(steps=6, batch=6, warmup_steps=2, lr=3e-3)


class Letters:
    """A text encoder that reads each prompt's first letter."""

    name, sha256, width, max_tokens = "letters", "0" * 64, WIDTH, 3

    def __call__(self, prompts: Sequence[str]) -> TextStates:
        tokens = torch.zeros(len(prompts), self.max_tokens, self.width)
        mask = torch.zeros(len(prompts), self.max_tokens, dtype=torch.bool)
        for row, prompt in enumerate(prompts):
            tokens[row, 0, ord(prompt[0]) % self.width] = 1
            mask[row, 0] = True
        return TextStates(tokens, mask)


def latent_set(clips: int = 20, frames: int = 8) -> LatentSet:
    """Clips whose latent mean follows from the caption: `a` is +1, `b` is −1."""
    random = np.random.default_rng(0)
    letters = ["ab"[n % 2] for n in range(clips)]
    sign = np.array([1.0 if letter == "a" else -1.0 for letter in letters])
    latents = sign[:, None, None] + 0.1 * random.standard_normal((clips, 4, frames))
    return LatentSet(
        latents_NCT=latents.astype(np.float16),
        frames_N=random.integers(3, frames + 1, clips),
        seconds_N=np.ones(clips, np.float32),
        captions=[[letter, letter + "!"] for letter in letters],
        concepts=letters,
        groups=letters,
        keys=[str(n) for n in range(clips)],
        weights_N=np.ones(clips),
        hop=1024,
    )


def trainer(config: PretrainConfig = CONFIG) -> tuple[Pretrainer, PretrainBatches]:
    torch.manual_seed(0)
    batches = PretrainBatches(latent_set(), Letters(), config, SHAPE.patch)
    return Pretrainer(DiT(SHAPE, WIDTH), config), batches


def test_the_loss_falls_and_the_text_is_learnt() -> None:
    config = PretrainConfig(steps=120, batch=16, lr=3e-3, warmup_steps=5, noise=NoiseConfig(name="uniform"))
    pretrainer, batches = trainer(config)
    losses = [pretrainer.update(step, batches.at(step))["loss"] for step in range(config.steps)]
    assert np.mean(losses[-20:]) < 0.5 * np.mean(losses[:5])
    assert np.isfinite(losses).all()
    # One step from pure noise lands on the caption's side.
    given = batches.at(0)
    with torch.no_grad():
        noise = torch.randn_like(given.batch.x0_BCT)
        estimate = noise - pretrainer.model(noise, torch.ones(16), given.batch.cond, mask_BT=given.batch.mask_BT)
    sign = given.batch.x0_BCT[:, :, 0].mean(1).sign()
    assert torch.equal(estimate[:, :, 0].mean(1).sign(), sign)


def test_a_resumed_training_is_the_undisturbed_one(tmp_path: Path) -> None:
    whole, batches = trainer()
    expected = [whole.update(step, batches.at(step)) for step in range(6)]

    first, batches = trainer()
    for step in range(3):
        first.update(step, batches.at(step))
    uri, _ = save_checkpoint(
        tmp_path.as_uri(),
        kind="base",
        step=3,
        attempt=1,
        position=18,
        model=first.ema.state_dict(),
        state=first.state(),
        config={},
        config_sha256="0" * 64,
    )
    second, batches = trainer(CONFIG)
    torch.rand(17)  # whatever else has drawn random numbers
    saved = load_checkpoint(uri)
    second.load(saved.model, saved.state)
    resumed = [second.update(step, batches.at(step)) for step in range(3, 6)]
    assert resumed == expected[3:]
    for name, weight in whole.ema.state_dict().items():
        assert torch.equal(weight, second.ema.state_dict()[name]), name
    with pytest.raises(CheckpointError, match="opt"):
        second.load(saved.model, {"model": saved.state["model"]})


def test_workers_gradients_average_to_the_whole_batchs() -> None:
    pretrainer, batches = trainer()
    model = pretrainer.model
    with torch.no_grad():
        model.transformer.project_out.weight.normal_()

    def gradients(parts: list[slice]) -> dict[str, torch.Tensor]:
        model.zero_grad()
        for part in parts:
            given = batches.at(4, part)
            loss = pretrain_loss(model, given.batch, given.draws, frames=given.frames / len(parts))
            (loss / len(parts)).backward()
        return {name: p.grad.clone() for name, p in model.named_parameters() if p.grad is not None}

    whole, halves = gradients([slice(0, 6)]), gradients([slice(0, 2), slice(2, 6)])
    for name, gradient in whole.items():
        scale = float(gradient.abs().max()) + 1e-6
        assert (gradient - halves[name]).abs().max() < 0.03 * scale, name  # bfloat16 products


def test_a_batch_is_a_function_of_seed_and_step() -> None:
    _, batches = trainer()
    _, others = trainer()
    others.at(0)
    one, two = batches.at(5), others.at(5)
    assert torch.equal(one.batch.x0_BCT, two.batch.x0_BCT)
    assert torch.equal(one.draws.noise_BCT, two.draws.noise_BCT)
    assert torch.equal(one.draws.t_B, two.draws.t_B)
    assert not torch.equal(one.draws.t_B, batches.at(6).draws.t_B)
    part = batches.at(5, slice(2, 4))
    assert torch.equal(part.batch.x0_BCT, one.batch.x0_BCT[2:4])
    assert torch.equal(part.draws.noise_BCT, one.draws.noise_BCT[2:4])
    assert part.frames == one.frames == int(one.batch.mask_BT.sum())


def test_prompts_are_dropped_at_their_rate() -> None:
    _, batches = trainer(PretrainConfig(steps=1, batch=2_000, cfg_dropout=0.1))
    assert float(batches.at(0).draws.drop_B.float().mean()) == pytest.approx(0.1, abs=0.03)


def test_a_gradient_that_is_not_finite_stops_before_the_weights_change() -> None:
    pretrainer, batches = trainer()
    given = batches.at(0)
    given.batch.x0_BCT[0, 0, 0] = float("nan")
    before = {name: weight.clone() for name, weight in pretrainer.model.state_dict().items()}
    with pytest.raises(DivergedError, match="nan"):
        pretrainer.update(0, given)
    for name, weight in pretrainer.model.state_dict().items():
        assert torch.equal(weight, before[name])


def test_latents_that_are_not_finite_are_refused_by_the_clips_name() -> None:
    latents = latent_set()
    latents.latents_NCT[3, 0, 0] = np.nan
    latents.latents_NCT[7, 1, 2] = np.inf
    with pytest.raises(DataError, match=f"The latents of 2 clips, such as {latents.keys[3]}, hold NaN"):
        PretrainBatches(latents, Letters(), CONFIG, 2)
