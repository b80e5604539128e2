"""A line between processes that can be cut: a TCP proxy that passes everything on, drops everything, or freezes."""

import asyncio
import contextlib
import threading

from server import free_port


class Line:
    """A way to `target` (host, port) through `port` of this machine. `mode`: open, frozen (bytes are taken and not
    passed on, new connections too, as behind a cable that was pulled), or dropped (connections are reset)."""

    def __init__(self, target: tuple[str, int]) -> None:
        self.target, self.port, self.mode = target, free_port(), "open"
        self.loop = asyncio.new_event_loop()
        self.open: set[asyncio.StreamWriter] = set()
        self._thawed = asyncio.Event()
        self._thawed.set()
        ready = threading.Event()
        threading.Thread(target=self._run, args=(ready,), daemon=True).start()
        ready.wait()

    def cut(self, mode: str) -> None:
        """`frozen` or `dropped`, until `mend`."""
        self.loop.call_soon_threadsafe(self._cut, mode)

    def mend(self) -> None:
        """Pass on what was kept and what comes, and reset what was frozen: its ends have long given up."""
        self.loop.call_soon_threadsafe(self._mend)

    def _run(self, ready: threading.Event) -> None:
        asyncio.set_event_loop(self.loop)
        serving = asyncio.start_server(self._serve, "127.0.0.1", self.port)
        self.loop.run_until_complete(serving)
        ready.set()
        self.loop.run_forever()

    def _cut(self, mode: str) -> None:
        self.mode = mode
        self._thawed.clear()
        if mode == "dropped":
            for writer in self.open:
                writer.transport.abort()

    def _mend(self) -> None:
        self.mode = "open"
        self._thawed.set()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.open.add(writer)
        try:
            if self.mode == "dropped":
                writer.transport.abort()
                return
            await self._thawed.wait()
            there, here = await asyncio.open_connection(*self.target)
            self.open.add(here)
            await asyncio.gather(self._pass(reader, here), self._pass(there, writer))
        except OSError:
            writer.transport.abort()

    async def _pass(self, source: asyncio.StreamReader, sink: asyncio.StreamWriter) -> None:
        with contextlib.suppress(OSError):
            while part := await source.read(65536):
                await self._thawed.wait()
                sink.write(part)
                await sink.drain()
        with contextlib.suppress(OSError):
            sink.close()
        self.open.discard(sink)
