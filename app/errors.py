"""AppError and its few children: what a refusal says, and with which status it leaves as a problem document."""

from dataclasses import asdict, dataclass
from typing import Any

MAX_LISTED = 100


@dataclass(frozen=True)
class Complaint:
    """One thing wrong with what was sent: where (a JSON pointer, or row and column of a file), what, and a way out."""

    code: str
    message: str
    pointer: str | None = None
    row: int | None = None
    column: str | None = None
    value_preview: str | None = None
    hint: str | None = None

    def document(self) -> dict[str, Any]:
        return {name: value for name, value in asdict(self).items() if value is not None}


class AppError(Exception):
    """A refusal the client can act on. `code` names the kind in `type`; `detail` says what was expected, got and where."""

    status = 500
    code = "internal-error"
    title = "The server could not do this"

    def __init__(
        self,
        detail: str,
        *,
        code: str | None = None,
        errors: list[Complaint] | None = None,
        error_count: int | None = None,
        headers: dict[str, str] | None = None,
    ) -> None:
        super().__init__(detail)
        self.detail = detail
        self.code = code or self.code
        self.errors = errors or []
        self.error_count = error_count if error_count is not None else len(self.errors)
        self.headers = headers or {}

    def document(self, instance: str | None = None) -> dict[str, Any]:
        """The problem document; at most 100 complaints listed, all counted."""
        return {
            "type": f"/docs/errors#{self.code}",
            "title": self.title,
            "status": self.status,
            "detail": self.detail,
            "instance": instance,
            "errors": [complaint.document() for complaint in self.errors[:MAX_LISTED]],
            "error_count": self.error_count,
        }


class NotFound(AppError):
    status, code, title = 404, "not-found", "No such thing here"


class MethodNotAllowed(AppError):
    status, code, title = 405, "method-not-allowed", "This method is not offered here"


class Conflict(AppError):
    status, code, title = 409, "conflict", "The present state does not allow this"


class PreconditionFailed(AppError):
    status, code, title = 412, "precondition-failed", "Somebody changed it first"


class TooLarge(AppError):
    status, code, title = 413, "too-large", "More than this server accepts"


class UnsupportedMedia(AppError):
    status, code, title = 415, "unsupported-media-type", "This media type is not read here"


class NotAcceptable(AppError):
    status, code, title = 406, "not-acceptable", "This media type is not written here"


class Unauthorized(AppError):
    status, code, title = 401, "unauthorized", "An API key is needed"


class Invalid(AppError):
    status, code, title = 422, "invalid", "The request could not be understood"


class QueueFull(AppError):
    status, code, title = 429, "queue-full", "Too many jobs are waiting"


class Unavailable(AppError):
    status, code, title = 503, "unavailable", "The server is not ready for this"
