from __future__ import annotations

import struct

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sounds import RATE, file_of, noise, tone

from sonarc.audio import Refused, Waveform, decode
from sonarc.contracts.dataset import Reason

MANY = 10_000_000


def reason_of(data: bytes, max_samples: int = MANY) -> Reason:
    with pytest.raises(Refused) as caught:
        decode(data, max_samples=max_samples)
    assert caught.value.detail
    return caught.value.reason


def patched(data: bytes, offset: int, content: bytes) -> bytes:
    return data[:offset] + content + data[offset + len(content) :]


def test_every_container_is_read_by_its_content() -> None:
    sound = tone(0.2)
    lossless = [("WAV", "PCM_16"), ("WAV", "PCM_24"), ("WAV", "FLOAT"), ("WAVEX", "PCM_16"), ("RF64", "PCM_16")]
    lossless += [("FLAC", "PCM_16"), ("AIFF", "PCM_16"), ("CAF", "PCM_16"), ("W64", "PCM_16"), ("AU", "PCM_16")]
    for container, subtype in lossless:
        waveform = decode(file_of(sound, container, subtype), max_samples=MANY)
        assert waveform.sample_rate == RATE
        np.testing.assert_allclose(waveform.audio_AS, sound, atol=1 / 32_000)
    eight_bit = decode(file_of(sound, "WAV", "PCM_U8"), max_samples=MANY)
    np.testing.assert_allclose(eight_bit.audio_AS, sound, atol=1 / 100)
    for container, subtype in [("OGG", "VORBIS"), ("MP3", "MPEG_LAYER_III")]:
        waveform = decode(file_of(sound, container, subtype), max_samples=MANY)
        assert waveform.audio_AS.shape == sound.shape


def test_what_is_no_audio_says_so() -> None:
    assert reason_of(b"") is Reason.EMPTY
    assert reason_of(b"<!DOCTYPE html><html><h1>404 Not Found</h1></html>\n" * 40) is Reason.NOT_AUDIO
    assert reason_of(file_of(tone())[:44]) is Reason.TRUNCATED
    assert reason_of(file_of(np.zeros((2, 0), np.float32))) is Reason.EMPTY


@pytest.mark.parametrize("container", ["WAV", "AIFF", "RF64"])
@pytest.mark.parametrize("kept", [0.3, 0.999])
def test_a_file_shorter_than_its_header_says_is_truncated(container: str, kept: float) -> None:
    whole = file_of(tone(), container)
    assert reason_of(whole[: int(len(whole) * kept)]) is Reason.TRUNCATED


def test_a_streamed_wav_that_could_not_state_its_size_is_read() -> None:
    whole = file_of(tone())
    streamed = patched(patched(whole, 4, b"\xff" * 4), 40, b"\xff" * 4)
    assert decode(streamed, max_samples=MANY).audio_AS.shape == tone().shape


def test_flac_damaged_or_cut_in_the_middle_is_corrupt() -> None:
    whole = file_of(noise(), "FLAC")
    middle = len(whole) // 2
    assert reason_of(patched(whole, middle, b"\0" * 200)) is Reason.CORRUPT
    assert reason_of(patched(whole, middle, bytes([whole[middle] ^ 0xFF]))) is Reason.CORRUPT
    assert reason_of(whole[:middle]) in (Reason.CORRUPT, Reason.TRUNCATED)


@pytest.mark.parametrize("rate", [0, 1, 2**31, 2**32 - 1])
def test_absurd_sample_rates_are_refused(rate: int) -> None:
    assert reason_of(patched(file_of(tone()), 24, struct.pack("<I", rate))) is Reason.BAD_RATE


@pytest.mark.parametrize("channels", [0, 9, 65_535])
def test_absurd_channel_counts_are_refused(channels: int) -> None:
    assert reason_of(patched(file_of(tone()), 22, struct.pack("<H", channels))) is Reason.BAD_CHANNELS


def test_a_small_file_that_claims_hours_is_refused_before_it_is_decoded() -> None:
    bomb = file_of(np.zeros((2, 3_000_000), np.float32), "FLAC")
    assert len(bomb) < 60_000
    assert reason_of(bomb, max_samples=5_000_000) is Reason.TOO_LARGE
    claim = bytearray(file_of(tone(), "FLAC"))
    claim[21] |= 0x0F  # STREAMINFO's total of samples: 36 bits, all set
    claim[22:26] = b"\xff" * 4
    assert reason_of(bytes(claim)) is Reason.TOO_LARGE


def test_a_flac_that_states_no_length_is_refused() -> None:
    stream = bytearray(file_of(np.zeros((2, 1_000_000), np.float32), "FLAC"))
    stream[21] &= 0xF0
    stream[22:26] = b"\0" * 4
    assert reason_of(bytes(stream)) is Reason.CORRUPT


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_samples_that_are_no_numbers_are_refused(value: float) -> None:
    sound = tone()
    sound[1, 100] = value
    assert reason_of(file_of(sound, "WAV", "FLOAT")) is Reason.NON_FINITE


def test_details_do_not_differ_from_run_to_run() -> None:
    details = set()
    for _ in range(2):
        with pytest.raises(Refused) as caught:
            decode(b"not audio at all" * 10, max_samples=MANY)
        details.add(caught.value.detail)
    assert len(details) == 1
    assert "0x" not in details.pop()


SEEDS = [
    file_of(noise(0.02), container, subtype)
    for container, subtype in [
        ("WAV", "PCM_16"),
        ("WAV", "FLOAT"),
        ("AIFF", "PCM_16"),
        ("FLAC", "PCM_16"),
        ("OGG", "VORBIS"),
        ("CAF", "PCM_16"),
    ]
]


@settings(max_examples=150)
@given(
    st.sampled_from(SEEDS),
    st.lists(st.tuples(st.integers(0, 400), st.binary(min_size=1, max_size=6)), max_size=4),
    st.integers(0, 5_000),
)
def test_any_damage_is_a_refusal_or_finite_audio(whole: bytes, edits: list[tuple[int, bytes]], cut: int) -> None:
    data = whole
    for offset, content in edits:
        data = patched(data, offset, content)
    try:
        waveform = decode(data[: len(data) - cut] if cut < len(data) else b"", max_samples=1_000_000)
    except Refused as refused:
        assert refused.detail
    else:
        assert isinstance(waveform, Waveform)
        assert np.isfinite(waveform.audio_AS).all()
        assert waveform.audio_AS.size <= 1_000_000
