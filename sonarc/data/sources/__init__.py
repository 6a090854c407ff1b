"""Sources: captioned audio in folders, tables, buckets, at HTTPS addresses, or as datasets are published. No torch."""

from __future__ import annotations

from sonarc.data.sources.listing import Listing, Refusal, SourceFile
from sonarc.data.sources.read import fingerprint, read_source

__all__ = ["Listing", "Refusal", "SourceFile", "fingerprint", "read_source"]
