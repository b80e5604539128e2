"""A server of a command's own: `gatecast serve` in a process that ends with the command, however that ends."""

import os
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Generator
from contextlib import contextmanager
from pathlib import Path

import httpx

from app.cli.client import Failed
from app.cli.root import err

PATIENCE_S = 60.0  # to wait for the server's first answer
GRACE_S = 20.0  # to wait for its last


@contextmanager
def at_hand(url: str, named: bool) -> Generator[str]:
    """The address of a server: `url`, or where none answers there and nobody has `named` it, that of one which is
    started for the block over a folder that goes with it."""
    if named or _answers(url):
        yield url
        return
    told = f"No server answers at {url}: one is started for this command alone, and nothing is kept."
    err.print(f"[dim]{told}[/]", highlight=False, soft_wrap=True)
    with tempfile.TemporaryDirectory(prefix="gatecast-") as folder:
        server, address = start(Path(folder), 0, "--no-worker")
        try:
            yield address
        finally:
            stop(server)


def start(data: Path, port: int, *options: str) -> tuple[subprocess.Popen[bytes], str]:
    """Run `gatecast serve` in a process of its own, quietly; that process and its address, once it is ready."""
    command = [sys.executable, "-P", "-m", "app", "serve", "--data", str(data), "--host", "127.0.0.1", *options]
    quiet = {"GATECAST_LOG_LEVEL": os.environ.get("GATECAST_LOG_LEVEL", "warning")}
    with tempfile.TemporaryDirectory() as folder:
        address = Path(folder) / "address"
        server = subprocess.Popen(
            [*command, "--port", str(port), "--announce", str(address), "--until-eof"],
            env={**os.environ, **quiet},
            stdin=subprocess.PIPE,  # its end tells the server that this process is gone, however it went
            stdout=subprocess.DEVNULL,
            start_new_session=True,
        )
        deadline = time.monotonic() + PATIENCE_S
        while not address.exists():
            if server.poll() is not None:
                raise Failed("The server did not start; what it said is above.", status=server.returncode or 1)
            if time.monotonic() > deadline:
                stop(server)
                raise Failed(f"The server gave no sign of life in {PATIENCE_S:.0f} s.")
            time.sleep(0.05)
        return server, address.read_text(encoding="utf-8")


def stop(server: subprocess.Popen[bytes]) -> None:
    """Ask it to end, and see that it does."""
    if server.poll() is None:
        server.send_signal(signal.SIGTERM)
    try:
        server.wait(GRACE_S)
    except subprocess.TimeoutExpired:
        server.kill()


def is_free(port: int) -> bool:
    """Whether a server could listen on this port."""
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(("127.0.0.1", port))
        except OSError:
            return False
    return True


def _answers(url: str) -> bool:
    """Whether anything does at this address; what, and whether it wants a key, the command's own requests find out."""
    try:
        httpx.get(f"{url.rstrip('/')}/healthz", timeout=5)
    except httpx.ConnectError:
        return False
    except httpx.HTTPError:
        return True
    return True
