"""Audio in and out of arrays: decode anything or refuse it with a reason, condition it to clips, FLAC.

Shapes: S samples, A audio channels. Audio is float32 in [-1, 1], channels first.
"""

from __future__ import annotations

from sonarc.audio.condition import Segment, condition, to_stereo
from sonarc.audio.decode import Waveform, decode
from sonarc.audio.flac import decode_flac, encode_flac
from sonarc.audio.quality import check_quality
from sonarc.audio.refusal import Refused

__all__ = [
    "Refused",
    "Segment",
    "Waveform",
    "check_quality",
    "condition",
    "decode",
    "decode_flac",
    "encode_flac",
    "to_stereo",
]
