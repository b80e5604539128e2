"""A small plot in the terminal: the last of the history, the forecast after it, its interval."""

# plotext has no types of its own.
# pyright: reportMissingTypeStubs=false, reportUnknownMemberType=false

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from app.cli.root import out

HEIGHT, WIDEST = 17, 110
BAND_EVERY = 4  # columns of the interval drawn for each step


@dataclass(frozen=True)
class Fan:
    """What is drawn: `history` (time,) and its last time, then `middle`, `low` and `high` (horizon,) and their last."""

    title: str
    history: Sequence[float | None]
    middle: Sequence[float]
    low: Sequence[float]
    high: Sequence[float]
    times: tuple[str, str, str]  # of the first value of the history, of its last, of the last forecast


def drawn(fan: Fan) -> str:
    """The plot as text. The last known value is where both lines meet."""
    import plotext  # not for every command: it takes as long to load as all the rest

    history, middle = fan.history, fan.middle
    known = [(place - len(history) + 1, value) for place, value in enumerate(history) if value is not None]
    figure: Any = plotext.figure  # the library keeps one figure for the process
    figure.clear()
    figure.theme("colorless")  # the default one paints a white background, whatever the terminal's is
    figure.plot_size(min(out.width, WIDEST), HEIGHT)
    figure.title(fan.title)
    start = [known[-1]] if known else []
    ahead = list(range(1, len(middle) + 1))
    for x, low, high in _columns(ahead, fan.low, fan.high):
        figure.draw(figure.segment((x, x), (low, high), marker=plotext.marker("░", "orange")))
    for points in _runs(known):
        _line(figure, points, plotext.marker("braille", "cyan"))
    _line(figure, [*start, *zip(ahead, middle, strict=True)], plotext.marker("braille", "red"))
    places = [1 - len(history), 0, len(middle)]
    figure.ruler("x").ticks(places, list(fan.times))
    text: str = figure.build().string()
    return text if out.is_terminal else str(plotext.uncolorize(text))  # pyright: ignore[reportUnknownArgumentType]


def _columns(ahead: Sequence[int], low: Sequence[float], high: Sequence[float]) -> list[tuple[float, float, float]]:
    """The interval at each step, and between two steps so closely that it looks filled."""
    found: list[tuple[float, float, float]] = []
    for place in range(len(ahead) - 1):
        for part in range(BAND_EVERY):
            share = part / BAND_EVERY
            found.append(
                (
                    ahead[place] + share,
                    low[place] + share * (low[place + 1] - low[place]),
                    high[place] + share * (high[place + 1] - high[place]),
                )
            )
    return [*found, (ahead[-1], low[-1], high[-1])]


def _runs(points: Sequence[tuple[int, float]]) -> list[list[tuple[int, float]]]:
    """The points cut where a step is missing, so that a gap is seen as one."""
    runs: list[list[tuple[int, float]]] = []
    for point in points:
        if runs and runs[-1][-1][0] == point[0] - 1:
            runs[-1].append(point)
        else:
            runs.append([point])
    return runs


def _line(figure: Any, points: Sequence[tuple[float, float]], marker: Any) -> None:
    figure.draw(figure.signal([x for x, _ in points], [y for _, y in points], marker=marker).lines(True))
