"""The one way an input is turned away: a reason code and the detail behind it."""

from __future__ import annotations

from sonarc.contracts.dataset import Reason


class Refused(Exception):
    """One input cannot be used. It ends in quarantine; the rest goes on.

    Args:
        reason: the code counted in the dataset's manifest.
        detail: one sentence that names the offending value.
    """

    def __init__(self, reason: Reason, detail: str) -> None:
        super().__init__(f"{reason}: {detail}")
        self.reason = reason
        self.detail = detail

    def __reduce__(self) -> tuple[type[Refused], tuple[Reason, str]]:
        return type(self), (self.reason, self.detail)
