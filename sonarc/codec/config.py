"""Settings of the codecs and of their training."""

from __future__ import annotations

from typing import Annotated, Literal, Self

from pydantic import Field, model_validator

from sonarc.contracts.config import Fraction, NonNegative, Positive, PositiveFloat, Section


class SpectralCodecConfig(Section):
    """Shape of a `SpectralCodec`."""

    kind: Literal["spectral"] = "spectral"
    sample_rate: Positive = 44_100
    """Samples a second, Hz."""
    latent_channels: Positive = 64
    """Latent channels C."""
    n_fft: Positive = 2048
    """Window of the spectrum, samples; a multiple of `stft_hop`."""
    stft_hop: Positive = 512
    """Hop of the spectrum, samples."""
    patch: Positive = 1
    """Spectrum frames that make one fine frame of the network."""
    stride: Positive = 2
    """Fine frames that make one latent frame."""
    phase_bins: Positive = 256
    """Lowest bins whose phase the encoder sees; above, it sees magnitudes only."""
    dim: Positive = 384
    """Width D of the blocks."""
    expansion: Positive = 4
    """Hidden width of a block over D."""
    kernel: Positive = 7
    """Frames that a block's depthwise convolution sees; odd."""
    encoder_blocks: Positive = 3
    """Encoder blocks at the latent rate."""
    decoder_blocks: Positive = 3
    """Decoder blocks at the latent rate."""
    fine_blocks: Positive = 3
    """Decoder blocks at the fine rate."""

    @property
    def hop(self) -> int:
        """Audio samples per latent frame."""
        return self.stft_hop * self.patch * self.stride

    @property
    def bins(self) -> int:
        """Frequency bins of the spectrum."""
        return self.n_fft // 2 + 1

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        if self.n_fft % self.stft_hop or self.n_fft < 2 * self.stft_hop:
            raise ValueError(f"n_fft {self.n_fft} is no multiple of stft_hop {self.stft_hop} above it")
        if self.phase_bins > self.bins:
            raise ValueError(f"phase_bins {self.phase_bins} exceeds the spectrum's {self.bins} bins")
        if self.kernel % 2 == 0:
            raise ValueError(f"kernel {self.kernel} is even")
        return self


class OobleckCodecConfig(Section):
    """Shape of diffusers' `AutoencoderOobleck`; the defaults are Stable Audio Open's."""

    kind: Literal["oobleck"] = "oobleck"
    sample_rate: Positive = 44_100
    """Samples a second, Hz."""
    channels: Positive = 2
    """Audio channels A."""
    latent_channels: Positive = 64
    """Latent channels C."""
    encoder_width: Positive = 128
    """Channels of the encoder's first stage."""
    decoder_width: Positive = 128
    """Channels of the decoder's last stage."""
    multiples: tuple[Positive, ...] = (1, 2, 4, 8, 16)
    """Width of each stage over the first."""
    strides: tuple[Positive, ...] = (2, 4, 4, 8, 8)
    """Downsampling of each stage."""


class CodecLossConfig(Section):
    """Weights of the terms of the training loss."""

    log_magnitude: NonNegative = 1.0
    """Log-magnitude L1 of the audio at random resolutions."""
    convergence: NonNegative = 0.5
    """Spectral convergence of the audio, over the batch."""
    head_magnitude: NonNegative = 1.0
    """Compressed and log-magnitude L1 of the head's spectrum."""
    band_energy: NonNegative = 0.5
    """Log-energy L1 of the audio in bands of frequency, at the same resolutions."""
    clip_energy: NonNegative = 1.0
    """Log-energy L1 of each clip in the same bands: a quiet clip counts as much as a loud one."""
    average_spectrum: NonNegative = 0.5
    """Log-energy L1 of a whole batch in the same bands: what is loud in the average of many clips stays so."""
    phase: NonNegative = 0.5
    """Absolute and relative phase of the head's spectrum."""
    kl: NonNegative = 2e-3
    """Divergence of the posterior from a unit normal, per latent value."""


class CodecTrainConfig(Section):
    """One training run of the spectral codec. It ends at `steps` or at `seconds`, whichever comes first."""

    model: SpectralCodecConfig = SpectralCodecConfig()
    loss: CodecLossConfig = CodecLossConfig()
    learns: Literal["all", "decoder"] = "all"
    """With `decoder` latents stay what they are, and everything that was trained on them stays valid."""
    steps: Positive | None = None
    """Optimizer steps in all."""
    seconds: PositiveFloat | None = 3_400.0
    """Seconds of training in all, earlier attempts of a resumed run included."""
    batch: Positive = 16
    """Crops a step."""
    crop: Positive = 32_768
    """Samples a crop; a multiple of the model's hop, at least 4096."""
    threads: Annotated[int, Field(ge=1, le=64)] = 2
    """CPU threads; each takes a slice of the batch."""
    lr: PositiveFloat = 5e-4
    """Peak learning rate of AdamW: linear warm-up, then a cosine to zero at the run's end."""
    betas: tuple[Fraction, Fraction] = (0.9, 0.98)
    warmup_steps: Annotated[int, Field(ge=0)] = 100
    """Linear warm-up, steps."""
    weight_decay: NonNegative = 0.01
    grad_clip: PositiveFloat = 1.0
    """Largest gradient norm."""
    start: str = ""
    """Codec of the same shape to go on from: one shipped with Sonarc by name, or a folder's location. Empty: a linear
    start."""
    start_crops: Positive = 256
    """Crops whose principal components a linear start takes."""
    linear_share: Fraction = 0.05
    """Share of the learning rate for the layers that a linear start sets: they start near their best and see thousands
    of inputs at once, so that full steps would undo them."""
    balance: Fraction = 0.5
    """Share of crops drawn evenly over sources; the others are drawn evenly over clips."""
    mix: Fraction = 0.15
    """Share of crops that are the sum of two clips."""
    gain_db: NonNegative = 9.0
    """Crops are scaled by a random gain within ± this, dB, their peak kept below 1."""
    seed: Annotated[int, Field(ge=0)] = 0
    """Seed of the weights, the crops and the noise."""
    save_every: PositiveFloat = 120.0
    """Seconds between saved training states."""

    @model_validator(mode="after")
    def _ends(self) -> Self:
        if self.steps is None and self.seconds is None:
            raise ValueError("neither steps nor seconds is set: training would not end")
        if self.learns == "decoder" and not self.start:
            raise ValueError("learns is 'decoder' but start names no codec whose encoder is kept")
        if self.crop % self.model.hop or self.crop < 4096:
            raise ValueError(f"crop {self.crop} is no multiple of the model's hop {self.model.hop} of at least 4096")
        return self
