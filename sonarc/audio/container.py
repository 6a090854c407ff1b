"""What a RIFF or AIFF header claims, read before any decoder sees the file.

libsndfile reads a truncated WAV short without a word and reports an absurd header only as "unknown
format". The chunk walk below says which it is. Source: the RIFF/WAVE specification (Microsoft, 1991),
EBU Tech 3306 (RF64), Apple's AIFF specification.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal

MAGIC = (b"RIFF", b"RIFX", b"RF64", b"BW64", b"FORM", b"fLaC", b"OggS", b"ID3", b"caff", b"riff", b".snd")
"""First bytes of the audio containers read here: damage behind one of them is damage, not another format."""

_STREAMED = (0, 0xFFFF_FFFF)  # sizes written by encoders that could not seek back to fill them in


@dataclass(frozen=True)
class Header:
    """The claims of a header: `None` where it makes none.

    Attributes:
        channels: audio channels.
        sample_rate: Hz.
        data_end: offset just behind the last byte of audio, by the size of the audio chunk.
    """

    channels: int | None = None
    sample_rate: int | None = None
    data_end: int | None = None


def read_header(data: bytes) -> Header:
    """The claims of a RIFF, RF64 or AIFF file; an empty `Header` for any other container."""
    magic, form = data[:4], data[8:12]
    if magic in (b"RIFF", b"RF64", b"BW64") and form == b"WAVE":
        return _wave(data, "<")
    if magic == b"RIFX" and form == b"WAVE":
        return _wave(data, ">")
    if magic == b"FORM" and form in (b"AIFF", b"AIFC"):
        return _aiff(data)
    return Header()


def _chunks(data: bytes, order: Literal["<", ">"]) -> Iterator[tuple[bytes, int, int]]:
    """(identifier, offset of the content, claimed size) of each chunk; chunks are padded to even offsets."""
    at = 12
    while at + 8 <= len(data):
        name = data[at : at + 4]
        (size,) = struct.unpack_from(f"{order}I", data, at + 4)
        yield name, at + 8, size
        at += 8 + size + size % 2


def _wave(data: bytes, order: Literal["<", ">"]) -> Header:
    channels = rate = end = None
    long_size: int | None = None
    for name, start, size in _chunks(data, order):
        if name == b"fmt " and start + 8 <= len(data):
            channels, rate = struct.unpack_from(f"{order}HI", data, start + 2)
        elif name == b"ds64" and start + 16 <= len(data):
            (long_size,) = struct.unpack_from("<Q", data, start + 8)
        elif name == b"data":
            if size == 0xFFFF_FFFF and long_size is not None:
                end = start + long_size
            elif size not in _STREAMED:
                end = start + size
            break
    return Header(channels, rate, end)


def _aiff(data: bytes) -> Header:
    channels = end = None
    for name, start, size in _chunks(data, ">"):
        if name == b"COMM" and start + 2 <= len(data):
            (channels,) = struct.unpack_from(">H", data, start)
        elif name == b"SSND":
            end = start + size
            break
    return Header(channels, None, end)
