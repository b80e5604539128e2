"""Lines of the log: how they are written and what they say."""

import asyncio
import io
import logging
import threading
from collections.abc import Iterator

import pytest

from app.http import logs

log = logging.getLogger("gatecast.test")


class Written(io.StringIO):
    """A stream that remembers each write."""

    def __init__(self) -> None:
        super().__init__()
        self.writes: list[str] = []

    def write(self, text: str) -> int:
        self.writes.append(text)
        return super().write(text)


@pytest.fixture(params=["text", "json"])
def written(request: pytest.FixtureRequest) -> Iterator[Written]:
    root = logging.getLogger()
    handlers, level = root.handlers[:], root.level
    stream = Written()
    logs.configure("info", request.param)
    handler = root.handlers[0]
    assert isinstance(handler, logs.Lines)
    handler.setStream(stream)
    yield stream
    root.handlers[:] = handlers
    root.setLevel(level)


def test_lines_of_a_turn_are_written_in_one_go(written: Written) -> None:
    async def turn() -> None:
        for place in range(3):
            log.info("line %d", place)
        assert written.writes == []
        await asyncio.sleep(0)
        assert len(written.writes) == 1
        assert [f"line {place}" in line for place, line in enumerate(written.writes[0].splitlines())] == [True] * 3

    asyncio.run(turn())


def test_a_warning_is_written_at_once_with_all_before_it(written: Written) -> None:
    async def turn() -> None:
        log.info("before")
        log.warning("now")
        assert [line.count("before") + 2 * line.count("now") for line in written.getvalue().splitlines()] == [1, 2]
        await asyncio.sleep(0)
        assert len(written.writes) == 1

    asyncio.run(turn())


def test_without_an_event_loop_each_line_is_written_at_once(written: Written) -> None:
    log.info("first")
    assert "first" in written.getvalue()
    other = threading.Thread(target=log.info, args=("second",))
    other.start()
    other.join()
    assert "second" in written.getvalue()


def test_what_is_left_is_written_when_the_process_ends(written: Written) -> None:
    async def turn() -> None:
        log.info("last")
        asyncio.get_running_loop().stop()

    loop = asyncio.new_event_loop()
    task = loop.create_task(turn())
    loop.call_soon(loop.stop)
    loop.run_forever()
    assert task.done()
    logging.getLogger().handlers[0].flush()  # as `logging` does at the end
    loop.close()
    assert written.getvalue().count("last") == 1


def test_a_loop_that_ended_early_holds_up_no_other(written: Written) -> None:
    async def turn(text: str) -> None:
        log.info(text)

    ended = asyncio.new_event_loop()
    task = ended.create_task(turn("first"))
    ended.call_soon(ended.stop)
    ended.run_forever()
    ended.close()
    assert task.done()
    asyncio.run(turn("second"))
    assert [text in line for text, line in zip(("first", "second"), written.getvalue().splitlines(), strict=True)] == [
        True,
        True,
    ]


def test_a_request_line_is_the_same_with_and_without_a_record(written: Written) -> None:
    logs.tell(log, logging.INFO, "200 GET /a\nb", {"client": "::1", "ms": 1.5})
    logs.tell(log, logging.DEBUG, "unseen", {})
    logging.getLogger().addHandler(logging.NullHandler())  # somebody beside us listens
    logs.tell(log, logging.INFO, "200 GET /a\nb", {"client": "::1", "ms": 1.5})
    first, second = written.getvalue().splitlines()
    clock = 19 if first.startswith("2") else len('{"time":"2026-01-01T00:00:00.000+00:00"')
    assert first[clock:] == second[clock:]
    assert "\\n" in first
    assert "unseen" not in first + second


def test_a_closed_stream_harms_nobody(written: Written) -> None:
    written.close()
    log.info("nobody reads this")
