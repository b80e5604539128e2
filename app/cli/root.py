"""The command `gatecast`: one typer application that every command registers itself with, and what they share."""

import os
import sys
from typing import Annotated, Any

import typer
from rich.console import Console
from rich.markup import escape
from typer.core import TyperGroup

from app.cli.client import Failed

ORDER = (
    *("serve", "worker", "migrate", "demo", "upload", "train", "tune", "forecast", "jobs", "models"),
    *("export", "import", "openapi"),
)
SERVER, CLIENT = "Run it", "Use it (over HTTP)"
out = Console()
err = Console(stderr=True)


class Commands(TyperGroup):
    """The commands in a sensible order; a refusal becomes a sentence on standard error and an exit status."""

    def list_commands(self, ctx: Any) -> list[str]:
        names = super().list_commands(ctx)
        return sorted(names, key=lambda name: ORDER.index(name) if name in ORDER else len(ORDER))

    def invoke(self, ctx: Any) -> Any:
        try:
            return super().invoke(ctx)
        except Failed as failure:
            say(failure.sentences)
            raise typer.Exit(failure.status) from None
        except KeyboardInterrupt:
            raise typer.Exit(130) from None
        except BrokenPipeError:  # `gatecast … | head` has read enough
            sys.stderr.close()
            raise typer.Exit(0) from None


def say(sentences: list[str]) -> None:
    """The first sentence says what failed; the others where, why, and what to do next."""
    for place, sentence in enumerate(sentences):
        err.print(
            f"[bold red]gatecast:[/] {escape(sentence)}" if place == 0 else f"  {escape(sentence)}", highlight=False
        )


root = typer.Typer(
    cls=Commands,
    name="gatecast",
    help="Time-series forecasting you run yourself: upload series, train a forecaster, ask for the next step or more.",
    epilog="First time here? [bold]gatecast demo[/] shows the whole way in a minute. Every command has --help.",
    no_args_is_help=True,
    add_completion=False,
    rich_markup_mode="rich",
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)

Url = Annotated[
    str, typer.Option("--url", envvar="GATECAST_URL", help="Where the server is. Its key: GATECAST_API_KEY.")
]
AsJson = Annotated[bool, typer.Option("--json", help="Print JSON, for programs.")]
DEFAULT_URL = "http://127.0.0.1:8000"


def default_url() -> str:
    """Where the server is when a command has no --url of its own."""
    return os.environ.get("GATECAST_URL", DEFAULT_URL)
