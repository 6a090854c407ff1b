"""One real request to the endpoint, and a look at what comes back. No ray here."""

from __future__ import annotations

import io
import os
import time
from dataclasses import dataclass

import httpx
import numpy as np
import soundfile

from sonarc.contracts.errors import ServingError

KEY = "SONARC_API_KEY"
"""Environment variable: the key with which an endpoint that wants one is asked."""
PROMPT = "a short bright melody"
SEED = 7
QUIETEST = 1e-3
"""Below this peak the answer counts as silent."""
_TOLERANCE_SAMPLES = 1


@dataclass(frozen=True)
class SmokeReport:
    """What came back.

    Attributes:
        seconds: length of the audio.
        latency_s: from request to the last byte, seconds.
        peak: largest absolute sample.
        rms: root mean square of all samples.
        package_sha256: what made it.
    """

    seconds: float
    latency_s: float
    peak: float
    rms: float
    package_sha256: str
    audio: bytes


def check_endpoint(
    address: str,
    *,
    seconds: float,
    package_sha256: str,
    sample_rate: int = 44_100,
    channels: int = 2,
    timeout_s: float = 60.0,
) -> SmokeReport:
    """Ask for one clip, with the environment's key if there is one, and check it: status, package, format, length,
    finite, not silent.

    Args:
        address: `http://host:port`.
        seconds: length to ask for.
        package_sha256: the package that must answer.
        sample_rate: Hz the answer must have.
        channels: channels the answer must have.
        timeout_s: longest wait, seconds.

    Raises:
        ServingError: naming what is wrong.
    """
    body = {"prompt": PROMPT, "seconds": seconds, "seed": SEED, "response_format": "wav"}
    headers = {"Authorization": f"Bearer {os.environ[KEY]}"} if os.environ.get(KEY) else {}
    begun = time.monotonic()
    try:
        answer = httpx.post(
            f"{address}/v1/audio/generations", json=body, headers=headers, timeout=timeout_s, trust_env=False
        )
    except httpx.HTTPError as error:
        raise ServingError(f"{address} did not answer: {error}.", "Look at the server's log.") from error
    latency = time.monotonic() - begun
    if answer.status_code == 401:
        raise ServingError(f"{address} wants a key.", f"Put one of its keys into {KEY}.")
    if answer.status_code != 200:
        raise ServingError(f"{address} answered {answer.status_code}: {answer.text[:300]}", "Look at the server's log.")
    served = answer.headers.get("x-sonarc-package", "")
    if served != package_sha256:
        raise ServingError(
            f"{address} answered with the package {served[:16]!r}, not {package_sha256[:16]!r}.", "Deploy again."
        )
    try:
        audio_SA, rate = soundfile.read(io.BytesIO(answer.content), dtype="float32", always_2d=True)
    except soundfile.LibsndfileError as error:
        raise ServingError(
            f"{address} answered with something that is no audio: {error}.", "Look at its log."
        ) from error
    _check(audio_SA, rate, seconds, sample_rate, channels)
    return SmokeReport(
        seconds=len(audio_SA) / rate,
        latency_s=latency,
        peak=float(np.abs(audio_SA).max()),
        rms=float(np.sqrt(np.mean(audio_SA.astype(np.float64) ** 2))),
        package_sha256=served,
        audio=answer.content,
    )


def _check(audio_SA: np.ndarray, rate: int, seconds: float, sample_rate: int, channels: int) -> None:
    problems = []
    if rate != sample_rate:
        problems.append(f"it has {rate} Hz, not {sample_rate}")
    if audio_SA.shape[1] != channels:
        problems.append(f"it has {audio_SA.shape[1]} channels, not {channels}")
    wanted = round(seconds * sample_rate)
    if abs(len(audio_SA) - wanted) > _TOLERANCE_SAMPLES:
        problems.append(f"it has {len(audio_SA)} samples, not {wanted}")
    if not np.isfinite(audio_SA).all():
        problems.append("it holds NaN or infinite samples")
    elif audio_SA.size and np.abs(audio_SA).max() < QUIETEST:
        problems.append("it is silent")
    if problems:
        raise ServingError(f"The answer is not right: {'; '.join(problems)}.", "Look at the model's evaluation.")
