"""README's curl commands, as they stand and in their order, against a real server with its worker."""

import os
import re
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from app.config import Settings

ROOT = Path(__file__).parents[2]
PATIENCE = 120.0  # seconds; nothing is concluded from how long it took
BLOCKS = re.findall(r"^```sh\n(.*?)^```$", (ROOT / "README.md").read_text(encoding="utf-8"), re.M | re.S)
STRICT = 'set -euo pipefail\ncurl() { command curl --fail-with-body "$@"; echo; }\n'


@pytest.fixture
def server(settings: Settings, tmp_path: Path) -> Iterator[str]:
    """The address of `gatecast serve` over the test's own database and data folder."""
    environment = {**os.environ, "GATECAST_DATA": str(settings.data)}
    if settings.database_url is not None:
        environment["GATECAST_DATABASE_URL"] = settings.database_url.get_secret_value()
    said, log = tmp_path / "address", tmp_path / "log"
    # PostgreSQL's operator migrates by hand, which installs the model that comes with the program.
    subprocess.run([sys.executable, "-m", "app", "migrate"], cwd=ROOT, env=environment, check=True, capture_output=True)
    with log.open("wb") as output:
        command = [sys.executable, "-m", "app", "serve", "--port", "0", "--announce", str(said)]
        started = subprocess.Popen(command, cwd=ROOT, env=environment, stdout=output, stderr=subprocess.STDOUT)
    deadline = time.monotonic() + PATIENCE
    while not said.exists() and started.poll() is None and time.monotonic() < deadline:
        time.sleep(0.05)
    assert said.exists(), log.read_text()
    yield said.read_text()
    started.terminate()
    assert started.wait(PATIENCE) == 0, log.read_text()


@pytest.mark.skipif(not shutil.which("curl"), reason="there is no curl here")
def test_the_main_job_in_curl(server: str) -> None:
    assert len(BLOCKS) == 4
    script = STRICT + "".join(BLOCKS).replace("http://127.0.0.1:8000", server)
    done = subprocess.run(["bash", "-c", script], cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-2000:]
    for said in (
        '"name":"base"',  # before anything was trained
        '"frequency":"W-FRI"',  # of the upload
        "event: done",
        '"seasonal_naive"',  # on the version
        "key,timestamp,mean,q0.1,q0.5,q0.9",  # the forecast as CSV
        '"key":"mine"',
    ):
        assert said in done.stdout, done.stdout[-3000:]
