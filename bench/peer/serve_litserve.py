"""The network behind LitServe: `python serve_litserve.py --port 9000 --row next|horizon`, one worker, the fast queue,
access log off. MODE=batch gathers up to 32 requests within a millisecond."""

import argparse
import os

import litserve
import network
import numpy as np

GATHERED = {"max_batch_size": 32, "batch_timeout": 0.001} if os.environ.get("MODE") == "batch" else {}


class Horizon(litserve.LitAPI):
    def setup(self, device: str) -> None:
        self.forward, self.series = network.forward(), network.stored()

    def decode_request(self, request: dict) -> np.ndarray:
        return self.series[request["series"]] if "series" in request else np.array(request["context"], np.float64)

    def batch(self, inputs: list[np.ndarray]) -> np.ndarray:
        return np.stack(inputs)

    def predict(self, x: np.ndarray) -> np.ndarray:
        return self.forward(x) if x.ndim == 2 else self.forward(x[None])[0]

    def unbatch(self, output: np.ndarray) -> list[np.ndarray]:
        return list(output)

    def encode_response(self, output: np.ndarray) -> dict:
        return {"forecast": output.tolist()}


class Next(Horizon):
    def encode_response(self, output: np.ndarray) -> dict:
        return {"0.1,0.5,0.9": output[0, list(network.SHOWN)].tolist()}


if __name__ == "__main__":
    parser = argparse.ArgumentParser()
    parser.add_argument("--port", type=int, required=True)
    parser.add_argument("--row", choices=("next", "horizon"), required=True)
    options = parser.parse_args()
    kind = Next if options.row == "next" else Horizon
    server = litserve.LitServer(kind(api_path=f"/{options.row}", **GATHERED), accelerator="cpu", fast_queue=True)
    server.run(host="127.0.0.1", port=options.port, generate_client_file=False, log_level="warning", access_log=False)
