"""The network behind BentoML: `bentoml serve serve_bentoml:Forecaster --port 9000`, one worker, async routes on its
loop, access log and metrics off. MODE=batch lets it gather requests for the forecast of history that is sent."""

import os

import bentoml
import network
import numpy as np

BATCH = {"batchable": True, "max_batch_size": 64, "max_latency_ms": 1000} if os.environ.get("MODE") == "batch" else {}
QUIET = {"logging": {"access": {"enabled": False}}, "metrics": {"enabled": False}}


@bentoml.service(workers=1, **QUIET)
class Forecaster:
    def __init__(self) -> None:
        self.forward, self.series = network.forward(), network.stored()

    @bentoml.api(**BATCH)
    async def horizon(self, context: np.ndarray) -> np.ndarray:
        return self.forward(context)

    @bentoml.api
    async def next(self, series: str) -> dict[str, list[float]]:
        return {"0.1,0.5,0.9": self.forward(self.series[series][None])[0, 0, list(network.SHOWN)].tolist()}
