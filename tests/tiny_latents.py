"""A small dataset of random latents with its stage folder, for the tests of trainings."""

from __future__ import annotations

from sonarc.bench.random_latents import HOP, WORDS, write_encode_stage

__all__ = ["HOP", "WORDS", "write_encode_stage"]
