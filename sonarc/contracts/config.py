"""One typed tree of settings: every field documented with its unit, unknown keys refused.

The defaults are the preset `laptop` without its warm-up; `sonarc.contracts.presets` has the presets, and overrides.
`SonarcConfig.sha256()` names a run.
"""

from __future__ import annotations

import re
from ipaddress import ip_network
from typing import Annotated, Any, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator, model_validator

from sonarc.contracts.errors import ConfigError
from sonarc.contracts.hashing import sha256_json

Positive = Annotated[int, Field(ge=1)]
NonNegative = Annotated[float, Field(ge=0, allow_inf_nan=False)]
PositiveFloat = Annotated[float, Field(gt=0, allow_inf_nan=False)]
Fraction = Annotated[float, Field(ge=0, le=1)]
Finite = Annotated[float, Field(allow_inf_nan=False)]


class Section(BaseModel):
    """A part of the tree: immutable, and a misspelt key is an error."""

    model_config = ConfigDict(extra="forbid", frozen=True, use_attribute_docstrings=True, validate_default=True)


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


class CodecConfig(Section):
    kind: Literal["spectral", "oobleck"] = "spectral"
    """`spectral`: ours, fast on a CPU. `oobleck`: diffusers' AutoencoderOobleck."""
    uri: str = "codec-v2"
    """A codec shipped with Sonarc by name, or the location of a codec folder."""
    batch: Positive = 16
    """Clips encoded at once."""

    @property
    def hop(self) -> int:
        """Audio samples per latent frame."""
        return {"spectral": 1024, "oobleck": 2048}[self.kind]


class TextConfig(Section):
    kind: Literal["minilm", "t5"] = "minilm"
    """`minilm`: from its installed package. `t5`: a transformers T5 encoder by local path or hub id."""
    path: str = ""
    """Local path or hub id of the encoder; empty: the installed MiniLM package."""
    max_tokens: Annotated[int, Field(ge=4, le=512)] = 32
    """Longest prompt, tokens; the rest is cut."""
    width: Positive = 384
    """Width of the encoder's token states."""
    precision: Literal["bfloat16", "float32"] = "bfloat16"
    """MiniLM's matrix products. bfloat16 takes a third of the time and moves states by 1 %; T5 is always float32."""


class DiTConfig(Section):
    latent_channels: Positive = 64
    """Channels of the codec's latents."""
    width: Annotated[int, Field(multiple_of=8)] = 256
    """Width of the residual stream."""
    depth: Positive = 6
    """Transformer blocks."""
    heads: Positive = 4
    """Attention heads; the head's width is width / heads."""
    ff_mult: Positive = 3
    """Feed-forward expansion (of each of the two GLU branches)."""
    patch: Positive = 4
    """Latent frames joined into one token."""
    cond_width: Positive = 384
    """Width of the conditioning sequence that cross-attention reads."""
    global_cond: Literal["prepend", "adaln"] = "adaln"
    """How time, duration (and pooled text) steer the blocks: a prepended token (Stable Audio Open Small) or AdaLN."""
    max_seconds: PositiveFloat = 256.0
    """Durations are embedded as seconds / max_seconds, clamped to [0, 1]."""

    @model_validator(mode="after")
    def _heads(self) -> Self:
        if self.width % self.heads or (self.width // self.heads) % 8:
            raise ValueError(f"width {self.width} does not split into {self.heads} heads of a multiple of 8")
        return self


NoiseName = Literal["uniform", "logit_normal", "truncated_logit_normal", "mixture", "logsnr_uniform"]


class NoiseConfig(Section):
    """A distribution of noise levels in (0, 1); 1 is pure noise."""

    name: NoiseName = "uniform"
    """`mixture`: logit-normal with probability `share`, else uniform. `logsnr_uniform`: t = sigmoid(−logSNR)."""
    mean: Finite = 0.0
    """Mean of the normal behind `logit_normal` and `mixture`."""
    std: PositiveFloat = 1.0
    """Standard deviation of that normal."""
    share: Fraction = 0.75
    """Share of logit-normal draws in `mixture`."""
    logsnr_min: Finite = -6.0
    """Lowest logSNR of `logsnr_uniform`."""
    logsnr_max: Finite = 2.0
    """Highest logSNR of `logsnr_uniform`."""


class PretrainConfig(Section):
    steps: Positive = 560
    """Optimizer steps."""
    batch: Positive = 16
    """Clips a step, over all workers."""
    lr: PositiveFloat = 1e-3
    """AdamW peak learning rate, cosine to zero."""
    betas: tuple[Fraction, Fraction] = (0.9, 0.99)
    weight_decay: NonNegative = 0.01
    warmup_steps: Annotated[int, Field(ge=0)] = 50
    """Linear warm-up, steps."""
    grad_clip: PositiveFloat = 1.0
    """Largest gradient norm."""
    ema: Fraction = 0.998
    """Decay of the exponential moving average of the weights, a step."""
    cfg_dropout: Fraction = 0.1
    """Share of clips trained without their text."""
    noise: NoiseConfig = NoiseConfig(name="mixture")
    checkpoint_every: Positive = 200
    """Steps between checkpoints."""
    seed: Annotated[int, Field(ge=0)] = 0


class HeadConfig(Section):
    kind: Literal["conv", "convnext"] = "conv"
    """Head of the discriminator on the features of the inner layer."""
    stages: Positive = 2
    """`conv`: stride-2 convolutions before the last one (the published head has 4)."""
    kernel: Positive = 3
    """`conv`: kernel of the last convolution (the published head has 4)."""

    @property
    def shortest(self) -> int:
        """Fewest tokens the head can score."""
        return self.kernel * 2**self.stages if self.kind == "conv" else 4


class OdeWarmupConfig(Section):
    """Before ARC, the generator learns where the frozen base's guided trajectories end."""

    steps: Annotated[int, Field(ge=0)] = 0
    """Steps of it, of `arc.steps`; 0: none."""
    sampling_steps: Annotated[int, Field(ge=2)] = 20
    """Steps of a trajectory of the base."""
    cfg: PositiveFloat = 4.0
    """Guidance of a trajectory."""
    refresh: Positive = 8
    """Steps that learn from one batch of trajectories, each from other points of them."""


class ArcConfig(Section):
    steps: Positive = 60
    """Pairs of a discriminator and a generator step, and the steps of the warm-up before them."""
    batch: Positive = 12
    """Clips a step, over all workers."""
    lr_generator: PositiveFloat = 1e-4
    lr_discriminator: PositiveFloat = 6e-4
    betas: tuple[Fraction, Fraction] = (0.0, 0.95)
    weight_decay: NonNegative = 0.01
    warmup_steps: Annotated[int, Field(ge=0)] = 20
    """Linear learning-rate warm-up of both, steps."""
    generator_delay: Annotated[int, Field(ge=0)] = 10
    """Steps in which only the discriminator learns."""
    grad_clip: PositiveFloat = 1.0
    ema: Fraction = 0.99
    """Decay of the generator's moving average, a step."""
    loss: Literal["relativistic", "lsgan"] = "relativistic"
    adversarial_weight: NonNegative = 1.0
    contrastive_weight: NonNegative = 0.5
    """λ of the contrastive term L_C; 0 disables it."""
    penalty_weight: NonNegative = 0.0
    """Weight of the approximated R1/R2 penalty; 0 disables it."""
    penalty_sigma: PositiveFloat = 0.05
    """Noise of the approximated penalty."""
    ode_warmup: OdeWarmupConfig = OdeWarmupConfig()
    """Off by default."""
    clap_weight: NonNegative = 0.0
    """Weight of `1 - cos` between a generated clip and its prompt in the space of `clap`; 0: off. The score `adherence`
    of a generator trained so, by the same CLAP, is no independent measurement."""
    clap: str = "clap-v1"
    """The CLAP of that term: one shipped with Sonarc by name, or a folder's location."""
    discriminator_depth: Positive = 4
    """Blocks of the pre-trained DiT the discriminator keeps."""
    head: HeadConfig = HeadConfig()
    noise_generator: NoiseConfig = NoiseConfig(name="logsnr_uniform")
    """p_gen(t)."""
    noise_discriminator: NoiseConfig = NoiseConfig(name="logit_normal", mean=-0.3)
    """p_disc(s)."""
    checkpoint_every: Positive = 30
    seed: Annotated[int, Field(ge=0)] = 0

    @model_validator(mode="after")
    def _pairs(self) -> Self:
        if self.batch == 1 and self.contrastive_weight:
            raise ValueError("a batch of 1 has no wrong prompt for the contrastive term; raise batch")
        if self.ode_warmup.steps > self.steps:
            raise ValueError(f"ode_warmup.steps {self.ode_warmup.steps} exceeds steps {self.steps}")
        return self


Objective = Literal["frechet", "adherence", "diversity"]


class TuneConfig(Section):
    trials: Positive = 3
    """Trials in all; trial 0 has the configured weights."""
    steps: Positive = 20
    """ARC steps a trial."""
    objectives: tuple[Objective, ...] = ("frechet",)
    """What is searched for: the Fréchet distance alone, or it and others, whose Pareto front is then looked for."""
    rungs: Annotated[int, Field(ge=0)] = 0
    """Points within a trial, evenly spread, where its samples so far are scored and a trial whose distance is above the
    median of the others at that point is stopped; 0: none. With one objective only; trial 0 is never stopped."""
    rung_clips: Annotated[int, Field(ge=8)] = 32
    """Validation clips generated at a rung, the first of `clips`."""
    clips: Annotated[int, Field(ge=8)] = 64
    """Validation clips generated to score a trial."""
    adherence_slack: NonNegative = 0.02
    """A trial whose adherence is lower than trial 0's by more than this is not chosen."""
    diversity_slack: NonNegative = 0.02
    """Likewise for diversity, where it is an objective."""
    diversity_prompts: Positive = 8
    """Validation prompts whose diversity is measured, where it is an objective."""
    diversity_samples: Annotated[int, Field(ge=2)] = 4
    """Generations a prompt for that."""
    contrastive_weight: tuple[NonNegative, NonNegative] = (0.5, 2.0)
    """Range searched, logarithmic."""
    penalty_weight: tuple[NonNegative, NonNegative] = (0.0, 0.2)
    """Range searched, linear."""
    adversarial_weight: tuple[PositiveFloat, PositiveFloat] | None = None
    """Range searched, logarithmic; none: as configured."""
    penalty_sigma: tuple[PositiveFloat, PositiveFloat] | None = None
    """Range searched, logarithmic; none: as configured."""
    lr_ratio: tuple[PositiveFloat, PositiveFloat] | None = None
    """Range of the discriminator's learning rate over the generator's, logarithmic; none: as configured."""
    noise_mean: tuple[Finite, Finite] | None = None
    """Range of the mean of the discriminator's noise, linear; none: as configured."""
    bootstrap: Annotated[int, Field(ge=50)] = 100
    """Resamples behind the interval by which a trial must beat the configured weights."""
    parallel: Positive = 1
    """Trials at once."""
    seed: Annotated[int, Field(ge=0)] = 0

    def ranges(self) -> dict[str, tuple[float, float]]:
        """The search space: what is searched, and between which bounds."""
        names = (
            "contrastive_weight", "penalty_weight", "adversarial_weight", "penalty_sigma", "lr_ratio", "noise_mean",
        )  # fmt: skip
        return {name: found for name in names if (found := getattr(self, name)) is not None}

    @model_validator(mode="after")
    def _ranges(self) -> Self:
        for name, (low, high) in self.ranges().items():
            if low > high:
                raise ValueError(f"the range of {name}, {low} to {high}, is empty")
        if not self.contrastive_weight[0]:
            raise ValueError("contrastive_weight is searched on a logarithmic scale and cannot begin at 0")
        return self

    @model_validator(mode="after")
    def _objectives(self) -> Self:
        if self.objectives[:1] != ("frechet",) or len(set(self.objectives)) < len(self.objectives):
            raise ValueError(f"the objectives {list(self.objectives)} must begin with frechet and name none twice")
        if self.rungs and len(self.objectives) > 1:
            raise ValueError(f"rungs {self.rungs} stop trials by one objective, and there are {len(self.objectives)}")
        if self.rungs >= self.steps:
            raise ValueError(f"rungs {self.rungs} do not fit into the {self.steps} steps of a trial")
        return self


class SamplerConfig(Section):
    steps: Positive = 4
    """Network evaluations a clip."""
    cfg: NonNegative = 1.0
    """Classifier-free guidance scale; 1 is none."""


EmbedderName = Annotated[str, Field(pattern=r"^(yamnet|aisfx|hub:.+|onnx:.+)$")]


def space_of(embedder: str) -> str:
    """Name of an embedder's space, by which metrics are called: `hub:laion/clap-fused` gives `clap_fused`."""
    last = embedder.partition(":")[2].rstrip("/").removesuffix(".onnx").rpartition("/")[2] or embedder
    return re.sub(r"[^a-z0-9]+", "_", last.lower()).strip("_")


class EvaluateConfig(Section):
    reference: Annotated[str, Field(pattern=r"^[a-z0-9][a-z0-9_-]{0,63}$")] = "ref-v1"
    """Name of the pinned reference set; the first run on a store pins it, no later one remakes it."""
    embedders: tuple[EmbedderName, ...] = ("aisfx", "yamnet")
    """Embedding spaces of the Fréchet distance; the first one is the main one. Beside `aisfx` and `yamnet`:
    `hub:<folder or id>`, a CLAP or an audio classifier of transformers; `onnx:<file>`, any network of waveforms."""
    clap: str = "clap-v1"
    """Audio-text model: a shipped in-domain CLAP by name, the location of its folder, or a CLAP of transformers,
    `hub:<folder or id>`."""
    clips: Annotated[int, Field(ge=8)] = 128
    """Clips generated a row, prompts from the test split (each clip once before any comes again)."""
    base: tuple[SamplerConfig, ...] = (
        SamplerConfig(steps=50, cfg=2.5),
        SamplerConfig(steps=8, cfg=2.5),
        SamplerConfig(steps=4, cfg=1.5),
        SamplerConfig(steps=4, cfg=2.5),
        SamplerConfig(steps=4, cfg=4.0),
    )
    """Samplings of the base model."""
    generator: tuple[Positive, ...] = (8, 4, 2, 1)
    """Step counts of the generator."""
    diversity_prompts: Positive = 8
    """Prompts for conditional diversity."""
    diversity_samples: Annotated[int, Field(ge=2)] = 4
    """Generations a prompt for conditional diversity."""
    bootstrap: Annotated[int, Field(ge=50)] = 200
    """Resamples behind each interval."""
    sample_prompts: Positive = 12
    """Held-out prompts whose audio is kept."""
    seed: Annotated[int, Field(ge=0)] = 1_000

    @property
    def spaces(self) -> tuple[str, ...]:
        """Names of the embedding spaces."""
        return tuple(space_of(name) for name in self.embedders)

    @model_validator(mode="after")
    def _distinct(self) -> Self:
        if not self.embedders or len(set(self.spaces)) != len(self.spaces):
            raise ValueError(f"the embedding spaces {', '.join(self.spaces) or '(none)'} need names of their own")
        return self


class GateRule(Section):
    """`metric` of `model` at `steps` must be on the right side of a bound."""

    metric: str
    """Name of a score, such as `fd_yamnet`, `adherence`, `silent_fraction`."""
    steps: Positive = 4
    """The generator's step count the rule looks at."""
    versus: Literal["absolute", "base", "champion"] = "absolute"
    """`absolute`: the value itself; else its difference to the base's best at equal steps, or to the champion's."""
    side: Literal["below", "above"] = "below"
    """Which side of the bound passes."""
    bound: Finite = 0.0
    """The bound; for a difference: 0 is equal."""
    use_interval: bool = False
    """Whether the whole interval, not only the value, must be on that side."""


class GateConfig(Section):
    rules: tuple[GateRule, ...] = (
        GateRule(metric="fd_aisfx", versus="base", side="below", use_interval=True),
        GateRule(metric="fd_yamnet", versus="base", side="below", bound=20.0),
        GateRule(metric="silent_fraction", side="below", bound=0.01),
        GateRule(metric="fd_aisfx", versus="champion", side="below", bound=20.0),
    )
    """Every rule must hold. Rules against the champion are skipped while there is none."""


class RegistryConfig(Section):
    model: str = "sonarc"
    """Registered model of the generator packages."""
    base_model: str = "sonarc-base"
    """Registered model of the pre-trained bases."""
    alias: str = "champion"
    """Alias that the endpoint serves."""


class ServeConfig(Section):
    host: str = "127.0.0.1"
    """Address the endpoint listens on."""
    port: Annotated[int, Field(ge=1, le=65_535)] = 8_420
    """Port; when it is taken the next free one is used, and said."""
    steps: Positive = 4
    """Steps of a request that asks for none."""
    max_batch: Positive = 8
    """Requests generated together."""
    batch_wait_s: NonNegative = 0.002
    """How long a request waits for company, seconds."""
    max_queued: Positive = 64
    """Requests waiting beyond this are refused with 429."""
    timeout_s: PositiveFloat = 60.0
    """Deadline of one request, seconds."""
    threads: Positive = 2
    """CPU threads of each generator replica."""
    replicas: Positive = 1
    """Generator replicas."""
    ingress_replicas: Positive = 1
    """Ingress replicas."""
    precision: Literal["bfloat16", "float32"] = "bfloat16"
    """Arithmetic of the network's matrix products. In float32 a batch changes a clip far less, at a sixth of the
    speed on a CPU with bfloat16 units."""
    max_clips: Positive = 8
    """Most clips of one request: prompts times `n`."""
    max_upload_bytes: Positive = 32 * 1024 * 1024
    """Largest body with a sound to begin from, bytes."""
    upload_s: PositiveFloat = 30.0
    """Longest time a client may take to send its body, seconds."""
    log_prompts: bool = False
    """Write prompts to the log; otherwise they are never written."""
    keys_file: str = ""
    """File of hashed API keys, made by `sonarc keys`; else the environment's SONARC_SERVE_KEYS names one. With none,
    nobody needs a key."""
    requests_per_minute: Annotated[int, Field(ge=0)] = 0
    """Clips a minute of a key that says nothing else; 0: any number."""
    concurrent_requests: Annotated[int, Field(ge=0)] = 0
    """Requests at one time of a key that says nothing else; 0: any number."""
    max_jobs: Positive = 100
    """Jobs kept, finished ones included."""
    job_ttl_s: PositiveFloat = 3_600.0
    """How long a finished job is kept, seconds."""
    job_timeout_s: PositiveFloat = 600.0
    """Deadline of a job, seconds."""
    follow_s: NonNegative = 0.0
    """How often the registry is asked whether its aliases have moved, seconds; 0: never, `sonarc serve` tells."""
    candidate_alias: str = "candidate"
    """Alias of the package that canary and shadow traffic goes to."""
    canary_share: Annotated[float, Field(ge=0, le=1)] = 0.0
    """Share of unpinned requests that the candidate answers."""
    shadow_share: Annotated[float, Field(ge=0, le=1)] = 0.0
    """Share of unpinned requests that the candidate makes too, in spare time and for no one to hear."""
    canary_min_requests: Positive = 20
    """Requests of the candidate before it is judged."""
    canary_worse_errors: Annotated[float, Field(ge=0, le=1)] = 0.05
    """How far its share of failures may exceed the champion's before it gets no more traffic."""
    canary_slower: Annotated[float, Field(ge=1)] = 1.5
    """How many times the champion's median time of generating it may take."""


class ComputeConfig(Section):
    """What the work runs on. It never enters a stage's key."""

    workers: Positive | tuple[Positive, Positive] = 1
    """Training workers (DDP over gloo on CPUs, nccl on GPUs); two numbers: from so many to so many, as room allows."""
    resize_seconds: PositiveFloat = 60.0
    """How often a range of workers is fitted to the room there is, seconds."""
    collective_seconds: Positive = 600
    """Workers that wait longer for each other than this, seconds, give up; a lost machine is noticed sooner by Ray."""
    threads: Positive = 2
    """CPU threads of each training worker."""
    logical_cpus: Positive = 8
    """CPUs a local Ray declares, so that stages never wait for each other for ever."""
    data_tasks: Positive = 2
    """Parallel data tasks."""
    gpu: bool = False
    """One GPU a training worker."""
    sharded: bool = False
    """Weights, gradients and optimizer state sharded over the training workers (FSDP2), for models too large for one;
    by default each worker holds all of them."""
    recompute: bool = False
    """Activation checkpointing: recompute each block in the backward pass. Less memory, a third more work."""
    micro_batch: Positive | None = None
    """Clips that a training worker holds in memory at once: gradients accumulate over its part of a batch. None: all
    of the part at once."""
    max_failures: Annotated[int, Field(ge=0)] = 1
    """Restarts of a failed training job."""
    trial_cpus: PositiveFloat | None = None
    """CPUs that Ray reserves for a tuning trial; none: as many as `threads`."""
    trial_gpus: NonNegative | None = None
    """GPUs that Ray reserves for a tuning trial; a fraction lets trials share one; none: one with `gpu`, else 0."""
    tune_heartbeat: Positive = 20
    """Seconds between two signs of life of a tuning trial in a shared storage; one that misses six is taken for dead,
    and tried once more."""
    tune_patience: PositiveFloat = 300.0
    """Seconds for which a search waits for a storage that went away."""

    @property
    def most_workers(self) -> int:
        """The largest number of training workers."""
        return self.workers if isinstance(self.workers, int) else self.workers[1]

    @field_validator("workers")
    @classmethod
    def _range(cls, value: int | tuple[int, int]) -> int | tuple[int, int]:
        if isinstance(value, tuple) and value[0] > value[1]:
            raise ValueError(f"from {value[0]} to {value[1]} workers is no range")
        return value


class SonarcConfig(Section):
    """The whole tree."""

    preset: str = "laptop"
    """The preset this tree began as."""
    audio: AudioConfig = AudioConfig()
    data: DataConfig = DataConfig()
    codec: CodecConfig = CodecConfig()
    text: TextConfig = TextConfig()
    dit: DiTConfig = DiTConfig()
    pretrain: PretrainConfig = PretrainConfig()
    arc: ArcConfig = ArcConfig()
    tune: TuneConfig = TuneConfig()
    evaluate: EvaluateConfig = EvaluateConfig()
    gate: GateConfig = GateConfig()
    registry: RegistryConfig = RegistryConfig()
    serve: ServeConfig = ServeConfig()
    compute: ComputeConfig = ComputeConfig()

    @model_validator(mode="after")
    def _fits(self) -> Self:
        if self.arc.discriminator_depth > self.dit.depth:
            raise ValueError(
                f"arc.discriminator_depth {self.arc.discriminator_depth} exceeds dit.depth {self.dit.depth}"
            )
        tokens = self.audio.samples // self.codec.hop // self.dit.patch
        if self.arc.head.shortest > tokens:
            raise ValueError(
                f"the discriminator's head arc.head needs {self.arc.head.shortest} tokens, "
                f"a clip of {self.audio.samples} samples has {tokens}"
            )
        if self.text.kind == "minilm" and self.text.width != 384:
            raise ValueError(f"text.width {self.text.width} is not MiniLM's 384")
        return self

    def sha256(self) -> str:
        """The hash that names a run with this configuration."""
        return sha256_json(self.model_dump(mode="json"))


def parse(tree: Any) -> SonarcConfig:
    """A config from plain JSON data; errors name the field and the offending value."""
    try:
        return SonarcConfig.model_validate(tree)
    except ValidationError as error:
        raise ConfigError(_explain(error), "`sonarc config --fields` explains every field.") from error


def _explain(error: ValidationError) -> str:
    problems = []
    for problem in error.errors(include_url=False):
        where = ".".join(str(part) for part in problem["loc"]) or "configuration"
        message = problem["msg"].removeprefix("Value error, ")
        shown = "" if isinstance(problem["input"], dict) else f" (got {problem['input']!r})"
        problems.append(f"{where}: {message}{shown}")
    return "; ".join(problems) + "."
