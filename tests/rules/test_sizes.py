"""How large things may be, how they are named, and what they may catch."""

import ast
from collections.abc import Iterator
from pathlib import Path

from app.config import Settings

ROOT = Path(__file__).parents[2]
OURS = sorted(path for room in ("app", "models", "migrations", "bench") for path in (ROOT / room).rglob("*.py"))
MAX_FILE, MAX_FUNCTION, MAX_PARAMETERS, MAX_SETTINGS = 400, 60, 6, 25
PICKLES = {"pickle", "cloudpickle", "joblib", "dill", "shelve", "marshal"}


def nodes(kind: type | tuple[type, ...]) -> Iterator[tuple[str, ast.AST]]:
    """Every node of a kind in every file of ours, with the place to look at."""
    for path in OURS:
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, kind):
                yield f"{path.relative_to(ROOT)}:{getattr(node, 'lineno', 0)}", node


def test_there_is_something_to_check() -> None:
    assert len(OURS) > 20


def test_files_are_short() -> None:
    lines = {str(path.relative_to(ROOT)): len(path.read_text(encoding="utf-8").splitlines()) for path in OURS}
    assert not {name: count for name, count in lines.items() if count > MAX_FILE}


def test_functions_are_short() -> None:
    """But for migrations, where a table is one call however many columns it has."""
    long = {}
    for place, node in nodes((ast.FunctionDef, ast.AsyncFunctionDef)):
        count = node.end_lineno - node.lineno + 1
        if count > MAX_FUNCTION and not place.startswith("migrations/versions/"):
            long[place] = count
    assert not long


def test_functions_take_few_parameters() -> None:
    """But for routes and commands, whose parameters are the query and the options: there the list is the interface."""
    many = {}
    for place, node in nodes((ast.FunctionDef, ast.AsyncFunctionDef)):
        names = [a.arg for a in node.args.posonlyargs + node.args.args + node.args.kwonlyargs]
        count = len([name for name in names if name not in ("self", "cls")])
        decorators = " ".join(ast.unparse(decorator) for decorator in node.decorator_list)
        interface = any(word in decorators for word in ("router.", "command", "callback"))
        if count > MAX_PARAMETERS and not interface:
            many[place] = f"{node.name}: {count}"
    assert not many


def test_no_room_is_called_utils() -> None:
    banned = {"utils", "util", "helpers", "helper", "misc"}
    assert not [path for path in OURS if path.stem in banned or path.parent.name in banned]


def test_only_the_worker_catches_everything() -> None:
    broad = []
    for place, node in nodes(ast.ExceptHandler):
        caught = {n.id for n in ast.walk(node.type) if isinstance(n, ast.Name)} if node.type else {"BaseException"}
        if caught & {"Exception", "BaseException"} and not place.startswith("app/worker/"):
            broad.append(place)
    assert not broad


def test_nothing_unpickles_or_evaluates() -> None:
    calls = [place for place, node in nodes(ast.Call) if ast.unparse(node.func) in ("eval", "exec", "torch.load")]
    assert not calls
    for place, node in nodes((ast.Import, ast.ImportFrom)):
        names = [alias.name for alias in node.names] + [getattr(node, "module", None) or ""]
        assert not {name.split(".")[0] for name in names} & PICKLES, place


def test_settings_stay_few() -> None:
    assert len(Settings.model_fields) <= MAX_SETTINGS
