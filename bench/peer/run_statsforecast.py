"""statsforecast: one of its models on one data set, in two processes. Fit and forecast are one pass there."""

import stage
from statsforecast import StatsForecast, models

asked = stage.options()
meta, train, test = stage.read(asked.folder)
season, horizon = int(meta["seasonality"]), int(meta["horizon"])
train, gaps = stage.filled(train, season)
model = getattr(models, asked.model)(season_length=season)
forecast = StatsForecast(models=[model], freq=meta["freq"], n_jobs=2).forecast(
    df=train, h=horizon, level=[20, 40, 60, 80]
)
trained = stage.cpu()
found = forecast[["unique_id", "ds"]].assign(y_hat=forecast[asked.model])
for level in stage.DECILES:
    width = round(abs(1 - 2 * level) * 100)
    side = "lo" if level < 0.5 else "hi"
    column = asked.model if width == 0 else f"{asked.model}-{side}-{width}"
    if column in forecast:
        found[f"q{level}"] = forecast[column]
# A model that failed on a series answers NaN there; the last value stands in, and their number is told.
last = train.groupby("unique_id", sort=False)["y"].last()
missing = int(found["y_hat"].isna().sum())
for column in found.columns[2:]:
    found[column] = found[column].fillna(found["unique_id"].map(last))
stage.finish(asked.out, found, trained, gaps_filled=gaps, values_missing=missing)
