"""Tables and numbers for people, JSON for programs."""

import json
import sys
from collections.abc import Mapping, Sequence
from typing import Any

from rich import box
from rich.markup import escape
from rich.table import Table

from app.cli.root import out

# Metric -> how a person reads it. Lower is better but for the coverages, which should be what they say.
METRICS = {
    "mase": "MASE",
    "smape": "sMAPE, %",
    "owa": "OWA, over Naive2's",
    "mae": "MAE, in units of the data",
    "rmse": "RMSE, in units of the data",
    "wql": "Weighted quantile loss",
    "coverage_80": "Share inside the 80 % interval",
    "interval_80": "Interval score of 80 %",
    "msis_80": "MSIS of the 80 % interval",
}
NO_BASELINE: dict[str, float] = {}


def print_json(document: Any) -> None:
    """One JSON document on standard output."""
    json.dump(document, sys.stdout, indent=2, ensure_ascii=False)
    sys.stdout.write("\n")


def table(title: str | None, columns: Sequence[str], rows: Sequence[Sequence[object]]) -> None:
    """A table. A column whose name starts with `>` holds numbers and is aligned right; one with `=` is never folded."""
    _title(title)
    made = Table(box=box.SIMPLE_HEAD, pad_edge=False)
    for name in columns:
        right = name.startswith(">")
        made.add_column(
            name.lstrip(">="), justify="right" if right else "left", overflow="fold", no_wrap=name.startswith("=")
        )
    for row in rows:
        made.add_row(*(escape(text(cell)) for cell in row))
    out.print(made, highlight=False)


def facts(title: str, pairs: Mapping[str, object]) -> None:
    """Names and values, one a line; what is None is left out."""
    _title(title)
    made = Table(box=None, show_header=False, pad_edge=False)
    made.add_column(style="dim")
    made.add_column(overflow="fold")
    for name, value in pairs.items():
        if value is not None:
            made.add_row(name, escape(text(value)))
    out.print(made, highlight=False)


def _title(title: str | None) -> None:
    if title:
        out.print(title, style="bold", highlight=False, markup=False)


def text(value: object) -> str:
    """A cell: four significant digits for numbers with a fraction, thousands apart, nothing for None."""
    match value:
        case None:
            return ""
        case bool():
            return "yes" if value else "no"
        case int():
            return f"{value:,}"
        case float():
            return number(value)
        case _:
            return str(value)


def number(value: float | None) -> str:
    """At least four significant digits."""
    if value is None:
        return "–"
    if abs(value) >= 1000:
        return f"{value:,.0f}"
    return f"{value:.4g}"


def leaderboard(version: Mapping[str, Any]) -> None:
    """A version's scores on its held-out origins, beside those of the naive forecasts on the same ones."""
    own: dict[str, float] = version["metrics"]
    baselines: dict[str, dict[str, float]] = version["baselines"]
    ours = f"{version['model']}/{version['version']}"
    rows: list[list[object]] = []
    for metric in [name for name in METRICS if name in own] + [name for name in own if name not in METRICS]:
        figures = [baselines.get(name, NO_BASELINE).get(metric) for name in baselines]
        rows.append([METRICS.get(metric, metric), number(own[metric]), *map(number, figures)])
    names = [f">{name.replace('_', ' ')}" for name in baselines]
    table("Leaderboard, on origins held out from training", ["=", f">{ours}", *names], rows)
    if (verdict := _verdict(own, baselines)) is not None:
        out.print(verdict, highlight=False)


def _verdict(own: Mapping[str, float], baselines: Mapping[str, Mapping[str, float]]) -> str | None:
    best = min((scores["mase"] for scores in baselines.values() if scores.get("mase")), default=None)
    if best is None or own.get("mase") is None:
        return None
    better = 1 - own["mase"] / best
    if better > 0:
        return f"Its error is [bold green]{better:.0%} below[/] the best naive forecast's (MASE)."
    return f"Its error is [bold yellow]{-better:.0%} above[/] the best naive forecast's on these origins (MASE)."
