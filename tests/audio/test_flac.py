from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sounds import RATE, noise

from sonarc.audio import decode_flac, encode_flac
from sonarc.contracts.errors import DataError


@settings(max_examples=25)
@given(frames=st.integers(1, 5_000), seed=st.integers(0, 9), level=st.sampled_from([0.0, 0.1, 2.0]))
def test_sixteen_bits_survive_and_bytes_repeat(frames: int, seed: int, level: float) -> None:
    sound = (level * np.random.default_rng(seed).standard_normal((2, frames))).astype(np.float32)
    data = encode_flac(sound, RATE)
    assert encode_flac(sound, RATE) == data
    back = decode_flac(data, sample_rate=RATE, frames=frames)
    np.testing.assert_allclose(back, np.clip(sound, -1, 1 - 1 / 32_768), atol=0.5 / 32_768 + 1e-7)
    assert encode_flac(back, RATE) == data


def test_damage_and_wrong_claims_are_data_errors() -> None:
    data = encode_flac(noise(0.2), RATE)
    frames = noise(0.2).shape[1]
    with pytest.raises(DataError, match="damaged"):
        decode_flac(data[:200] + b"\0" * 500 + data[700:], sample_rate=RATE, frames=frames)
    with pytest.raises(DataError, match="damaged"):
        decode_flac(b"RIFFnonsense", sample_rate=RATE, frames=frames)
    with pytest.raises(DataError, match="where the index says"):
        decode_flac(data, sample_rate=RATE, frames=frames - 1)
    with pytest.raises(DataError, match="where the index says"):
        decode_flac(data, sample_rate=48_000, frames=frames)
