"""`sonarc train codec` and `sonarc train clap`: the models that are pinned and shipped, trained on one machine.

Both learn from the train split of a dataset folder and from nothing else, leave a folder with weights, settings
and a card, and go on where they were when started again.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn

from sonarc.contracts import store
from sonarc.contracts.dataset import DatasetManifest, Split, read_dataset
from sonarc.contracts.errors import ConfigError, DataError
from sonarc.contracts.hashing import sha256_json

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

FROM_A_CODEC = {"lr": 2.5e-4, "linear_share": 0.1}
"""Settings where training goes on from a codec: half the rate, and more of it for the layers of the linear start."""
MOST_HELD_OUT = 256
"""Held-out clips of each kind behind the card's figures."""


def _bars() -> Progress:
    return Progress(
        TextColumn("{task.description}"),
        BarColumn(bar_width=40),
        TextColumn("{task.fields[note]}"),
        TimeElapsedColumn(),
        TimeRemainingColumn(),
    )


@dataclass(frozen=True)
class Length:
    """How long a codec is trained: `seconds` of wall time, or `steps`."""

    seconds: float | None
    steps: int | None

    def option(self) -> str:
        """As the command line takes it."""
        return f"--steps {self.steps}" if self.steps else f"--seconds {self.seconds:g}"


def train_codec(dataset_uri: str, out: str, *, length: Length, start: str = "", decoder_only: bool = False) -> str:
    """Train the spectral codec for so long and write its folder to `out`; returns its hash.

    Args:
        start: a codec to go on from; empty: the best linear one.
        decoder_only: keep the encoder of `start`, and so every model trained on its latents.

    Raises:
        ConfigError: only the decoder is to learn, but of no codec. DataError: no train clips, or no held-out ones to
            measure on.
    """
    if decoder_only and not start:
        raise ConfigError("Only the decoder is to learn, but no codec is named whose encoder is kept.", "Add --start.")
    import torch

    from sonarc.codec.card import CodecProvenance, write_card
    from sonarc.codec.config import CodecTrainConfig
    from sonarc.codec.fidelity import decode_real_time_factor, reconstruction_figures
    from sonarc.codec.package import save_codec
    from sonarc.codec.training import train_codec as train

    manifest = read_dataset(dataset_uri)
    learns = "decoder" if decoder_only else "all"
    config = CodecTrainConfig(
        seconds=length.seconds, steps=length.steps, start=start, learns=learns, **(FROM_A_CODEC if start else {})
    )
    shaping = sha256_json(config.model_dump(mode="json", exclude={"seconds", "steps"}))
    state = store.cache_root() / "train" / f"codec-{manifest.sha256()[:16]}-{shaping[:8]}"
    clips, sources = _audio(dataset_uri, "train")
    with _bars() as bars:
        task = bars.add_task("codec", total=1.0, note="")
        made = train(
            clips,
            config,
            state,
            lambda step, done, terms: bars.update(task, completed=done, note=f"step {step}, loss {terms['loss']:.3f}"),
            sources,
        )
    held_out, sources = _audio(dataset_uri, "test")
    figures = {}
    for source in sorted(set(sources)):
        chosen = [n for n, name in enumerate(sources) if name == source][:MOST_HELD_OUT]
        figures[source] = reconstruction_figures(made.codec, torch.from_numpy(held_out[chosen]).float() / 32767)
    provenance = CodecProvenance(
        command=f"sonarc train codec --dataset <dataset> {length.option()}"
        + (f" --start {start}" if start else "")
        + (" --decoder-only" if decoder_only else ""),
        data=_describe(dataset_uri, manifest),
        split="train split by group; figures on the test split",
        steps=made.steps,
        seconds=made.seconds,
    )
    speed = decode_real_time_factor(made.codec, manifest.samples)
    return save_codec(made.codec, out, write_card(made.codec, Path(out).name, provenance, figures, speed))


def train_clap(dataset_uri: str, out: str) -> str:
    """Train the in-domain audio-text model and write its folder to `out`; returns a line about it."""
    from sonarc.metrics.clap_training import dataset_clips
    from sonarc.metrics.clap_training import train_clap as train

    with _bars() as bars:
        task = bars.add_task("clap", total=None, note="")
        report = train(
            dataset_clips(dataset_uri),
            out,
            progress=lambda step, steps, terms: bars.update(
                task, completed=step, total=steps, note=f"loss {terms['loss']:.3f}"
            ),
        )
    return f"{report.sha256[:16]}, from {report.train_clips:,} clips"


def _audio(dataset_uri: str, split: Split) -> tuple[NDArray[np.int16], list[str]]:
    """The clips of a split `(N, A, S)` and the source of each."""
    import numpy as np

    from sonarc.data import read_clips

    manifest = read_dataset(dataset_uri)
    if not manifest.splits[split].clips:
        raise DataError(f"The {split} split of {dataset_uri} holds no clips.", "Ingest more groups.")
    # Ten thousand clips fill half of a small machine's memory: once, not twice.
    clips = np.empty((manifest.splits[split].clips, 2, manifest.samples), np.int16)
    sources = []
    for row_AS, clip in zip(clips, read_clips(dataset_uri, split), strict=True):
        row_AS[:] = clip.audio_AS * 32767
        sources.append(str(clip.row["source"]))
    return clips, sources


def _describe(dataset_uri: str, manifest: DatasetManifest) -> str:
    """What the train split holds: clips by source and licence."""
    from sonarc.data import read_index

    rows = read_index(dataset_uri, "train").select(["source", "licence"]).to_pylist()
    counts = Counter((row["source"], row["licence"] or "no licence stated") for row in rows)
    kinds = ", ".join(f"{n:,} of {source} ({licence})" for (source, licence), n in sorted(counts.items()))
    groups = manifest.splits["train"].groups
    return f"dataset {manifest.sha256()[:16]}, train split: {kinds}; {groups:,} groups"
