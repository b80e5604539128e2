"""An Upload or a refusal as files in a folder: arrays as .npy, the rest as one JSON document. No pickle."""

from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import orjson
from numpy.typing import NDArray

from app.errors import AppError, Complaint, Invalid, TooLarge, Unavailable, UnsupportedMedia
from app.services.ingest.placing import KINDS
from app.services.ingest.upload import Ask, Audit, Covariate, Known, Upload
from models import Calendar

DOCUMENT = "document.json"
WAITS = "\n"  # the letter by which a reader says that it has answered, and may be asked again
_MAP_BYTES = 1 << 20
_REFUSALS: dict[str, type[AppError]] = {
    kind.__name__: kind for kind in (Invalid, TooLarge, UnsupportedMedia, Unavailable)
}


def pack_question(path: Path, folder: Path, ask: Ask, known: Known) -> bytes:
    """Read `path`, and put the answer into `folder`."""
    # Not asdict for Known: it would copy a million phases one by one.
    known_fields = {
        "frequency": known.frequency,
        "time_zone": known.time_zone,
        "phases": dict(known.phases),
        "columns": dict(known.columns),
        "takes_zone": known.takes_zone,
    }
    return orjson.dumps({"path": str(path), "folder": str(folder), "ask": asdict(ask), "known": known_fields})


def unpack_question(line: bytes) -> tuple[Path, Path, Ask, Known]:
    document = orjson.loads(line)
    ask: dict[str, Any] = document["ask"]
    for name in ("static_columns", "future_columns", "past_columns"):
        ask[name] = tuple(ask.get(name, ()))
    known: dict[str, Any] = document["known"]
    known["columns"] = {name: tuple(value) for name, value in known["columns"].items()}
    return Path(document["path"]), Path(document["folder"]), Ask(**ask), Known(**known)


def write_upload(upload: Upload, folder: Path) -> None:
    """Arrays first, the document last: where it is, all is."""
    arrays: dict[str, str] = {}
    for name in ("phases", "offsets", "steps", "values"):
        array = getattr(upload, name)
        arrays[name] = f"{name}.npy"
        if isinstance(array, np.memmap):  # what was read block by block lies there already
            arrays[name] = Path(str(array.filename)).name
        else:
            np.save(folder / arrays[name], array, allow_pickle=False)
    document = {
        "arrays": arrays,
        "frequency": upload.calendar.frequency.name,
        "time_zone": upload.calendar.time_zone,
        "keys": upload.keys,
        "columns": upload.columns,
        "audit": asdict(upload.audit),
        "covariates": _write_covariates(upload.covariates, folder, "covariate"),
        "statics": _write_covariates(upload.statics, folder, "static"),
    }
    (folder / DOCUMENT).write_bytes(orjson.dumps({"upload": document}))


def _write_covariates(covariates: dict[str, Covariate], folder: Path, prefix: str) -> list[dict[str, Any]]:
    documents: list[dict[str, Any]] = []
    for place, (name, covariate) in enumerate(covariates.items()):
        np.save(folder / f"{prefix}-{place}-values.npy", covariate.values, allow_pickle=False)
        np.save(folder / f"{prefix}-{place}-present.npy", covariate.present, allow_pickle=False)
        kept = {"name": name, "role": covariate.role, "kind": covariate.kind, "categories": covariate.categories}
        documents.append(kept)
    return documents


def write_refusal(error: AppError, folder: Path) -> None:
    kind = type(error).__name__
    document = {
        "kind": kind if kind in _REFUSALS else Unavailable.__name__,
        "detail": error.detail,
        "code": error.code,
        "errors": [asdict(complaint) for complaint in error.errors],
        "error_count": error.error_count,
    }
    (folder / DOCUMENT).write_bytes(orjson.dumps({"refusal": document}))


def read_answer(folder: Path) -> Upload | None:
    """What the folder holds: the Upload, or None when there is no answer in it. Raises the refusal if it is one.

    Large arrays are mapped, not read: they stay usable after the folder is gone, and cost memory only where touched.
    """
    try:
        document = orjson.loads((folder / DOCUMENT).read_bytes())
    except FileNotFoundError:
        return None
    if refusal := document.get("refusal"):
        complaints = [Complaint(**complaint) for complaint in refusal["errors"]]
        kind = _REFUSALS[refusal["kind"]]
        raise kind(refusal["detail"], code=refusal["code"], errors=complaints, error_count=refusal["error_count"])
    upload = document["upload"]
    audit, arrays = upload["audit"], upload["arrays"]
    return Upload(
        calendar=Calendar.of(upload["frequency"], upload["time_zone"]),
        keys=upload["keys"],
        phases=_load(folder / arrays["phases"]),
        offsets=_load(folder / arrays["offsets"]),
        steps=_load(folder / arrays["steps"], KINDS["steps"]),
        values=_load(folder / arrays["values"], KINDS["values"]),
        covariates=_read_covariates(upload["covariates"], folder, "covariate"),
        statics=_read_covariates(upload["statics"], folder, "static"),
        columns=upload["columns"],
        audit=Audit([Complaint(**complaint) for complaint in audit["warnings"]], audit["warning_count"]),
    )


def _read_covariates(documents: list[dict[str, Any]], folder: Path, prefix: str) -> dict[str, Covariate]:
    return {
        kept["name"]: Covariate(
            role=kept["role"],
            kind=kept["kind"],
            values=_load(folder / f"{prefix}-{place}-values.npy"),
            present=_load(folder / f"{prefix}-{place}-present.npy"),
            categories=tuple(kept["categories"]),
        )
        for place, kept in enumerate(documents)
    }


def _load(path: Path, kind: str = "") -> NDArray[Any]:
    """An array as it was saved, or bytes of a `kind` of number."""
    if path.suffix != ".npy":
        return np.memmap(path, kind, "r")
    mode = "r" if path.stat().st_size > _MAP_BYTES else None
    return np.load(path, mmap_mode=mode, allow_pickle=False)
