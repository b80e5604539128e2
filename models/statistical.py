"""Statistical baselines of `statsforecast`, an extra that is loaded only when one is asked for (it takes seconds, and
brings pandas). Each is fitted anew at every origin to all steps before it, which takes from hundredths of a second to
minutes a window: they are for a comparison, not for every night."""

# what it brings has no annotations:
# pyright: reportMissingTypeStubs=false, reportMissingImports=false, reportMissingModuleSource=false
# pyright: reportUnknownMemberType=false, reportUnknownVariableType=false, reportUnknownArgumentType=false

import time
import warnings
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from importlib.util import find_spec
from typing import Any

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]

CLASSES = {"auto_ets": "AutoETS", "auto_theta": "AutoTheta", "auto_arima": "AutoARIMA", "mstl": "MSTL"}
NAMES = tuple(CLASSES)
SECONDS = 1.0  # that one part of the windows may take, so that a stop is obeyed soon after
MOST = 256  # windows a part


def check(names: Sequence[str]) -> None:
    """Raises ModuleNotFoundError when a statistical baseline is among `names` and the extra is not installed."""
    asked = [name for name in names if name in CLASSES]
    if asked and find_spec("statsforecast") is None:
        raise ModuleNotFoundError(
            f"baselines: expected statsforecast to be installed where the jobs run, for {', '.join(asked)}; got none. "
            "Install it there with  pip install 'gatecast[statistics]'  or leave them out"
        )


@dataclass(frozen=True)
class Method:
    """A statistical baseline: its name, the season and the horizon in steps, and the quantile levels it is asked for,
    which lie in pairs around the median."""

    name: str
    season: int
    horizon: int
    levels: tuple[float, ...]

    def forecasts(self, history: Callable[[int], Array], count: int) -> Iterator[tuple[slice, Array]]:
        """The quantiles after `history(0)` … `history(count - 1)`, each (time,) without gaps, some windows at a time:
        which, and (level, window, horizon); NaN where the method cannot be fitted."""
        import pandas
        from statsforecast import StatsForecast, models

        model = getattr(models, CLASSES[self.name])(season_length=self.season)
        engine: Any = StatsForecast(models=[model], freq=1, fallback_model=models.NaNModel())
        at, size = 0, 1
        while at < count:
            began = time.monotonic()
            part = slice(at, min(count, at + size))
            known = [history(place) for place in range(part.start, part.stop)]
            lengths = [len(one) for one in known]
            frame = pandas.DataFrame(
                {
                    "unique_id": np.repeat(np.arange(len(known)), lengths),
                    "ds": np.concatenate([np.arange(length) for length in lengths]),
                    "y": np.concatenate(known),
                }
            )
            with warnings.catch_warnings(), np.errstate(all="ignore"):
                warnings.simplefilter("ignore")
                found = engine.forecast(h=self.horizon, df=frame, level=self.shares)
            yield part, self._quantiles(found, len(known))
            took = time.monotonic() - began
            size = min(MOST, 2 * size) if took < SECONDS / 2 else size if took < SECONDS else max(1, size // 2)
            at = part.stop

    @property
    def shares(self) -> list[int | float]:
        """The central intervals whose ends are the levels below the median, in percent."""
        return [round(100 * (1 - 2 * level), 6) for level in self.levels if level < 0.5]

    def _quantiles(self, found: Any, windows: int) -> Array:
        """The mean as the median, and the ends of the intervals around it. They are put in order by their size: the
        names of some columns are not in the order of what they hold (AutoARIMA, 2.1.1)."""
        wanted = [name for name in found.columns if name not in ("unique_id", "ds")]
        points = [name for name in wanted if "-lo-" not in name and "-hi-" not in name]
        ends = np.sort(found[[name for name in wanted if name not in points]].to_numpy(np.float64), axis=1)
        half = ends.shape[1] // 2
        table = np.column_stack([ends[:, :half], found[points].to_numpy(np.float64), ends[:, half:]])
        quantiles = table.reshape(windows, self.horizon, -1).transpose(2, 0, 1)
        fitted = np.all(np.isfinite(quantiles), axis=(0, 2), keepdims=True)
        return np.where(fitted, quantiles, np.nan)
