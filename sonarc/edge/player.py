"""Prompts to audio from a folder of ONNX graphs, with numpy, onnxruntime and tokenizers: no torch, nothing of Sonarc.

This file lies in every exported folder, too, and runs there by itself:

    pip install numpy onnxruntime tokenizers
    python player.py "a slow fiddle tune in D major" -o tune.wav

The same seed gives the same sound as `sonarc generate`, up to the rounding of its matrix products: the noise is drawn
as numpy's SeedSequence and torch's Mersenne Twister and Box-Muller transform would.

Shapes: C latent channels, T latent frames, L text tokens, E text width, A audio channels, S samples.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import math
import sys
import wave
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
from numpy.typing import NDArray
from tokenizers import Tokenizer

Array = NDArray[np.float32]
CEILING = 10 ** (-1 / 20)
"""Highest sample of a clip: −1 dB full scale."""
BLOCK = 16
"""Torch's normal generator fills blocks of 16 values: cosines of 8 radii, then their sines."""
MAX_STEPS = 1_000
LOGSNR = (-6.0, 2.0)
"""Signal-to-noise ratios between which the schedule is linear."""


class PlayerError(ValueError):
    """A folder, prompt or number that cannot be played; says what to do."""


def noise(seed: int, draw: int, channels: int, frames: int) -> Array:
    """Standard normal `(1, C, T)`: draw 0 starts the trajectory, draw i re-noises after step i."""
    state = int(np.random.SeedSequence([seed, draw]).generate_state(1, np.uint64)[0])
    rows = -(-channels // BLOCK)
    twister = np.random.RandomState(state & 0xFFFFFFFF)
    words = twister.randint(0, 1 << 32, size=(frames * rows, 2, BLOCK // 2), dtype=np.uint32)
    uniform = (words & 0xFFFFFF).astype(np.float32) * np.float32(2**-24)
    radius = np.sqrt(-2 * np.log(1 - uniform[:, 0]))
    angle = np.float32(2 * math.pi) * uniform[:, 1]
    normal = np.concatenate([radius * np.cos(angle), radius * np.sin(angle)], axis=1)
    return np.ascontiguousarray(normal.reshape(frames, rows * BLOCK)[:, :channels].T)[None].astype(np.float32)


def levels(steps: int) -> Array:
    """Noise levels from 1 to 0, linear in the signal-to-noise ratio's logarithm, `(steps + 1,)`."""
    t = 1 / (1 + np.exp(np.linspace(*LOGSNR, steps + 1)))
    t[0], t[-1] = 1.0, 0.0
    return t.astype(np.float32)


def resident_peak_mb() -> float:
    """Most memory that this process has held so far, MB (Linux)."""
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith("VmHWM:"):
            return int(line.split()[1]) / 1024
    raise PlayerError("This system does not tell a process's peak memory. Read it on Linux.")


class Player:
    """A folder that `sonarc export --onnx` wrote, ready to be played.

    Args:
        folder: the folder.
        precision: `int8` or `float32`; empty: int8 where the folder has it.
        keep: keep the three networks in memory between clips; else each is loaded when its turn comes and let go.
        threads: of the matrix products; 0: one a core.

    Raises:
        PlayerError: no such folder, a damaged file, or a precision it does not hold.
    """

    def __init__(self, folder: Path, precision: str = "", *, keep: bool = True, threads: int = 0) -> None:
        self.folder, self.manifest = folder, _manifest(folder)
        held: dict[str, dict[str, str]] = self.manifest["graphs"]
        self.precision = precision or ("int8" if "int8" in held else next(iter(held)))
        if self.precision not in held:
            raise PlayerError(f"{folder} holds no {precision} networks. Use {' or '.join(held)}.")
        for name in (*held[self.precision].values(), self.manifest["tokenizer"]):
            _verify(folder / name, self.manifest["files"][name]["sha256"])
        self._keep, self._threads = keep, threads
        self._sessions: dict[str, Any] = {}
        self._tokenizer = Tokenizer.from_file(str(folder / self.manifest["tokenizer"]))
        self._tokenizer.no_padding()
        self._tokenizer.enable_truncation(self.manifest["max_tokens"])

    def generate(self, prompt: str, seconds: float | None = None, seed: int = 0, steps: int | None = None) -> Array:
        """One clip, float32 samples `(A, S)`.

        Args:
            prompt: what it should sound like.
            seconds: length; None: a whole clip.
            seed: integer from 0 up.
            steps: network evaluations; None: as many as the model was made for.

        Raises:
            PlayerError: a prompt that is no Unicode, or a number out of range.
        """
        m = self.manifest
        seconds = m["clip_samples"] / m["sample_rate"] if seconds is None else seconds
        steps = m["steps"] if steps is None else steps
        samples = self._samples(seconds, seed, steps)
        frames = -(-samples // (m["hop"] * m["patch"])) * m["patch"]
        given = self._read(prompt) | {"seconds": np.array([seconds], np.float32)}
        x_1CT = clean_1CT = noise(seed, 0, m["latent_channels"], frames)
        dit, t_N = self._session("dit"), levels(steps)
        for i, (t, t_next) in enumerate(pairwise(t_N), start=1):
            (velocity_1CT,) = dit.run(None, given | {"latents": x_1CT, "level": np.array([t])})
            clean_1CT = x_1CT - t * velocity_1CT
            if t_next > 0:
                x_1CT = (1 - t_next) * clean_1CT + t_next * noise(seed, i, m["latent_channels"], frames)
        del dit
        return _turned_down(self._decode(clean_1CT)[:, :samples])

    def _samples(self, seconds: float, seed: int, steps: int) -> int:
        longest, rate = self.manifest["clip_samples"], self.manifest["sample_rate"]
        samples = round(seconds * rate) if math.isfinite(seconds) else 0
        if not 1 <= samples <= longest:
            raise PlayerError(
                f"A length of {seconds} s was asked for. Ask for more than 0 and at most {longest / rate:.3f} s."
            )
        if seed < 0:
            raise PlayerError(f"The seed is {seed}. Use an integer from 0 up.")
        if not 1 <= steps <= MAX_STEPS:
            raise PlayerError(f"{steps} steps were asked for. Ask for 1 to {MAX_STEPS}.")
        return samples

    def _read(self, prompt: str) -> dict[str, Any]:
        """The prompt's states, padded with zeros, and which of them are its own."""
        try:
            prompt.encode("utf-8")
        except UnicodeEncodeError as error:
            raise PlayerError(f"The prompt's character {error.start} is no valid Unicode. Remove it.") from error
        ids = np.array([self._tokenizer.encode(prompt).ids], np.int64)
        (states_1LE,) = self._session("text_encoder").run(None, {"ids": ids})
        room = self.manifest["max_tokens"] - ids.shape[1]
        mask_1L = np.arange(self.manifest["max_tokens"])[None] < ids.shape[1]
        return {"text": np.pad(states_1LE, ((0, 0), (0, room), (0, 0))), "mask": mask_1L}

    def _decode(self, latents_1CT: Array) -> Array:
        """A whole clip's audio, silent beyond the latents."""
        m = self.manifest
        whole_1CT = np.tile(np.array(m["silence"], np.float32)[None, :, None], (1, 1, m["frames"]))
        whole_1CT[:, :, : latents_1CT.shape[2]] = latents_1CT
        ((audio_AS,),) = self._session("decoder").run(None, {"latents": whole_1CT})
        return np.asarray(audio_AS)

    def _session(self, network: str) -> Any:
        if network in self._sessions:
            return self._sessions[network]
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = self._threads
        options.enable_cpu_mem_arena = False  # an arena keeps the largest of everything it ever held
        path = str(self.folder / self.manifest["graphs"][self.precision][network])
        session = onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])
        if self._keep:
            self._sessions[network] = session
        return session


def _turned_down(clip_AS: Array) -> Array:
    """The clip, no sample beyond the ceiling: scaled as a whole, never clipped."""
    peak = float(np.abs(clip_AS).max())
    return clip_AS * np.float32(min(1.0, CEILING / peak)) if peak > 0 else clip_AS


def write_wav(path: Path, clip_AS: Array, sample_rate: int) -> None:
    """Write 16-bit samples; the file appears whole or not at all."""
    whole = path.with_name(f".{path.name}.partial")
    with wave.open(str(whole), "wb") as file:
        file.setnchannels(len(clip_AS))
        file.setsampwidth(2)
        file.setframerate(sample_rate)
        file.writeframes(np.rint(clip_AS.T * 32767).astype("<i2").tobytes())
    whole.replace(path)


def _manifest(folder: Path) -> dict[str, Any]:
    try:
        found: dict[str, Any] = json.loads((folder / "manifest.json").read_text("utf-8"))
    except (OSError, ValueError) as error:
        raise PlayerError(f"{folder} holds no exported model: {error}. Make one: sonarc export --onnx.") from error
    if found.get("schema") != "sonarc.edge/1":
        raise PlayerError(f"{folder} follows {found.get('schema')!r}, not sonarc.edge/1. Export the model again.")
    return found


def _verify(path: Path, wanted: str) -> None:
    digest = hashlib.sha256()
    try:
        with path.open("rb") as file:
            while block := file.read(1 << 20):
                digest.update(block)
    except OSError as error:
        raise PlayerError(f"{path} cannot be read: {error.strerror}. Export the model again.") from error
    if digest.hexdigest() != wanted:
        raise PlayerError(f"{path} is not the file its manifest names. Do not use it; export the model again.")


def main(arguments: list[str] | None = None) -> int:
    """Exit code: 0, or 2 where something cannot be played."""
    parser = argparse.ArgumentParser(description="Make one sound from a prompt, with onnxruntime alone.")
    parser.add_argument("prompt", help="what it should sound like")
    parser.add_argument("-o", "--output", type=Path, default=Path("sound.wav"), help="WAV file (default: %(default)s)")
    parser.add_argument("--seconds", type=float, help="length (default: a whole clip)")
    parser.add_argument("--steps", type=int, help="sampling steps (default: the model's)")
    parser.add_argument("--seed", type=int, default=0, help="the same seed gives the same audio (default: 0)")
    parser.add_argument("--precision", default="", help="int8 or float32 (default: int8 where there is one)")
    parser.add_argument("--folder", type=Path, default=Path(__file__).parent, help="default: where this file lies")
    asked = parser.parse_args(arguments)
    try:
        player = Player(asked.folder, asked.precision, keep=False)
        clip_AS = player.generate(asked.prompt, asked.seconds, asked.seed, asked.steps)
    except PlayerError as error:
        print(error, file=sys.stderr)
        return 2
    write_wav(asked.output, clip_AS, player.manifest["sample_rate"])
    print(f"{asked.output}: {clip_AS.shape[1] / player.manifest['sample_rate']:.2f} s, seed {asked.seed}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
