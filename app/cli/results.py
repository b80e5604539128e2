"""The file that a forecast job makes: ask for the job, wait for its end, fetch the file; `gatecast jobs result`."""

import hashlib
from pathlib import Path
from typing import Annotated, Any

import httpx
import typer

from app.cli.client import Failed, ask, checked, connect
from app.cli.jobs import JobId, jobs, succeeded, watch
from app.cli.root import DEFAULT_URL, Url, err

FORMATS = {".csv": "csv", ".parquet": "parquet"}
TRIES = 5  # at a download that keeps breaking off without a byte more


def format_of(file: Path | None) -> str:
    """The format of a job's file by its name. Raises Failed on one that does not say."""
    if file is None or file.suffix.lower() not in FORMATS:
        raise Failed("A job writes a file.", "Name it: --output FILE.parquet or --output FILE.csv.", status=2)
    return FORMATS[file.suffix.lower()]


def forecast_as_job(http: httpx.Client, body: dict[str, Any], file: Path) -> None:
    """Forecast in a job, and write what it makes. Raises Failed when it does not succeed."""
    kind = {"kind": "forecast", "format": format_of(file)}
    job: str = ask(http, "POST", "/v1/jobs", json={**kind, **body})["id"]
    fetch(http, watch(http, job), file)


def fetch(http: httpx.Client, job: dict[str, Any], file: Path) -> None:
    """Write the file of a job that has succeeded, whole or not at all; a download that broke off goes on. Raises
    Failed."""
    said = succeeded(job)
    if "digest" not in said:
        raise Failed(f"Job {job['id']} is of kind {job['kind']}, which makes no file.", f"See {said['href']}.")
    draft = file.with_name(f".{file.name}.part")
    try:
        with draft.open("wb") as target:
            _receive(http, said, target)
        with draft.open("rb") as source:
            if f"sha256:{hashlib.file_digest(source, 'sha256').hexdigest()}" != said["digest"]:
                raise Failed("What arrived is not what the job has made.", f"Try: gatecast jobs result {job['id']}")
        draft.replace(file)
    except OSError as error:
        raise Failed(f"{file} cannot be written: {error.strerror or error}.") from error
    finally:
        draft.unlink(missing_ok=True)
    err.print(f"Wrote {file} ({said['rows']:,} rows of {said['series']:,} series).", highlight=False)
    for warning in said["warnings"]:
        err.print(f"[yellow]Note:[/] {warning['message']}", highlight=False)


def _receive(http: httpx.Client, said: dict[str, Any], target: Any) -> None:
    failures = 0
    while (there := target.tell()) < said["size_bytes"]:
        headers = {"Accept-Encoding": "identity"} | ({"Range": f"bytes={there}-"} if there else {})
        try:
            with http.stream("GET", said["href"], headers=headers) as answer:
                if checked(answer).status_code == 200:
                    target.seek(0)
                for part in answer.iter_bytes():
                    target.write(part)
        except httpx.TransportError:
            if failures >= TRIES:
                raise
        failures = 0 if target.tell() > there else failures + 1
        if failures > TRIES:
            raise Failed("The server keeps ending the download before the file is whole.")


@jobs.command("result")
def save_result(
    job: JobId,
    file: Annotated[Path, typer.Argument(metavar="FILE", dir_okay=False, help="Where to write it.")],
    url: Url = DEFAULT_URL,
) -> None:
    """Write the file that a forecast job has made."""
    with connect(url) as http:
        fetch(http, ask(http, "GET", f"/v1/jobs/{job}"), file)
