"""The forecasting core's front door: the only names the service may use, loaded when first touched (PEP 562), so that
`import models` loads neither torch nor onnxruntime."""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from models.backtesting import backtest
    from models.calendar import Calendar, Frequency
    from models.config import BacktestPlan, BacktestResult, Progress, Run, Stopped, TrainConfig, TrainResult
    from models.device import devices
    from models.foreign import inspected
    from models.inference import OpenArtifact, base_folder, open_ahead, open_artifact
    from models.series import Column, Ends, Forecast, Note, Series, known_of, phases_of
    from models.spacing import StepsDiffer
    from models.training import train
    from models.warm import continued

_HOME = {
    "backtest": "backtesting",
    "Calendar": "calendar",
    "Frequency": "calendar",
    "BacktestPlan": "config",
    "BacktestResult": "config",
    "Progress": "config",
    "Run": "config",
    "TrainConfig": "config",
    "TrainResult": "config",
    "devices": "device",
    "inspected": "foreign",
    "OpenArtifact": "inference",
    "open_ahead": "inference",
    "open_artifact": "inference",
    "base_folder": "inference",
    "Column": "series",
    "Ends": "series",
    "Forecast": "series",
    "Note": "series",
    "Series": "series",
    "known_of": "series",
    "phases_of": "series",
    "StepsDiffer": "spacing",
    "Stopped": "config",
    "train": "training",
    "continued": "warm",
}

__all__ = [
    "BacktestPlan",
    "BacktestResult",
    "Calendar",
    "Column",
    "Ends",
    "Forecast",
    "Frequency",
    "Note",
    "OpenArtifact",
    "Progress",
    "Run",
    "Series",
    "StepsDiffer",
    "Stopped",
    "TrainConfig",
    "TrainResult",
    "backtest",
    "base_folder",
    "continued",
    "devices",
    "inspected",
    "known_of",
    "open_ahead",
    "open_artifact",
    "phases_of",
    "train",
]


def __getattr__(name: str) -> Any:
    if name not in _HOME:
        raise AttributeError(f"module 'models' has no attribute {name!r}")
    return getattr(import_module(f"models.{_HOME[name]}"), name)
