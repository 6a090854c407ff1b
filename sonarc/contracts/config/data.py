"""Audio, sources and datasets."""

from __future__ import annotations

from ipaddress import ip_network
from typing import Annotated, Literal, Self

from pydantic import Field, field_validator, model_validator

from sonarc.contracts.config.base import Fraction, NonNegative, Positive, PositiveFloat, Section


class AudioConfig(Section):
    sample_rate: Literal[44_100] = 44_100
    """Samples a second, Hz."""
    channels: Literal[2] = 2
    """Audio channels: left, right."""
    samples: Annotated[int, Field(ge=16_384, multiple_of=8_192)] = 131_072
    """Length of a training clip, samples a channel. Shorter clips are padded and masked."""

    @property
    def seconds(self) -> float:
        """Length of a training clip, seconds."""
        return self.samples / self.sample_rate


Layout = Literal["auto", "audiocaps", "clotho", "fsd50k", "wavcaps", "musiccaps", "song_describer"]


SUBSETS: dict[str, tuple[str, ...]] = {
    "audiocaps": ("train", "val", "test"),
    "clotho": ("development", "validation", "evaluation"),
    "fsd50k": ("dev", "eval"),
    "wavcaps": ("FreeSound", "AudioSet_SL", "BBC_Sound_Effects", "SoundBible"),
    "song_describer": ("valid",),
}
"""Parts of the published datasets, by their own names."""


class ColumnsConfig(Section):
    """What the columns of a table are called. A column that is not there is not stated."""

    path: str = "path"
    """File, relative to the audio's folder, or an HTTPS address; needed."""
    captions: tuple[str, ...] = ("captions",)
    """Columns with captions, at least one there; a cell holds a text, or a list (in text: JSON)."""
    concept: str = "concept"
    """Facts behind the captions: a structure, or JSON."""
    group: str = "group"
    source: str = "source"
    author: str = "author"
    licence: str = "licence"
    url: str = "url"


class SourceConfig(Section):
    name: Annotated[str, Field(pattern=r"^[a-z0-9][a-z0-9_-]{0,63}$")]
    """Short name; it enters the index as `source`."""
    uri: str
    """Folder with audio files and `captions.jsonl`, or a table (.csv, .tsv, .jsonl, .parquet) with a row a file."""
    licence: str = ""
    """Licence of clips that state none themselves."""
    weight: PositiveFloat = 1.0
    """How often a clip of this source is drawn, against 1."""
    layout: Layout = "auto"
    """How the dataset is laid out: as a folder or table of ours, or as that dataset is published."""
    subset: tuple[str, ...] = ()
    """Parts of a published dataset to take, by its own names (AudioCaps: train, val, test; Clotho: development,
    validation, evaluation; FSD50K: dev, eval; WavCaps: FreeSound, AudioSet_SL, BBC_Sound_Effects, SoundBible; Song
    Describer: valid); none: all."""
    audio: str = ""
    """Folder that a table's paths are relative to; empty: the table's own."""
    columns: ColumnsConfig = ColumnsConfig()
    """What a table's columns are called."""

    @model_validator(mode="after")
    def _fits(self) -> Self:
        if self.subset and self.layout not in SUBSETS:
            raise ValueError(f"subset {self.subset} is given, but the layout {self.layout!r} has no subsets")
        if unknown := set(self.subset) - set(SUBSETS.get(self.layout, ())):
            raise ValueError(f"subset {sorted(unknown)} of {self.layout}; it has {', '.join(SUBSETS[self.layout])}")
        return self


class DemoConfig(Section):
    clips: Annotated[int, Field(ge=8, le=1_000_000)] = 1_300
    """Audio files to make: every recorded one that fits, the rest rendered from scores."""
    seed: Annotated[int, Field(ge=0)] = 0
    """Seed of the choice of scores, instruments and tempos."""
    sources: tuple[Literal["recorded", "scores"], ...] = ("recorded", "scores")
    """Which kinds to make. One that cannot be had is left out with a notice."""
    recorded_limit: Annotated[int, Field(ge=0)] = 100_000
    """At most so many recorded files."""
    damaged: Annotated[int, Field(ge=0, le=5)] = 5
    """Damaged files planted among the inputs, to be found in quarantine."""


class FetchConfig(Section):
    """How files at HTTPS addresses are fetched. Only public addresses are connected to."""

    seconds: PositiveFloat = 60.0
    """A file that takes longer is refused."""
    max_bytes: Positive = 200_000_000
    """A larger file is refused."""
    redirects: Annotated[int, Field(ge=0, le=20)] = 5
    """Redirects followed, each guarded alike."""
    allow: tuple[str, ...] = ()
    """Addresses or networks that may be connected to though they are not public, such as 10.2.0.0/16."""

    @field_validator("allow")
    @classmethod
    def _networks(cls, value: tuple[str, ...]) -> tuple[str, ...]:
        for network in value:
            ip_network(network)
        return value


class DataConfig(Section):
    name: Annotated[str, Field(pattern=r"^([a-z0-9][a-z0-9_-]{0,63})?$")] = ""
    """Name of the dataset: with one, sources may be added to it as it grows; without, other sources make another."""
    sources: tuple[SourceConfig, ...] = ()
    """Captioned audio to learn from; none: the demo."""
    demo: DemoConfig = DemoConfig()
    loudness_lufs: Annotated[float, Field(ge=-60, le=-5)] = -20.0
    """Integrated loudness every clip is brought to, LUFS (BS.1770), peaks permitting."""
    peak_dbfs: Annotated[float, Field(ge=-20, le=0)] = -1.0
    """Highest sample allowed after loudness, dB full scale."""
    min_seconds: PositiveFloat = 0.05
    """Shorter files are refused, seconds after trimming silence."""
    silence_dbfs: Annotated[float, Field(ge=-120, le=-20)] = -60.0
    """Below this peak a file counts as silent; edges below it are trimmed."""
    max_source_samples: Positive = 200_000_000
    """Refuse a file whose header says more frames × channels than this, before decoding it."""
    max_clipped: Fraction = 0.2
    """A file with a greater share of its samples cut off at its peak is refused; 1 for square waves, made so."""
    min_bandwidth_hz: NonNegative = 5_000.0
    """A file whose spectrum ends in a cliff below this, though its rate promises more, is refused: resampled up."""
    near_duplicate: Annotated[float, Field(ge=0.9, le=1)] = 0.998
    """A file that sounds like an earlier one of its length, by the cosine of their fingerprints, is refused; 1: no."""
    max_segments: Positive = 8
    """At most so many clips are cut from one long file."""
    train_fraction: Fraction = 0.7
    """Share of groups in the train split."""
    valid_fraction: Fraction = 0.1
    """Share of groups in the validation split; the rest is test."""
    shard_clips: Annotated[int, Field(ge=1, le=100_000)] = 256
    """Clips a shard."""
    fetch: FetchConfig = FetchConfig()

    @model_validator(mode="after")
    def _fractions(self) -> Self:
        if self.train_fraction + self.valid_fraction > 1:
            raise ValueError(f"train_fraction + valid_fraction is {self.train_fraction + self.valid_fraction}, above 1")
        return self
