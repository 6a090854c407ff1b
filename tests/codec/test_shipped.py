"""The codec that ships: it loads, it is the one its card describes, and it keeps a chord it never heard."""

from __future__ import annotations

from importlib import resources

import torch

from sonarc.codec import load_codec
from sonarc.codec.fidelity import log_magnitude_distance
from sonarc.codec.losses import power_spectrum


def chord(samples: int = 65_536) -> torch.Tensor:
    """A decaying C major chord with eight partials a note, panned, `(1, 2, samples)`."""
    t = torch.arange(samples) / 44_100
    notes = [261.63, 329.63, 392.0]
    parts = [sum(torch.sin(2 * torch.pi * k * f * t) / k for k in range(1, 9)) * torch.exp(-1.5 * t) for f in notes]
    left = parts[0] + 0.7 * parts[1] + 0.4 * parts[2]
    right = 0.4 * parts[0] + 0.7 * parts[1] + parts[2]
    audio = torch.stack([left, right])[None]
    return audio * 0.4 / audio.abs().max()


def test_the_card_names_the_weights_it_travels_with() -> None:
    folder = resources.files("sonarc") / "assets" / "codec-v3"
    codec = load_codec("codec-v3")
    assert codec.sha256 in (folder / "card.md").read_text()
    assert len((folder / "model.safetensors").read_bytes()) <= 30_000_000
    assert (codec.sample_rate, codec.channels, codec.latent_channels, codec.hop) == (44_100, 2, 64, 1024)


def test_a_chord_survives() -> None:
    codec = load_codec("codec-v3")
    audio = chord()
    z_BCT = codec.encode(audio)
    assert z_BCT.shape == (1, 64, 64)
    assert 0.3 < z_BCT.std() < 3.0
    sound = codec.decode(z_BCT)
    assert sound.shape == audio.shape and torch.isfinite(sound).all()
    assert sound.square().mean() > 0.1 * audio.square().mean()
    got, wanted = ((power_spectrum(x, 2048) + 1e-8).log().flatten() for x in (sound, audio))
    assert torch.corrcoef(torch.stack([got, wanted]))[0, 1] > 0.8
    assert log_magnitude_distance(sound, audio).item() < 1.2


def test_encoding_in_a_batch_equals_encoding_alone() -> None:
    codec = load_codec("codec-v3")
    clips = torch.cat([chord(16_384), 0.5 * chord(16_384).flip(1)])
    together = codec.encode(clips)
    alone = torch.cat([codec.encode(clip[None]) for clip in clips])
    torch.testing.assert_close(together, alone, atol=0.1, rtol=0.05)
