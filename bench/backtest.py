"""What a backtest costs beside the forward passes it is made of.

python bench/backtest.py FOLDER [--origins 20] [--set name=value ...] [--rounds 5]

A forecaster is trained on the data set in FOLDER (see `sets.py`), then backtested at the origins beside naive, seasonal
naive and Naive2, with every score by horizon and series. The same windows go bare through the same graph, in batches of
64 to 1,024 and with one thread and as many as the backtest has; the fastest of these is what the backtest is measured
by. Best of the rounds, which take turns. Ends with 1 when the backtest takes more than 1.5 times as long."""

import argparse
import json
import sys
import tempfile
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import sets

from models import BacktestPlan, OpenArtifact, Run, TrainConfig, backtest, open_artifact, train
from models.backtesting import AHEAD

BAR = 1.5
BATCHES = (64, 128, 256, 512, 1024)


@dataclass
class Recorder:
    """A session that remembers what it was asked."""

    session: Any
    asked: list[dict[str, np.ndarray]] = field(default_factory=list)

    def run(self, names: None, feeds: dict[str, np.ndarray]) -> list[np.ndarray]:
        self.asked.append(feeds)
        return self.session.run(names, feeds)

    def windows(self) -> dict[str, np.ndarray]:
        return {name: np.concatenate([feeds[name] for feeds in self.asked]) for name in self.asked[0]}


def bare(opened: OpenArtifact, windows: dict[str, np.ndarray], batch: int, threads: int) -> None:
    """All windows through the graph, and nothing else."""
    count = len(next(iter(windows.values())))
    parts = [{name: array[at : at + batch] for name, array in windows.items()} for at in range(0, count, batch)]
    if threads == 1:
        for part in parts:
            opened.session.run(None, part)
        return
    with ThreadPoolExecutor(threads) as pool:
        list(pool.map(lambda part: opened.session.run(None, part), parts))


def measured(work: Callable[[], object]) -> tuple[float, float]:
    """Wall and CPU seconds."""
    wall, cpu = time.perf_counter(), time.process_time()
    work()
    return time.perf_counter() - wall, time.process_time() - cpu


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--origins", type=int, default=20)
    parser.add_argument("--set", nargs="*", default=["steps=60"], help="fields of TrainConfig, name=value")
    parser.add_argument("--rounds", type=int, default=5)
    asked = parser.parse_args()
    data = sets.read(asked.folder)
    config = settings(asked.set)
    with tempfile.TemporaryDirectory() as folder:
        run = Run(Path(folder), device="cpu")
        opened = open_artifact(
            train(data.train, data.calendar, TrainConfig(horizon=data.horizon, **config), run).artifact
        )
        plan = BacktestPlan(asked.origins, data.horizon, max(1, data.horizon // 4))
        recorder = Recorder(opened.session)
        backtest(replace(opened, session=recorder), data.train, plan)
        windows = recorder.windows()
        ways = [(batch, threads) for threads in sorted({1, AHEAD}) for batch in BATCHES]
        work: dict[Any, Callable[[], object]] = {way: lambda way=way: bare(opened, windows, *way) for way in ways}
        work["backtest"] = lambda: backtest(opened, data.train, plan)
        work["version alone"] = lambda: backtest(opened, data.train, replace(plan, baselines=()))
        best: dict[Any, tuple[float, float]] = dict.fromkeys(work, (np.inf, np.inf))
        for _ in range(asked.rounds):
            for name, what in work.items():
                best[name] = tuple(map(min, best[name], measured(what)))
    count = len(next(iter(windows.values())))
    shape = f"{opened.config.cell}, {opened.config.layers} x {opened.config.hidden}, context {opened.context}"
    print(f"{data.name}: {count:,} windows, {asked.origins} origins, {plan.horizon} steps ahead; {shape}")
    for name in work:
        label = name if isinstance(name, str) else f"bare, batch {name[0]}, {name[1]} thread{'s' * (name[1] > 1)}"
        print(f"  {label:28s} {best[name][0]:8.3f} s  {best[name][1]:8.3f} CPU s")
    wall, cpu = (min(best[way][place] for way in ways) for place in (0, 1))
    single = min(best[way][0] for way in ways if way[1] == 1)
    ratio = best["backtest"][0] / wall
    print(f"wall over the fastest bare one's {ratio:.2f} (bar {BAR}), of one thread {best['backtest'][0] / single:.2f}")
    print(f"CPU seconds {best['backtest'][1] / cpu:.2f} times, without baselines {best['version alone'][1] / cpu:.2f}")
    sys.exit(ratio > BAR)


def settings(pairs: list[str]) -> dict[str, Any]:
    """Fields of TrainConfig from `name=value`, the value as JSON or as it is."""
    found = {}
    for name, _, text in (pair.partition("=") for pair in pairs):
        try:
            found[name] = json.loads(text)
        except ValueError:
            found[name] = text
    return found


if __name__ == "__main__":
    main()
