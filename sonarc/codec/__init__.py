"""Codecs: audio to latents and back, their training, their files and their figures."""

from __future__ import annotations

from sonarc.codec.interface import Codec
from sonarc.codec.package import load_codec, save_codec

__all__ = ["Codec", "load_codec", "save_codec"]
