"""`gatecast forecast`: ask for the next steps of a file's or of stored series; a table and a plot, or the answer as a
file, from a job where it is large."""

import datetime as dt
import re
import sys
from pathlib import Path
from typing import Annotated, Any
from urllib.parse import quote

import httpx
import typer

from app.cli import own, results, upload
from app.cli.client import Failed, ask, checked, connect
from app.cli.plot import Fan, drawn
from app.cli.root import CLIENT, DEFAULT_URL, AsJson, Url, err, out, root
from app.cli.show import number, print_json, table

MEDIA = {
    ".csv": "text/csv",
    ".parquet": "application/vnd.apache.parquet",
    ".arrow": "application/vnd.apache.arrow.stream",
    ".ndjson": "application/x-ndjson",
    ".jsonl": "application/jsonl",
    ".json": "application/json",
}
INTERVAL = [0.1, 0.5, 0.9]  # the middle and the ends of the 80 % interval
HISTORY = 5  # times the horizon: how much of the past a plot shows
SHOWN = 3  # series printed of an answer that has many
# How a file is read, as in an upload.
READING = ("frequency", "time_zone", "layout", "id_column", "time_column", "target_column")
FIRST_LOOK = 12  # steps ahead for a file, unless said otherwise


def answered(http: httpx.Client, body: dict[str, Any]) -> dict[str, Any]:
    """The forecast as its JSON document."""
    return ask(http, "POST", "/v1/forecasts", json=body)


def shown(http: httpx.Client, answer: dict[str, Any], plot: bool = True) -> None:
    """Print a table for each of the first series, with a plot where there is something to draw."""
    for found in answer["forecasts"][:SHOWN]:
        model = answer["model"]
        _table(found, f"{found['key']}: {model['name']} version {model['version']}, after {_brief(found['origin'])}")
        if plot and len(found["mean"]) > 1 and found["origin"] is not None:
            _plot(http, answer, found)
    if (more := len(answer["forecasts"]) - SHOWN) > 0:
        out.print(f"… and {more:,} series more; --output FILE takes them all.", highlight=False)
    for warning in answer["warnings"]:
        err.print(f"[yellow]Note:[/] {warning['message']}", highlight=False)


def _table(found: dict[str, Any], title: str) -> None:
    levels = list(found["quantiles"])
    times = found["timestamps"] or range(1, len(found["mean"]) + 1)
    columns = [found["mean"], *(found["quantiles"][level] for level in levels)]
    rows = [[_brief(time), *map(number, values)] for time, *values in zip(times, *columns, strict=True)]
    table(title, ["time", ">mean", *(f">q{level}" for level in levels)], rows)


def _plot(http: httpx.Client, answer: dict[str, Any], found: dict[str, Any]) -> None:
    """The 80 % interval, or the widest there is, after the end of the stored history."""
    levels = list(found["quantiles"])
    low, high = ("0.1", "0.9") if {"0.1", "0.9"} <= set(levels) else (levels[0], levels[-1]) if levels else (None, None)
    middle = found["quantiles"].get("0.5", found["mean"])
    history = _history(http, answer, found)
    if None in middle or not history["timestamp"]:
        return
    fan = Fan(
        found["key"],
        history["value"],
        middle,
        found["quantiles"][low] if low else middle,
        found["quantiles"][high] if high else middle,
        (_brief(history["timestamp"][0]), _brief(found["origin"]), _brief(found["timestamps"][-1])),
    )
    out.file.write(drawn(fan) + "\n")


def _history(http: httpx.Client, answer: dict[str, Any], found: dict[str, Any]) -> dict[str, Any]:
    """The stored points up to the origin, about as many as the plot has room for: columns timestamp and value."""
    first, last, origin = found["timestamps"][0], found["timestamps"][-1], found["origin"]
    room = max(HISTORY, min(HISTORY * len(found["mean"]), out.width) / len(found["mean"]))
    if isinstance(origin, int):
        start: str = str(origin - int(room * (last - first + 1)))
    else:
        ends = [dt.datetime.fromisoformat(time) for time in (origin, last)]
        start = (ends[0] - room * (ends[1] - ends[0])).isoformat()
    path = f"/v1/datasets/{quote(answer['dataset'], safe='')}/series/{quote(found['key'], safe='')}/points"
    query = {"start": start, "end": origin, "revision": answer["revision"]}
    return ask(http, "GET", path, params=query)


def _brief(time: object) -> str:
    """A time without what it does not need: midnight, seconds, UTC."""
    text = str(time).replace("T00:00:00+00:00", "").replace("+00:00", "").replace("T", " ")
    return text.removesuffix(":00") if text.count(":") == 2 else text


def save(http: httpx.Client, body: dict[str, Any], file: Path | None, media: str) -> None:
    """Stream the answer into a file, or to standard output."""
    with http.stream("POST", "/v1/forecasts", json=body, headers={"Accept": media}) as answer:
        checked(answer)
        if file is None:
            for part in answer.iter_bytes():
                sys.stdout.buffer.write(part)
            sys.stdout.buffer.flush()
            return
        try:
            with file.open("wb") as target:
                for part in answer.iter_bytes():
                    target.write(part)
        except OSError as error:
            raise Failed(f"{file} cannot be written: {error.strerror}.") from error
    err.print(f"Wrote {file} ({file.stat().st_size:,} bytes).", highlight=False)


def _media(output: Path | None) -> str:
    """The media type of a file by its name. Raises Failed on one that does not say."""
    media = MEDIA.get(output.suffix.lower(), "") if output else ""
    if output and not media:
        raise Failed(f"{output.name}: expected a name ending in {' '.join(MEDIA)}.", status=2)
    return media


def put(http: httpx.Client, file: Path, dataset: str | None, reading: dict[str, Any]) -> str:
    """Upload a file that is to be forecast, into a dataset of its name unless one is named; gives that name. `reading`
    says how it is to be read. What is there already is left as it is: a file that contradicts it is refused."""
    name = dataset or re.sub(r"[^A-Za-z0-9_-]+", "-", file.name.partition(".")[0]).strip("-_")[:63] or "series"
    revision = upload.send(http, file, name, reading)
    told = f"{revision['series']:,} series, {revision['points']:,} points, frequency {revision['frequency']}"
    err.print(f"[dim]Dataset {name}, revision {revision['revision']}: {told}[/]", highlight=False, soft_wrap=True)
    return name


File = Annotated[
    Path | None,
    typer.Argument(
        exists=True, dir_okay=False, readable=True, help="A file of series, uploaded first; see `gatecast upload`."
    ),
]
Output = Annotated[
    Path | None,
    typer.Option("--output", "-o", dir_okay=False, help="Write a file: .csv .parquet .arrow .ndjson .json."),
]


@root.command(rich_help_panel=CLIENT)
def forecast(
    *,
    ctx: typer.Context,
    file: File = None,
    model: Annotated[
        str | None, typer.Option("--model", "-m", help="name (its champion), name@alias or name/3; else base.")
    ] = None,
    dataset: Annotated[
        str | None, typer.Option("--dataset", "-d", help="Whose series to forecast; where a FILE goes, else its name.")
    ] = None,
    series: Annotated[
        list[str] | None, typer.Option("--series", "-s", help="A series' key; may be repeated; else all of them.")
    ] = None,
    horizon: Annotated[
        int | None, typer.Option("--horizon", "-n", help="Steps to forecast. [1, the next step; 12 of a FILE]", min=1)
    ] = None,
    quantile: Annotated[
        list[float] | None, typer.Option("--quantile", "-q", help="A level; may be repeated; else 0.1, 0.5, 0.9.")
    ] = None,
    revision: Annotated[int | None, typer.Option(help="Forecast from this revision of the data.")] = None,
    frequency: upload.Frequency = None,
    time_zone: upload.TimeZone = None,
    layout: upload.Layout = None,
    id_column: upload.IdColumn = None,
    time_column: upload.TimeColumn = None,
    target_column: upload.TargetColumn = None,
    as_csv: Annotated[bool, typer.Option("--csv", help="Print CSV: key, timestamp, mean, quantiles.")] = False,
    output: Output = None,
    plot: Annotated[bool, typer.Option(help="Draw it under the table.")] = True,
    job: Annotated[bool, typer.Option("--job", help="In a job, for any number of series; needs --output.")] = False,
    url: Url = DEFAULT_URL,
    as_json: AsJson = False,
) -> None:
    """Forecast a file's series, or stored ones: a table with a plot, or the whole answer as CSV, JSON or a file.

    `gatecast forecast sales.csv` is all it takes: no model has to be trained, and where no server runs, one is started
    for as long as it takes.
    """
    if file is None and dataset is None:
        raise Failed("There is nothing to forecast.", "Name a file, or --dataset and a dataset's name.", status=2)
    wanted = {"model": model, "series": series, "revision": revision}
    body: dict[str, Any] = {name: value for name, value in wanted.items() if value}
    body |= {"horizon": horizon or (FIRST_LOOK if file else 1), "quantiles": sorted(set(quantile or INTERVAL))}
    reading = {name: ctx.params[name] for name in READING}
    media = results.format_of(output) if job else _media(output)
    source = ctx.get_parameter_source("url")
    named = job or file is None or source is None or source.name != "DEFAULT"
    with own.at_hand(url, named) as address, connect(address) as http:
        body["dataset"] = put(http, file, dataset, reading) if file else dataset
        if job and output:
            results.forecast_as_job(http, body, output)
        elif output or as_csv:
            save(http, body, output, media or "text/csv")
        elif as_json:
            print_json(answered(http, body))
        else:
            shown(http, answered(http, body), plot)
