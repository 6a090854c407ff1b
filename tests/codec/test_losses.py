"""What the training loss answers to."""

from __future__ import annotations

import torch

from sonarc.codec.losses import multi_resolution


def test_the_average_spectrum_hears_a_loud_clip_and_not_who_played_it() -> None:
    generator = torch.Generator().manual_seed(0)
    loud, quiet = torch.randn(1, 2, 8192, generator=generator), 0.01 * torch.randn(1, 2, 8192, generator=generator)
    both, swapped = torch.cat([loud, quiet]), torch.cat([quiet, loud])

    swap = multi_resolution(swapped, both, 512)
    softer = multi_resolution(torch.cat([0.5 * loud, quiet]), both, 512)

    assert swap["average_spectrum"] < 1e-5 < 1.0 < swap["band_energy"]
    assert abs(float(softer["average_spectrum"]) - 0.693) < 0.01  # ln 2: half the amplitude


def test_a_quiet_clips_energy_counts_beside_a_loud_one_and_when_it_sounds_does_not() -> None:
    generator = torch.Generator().manual_seed(0)
    loud, quiet = torch.randn(1, 2, 8192, generator=generator), 0.01 * torch.randn(1, 2, 8192, generator=generator)
    both = torch.cat([loud, quiet])

    later = multi_resolution(both.flip(-1), both, 512)
    softer = multi_resolution(torch.cat([loud, 0.5 * quiet]), both, 512)

    assert later["clip_energy"] < 1e-3 < 0.1 < later["band_energy"]
    assert abs(float(softer["clip_energy"]) - 0.347) < 0.01  # ln 2 in one clip of two
    assert softer["average_spectrum"] < 1e-3
