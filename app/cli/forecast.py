"""`gatecast forecast`: ask for the next steps of stored series; a table and a plot, or the answer as a file."""

import datetime as dt
import sys
from pathlib import Path
from typing import Annotated, Any
from urllib.parse import quote

import httpx
import typer

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


@root.command(rich_help_panel=CLIENT)
def forecast(
    *,
    model: Annotated[str, typer.Option("--model", "-m", help="name (its champion), name@alias or name/3.")],
    dataset: Annotated[str, typer.Option("--dataset", "-d", help="Whose series to forecast.")],
    series: Annotated[
        list[str] | None, typer.Option("--series", "-s", help="A series' key; may be repeated; else all of them.")
    ] = None,
    horizon: Annotated[int, typer.Option("--horizon", "-n", help="Steps to forecast; 1 is the next step.", min=1)] = 1,
    quantile: Annotated[
        list[float] | None, typer.Option("--quantile", "-q", help="A level; may be repeated; else 0.1, 0.5, 0.9.")
    ] = None,
    revision: Annotated[int | None, typer.Option(help="Forecast from this revision of the data.")] = None,
    as_csv: Annotated[bool, typer.Option("--csv", help="Print CSV: key, timestamp, mean, quantiles.")] = False,
    output: Annotated[
        Path | None,
        typer.Option("--output", "-o", dir_okay=False, help="Write a file: .csv .parquet .arrow .ndjson .json."),
    ] = None,
    plot: Annotated[bool, typer.Option(help="Draw it under the table.")] = True,
    url: Url = DEFAULT_URL,
    as_json: AsJson = False,
) -> None:
    """Forecast stored series: a table with a plot, or the whole answer as CSV, JSON or a file."""
    body: dict[str, Any] = {"model": model, "dataset": dataset, "horizon": horizon}
    body |= {"quantiles": sorted(set(quantile or INTERVAL))}
    body |= {"series": series} if series else {}
    body |= {"revision": revision} if revision else {}
    with connect(url) as http:
        if output:
            media = MEDIA.get(output.suffix.lower())
            if media is None:
                raise Failed(f"{output.name}: expected a name ending in {' '.join(MEDIA)}.", status=2)
            save(http, body, output, media)
            err.print(f"Wrote {output} ({output.stat().st_size:,} bytes).", highlight=False)
        elif as_csv:
            save(http, body, None, "text/csv")
        elif as_json:
            print_json(answered(http, body))
        else:
            shown(http, answered(http, body), plot)
