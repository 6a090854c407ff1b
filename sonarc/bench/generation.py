"""How long a model takes to make sounds, measured in a process of its own.

python -m sonarc.bench.generation CHECKPOINT --threads 2 --steps 4 …   prints the figures as JSON
"""

from __future__ import annotations

import argparse
import itertools
import json
import resource
import time
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

from sonarc.bench.arithmetic import matmul_rate, seconds_of

if TYPE_CHECKING:
    from sonarc.runtime.generator import Generator

GPU_WARM_UP = 2
"""Calls that are not counted on a GPU: the second of a kind is captured."""
PROMPTS = (f"a slow fiddle tune in D major, take {number}" for number in itertools.count())
"""Never the same twice: a prompt that was read before is remembered."""


def whole(
    generator: Generator, *, steps: int, batch: int, seconds: float, repeats: int, precision: Any = "bfloat16"
) -> list[float]:
    """Seconds from prompts to samples."""

    def make() -> None:
        prompts = list(itertools.islice(PROMPTS, batch))
        generator.generate(prompts, [seconds] * batch, range(batch), steps=steps, precision=precision)

    return seconds_of(make, repeats, before=_before(generator))


def parts(generator: Generator, *, seconds: float, repeats: int) -> dict[str, list[float]]:
    """Seconds of the text, of one step of the DiT and of the decoding, each by itself."""
    import torch

    from sonarc.dit import Conditioning
    from sonarc.runtime.device import wait

    networks, encoder = generator.networks("bfloat16"), generator.encoder
    codec, patch = networks.codec, networks.model.config.patch
    frames = -(-codec.frames(round(seconds * codec.sample_rate)) // patch) * patch
    device, before = generator.device, _before(generator)
    states = encoder([next(PROMPTS)])
    x_BCT, t_B = torch.randn(1, codec.latent_channels, frames, device=device), torch.full((1,), 0.5, device=device)
    asked = [Conditioning(states, torch.tensor([seconds])).to(device) for _ in range(before)]  # requests of their own
    turns = itertools.chain(asked, itertools.repeat(asked[-1]))

    def done(work: Callable[[], object]) -> Callable[[], None]:
        def timed() -> None:
            work()
            wait(device)

        return timed

    return {
        "text": seconds_of(lambda: encoder([next(PROMPTS)]), repeats),
        "dit_step": seconds_of(done(lambda: networks.model(x_BCT, t_B, next(turns))), repeats, before=before),
        "decode": seconds_of(done(lambda: codec.decode(x_BCT)), repeats, before=before),
    }


def _before(generator: Generator) -> int:
    return 1 if generator.device.type == "cpu" else GPU_WARM_UP


def main(arguments: Sequence[str] | None = None) -> None:
    """Load, measure what is asked, print."""
    parser = argparse.ArgumentParser(
        prog="python -m sonarc.bench.generation", description=(__doc__ or "").split("\n")[0]
    )
    parser.add_argument("location", help="a package or a checkpoint")
    parser.add_argument("--threads", type=int, default=0, help="default: PyTorch's")
    parser.add_argument("--steps", type=int, nargs="+", default=[4])
    parser.add_argument("--batches", type=int, nargs="+", default=[1])
    parser.add_argument("--seconds", type=float, nargs="+", default=[0.0], help="lengths; 0: the model's whole clip")
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--float32", action="store_true", help="once more, as it is and in float32")
    asked = parser.parse_args(arguments)
    import torch

    from sonarc.runtime.device import best_device
    from sonarc.runtime.generator import Generator

    if asked.threads:
        torch.set_num_threads(asked.threads)
    device = best_device()
    rates = matmul_rate(device=device)
    begun = time.perf_counter()
    generator = Generator.load(asked.location, device=device)
    loaded = time.perf_counter() - begun
    first, longest = asked.steps[0], generator.max_seconds
    found: dict[str, Any] = {"loaded": loaded, "seconds": longest, "threads": torch.get_num_threads()}
    found["whole"] = {
        f"{steps},{batch},{seconds or longest:g}": whole(
            generator, steps=steps, batch=batch, seconds=seconds or longest, repeats=asked.repeats
        )
        for steps, batch, seconds in {
            **{(steps, asked.batches[0], asked.seconds[0]): None for steps in asked.steps},
            **{(first, batch, asked.seconds[0]): None for batch in asked.batches},
            **{(first, asked.batches[0], seconds): None for seconds in asked.seconds},
        }
    }
    found["parts"] = parts(generator, seconds=asked.seconds[0] or longest, repeats=asked.repeats)
    found["peak_mb"] = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    if device.type == "cuda":
        found["peak_device_mb"] = torch.cuda.max_memory_allocated(device) / 2**20
    if asked.float32:
        found["float32"] = whole(
            generator, steps=first, batch=1, seconds=asked.seconds[0] or longest, repeats=1, precision="float32"
        )
    found["rates"] = rates + matmul_rate(device=device)
    print(json.dumps(found))


if __name__ == "__main__":
    main()
