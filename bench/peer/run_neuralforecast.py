"""NeuralForecast: GRU or LSTM with the library's defaults, or GRU-tuned: context 168 (seven days of hours; seven
seasons elsewhere), nine quantiles, robust scaling, 1,500 steps with a falling rate."""

import logging
import warnings

import stage

warnings.filterwarnings("ignore")
for name in ("pytorch_lightning", "lightning.pytorch", "lightning_fabric"):
    logging.getLogger(name).setLevel(logging.ERROR)

from neuralforecast import NeuralForecast, models  # noqa: E402
from neuralforecast.losses.pytorch import MQLoss  # noqa: E402

asked = stage.options()
meta, train, test = stage.read(asked.folder)
season, horizon = int(meta["seasonality"]), int(meta["horizon"])
train, gaps = stage.filled(train, season)
kind, _, tuned = asked.model.partition("-")
settings = {
    "h": horizon,
    "accelerator": "cpu",
    "enable_progress_bar": False,
    "enable_model_summary": False,
    "enable_checkpointing": False,
    "logger": False,
}
if tuned:
    settings |= {"input_size": 7 * season, "scaler_type": "robust", "learning_rate": 1e-3, "num_lr_decays": 3}
    settings |= {"max_steps": 1500, "loss": MQLoss(quantiles=stage.DECILES)}
if train.groupby("unique_id", sort=False).size().min() < settings.get("input_size", 3 * horizon) + horizon:
    settings["start_padding_enabled"] = True
net = getattr(models, kind)(**settings)
library = NeuralForecast(models=[net], freq=meta["freq"])
library.fit(df=train)
trained = stage.cpu()
forecast = library.predict()
forecast = forecast if "unique_id" in forecast else forecast.reset_index()
found = forecast[["unique_id", "ds"]].copy()
for level in stage.DECILES if tuned else ():
    found[f"q{level}"] = forecast[f"{kind}-median" if level == 0.5 else f"{kind}_ql{level}"]
found["y_hat"] = found["q0.5"] if tuned else forecast[kind]
parameters = sum(part.numel() for part in net.parameters())
stage.finish(asked.out, found, trained, gaps_filled=gaps, parameters=parameters)
