"""Training of the spectral codec: resumable, and annealed to the time it is given.

Every random draw is a function of (seed, step), so a resumed run goes on exactly where it stopped: the state is
the weights, the optimizer's moments, the step and the seconds spent.
"""

from __future__ import annotations

import json
import math
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from safetensors.torch import load_file, save_file
from torch import Tensor

from sonarc.codec import losses
from sonarc.codec.config import CodecTrainConfig
from sonarc.codec.linear_start import start_linear
from sonarc.codec.package import load_codec
from sonarc.codec.spectral import SpectralCodec
from sonarc.codec.stft import mid_side
from sonarc.contracts.errors import CheckpointError, DataError
from sonarc.contracts.hashing import sha256_json

KL_WARMUP_STEPS = 500  # from a linear start the latents are made useful first, and compact then

START_STEP = 1 << 40  # the crops of the linear start are drawn like those of steps that no run reaches

StepReport = Callable[[int, float, dict[str, float]], None]
"""Called after a step with the step's number, the part of the run that is done (0 to 1) and the loss terms."""


@dataclass(frozen=True)
class TrainedCodec:
    """What a training run leaves."""

    codec: SpectralCodec
    steps: int
    seconds: float
    """Wall time of the training, all attempts."""


class Clips(Protocol):
    """Stereo clips `(N, 2, S)`, int16 or float: an array in memory or mapped from disk."""

    @property
    def shape(self) -> tuple[int, ...]: ...

    @property
    def dtype(self) -> np.dtype[Any]: ...

    def __getitem__(self, index: int) -> NDArray[np.generic]: ...


@dataclass(frozen=True)
class Sources:
    """Which clips come from which source, so that a small one can be drawn as often as a large one."""

    members: tuple[NDArray[np.int64], ...]

    @classmethod
    def of(cls, names: Sequence[str]) -> Sources:
        """Clips grouped by their source's name."""
        labels = np.asarray(names)
        return cls(tuple(np.flatnonzero(labels == name) for name in sorted(set(names))))

    def draw(self, balance: float, rng: np.random.Generator) -> int:
        """A clip: with probability `balance` of a source drawn evenly, else of all."""
        if rng.random() < balance:
            return int(rng.choice(self.members[int(rng.integers(len(self.members)))]))
        return int(rng.integers(sum(len(some) for some in self.members)))


def _crop(clips: Clips, sources: Sources, config: CodecTrainConfig, rng: np.random.Generator) -> NDArray[np.float32]:
    clip = clips[sources.draw(config.balance, rng)]
    start = int(rng.integers(clip.shape[-1] - config.crop + 1))
    crop = np.asarray(clip[:, start : start + config.crop], dtype=np.float32)
    if clips.dtype == np.int16:
        crop = crop / 32768.0
    gain = 10 ** (rng.uniform(-config.gain_db, config.gain_db) / 20)
    if rng.random() < 0.5:
        crop = crop[::-1]
    return crop * np.float32(gain if rng.random() < 0.5 else -gain)


def draw_batch(clips: Clips, sources: Sources, config: CodecTrainConfig, step: int) -> Tensor:
    """The batch `(B, 2, crop)` of a step: random crops, gains, channel order and polarity; some mixed of two."""
    rng = np.random.default_rng((config.seed, step))
    batch = []
    for _ in range(config.batch):
        crop = _crop(clips, sources, config, rng)
        if rng.random() < config.mix:
            crop = crop + _crop(clips, sources, config, rng)
        batch.append(crop / max(1.0, float(np.abs(crop).max())))
    return torch.from_numpy(np.stack(batch).astype(np.float32))


def codec_loss(
    codec: SpectralCodec, audio_BAS: Tensor, config: CodecTrainConfig, step: int, part: int = 0
) -> tuple[Tensor, dict[str, float]]:
    """The weighted loss of part of a step's batch, and its terms."""
    generator = torch.Generator().manual_seed((config.seed * 1_000_003 + step) * 64 + part)
    target = codec.spectrum(audio_BAS)
    with torch.autocast("cpu", torch.bfloat16):
        with torch.set_grad_enabled(config.learns == "all"):
            mean, log_var = codec.encoder(target)
        latent = mean
        if config.learns == "all":  # a decoder alone learns from what it will be given, the posterior's mean
            latent = mean + (0.5 * log_var).exp() * torch.randn(mean.shape, generator=generator)
        spectrum = codec.decoder(latent)
    audio = codec.synthesize(spectrum)
    # One resolution on left and right, another on mid and side: the cost of one on all four.
    first, second = torch.randperm(len(losses.RESOLUTIONS), generator=generator)[:2].tolist()
    left_right = losses.multi_resolution(audio, audio_BAS, losses.RESOLUTIONS[first])
    middle_side = losses.multi_resolution(mid_side(audio), mid_side(audio_BAS), losses.RESOLUTIONS[second])
    terms = {
        **{name: 0.5 * (left_right[name] + middle_side[name]) for name in left_right},
        "head_magnitude": losses.head_magnitude(spectrum, target),
        "phase": losses.phase(spectrum, target, codec.config.phase_bins),
        "kl": losses.kl_divergence(mean, log_var),
    }
    weights = {name: getattr(config.loss, name) for name in terms}
    if not config.start:
        weights["kl"] *= min(1.0, step / KL_WARMUP_STEPS)
    total = sum((weights[name] * term for name, term in terms.items()), torch.zeros(()))
    return total, {"loss": float(total.detach()), **{name: float(term.detach()) for name, term in terms.items()}}


def _learners(codec: SpectralCodec, config: CodecTrainConfig) -> dict[str, torch.nn.Parameter]:
    """The parameters that learn, by name."""
    among = codec.DECODER if config.learns == "decoder" else ""
    return {name: parameter for name, parameter in codec.named_parameters() if name.startswith(among)}


def _groups(learners: dict[str, torch.nn.Parameter], linear_share: float) -> list[dict[str, Any]]:
    """Parameters by their share of the learning rate."""
    blocks = [p for name, p in learners.items() if "blocks" in name]
    linear = [p for name, p in learners.items() if "blocks" not in name]
    return [{"params": blocks, "share": 1.0}, {"params": linear, "share": linear_share}]


def _learning_rate(config: CodecTrainConfig, step: int, done: float) -> float:
    warm = min(1.0, (step + 1) / max(1, config.warmup_steps))
    return config.lr * warm * 0.5 * (1.0 + math.cos(math.pi * min(1.0, done)))


class _Run:
    """The state of a training run and its folder."""

    def __init__(self, config: CodecTrainConfig, folder: Path) -> None:
        self.config, self.folder = config, folder
        torch.manual_seed(config.seed)
        self.codec = SpectralCodec(config.model)
        self.learners = _learners(self.codec, config)
        self.optimizer = torch.optim.AdamW(
            _groups(self.learners, config.linear_share),
            lr=config.lr,
            betas=config.betas,
            weight_decay=config.weight_decay,
            fused=True,
        )
        self.step = 0
        self.seconds = 0.0
        # A run may be given more time; whatever else shapes it must not change on the way.
        self.identity = sha256_json(config.model_dump(mode="json", exclude={"steps", "seconds", "save_every"}))

    @property
    def done(self) -> float:
        by_steps = self.step / self.config.steps if self.config.steps else 0.0
        by_seconds = self.seconds / self.config.seconds if self.config.seconds else 0.0
        return max(by_steps, by_seconds)

    def accumulate(self, audio_BAS: Tensor) -> dict[str, float]:
        """Set the gradients of a batch and return its loss terms.

        Each thread takes a slice of the batch through the whole model on its own. Threads inside single
        operations would meet thousands of times a step, and wait whenever another process holds a core.
        """
        parameters = list(self.learners.values())

        def part(index: int, audio: Tensor) -> tuple[tuple[Tensor, ...], dict[str, float]]:
            torch.set_num_threads(1)
            loss, terms = codec_loss(self.codec, audio, self.config, self.step, index)
            return torch.autograd.grad(loss, parameters), terms

        slices = audio_BAS.chunk(self.config.threads)
        with ThreadPoolExecutor(len(slices)) as pool:
            parts = list(pool.map(part, range(len(slices)), slices))
        for i, parameter in enumerate(parameters):
            parameter.grad = sum((gradients[i] for gradients, _ in parts[1:]), parts[0][0][i]) / len(parts)
        return {name: sum(terms[name] for _, terms in parts) / len(parts) for name in parts[0][1]}

    def save(self) -> None:
        """Write the state; `train.json` comes last and names the step's file, so a stop in between does no harm."""
        self.folder.mkdir(parents=True, exist_ok=True)
        tensors = {f"model.{name}": tensor.contiguous() for name, tensor in self.codec.state_dict().items()}
        for name, parameter in self.learners.items():
            for key, value in self.optimizer.state.get(parameter, {}).items():
                tensors[f"{key}.{name}"] = value
        file = self.folder / f"state-{self.step}.safetensors"
        save_file(tensors, file)
        facts = {"identity": self.identity, "step": self.step, "seconds": self.seconds, "file": file.name}
        fresh = self.folder / "train.json.new"
        fresh.write_text(json.dumps(facts))
        fresh.replace(self.folder / "train.json")
        for old in self.folder.glob("state-*.safetensors"):
            if old != file:
                old.unlink()

    def start(self, clips: Clips, sources: Sources) -> None:
        """Go on from the folder's state, or begin at another codec, or at the best linear one of some crops."""
        manifest = self.folder / "train.json"
        if not manifest.exists():
            if self.config.start:
                self.codec.load_state_dict(_start_weights(self.config))
            else:
                batches = -(-self.config.start_crops // self.config.batch)
                some = [draw_batch(clips, sources, self.config, START_STEP + i) for i in range(batches)]
                start_linear(self.codec, some)
            self.save()
            return
        facts = json.loads(manifest.read_text())
        if facts["identity"] != self.identity:
            raise CheckpointError(
                f"The training state in {self.folder} was made with other settings.",
                "Give the settings it was started with, or another folder.",
            )
        tensors = load_file(self.folder / facts["file"])
        self.codec.load_state_dict({k[6:]: v for k, v in tensors.items() if k.startswith("model.")})
        for name, parameter in self.learners.items():
            self.optimizer.state[parameter] = {
                key: tensors[f"{key}.{name}"] for key in ("step", "exp_avg", "exp_avg_sq")
            }
        self.step, self.seconds = facts["step"], facts["seconds"]


def _start_weights(config: CodecTrainConfig) -> dict[str, Tensor]:
    codec = load_codec(config.start)
    if not isinstance(codec, SpectralCodec) or codec.config != config.model:
        raise CheckpointError(
            f"The codec {config.start} has another shape than the one to be trained.",
            "Train with its `model` settings.",
        )
    return codec.state_dict()


def train_codec(
    clips: Clips,
    config: CodecTrainConfig,
    folder: Path,
    report: StepReport | None = None,
    sources: Sequence[str] | None = None,
) -> TrainedCodec:
    """Train a codec, or go on with the run whose state `folder` holds.

    Args:
        clips: training clips `(N, 2, S)`, int16 or float in [-1, 1], S at least `config.crop`.
        config: the run's settings.
        folder: where the resumable state lives (safetensors and JSON).
        report: called after every step.
        sources: the name of each clip's source, for `config.balance`; None: all are of one.

    Returns:
        The trained codec with its latents' mean and deviation set, and what it took.

    Raises:
        DataError: clips of the wrong shape or too short.
        CheckpointError: `folder` holds the state of other settings, or the loss became NaN.
    """
    if len(clips.shape) != 3 or clips.shape[1] != 2 or clips.shape[0] == 0 or clips.shape[2] < config.crop:
        raise DataError(
            f"The codec trains on clips of shape (N, 2, at least {config.crop}), not {tuple(clips.shape)}.",
            "Use stereo clips that are longer, or set a smaller crop.",
        )
    run, origin = _Run(config, folder), Sources.of(sources or [""] * clips.shape[0])
    run.start(clips, origin)
    run.codec.train()
    saved = clock = time.monotonic()
    while run.done < 1.0:
        for group in run.optimizer.param_groups:
            group["lr"] = group["share"] * _learning_rate(config, run.step, run.done)
        terms = run.accumulate(draw_batch(clips, origin, config, run.step))
        if not math.isfinite(terms["loss"]):
            raise CheckpointError(
                f"The codec's loss became {terms['loss']} at step {run.step}.",
                "Go on from the saved state with a lower learning rate.",
            )
        norm = torch.nn.utils.clip_grad_norm_(run.learners.values(), config.grad_clip)
        run.optimizer.step()
        now = time.monotonic()
        run.step, run.seconds, clock = run.step + 1, run.seconds + now - clock, now
        if report:
            report(run.step, min(1.0, run.done), {**terms, "grad_norm": float(norm)})
        if now - saved > config.save_every:
            run.save()
            saved = now
    run.save()
    if config.learns == "all":
        calibrate(run.codec, clips, config)
    return TrainedCodec(run.codec.eval(), run.step, run.seconds)


@torch.no_grad()
def calibrate(codec: SpectralCodec, clips: Clips, config: CodecTrainConfig, count: int = 256) -> None:
    """Set the mean and deviation by which the codec standardises each latent channel, from `count` clips."""
    codec.latent_mean.zero_()
    codec.latent_std.fill_(1.0)
    scale = 1 / 32768.0 if clips.dtype == np.int16 else 1.0
    chosen = np.linspace(0, clips.shape[0] - 1, min(count, clips.shape[0])).astype(int)
    latents = torch.cat(
        [codec.encode(torch.from_numpy(np.asarray(clips[int(i)], dtype=np.float32) * scale)[None]) for i in chosen],
        dim=-1,
    )
    codec.latent_mean.copy_(latents.mean(dim=(0, 2))[:, None])
    codec.latent_std.copy_(latents.std(dim=(0, 2)).clamp_min(1e-3)[:, None])
