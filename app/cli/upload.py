"""`gatecast upload`: stream a file into a dataset and show what was stored."""

from collections.abc import Iterator
from pathlib import Path
from typing import Annotated, Any, Literal
from urllib.parse import quote

import httpx
import typer
from rich.progress import BarColumn, DownloadColumn, Progress, TextColumn, TimeRemainingColumn, TransferSpeedColumn

from app.cli.client import Failed, ask, checked, connect
from app.cli.root import CLIENT, DEFAULT_URL, AsJson, Url, err, out, root
from app.cli.show import facts, print_json, table

MEDIA = {
    ".csv": "text/csv",
    ".tsv": "text/csv",
    ".txt": "text/csv",
    ".parquet": "application/vnd.apache.parquet",
    ".pq": "application/vnd.apache.parquet",
    ".arrow": "application/vnd.apache.arrow.stream",
    ".arrows": "application/vnd.apache.arrow.stream",
    ".ndjson": "application/x-ndjson",
    ".jsonl": "application/x-ndjson",
    ".json": "application/json",
}
ENCODINGS = {".gz": "gzip", ".zst": "zstd"}
CHUNK = 1024 * 1024
SHOWN = 12  # warnings printed


Frequency = Annotated[str | None, typer.Option(help="Such as h, D, W-FRI, MS; else it is worked out.")]
TimeZone = Annotated[str | None, typer.Option(help="Of times without an offset, such as Europe/Berlin.")]
Layout = Annotated[Literal["long", "wide"] | None, typer.Option(help="One row a point, or one column a series.")]
IdColumn = Annotated[str | None, typer.Option(help="Column of the series' keys; else it is sniffed.")]
TimeColumn = Annotated[str | None, typer.Option(help="Column of the times; else it is sniffed.")]
TargetColumn = Annotated[str | None, typer.Option(help="Column of the values; else it is sniffed.")]


def described(file: Path) -> dict[str, str]:
    """`Content-Type` and `Content-Encoding` by the file's suffixes. Raises Failed on one that says neither."""
    suffixes = [suffix.lower() for suffix in file.suffixes]
    headers: dict[str, str] = {}
    if suffixes and suffixes[-1] in ENCODINGS:
        headers["Content-Encoding"] = ENCODINGS[suffixes.pop()]
    media = MEDIA.get(suffixes[-1]) if suffixes else None
    if media is None:
        known = " ".join(MEDIA)
        raise Failed(
            f"{file.name}: its name does not say what is in it.",
            f"Known: {known}, each also with .gz or .zst.",
            status=2,
        )
    return headers | {"Content-Type": media}


def send(http: httpx.Client, file: Path, dataset: str, query: dict[str, Any]) -> dict[str, Any]:
    """Upload a file with a progress bar on standard error; what the server says of the revision it made."""
    headers = described(file)
    size = file.stat().st_size
    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        DownloadColumn(),
        TransferSpeedColumn(),
        TimeRemainingColumn(),
    )
    with Progress(*columns, console=err, transient=True) as progress:
        task = progress.add_task(f"Uploading {file.name}", total=size)

        def parts() -> Iterator[bytes]:
            with file.open("rb") as opened:
                while part := opened.read(CHUNK):
                    yield part
                    progress.advance(task, len(part))
            progress.update(task, description="Reading it on the server")

        answer = http.post(
            f"/v1/datasets/{quote(dataset, safe='')}/revisions",
            content=parts(),
            params={name: value for name, value in query.items() if value},
            # The length is announced, so that a file too large is refused before it is sent.
            headers={**headers, "Content-Length": str(size)},
            timeout=httpx.Timeout(3600, connect=5),
        )
    return checked(answer).json()


def stored(http: httpx.Client, dataset: str, revision: dict[str, Any]) -> None:
    """Print what an upload stored, and what the audit warns of."""
    columns: dict[str, Any] = revision["columns"]
    spelled = ", ".join(f"{role} {_names(value)}" for role, value in columns.items() if value)
    facts(
        f"{dataset}, revision {revision['revision']}",
        {
            "series": revision["series"],
            "points": revision["points"],
            "inserted": revision["inserted"],
            "updated": revision["updated"],
            "unchanged": revision["unchanged"],
            "frequency": revision["frequency"],
            "columns": spelled,
            "digest": revision["digest"],
        },
    )
    if not revision["audit"]["warnings"]:
        return
    audit = ask(http, "GET", revision["audit"]["href"])
    warnings: list[dict[str, Any]] = audit["warnings"]
    rows = [(found.get("row"), found.get("column"), found["message"], found.get("hint")) for found in warnings[:SHOWN]]
    table(f"The audit warns ({revision['audit']['warnings']:,})", [">line", "column", "what", "what to do"], rows)
    if len(warnings) > SHOWN:
        out.print(f"All of them: {revision['audit']['href']}", highlight=False)


def _names(value: object) -> str:
    return ", ".join(map(str, value)) if isinstance(value, list) else str(value)  # pyright: ignore[reportUnknownArgumentType,reportUnknownVariableType]


@root.command(rich_help_panel=CLIENT)
def upload(
    *,
    file: Annotated[
        Path,
        typer.Argument(
            exists=True,
            dir_okay=False,
            readable=True,
            help="CSV, Parquet, Arrow stream, NDJSON or JSON; also .gz, .zst.",
        ),
    ],
    dataset: Annotated[str, typer.Option("--dataset", "-d", help="Where to; made if it is not there yet.")],
    mode: Annotated[
        Literal["append", "upsert", "replace"], typer.Option(help="Add only what is new; also correct; or start over.")
    ] = "append",
    frequency: Frequency = None,
    time_zone: TimeZone = None,
    layout: Layout = None,
    id_column: IdColumn = None,
    time_column: TimeColumn = None,
    target_column: TargetColumn = None,
    static: Annotated[
        list[str] | None, typer.Option(help="A column that is one value a series; may be repeated.")
    ] = None,
    future: Annotated[
        list[str] | None, typer.Option(help="A column known for the future too; may be repeated.")
    ] = None,
    past: Annotated[list[str] | None, typer.Option(help="A column known for the past only; may be repeated.")] = None,
    url: Url = DEFAULT_URL,
    as_json: AsJson = False,
) -> None:
    """Upload a file of series into a dataset; show what was stored and what the audit warns of.

    The file is streamed, so its size does not matter. Uploading it again changes nothing.
    """
    query = {
        "mode": mode,
        "frequency": frequency,
        "time_zone": time_zone,
        "layout": layout,
        "id_column": id_column,
        "time_column": time_column,
        "target_column": target_column,
        "static_columns": ",".join(static or []),
        "future_columns": ",".join(future or []),
        "past_columns": ",".join(past or []),
    }
    with connect(url) as http:
        revision = send(http, file, dataset, query)
        if as_json:
            print_json(revision)
            return
        stored(http, dataset, revision)
        out.print(f"Next: [bold]gatecast train --dataset {dataset} --model NAME[/]", highlight=False)
