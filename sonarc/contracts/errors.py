"""Errors a user can act on: what is wrong, the offending value, and what to do.

Every error that may reach a person is a `SonarcError`. The command line prints `message` and
`hint` without a traceback and exits with `exit_code`; a Ray job copies `code`, `message` and
`hint` into its `result.json`.
"""

from __future__ import annotations


class SonarcError(Exception):
    """A problem stated in one sentence, with the remedy.

    Args:
        message: what is wrong, naming the offending value.
        hint: what the user can do about it.
    """

    code = "error"
    exit_code = 1

    def __init__(self, message: str, hint: str = "") -> None:
        super().__init__(message)
        self.message = message
        self.hint = hint

    def __str__(self) -> str:
        return f"{self.message} {self.hint}".strip()

    def __reduce__(self) -> tuple[type[SonarcError], tuple[str, str]]:
        # Ray hands exceptions between our own processes: keep both fields on the way.
        return type(self), (self.message, self.hint)


class ConfigError(SonarcError):
    """A setting is unknown, of the wrong type or out of range."""

    code = "config"
    exit_code = 2


class SourceError(SonarcError):
    """A source of audio or captions is missing or unreadable as a whole."""

    code = "source"
    exit_code = 3


class DataError(SonarcError):
    """A dataset, latent folder or shard is damaged or does not match what names it."""

    code = "data"
    exit_code = 4


class CheckpointError(SonarcError):
    """A checkpoint or model package is incomplete, tampered with or of another shape."""

    code = "checkpoint"
    exit_code = 5


class ModelInputError(SonarcError):
    """A tensor, prompt or sampling setting that the model cannot take."""

    code = "model_input"
    exit_code = 6


class StoreError(SonarcError):
    """The store cannot be read or written: missing, refused, or full."""

    code = "store"
    exit_code = 7


class TrackingError(SonarcError):
    """The tracking server or the registry refused or is unreachable."""

    code = "tracking"
    exit_code = 8


class StageError(SonarcError):
    """A pipeline stage failed; the message carries the stage's own error."""

    code = "stage"
    exit_code = 9


class GateRefused(SonarcError):
    """The candidate did not pass the gate: nothing was promoted."""

    code = "gate"
    exit_code = 10


class ServingError(SonarcError):
    """The endpoint did not start, did not answer, or answered wrongly."""

    code = "serving"
    exit_code = 11


class NothingNew(SonarcError):
    """The sources hold nothing that the champion was not trained from: the run ended early, as it was asked to."""

    code = "nothing_new"
    exit_code = 12


class PlatformError(SonarcError):
    """The cluster's Kubeflow cannot be reached, or refuses."""

    code = "platform"
    exit_code = 13


def error_of(code: str, message: str, hint: str = "") -> SonarcError:
    """The error that was recorded under a code, of its own class again; a `StageError` for any other code."""
    kind = next((kind for kind in SonarcError.__subclasses__() if kind.code == code), StageError)
    return kind(message, hint)
