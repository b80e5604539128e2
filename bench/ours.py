"""The core's side of a comparison: read, train and export in this process alone, then forecast the test part.
Instead of a preset, `base` forecasts with no training at all.

    python bench/ours.py FOLDER --out forecasts.csv [--preset fast] [--set name=value ...]

Prints one line of JSON: `cpu_s` is what the process had used, from its start, when the version's folder was on disk
(import, reading, search, training and export), `peak_mb` its peak memory until then. What follows is not counted.
"""

import argparse
import json
import resource
import sys
import tempfile
from pathlib import Path
from typing import Any

import numpy as np

BASE = "base"  # in place of a preset: the pre-trained base, which is not trained


def settings(pairs: list[str]) -> dict[str, Any]:
    """name=value pairs as fields of a config: JSON where it is some, else text."""
    found: dict[str, Any] = {}
    for pair in pairs:
        name, _, value = pair.partition("=")
        try:
            found[name] = json.loads(value)
        except ValueError:
            found[name] = value
    return found


def usage() -> tuple[float, float]:
    """CPU seconds of this process and its ended children, and the peak memory of the largest of them in MB."""
    parts = [resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
    return sum(p.ru_utime + p.ru_stime for p in parts), max(p.ru_maxrss for p in parts) / 1024


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--preset", default="fast")
    parser.add_argument("--set", nargs="*", default=[], help="fields of TrainConfig, name=value")
    asked = parser.parse_args()

    sys.modules["pandas"] = None  # as where the product is installed; Arrow would load it where it can, 45 MB
    import sets  # here and not above: `settings` and `usage` are wanted where torch is not to be loaded yet

    from models import Run, TrainConfig, base_folder, open_artifact, train
    from models.metrics import DECILES

    data = sets.read(asked.folder)
    facts: dict[str, Any] = {}
    with tempfile.TemporaryDirectory(prefix="gatecast-ours-") as folder:
        artifact = base_folder()
        if asked.preset != BASE:
            config = TrainConfig(**{"preset": asked.preset, "horizon": data.horizon, **settings(asked.set)})
            result = train(data.train, data.calendar, config, Run(Path(folder)))
            artifact = result.artifact
            held_out = {name: round(value, 4) for name, value in result.metrics.items()}
            facts = {"parameters": result.parameters, "held_out": held_out, "reasons": result.reasons}
        cpu, peak = usage()
        opened = open_artifact(artifact).at(data.calendar)
        forecasts = [  # in parts: contexts of thousands of long series at once would be gigabytes
            opened.forecast(data.train[at : at + 2048], data.horizon, DECILES).quantiles
            for at in range(0, len(data.train), 2048)
        ]
    sets.write(asked.out, data, np.concatenate(forecasts))
    print(json.dumps({"cpu_s": round(cpu, 2), "peak_mb": round(peak), **facts}))


if __name__ == "__main__":
    main()
