"""GluonTS: DeepAR with the library's defaults."""

import logging
import tempfile
import warnings

import stage

warnings.filterwarnings("ignore")
logging.disable(logging.WARNING)

import numpy as np  # noqa: E402
import pandas as pd  # noqa: E402
import torch  # noqa: E402
from gluonts.dataset.common import ListDataset  # noqa: E402
from gluonts.torch import DeepAREstimator  # noqa: E402

PERIODS = {"MS": "M", "QS": "Q", "YS": "Y"}

torch.manual_seed(0)
np.random.seed(0)
asked = stage.options()
meta, train, test = stage.read(asked.folder)
train, gaps = stage.filled(train, int(meta["seasonality"]))
frequency = PERIODS.get(meta["freq"], meta["freq"])
rows = [
    {"start": pd.Period(part["ds"].iloc[0], freq=frequency), "target": part["y"].to_numpy(np.float32), "item_id": key}
    for key, part in train.groupby("unique_id", sort=False)
]
data = ListDataset(rows, freq=frequency)
with tempfile.TemporaryDirectory() as folder:
    quiet = {"accelerator": "cpu", "enable_progress_bar": False, "enable_model_summary": False, "logger": False}
    trainer = {**quiet, "default_root_dir": folder}
    made = DeepAREstimator(freq=frequency, prediction_length=int(meta["horizon"]), trainer_kwargs=trainer).train(data)
    trained = stage.cpu()
    parts = []
    places = dict(list(test.groupby("unique_id", sort=False)[["unique_id", "ds"]]))
    for forecast in made.predict(data):
        levels = {f"q{level}": forecast.quantile(level) for level in stage.DECILES}
        parts.append(places[forecast.item_id].assign(y_hat=levels["q0.5"], **levels))
parameters = sum(part.numel() for part in made.prediction_net.parameters())
stage.finish(asked.out, pd.concat(parts), trained, gaps_filled=gaps, parameters=parameters)
