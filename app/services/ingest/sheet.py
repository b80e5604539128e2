"""A file read but not yet understood, and the list of what is wrong or odd in it."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import NoReturn

import numpy as np
from numpy.typing import NDArray

from app.errors import MAX_LISTED, Complaint, Invalid
from app.services.ingest.arrow import Column
from app.services.ingest.upload import Ask, Known

PREVIEW = 60


@dataclass(frozen=True)
class Rows:
    """How a file's rows are numbered for people. `numbers(indexes)` takes ascending row indexes from 0."""

    explained: str
    numbers: Callable[[Sequence[int]], list[int]]


def counted_from_one(indexes: Sequence[int]) -> list[int]:
    return [index + 1 for index in indexes]


RECORDS = Rows("Records are numbered from 1.", counted_from_one)


@dataclass
class Sheet:
    """Columns by name, each an Arrow column of `length` rows. `delimiter` is that of a CSV file, else None."""

    columns: dict[str, Column]
    length: int
    rows: Rows
    delimiter: str | None = None

    @property
    def names(self) -> list[str]:
        return list(self.columns)


def named(names: Sequence[str], columns: Sequence[Column], row: int | None = None) -> dict[str, Column]:
    """Columns by name, blanks around the names gone. Invalid when two have the same; `row` is where the names stand."""
    made = {name.strip(): column for name, column in zip(names, columns, strict=True)}
    if len(made) < len(names):
        stripped = [name.strip() for name in names]
        twice = next(name for name in stripped if stripped.count(name) > 1)
        refuse("duplicate_column", f"two columns are named {twice!r}", row=row, column=twice)
    return made


@dataclass(frozen=True)
class Finding:
    """One complaint whose rows are still indexes; `{row}` and `{other}` in the message become their numbers."""

    code: str
    message: str
    index: int | None = None
    other: int | None = None
    column: str | None = None
    value: str | None = None
    hint: str | None = None


@dataclass
class Findings:
    """Complaints while they are collected: each check may list its first hundred, `count` counts all."""

    count: int = 0
    listed: list[Finding] = field(default_factory=list[Finding])

    def add(self, finding: Finding) -> None:
        self.count += 1
        self.listed.append(finding)

    def add_first(self, rows: NDArray[np.int64], make: Callable[[int], Finding]) -> None:
        """`make(row)` for the first hundred of `rows`, all of them counted."""
        self.count += len(rows)
        self.listed += [make(row) for row in rows[:MAX_LISTED].tolist()]

    def add_rows(self, like: Finding, indexes: NDArray[np.int64], value: Callable[[int], str | None]) -> None:
        """One complaint like `like` for each row; `value(index)` is what stands there."""
        self.count += len(indexes)
        for index in indexes[:MAX_LISTED].tolist():
            self.listed.append(Finding(like.code, like.message, index, None, like.column, value(index), like.hint))

    def complaints(self, rows: Rows) -> list[Complaint]:
        """The first hundred by row (those about the whole file first), with rows as people count them."""
        chosen = sorted(self.listed, key=lambda finding: -1 if finding.index is None else finding.index)[:MAX_LISTED]
        wanted = sorted({i for finding in chosen for i in (finding.index, finding.other) if i is not None})
        number = dict(zip(wanted, rows.numbers(wanted), strict=True))
        return [_complaint(finding, number) for finding in chosen]

    def refuse(self, rows: Rows, code: str = "invalid-file") -> None:
        """Raise Invalid with everything collected, if anything was."""
        if not self.count:
            return
        complaints = self.complaints(rows)
        first = complaints[0]
        place = "" if first.row is None else f" (row {first.row}{f', column {first.column!r}' if first.column else ''})"
        plain = first.value_preview is not None and first.message.startswith("expected")
        got = f", got {first.value_preview!r}" if plain else ""
        number = "1 problem" if self.count == 1 else f"{self.count} problems"
        raise Invalid(
            f"{number} in the file, nothing was stored; the first{place}: {first.message}{got}. {rows.explained}",
            code=code,
            errors=complaints,
            error_count=self.count,
        )


@dataclass
class Case:
    """One upload while it is read: the question, how rows are numbered, what is wrong and what is merely odd."""

    ask: Ask
    known: Known
    rows: Rows
    findings: Findings = field(default_factory=Findings)
    warnings: Findings = field(default_factory=Findings)

    def refuse(self) -> None:
        """Raise Invalid with every complaint so far, if there is one."""
        self.findings.refuse(self.rows)


def _complaint(finding: Finding, number: dict[int, int]) -> Complaint:
    message = finding.message
    row = other = None
    if finding.index is not None:
        row = number[finding.index]
        message = message.replace("{row}", str(row))
    if finding.other is not None:
        other = number[finding.other]
        message = message.replace("{other}", str(other))
    return Complaint(
        code=finding.code,
        message=message,
        row=row,
        column=finding.column,
        value_preview=preview(finding.value),
        hint=finding.hint,
    )


def preview(value: str | None) -> str | None:
    """At most 60 characters of a value."""
    return value if value is None or len(value) <= PREVIEW else value[: PREVIEW - 1] + "…"


def refuse(code: str, message: str, hint: str | None = None, **place: str | int | None) -> NoReturn:
    """Refuse the whole file for one reason. `place` may name row, column and value_preview of the complaint."""
    complaint = Complaint(code=code, message=message, hint=hint, **place)  # pyright: ignore[reportArgumentType]
    detail = message if hint is None else f"{message}; {hint}"
    raise Invalid(f"{detail}. Nothing was stored.", code="invalid-file", errors=[complaint])
