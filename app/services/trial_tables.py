"""A tune's trials as a table: a row a trial, a column for each field that is searched."""

from collections.abc import Sequence
from typing import Any

from app.services.ingest.arrow import pa
from app.services.trials import Trial


def table(found: Sequence[Trial]) -> Any:
    """The trials as an Arrow table. Values of a field are numbers where all of them are, else texts."""
    names = list(dict.fromkeys(name for one in found for name in one.row.params))
    columns: dict[str, Any] = {
        "number": pa.array([one.row.number for one in found], pa.int64()),
        "state": pa.array([one.state for one in found], pa.large_string()),
        "value": pa.array([one.row.value for one in found], pa.float64()),
    }
    columns |= {name: _column([one.row.params.get(name) for one in found]) for name in names}
    whys = [(one.job.error or {}).get("detail") or (one.job.result or {}).get("why") for one in found]
    return pa.table(
        columns
        | {
            "steps": pa.array([(one.job.progress or {}).get("step", 0) for one in found], pa.int64()),
            "duration_s": pa.array([one.seconds for one in found], pa.float64()),
            "reason": pa.array(whys, pa.large_string()),
            "job": pa.array([one.job.id for one in found], pa.large_string()),
        }
    )


def _column(values: Sequence[Any]) -> Any:
    kinds: set[type[Any]] = {type(value) for value in values if value is not None}
    if kinds == {int}:
        return pa.array(values, pa.int64())
    if kinds and kinds <= {int, float}:
        return pa.array([None if value is None else float(value) for value in values], pa.float64())
    return pa.array([None if value is None else _text(value) for value in values], pa.large_string())


def _text(value: Any) -> str:
    return str(value).lower() if isinstance(value, bool) else str(value)
