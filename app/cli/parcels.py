"""`gatecast export` and `gatecast import`: versions move between servers, each as one file."""

import hashlib
import json
import os
import re
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated, Any, Literal
from urllib.parse import quote

import httpx
import typer

from app.cli.client import Failed, ask, checked, connect
from app.cli.root import CLIENT, DEFAULT_URL, AsJson, Url, out, root
from app.cli.show import print_json

CHUNK = 1024 * 1024
ABOUT, MANIFEST = "version.json", "manifest.json"
REFERENCE = re.compile(r"(?P<model>[^@/]+)(?:@(?P<alias>[^@/]+)|/(?P<number>[1-9][0-9]*))?")


def _number(http: httpx.Client, reference: str) -> tuple[str, int]:
    """Model and version of `name` (its champion), `name@alias` or `name/3`. Raises Failed."""
    parts = REFERENCE.fullmatch(reference)
    if parts is None:
        raise Failed(f"{reference!r} is not a version.", "Expected name, name@alias or name/3.", status=2)
    model = parts["model"]
    if parts["number"]:
        return model, int(parts["number"])
    alias = quote(parts["alias"] or "champion", safe="")
    return model, ask(http, "GET", f"/v1/models/{quote(model, safe='')}/aliases/{alias}")["version"]


def _check(file: Path, digest: str) -> None:
    """Raises Failed unless the file holds the version of this digest, each byte of its files as the digest says."""
    try:
        with zipfile.ZipFile(file) as archive:
            manifest = archive.read(MANIFEST)
            wanted = {MANIFEST: digest.removeprefix("sha256:")}
            wanted |= {name: said["sha256"] for name, said in json.loads(manifest)["files"].items()}
            for name, expected in wanted.items():
                with archive.open(name) as opened:
                    if hashlib.file_digest(opened, "sha256").hexdigest() != expected:  # type: ignore[arg-type]
                        raise Failed(f"{name} arrived with other bytes than its digest says.", "Export it again.")
    except (zipfile.BadZipFile, KeyError, ValueError, TypeError) as error:
        raise Failed(f"What arrived is not a version: {error}.", "Export it again.") from None


@root.command("export", rich_help_panel=CLIENT)
def export_version(
    version: Annotated[str, typer.Argument(metavar="VERSION", help="name/3, name (its champion) or name@alias.")],
    file: Annotated[
        Path | None, typer.Option("--output", "-o", dir_okay=False, help="Where to; else NAME-NUMBER.zip here.")
    ] = None,
    url: Url = DEFAULT_URL,
    as_json: AsJson = False,
) -> None:
    """Write a version into one file, for `gatecast import` on another server. Its digests are checked on both sides."""
    with connect(url) as http:
        model, number = _number(http, version)
        path = f"/v1/models/{quote(model, safe='')}/versions/{number}"
        digest = ask(http, "GET", path)["digest"]
        target = file or Path(f"{model}-{number}.zip")
        if file is None and target.exists():
            raise Failed(
                f"{target} is there already.", "Name another file with -o, or the same to replace it.", status=2
            )
        beside = target.with_name(f".{target.name}.part")
        try:
            with http.stream("GET", f"{path}/export") as answer, beside.open("wb") as opened:
                for piece in checked(answer).iter_bytes(CHUNK):
                    opened.write(piece)
                opened.flush()
                os.fsync(opened.fileno())
            _check(beside, digest)
            beside.replace(target)
        except OSError as error:
            raise Failed(f"{target} cannot be written: {error.strerror}.") from None
        finally:
            beside.unlink(missing_ok=True)
    if as_json:
        said: dict[str, Any] = {"file": str(target), "model": model, "version": number, "digest": digest}
        print_json(said | {"size_bytes": target.stat().st_size})
        return
    out.print(f"{target}: {model} version {number}, {target.stat().st_size:,} bytes, {digest}", highlight=False)
    out.print(f"Next, where it is wanted: [bold]gatecast import {target} --url …[/]", highlight=False)


def _model(file: Path) -> str:
    """The name that the version in a file has where it was made. Raises Failed."""
    try:
        with zipfile.ZipFile(file) as archive, archive.open(ABOUT) as opened:
            return str(json.loads(opened.read(CHUNK))["model"])
    except (zipfile.BadZipFile, KeyError, ValueError, TypeError, NotImplementedError, RuntimeError):
        raise Failed(
            f"{file.name} is not a version as `gatecast export` writes it.", "Export it again.", status=2
        ) from None


@root.command("import", rich_help_panel=CLIENT)
def import_version(
    *,
    file: Annotated[Path, typer.Argument(exists=True, dir_okay=False, readable=True, help="What an export wrote.")],
    model: Annotated[str | None, typer.Option("--model", "-m", help="Into which model; else the name it had.")] = None,
    promote: Annotated[
        Literal["never", "if_better", "always"],
        typer.Option(
            help="Make it the champion; if_better: only where the model has none, for nothing can be compared."
        ),
    ] = "if_better",
    url: Url = DEFAULT_URL,
    as_json: AsJson = False,
) -> None:
    """Give an exported version to this server, as the next version of a model here.

    The server checks every byte of it before it counts. Giving it again changes nothing.
    """
    name = model or _model(file)

    def pieces() -> Iterator[bytes]:
        with file.open("rb") as opened:
            while piece := opened.read(CHUNK):
                yield piece

    with connect(url) as http:
        answer = checked(
            http.post(
                f"/v1/models/{quote(name, safe='')}/versions",
                content=pieces(),
                params={"promote": promote},
                headers={"Content-Type": "application/zip", "Content-Length": str(file.stat().st_size)},
                timeout=httpx.Timeout(600, connect=5),
            )
        )
    found: dict[str, Any] = answer.json()
    if as_json:
        print_json(found)
        return
    was = "is" if answer.status_code == 201 else "was here already as"
    out.print(f"{file.name} {was} {found['model']} version {found['version']}, {found['digest']}", highlight=False)
    if "champion" in found["aliases"]:
        out.print(f"It is the champion: {found['model']} answers with it.", highlight=False)
    else:
        next_step = f"gatecast models promote {found['model']} {found['version']}"
        out.print(f"Another version is the champion. Next: [bold]{next_step}[/]", highlight=False)
