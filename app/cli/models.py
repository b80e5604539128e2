"""`gatecast models`: list, show, promote, roll back."""

from typing import Annotated, Any
from urllib.parse import quote

import httpx
import typer
from rich.markdown import Markdown

from app.cli.client import ask, checked, connect, pages
from app.cli.root import CLIENT, DEFAULT_URL, AsJson, Url, default_url, out, root
from app.cli.show import facts, leaderboard, number, print_json, table

models = typer.Typer(help="Models and their versions: list, show, promote, roll back.", invoke_without_command=True)
root.add_typer(models, name="models", rich_help_panel=CLIENT)

OUTSIDE = "no data of this server"

Name = Annotated[str, typer.Argument(metavar="MODEL", help="Its name.")]
Alias = Annotated[str, typer.Option(help="Which alias moves.")]
Reason = Annotated[str, typer.Option(help="Why; kept with the move.")]


@models.callback()
def list_when_bare(ctx: typer.Context) -> None:
    if ctx.invoked_subcommand is None:
        list_models(url=default_url())


@models.command("list")
def list_models(url: Url = DEFAULT_URL, as_json: AsJson = False) -> None:
    """Show all models and where their aliases point."""
    with connect(url) as http:
        found = pages(http, "/v1/models", "models", 10_000)
    if as_json:
        print_json(found)
    elif not found:
        out.print("No models, not even the one that comes with the server: run `gatecast migrate` there.")
    else:
        rows = [(model["name"], model["versions"], _aliases(model["aliases"])) for model in found]
        table(None, ["model", ">versions", "aliases"], rows)


def _aliases(aliases: dict[str, int]) -> str:
    return ", ".join(f"{alias} → {version}" for alias, version in aliases.items())


@models.command("show")
def show_model(
    model: Name,
    version: Annotated[int | None, typer.Argument(help="One version; else all of them.")] = None,
    url: Url = DEFAULT_URL,
    as_json: AsJson = False,
) -> None:
    """Show a model's versions with their scores, or one version with all there is to know."""
    path = f"/v1/models/{quote(model, safe='@')}/versions"
    card = ""
    with connect(url) as http:
        found: Any = pages(http, path, "versions", 10_000) if version is None else ask(http, "GET", f"{path}/{version}")
        if version is not None and found["dataset"] is None and not as_json:
            card = checked(http.get(f"{path}/{version}/card")).text
    if as_json:
        print_json(found)
    elif version is None:
        _board(model, found)
    else:
        _record(found)
        if card:
            out.print(Markdown(card))


def _board(model: str, versions: list[dict[str, Any]]) -> None:
    rows: list[list[object]] = []
    for found in versions:
        naive = [found["baselines"].get(name, {}).get("mase") for name in ("seasonal_naive", "naive")]
        scores = [number(value) for value in (found["metrics"].get("mase"), *naive)]
        trained = f"{found['dataset']} r{found['revision']}" if found["dataset"] else OUTSIDE
        rows.append([found["version"], ", ".join(found["aliases"]), *scores, trained, found["created_at"][:10]])
    table(model, [">version", "aliases", ">MASE", ">seasonal naive", ">naive", "trained on", "made"], rows)


def _record(version: dict[str, Any]) -> None:
    facts(
        f"{version['model']} version {version['version']}",
        {
            "aliases": ", ".join(version["aliases"]) or None,
            "trained on": f"{version['dataset']}, revision {version['revision']}" if version["dataset"] else OUTSIDE,
            "frequency": version["frequency"],
            "took": f"{version['train_seconds']:.1f} s on {version['device']}",
            "parameters": version["parameters"],
            "made by": version["job"],
            "started from": version["parent"],
            "imported, made as": f"{version['origin']['model']}/{version['origin']['version']}"
            if version["origin"]
            else None,
            "digest": version["digest"],
            "config": ", ".join(f"{name}={value}" for name, value in version["config"].items() if value is not None),
        },
    )
    if version["metrics"]:
        leaderboard(version)


@models.command("promote")
def promote(
    *,
    model: Name,
    version: Annotated[int, typer.Argument(help="The version that shall answer.")],
    alias: Alias = "champion",
    reason: Reason = "",
    url: Url = DEFAULT_URL,
    as_json: AsJson = False,
) -> None:
    """Point an alias (the champion, if not said otherwise) at a version."""
    with connect(url) as http:
        moved = ask(
            http,
            "PUT",
            _alias_path(model, alias),
            json={"version": version, "reason": reason},
            headers=_if_unchanged(http, model, alias),
        )
    if as_json:
        print_json(moved)
    else:
        out.print(f"{model}@{alias} is version {moved['version']} now.", highlight=False)


@models.command("rollback")
def rollback(
    model: Name,
    alias: Alias = "champion",
    reason: Reason = "",
    url: Url = DEFAULT_URL,
    as_json: AsJson = False,
) -> None:
    """Point an alias back to where its last move came from."""
    with connect(url) as http:
        path = f"{_alias_path(model, alias)}/rollback"
        moved = ask(http, "POST", path, json={"reason": reason}, headers=_if_unchanged(http, model, alias))
    if as_json:
        print_json(moved)
    else:
        out.print(f"{model}@{alias} is version {moved['version']} again.", highlight=False)


def _alias_path(model: str, alias: str) -> str:
    return f"/v1/models/{quote(model, safe='@')}/aliases/{quote(alias, safe='')}"


def _if_unchanged(http: httpx.Client, model: str, alias: str) -> dict[str, str]:
    """The condition that nobody moves the alias between our look and our move."""
    found = http.get(_alias_path(model, alias))
    return {} if found.status_code == 404 else {"If-Match": checked(found).headers["ETag"]}
