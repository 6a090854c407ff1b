"""Training of the in-domain CLAP on the train split, and its card.

    train_clap(dataset_clips(uri), out)        # what `sonarc train clap --dataset URI` runs

Symmetric InfoNCE (Radford et al., 2021; Elizalde et al., 2023) with negatives that differ in concept:
two clips of a batch that share their facts are no negatives of each other, however they are worded.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import safetensors.torch
import torch
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict, Field
from torch import Tensor
from torch.nn import functional as F

from sonarc.contracts import store
from sonarc.contracts.config import TextConfig
from sonarc.contracts.dataset import Split
from sonarc.contracts.errors import DataError
from sonarc.data.reader import read_clips
from sonarc.metrics.embedders.clap import Clap, ClapConfig, ClapNetwork, LogMel, clap_sha256
from sonarc.text import TextEncoder, load_text_encoder


class ClapTraining(BaseModel):
    """How a CLAP is trained."""

    model_config = ConfigDict(extra="forbid", frozen=True, use_attribute_docstrings=True)

    epochs: int = Field(default=8, ge=1)
    """Passes over the train split."""
    batch: int = Field(default=128, ge=4)
    """Clips a step; each is a negative of the others."""
    lr: float = Field(default=2e-3, gt=0)
    """AdamW peak learning rate, cosine to zero after a tenth of warm-up."""
    weight_decay: float = Field(default=0.05, ge=0)
    mask_bands: int = Field(default=12, ge=0)
    """Widest band of mel bins hidden from a training clip (SpecAugment)."""
    mask_frames: int = Field(default=16, ge=0)
    """Longest run of frames hidden."""
    shift_frames: int = Field(default=3, ge=0)
    """A clip starts up to this many frames later."""
    tilt: float = Field(default=0.15, ge=0)
    """Largest slope added from the lowest to the highest band, in units of the log-mel's [-1, 1]."""
    text_dropout: float = Field(default=0.1, ge=0, lt=1)
    """Share of a caption's tokens hidden."""
    seed: int = Field(default=0, ge=0)


@dataclass(frozen=True)
class CaptionedClip:
    """A clip to learn from: audio `(A, S)` at the CLAP's sample rate, zero-padded, equally long in a dataset."""

    audio_AS: NDArray[np.float32]
    captions: Sequence[str]
    concept: str
    licence: str = ""


Clips = Callable[[Split], Iterable[CaptionedClip]]
"""`clips(split)` gives the clips of a split."""
Progress = Callable[[int, int, Mapping[str, float]], None]
"""`progress(step, steps, {"loss": …})`."""


@dataclass(frozen=True)
class ClapReport:
    """What came out.

    Attributes:
        sha256: the CLAP's hash, as scores carry it.
        train_clips: clips learnt from.
        figures: held-out figures, see `retrieval`.
    """

    sha256: str
    train_clips: int
    figures: dict[str, float]


@dataclass(frozen=True)
class _Features:
    mels_NMT: Tensor
    """float16."""
    captions: list[list[str]]
    concepts: list[str]
    licences: set[str]

    def __len__(self) -> int:
        return len(self.concepts)


def train_clap(
    clips: Clips,
    out: str,
    *,
    training: ClapTraining | None = None,
    config: ClapConfig | None = None,
    command: str = "sonarc train clap --dataset URI",
    progress: Progress | None = None,
) -> ClapReport:
    """Train a CLAP on the train split and write `model.safetensors`, `config.json` and `card.md` into `out`.

    Args:
        clips: gives the clips of a split. Nothing but figures is taken from the test split.
        out: location of the CLAP's folder.
        command: how it was started, for the card.

    Raises:
        DataError: fewer train clips than one batch, or no test clips.
    """
    training = training or ClapTraining()
    encoder = load_text_encoder(TextConfig())
    config = (config or ClapConfig()).model_copy(
        update={"text_encoder": encoder.name, "text_encoder_sha256": encoder.sha256, "text_width": encoder.width}
    )
    train, test = (_features(clips(split), config) for split in ("train", "test"))
    if len(train) < training.batch or len(test) < 2:
        raise DataError(
            f"{len(train)} train and {len(test)} test clips are too few for a CLAP in batches of {training.batch}.",
            "Give a larger dataset or a smaller batch.",
        )
    torch.manual_seed(training.seed)
    network = ClapNetwork(config)
    _fit(network, train, encoder, training, progress)
    weights = {name: tensor.half().contiguous() for name, tensor in _floats(network).items()}
    data = safetensors.torch.save(weights)
    clap = Clap(config, weights, clap_sha256(config, data), encoder, threads=torch.get_num_threads())
    figures = retrieval(clap.embed_mels(test.mels_NMT), clap, test.captions, test.concepts)
    store.write_bytes(store.join(out, "model.safetensors"), data)
    store.write_bytes(store.join(out, "card.md"), _card(clap, training, train, test, figures, command).encode())
    store.write_json(store.join(out, "config.json"), config.model_dump(mode="json"))
    return ClapReport(clap.sha256, len(train), figures)


def dataset_clips(uri: str) -> Clips:
    """The clips of the dataset folder at `uri`, for `train_clap`."""

    def clips(split: Split) -> Iterator[CaptionedClip]:
        for clip in read_clips(uri, split):
            row = clip.row
            yield CaptionedClip(clip.audio_AS, row["captions"], row["concept"], row["licence"])

    return clips


def contrastive_loss(audio_BD: Tensor, text_BD: Tensor, concepts_B: Tensor, scale: Tensor) -> Tensor:
    """Symmetric InfoNCE in which pairs of the same concept are left out of the negatives.

    Args:
        audio_BD, text_BD: unit vectors; row i of both is one clip.
        concepts_B: integer names of the clips' concepts.
        scale: inverse temperature.
    """
    logits_BB = scale * audio_BD @ text_BD.T
    same_BB = concepts_B[:, None] == concepts_B[None, :]
    same_BB.fill_diagonal_(False)
    logits_BB = logits_BB.masked_fill(same_BB, -torch.inf)
    own_B = torch.arange(len(audio_BD), device=audio_BD.device)
    return (F.cross_entropy(logits_BB, own_B) + F.cross_entropy(logits_BB.T, own_B)) / 2


def retrieval(
    audio_NE: NDArray[np.float32], clap: Clap, captions: Sequence[Sequence[str]], concepts: Sequence[str]
) -> dict[str, float]:
    """Held-out figures of a CLAP.

    Returns:
        `r_at_10`: share of captions (one a clip) whose own clip is among the ten nearest;
        `r_at_10_chance`: the same by chance;
        `concept_accuracy`: share of clips whose nearest caption, one of each concept, is their concept's;
        `concept_chance`: the same by chance;
        `forced_choice`: how often a clip is nearer to its own caption than to one of another concept;
        `adherence`: mean cosine of a clip with its own caption.
    """
    text_NE = clap.text([options[0] for options in captions])
    cosine_TA = text_NE @ audio_NE.T
    names, which = np.unique(np.asarray(concepts), return_inverse=True)
    own = np.diag(cosine_TA)
    rank = (cosine_TA > own[:, None]).sum(axis=1)
    first = np.array([int(np.flatnonzero(which == concept)[0]) for concept in range(len(names))])
    nearest = (audio_NE @ text_NE[first].T).argmax(axis=1)
    other = which[:, None] != which[None, :]
    return {
        "r_at_10": float((rank < 10).mean()),
        "r_at_10_chance": min(1.0, 10 / len(own)),
        "concept_accuracy": float((nearest == which).mean()),
        "concept_chance": 1 / len(names),
        "forced_choice": float((own[None, :] > cosine_TA)[other].mean()),
        "adherence": float(own.mean()),
    }


def _fit(
    network: ClapNetwork, train: _Features, encoder: TextEncoder, training: ClapTraining, progress: Progress | None
) -> None:
    rng = np.random.default_rng(training.seed)
    steps_per_epoch = len(train) // training.batch
    steps = training.epochs * steps_per_epoch
    concepts_N = torch.from_numpy(np.unique(np.asarray(train.concepts), return_inverse=True)[1])
    optimizer = torch.optim.AdamW(network.parameters(), lr=training.lr, weight_decay=training.weight_decay, fused=True)
    warmup = max(1, steps // 10)

    def rate(step: int) -> float:
        done = max(0, step - warmup) / (steps - warmup + 1)
        return min((step + 1) / warmup, 0.5 + 0.5 * math.cos(math.pi * done))

    schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, rate)
    network.train().to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    step = 0
    for _ in range(training.epochs):
        order = rng.permutation(len(train))
        for start in range(0, steps_per_epoch * training.batch, training.batch):
            items = order[start : start + training.batch]
            mels_BMT = augment(train.mels_NMT[torch.from_numpy(items)].float(), training, rng)
            captions = [train.captions[item][rng.integers(len(train.captions[item]))] for item in items]
            with torch.autocast("cpu", torch.bfloat16):
                states = encoder(captions)
            hidden = torch.from_numpy(rng.random(states.mask_BL.shape) < training.text_dropout) & states.mask_BL
            hidden[:, 0] = False  # the first token is the encoder's own, so that no prompt is left empty
            states = type(states)(states.tokens_BLE, states.mask_BL & ~hidden)
            with torch.autocast("cpu", torch.bfloat16):
                audio_BD, text_BD = network.audio(mels_BMT), network.text(states)
            loss = contrastive_loss(audio_BD, text_BD, concepts_N[torch.from_numpy(items)], network.scale())
            optimizer.zero_grad()
            loss.backward()  # type: ignore[no-untyped-call]
            torch.nn.utils.clip_grad_norm_(network.parameters(), 1.0)
            optimizer.step()
            schedule.step()
            step += 1
            if progress:
                progress(step, steps, {"loss": loss.item(), "scale": network.scale().item()})
    network.eval()


def augment(mels_BMT: Tensor, training: ClapTraining, rng: np.random.Generator) -> Tensor:
    """Log-mels, later by a few frames, tilted, and with a band and a run of frames hidden; none changes the facts."""
    batch, mels, frames = mels_BMT.shape
    out = torch.full_like(mels_BMT, -1.0)
    for i, mel_MT in enumerate(mels_BMT):
        shift = int(rng.integers(training.shift_frames + 1))
        out[i, :, shift:] = mel_MT[:, : frames - shift]
    slope = torch.from_numpy(rng.uniform(-training.tilt, training.tilt, size=batch).astype(np.float32))
    out = (out + slope[:, None, None] * torch.linspace(-1, 1, mels)[None, :, None]).clamp(-1, 1)
    for i in range(batch):
        band, run = int(rng.integers(training.mask_bands + 1)), int(rng.integers(training.mask_frames + 1))
        low, start = int(rng.integers(mels - band + 1)), int(rng.integers(max(1, frames - run + 1)))
        out[i, low : low + band] = -1.0
        out[i, :, start : start + run] = -1.0
    return out


def _features(clips: Iterable[CaptionedClip], config: ClapConfig) -> _Features:
    log_mel = LogMel(config)
    mels, captions, concepts, licences = [], list[list[str]](), list[str](), set[str]()
    for clip in clips:
        with torch.inference_mode():
            mels.append(log_mel(torch.from_numpy(np.ascontiguousarray(clip.audio_AS))[None])[0].half())
        captions.append(list(clip.captions))
        concepts.append(clip.concept)
        licences.add(clip.licence)
    return _Features(torch.stack(mels) if mels else torch.zeros(0), captions, concepts, licences)


def _floats(network: ClapNetwork) -> dict[str, Tensor]:
    # BatchNorm's counters of batches play no part in inference.
    return {name: value for name, value in network.state_dict().items() if value.is_floating_point()}


def _card(
    clap: Clap,
    training: ClapTraining,
    train: _Features,
    test: _Features,
    figures: Mapping[str, float],
    command: str,
) -> str:
    epochs = f"{training.epochs} epochs, batch {training.batch}, seed {training.seed}"
    licences = ", ".join(sorted(name for name in train.licences if name)) or "not stated"
    return f"""# In-domain CLAP

An audio-text model of Sonarc's own kind of sound: {clap.width}-d unit vectors of 44.1 kHz clips and of
captions. It is trained on this project's train split alone. It is **not** LAION-CLAP: its cosines
compare models within this project and nothing else.

| | |
|---|---|
| command | `{command}` |
| audio tower | residual CNN on {clap.config.mels} log-mel bands, level-invariant |
| text head | attention over frozen {clap.config.text_encoder} token states (`{clap.config.text_encoder_sha256[:16]}`) |
| parameters | {clap.parameters:,}, float16 |
| trained on | {len(train):,} clips of the train split (split by group), {epochs} |
| licences of those clips | {licences} |
| licence of the weights | Apache-2.0 |
| sha256 (config and weights) | `{clap.sha256}` |

Held out: {len(test):,} clips of the test split, whose scores and instruments' recordings are not in training.

| | value | by chance |
|---|---|---|
| R@10, caption to clip | {figures["r_at_10"]:.3f} | {figures["r_at_10_chance"]:.3f} |
| nearest caption has the clip's concept | {figures["concept_accuracy"]:.3f} | {figures["concept_chance"]:.3f} |
| own caption nearer than one of another concept | {figures["forced_choice"]:.3f} | 0.500 |
| mean cosine of a clip with its caption (adherence) | {figures["adherence"]:.3f} | 0 |
"""
