"""Who may import whom: the contracts of pyproject.toml, and what they cannot say."""

import ast
import re
import subprocess
import sys
from pathlib import Path

import models

ROOT = Path(__file__).parents[2]
APP = sorted((ROOT / "app").rglob("*.py"))


def test_import_contracts_hold() -> None:
    command = [Path(sys.executable).with_name("lint-imports"), "--no-cache"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout[-4000:] + done.stderr[-2000:]


def test_app_enters_the_core_through_its_front_door() -> None:
    """`from models import Name`, with a name of the front door: never a file behind it."""
    wrong = []
    for path in APP:
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            place = f"{path.relative_to(ROOT)}:{getattr(node, 'lineno', 0)}"
            if isinstance(node, ast.Import):
                wrong += [place for alias in node.names if alias.name.split(".")[0] == "models"]
            elif isinstance(node, ast.ImportFrom) and (node.module or "").split(".")[0] == "models":
                inside = node.module != "models" or {alias.name for alias in node.names} - set(models.__all__)
                wrong += [place] if inside else []
    assert not wrong


def test_the_front_door_answers_the_same_whoever_looked_first() -> None:
    """`models.backtest` is a name and a file: loading the file must not put the module in the name's place."""
    code = (
        "import models\n"
        "for name in models.__all__:\n"
        "    first, second = getattr(models, name), getattr(models, name)\n"
        "    assert first is second and type(first).__name__ != 'module', name\n"
    )
    subprocess.run([sys.executable, "-c", code], cwd=ROOT, check=True)


def test_the_map_shows_every_file() -> None:
    page = (ROOT / "app" / "README.md").read_text(encoding="utf-8").partition("## Rules")[0]
    rooms = [path for path in (*APP, *(ROOT / "models").glob("*.py")) if path.stem != "__init__"]
    inside = ("app/api/", "app/cli/", "app/services/ingest/")  # shown as a room
    files = [path for path in rooms if not str(path.relative_to(ROOT)).startswith(inside)]
    assert len(files) > 40
    assert not [str(path.relative_to(ROOT)) for path in files if not re.search(rf"\b{path.stem}\b", page)]


def test_engine_stays_in_its_rooms() -> None:
    """No type of the job engine leaves services/jobs.py, the worker and the migrations."""
    rooms = {ROOT / "app/services/jobs.py", ROOT / "app/db/migrate.py", *(ROOT / "app/worker").glob("*.py")}
    for path in APP:
        if path not in rooms:
            assert "dbos" not in imported(path), path


def imported(path: Path) -> set[str]:
    """Top-level packages that a file imports, inside functions too."""
    found = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            found |= {alias.name.split(".")[0] for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
            found.add(node.module.split(".")[0])
    return found
