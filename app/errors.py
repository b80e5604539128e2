"""AppError and its few children: what a refusal says, and with which status it leaves as a problem document."""

import errno
from dataclasses import asdict, dataclass
from typing import Any

MAX_LISTED = 100
FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)  # no room on the disk, in somebody's share of it, for one file


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
    """A refusal the client can act on. `code` names its kind, `detail` says what was expected, what came and where."""

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


class Forbidden(AppError):
    status, code, title = 403, "forbidden", "Not from there"


class MethodNotAllowed(AppError):
    status, code, title = 405, "method-not-allowed", "This method is not offered here"


class Conflict(AppError):
    status, code, title = 409, "conflict", "The present state does not allow this"


class PreconditionFailed(AppError):
    status, code, title = 412, "precondition-failed", "Somebody changed it first"


class TooLarge(AppError):
    status, code, title = 413, "too-large", "More than this server accepts"


class NoSuchRange(AppError):
    status, code, title = 416, "no-such-range", "The file has no such bytes"


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


class StoreAway(Unavailable):
    """The object store does not answer, which says nothing of what is in it."""


def disk_full(what: str) -> Unavailable:
    """The refusal of what could not be written for want of room: `what` is half a sentence that says so."""
    return Unavailable(
        f"The disk is full: {what}. Make room in the data folder, then try again.",
        code="disk-full",
        headers={"Retry-After": "30"},
    )


# ---------------------------------------------------------------- what /docs/errors says


@dataclass(frozen=True)
class Kind:
    """A code that a problem's `type` can end with: its status, what it means, and what to do."""

    status: int
    meaning: str
    next_step: str


CODES = {
    "unauthorized": Kind(
        401,
        "The server asks for an API key, and the request had none or another one.",
        "Send the key as `Authorization: Bearer <key>` or as `x-api-key: <key>`.",
    ),
    "forbidden": Kind(
        403,
        "The server has no API key, so it answers this machine only; the request came for or from somewhere else.",
        "Set `GATECAST_API_KEY` and send the key, or name the page's origin in `GATECAST_CORS_ORIGINS`.",
    ),
    "not-found": Kind(
        404,
        "The path, or the dataset, series, job, model, version or alias it names, does not exist.",
        "Check the name's spelling and case; list what there is with a GET one level up.",
    ),
    "no-such-dataset": Kind(
        404, "There is no dataset of that name.", "List them with `GET /v1/datasets`; names keep their case."
    ),
    "no-such-series": Kind(
        404,
        "The dataset has no series of that key at that revision.",
        "List them with `GET /v1/datasets/{dataset}/series`; `?search=` finds a part of a key.",
    ),
    "backtest-not-done": Kind(
        404, "The backtest's job has not succeeded yet.", "Follow the job named in `detail`; its result is here then."
    ),
    "no-result": Kind(
        404,
        "The job has made no file: it has not succeeded yet, or is of a kind that makes none.",
        "Look at the job: its `state`, and `result.href` once it has succeeded.",
    ),
    "no-trials": Kind(404, "The job is no tune, so it has no trials.", "List tunes with `GET /v1/jobs?kind=tune`."),
    "method-not-allowed": Kind(
        405, "The path exists, but not for this method.", "Use one of the methods in the `Allow` header."
    ),
    "not-acceptable": Kind(
        406,
        "The answer cannot be written in any of the media types the request accepts.",
        "Ask for one of those named in `detail`, or leave `Accept` out.",
    ),
    "conflict": Kind(
        409,
        "The request is sound, but the present state does not allow it.",
        "Read `detail`, look at the thing's state, and change that first.",
    ),
    "dataset-exists": Kind(
        409, "There is a dataset of that name.", "Take another name, or upload to the one there is."
    ),
    "dataset-in-use": Kind(
        409,
        "A version that an alias points to was trained on the dataset.",
        "Move the aliases first, or delete it all the same with `?force=true`.",
    ),
    "calendar-differs": Kind(
        409,
        "The upload's frequency or time zone is not the dataset's.",
        "Bring the file to the dataset's calendar, or upload it to a dataset of its own.",
    ),
    "series-off-grid": Kind(
        409,
        "A series' times lie between the steps that the stored ones lie on.",
        "Move the times onto the grid, or delete the series and upload it anew.",
    ),
    "column-changed": Kind(
        409,
        "A column is stored as something else: another role, or numbers where there were categories.",
        "Name the column's old role in the upload, or give the column another name.",
    ),
    "value-changed": Kind(
        409,
        "`append` only adds; some of the values sent differ from the stored ones. Nothing was stored.",
        "Send them with `mode=upsert` if they are corrections.",
    ),
    "extra-missing": Kind(
        409,
        "A job was asked for something that needs an extra which is not installed where the jobs run.",
        "Install what `detail` names there, start the worker again and retry the job; or ask without it.",
    ),
    "dataset-empty": Kind(409, "The dataset has no points yet.", "Upload a file to it first."),
    "version-in-use": Kind(
        409, "An alias still points to the version.", "Move or remove the alias, then delete the version."
    ),
    "model-read-only": Kind(
        409,
        "The model comes with the program and is nobody's to change: it is the same on every server of a release.",
        "Train a model of another name; with `warm_start_from` it can start from this one.",
    ),
    "other-format": Kind(
        409,
        "The version was written by another release, in a form that this one cannot go on learning from.",
        "Train without `warm_start_from` once; later versions can start from that one.",
    ),
    "precondition-failed": Kind(
        412,
        "Somebody changed it after it was read: `If-Match` names an older state.",
        "Read it again, decide again, and send its new `ETag`.",
    ),
    "too-large": Kind(
        413,
        "The body, or what it unpacks to, is larger than this server accepts.",
        "Send it in parts, or raise the limit named in `detail` in the server's settings.",
    ),
    "no-such-range": Kind(
        416,
        "`Range` begins after the file's last byte.",
        "Take the size from `Content-Range`; leave out `Range` for all.",
    ),
    "unsupported-media-type": Kind(
        415,
        "The body's media type or encoding is not read here.",
        "Set `Content-Type` (and `Content-Encoding`) to one of those named in `detail`.",
    ),
    "invalid": Kind(
        422,
        "The request could be read but not understood: a field, a parameter or a value is not as expected.",
        "Each entry of `errors` says where, what was wrong, and usually a way out.",
    ),
    "invalid-file": Kind(
        422,
        "The uploaded file could not be understood. Nothing of it was stored.",
        "Each entry of `errors` names a row and a column; mend them and send the whole file again.",
    ),
    "invalid-version": Kind(
        422,
        "The file is not a version as an export writes it, what is in it does not fit together, or it does not answer. "
        "Nothing of it was stored.",
        "Export the version anew with `gatecast export`, and send the file as it is.",
    ),
    "no-such-revision": Kind(
        422, "The dataset has no revision of that number.", "Take one of those named in `detail`, or leave it out."
    ),
    "span": Kind(
        422,
        "A series' first and last point are too many steps apart for the points between them.",
        "Look for a wrong date at its ends, or name a longer `frequency`.",
    ),
    "unreadable-body": Kind(
        422, "The body ends early, or is not in the form its media type says.", "Check how the body is made and sent."
    ),
    "idempotency-key-reused": Kind(
        422,
        "The `Idempotency-Key` was used before for a different request.",
        "Send a new key with a new request; the same key only to repeat one.",
    ),
    "unfit-data": Kind(
        422,
        "A job found that the data do not allow what it was asked: too short, or without values.",
        "Read `detail`; add data, or ask for a shorter horizon or context.",
    ),
    "unfit-config": Kind(
        422,
        "A trial drew values that do not go together, so it was not tried.",
        "Read `detail`; narrow the search space if many trials end so.",
    ),
    "queue-full": Kind(
        429, "As many jobs are waiting as this server lets wait.", "Wait for `Retry-After`, then try again."
    ),
    "internal-error": Kind(
        500,
        "Something went wrong that nobody foresaw. Nothing was changed.",
        "Try again; if it stays, report it with the log line of the request's id.",
    ),
    "attempts-exhausted": Kind(
        500,
        "A job's attempts kept ending without progress, as when its worker is killed each time.",
        "Look at the worker's log and memory, then retry the job.",
    ),
    "out-of-memory": Kind(
        500,
        "A job needed more memory than its worker, or the worker's GPU, has.",
        "Ask for a smaller `hidden`, `layers`, `batch` or `context`, or give the worker more memory; then retry it.",
    ),
    "no-trial-completed": Kind(
        500,
        "A tune has come to its end without one completed trial.",
        "Look at `GET /v1/jobs/{job}/trials`; once the cause is gone, retry the tune: it tries again what failed.",
    ),
    "job-crashed": Kind(
        500, "A job ended with an error nobody foresaw.", "Look at the worker's log; report it with the job's id."
    ),
    "unavailable": Kind(
        503, "The server cannot do this right now.", "Try again after `Retry-After`; see /readyz for what is missing."
    ),
    "disk-full": Kind(
        503,
        "The disk that holds the data folder, or the database's own, has no room left. Nothing was stored by half.",
        "Make room there, then try again; a failed job goes on from its last checkpoint when it is retried.",
    ),
    "not-ready": Kind(
        503,
        "The database does not answer, its tables are old, or the model store cannot be written.",
        "`errors` names which; each has a hint.",
    ),
    "store-away": Kind(
        503,
        "The object store that keeps the versions does not answer, or refuses.",
        "Try again after `Retry-After`; operators find the cause in `detail` and at /readyz.",
    ),
    "reader-ended": Kind(
        503,
        "The process that read the file ended before it was done, perhaps for want of memory. Nothing was stored.",
        "Send the file again, or in smaller parts.",
    ),
    "result-lost": Kind(
        503,
        "The file that a forecast job has made is not in the data folder, or has another size.",
        "Bring the data folder's `results` back from a backup, or ask for the forecast anew.",
    ),
    "artifact-damaged": Kind(
        503,
        "The files of a stored version are not the ones that were published.",
        "Restore the version's folder from a backup, or move the alias to another version.",
    ),
}
