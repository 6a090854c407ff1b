"""One error shape for everything that is not audio.

    {"error": {"code", "message", "field", "hint", "request_id"}}

`message` never holds the prompt or any other long input.
"""

from __future__ import annotations

from typing import Any

RETRY_AFTER_S = 2
MAX_RETRY_AFTER_S = 120


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


def _passing(status: int, code: str, message: str, hint: str, retry_after_s: float = RETRY_AFTER_S) -> ApiError:
    """What may go well when tried again."""
    seconds = str(min(max(1, round(retry_after_s)), MAX_RETRY_AFTER_S))
    return ApiError(status, code, message, hint=hint or f"Try again in {seconds} s.", headers={"Retry-After": seconds})


def invalid(message: str, field: str | None = None, hint: str = "See /openapi.json.") -> ApiError:
    """A value that is not allowed."""
    return ApiError(422, "invalid_value", message, field, hint)


def unauthorized() -> ApiError:
    """No key, or none that is known."""
    return ApiError(
        401,
        "unauthorized",
        "A valid API key is needed.",
        hint="Send it as Authorization: Bearer KEY.",
        headers={"WWW-Authenticate": "Bearer"},
    )


def model_not_found() -> ApiError:
    """The model a client pinned is not loaded."""
    return ApiError(404, "model_not_found", "No such model is served.", "model", "See /v1/models.")


def job_not_found() -> ApiError:
    """No such job, or it is another key's."""
    return ApiError(404, "job_not_found", "There is no such job.", hint="Finished jobs are kept for a while only.")


def too_large(limit: int) -> ApiError:
    """The body exceeds its limit."""
    return ApiError(413, "too_large", f"The body is larger than {limit} bytes.", hint="Send less.")


def unsupported_media_type(wanted: str) -> ApiError:
    """The body is declared as something else."""
    return ApiError(415, "unsupported_media_type", f"The body must be {wanted}.", hint="Set Content-Type.")


def slow_upload(seconds: float) -> ApiError:
    """The client did not send its body in time."""
    return _passing(408, "upload_timeout", f"The body did not arrive within {seconds:g} seconds.", "Send it faster.")


def too_busy(retry_after_s: float = RETRY_AFTER_S) -> ApiError:
    """The queue is full."""
    return _passing(429, "too_busy", "All places in the queue are taken.", "", retry_after_s)


def limited(limit: str, retry_after_s: float) -> ApiError:
    """A key has used up what it may."""
    says = {
        "rate": "This key has asked for all the clips it may in a minute.",
        "concurrency": "This key has as many requests under way as it may.",
        "jobs": "All places for jobs are taken.",
    }[limit]
    return _passing(429, f"{limit}_limit", says, "", retry_after_s)


def timed_out(seconds: float) -> ApiError:
    """A request passed its deadline."""
    hint = "Try again, or ask for fewer seconds or steps."
    return _passing(504, "timeout", f"The audio was not ready within {seconds:g} seconds.", hint)


def not_ready() -> ApiError:
    """No model is loaded, or its process is being replaced."""
    return _passing(503, "not_ready", "The model is not ready.", "Try again in a moment.")


def lost() -> ApiError:
    """The process that worked on the request has ended."""
    return _passing(503, "lost", "The process that worked on this request has ended.", "Send the request again.")


def internal() -> ApiError:
    """Something of ours broke; the log has the traceback under the request id."""
    return ApiError(
        500, "internal", "The audio could not be made.", hint="Try again; report the request id if it stays."
    )


def client_gone() -> ApiError:
    """The client has closed the connection: nobody reads this."""
    return ApiError(499, "client_gone", "The client has closed the connection.")
