"""Sonarc: fast text-to-audio, from captioned audio to a served model."""

__version__ = "0.1.0"
