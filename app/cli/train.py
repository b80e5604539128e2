"""`gatecast train`: start a train job, follow it, show the leaderboard."""

import json
from typing import Annotated, Any, Literal

import httpx
import typer

from app.cli.client import Failed, ask, connect
from app.cli.jobs import succeeded, watch
from app.cli.root import CLIENT, DEFAULT_URL, AsJson, Url, out, root
from app.cli.show import leaderboard, print_json


def start(http: httpx.Client, body: dict[str, Any]) -> str:
    """Ask for a train job; its id."""
    wanted = {name: value for name, value in body.items() if value not in (None, {})}
    return ask(http, "POST", "/v1/jobs", json={"kind": "train", **wanted})["id"]


def finish(http: httpx.Client, job: str) -> dict[str, Any]:
    """Follow a train job to its end; the version it made. Raises Failed when it made none."""
    return ask(http, "GET", succeeded(watch(http, job))["href"])


def shown(version: dict[str, Any]) -> None:
    """Print a fresh version's leaderboard and whether it answers from now on."""
    leaderboard(version)
    name = f"{version['model']}/{version['version']}"
    if "champion" in version["aliases"]:
        out.print(f"{name} is the [bold]champion[/]: it answers for {version['model']!r} from now on.", highlight=False)
    else:
        out.print(
            f"{name} did not become the champion. Ask for it by name, or make it so: "
            f"gatecast models promote {version['model']} {version['version']}",
            highlight=False,
        )


def parsed(pairs: list[str]) -> dict[str, Any]:
    """`name=value` options as config fields; a value is read as JSON where it is JSON, else as text."""
    config: dict[str, Any] = {}
    for pair in pairs:
        name, equals, value = pair.partition("=")
        if not equals or not name:
            raise Failed(f"--config {pair}: expected name=value, such as hidden=64.", status=2)
        try:
            config[name] = json.loads(value)
        except ValueError:
            config[name] = value
    return config


@root.command(rich_help_panel=CLIENT)
def train(
    *,
    dataset: Annotated[str, typer.Option("--dataset", "-d", help="What to train on.")],
    model: Annotated[str, typer.Option("--model", "-m", help="The model that gets a new version.")],
    preset: Annotated[Literal["fast", "balanced", "thorough"], typer.Option(help="How much effort.")] = "fast",
    horizon: Annotated[int | None, typer.Option(help="Steps to learn to forecast; else picked from the data.")] = None,
    cell: Annotated[Literal["gru", "lstm", "rnn"] | None, typer.Option(help="Kind of recurrent cell.")] = None,
    layers: Annotated[int | None, typer.Option(help="Recurrent layers.")] = None,
    hidden: Annotated[int | None, typer.Option(help="Width of a layer.")] = None,
    context: Annotated[int | None, typer.Option(help="Steps of history fed in.")] = None,
    steps: Annotated[int | None, typer.Option(help="Most optimisation steps.")] = None,
    seed: Annotated[int | None, typer.Option(help="Same seed, data and device: same weights.")] = None,
    config: Annotated[list[str] | None, typer.Option(help="Any other field, as name=value; may be repeated.")] = None,
    warm_start_from: Annotated[
        str | None, typer.Option(help="Learn on from a version: name (its champion), name@alias or name/3.")
    ] = None,
    revision: Annotated[int | None, typer.Option(help="Revision of the dataset; else the newest.")] = None,
    promote: Annotated[
        Literal["never", "if_better", "always"], typer.Option(help="When the new version becomes the champion.")
    ] = "if_better",
    detach: Annotated[bool, typer.Option("--detach", help="Do not wait; print the job's id.")] = False,
    url: Url = DEFAULT_URL,
    as_json: AsJson = False,
) -> None:
    """Train a new version of a model, watch it, and compare it with the naive forecasts."""
    fields = {"horizon": horizon, "cell": cell, "layers": layers, "hidden": hidden, "context": context}
    fields |= {"steps": steps, "seed": seed}
    chosen = {name: value for name, value in fields.items() if value is not None} | parsed(config or [])
    body = {"dataset": dataset, "model": model, "preset": preset, "config": chosen, "revision": revision}
    body["warm_start_from"] = warm_start_from
    with connect(url) as http:
        job = start(http, {**body, "promote": promote})
        if detach:
            print_json({"job": job}) if as_json else out.print(job, highlight=False)
            return
        version = finish(http, job)
    if as_json:
        print_json(version)
        return
    shown(version)
    wanted = version["config"].get("horizon")
    out.print(
        f"Next: [bold]gatecast forecast --model {model} --dataset {dataset} --horizon {wanted}[/]", highlight=False
    )
