"""What this process has written and knows all about, told to whoever keeps what is stored in memory: a commit of one's
own need not make that worthless."""

import threading
from collections import deque

from app.services.contexts import Move

KEPT = 64  # moves that nobody has taken yet; who misses one looks at the database
WAIT_S = 0.002  # for the end of a commit that shows already


class Moves:
    """Commits on their way from the thread that writes to the one that reads."""

    def __init__(self, ending: threading.Lock) -> None:
        """`ending` is held from before a commit shows until it is added here."""
        self._ending = ending
        self._moves: deque[Move] = deque(maxlen=KEPT)

    def add(self, move: Move) -> None:
        self._moves.append(move)

    def taken(self) -> list[Move]:
        """Those that were added since the last call, for whoever sees that something was committed."""
        if self._ending.acquire(timeout=WAIT_S):  # a checkpoint of SQLite's log may be a part of the commit
            self._ending.release()
        found: list[Move] = []
        while self._moves:
            found.append(self._moves.popleft())
        return found
