"""The id column: keys in order, and for each row the number of its series."""

import re

import numpy as np
from numpy.typing import NDArray

from app.errors import MAX_LISTED, TooLarge
from app.services.ingest.arrow import Column, is_text, plain, types
from app.services.ingest.sheet import Finding, Findings

MAX_KEY_BYTES = 255
_CONTROL = re.compile(r"[\x00-\x1f\x7f-\x9f]")


def read_keys(column: Column, name: str, findings: Findings, limit: int) -> tuple[list[str], NDArray[np.int64]]:
    """Ascending keys and (rows,) codes into them. Whole numbers become their text. Complaints: no key, a control
    character, more than 255 bytes. TooLarge when there are more than `limit` keys."""
    if not types.is_dictionary(column.type):
        column = plain(column)
    texts, codes = _distinct(column, name, findings)
    used = np.bincount(codes[codes >= 0], minlength=len(texts)) > 0
    keys = sorted({text for text, wanted in zip(texts, used.tolist(), strict=True) if wanted and text is not None})
    if len(keys) > limit:
        raise TooLarge(f"the file holds {len(keys)} series; at most {limit} are taken")
    place = {key: index for index, key in enumerate(keys)}
    rank = np.array([-1 if text is None else place.get(text, -1) for text in texts] + [-1], np.int64)
    codes = rank[codes]
    missing = np.flatnonzero(codes < 0)
    if len(missing) and not findings.count:
        findings.add_rows(Finding("missing_key", "the row names no series", column=name), missing, lambda _: None)
    _check_keys(keys, codes, name, findings)
    return keys, codes


def _distinct(column: Column, name: str, findings: Findings) -> tuple[list[str | None], NDArray[np.int64]]:
    """The distinct values as text, None where a value cannot be a key, and (rows,) places in them, -1 for null."""
    if not types.is_dictionary(column.type):
        column = column.dictionary_encode()
    column = column.unify_dictionaries()
    chunks = column.chunks
    codes = [chunk.indices.fill_null(-1).to_numpy(zero_copy_only=False).astype(np.int64) for chunk in chunks]
    values = chunks[0].dictionary
    if is_text(values.type) or types.is_integer(values.type) or types.is_null(values.type):
        texts = [None if value is None or value == "" else str(value) for value in values.to_pylist()]
    elif types.is_floating(values.type) or types.is_decimal(values.type):
        numbers = values.to_pylist()
        whole = [value is not None and abs(value) < 2**63 and value == int(value) for value in numbers]
        texts = [str(int(value)) if good else None for value, good in zip(numbers, whole, strict=True)]
        if any(value is not None and not good for value, good in zip(numbers, whole, strict=True)):
            findings.add(_not_keys(name, "fractions"))
    else:
        findings.add(_not_keys(name, str(values.type)))
        texts: list[str | None] = [None] * len(values)
    return texts, np.concatenate(codes)


def _not_keys(name: str, kind: str) -> Finding:
    return Finding(
        "not_a_key", f"expected text or whole numbers as keys, got {kind}", column=name, hint="send keys as text"
    )


def _check_keys(keys: list[str], codes: NDArray[np.int64], name: str, findings: Findings) -> None:
    bad = [(place, key_problem(key)) for place, key in enumerate(keys) if len(key) > 60 or not key.isprintable()]
    wrong = [(place, problem) for place, problem in bad if problem]
    for place, problem in wrong[:MAX_LISTED]:
        first = int(np.argmax(codes == place))
        findings.add(Finding("bad_key", str(problem), first, column=name, value=ascii(keys[place])))
    findings.count += max(0, len(wrong) - MAX_LISTED)


def key_problem(key: str) -> str | None:
    """Why a text cannot be a key or a column name; None when it can."""
    if not key:
        return "expected a name, got nothing"
    if _CONTROL.search(key):
        return "a name may not hold control characters"
    size = len(key.encode("utf-8", errors="replace"))
    return f"a name may have at most {MAX_KEY_BYTES} bytes, this has {size}" if size > MAX_KEY_BYTES else None
