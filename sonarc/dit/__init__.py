"""The diffusion transformer and its conditioning."""

from __future__ import annotations

from sonarc.dit.conditioning import Conditioning, concatenate_conditioning
from sonarc.dit.model import PUBLISHED_PREFIXES, DiT

__all__ = ["PUBLISHED_PREFIXES", "Conditioning", "DiT", "concatenate_conditioning"]
