"""The client's side of HTTP: one connection to a server, refusals as sentences, pages, and live events."""

import json
import os
import re
import time
from collections.abc import Generator, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx

from app.errors import CODES

REFUSED, UNREACHABLE = 1, 3
TRIES = 20  # times in a row that a broken stream of events is opened again
SHOWN = 10  # complaints printed of a refusal that has many


class Failed(Exception):
    """What ends a command: sentences for a person, and the exit status."""

    def __init__(self, *sentences: str, status: int = REFUSED, problem: dict[str, Any] | None = None) -> None:
        super().__init__(sentences[0])
        self.sentences = list(sentences)
        self.status = status
        self.problem = problem or {}


@contextmanager
def connect(url: str) -> Generator[httpx.Client]:
    """A client of the server at `url`, with the key from the environment. Raises Failed when none answers there."""
    key = _key()
    headers = {"Authorization": f"Bearer {key}"} if key else {}
    try:
        with httpx.Client(base_url=url.rstrip("/"), headers=headers, timeout=httpx.Timeout(120, connect=5)) as http:
            yield http
    except (httpx.ConnectError, httpx.ConnectTimeout):
        raise Failed(
            f"No server answers at {url}.",
            "Start one with `gatecast serve`, or say where it is with --url or GATECAST_URL.",
            status=UNREACHABLE,
        ) from None
    except (httpx.UnsupportedProtocol, httpx.InvalidURL):
        raise Failed(f"{url!r} is not a server's address; expected one like http://127.0.0.1:8000.", status=2) from None
    except httpx.TransportError as error:
        raise Failed(
            f"The connection to {url} broke: {str(error).rstrip('.') or type(error).__name__}.", status=UNREACHABLE
        ) from None


def _key() -> str | None:
    if key := os.environ.get("GATECAST_API_KEY"):
        return key
    path = os.environ.get("GATECAST_API_KEY_FILE")
    if not path:
        return None
    try:
        return Path(path).read_text(encoding="utf-8").strip()
    except OSError as error:
        raise Failed(f"GATECAST_API_KEY_FILE names {path!r}: {error.strerror}.", status=2) from None


def ask(http: httpx.Client, method: str, path: str, **sent: Any) -> Any:
    """The JSON of an answer. Raises Failed on a refusal."""
    return checked(http.request(method, path, **sent)).json()


def checked(answer: httpx.Response) -> httpx.Response:
    """The answer itself when the request succeeded. Raises Failed with the problem document's sentences."""
    if answer.is_success:
        return answer
    answer.read()
    try:
        problem = answer.json()
        sentences = _sentences(problem)
    except (ValueError, KeyError, TypeError, AttributeError):
        where = answer.request.url
        raise Failed(
            f"{where} answered {answer.status_code} {answer.reason_phrase}, not as Gatecast does.",
            "Is that the address of a Gatecast server?",
        ) from None
    if answer.status_code == 401:
        sentences = [sentences[0], "The client takes the key from GATECAST_API_KEY (or GATECAST_API_KEY_FILE)."]
    raise Failed(*sentences, problem=problem)


def failure(problem: dict[str, Any], first: str) -> Failed:
    """What a job's problem document says, after a first sentence."""
    return Failed(first, *_sentences(problem), problem=problem)


def _sentences(problem: dict[str, Any]) -> list[str]:
    """What is wrong, then where, then what to do next."""
    said = [str(problem["detail"])]
    complaints: list[dict[str, Any]] = problem.get("errors", [])
    for complaint in complaints[:SHOWN]:
        where = [f"line {complaint['row']}"] if "row" in complaint else []
        where += [f"column {complaint['column']}"] if "column" in complaint else []
        where += [complaint["pointer"]] if complaint.get("pointer") else []
        value = f" ({complaint['value_preview']})" if "value_preview" in complaint else ""
        hint = str(complaint.get("hint", "")).rstrip(".")
        hint = f"; {hint[0].lower()}{hint[1:]}" if hint else ""
        message = str(complaint["message"]).rstrip(".")
        if where or message not in said[0]:  # the only complaint about the whole of a file is the detail
            said.append(f"{', '.join(where)}{': ' if where else ''}{message}{value}{hint}.")
    if (more := problem.get("error_count", 0) - len(complaints[:SHOWN])) > 0:
        said.append(f"… and {more} more.")
    code = str(problem["type"]).rpartition("#")[2]
    if not complaints and code in CODES:
        said.append(CODES[code].next_step)
    return [_as_options(text) for text in said]


def _as_options(text: str) -> str:
    """A hint of the API's as one of the command line's: `pass time_column=` as `pass --time-column`."""
    return _PARAMETER.sub(lambda found: f"{found[1]} --{found[2].replace('_', '-')}{' ' if found[3] else ''}", text)


_PARAMETER = re.compile(r"\b(pass|send|with|or) ([a-z]+(?:_[a-z]+)*?)(?:_columns)?=(?=(\w)?)")


def pages(http: httpx.Client, path: str, noun: str, most: int, **query: Any) -> list[dict[str, Any]]:
    """The first `most` entries of a list, over as many pages as that takes."""
    found: list[dict[str, Any]] = []
    token: str | None = None
    while len(found) < most:
        params = {name: value for name, value in {**query, "page_token": token}.items() if value is not None}
        page = ask(http, "GET", path, params={**params, "page_size": min(1000, most - len(found))})
        found += page[noun]
        token = page["next_page_token"]
        if token is None:
            break
    return found


@dataclass(frozen=True)
class Event:
    """One server-sent event."""

    id: str
    kind: str
    data: dict[str, Any]


def follow(http: httpx.Client, job: str) -> Iterator[Event]:
    """The events of a job until it is done. A broken connection is opened again after the last event received."""
    last: str | None = None
    failures = 0
    while True:
        try:
            headers = {"Last-Event-ID": last} if last else {}
            with http.stream("GET", f"/v1/jobs/{job}/events", headers=headers, timeout=60) as answer:
                for event in _events(checked(answer)):
                    last, failures = event.id or last, 0  # one without an id is not to go on from
                    yield event
                    if event.kind == "done":
                        return
            failures += 1
        except httpx.TransportError:
            failures += 1
            if failures >= TRIES:
                raise
        if failures >= TRIES:
            raise Failed("The server keeps ending the stream of events before the job is done.", status=UNREACHABLE)
        time.sleep(min(0.2 * 2**failures, 5.0))


def _events(answer: httpx.Response) -> Iterator[Event]:
    """Server-sent events from an open stream (WHATWG HTML, section 9.2, the fields this server sends)."""
    fields: dict[str, str] = {}
    for line in answer.iter_lines():
        if not line:
            if "data" in fields:
                yield Event(fields.get("id", ""), fields.get("event", "message"), json.loads(fields["data"]))
            fields = {}
            continue
        name, _, value = line.partition(":")
        value = value.removeprefix(" ")
        if name:
            fields[name] = f"{fields[name]}\n{value}" if name == "data" and name in fields else value
