"""Target `train`: clips a second that pre-training and ARC take in, their memory, and their share of what the machine
could do at best, at two sizes.

Latents and text states are random: what is timed is the training step, not the data. Each measurement has a process
of its own, so that its peak memory is its own. The floor is arithmetic: the operations of one step's matrix products,
done at the rate a large bf16 matrix product reached in the same process.
"""

from __future__ import annotations

import argparse
import json
import resource
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from sonarc.bench.arithmetic import count_operations, matmul_rate
from sonarc.bench.own_process import in_own_process
from sonarc.bench.sheet import BenchRow, BenchSheet, measured
from sonarc.contracts.config import ArcConfig, ComputeConfig, DiTConfig, PretrainConfig
from sonarc.contracts.machine import this_machine
from sonarc.contracts.result import recorded_versions

if TYPE_CHECKING:
    from sonarc.dit import Conditioning
    from sonarc.training import LatentBatch

TEXT_TOKENS, TEXT_WIDTH = 32, 384


@dataclass(frozen=True)
class Size:
    """What is trained, on how much, how often."""

    dit: DiTConfig
    frames: int
    pretrain_batch: int
    arc_batch: int
    steps: int


SIZES = {
    "small": Size(DiTConfig(), frames=128, pretrain_batch=64, arc_batch=32, steps=8),
    "large": Size(
        DiTConfig(width=768, depth=12, heads=12, ff_mult=4, patch=1, cond_width=768, global_cond="prepend"),
        frames=128, pretrain_batch=32, arc_batch=16, steps=3,
    ),
}  # fmt: skip
"""`small`: the laptop's model. `large`: 138 M parameters in the published architecture."""
WORK = ("pretrain", "arc")
WANTED_FRACTION = 0.4
"""Of the matrix rate, wanted at the size `large`."""


def measure() -> BenchSheet:
    """Time both trainings at each size, one process after another."""
    rows: list[BenchRow] = []
    for name in SIZES:
        for work in WORK:
            found = in_own_process("sonarc.bench.training", work, name, computing=ComputeConfig().threads)
            best = found["matmul_rate"] / found["operations_a_clip"]
            clips = found["clips_a_second"]
            rows.append(measured(f"{work}_samples_per_s.{name}", clips, "clips/s", "higher", floor=best))
            rows.append(
                measured(
                    f"train_fraction_of_matmul.{work}.{name}",
                    [rate / best for rate in clips],
                    "of the matrix rate",
                    "higher",
                    wanted=WANTED_FRACTION if name == "large" else None,
                    floor=1.0,
                )
            )
            rows.append(measured(f"{work}_peak_mb.{name}", [found["peak_mb"]], "MB", "lower"))
            rows.append(measured(f"{work}_matmul_gflops.{name}", [found["matmul_rate"] / 1e9], "GFLOP/s", "higher"))
    return BenchSheet(
        name="train",
        machine=this_machine(),
        versions=recorded_versions(),
        command="make bench-train",
        rows=tuple(rows),
    )


def pretrain_steps(size: Size) -> tuple[list[float], int, int]:
    """Seconds of each step, operations of one, and the clips it takes in."""
    import torch

    from sonarc.dit import DiT
    from sonarc.training.pretraining import Pretrainer, PretrainStep, draw_step

    torch.manual_seed(0)
    config = PretrainConfig(steps=size.steps + 2, batch=size.pretrain_batch, warmup_steps=1)
    trainer = Pretrainer(DiT(size.dit, TEXT_WIDTH), config)
    batch = _batch(size, config.batch)

    def step(number: int) -> None:
        draws = draw_step(config, number, (config.batch, size.dit.latent_channels, size.frames))
        trainer.update(number, PretrainStep(batch, draws, config.batch * size.frames))

    return *_timed_steps(step, size.steps), config.batch


def arc_steps(size: Size) -> tuple[list[float], int, int]:
    """The same of a pair of a discriminator and a generator step, each on a batch of its own."""
    import torch

    from sonarc.arc import ArcBatch, ArcTrainer, draw_arc
    from sonarc.dit import DiT

    torch.manual_seed(0)
    config = ArcConfig(
        batch=size.arc_batch,
        warmup_steps=1,
        generator_delay=0,
        penalty_weight=0.1,
        discriminator_depth=size.dit.depth // 2,
    )
    trainer = ArcTrainer(DiT(size.dit, TEXT_WIDTH), config)
    real = _batch(size, config.batch)
    batch = ArcBatch(real, _conditioning(config.batch).text, torch.ones(config.batch, dtype=torch.bool))
    shape = (config.batch, size.dit.latent_channels, size.frames)

    def step(number: int) -> None:
        drawn = draw_arc(config, number, "discriminator", shape), draw_arc(config, number, "generator", shape)
        trainer.step(number, (batch, batch), drawn)

    return *_timed_steps(step, size.steps), 2 * config.batch


def _timed_steps(step: Any, count: int) -> tuple[list[float], int]:
    operations = count_operations(lambda: step(0))
    step(1)  # the first steps allocate the optimizer's state and warm the caches
    seconds = []
    for number in range(2, count + 2):
        begun = time.perf_counter()
        step(number)
        seconds.append(time.perf_counter() - begun)
    return seconds, operations


def _batch(size: Size, clips: int) -> LatentBatch:
    import torch

    from sonarc.training import LatentBatch

    x0_BCT = torch.randn(clips, size.dit.latent_channels, size.frames)
    return LatentBatch(x0_BCT, torch.ones(clips, size.frames, dtype=torch.bool), _conditioning(clips))


def _conditioning(clips: int) -> Conditioning:
    import torch

    from sonarc.dit import Conditioning
    from sonarc.text import TextStates

    tokens_BLE = torch.randn(clips, TEXT_TOKENS, TEXT_WIDTH)
    mask_BL = torch.ones(clips, TEXT_TOKENS, dtype=torch.bool)
    return Conditioning(TextStates(tokens_BLE, mask_BL), torch.full((clips,), 2.97))


def main() -> None:
    """Measure one training in this process and print it as a line of JSON."""
    parser = argparse.ArgumentParser(prog="python -m sonarc.bench.training", description=main.__doc__)
    parser.add_argument("work", choices=WORK)
    parser.add_argument("size", choices=list(SIZES))
    asked = parser.parse_args()
    seconds, operations, clips = {"pretrain": pretrain_steps, "arc": arc_steps}[asked.work](SIZES[asked.size])
    peak_mb = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    found = {
        "clips_a_second": [clips / s for s in seconds],
        "operations_a_clip": operations / clips,
        "peak_mb": peak_mb,
        "matmul_rate": max(matmul_rate()),
    }
    print(json.dumps(found))


if __name__ == "__main__":
    main()
