"""`gatecast demo`: the whole way on real data, against a server of its own that stays up until Ctrl-C."""

from pathlib import Path
from typing import Annotated, Any
from urllib.parse import quote

import httpx
import typer

from app.cli import forecast, own, train, upload
from app.cli.client import ask, checked, connect
from app.cli.root import SERVER, err, out, root

FILE = Path(__file__).parent / "data" / "us_gasoline_weekly.csv"
DATASET, MODEL, HORIZON = "gasoline", "fuel", 12  # as in the examples of the docs page: they run on this server
CONFIG: dict[str, Any] = {"cell": "gru", "horizon": HORIZON}


@root.command(rich_help_panel=SERVER)
def demo(
    data: Annotated[
        Path, typer.Option(envvar="GATECAST_DATA", file_okay=False, help="Folder for database, models and uploads.")
    ] = Path("gatecast-data"),
    port: Annotated[
        int, typer.Option(envvar="GATECAST_PORT", help="Port to listen on; a free one if it is taken.")
    ] = 8000,
    again: Annotated[bool, typer.Option("--again", help="Train once more, though a model is there.")] = False,
    leave: Annotated[bool, typer.Option("--exit", help="Stop the server at the end instead of keeping it up.")] = False,
) -> None:
    """Show the whole way on real data: start a server, upload, forecast, train, compare, forecast; then keep on.

    Weekly US gasoline demand goes in, and the model that comes with the server says what follows. Then a GRU is trained
    in the background, and twelve weeks of its own come out. Run it again and it takes what is there.
    """
    wanted, port = port, port if own.is_free(port) else 0
    out.print(f"Starting a server and a worker; everything they keep is in {data}/.", highlight=False)
    server, url = own.start(data, port)
    if port != wanted:
        told = f"Port {wanted} is in use, so this server took another. For the commands of the README: api={url}/v1"
        err.print(told, highlight=False, soft_wrap=True)
    try:
        with connect(url) as http:
            tour(http, again)
        if not leave:
            told = f"\nThe server goes on at {url}, its docs page at {url}/docs . Ctrl-C stops it."
            out.print(told, highlight=False, soft_wrap=True)
            server.wait()
    except KeyboardInterrupt:
        err.print("\nStopping.")
    finally:
        own.stop(server)


def tour(http: httpx.Client, again: bool = False) -> None:
    """Upload, forecast at once, train, compare, forecast: step by step; what an earlier tour made is used again."""
    _step("1", "Real data: weekly US gasoline demand (U.S. Energy Information Administration)")
    revision = upload.send(http, FILE, DATASET, {})
    upload.stored(http, DATASET, revision)
    ask_for = {"dataset": DATASET, "quantiles": forecast.INTERVAL}
    _step("2", f"The next {HORIZON} weeks at once, from the model that comes with the server")
    forecast.shown(http, forecast.answered(http, {**ask_for, "horizon": HORIZON}))
    _step("3", "Train a GRU in the background, and compare it with naive forecasts")
    version = None if again else _champion(http)
    if version is not None:
        out.print(f"There is one from {version['created_at'][:10]} (--again trains another).\n", highlight=False)
    else:
        wanted = {"dataset": DATASET, "model": MODEL, "preset": "fast", "config": CONFIG}
        version = train.finish(http, _unfinished(http) or train.start(http, wanted))
    train.shown(version)
    for place, title, horizon in (
        ("4", "The next week", 1),
        ("5", f"The next {HORIZON} weeks, with 80 % intervals", HORIZON),
    ):
        _step(place, title)
        forecast.shown(http, forecast.answered(http, {**ask_for, "model": MODEL, "horizon": horizon}))


def _step(place: str, title: str) -> None:
    out.print(f"\n[bold cyan]{place}.[/] [bold]{title}[/]", highlight=False)


def _unfinished(http: httpx.Client) -> str | None:
    """The id of a training that an earlier tour left behind: it goes on from its last checkpoint by itself."""
    jobs = ask(http, "GET", "/v1/jobs", params={"kind": "train"})["jobs"]
    left = [job["id"] for job in jobs if job["state"] in ("pending", "running") and job["spec"]["model"] == MODEL]
    return left[0] if left else None


def _champion(http: httpx.Client) -> dict[str, Any] | None:
    """The version that answers for the demo's model, if it was made before."""
    found = http.get(f"/v1/models/{quote(MODEL)}/aliases/champion")
    if found.status_code == 404:
        return None
    number = checked(found).json()["version"]
    return ask(http, "GET", f"/v1/models/{quote(MODEL)}/versions/{number}")
