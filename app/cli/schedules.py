"""`gatecast schedules`: jobs asked for again and again: list, add, pause, resume, run now, remove."""

from typing import Annotated, Any, Literal

import typer

from app.cli.client import ask, checked, connect, pages
from app.cli.root import CLIENT, DEFAULT_URL, AsJson, Url, default_url, out, root
from app.cli.show import print_json, table

schedules = typer.Typer(
    help="Jobs asked for again and again: list, add, pause, resume, run, remove.", invoke_without_command=True
)
root.add_typer(schedules, name="schedules", rich_help_panel=CLIENT)

Name = Annotated[str, typer.Argument(metavar="NAME", help="Its name.")]


@schedules.callback()
def list_when_bare(ctx: typer.Context) -> None:
    if ctx.invoked_subcommand is None:
        list_schedules(url=default_url())


@schedules.command("list")
def list_schedules(url: Url = DEFAULT_URL, as_json: AsJson = False) -> None:
    """Show all schedules: when each is due next, and what came of the last time."""
    with connect(url) as http:
        found = pages(http, "/v1/schedules", "schedules", 10_000)
    if as_json:
        print_json(found)
    elif not found:
        out.print("No schedules. Add one: gatecast schedules add nightly '0 3 * * *' DATASET --model MODEL")
    else:
        rows = [(one["name"], one["cron"], one["time_zone"], _work(one), _next(one), _last(one)) for one in found]
        table(None, ["schedule", "=cron", "clock", "job", "=next (UTC)", "last"], rows)


@schedules.command("add")
def add_schedule(
    *,
    name: Name,
    cron: Annotated[str, typer.Argument(metavar="CRON", help="Five fields, on the dataset's clock: '0 3 * * *'.")],
    dataset: Annotated[str, typer.Argument(metavar="DATASET", help="What the job is about; each time as it is then.")],
    model: Annotated[
        str, typer.Option(help="The model to train or tune, or the version to forecast or backtest with.")
    ],
    kind: Annotated[Literal["train", "tune", "backtest", "forecast"], typer.Option(help="What to do.")] = "train",
    preset: Annotated[
        Literal["fast", "balanced", "thorough"] | None,
        typer.Option(help="Effort of a training or of a trial; default fast."),
    ] = None,
    horizon: Annotated[int | None, typer.Option(help="Steps ahead.", min=1)] = None,
    url: Url = DEFAULT_URL,
    as_json: AsJson = False,
) -> None:
    """Ask for a job whenever CRON says so."""
    job: dict[str, Any] = {"kind": kind, "model": model}
    if kind in ("train", "tune"):
        job |= {"preset": preset} | ({"config": {"horizon": horizon}} if horizon else {})
    else:
        job |= {"horizon": horizon}
    wanted = {"name": name, "cron": cron, "dataset": dataset, "job": job}
    with connect(url) as http:
        made = ask(http, "POST", "/v1/schedules", json=wanted)
    print_json(made) if as_json else out.print(f"{name} is due at {made['next_at']}.", highlight=False)


@schedules.command("pause")
def pause_schedule(name: Name, url: Url = DEFAULT_URL) -> None:
    """Let it rest. What it misses meanwhile is not made up for."""
    with connect(url) as http:
        ask(http, "PATCH", f"/v1/schedules/{name}", json={"paused": True})
    out.print(f"{name} rests. `gatecast schedules resume {name}` lets it go on.", highlight=False)


@schedules.command("resume")
def resume_schedule(name: Name, url: Url = DEFAULT_URL) -> None:
    """Let it go on."""
    with connect(url) as http:
        found = ask(http, "PATCH", f"/v1/schedules/{name}", json={"paused": False})
    out.print(f"{name} is due at {found['next_at']}.", highlight=False)


@schedules.command("run")
def run_schedule(name: Name, url: Url = DEFAULT_URL, as_json: AsJson = False) -> None:
    """Ask for its job now; when it is due next stays as it is."""
    with connect(url) as http:
        job = ask(http, "POST", f"/v1/schedules/{name}/run")
    if as_json:
        print_json(job)
    else:
        out.print(f"{job['id']} waits. Watch it: gatecast jobs follow {job['id']}", highlight=False)


@schedules.command("remove")
def remove_schedule(name: Name, url: Url = DEFAULT_URL) -> None:
    """Delete it. Jobs that it has asked for stay."""
    with connect(url) as http:
        checked(http.delete(f"/v1/schedules/{name}"))
    out.print(f"{name} is removed.", highlight=False)


def _work(schedule: dict[str, Any]) -> str:
    return f"{schedule['job']['kind']} {schedule['job']['model']} on {schedule['dataset']}"


def _next(schedule: dict[str, Any]) -> str:
    return "paused" if schedule["paused"] else schedule["next_at"][:16].replace("T", " ")


def _last(schedule: dict[str, Any]) -> str:
    if schedule["last_error"]:
        return f"refused: {schedule['last_error']['detail']}"
    return schedule["last_job"] or "–"
