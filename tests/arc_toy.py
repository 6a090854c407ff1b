"""A small world with a known answer: four kinds of latents, each a wave or its opposite. Their mean is nothing,
and nothing is what one step of a flow model gives."""

from __future__ import annotations

import copy
from collections.abc import Callable, Sequence
from functools import cache

import numpy as np
import torch
from torch import Tensor, nn

from sonarc.contracts.config import ArcConfig, DiTConfig, HeadConfig, NoiseConfig, PretrainConfig
from sonarc.data import LatentSet
from sonarc.dit import Conditioning, DiT
from sonarc.samplers import sample_generator
from sonarc.text import TextStates
from sonarc.training import LatentBatch, adamw, clip_gradients, cosine, set_rate
from sonarc.training.pretraining import draw_step, pretrain_loss

CHANNELS, FRAMES, TEXT, KINDS = 4, 16, 8, 4


class ToyEncoder:
    """One fixed random token state a word."""

    name, sha256, width, max_tokens = "toy", "0" * 64, TEXT, 2

    def __call__(self, prompts: Sequence[str]) -> TextStates:
        tokens = torch.zeros(len(prompts), self.max_tokens, TEXT)
        for row, prompt in enumerate(prompts):
            for place, word in enumerate(prompt.split()[: self.max_tokens]):
                tokens[row, place] = _state(word)
        return TextStates(tokens, tokens.any(-1))


@cache
def _state(word: str) -> Tensor:
    return torch.randn(TEXT, generator=torch.Generator().manual_seed(sum(map(ord, word))))


def toy_latents(count: int, seed: int = 0) -> LatentSet:
    """Kind k: a wave of k + 1 periods, upright or upside down, with a little noise; deviation about 1."""
    rng = np.random.default_rng(seed)
    kinds = np.arange(count) % KINDS
    time = np.arange(FRAMES) / FRAMES + np.arange(CHANNELS)[:, None] / CHANNELS
    sign = rng.choice([-1.0, 1.0], (count, 1, 1))
    waves = sign * np.sqrt(2) * np.sin(2 * np.pi * (kinds[:, None, None] + 1) * time)
    return LatentSet(
        latents_NCT=(waves + 0.1 * rng.standard_normal(waves.shape)).astype(np.float16),
        frames_N=np.full(count, FRAMES),
        seconds_N=np.full(count, 0.4, np.float32),
        captions=[[f"wave kind{k}", f"sound kind{k}"] for k in kinds],
        concepts=[f'{{"kind": {k}}}' for k in kinds],
        groups=[str(k) for k in kinds],
        keys=[f"key{i}" for i in range(count)],
        weights_N=np.ones(count),
        hop=1024,
    )


def toy_dit_config() -> DiTConfig:
    return DiTConfig(latent_channels=CHANNELS, width=32, depth=2, heads=2, ff_mult=2, patch=1, cond_width=16)


def toy_arc(**changes: object) -> ArcConfig:
    settings: dict[str, object] = {
        "batch": 32,
        "discriminator_depth": 1,
        "head": HeadConfig(stages=1, kernel=3),
        "lr_generator": 2e-4,
        "lr_discriminator": 4e-4,
        "warmup_steps": 10,
        "generator_delay": 10,
        "ema": 0.95,
    }
    return ArcConfig.model_validate(settings | changes)


class Perceptron(nn.Module):
    """A velocity model that is no transformer: residual layers on a flat clip, with a feature tap."""

    TOKENS, WIDTH = 8, 32
    feature_width = WIDTH

    def __init__(self, depth: int = 3) -> None:
        super().__init__()
        size, flat = self.TOKENS * self.WIDTH, CHANNELS * FRAMES
        self.read = nn.Linear(flat + TEXT + 8, size)
        self.layers = nn.ModuleList(nn.Sequential(nn.SiLU(), nn.Linear(size, size)) for _ in range(depth))
        self.write = nn.Linear(size, flat)

    def tokens(self, frames: int, *, depth: int) -> int:
        return self.TOKENS

    def features(
        self, x_BCT: Tensor, t_B: Tensor, cond: Conditioning, *, depth: int, mask_BT: Tensor | None = None
    ) -> Tensor:
        steer = torch.cat([torch.cos(torch.pi * t_B[:, None] * torch.arange(8)), cond.text.pooled()], dim=1)
        h = self.read(torch.cat([x_BCT.flatten(1), steer], dim=1))
        for layer in self.layers[:depth]:
            h = h + layer(h)
        return h.unflatten(1, (self.TOKENS, self.WIDTH))

    def forward(self, x_BCT: Tensor, t_B: Tensor, cond: Conditioning, *, mask_BT: Tensor | None = None) -> Tensor:
        h = self.features(x_BCT, t_B, cond, depth=len(self.layers))
        return self.write(h.flatten(1)).reshape(x_BCT.shape).to(x_BCT.dtype)

    def trunk(self, depth: int) -> Perceptron:
        cut = copy.deepcopy(self)
        del cut.layers[depth:], cut.write
        return cut


def pretrain_toy(latents: LatentSet, steps: int, make: Callable[[], nn.Module] = Perceptron) -> nn.Module:
    """A base model: rectified flow from scratch."""
    torch.manual_seed(0)
    model, encoder = make(), ToyEncoder()
    config = PretrainConfig(steps=steps, batch=128, lr=3e-3, noise=NoiseConfig(name="uniform"))
    optimizer = adamw(model, lr=config.lr, betas=config.betas, weight_decay=0.0)
    rng = np.random.default_rng(0)
    for step in range(steps):
        items = rng.integers(0, len(latents), config.batch)
        cond = Conditioning(
            encoder([latents.captions[i][0] for i in items]), torch.from_numpy(latents.seconds_N[items])
        )
        x0 = torch.from_numpy(latents.latents_NCT[items].astype(np.float32))
        batch = LatentBatch(x0, torch.ones(len(items), FRAMES).bool(), cond)
        loss = pretrain_loss(model, batch, draw_step(config, step, tuple(x0.shape)))  # type: ignore[arg-type]
        optimizer.zero_grad()
        loss.backward()
        clip_gradients(model.parameters(), 1.0)
        set_rate(optimizer, config.lr * cosine(step, steps, 20))
        optimizer.step()
    return model


def sample_toy(model: nn.Module, latents: LatentSet, steps: int) -> np.ndarray:
    """Latents `(N, C·T)` for the captions of a set."""
    cond = Conditioning(ToyEncoder()([c[0] for c in latents.captions]), torch.from_numpy(latents.seconds_N))
    mask = torch.ones(len(latents), FRAMES).bool()
    x = sample_generator(model, cond, range(len(latents)), mask, steps=steps, channels=CHANNELS)
    return x.flatten(1).numpy()


def toy_model() -> DiT:
    """A DiT no part of which is zero, so that every gradient says something."""
    torch.manual_seed(0)
    model = DiT(toy_dit_config(), TEXT)
    for parameter in model.parameters():
        if not parameter.any():
            nn.init.normal_(parameter, std=0.1)
    return model


def uneven_latents() -> LatentSet:
    """Clips of all lengths: parts of a batch then differ in true frames and in valid scores."""
    made = toy_latents(64)
    made.frames_N[:] = torch.randint(6, 17, (64,), generator=torch.Generator().manual_seed(0)).numpy()
    return made
