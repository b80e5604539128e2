"""Import of the core's answering half in a fresh process, beside numpy and ONNX Runtime alone.

    python bench/import_time.py [--repeats 15] [--out FILE]

Each process times its own imports, the interpreter's start is not counted; CPU seconds are what a busy machine cannot
stretch much. A first run of each, which may still compile
or come from a cold disk, is thrown away. Ends with 1 when the median is over 0.4 s, or torch or pandas was loaded.
"""

import argparse
import json
import statistics
import subprocess
import sys
from pathlib import Path

import runs

ROOT = Path(__file__).resolve().parents[1]
BAR_S, REACH_S = 0.4, 0.2
CODE = """
import json, sys, time
began, used = time.perf_counter(), time.process_time()
{imports}
seconds = [time.perf_counter() - began, time.process_time() - used]
heavy = [name for name in ("torch", "pandas", "scipy", "onnx", "pyarrow") if name in sys.modules]
print(json.dumps([seconds, heavy, len(sys.modules)]))
"""
IMPORTS = {
    "models.inference": "import models.inference",
    "numpy, onnxruntime": "import numpy, onnxruntime",
    "numpy": "import numpy",
}


def once(imports: str) -> tuple[list[float], list[str], int]:
    """Seconds and CPU seconds of the imports, which heavy libraries they brought, and the number of modules."""
    ask = [sys.executable, "-c", CODE.format(imports=imports)]
    done = subprocess.run(ask, cwd=ROOT, capture_output=True, text=True, check=True)
    seconds, heavy, count = json.loads(done.stdout)
    return seconds, heavy, count


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--repeats", type=int, default=15)
    parser.add_argument("--out", type=Path, help="write the figures as JSON")
    asked = parser.parse_args()
    # In turns, so that a busy moment falls on all alike.
    tries = [{name: once(code) for name, code in IMPORTS.items()} for _ in range(asked.repeats + 1)][1:]
    rows = {}
    print(f"{'import':24s}{'best s':>9s}{'median s':>10s}{'CPU s':>8s}{'modules':>9s}  heavy ones")
    for name in IMPORTS:
        seconds, used = zip(*(one[name][0] for one in tries), strict=True)
        _, heavy, count = tries[0][name]
        rows[name] = {"best_s": round(min(seconds), 3), "median_s": round(statistics.median(seconds), 3)}
        rows[name] |= {"cpu_s": round(statistics.median(used), 3), "modules": count, "heavy": heavy}
        times = f"{min(seconds):9.3f}{statistics.median(seconds):10.3f}{statistics.median(used):8.3f}"
        print(f"{name:24s}{times}{count:9d}  {', '.join(heavy) or 'none'}")
    ours, bare = rows["models.inference"], rows["numpy, onnxruntime"]
    ratio = ours["median_s"] / bare["median_s"]
    print(f"{ratio:.2f} times numpy and ONNX Runtime alone; bar {BAR_S} s, reach for {REACH_S} s")
    runs.publish(asked.out, rows=rows, ratio=round(ratio, 3))
    fine = ours["median_s"] <= BAR_S and not {"torch", "pandas"} & set(ours["heavy"])
    print("the bar is met" if fine else "THE BAR WAS MISSED")
    sys.exit(not fine)


if __name__ == "__main__":
    main()
