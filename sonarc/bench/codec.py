"""How well a codec keeps held-out audio: recorded and rendered clips apart, beside what real clips score.

Distances are taken in a PCA basis of real clips; `floor` is what as many real train clips score against the same real
held-out clips. With few clips all distances are large: compare with the floor, not across kinds.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from importlib.util import find_spec
from typing import Literal

import numpy as np
import soxr
import torch
from numpy.typing import NDArray

from sonarc.bench.sheet import BenchRow, BenchSheet, measured
from sonarc.codec.fidelity import decode_real_time_factor, reconstruct, reconstruction_figures
from sonarc.codec.interface import Codec
from sonarc.codec.package import load_codec, stored_bytes
from sonarc.contracts.dataset import Split
from sonarc.contracts.errors import DataError
from sonarc.contracts.machine import this_machine
from sonarc.data.reader import read_clips, read_index
from sonarc.metrics.embedders import load_embedder
from sonarc.metrics.embedders.clap import load_clap
from sonarc.metrics.embedders.interface import Audio, Embeddings
from sonarc.metrics.frechet import fit_pca, frechet_distance, gaussian
from sonarc.metrics.listening import Ears
from sonarc.metrics.pitch import cents, pitch_of
from sonarc.metrics.probe import ClassProbe, class_of

MOST = 512
"""Held-out clips of a kind."""
TRAIN = 2_000
COMPONENTS = 64
CENTS, HARMONICITY_DB = 20.0, 3.0
TONAL = 0.3
"""Share of frames with a pitch from which a clip counts as tonal."""
JUDGED = 24
"""Clips that the slow models of hearing judge."""
JUDGE_RATE = 48_000
WANTED_FD = {"fd_yamnet": 10.0}
SEED = 0


@dataclass(frozen=True)
class _Kind:
    """Held-out clips of one kind of audio: their classes, facts, true lengths in samples, and audio."""

    name: str
    concepts: list[str]
    frames: list[int]
    clips_NAS: Audio


def measure(dataset_uri: str, codec_uri: str, threads: int = 2) -> BenchSheet:
    """The sheet `codec` of a codec on a dataset's test split.

    Raises:
        DataError: the split holds no clips.
    """
    torch.set_num_threads(threads)
    codec = load_codec(codec_uri)
    ears = _ears(codec, threads)
    train_concepts, train = _heard(ears, dataset_uri, "train", TRAIN)
    probe = ClassProbe.fit(train, [class_of(concept) for concept in train_concepts], ("aisfx", "yamnet"))
    rows: list[BenchRow] = []
    for kind in _kinds(dataset_uri):
        own = [n for n, c in enumerate(train_concepts) if _kind_of(c) == kind.name]
        rows += _rows(codec, ears, probe, kind, {name: vectors[own] for name, vectors in train.items()})
    samples = kind.clips_NAS.shape[-1]
    speeds = [decode_real_time_factor(codec, samples) for _ in range(5)]
    rows.append(measured("decode_realtime", speeds, "s/s", "higher", wanted=120))
    rows.append(measured("file_mb", [stored_bytes(codec) / 1e6], "MB", "lower", wanted=30))
    rows.append(measured("latent_hz", [codec.sample_rate / codec.hop], "Hz", "lower", wanted=43.1))
    return BenchSheet(
        name="codec",
        machine=this_machine(),
        versions={"torch": torch.__version__, "codec": codec.sha256[:16]},
        command=f"python -m sonarc.bench codec --dataset <dataset> --codec {codec_uri}",
        rows=tuple(rows),
    )


def _ears(codec: Codec, threads: int) -> Ears:
    embedders = [load_embedder(name, threads=threads) for name in ("aisfx", "yamnet")]
    return Ears(embedders, load_clap("clap-v1", threads=threads), 0, codec.sample_rate)


def _kind_of(concept: str) -> str:
    return "rendered" if json.loads(concept).get("kind") == "score" else "recorded"


def _chosen(dataset_uri: str, split: Split, most: int) -> list[str]:
    keys: list[str] = read_index(dataset_uri, split)["key"].to_pylist()
    if not keys:
        raise DataError(f"The {split} split of {dataset_uri} holds no clips.", "Ingest more groups.")
    return [keys[n] for n in sorted(np.random.default_rng(SEED).permutation(len(keys))[:most])]


def _heard(ears: Ears, dataset_uri: str, split: Split, most: int) -> tuple[list[str], dict[str, Embeddings]]:
    """Facts and vectors of some clips, every recorded one and rendered ones up to `most`."""
    index = read_index(dataset_uri, split).select(["key", "concept"]).to_pylist()
    recorded = [row["key"] for row in index if _kind_of(row["concept"]) == "recorded"]
    keys = sorted({*recorded, *_chosen(dataset_uri, split, most)})
    concepts, parts, batch = list[str](), list[dict[str, Embeddings]](), list[Audio]()
    for clip in read_clips(dataset_uri, split, keys):
        concepts.append(clip.row["concept"])
        batch.append(clip.audio_AS)
        if len(batch) == 64:
            parts.append(_vectors(ears, np.stack(batch)))
            batch = []
    if batch:
        parts.append(_vectors(ears, np.stack(batch)))
    return concepts, {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}


def _vectors(ears: Ears, clips_NAS: Audio) -> dict[str, Embeddings]:
    parts = [
        {embedder.name: embedder(part) for embedder in ears.embedders}
        for part in (clips_NAS[start : start + 32] for start in range(0, len(clips_NAS), 32))
    ]
    return {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}


def _kinds(dataset_uri: str) -> Iterator[_Kind]:
    clips: dict[str, list[tuple[str, int, Audio]]] = {"recorded": [], "rendered": []}
    for clip in read_clips(dataset_uri, "test"):
        some = clips[_kind_of(clip.row["concept"])]
        if len(some) < MOST:
            some.append((clip.row["concept"], clip.row["frames"], clip.audio_AS))
    for name, some in clips.items():
        if some:
            yield _Kind(name, [c for c, _, _ in some], [f for _, f, _ in some], np.stack([a for _, _, a in some]))


def _row(
    kind: _Kind,
    name: str,
    value: float,
    unit: str,
    better: Literal["lower", "higher"],
    *,
    wanted: float | None = None,
    floor: float | None = None,
    n: int | None = None,
) -> BenchRow:
    made = measured(f"{name}_{kind.name}", [value], unit, better, wanted=wanted, floor=floor)
    return made.model_copy(update={"n": len(kind.clips_NAS) if n is None else n})


def _rows(codec: Codec, ears: Ears, probe: ClassProbe, kind: _Kind, train: dict[str, Embeddings]) -> Iterator[BenchRow]:
    with torch.inference_mode():
        audio = torch.from_numpy(kind.clips_NAS)
        rebuilt_NAS = reconstruct(codec, audio).numpy()
        figures = reconstruction_figures(codec, audio)
    for clip_AS, frames in zip(rebuilt_NAS, kind.frames, strict=True):
        clip_AS[:, frames:] = 0.0  # what lies behind a clip's end is nobody's to hear
    real, got = _vectors(ears, kind.clips_NAS), _vectors(ears, rebuilt_NAS)

    row = partial(_row, kind)
    for name in real:
        pca = fit_pca(np.concatenate([real[name], train[name]]), COMPONENTS)
        reference = gaussian(pca(real[name]))
        floor = frechet_distance(gaussian(pca(train[name])), reference)
        distance = frechet_distance(gaussian(pca(got[name])), reference)
        yield row(f"fd_{name}", distance, "", "lower", wanted=WANTED_FD.get(f"fd_{name}"), floor=floor)
    classes = [class_of(concept) for concept in kind.concepts]
    before, after = np.nanmean(probe.right(real, classes)), np.nanmean(probe.right(got, classes))
    yield row("accuracy", float(after), "", "higher", floor=float(before))
    yield row("accuracy_kept", float(after / before), "", "higher", wanted=0.95, floor=1.0)
    yield from _partials(kind, rebuilt_NAS, codec.sample_rate)
    yield row("third_octave_max", figures["spectrum_deviation_max_db"], "dB", "lower", wanted=1.5, floor=0.0)
    yield row("side_energy", figures["side_energy_gap_db"], "dB", "lower", floor=0.0)
    yield row("log_magnitude", figures["log_magnitude_distance"], "nepers", "lower", floor=0.0)
    yield row("si_sdr", figures["si_sdr_db"], "dB", "higher")
    yield from _judged(kind, rebuilt_NAS, codec.sample_rate)


def _partials(kind: _Kind, rebuilt_NAS: Audio, sample_rate: int) -> Iterator[BenchRow]:
    """Pitch and harmonicity of tonal single lines, against the original's."""
    in_tune, kept = list[bool](), list[bool]()
    for concept, before_AS, after_AS in zip(kind.concepts, kind.clips_NAS, rebuilt_NAS, strict=True):
        if json.loads(concept).get("form") == "chorale":
            continue
        before, after = pitch_of(before_AS, sample_rate), pitch_of(after_AS, sample_rate)
        if before.voiced < TONAL:
            continue
        both = np.isfinite(before.hertz_N) & np.isfinite(after.hertz_N)
        gap = np.abs(cents(after.hertz_N[both], before.hertz_N[both]))
        in_tune.append(bool(both.any()) and float(np.median(gap)) <= CENTS)
        lost = before.harmonicity_N[both] - after.harmonicity_N[both]
        kept.append(bool(both.any()) and abs(float(np.median(lost))) <= HARMONICITY_DB)
    if in_tune:
        n = len(in_tune)
        yield _row(kind, "in_tune", float(np.mean(in_tune)), "", "higher", wanted=0.95, floor=1.0, n=n)
        yield _row(kind, "harmonicity_kept", float(np.mean(kept)), "", "higher", floor=1.0, n=n)


def _judged(kind: _Kind, rebuilt_NAS: Audio, sample_rate: int) -> Iterator[BenchRow]:
    """Models of hearing, where their packages are installed (`pip install sonarc[listening]`)."""
    chosen = np.random.default_rng(SEED).permutation(len(rebuilt_NAS))[:JUDGED]
    pairs = [(_at(kind.clips_NAS[n], sample_rate), _at(rebuilt_NAS[n], sample_rate)) for n in chosen]
    for name, judge in _judges().items():
        scores = [judge(before, after) for before, after in pairs]
        yield _row(kind, name, float(np.median(scores)), "MOS", "higher", floor=judge(*pairs[0][:1] * 2), n=len(pairs))


def _at(clip_AS: Audio, sample_rate: int) -> NDArray[np.float32]:
    mono = soxr.resample(clip_AS.mean(axis=0), sample_rate, JUDGE_RATE)
    return np.asarray(mono, dtype=np.float32)


def _judges() -> dict[str, Callable[[NDArray[np.float32], NDArray[np.float32]], float]]:
    judges: dict[str, Callable[[NDArray[np.float32], NDArray[np.float32]], float]] = {}
    if find_spec("zimtohrli") is not None:
        from zimtohrli import mos_from_signals

        judges["zimtohrli"] = lambda before, after: float(mos_from_signals(before, after))
    if find_spec("visqol") is not None:
        from visqol import VisqolApi

        visqol = VisqolApi()
        visqol.create(mode="audio")
        judges["visqol"] = lambda before, after: float(
            visqol.measure_from_arrays(before.astype(np.float64), after.astype(np.float64), JUDGE_RATE).moslqo
        )
    return judges
