"""What is tracked: the product alone, in plain text, with nothing large and nothing secret."""

import re
import subprocess
import tomllib
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
MAX_BYTES = 512 * 1024
BASE, MAX_BASE_BYTES = ROOT / "models" / "base", 12 * 1024**2  # the base's weights and graph come with the program
SOMEBODYS_MACHINE = re.compile(r"(?<![\w.~:/-])/(?:home|Users|root|work|opt|mnt|media|srv)/\w")
SECRET = re.compile(r"-----BEGIN [A-Z ]*PRIVATE KEY|\bAKIA[0-9A-Z]{16}\b|\bghp_\w{30,}")


def tracked() -> list[Path]:
    listed = subprocess.run(["git", "ls-files", "-z"], cwd=ROOT, capture_output=True, text=True, check=False)
    if listed.returncode:
        pytest.skip("not a git checkout")
    return [ROOT / name for name in listed.stdout.split("\0") if name and (ROOT / name).is_file()]


def test_tracked_files_are_small() -> None:
    others = [path for path in tracked() if path.parent != BASE]
    assert not {str(path): path.stat().st_size for path in others if path.stat().st_size > MAX_BYTES}
    assert sum(path.stat().st_size for path in tracked() if path.parent == BASE) <= MAX_BASE_BYTES


def test_no_file_speaks_of_somebodys_machine_or_holds_a_secret() -> None:
    found = []
    for path in tracked():
        for number, line in enumerate(path.read_text(encoding="utf-8", errors="replace").splitlines(), 1):
            if SOMEBODYS_MACHINE.search(line) or SECRET.search(line):
                found.append(f"{path.relative_to(ROOT)}:{number}: {line.strip()[:100]}")
    assert not found


def test_nothing_is_left_to_do() -> None:
    mark = re.compile(r"#\s*(?:TODO|FIXME|XXX|HACK)\b")
    assert not [path for path in tracked() if path.suffix == ".py" and mark.search(path.read_text(encoding="utf-8"))]


def test_every_dependency_is_used() -> None:
    """Runtime dependencies are imported somewhere in the packages, or are named here with the reason."""
    indirect = {
        "uvloop",  # uvicorn takes both where they are
        "httptools",
        "psycopg",  # loaded by SQLAlchemy from the URL
        "pyarrow",  # loaded by its name when it is first needed
        "tzdata",  # zones for machines without a zone database
        "onnx",  # torch's exporter needs both
        "onnxscript",
    }
    modules = {name: name.replace("-", "_") for name in ("pydantic-settings", "fastapi-offline", "python-multipart")}
    text = "\n".join(
        path.read_text(encoding="utf-8") for room in ("app", "models") for path in (ROOT / room).rglob("*.py")
    )
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    names = {re.split(r"[\[<>=!~ ]", line)[0] for line in project["dependencies"]}
    unused = [
        name
        for name in names - indirect
        if not re.search(rf"^\s*(?:import|from) {modules.get(name, name)}\b", text, re.M)
    ]
    assert not unused
    assert indirect <= names
