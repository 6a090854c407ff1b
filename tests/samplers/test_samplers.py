"""Samplers against known answers: published schedules, a Gaussian whose flow is known, seeds."""

from __future__ import annotations

import itertools
import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from sonarc.contracts.errors import ModelInputError
from sonarc.dit import Conditioning
from sonarc.samplers import (
    Velocity,
    dpmpp_2m,
    euler,
    logsnr_schedule,
    noise_from_seeds,
    pingpong,
    sample_base,
    sample_generator,
    seeded_noise,
    shift_schedule,
    uniform_schedule,
    with_cfg,
    without_cfg,
)
from sonarc.text import TextStates

STD = 0.3
"""Standard deviation of the Gaussian data whose velocity is known."""


def gaussian_velocity(x_BCT: Tensor, t_B: Tensor) -> Tensor:
    """E[ε - x0 | x_t] for x0 ~ N(0, STD²)."""
    t = t_B[:, None, None]
    return x_BCT * (t - (1 - t) * STD**2) / ((1 - t) ** 2 * STD**2 + t**2)


def noise(batch: int = 2, channels: int = 3, frames: int = 5) -> Tensor:
    return noise_from_seeds(range(batch), (channels, frames))


@pytest.mark.parametrize(
    ("steps", "expected"),
    [
        (8, [1, 0.993307, 0.982014, 0.952574, 0.880797, 0.731059, 0.5, 0.268941, 0]),
        (4, [1, 0.982014, 0.880797, 0.5, 0]),
        (2, [1, 0.880797, 0]),
        (1, [1, 0]),
    ],
)
def test_logsnr_schedule_is_the_published_one(steps: int, expected: list[float]) -> None:
    torch.testing.assert_close(logsnr_schedule(steps), torch.tensor(expected, dtype=torch.float32), rtol=0, atol=1e-6)


@given(steps=st.integers(1, 200), frames=st.integers(1, 10_000))
def test_every_schedule_falls_from_one_to_zero(steps: int, frames: int) -> None:
    uniform = uniform_schedule(steps)
    for schedule in (logsnr_schedule(steps), uniform, shift_schedule(uniform, frames)):
        assert schedule.shape == (steps + 1,)
        assert schedule[0] == 1 and schedule[-1] == 0
        assert (schedule.diff() < 0).all()


def test_shift_moves_towards_noise_and_more_for_long_sequences() -> None:
    middle = torch.tensor([0.5])
    assert shift_schedule(middle, 256).item() == pytest.approx(1 / (math.exp(-0.5) + 1))
    assert shift_schedule(middle, 4096).item() == pytest.approx(1 / (math.exp(-1.15) + 1))
    assert shift_schedule(middle, 64) == shift_schedule(middle, 256) < shift_schedule(middle, 1024)


@pytest.mark.parametrize("steps", [0, -3])
@pytest.mark.parametrize("schedule", [logsnr_schedule, uniform_schedule])
def test_a_step_count_below_one_is_refused_by_name(schedule, steps: int) -> None:
    with pytest.raises(ModelInputError, match=str(steps)):
        schedule(steps)


@pytest.mark.parametrize(("sampler", "order"), [(euler, 1), (dpmpp_2m, 2)])
def test_ode_samplers_converge_at_their_order(sampler, order: int) -> None:
    # Of x' = v the exact solution is x_t = x_1 √(var x_t / var x_1): the noise shrinks to the data's deviation.
    # Near t = 0, λ is unbounded, so the order is measured on an interval that ends before it.
    start, end = 0.9, 0.1
    x_BCT = noise().double()
    variance = [(1 - t) ** 2 * STD**2 + t**2 for t in (start, end)]
    exact = x_BCT * math.sqrt(variance[1] / variance[0])
    errors = []
    for steps in (32, 64, 128):
        found = sampler(gaussian_velocity, x_BCT, torch.linspace(start, end, steps + 1, dtype=torch.float64))
        errors.append((found - exact).abs().max().item())
    rates = [math.log2(a / b) for a, b in itertools.pairwise(errors)]
    assert rates == pytest.approx([order] * 2, abs=0.25)


@pytest.mark.parametrize("sampler", [euler, dpmpp_2m])
def test_ode_samplers_reach_the_data_from_pure_noise(sampler) -> None:
    x_BCT = noise()
    found = sampler(gaussian_velocity, x_BCT, uniform_schedule(200))
    torch.testing.assert_close(found, STD * x_BCT, rtol=0.02, atol=1e-3)


def test_dpmpp_needs_fewer_steps_than_euler() -> None:
    x_BCT = noise()
    errors = [
        (sampler(gaussian_velocity, x_BCT, uniform_schedule(12)) - STD * x_BCT).abs().mean()
        for sampler in (euler, dpmpp_2m)
    ]
    assert errors[1] < errors[0] / 2


@pytest.mark.parametrize("sampler", [euler, dpmpp_2m])
@pytest.mark.parametrize("steps", [1, 2, 7])
def test_a_constant_estimate_is_reached_exactly(sampler, steps: int) -> None:
    target = torch.full((2, 3, 5), 0.7)
    velocity: Velocity = lambda x_BCT, t_B: (x_BCT - target) / t_B[:, None, None]  # noqa: E731
    torch.testing.assert_close(sampler(velocity, noise(), uniform_schedule(steps)), target)


def test_one_pingpong_step_is_the_clean_estimate() -> None:
    x_BCT = noise()
    found = pingpong(gaussian_velocity, x_BCT, logsnr_schedule(1), seeded_noise([0, 1], (3, 5)))
    torch.testing.assert_close(found, x_BCT - gaussian_velocity(x_BCT, torch.ones(2)))


def test_pingpong_renoises_with_a_fresh_draw_a_step() -> None:
    draws: list[int] = []

    def counted(draw: int) -> Tensor:
        draws.append(draw)
        return torch.full((1, 1, 2), float(draw))

    seen: list[Tensor] = []

    def velocity(x_BCT: Tensor, t_B: Tensor) -> Tensor:
        seen.append(x_BCT)
        return x_BCT / t_B[:, None, None]  # x̂0 = 0: what is left of the next input is its fresh noise

    found = pingpong(velocity, counted(0), torch.tensor([1.0, 0.8, 0.4, 0.0]), counted)
    assert draws == [0, 1, 2]
    assert [round(x[0, 0, 0].item(), 4) for x in seen] == [0.0, 0.8, 0.8]
    assert found.abs().max() < 1e-6


def test_pingpong_draws_from_the_data_distribution_of_a_perfect_model() -> None:
    # A perfect few-step generator returns samples, not means: here one that scales the noise to the data.
    velocity: Velocity = lambda x_BCT, t_B: (x_BCT - STD * x_BCT / x_BCT.std()) / t_B[:, None, None]  # noqa: E731
    found = pingpong(velocity, noise(64, 8, 32), logsnr_schedule(4), seeded_noise(range(64), (8, 32)))
    assert found.std().item() == pytest.approx(STD, rel=0.02)


@settings(max_examples=30)
@given(
    seeds=st.lists(st.integers(0, 2**63 - 1), min_size=1, max_size=5),
    channels=st.sampled_from([1, 3, 16, 64]),
    frames=st.integers(1, 20),
    longer=st.integers(0, 20),
    draw=st.integers(0, 9),
)
def test_noise_of_a_seed_depends_on_nothing_else(
    seeds: list[int], channels: int, frames: int, longer: int, draw: int
) -> None:
    together = noise_from_seeds(seeds, (channels, frames + longer), draw)
    for i, seed in enumerate(seeds):
        assert torch.equal(together[i, :, :frames], noise_from_seeds([seed], (channels, frames), draw)[0])


def test_noise_is_standard_normal_and_independent_between_draws_and_seeds() -> None:
    a, b, c = (noise_from_seeds([s], (64, 200), d).flatten() for s, d in ((0, 0), (0, 1), (1, 0)))
    assert a.mean().abs() < 0.03 and (a.std() - 1).abs() < 0.03
    for x, y in ((a, b), (a, c), (b, c)):
        assert (x * y).mean().abs() < 0.03


def test_a_negative_seed_is_refused_by_name() -> None:
    with pytest.raises(ModelInputError, match="-1"):
        noise_from_seeds([-1], (2, 2))


class Prompted(torch.nn.Module):
    """A model whose velocity is its mean text state, counting its calls."""

    def __init__(self) -> None:
        super().__init__()
        self.batches: list[int] = []

    def forward(self, x_BCT: Tensor, t_B: Tensor, cond: Conditioning, *, mask_BT: Tensor | None = None) -> Tensor:
        self.batches.append(len(x_BCT))
        return cond.text.pooled().mean(1)[:, None, None].expand_as(x_BCT)


def conditioning(*values: float) -> Conditioning:
    tokens = torch.tensor(values)[:, None, None].expand(-1, 2, 4)
    return Conditioning(TextStates(tokens, torch.ones(len(values), 2, dtype=torch.bool)), torch.ones(len(values)))


def test_guidance_extrapolates_from_null_in_one_batch() -> None:
    model, x_BCT, t_B = Prompted(), noise(), torch.ones(2)
    v_BCT = with_cfg(model, conditioning(1.0, 2.0), 2.5)(x_BCT, t_B)
    assert v_BCT[:, 0, 0].tolist() == [2.5, 5.0]
    assert model.batches == [4]


def test_guidance_moves_away_from_a_negative_prompt() -> None:
    v_BCT = with_cfg(Prompted(), conditioning(1.0), 3.0, negative=conditioning(-1.0))(noise(1), torch.ones(1))
    assert v_BCT[0, 0, 0] == 5.0  # -1 + 3·(1 - -1)


def test_guidance_of_one_is_the_plain_model_at_half_the_cost() -> None:
    guided, plain = Prompted(), Prompted()
    cond, x_BCT, t_B = conditioning(1.0, 2.0), noise(), torch.ones(2)
    assert torch.equal(with_cfg(guided, cond, 1.0)(x_BCT, t_B), without_cfg(plain, cond)(x_BCT, t_B))
    assert guided.batches == plain.batches == [2]


def test_whole_samplers_give_an_item_the_same_sound_in_any_batch() -> None:
    mask = torch.ones(2, 6, dtype=torch.bool)
    for sample in (
        lambda c, s, m: sample_generator(Prompted(), c, s, m, steps=3, channels=4),
        lambda c, s, m: sample_base(Prompted(), c, s, m, steps=3, cfg=2.0, channels=4),
    ):
        both = sample(conditioning(1.0, 2.0), [7, 8], mask)
        torch.testing.assert_close(sample(conditioning(2.0), [8], mask[:1])[0], both[1])


def test_seeds_and_prompts_must_agree_in_number() -> None:
    with pytest.raises(ModelInputError, match="1 seeds came with 2 prompts"):
        sample_generator(Prompted(), conditioning(1.0, 2.0), [3], torch.ones(2, 4, dtype=torch.bool), steps=1)
