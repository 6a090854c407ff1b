"""Audio-to-audio, inpainting and continuation, for every sampler."""

from __future__ import annotations

import math
from collections.abc import Callable

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from sonarc.contracts.errors import ModelInputError
from sonarc.samplers import (
    Known,
    Start,
    Velocity,
    dpmpp_2m,
    euler,
    logsnr_schedule,
    pingpong,
    seeded_noise,
    uniform_schedule,
)

SHAPE = (4, 12)
NOISE = seeded_noise([1, 2], SHAPE)
GIVEN_BCT = torch.randn(2, *SHAPE, generator=torch.Generator().manual_seed(3))
KEEP_BT = torch.arange(12).repeat(2, 1) < torch.tensor([[4], [9]])

Sampler = Callable[[Velocity, Tensor], Tensor]
SAMPLERS: dict[str, Sampler] = {
    "pingpong": lambda v, x: pingpong(v, x, logsnr_schedule(4), NOISE),
    "euler": lambda v, x: euler(v, x, uniform_schedule(5)),
    "dpmpp_2m": lambda v, x: dpmpp_2m(v, x, uniform_schedule(5)),
}


def bent(x_BCT: Tensor, t_B: Tensor) -> Tensor:
    """A velocity that mixes frames, so that what is kept can be seen to matter for the rest."""
    return torch.tanh(x_BCT.roll(1, -1)) + t_B[:, None, None] * x_BCT


@pytest.mark.parametrize("name", SAMPLERS)
def test_kept_frames_come_out_as_they_were_given_and_steer_the_others(name: str) -> None:
    known = Known(GIVEN_BCT, KEEP_BT)
    out_BCT = SAMPLERS[name](known.guide(bent), NOISE(0))
    kept = KEEP_BT[:, None].expand_as(out_BCT)
    torch.testing.assert_close(out_BCT[kept], GIVEN_BCT[kept], rtol=1e-5, atol=1e-5)
    free_BCT = SAMPLERS[name](bent, NOISE(0))
    assert (out_BCT - free_BCT)[~kept].abs().max() > 1e-3
    other_BCT = SAMPLERS[name](Known(GIVEN_BCT + 1.0, KEEP_BT).guide(bent), NOISE(0))
    assert (out_BCT - other_BCT)[~kept].abs().max() > 1e-3


@pytest.mark.parametrize("name", SAMPLERS)
def test_keeping_nothing_changes_nothing(name: str) -> None:
    known = Known(GIVEN_BCT, torch.zeros_like(KEEP_BT))
    assert torch.equal(SAMPLERS[name](known.guide(bent), NOISE(0)), SAMPLERS[name](bent, NOISE(0)))


def test_the_model_sees_kept_frames_at_the_level_of_the_others() -> None:
    seen: list[tuple[float, Tensor]] = []

    def watch(x_BCT: Tensor, t_B: Tensor) -> Tensor:
        seen.append((float(t_B[0]), x_BCT))
        return bent(x_BCT, t_B)

    euler(Known(GIVEN_BCT, KEEP_BT).guide(watch), NOISE(0), uniform_schedule(4))
    for t, x_BCT in seen:
        expected_BCT = (1 - t) * GIVEN_BCT + t * NOISE(0)
        kept = KEEP_BT[:, None].expand_as(x_BCT)
        torch.testing.assert_close(x_BCT[kept], expected_BCT[kept], rtol=1e-5, atol=1e-5)


def test_a_start_of_pure_noise_is_no_start() -> None:
    torch.testing.assert_close(Start(GIVEN_BCT, 1.0).at(NOISE(0)), NOISE(0))
    assert torch.equal(logsnr_schedule(8, start=1.0), logsnr_schedule(8))


def test_less_noise_stays_nearer_to_what_is_given() -> None:
    def shrink(x_BCT: Tensor, t_B: Tensor) -> Tensor:
        return x_BCT / t_B[:, None, None].clamp_min(1e-3)  # a model that knows only silence

    def distance(noise: float) -> float:
        x_BCT = Start(GIVEN_BCT, noise).at(NOISE(0))
        out_BCT = euler(lambda x, t: 0.3 * shrink(x, t), x_BCT, uniform_schedule(4, start=noise))
        return float((out_BCT - GIVEN_BCT).norm())

    assert distance(0.1) < distance(0.5) < distance(0.9)


@given(steps=st.integers(1, 60), start=st.floats(0.01, 1.0))
def test_schedules_fall_from_any_start_to_zero(steps: int, start: float) -> None:
    for t_N in (logsnr_schedule(steps, start=start), uniform_schedule(steps, start=start)):
        assert len(t_N) == steps + 1
        assert float(t_N[0]) == pytest.approx(start)
        assert t_N[-1] == 0
        assert bool((t_N.diff() < 0).all())


@pytest.mark.parametrize("noise", [0.0, -0.5, 1.5, math.nan, math.inf])
def test_a_start_out_of_range_is_refused_by_its_value(noise: float) -> None:
    with pytest.raises(ModelInputError, match=str(noise)):
        Start(GIVEN_BCT, noise)


def test_latents_that_do_not_fit_are_refused() -> None:
    with pytest.raises(ModelInputError, match="NaN"):
        Start(torch.full_like(GIVEN_BCT, math.nan), 0.5)
    with pytest.raises(ModelInputError, match=r"\(2, 4, 12\).*\(2, 4, 6\)"):
        Start(GIVEN_BCT, 0.5).at(NOISE(0)[..., :6])
    with pytest.raises(ModelInputError, match=r"\(2, 6\)"):
        Known(GIVEN_BCT, KEEP_BT[:, :6])
    with pytest.raises(ModelInputError, match="NaN"):
        Known(torch.full_like(GIVEN_BCT, math.nan), KEEP_BT)
    Known(GIVEN_BCT.masked_fill(~KEEP_BT[:, None], math.nan), KEEP_BT)  # what is not kept is not read
    with pytest.raises(ModelInputError, match="do not fit a sample"):
        Known(GIVEN_BCT, KEEP_BT).guide(bent)(NOISE(0)[:1], torch.ones(1))
