"""One error shape for everything that is not audio.

    {"error": {"code", "message", "field", "hint", "request_id"}}

`message` never holds the prompt or any other long input.
"""

from __future__ import annotations

from typing import Any

RETRY_AFTER_S = 2


class ApiError(Exception):
    """A refusal or failure as the client sees it.

    Args:
        status: HTTP status.
        code: short, stable name for programs.
        message: what is wrong, for people.
        field: the request's field at fault, if one is.
        hint: what to do about it.
        headers: further headers, such as Retry-After.
    """

    def __init__(
        self,
        status: int,
        code: str,
        message: str,
        field: str | None = None,
        hint: str = "",
        headers: dict[str, str] | None = None,
    ) -> None:
        super().__init__(message)
        self.status, self.code, self.message = status, code, message
        self.field, self.hint, self.headers = field, hint, headers or {}

    def document(self, request_id: str) -> dict[str, Any]:
        """The JSON body."""
        return {
            "error": {
                "code": self.code,
                "message": self.message,
                "field": self.field,
                "hint": self.hint,
                "request_id": request_id,
            }
        }


def too_busy() -> ApiError:
    """The queue is full."""
    return ApiError(
        429,
        "too_busy",
        "All places in the queue are taken.",
        hint=f"Try again in {RETRY_AFTER_S} seconds.",
        headers={"Retry-After": str(RETRY_AFTER_S)},
    )


def timed_out(seconds: float) -> ApiError:
    """A request passed its deadline."""
    return ApiError(
        504,
        "timeout",
        f"The audio was not ready within {seconds:g} seconds.",
        hint="Try again, ask for fewer seconds or steps.",
        headers={"Retry-After": str(RETRY_AFTER_S)},
    )


def not_ready() -> ApiError:
    """No model is loaded, or its process is being replaced."""
    return ApiError(
        503,
        "not_ready",
        "The model is not ready.",
        hint="Try again in a moment.",
        headers={"Retry-After": str(RETRY_AFTER_S)},
    )


def internal() -> ApiError:
    """Something of ours broke; the log has the traceback under the request id."""
    return ApiError(
        500, "internal", "The audio could not be made.", hint="Try again; report the request id if it stays."
    )
