"""README is true: every setting with its default and meaning, every URL and make target it names, and no other."""

import re
from pathlib import Path

import pytest
from fastapi import FastAPI

from app.config import Settings

ROOT = Path(__file__).parents[2]
README = (ROOT / "README.md").read_text(encoding="utf-8")


def shown(value: object) -> str:
    if value is None or value in ("", ()):
        return ""
    return f"`{str(value).lower() if isinstance(value, bool) else value}`"


def test_every_setting_is_in_the_table_as_the_code_has_it() -> None:
    rows = [
        f"| `GATECAST_{name.upper()}` | {shown(field.default)} | {field.description} |"
        for name, field in Settings.model_fields.items()
    ]
    assert re.findall(r"^\| `GATECAST_.*$", README, re.M) == rows


@pytest.mark.parametrize(
    "page", ["README.md", "app/README.md", "bench/README.md", "docker-compose.yml", ".env.example"]
)
def test_every_variable_named_exists(page: str) -> None:
    known = {f"GATECAST_{name.upper()}" for name in Settings.model_fields}
    known |= {"GATECAST_API_KEY_FILE", "GATECAST_DATABASE_URL_FILE"}  # the two secrets
    known |= {"GATECAST_URL"}  # of the client commands
    known |= {"GATECAST_DB_PASSWORD"}  # of the compose file alone
    assert set(re.findall(r"GATECAST_[A-Z_]+[A-Z]", (ROOT / page).read_text(encoding="utf-8"))) <= known


def test_every_url_named_exists(app: FastAPI) -> None:
    known = [re.sub(r"\{[^}]+\}", "[^/]+", path) for path in app.openapi()["paths"]]
    known += [route.path for route in app.routes if "{" not in getattr(route, "path", "{")]
    named = {f"/v1{path}" for path in re.findall(r"\$api(/[\w/$.-]+)", README)}
    named |= set(re.findall(r"`(/[\w/]+)`", README)) - {"/data", "/tmp"}
    assert len(named) >= 8
    for path in named:
        assert any(re.fullmatch(pattern, path) for pattern in known), path


def test_every_route_is_documented(app: FastAPI) -> None:
    """In the OpenAPI document, or here by name."""
    documented = set(app.openapi()["paths"])
    for route in app.routes:
        path = getattr(route, "path", "").replace(":path}", "}")
        if path.startswith("/docs/"):
            continue  # parts of the docs page
        assert path in documented or f"`{path}`" in README or f"[{path[1:]}]({path[1:]})" in README, path


def test_every_make_target_named_exists() -> None:
    makefile = (ROOT / "Makefile").read_text(encoding="utf-8")
    targets = set(re.findall(r"^([a-z]+):", makefile, re.M))
    for page in ("README.md", "app/README.md", "bench/README.md"):
        named = set(re.findall(r"`make ([a-z]+)", (ROOT / page).read_text(encoding="utf-8")))
        assert named <= targets, page


@pytest.mark.parametrize("page", ["README.md", "app/README.md", "bench/README.md"])
def test_every_link_leads_somewhere(page: str) -> None:
    folder = (ROOT / page).parent
    links = re.findall(r"\]\(([^)#:]+)\)", (ROOT / page).read_text(encoding="utf-8"))
    assert not [link for link in links if not (folder / link).exists()]
