"""`gatecast tune`: search for better settings, watch the trials, show what was tried."""

import json
from typing import Annotated, Any, Literal

import httpx
import typer

from app.cli.client import Failed, ask, connect, pages
from app.cli.jobs import JobId, jobs, succeeded, watch
from app.cli.root import CLIENT, DEFAULT_URL, AsJson, Url, out, root
from app.cli.show import number, print_json, table
from app.cli.train import parsed, shown

SHOWN = 30  # trials of the final table, the best ones


def space_of(pairs: list[str]) -> dict[str, Any]:
    """`name=16,32,64` options as choices, `name=0.001..0.01` as a range, with `:log` or `:8` (its step) after it."""
    space: dict[str, Any] = {}
    for pair in pairs:
        name, equals, values = pair.partition("=")
        if not equals or not name or not values:
            raise Failed(f"--space {pair}: expected name=values, such as hidden=16,32,64.", status=2)
        space[name] = _range(values) if ".." in values else [_value(value) for value in values.split(",")]
    return space


def trials_of(http: httpx.Client, tune: str) -> list[dict[str, Any]]:
    """All trials of a tune, by number."""
    return pages(http, f"/v1/jobs/{tune}/trials", "trials", 1000)


def trial_table(found: list[dict[str, Any]], metric: str) -> None:
    """The trials, the best first, then those without a value."""
    rows = sorted(found, key=lambda one: (one["value"] is None, one["value"] or 0.0, one["number"]))
    names = list(dict.fromkeys(name for one in found for name in one["params"]))
    cells = [
        [
            f"{one['number']}{' *' if one['best'] else ''}",
            one["state"],
            number(one["value"]),
            *("preset" if one["params"].get(name) is None else one["params"][name] for name in names),
            one["steps"],
            "" if one["duration_s"] is None else f"{one['duration_s']:.0f} s",
            one["reason"] or "",
        ]
        for one in rows[:SHOWN]
    ]
    table("Trials, the best first", ["=", "=state", f">{metric}", *names, ">steps", ">took", "why"], cells)
    if len(rows) > SHOWN:
        out.print(f"… and {len(rows) - SHOWN} more: gatecast jobs trials JOB --json lists them all.", highlight=False)


def _value(text: str) -> Any:
    try:
        return json.loads(text)
    except ValueError:
        return text


def _range(text: str) -> dict[str, Any]:
    ends, _, rest = text.partition(":")
    low, _, high = ends.partition("..")
    extra = {"log": True} if rest == "log" else {"step": _value(rest)} if rest else {}
    return {"low": _value(low), "high": _value(high), **extra}


@jobs.command("trials")
def show_trials(job: JobId, url: Url = DEFAULT_URL, as_json: AsJson = False) -> None:
    """Show what a tune has tried, the best first."""
    with connect(url) as http:
        found = trials_of(http, job)
        spec = ask(http, "GET", f"/v1/jobs/{job}")["spec"]
    print_json(found) if as_json else trial_table(found, str(spec["metric"]).upper())


@root.command(rich_help_panel=CLIENT)
def tune(
    *,
    dataset: Annotated[str, typer.Argument(help="What to train on.")],
    model: Annotated[str, typer.Argument(help="The model that gets the best version.")],
    trials: Annotated[int | None, typer.Option(help="Most trials; 20 without --minutes.")] = None,
    minutes: Annotated[float | None, typer.Option(help="No trial begins later than so many minutes.")] = None,
    space: Annotated[
        list[str] | None,
        typer.Option(help="What to search: hidden=16,32,64 or learning_rate=0.001..0.02:log; may be repeated."),
    ] = None,
    preset: Annotated[Literal["fast", "balanced", "thorough"], typer.Option(help="How much effort a trial.")] = "fast",
    horizon: Annotated[int | None, typer.Option(help="Steps to learn to forecast; else picked from the data.")] = None,
    config: Annotated[
        list[str] | None, typer.Option(help="What all trials have in common, as name=value; may be repeated.")
    ] = None,
    metric: Annotated[
        Literal["mase", "wql", "smape", "mae", "rmse"], typer.Option(help="What decides, on held-out steps.")
    ] = "mase",
    revision: Annotated[int | None, typer.Option(help="Revision of the dataset; else the newest.")] = None,
    promote: Annotated[
        Literal["never", "if_better", "always"], typer.Option(help="When the new version becomes the champion.")
    ] = "if_better",
    detach: Annotated[bool, typer.Option("--detach", help="Do not wait; print the job's id.")] = False,
    url: Url = DEFAULT_URL,
    as_json: AsJson = False,
) -> None:
    """Train many times with different settings, on all workers at once, and keep the best version."""
    fixed = ({"horizon": horizon} if horizon is not None else {}) | parsed(config or [])
    body: dict[str, Any] = {"dataset": dataset, "model": model, "preset": preset, "config": fixed, "metric": metric}
    body |= {"trials": trials, "minutes": minutes, "space": space_of(space or []) or None, "revision": revision}
    wanted = {name: value for name, value in {**body, "promote": promote}.items() if value not in (None, {})}
    with connect(url) as http:
        job = ask(http, "POST", "/v1/jobs", json={"kind": "tune", **wanted})["id"]
        if detach:
            print_json({"job": job}) if as_json else out.print(job, highlight=False)
            return
        done = watch(http, job)
        found = trials_of(http, job)
        if not as_json and found:
            trial_table(found, metric.upper())
        version = ask(http, "GET", succeeded(done)["href"])
    if as_json:
        print_json({**done, "trials": found})
        return
    shown(version)
