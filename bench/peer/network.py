"""The network that the serving peers answer with: the ONNX graph of one of our versions, so that all compute the same.

`GRAPH` names the file. It reads `context` (window, 336) in float64 and `mask` in float32 and gives `quantiles` (window,
48, 9): what it costs to scale and to bound is inside, as with us.
"""

import os

import numpy as np
import onnxruntime

SERIES = 200
CONTEXT = 336
SHOWN = (0, 4, 8)  # the levels 0.1, 0.5 and 0.9


def forward():
    """A callable: windows (window, time) -> quantiles (window, step, level)."""
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    session = onnxruntime.InferenceSession(os.environ["GRAPH"], options, providers=["CPUExecutionProvider"])

    def call(windows: np.ndarray) -> np.ndarray:
        context = np.ascontiguousarray(windows, np.float64)
        return session.run(None, {"context": context, "mask": np.ones(context.shape, np.float32)})[0]

    call(np.ones((1, CONTEXT)))
    return call


def stored() -> dict[str, np.ndarray]:
    """Series of its own, in memory: a peer has no database to ask."""
    random = np.random.default_rng(1)
    day = 0.3 * np.sin(2 * np.pi * np.arange(CONTEXT) / 24)
    rows = random.uniform(50, 500, (SERIES, 1)) * (1 + day + 0.05 * random.standard_normal((SERIES, CONTEXT)))
    return {f"s{place}": row for place, row in enumerate(rows.round(2))}
