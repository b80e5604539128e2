"""The yardstick of `footprint.py`: FastAPI, uvicorn and ONNX Runtime with the base's graph open, and nothing else.

    python bench/bare.py --port 9000

Answers every POST to / with the first quantiles of one window that it made up, one step ahead.
"""

import argparse
from pathlib import Path

import numpy as np
import onnxruntime
import orjson
import uvicorn
from fastapi import FastAPI, Response

GRAPH = Path(__file__).resolve().parents[1] / "models" / "base" / "forward.onnx"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--port", type=int, required=True)
    options = parser.parse_args()
    from models.tables import reach, tables_until  # arrays that the graph wants beside the window; numpy alone

    settings = onnxruntime.SessionOptions()
    settings.intra_op_num_threads = settings.inter_op_num_threads = 1
    session = onnxruntime.InferenceSession(str(GRAPH), settings, providers=["CPUExecutionProvider"])
    steps = reach(24, 168)
    window = {"context": np.sin(np.arange(steps) / 4)[None] + 2.0, "mask": np.ones((1, steps), np.float32)}
    window |= tables_until(24, 168, 1)
    app = FastAPI()

    @app.post("/")
    async def answer() -> Response:
        found = session.run(None, window)[0]
        return Response(orjson.dumps(found[0, 0].tolist()), media_type="application/json")

    session.run(None, window)
    uvicorn.run(app, host="127.0.0.1", port=options.port, access_log=False, log_level="warning")


if __name__ == "__main__":
    main()
