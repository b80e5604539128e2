"""The network behind MLflow's server: `python serve_mlflow.py FOLDER` writes a model there, then

    mlflow models serve -m FOLDER --env-manager local -p 9000

with uvloop and httptools in its environment (it installs neither) and its access log off."""

import sys
from pathlib import Path

import mlflow.pyfunc
import numpy as np


class Forecaster(mlflow.pyfunc.PythonModel):
    def load_context(self, context: object) -> None:
        import network

        self.forward, self.series, self.shown = network.forward(), network.stored(), list(network.SHOWN)

    def predict(self, context: object, model_input: object, params: object = None) -> np.ndarray:
        rows = np.asarray(model_input)
        if rows.dtype.kind in "OUS":
            return self.forward(self.series[str(rows.ravel()[0])][None])[0, 0, self.shown]
        return self.forward(rows)


mlflow.models.set_model(Forecaster())

if __name__ == "__main__":
    here = Path(__file__).resolve()
    beside = [str(here.with_name("network.py"))]
    mlflow.pyfunc.save_model(sys.argv[1], python_model=str(here), code_paths=beside, pip_requirements=["numpy"])
