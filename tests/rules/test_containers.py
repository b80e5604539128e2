"""docker-compose.yml against the compose specification, by a real parser, and the promises that no schema knows."""

import re
from pathlib import Path
from typing import Any

import pytest
import yaml
from compose_spec import PyCompose

from app.config import Settings

ROOT = Path(__file__).parents[2]
TEXT = (ROOT / "docker-compose.yml").read_text(encoding="utf-8")
DOCKERFILE = (ROOT / "Dockerfile").read_text(encoding="utf-8")
VARIABLE = re.compile(r"\$\{(\w+)(?::([-?])([^}]*))?\}")
FILLED = {"GATECAST_API_KEY": "0123456789abcdef", "GATECAST_DB_PASSWORD": "fedcba9876543210"}


def filled(environment: dict[str, str]) -> str:
    """The file after Compose's own substitution of ${NAME}, ${NAME:-default} and ${NAME:?complaint}."""

    def value(match: re.Match[str]) -> str:
        name, kind, rest = match.groups()
        if environment.get(name):
            return environment[name]
        if kind == "?":
            raise ValueError(f"{name}: {rest}")
        return rest or ""

    return VARIABLE.sub(value, TEXT)


def read(text: str) -> PyCompose:
    """The specification's view of the file, merge keys resolved first as YAML has it. Raises ValueError."""
    return PyCompose.from_yaml(yaml.safe_dump(yaml.safe_load(text)))


@pytest.fixture(scope="module")
def services() -> dict[str, Any]:
    return yaml.safe_load(filled(FILLED))["services"]


def test_compose_file_keeps_to_the_specification() -> None:
    parsed = read(filled(FILLED)).to_dict()
    assert set(parsed["services"]) == {"db", "migrate", "api", "api-2", "proxy", "objects", "worker", "worker-gpu"}


def test_the_parser_would_complain() -> None:
    with pytest.raises(ValueError, match="read_onli"):
        read(filled(FILLED).replace("read_only:", "read_onli:"))


@pytest.mark.parametrize("missing", sorted(FILLED))
def test_a_missing_secret_is_said_by_name(missing: str) -> None:
    with pytest.raises(ValueError, match=missing):
        filled({name: value for name, value in FILLED.items() if name != missing})


def test_no_secret_is_written_down() -> None:
    for name in FILLED:
        defaults = [match.group(2) for match in VARIABLE.finditer(TEXT) if match.group(1) == name]
        assert defaults, name
        assert set(defaults) == {"?"}, name
    example = (ROOT / ".env.example").read_text(encoding="utf-8")
    assert all(re.search(rf"^{name}=$", example, re.M) for name in FILLED)


def test_references_between_the_parts_hold(services: dict[str, Any]) -> None:
    volumes = yaml.safe_load(TEXT)["volumes"]
    for name, service in services.items():
        assert set(service.get("depends_on", {})) <= set(services), name
        assert {mount.split(":")[0] for mount in service.get("volumes", [])} <= set(volumes), name
        target = service.get("build", {}).get("target")
        assert target is None or re.search(rf"^FROM .* AS {target}$", DOCKERFILE, re.M), name
        ours = {key.removeprefix("GATECAST_").lower() for key in service.get("environment", {}) if "GATECAST_" in key}
        assert ours <= set(Settings.model_fields), name


def test_only_loopback_is_published_and_limits_are_set(services: dict[str, Any]) -> None:
    published = [port for service in services.values() for port in service.get("ports", [])]
    assert published == ["127.0.0.1:8000:8000", "127.0.0.1:8080:8080"]
    for name, service in services.items():
        assert service["restart"], name
        if name != "migrate":
            assert set(service["deploy"]["resources"]["limits"]) == {"cpus", "memory"}, name
        if name != "db":
            assert service["read_only"] is True, name
            assert service["cap_drop"] == ["ALL"], name
    devices = services["worker-gpu"]["deploy"]["resources"]["reservations"]["devices"]
    assert devices == [{"driver": "nvidia", "count": "all", "capabilities": ["gpu"]}]
    assert services["worker-gpu"]["profiles"] == ["gpu"]
    assert {name for name in services if services[name].get("profiles") == ["scale"]} == {"api-2", "proxy", "objects"}


def test_all_of_ours_keep_versions_in_the_same_place(services: dict[str, Any]) -> None:
    """One that did not would publish where the others do not look."""
    ours = [
        service["environment"]
        for service in services.values()
        if "GATECAST_DATABASE_URL" in service.get("environment", {})
    ]
    assert len(ours) == 5
    for name in ("GATECAST_DATABASE_URL", "GATECAST_STORE_URL", "AWS_ENDPOINT_URL", "AWS_ACCESS_KEY_ID"):
        assert len({environment[name] for environment in ours}) == 1, name
    for environment in ours:
        assert Settings(store_url=environment["GATECAST_STORE_URL"]).store_url is None  # unless it is asked for


def test_the_image_runs_as_nobody_special() -> None:
    assert re.search(r"^ARG BASE_IMAGE=python:3\.11-slim-bookworm$", DOCKERFILE, re.M)
    assert re.search(r"^USER 10001:10001$", DOCKERFILE, re.M)
    assert re.search(r"^HEALTHCHECK ", DOCKERFILE, re.M)
    assert not re.search(r"^USER (root|0)", DOCKERFILE, re.M)
