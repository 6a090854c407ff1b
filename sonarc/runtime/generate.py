"""Prompts to audio: the one way from a DiT and a codec to samples, for evaluation and serving alike.

Shapes: B batch, C latent channels, T latent frames, A audio channels, S samples.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Literal

import numpy as np
import torch
from torch import Tensor

from sonarc.codec.interface import Codec
from sonarc.contracts.errors import ModelInputError
from sonarc.dit import Conditioning, DiT
from sonarc.runtime.device import device_of, wait
from sonarc.runtime.edit import Edit
from sonarc.runtime.fast_dit import FastDiT
from sonarc.runtime.graphed import LONGEST, GraphedDiT
from sonarc.samplers import draws, noise_from_seeds, sample_base, sample_generator
from sonarc.text.encoder import TextEncoder

CEILING = 10 ** (-1 / 20)
"""Highest sample of a generated clip: −1 dB full scale, as of the clips that models learn from."""
_SILENCE_FRAMES = 64
"""Digital silence encoded to find its latent: long enough that the middle frame sees no edge."""


@dataclass(frozen=True)
class Sampling:
    """How latents are drawn.

    Attributes:
        kind: `generator`: ping-pong without guidance; `base`: DPM-Solver++ with guidance.
        steps: network evaluations.
        cfg: guidance scale of a base; 1 is none.
        precision: of the network's matrix products.
    """

    kind: Literal["generator", "base"]
    steps: int
    cfg: float = 1.0
    precision: Literal["bfloat16", "float32"] = "bfloat16"


def silence_latent(codec: Codec) -> Tensor:
    """The latent `(C,)` of digital silence."""
    silence_BAS = torch.zeros(1, codec.channels, codec.hop * _SILENCE_FRAMES, device=device_of(codec))
    return codec.encode(silence_BAS)[0, :, _SILENCE_FRAMES // 2]


def true_frames(samples: int, codec: Codec, patch: int) -> int:
    """Latent frames that hold `samples` samples, rounded up to whole tokens of the DiT."""
    return -(-codec.frames(samples) // patch) * patch


@torch.inference_mode()
def generate_audio(
    model: DiT | FastDiT | GraphedDiT,
    codec: Codec,
    encoder: TextEncoder,
    prompts: Sequence[str],
    seconds: Sequence[float],
    seeds: Sequence[int],
    sampling: Sampling,
    *,
    clip_samples: int,
    silence: Callable[[], Tensor] | None = None,
    edit: Edit | None = None,
    negative_prompts: Sequence[str] | None = None,
    before_step: Callable[[], None] | None = None,
) -> list[np.ndarray]:
    """One clip a prompt, cut to its own length.

    A clip that would go beyond `CEILING` is turned down as a whole, never clipped.

    A clip depends on its own prompt, seconds, seed and the sampling; on the rest of the batch only by
    rounding. Frames beyond a clip's end are masked in the DiT and silent in the codec, which is given as many
    of them as it hears, or as a whole clip has.

    Args:
        model: a base or a generator; in bfloat16 its fast form does the same sooner.
        codec: the codec whose latents it was trained on, on the model's device.
        encoder: the text encoder it was trained with.
        prompts: B texts.
        seconds: B lengths, seconds, at most `clip_samples`.
        seeds: B non-negative integers.
        sampling: steps, sampler, guidance.
        clip_samples: samples of a whole training clip.
        silence: gives `silence_latent(codec)`, where the caller keeps it; whole clips do not need it.
        edit: a sound that all clips begin from.
        negative_prompts: B texts that a guided base moves away from, in place of the null text.
        before_step: called before every evaluation of the network; what it raises ends the work.

    Returns:
        B arrays of float32 samples `(A, S)`.

    Raises:
        ModelInputError: numbers of prompts, seconds and seeds differ, a length is out of range, the sound to
            begin from does not fit, or a generator is asked for guidance.
    """
    if not len(prompts) == len(seconds) == len(seeds):
        raise ModelInputError(
            f"{len(prompts)} prompts came with {len(seconds)} lengths and {len(seeds)} seeds.", "Give one of each."
        )
    samples = [_samples(s, codec.sample_rate, clip_samples) for s in seconds]
    if sampling.kind == "generator" and (sampling.cfg != 1 or negative_prompts is not None):
        raise ModelInputError("A generator takes neither guidance nor a negative prompt.", "Leave them away.")
    device, patch = device_of(model), model.config.patch
    frames = [true_frames(n, codec, patch) for n in samples]
    mask_BT = (torch.arange(max(frames)) < torch.tensor(frames)[:, None]).to(device)
    cond = Conditioning(encoder(prompts), torch.tensor(list(seconds), dtype=torch.float32)).to(device)
    negative = None if negative_prompts is None else cond.with_text(encoder(negative_prompts).to(device))
    whole = min(frames) == max(frames)
    if isinstance(model, GraphedDiT) and edit is None and before_step is None and sampling.steps <= LONGEST:
        shape = (model.config.latent_channels, max(frames))
        noise = [noise_from_seeds(seeds, shape, draw) for draw in range(draws(sampling.kind, sampling.steps))]
        z_BCT = model.trajectory(
            sampling.kind,
            torch.stack(noise).to(device),
            cond,
            None if whole else mask_BT,
            steps=sampling.steps,
            cfg=sampling.cfg,
            negative=negative,
        )
    else:
        start, known = (None, None) if edit is None else edit.prepare(codec, mask_BT)
        sample: Callable[..., Tensor] = sample_generator
        if sampling.kind == "base":
            sample = partial(sample_base, cfg=sampling.cfg, negative=negative)
        # The fast forms are in bfloat16 already.
        casts = sampling.precision == "bfloat16" and isinstance(model, DiT)
        with torch.autocast(device.type, torch.bfloat16, enabled=casts):
            z_BCT = sample(
                _asked(model, device, masked=not whole, before_step=before_step),
                cond,
                seeds,
                mask_BT,
                steps=sampling.steps,
                start=start,
                known=known,
                channels=model.config.latent_channels,
            )
    heard = min(z_BCT.shape[2] + codec.reach, true_frames(clip_samples, codec, patch))
    whole_BCT = z_BCT.float()
    if not whole or heard > z_BCT.shape[2]:
        silence_C = silence_latent(codec) if silence is None else silence()
        whole_BCT = silence_C[None, :, None].repeat(len(prompts), 1, heard)
        whole_BCT[:, :, : z_BCT.shape[2]] = torch.where(mask_BT[:, None], z_BCT.float(), silence_C[None, :, None])
    audio_BAS = codec.decode(whole_BCT).float().cpu().numpy()
    return [_turned_down(audio_AS[:, :n]) for audio_AS, n in zip(audio_BAS, samples, strict=True)]


def _asked(
    model: DiT | FastDiT | GraphedDiT,
    device: torch.device,
    *,
    masked: bool,
    before_step: Callable[[], None] | None,
) -> Callable[..., Tensor]:
    """The model, which is shown a mask only where it hides something, and whose steps can be waited for."""

    def velocity(x_BCT: Tensor, t_B: Tensor, cond: Conditioning, *, mask_BT: Tensor | None = None) -> Tensor:
        if before_step is not None:
            wait(device)  # the step before, which otherwise may only be queued
            before_step()
        return model(x_BCT, t_B, cond, mask_BT=mask_BT if masked else None)

    return velocity


def _turned_down(clip_AS: np.ndarray) -> np.ndarray:
    peak = float(np.abs(clip_AS).max())
    gain = CEILING / peak if np.isfinite(peak) and peak > CEILING else 1.0
    return np.ascontiguousarray(clip_AS * np.float32(gain))


def _samples(seconds: float, sample_rate: int, clip_samples: int) -> int:
    samples = round(seconds * sample_rate) if np.isfinite(seconds) else 0
    if not 1 <= samples <= clip_samples:
        raise ModelInputError(
            f"A length of {seconds} s was asked for.",
            f"Ask for more than 0 and at most {clip_samples / sample_rate:.3f} s.",
        )
    return samples
