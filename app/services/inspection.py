"""The process that looks at a version from elsewhere: `python -m app.services.inspection FILE FOLDER LIMITS`. It
unpacks the archive into the folder, opens what it finds, asks it for forecasts, and writes what it learned into
`answer.json` there. Whatever a graph may do, it does it here, with time and memory limited."""

import contextlib
import json
import os
import re
import resource
import sys
import threading
from pathlib import Path
from typing import Annotated, Any, Literal

import orjson
from pydantic import AwareDatetime, BaseModel, ConfigDict, Field, ValidationError

from app import store
from models import OpenArtifact, inspected

ANSWER = "answer.json"
SECONDS = 120  # of a processor's time
MEMORY = 4 << 30  # bytes of addresses beside what the file asks for; the runtime alone reserves one
EACH = 16  # times a file's length that opening it may take

Name = Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]{0,62}$")]
Digest = Annotated[str, Field(pattern=r"^sha256:[0-9a-f]{64}$")]
Number = Annotated[int, Field(ge=1, lt=2**31)]


class Origin(BaseModel):
    """Where a version was made, in the words of that server; nothing of it need be here."""

    model_config = ConfigDict(extra="forbid", strict=True)

    model: Name
    version: Number
    created_at: Annotated[AwareDatetime, Field(strict=False)]
    job: Annotated[str, Field(pattern=r"^[\x21-\x7e]{1,64}$")] | None
    dataset: Name | None
    revision: Number | None
    parent: Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]{0,62}/[1-9][0-9]{0,8}$")] | None


class About(Origin):
    """What `version.json` says."""

    format: Literal[1]
    digest: Digest
    data_digest: Digest | None
    metrics: dict[str, float | None]
    baselines: dict[str, dict[str, float | None]]


def about(folder: Path) -> About:
    """What the folder's `version.json` says. Raises ValueError."""
    try:
        return About.model_validate_json((folder / store.ABOUT).read_bytes())
    except ValidationError as error:
        first = error.errors(include_url=False, include_input=False)[0]
        where = ".".join(map(str, first["loc"]))
        raise ValueError(f"{store.ABOUT}: {where + ': ' if where else ''}{first['msg']}") from error


def look(archive: Path, folder: Path, limits: dict[str, int]) -> dict[str, Any]:
    """What there is to know about the version in an archive, whose files are in the folder afterwards. Raises
    ValueError, naming the file and what was expected, where it is not one that may be trusted to answer."""
    store.unpack(archive, folder, lambda name: limits["json"] if name.endswith(".json") else limits["file"])
    said = about(folder)
    if (found := store.digest(folder)) != said.digest:
        raise ValueError(f"{store.MANIFEST}: expected the digest {said.digest} of {store.ABOUT}, got {found}")
    opened = inspected(folder)
    if opened.context > limits["context"] or opened.horizon > limits["horizon"]:
        most = f"a context of {limits['context']} and a horizon of {limits['horizon']} steps"
        raise ValueError(f"{store.MANIFEST}: expected at most {most}, got {opened.context} and {opened.horizon}")
    for name in ("metrics", "baselines"):
        if opened.manifest.get(name, {}) != getattr(said, name):
            raise ValueError(f"{store.ABOUT}: expected the {name} of {store.MANIFEST}, got others")
    origin = {name: value for name, value in said.model_dump(mode="json").items() if name in Origin.model_fields}
    names = ("digest", "data_digest", "metrics", "baselines")
    return _facts(opened) | {name: getattr(said, name) for name in names} | {"origin": origin}


def _facts(opened: OpenArtifact) -> dict[str, Any]:
    """What a version's row says of it that its manifest knows."""
    calendar = opened.manifest.get("calendar")
    device, seconds = opened.manifest.get("device", "cpu"), opened.manifest.get("train_seconds", 0.0)
    if not (isinstance(device, str) and re.fullmatch(r"[\x20-\x7e]{1,64}", device)):
        raise ValueError(f"{store.MANIFEST}: device: expected a short name, got something else")
    if not (isinstance(seconds, int | float) and 0 <= seconds < 1e12):
        raise ValueError(f"{store.MANIFEST}: train_seconds: expected a number, got something else")
    return {
        "frequency": opened.calendar.frequency.name if calendar else None,
        "time_zone": opened.calendar.time_zone if calendar else "UTC",
        "config": opened.manifest["config"],
        "parameters": opened.manifest["network"]["parameters"],
        "device": device,
        "train_seconds": float(seconds),
    }


def main() -> None:
    archive, folder, limits = Path(sys.argv[1]), Path(sys.argv[2]), json.loads(sys.argv[3])
    threading.Thread(target=_end_with_the_server, daemon=True).start()
    _bounded(archive.stat().st_size)
    try:
        answer = {"facts": look(archive, folder, limits)}
    except ValueError as error:
        answer = {"refusal": str(error).replace(f"{folder}/", "")[:1000]}
    except MemoryError:
        answer = {"refusal": "expected a version that can be opened in little memory, this one wants too much"}
    except OSError as error:
        answer = {"failure": f"the file could not be read: {error.strerror}"}
    (folder / ANSWER).write_bytes(orjson.dumps(answer))


def _bounded(size: int) -> None:
    """Limit this process' time and memory, and let it be the first to go where the machine's is short."""
    resource.setrlimit(resource.RLIMIT_CPU, (SECONDS, SECONDS))
    with contextlib.suppress(OSError, ValueError):  # macOS knows the limit and keeps none
        resource.setrlimit(resource.RLIMIT_AS, (MEMORY + EACH * size, MEMORY + EACH * size))
    with contextlib.suppress(OSError):
        Path("/proc/self/oom_score_adj").write_text("1000")


def _end_with_the_server() -> None:
    while os.read(0, 4096):  # not through sys.stdin: its lock would be held when the interpreter ends
        pass
    os._exit(1)


if __name__ == "__main__":
    main()
