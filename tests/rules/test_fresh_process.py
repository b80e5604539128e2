"""An API process is light: neither torch nor pandas is ever loaded in it."""

import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[2]
CODE = """
import sys
from app.config import Settings
from app.db.session import Database
from app.http import ready
from app.main import create_app
from fastapi.testclient import TestClient

settings = Settings(data=sys.argv[1])
settings.store.mkdir(parents=True)
database = Database(settings.url)
ready.prepare(settings, database)
database.close()
with TestClient(create_app(settings)) as client:
    for path in ("/healthz", "/readyz", "/v1/datasets", "/v1/system", "/openapi.json"):
        answer = client.get(path)
        assert answer.status_code == 200, (path, answer.status_code, answer.text)
    answer = client.post("/v1/forecasts", json={"inputs": [{"key": "a", "target": [1, 2, 3]}], "horizon": 2})
    assert answer.status_code == 200, answer.text
print(sorted({"torch", "pandas", "scipy", "matplotlib", "optuna"} & set(sys.modules)))
"""
# What a start over tables that are new enough, and a forecast in JSON, do without.
AGAIN = """
import sys
from app.config import Settings
from app.db.session import Database
from app.http import ready
from app.main import create_app
from fastapi.testclient import TestClient

settings = Settings(data=sys.argv[1])
database = Database(settings.url)
ready.prepare(settings, database)
database.close()
with TestClient(create_app(settings)) as client:
    answer = client.post("/v1/forecasts", json={"inputs": [{"key": "a", "target": [1, 2, 3]}], "horizon": 2})
    assert answer.status_code == 200, answer.text
print(sorted({"alembic", "dbos", "psycopg", "pyarrow", "torch"} & set(sys.modules)))
"""


def test_a_served_process_holds_neither_torch_nor_pandas(tmp_path: Path) -> None:
    for code in (CODE, AGAIN):
        done = subprocess.run(
            [sys.executable, "-W", "ignore", "-c", code, str(tmp_path / "data")],
            cwd=ROOT,
            capture_output=True,
            text=True,
            check=False,
        )
        assert done.returncode == 0, done.stderr[-3000:]
        assert done.stdout.strip().splitlines()[-1] == "[]"


def test_the_core_front_door_is_free() -> None:
    code = "import models, sys; print(sorted({'torch', 'onnxruntime', 'onnx'} & set(sys.modules)))"
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_what_runs_workers_and_plans_tunes_loads_neither_torch_nor_optuna() -> None:
    """The parent of all children, and the child of a tune's step until it asks for proposals."""
    for module, unwanted in (
        ("app.worker.parent", {"torch", "optuna"}),
        ("app.worker.child", {"torch", "optuna", "dbos"}),
    ):
        code = f"import {module}, sys; print(sorted({unwanted!r} & set(sys.modules)))"
        done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
        assert done.stdout.strip() == "[]", module
