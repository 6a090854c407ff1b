"""On a GPU the network and the codec are replayed as graphs, with the same result and for any request."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from cuda_graphs import RecordedGraph, graphs
from torch import Tensor

from sonarc.codec.config import SpectralCodecConfig
from sonarc.codec.spectral import SpectralCodec
from sonarc.contracts.config import DiTConfig
from sonarc.dit import Conditioning, DiT
from sonarc.runtime.captured import Graphs
from sonarc.runtime.fast_dit import FastDiT
from sonarc.runtime.graphed import GraphedCodec, GraphedDiT
from sonarc.samplers import Kind, draws, noise_from_seeds, sample_base, sample_generator
from sonarc.text import TextStates

__all__ = ["graphs"]

SHAPES = {
    "adaln": DiTConfig(latent_channels=4, width=64, depth=2, heads=2, patch=2, cond_width=16),
    "prepend": DiTConfig(latent_channels=4, width=64, depth=2, heads=1, patch=1, cond_width=24, global_cond="prepend"),
}
TEXT_WIDTH, FRAMES = 24, 12


@pytest.fixture(params=sorted(SHAPES))
def model(request: pytest.FixtureRequest) -> FastDiT:
    torch.manual_seed(0)
    model = DiT(SHAPES[request.param], TEXT_WIDTH).eval().requires_grad_(False)
    for parameter in model.parameters():
        parameter.add_(0.05 * torch.randn_like(parameter))
    return FastDiT(model)


def asked(seed: int, batch: int = 2) -> Conditioning:
    generator = torch.Generator().manual_seed(seed)
    mask_BL = torch.arange(6) < torch.randint(1, 7, (batch, 1), generator=generator)
    states_BLE = torch.randn(batch, 6, TEXT_WIDTH, generator=generator) * mask_BL[..., None]
    return Conditioning(TextStates(states_BLE, mask_BL), torch.rand(batch, generator=generator) * 10)


def mask(frames: int = FRAMES) -> Tensor:
    return torch.arange(FRAMES) < torch.tensor([[FRAMES], [frames]])


def noise(kind: Kind, steps: int, seed: int, batch: int = 2) -> Tensor:
    drawn = [noise_from_seeds(range(seed, seed + batch), (4, FRAMES), draw) for draw in range(draws(kind, steps))]
    return torch.stack(drawn)


@pytest.mark.parametrize("masked", [False, True])
@pytest.mark.parametrize(("kind", "cfg"), [("generator", 1.0), ("base", 1.0), ("base", 3.0)])
def test_every_request_is_its_own_whatever_was_captured(
    model: FastDiT, graphs: list[RecordedGraph], kind: Kind, cfg: float, masked: bool
) -> None:
    graphed, steps = GraphedDiT(model, Graphs()), 3
    for seed in range(4):
        cond, scale = asked(seed), cfg + (seed if cfg != 1 else 0)
        away = cond.with_text(asked(seed + 9).text) if cfg != 1 and seed % 2 else None
        mask_BT = mask(4 + 2 * seed) if masked else None
        found = graphed.trajectory(kind, noise(kind, steps, seed), cond, mask_BT, steps=steps, cfg=scale, negative=away)
        # The samplers that evaluation and the CPU use, with the network itself.
        bare = model if masked else unmasked(model)
        shape = mask_BT if mask_BT is not None else mask()
        seeds = range(seed, seed + 2)
        wanted = (
            sample_generator(bare, cond, seeds, shape, steps=steps, channels=4)
            if kind == "generator"
            else sample_base(bare, cond, seeds, shape, steps=steps, cfg=scale, negative=away, channels=4)
        )
        assert torch.equal(found, wanted), seed
    assert [graph.replays for graph in graphs] == [3], "captured at the second request, and replayed from then on"


def unmasked(model: FastDiT) -> Callable[..., Tensor]:
    return lambda x_BCT, t_B, cond, mask_BT=None: model(x_BCT, t_B, cond)


def test_steps_by_themselves_are_replayed_too(model: FastDiT, graphs: list[RecordedGraph]) -> None:
    graphed, steps = GraphedDiT(model, Graphs()), 3
    for seed in range(3):
        cond, mask_BT = asked(seed), mask(4 + 2 * seed)
        found, wanted = (
            sample_base(m, cond, [seed, 9], mask_BT, steps=steps, cfg=2.0, channels=4) for m in (graphed, model)
        )
        assert torch.equal(found, wanted), seed
    prepared, stepped = graphs
    assert (prepared.replays, stepped.replays) == (2, 2 * steps)


def test_two_requests_that_take_turns_do_not_mix(model: FastDiT, graphs: list[RecordedGraph]) -> None:
    graphed = GraphedDiT(model, Graphs())
    requests = [asked(seed) for seed in range(2)]
    for turn in range(4):
        for cond in requests:
            x_BCT = torch.randn(2, 4, FRAMES, generator=torch.Generator().manual_seed(turn))
            t_B = torch.full((2,), 0.9 - 0.2 * turn)
            assert torch.equal(graphed(x_BCT, t_B, cond), model(x_BCT, t_B, cond))
    assert graphs


def test_a_result_outlives_the_next_request(model: FastDiT, graphs: list[RecordedGraph]) -> None:
    graphed = GraphedDiT(model, Graphs())
    results = [
        graphed.trajectory("generator", noise("generator", 2, seed), asked(seed), None, steps=2) for seed in range(4)
    ]
    kept = [result.clone() for result in results]
    graphed.trajectory("generator", noise("generator", 2, 9), asked(9), None, steps=2)
    assert all(map(torch.equal, results, kept)) and not torch.equal(results[2], results[3])


def test_what_differs_in_shape_or_sampling_has_graphs_of_its_own_and_few_are_kept(
    model: FastDiT, graphs: list[RecordedGraph]
) -> None:
    kept = Graphs(limit=3)
    graphed = GraphedDiT(model, kept)

    def make(kind: Kind, steps: int, batch: int, cfg: float, mask_BT: Tensor | None) -> None:
        graphed.trajectory(kind, noise(kind, steps, 0, batch), asked(0, batch), mask_BT, steps=steps, cfg=cfg)

    ways: list[tuple[Kind, int, int, float, Tensor | None]] = [
        ("generator", 2, 2, 1.0, None), ("generator", 3, 2, 1.0, None), ("generator", 2, 1, 1.0, None),
        ("base", 2, 2, 1.0, None), ("base", 2, 2, 3.0, None), ("base", 2, 2, 1.0, mask()),
    ]  # fmt: skip
    for way in ways:
        make(*way)
    assert not graphs, "what comes once is not captured"
    for way in ways:
        make(*way)
    assert len(graphs) == len(ways) and len(kept) == 3
    make("base", 2, 2, 4.0, None)
    assert len(graphs) == len(ways), "another scale, or another prompt, is no other graph"
    make(*ways[0])
    assert len(graphs) == len(ways), "what was forgotten has to come twice again"
    make(*ways[0])
    assert len(graphs) == len(ways) + 1


def test_without_graphs_it_goes_on_and_says_so(
    model: FastDiT, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, graphs: list[RecordedGraph]
) -> None:
    def broken() -> None:
        raise RuntimeError("CUDA error: operation not supported\nmore of it")

    monkeypatch.setattr(torch.cuda, "CUDAGraph", broken)
    graphed = GraphedDiT(model, Graphs())
    made = [graphed.trajectory("base", noise("base", 2, 0), asked(0), None, steps=2) for _ in range(3)]
    assert torch.equal(made[0], made[1]) and torch.equal(made[1], made[2])
    assert [record.getMessage() for record in caplog.records] == [
        "no CUDA graph could be captured, so sounds take longer: CUDA error: operation not supported."
    ]


def test_decoding_is_replayed(graphs: list[RecordedGraph]) -> None:
    torch.manual_seed(0)
    codec = SpectralCodec(SpectralCodecConfig(dim=32, encoder_blocks=1, decoder_blocks=1, fine_blocks=1)).eval()
    graphed = GraphedCodec(codec, Graphs())
    assert (graphed.sha256, graphed.hop, graphed.reach) == (codec.sha256, codec.hop, codec.reach)
    for seed in range(3):
        z_BCT = torch.randn(1, codec.latent_channels, 7, generator=torch.Generator().manual_seed(seed))
        with torch.inference_mode():
            assert torch.equal(graphed.decode(z_BCT), codec.decode(z_BCT))
    assert [graph.replays for graph in graphs] == [2]
