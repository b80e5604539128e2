"""Where work runs: this process' name among all workers, the slots of its devices, and the child processes in them."""

import json
import os
import secrets
import socket
import subprocess
import sys
import threading
import time
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pydantic import SecretStr

from app.config import Settings

THREADS = ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS", "NUMEXPR_NUM_THREADS")
REST = 5.0  # seconds between a spare's leaving and the start of the next
REPORT_WITHIN = 300.0  # seconds a child may take to load torch; a cold disk is slow


# ---------------------------------------------------------------- names of processes


def new_name() -> str:
    """This process' name: `{host and pid namespace}-{pid}-{start}-{random}`. Never the same twice, not even after a
    restart of the machine or of a container, where the pid is: two executors of one name would strand jobs."""
    return f"{place()}-{os.getpid()}-{_started(os.getpid())}-{secrets.token_hex(3)}"


def place() -> str:
    """The host and the pid namespace in which this process' pids mean something."""
    try:
        space = f"{os.stat('/proc/self/ns/pid').st_ino:x}"
    except OSError:  # not Linux
        space = "0"
    return f"{socket.gethostname()}.{space}"


def is_gone(name: str) -> bool:
    """Whether the process of this name is known to be gone. False for another host's, about which nothing is known."""
    where, pid, started, _ = name.rsplit("-", 3)
    return where == place() and _started(int(pid)) != started


def _started(pid: int) -> str:
    """When a process started, in ticks since boot; "" when there is none or it is a zombie."""
    try:
        stat = Path(f"/proc/{pid}/stat").read_text()
    except OSError:
        return "" if Path("/proc/self/stat").exists() else _exists(pid)
    state, *rest = stat.rpartition(")")[2].split()
    return "" if state in "ZX" else rest[18]


def _exists(pid: int) -> str:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return ""
    except PermissionError:
        return "1"
    return "1"


def starved() -> int | None:
    """How many processes the system has ended for want of memory since it started; None where it does not say."""
    with suppress(OSError, ValueError):
        counts = dict(line.split() for line in Path("/proc/vmstat").read_text().splitlines())
        return int(counts["oom_kill"]) if "oom_kill" in counts else None
    return None


# ---------------------------------------------------------------- slots


@dataclass(frozen=True)
class Slot:
    """Room for one job on one device. `device` is what `models.Run` takes: cpu, cuda:0, mps."""

    device: str
    number: int

    @property
    def name(self) -> str:
        return f"{self.device}#{self.number}"


def slots_of(devices: list[dict[str, Any]], wanted: str, each: int) -> list[Slot]:
    """`each` slots on every device of the wanted kind; `auto`: every CUDA device, else MPS, else the CPU.
    Raises ValueError when the wanted kind is not there."""
    kinds = ("cuda", "mps", "cpu") if wanted == "auto" else (wanted,)
    for kind in kinds:
        names = [device["name"] for device in devices if device["kind"] == kind]
        if names:
            return [Slot(name, number) for number in range(each) for name in names]
    found = ", ".join(device["name"] for device in devices) or "none"
    raise ValueError(f"device: expected one of kind {wanted}, found {found}")


def cores() -> int:
    """Cores this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


# ---------------------------------------------------------------- children


def environment(settings: Settings, threads: int) -> dict[str, str]:
    """The environment of a child: this process', the settings in force, and so many threads for number crunching (which
    the libraries read when they are loaded, so not later)."""
    made = dict(os.environ)
    for name, value in settings.model_dump(exclude_defaults=True).items():
        plain = value.get_secret_value() if isinstance(value, SecretStr) else value
        made[f"GATECAST_{name.upper()}"] = json.dumps(plain) if isinstance(plain, tuple) else str(plain)
    made["GATECAST_DATA"] = str(settings.data.absolute())
    quiet = {name: str(threads) for name in THREADS}
    # Threads that wait by spinning cost a busy machine three to five times the time of the work itself.
    quiet["OMP_WAIT_POLICY"] = "PASSIVE"
    return made | {name: value for name, value in quiet.items() if name not in os.environ}


class Spares:
    """Keeps one child ready that has loaded torch, which takes seconds, and waits for its job on standard input."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._lock = threading.Lock()
        self._spare: subprocess.Popen[bytes] | None = None
        self._closed = False
        self._taken_at = 0.0
        self.threads = max(1, cores() // settings.slots)

    def report(self) -> list[dict[str, Any]]:
        """The devices here, as a child of ours sees them (`models.devices`). The child stays as the spare unless it has
        touched a GPU to tell, whose memory it would hold. Raises RuntimeError when torch cannot be loaded."""
        child = self._start("--report", stdout=subprocess.PIPE)
        stdout = child.stdout
        assert stdout is not None
        watchdog = threading.Timer(REPORT_WITHIN, child.kill)
        watchdog.start()
        line = stdout.readline()
        watchdog.cancel()
        stdout.close()
        if not line:
            child.kill()
            raise RuntimeError(f"the worker's child process could not load torch (exit status {child.wait()})")
        devices: list[dict[str, Any]] = json.loads(line)
        if any(device["kind"] == "cuda" for device in devices):
            end(child, 10.0)
        else:
            self._spare = child
        return devices

    def take(self, order: dict[str, Any]) -> subprocess.Popen[bytes]:
        """A child that has been given its order."""
        with self._lock:
            child, self._spare = self._spare, None
            self._taken_at = time.monotonic()
            if child is None or child.poll() is not None:
                child = self._start()
            self._give(child, order)
            return child

    def _give(self, child: subprocess.Popen[bytes], order: dict[str, Any]) -> None:
        assert child.stdin is not None
        with suppress(BrokenPipeError):  # it has died just now: the caller sees it end
            child.stdin.write(json.dumps(order).encode() + b"\n")
            child.stdin.flush()

    def light(self, order: dict[str, Any]) -> subprocess.Popen[bytes]:
        """A child without torch, for an order that needs none: the spare stays for one that does."""
        child = self._start("--light")
        self._give(child, order)
        return child

    def refill(self) -> None:
        """Start the next spare, a while after the last one was taken: loading torch would slow the job that begins."""
        with self._lock:
            if not self._closed and self._spare is None and time.monotonic() - self._taken_at > REST:
                self._spare = self._start()

    def close(self) -> None:
        with self._lock:
            self._closed = True
            if self._spare is not None:
                end(self._spare, 0.0)

    def _start(self, *arguments: str, stdout: int | None = None) -> subprocess.Popen[bytes]:
        return subprocess.Popen(
            [sys.executable, "-P", "-m", "app.worker.child", *arguments],  # -P: not some other `app` in the folder
            env=environment(self._settings, self.threads),
            stdin=subprocess.PIPE,
            stdout=stdout,
        )


def end(child: subprocess.Popen[bytes], patience: float) -> None:
    """Ask a child to stop, and after `patience` seconds make it."""
    if child.poll() is None:
        child.terminate()
        deadline = time.monotonic() + patience
        while child.poll() is None and time.monotonic() < deadline:
            time.sleep(0.02)
    if child.poll() is None:
        child.kill()
    child.wait()
    if child.stdin is not None:
        with suppress(BrokenPipeError):
            child.stdin.close()
