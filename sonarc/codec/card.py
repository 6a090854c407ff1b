"""The card that travels with a trained codec: how it was made, and how well it does on held-out audio."""

from __future__ import annotations

import os
import platform
from dataclasses import dataclass

import torch

from sonarc.codec.spectral import SpectralCodec

_ROWS = {
    "clips": "clips",
    "si_sdr_db": "SI-SDR, dB",
    "log_magnitude_distance": "log-magnitude distance, nepers",
    "spectrum_deviation_max_db": "average spectrum by third octave, largest deviation, dB",
    "spectrum_deviation_mean_db": "the same, mean deviation, dB",
    "side_energy_gap_db": "side energy, deviation, dB",
    "silent": "silent reconstructions",
    "clipped": "clipped reconstructions",
    "not_finite": "reconstructions with NaN or infinity",
}


@dataclass(frozen=True)
class CodecProvenance:
    """How a codec was made."""

    command: str
    """Command that trains it again."""
    data: str
    """What it learnt from: sources, clips and their licences."""
    split: str
    """Which part it was trained on and which is held out."""
    steps: int
    seconds: float
    """Wall time of the training."""


def machine() -> str:
    """This machine in a few words: system, processor features that matter, cores and torch."""
    features = torch.backends.cpu.get_cpu_capability()
    return f"{platform.system()} {platform.machine()}, {os.cpu_count()} cores ({features}), torch {torch.__version__}"


def write_card(
    codec: SpectralCodec,
    name: str,
    made: CodecProvenance,
    figures: dict[str, dict[str, float]],
    real_time_factor: float,
) -> str:
    """The card as Markdown.

    Args:
        codec: what the card is about.
        name: its name, such as `codec-v3`.
        made: its provenance.
        figures: kind of held-out audio → `fidelity.reconstruction_figures` on it.
        real_time_factor: seconds of audio decoded a second at batch 1.
    """
    c = codec.config
    parameters = sum(p.numel() for p in codec.parameters())
    kinds = list(figures)
    table = [
        "| held out, medians over clips | " + " | ".join(kinds) + " |",
        "|---|" + "---|" * len(kinds),
        *(f"| {label} | " + " | ".join(f"{figures[k][row]:.4g}" for k in kinds) + " |" for row, label in _ROWS.items()),
    ]
    facts = {
        "sha256": f"`{codec.sha256}` (of `config.json` and `model.safetensors`, one after the other)",
        "shape": f"{c.sample_rate} Hz stereo ⇄ {c.latent_channels} channels at {c.sample_rate / c.hop:.2f} Hz, "
        f"{parameters / 1e6:.1f} M parameters, stored in float16",
        "training command": f"`{made.command}`",
        "data and licences": made.data,
        "split": made.split,
        "training": f"{made.steps} steps, {made.seconds / 60:.0f} minutes",
        "machine": machine(),
        "decoding": f"{real_time_factor:.0f} × real time at batch 1",
    }
    lines = [f"# {name}", "", *(f"- **{key}**: {value}" for key, value in facts.items()), "", *table, ""]
    return "\n".join(lines)
