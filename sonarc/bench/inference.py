"""Target `inference`: how fast sounds are made, by the default model and in the shape of Stable Audio Open Small.

The weights are random: only shapes cost time. Each model is measured in processes of its own. The floor is
arithmetic: the operations of the matrix products and convolutions of one clip, at the rate that a large bf16 matrix
product reaches in the same process. Nothing can be faster than that.

Where there is a GPU the models run there, and the sheet is `inference-gpu`.
"""

from __future__ import annotations

import shutil
import statistics
import subprocess
import sys
import time
from collections.abc import Mapping
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any

from sonarc.bench.arithmetic import count_operations
from sonarc.bench.own_process import in_own_process
from sonarc.bench.sheet import BenchRow, BenchSheet, measured
from sonarc.contracts.config import SonarcConfig
from sonarc.contracts.errors import StageError
from sonarc.contracts.machine import this_machine
from sonarc.contracts.presets import load
from sonarc.contracts.result import recorded_versions

if TYPE_CHECKING:
    from sonarc.codec.interface import Codec

REPEATS, COLD_REPEATS = 7, 5
STEPS = {"default": 4, "saos": 8}
WANTED_REALTIME, WANTED_COLD, WANTED_SAOS, WANTED_SPEEDUP = 50.0, 3.0, 2.4, 10.0
BATCHES = (1, 2, 4, 8)
PEAKS = ("peak_mb", "peak_device_mb")
COUNTED_FRAMES = 16
"""Decoding is linear in its frames: so many are counted."""
LONG_SAMPLES = 1024 * 2048
"""47.6 s at 44.1 kHz: the longest sound that is measured in the published shape."""
SAOS_SECONDS = 524_288 / 44_100
"""The published length."""


def measure(repeats: int = REPEATS) -> BenchSheet:
    """Time both models, and a fresh process."""
    import torch

    from sonarc.runtime.device import best_device

    device = best_device()
    gpu = torch.cuda.get_device_name(device) if device.type == "cuda" else ""
    with TemporaryDirectory() as scratch:
        rows = [*_default(Path(scratch) / "default", repeats), *_saos(Path(scratch) / "saos", repeats)]
    return BenchSheet(
        name="inference-gpu" if gpu else "inference",
        machine=this_machine().model_copy(update={"gpu": gpu}),
        versions=recorded_versions(),
        command="make bench ARGS=inference",
        rows=tuple(rows),
    )


def _default(folder: Path, repeats: int) -> list[BenchRow]:
    """The laptop's model: audio seconds a second, what the time goes to, and a fresh process."""
    from sonarc.bench.random_model import random_checkpoint
    from sonarc.codec.package import load_codec

    config = load("laptop")
    codec = load_codec(config.codec.uri)
    location = random_checkpoint(folder, config, codec)
    steps, whole = STEPS["default"], config.audio.seconds
    found = _generation(
        location, "--steps", f"{steps}", "8", "2", "1", "--batches", *map(str, BATCHES),
        "--seconds", "0", "0.5", "1", "--repeats", f"{repeats}",
    )  # fmt: skip
    one_thread = _generation(location, "--threads", "1", "--steps", f"{steps}", "--repeats", f"{repeats}")
    decoding, step = operations(config, codec, whole)
    rate = statistics.median(found["rates"])
    rows = [measured("calibration.bf16_matmul", [r / 1e9 for r in found["rates"]], "GFLOP/s", "higher")]
    rows += realtime(found["whole"], steps, whole, (decoding, step), rate)
    single = next(iter(one_thread["whole"].values()))
    rows.append(measured("default_realtime.threads_1", [whole / s for s in single], "s/s", "higher"))
    floors = {"dit_step": step / rate, "decode": decoding / rate}
    rows += [
        measured(f"default_ms.{name}", [1e3 * s for s in seconds], "ms", "lower", floor=_ms(floors.get(name)))
        for name, seconds in found["parts"].items()
    ]
    rows += _peaks("default", found)
    rows.append(measured("cold_seconds", _cold(location, folder), "s", "lower", wanted=WANTED_COLD))
    return rows


def realtime(
    times: Mapping[str, list[float]], steps: int, whole: float, operations: tuple[int, int], rate: float
) -> list[BenchRow]:
    """Audio seconds a second of each way that was timed; what is not `steps` steps of one whole clip is in the name.

    Args:
        times: `steps,batch,seconds` → seconds of each repeat.
        whole: the model's clip, seconds.
        operations: of decoding a whole clip, and of one step.
        rate: operations a second at best.
    """
    decoding, step = operations
    rows = []
    for asked, seconds in times.items():
        count, batch, length = asked.split(",")
        name = "default_realtime" + _suffix(steps=(count, steps), batch=(batch, 1), seconds=(length, whole))
        made, work = int(batch) * float(length), int(batch) * (int(count) * step + decoding)
        rows.append(
            measured(
                name,
                [made / s for s in seconds],
                "s/s",
                "higher",
                wanted=WANTED_REALTIME if name == "default_realtime" else None,
                floor=made * rate / work if length == f"{whole:g}" else None,
            )
        )
    return rows


def _saos(folder: Path, repeats: int) -> list[BenchRow]:
    """The published shape, from prompt to samples."""
    from sonarc.bench.random_model import random_saos
    from sonarc.codec.package import load_codec

    base = load("saos")
    config = base.model_copy(update={"audio": base.audio.model_copy(update={"samples": LONG_SAMPLES})})
    location = random_saos(folder, config)
    steps, few = STEPS["saos"], f"{max(2, repeats // 2)}"
    found = _generation(
        location, "--steps", f"{steps}", "--seconds", f"{SAOS_SECONDS}", "--repeats", f"{repeats}", "--float32"
    )
    lengths = _generation(location, "--steps", f"{steps}", "--seconds", "2", "24", "47", "--repeats", few)
    batches = _generation(
        location, "--steps", f"{steps}", "--seconds", f"{SAOS_SECONDS}", "--repeats", few,
        "--batches", *map(str, BATCHES[1:]),
    )  # fmt: skip
    one_thread = _generation(
        location, "--threads", "1", "--steps", f"{steps}", "--seconds", f"{SAOS_SECONDS}", "--repeats", few
    )
    decoding, step = operations(config, load_codec((folder / "codec").as_uri()), SAOS_SECONDS)
    shutil.rmtree(folder)
    rate = statistics.median(found["rates"])
    (seconds,) = found["whole"].values()
    floors = {"dit_step": step / rate, "decode": decoding / rate}
    floor = steps * floors["dit_step"] + floors["decode"]
    rows = [
        measured("saos_calibration.bf16_matmul", [r / 1e9 for r in found["rates"]], "GFLOP/s", "higher"),
        measured("saos_seconds", seconds, "s", "lower", wanted=WANTED_SAOS, floor=floor),
        measured(
            "saos_speedup_over_float32", [found["float32"][0] / statistics.median(seconds)], "x", "higher",
            wanted=WANTED_SPEEDUP,
        ),
    ]  # fmt: skip
    rows += [measured(f"saos_seconds.{n}", s, "s", "lower", floor=floors.get(n)) for n, s in found["parts"].items()]
    for run in (lengths, batches, one_thread):
        for asked, times in run["whole"].items():
            _, batch, length = asked.split(",")
            suffix = (
                _suffix(batch=(batch, 1), seconds=(length, SAOS_SECONDS)) if run is not one_thread else ".threads_1"
            )
            rows.append(measured(f"saos_seconds{suffix}", [s / int(batch) for s in times], "s", "lower"))
    rows += _peaks("saos", found)
    return rows


def operations(config: SonarcConfig, codec: Codec, seconds: float) -> tuple[int, int]:
    """Floating-point operations of the matrix products and convolutions of decoding, and of one step of the DiT."""
    import torch

    from sonarc.dit import Conditioning, DiT
    from sonarc.text.encoder import TextStates

    patch, width, length = config.dit.patch, config.text.width, config.text.max_tokens
    frames = -(-codec.frames(round(seconds * codec.sample_rate)) // patch) * patch
    few_BCT = torch.zeros(1, codec.latent_channels, COUNTED_FRAMES)
    with torch.no_grad():
        decoding = count_operations(lambda: codec.decode(few_BCT)) * frames / COUNTED_FRAMES
        with torch.device("meta"):  # attention is not linear in the frames, and needs no data to be counted
            model = DiT(config.dit, width)
            text = TextStates(torch.randn(1, length, width), torch.ones(1, length, dtype=torch.bool))
            x_BCT, cond = torch.randn(1, codec.latent_channels, frames), Conditioning(text, torch.ones(1))
            step = count_operations(lambda: model(x_BCT, torch.ones(1), cond))
    return round(decoding), step


def _peaks(model: str, found: Mapping[str, Any]) -> list[BenchRow]:
    """The process's memory at most, and the GPU's where one was used."""
    return [measured(f"{model}_{name}", [found[name]], "MB", "lower") for name in PEAKS if name in found]


def _generation(location: str, *arguments: str) -> dict[str, Any]:
    return in_own_process("sonarc.bench.generation", location, *arguments)


def _cold(location: str, folder: Path) -> list[float]:
    """Seconds of `sonarc generate` from nothing to a file; the first call, which warms the disk, is not counted."""
    command = [sys.executable, "-m", "pipelines.cli", "generate", "a bright bell", "--package", location]
    found = []
    for _ in range(COLD_REPEATS + 1):
        begun = time.perf_counter()
        done = subprocess.run([*command, "-o", str(folder / "cold.wav")], capture_output=True, text=True, check=False)
        found.append(time.perf_counter() - begun)
        if done.returncode:
            raise StageError(f"sonarc generate failed: {done.stderr.strip()[-300:]}", "Try it by hand.")
    return found[1:]


def _suffix(**asked: tuple[str, float]) -> str:
    """What of a measurement is not the usual, as `.batch_2`."""
    unusual = (f".{name}_{found}" for name, (found, usual) in asked.items() if f"{usual:g}" != found)
    return "".join(unusual)


def _ms(seconds: float | None) -> float | None:
    return None if seconds is None else 1e3 * seconds
