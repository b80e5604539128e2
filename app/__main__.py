"""`gatecast`: run the server (serve, worker, migrate, demo) and use it (upload, train, tune, forecast and others)."""

import errno
import gc
import json
import signal
import socket
import tempfile
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from pydantic import ValidationError
from pydantic_settings import SettingsError

from app.cli import demo, forecast, jobs, models, parcels, schedules, train, tune, upload
from app.cli.client import Failed
from app.cli.root import SERVER, out, root
from app.cli.supervise import Supervised, stop_at_eof
from app.config import Settings
from app.errors import AppError

if TYPE_CHECKING:
    import uvicorn
    from fastapi import FastAPI

COMMANDS = (demo, forecast, jobs, models, parcels, schedules, train, tune, upload)  # importing them registers them
DRAIN_S = 8  # for requests under way when the server is told to stop
YOUNG = 20_000  # objects, after which the collector looks for cycles among them: by itself it does every few requests
USAGE = 2

Data = Annotated[
    Path | None, typer.Option(file_okay=False, help="Folder for database, models and uploads. [GATECAST_DATA]")
]
UntilEof = Annotated[bool, typer.Option("--until-eof", hidden=True)]


def settings_with(**chosen: Any) -> Settings:
    """The settings from the environment with the options that were given, their data folder in place. Raises Failed
    naming each bad one."""
    try:
        settings = Settings(**{name: value for name, value in chosen.items() if value is not None})
        settings.data.mkdir(parents=True, exist_ok=True)
        return settings
    except ValidationError as error:
        # Not the error's own text, which holds the value: it may be the key.
        bad = [(str(found["loc"][0]) if found["loc"] else "", found["msg"]) for found in error.errors()]
        sentences = [f"GATECAST_{name.upper()}: {message}" if name else message for name, message in bad]
        raise Failed("The settings are not right.", *sentences, status=USAGE) from None
    except OSError as error:
        raise Failed(
            f"The data folder {chosen.get('data') or 'GATECAST_DATA'} cannot be made: {error.strerror}."
        ) from None
    except SettingsError as error:  # a list that is not JSON; the text names the field, not its value
        raise Failed("The settings are not right.", f"{error}.", status=USAGE) from None


@root.command(rich_help_panel=SERVER)
def serve(
    *,
    host: Annotated[str | None, typer.Option(help="Address to listen on. [GATECAST_HOST, 127.0.0.1]")] = None,
    port: Annotated[int | None, typer.Option(help="Port; 0 picks a free one. [GATECAST_PORT, 8000]")] = None,
    data: Data = None,
    worker: Annotated[bool, typer.Option(help="Also run a worker beside it.")] = True,
    allow_open: Annotated[
        bool | None, typer.Option("--allow-open", help="Listen beyond this machine without an API key.")
    ] = None,
    announce: Annotated[Path | None, typer.Option(hidden=True)] = None,
    until_eof: UntilEof = False,
) -> None:
    """Run the server, with a worker beside it in a process of its own.

    A SQLite database is brought up to date first; for PostgreSQL run `gatecast migrate`. Ctrl-C stops both.
    """
    settings = settings_with(host=host, port=port, data=data, allow_open=allow_open)
    # Hardly any garbage comes of loading modules, and looking for it takes a tenth of the start. On again in `_run`.
    gc.disable()
    # The rest loads once it is known to be wanted: a refusal should not take a second.
    from app.http import keys, logs, ready

    if danger := keys.exposure(settings):
        raise Failed(danger, status=USAGE)
    listening = _listen(settings.host, settings.port)
    _open_base()
    from app.main import create_app

    logs.configure(settings.log_level, settings.log_format)
    app = create_app(settings)
    _refused(ready.prepare, settings, app.state.database)
    beside = Supervised(["worker", "--data", str(settings.data.absolute())]) if worker else None
    if until_eof:
        stop_at_eof()
    _run(app, listening, beside, announce)


def _open_base() -> None:
    """Load the base's graph beside all else that loads: every server answers with it before it says that it is ready.
    What is wrong with it is said by whoever opens it then."""
    from models import base_folder, open_ahead

    with suppress(ValueError):
        open_ahead(base_folder())


def _listen(host: str, port: int) -> socket.socket:
    """A socket bound to the address. Raises Failed with a sentence when that cannot be."""
    try:
        family, kind, protocol, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
        listening = socket.socket(family, kind, protocol)
        listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listening.bind(address)
    except socket.gaierror:
        raise Failed(f"{host!r} is not an address of this machine.", status=USAGE) from None
    except OSError as error:
        if error.errno == errno.EADDRINUSE:
            raise Failed(
                f"Port {port} on {host} is in use.", "Stop what uses it, or take another with --port (0: a free one)."
            ) from None
        raise Failed(f"Cannot listen on {host}, port {port}: {error.strerror}.", status=USAGE) from None
    return listening


def _run(app: "FastAPI", listening: socket.socket, beside: Supervised | None, announce: Path | None) -> None:
    """Serve until a signal says stop, then stop the worker too."""
    import uvicorn

    settings: Settings = app.state.settings

    class Server(uvicorn.Server):
        async def startup(self, sockets: list[socket.socket] | None = None) -> None:
            await super().startup(sockets)
            if beside is not None:
                beside.start()
            # What is here now stays: the collector need not walk through it while requests wait.
            gc.collect()
            gc.freeze()
            gc.set_threshold(YOUNG)
            gc.enable()
            _announce(settings, listening, announce)

        def handle_exit(self, sig: int, frame: Any) -> None:
            app.state.stopping = True  # streams of events end, or they would hold the server up
            if beside is not None:
                beside.stop_soon()
            super().handle_exit(sig, frame)

    server = Server(_configured(app, settings))
    # uvicorn raises the signal again when it is done; by then it must not end the process before the worker is stopped.
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda _number, _frame: None)
    try:
        server.run(sockets=[listening])
    finally:
        if beside is not None:
            beside.stop()
    if not server.started:
        raise Failed("The server could not start; the log says why.")


def _configured(app: "FastAPI", settings: Settings) -> "uvicorn.Config":
    import uvicorn

    return uvicorn.Config(
        app,
        lifespan="on",
        ws="none",
        log_config=None,
        access_log=False,  # `gatecast.access` writes one with the request's id
        server_header=False,
        proxy_headers=True,
        forwarded_allow_ips=settings.forwarded_allow_ips,
        timeout_graceful_shutdown=DRAIN_S,
    )


def _announce(settings: Settings, listening: socket.socket, file: Path | None) -> None:
    """Say where the server is, once it answers; into `file` too, whole or not at all."""
    host, port = listening.getsockname()[:2]
    shown = {"0.0.0.0": "localhost", "::": "localhost"}.get(host, f"[{host}]" if ":" in host else host)  # noqa: S104
    url = f"http://{shown}:{port}"
    guard = "asked for" if settings.api_key else "none, open to everybody who can reach this address"
    kind = "PostgreSQL" if settings.database_url else "SQLite"
    out.print(
        f"[bold]Gatecast[/] answers at [bold]{url}[/], its docs page at [bold]{url}/docs[/]",
        highlight=False,
        soft_wrap=True,
    )
    out.print(
        f"Data: {settings.data.absolute()} ({kind})   API key: {guard}   Ctrl-C stops it",
        highlight=False,
        soft_wrap=True,
    )
    out.file.flush()
    if file is not None:
        fresh = file.with_suffix(".new")
        fresh.write_text(url, encoding="utf-8")
        fresh.rename(file)


def _refused(check: Any, *arguments: Any) -> Any:
    """The result of a check of ours; its refusal as sentences for the terminal."""
    try:
        return check(*arguments)
    except AppError as error:
        hints = [complaint.hint for complaint in error.errors if complaint.hint]
        raise Failed(error.detail, *hints) from None


@root.command(rich_help_panel=SERVER)
def worker(
    data: Data = None,
    slots: Annotated[int | None, typer.Option(help="Jobs at once on each device. [GATECAST_SLOTS, 1]")] = None,
    device: Annotated[str | None, typer.Option(help="auto, cpu, cuda or mps. [GATECAST_DEVICE, auto]")] = None,
    until_eof: UntilEof = False,
) -> None:
    """Run a worker alone: it takes jobs from the server's database.

    Give it the server's GATECAST_DATA and GATECAST_DATABASE_URL. Ctrl-C hands its jobs back.
    """
    from app.db.session import Database
    from app.http import logs, ready
    from app.worker import run_worker

    settings = settings_with(data=data, slots=slots, device=device)
    logs.configure(settings.log_level, settings.log_format)
    database = Database(settings.url)
    _refused(ready.check, settings, database)
    database.close()
    if until_eof:
        stop_at_eof()
    run_worker(settings)


@root.command(rich_help_panel=SERVER)
def migrate(
    data: Data = None,
    revision: Annotated[str, typer.Option(help="Where to: head, base (empties it), or a revision's name.")] = "head",
    own_base: Annotated[
        str | None,
        typer.Option(metavar="NAME", help="Another name for a model of your own that is called base, as ours is."),
    ] = None,
) -> None:
    """Bring the database to this program's tables and models; run it before a new version is started on PostgreSQL.

    It writes the model that comes with the program into the data folder: give it the server's GATECAST_DATA.
    """
    from app.db.session import Database
    from app.http import logs, ready

    settings = settings_with(data=data)
    logs.configure(settings.log_level, settings.log_format)
    database = Database(settings.url)
    _refused(ready.migrated, settings, database, revision, own_base)
    database.close()
    out.print("The database is up to date." if revision == "head" else f"The database is at {revision}.")


@root.command(rich_help_panel=SERVER)
def openapi() -> None:
    """Print the OpenAPI document of the server's interface."""
    from app.main import create_app

    with tempfile.TemporaryDirectory() as folder:
        app = create_app(settings_with(data=Path(folder)))
        typer.echo(json.dumps(app.openapi(), indent=2, ensure_ascii=False))


def main() -> None:
    root(prog_name="gatecast")


if __name__ == "__main__":
    main()
