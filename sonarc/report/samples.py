"""The kept audio of a run: a folder of WAV files and `samples.json`, which says what each one is.

`samples.json` is a list, an entry a held-out prompt:

    {"prompt": "a slow fiddle tune", "key": "3f2a…-000", "seconds": 2.97, "seed": 1000,
     "files": {"real": "00-real.wav", "base@50": "00-base-50.wav", "generator@4": "00-generator-4.wav"}}
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field, TypeAdapter, ValidationError

from sonarc.contracts.errors import DataError

FileName = Annotated[str, Field(pattern=r"^[A-Za-z0-9@][A-Za-z0-9._@-]*\.wav$")]
_VARIANT = re.compile(r"^(real|codec|base|generator|champion)(?:@(\d+))?$")
_ORDER = ("real", "codec", "base", "champion", "generator")


class Sample(BaseModel):
    """One prompt and its recordings."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    prompt: str
    key: str
    """Key of the held-out clip whose caption the prompt is."""
    seconds: float = Field(gt=0)
    """Asked length, seconds."""
    seed: int = 0
    """Seed of the first noise, the same for every model."""
    files: dict[Annotated[str, Field(pattern=_VARIANT.pattern)], FileName]
    """`real`, `codec` or `model@steps` → file name in the same folder."""

    def ordered(self) -> list[tuple[str, str]]:
        """(variant, file name): real first, then by model, more steps first."""
        return sorted(self.files.items(), key=lambda item: _rank(item[0]))


_Samples = TypeAdapter(list[Sample])


def read_samples(folder: Path) -> list[Sample]:
    """The samples of a folder.

    Raises:
        DataError: `samples.json` is missing or malformed, or names a file that is not there.
    """
    place = folder / "samples.json"
    try:
        samples = _Samples.validate_json(place.read_bytes())
    except OSError as error:
        raise DataError(f"Cannot read {place}: {error.strerror}.", "Evaluate again.") from error
    except ValidationError as error:
        raise DataError(f"{place} does not follow its schema: {error}.", "Evaluate again.") from error
    missing = sorted(name for sample in samples for name in sample.files.values() if not (folder / name).is_file())
    if missing:
        raise DataError(f"{place} names files that are not there: {missing[:3]}.", "Evaluate again.")
    return samples


def variant_label(variant: str) -> str:
    """`generator@4` → `generator, 4 steps`; `real` → `real clip`."""
    match = _VARIANT.match(variant)
    model, steps = (match[1], match[2]) if match else (variant, None)
    name = {"real": "real clip", "codec": "real, through the codec"}.get(model, model)
    if steps is None:
        return name
    return f"{name}, {steps} step{'s' if steps != '1' else ''}"


def _rank(variant: str) -> tuple[int, int]:
    model, _, steps = variant.partition("@")
    return _ORDER.index(model), -int(steps or 0)
