"""What pydantic found wrong in a request, as complaints: where (a JSON pointer into what was sent), what, a way out."""

import re
from collections.abc import Mapping, Sequence
from typing import Any, cast

from app.errors import Complaint

PREVIEW = 60
SECRET = re.compile(r"api.?key|token|secret|password|authorization|credential", re.IGNORECASE)
# What dataclasses and models say of the same mistake in different words.
NO_SUCH_FIELD, FIELD_MISSING = ("extra_forbidden", "There is no such field here"), ("missing", "This field is required")
SAME = {
    "extra_forbidden": NO_SUCH_FIELD,
    "unexpected_keyword_argument": NO_SUCH_FIELD,
    "missing": FIELD_MISSING,
    "missing_argument": FIELD_MISSING,
}
HINTS = {
    "extra_forbidden": "Remove it or check its spelling; /docs lists the fields.",
    "missing": "Add it; /docs shows an example.",
    "json_invalid": "Check the JSON; the position is counted in characters.",
}


def complaints_of(found: Sequence[Mapping[str, Any]], body: object = None) -> list[Complaint]:
    """One complaint for each of a validation's `errors()`, whose `loc` starts with body, query, path or header."""
    return [_complaint(error, body) for error in found]


def _complaint(error: Mapping[str, Any], body: object) -> Complaint:
    place, *parts = error["loc"] or ("body",)
    kind, message = str(error["type"]), _plain(str(error["msg"])).removeprefix("Value error, ")
    kind, message = SAME.get(kind, (kind, message))
    if kind == "json_invalid":
        message = f"The body is not JSON: {_plain(str(error.get('ctx', {}).get('error', '')))} at position {parts[0]}"
        return Complaint(code=kind, message=message, pointer="", hint=HINTS[kind])
    pointer = (
        _pointer(_real(parts, body, kind)) if place == "body" else "/".join((place, *map(_plain, map(str, parts))))
    )
    return Complaint(
        code=kind.replace("_", "-"),
        message=message,
        pointer=pointer,
        value_preview=None if place == "header" or kind == "missing" else preview(parts, error.get("input")),
        hint=HINTS.get(kind),
    )


def _real(parts: Sequence[object], body: object, kind: str) -> list[object]:
    """The parts that lead somewhere in `body`: pydantic also names the union's member or the validator it was in."""
    kept: list[object] = []
    here = body
    for place, part in enumerate(parts):
        last = place == len(parts) - 1
        if isinstance(here, dict) and part in here:
            kept.append(part)
            here = cast(dict[object, object], here)[part]
        elif isinstance(here, list) and isinstance(part, int) and part < len(cast(list[object], here)):
            kept.append(part)
            here = cast(list[object], here)[part]
        elif last and kind == "missing":
            kept.append(part)
    return kept


def _pointer(parts: Sequence[object]) -> str:
    """A JSON pointer (RFC 6901); the empty one is the whole body."""
    return "".join("/" + _plain(str(part)).replace("~", "~0").replace("/", "~1") for part in parts)


def preview(parts: Sequence[object], value: object) -> str | None:
    """The start of a refused value; nothing of objects and lists, and nothing where a name on the way says secret."""
    if isinstance(value, (dict, list, tuple, set)) or value is None or any(SECRET.search(str(part)) for part in parts):
        return None
    text = _plain(value.decode("utf-8", "replace") if isinstance(value, bytes) else str(value))
    return text if len(text) <= PREVIEW else text[: PREVIEW - 1] + "…"


def _plain(text: str) -> str:
    """The text without lone surrogates, which JSON lets in and UTF-8 does not let out."""
    return text.encode("utf-8", "replace").decode("utf-8")
