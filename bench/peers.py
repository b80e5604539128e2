"""Our presets beside the libraries one would use instead, on one or more data sets, each a process of its own.

    python bench/peers.py --data FOLDER ... --scorer score.py [--peers NAME ...] [--environments FOLDER] [--again]

A name is `library model`, or a library for all of its models; without --peers it is everything. FOLDER and the scorer
are those of bench/m4.py. CPU seconds count from the start of the process to the end of training (for ours, to the
version on disk): import and reading, not prediction. Peers' results are kept under --environments (the user's cache)
and used again; the last column says which are from this run. Ends with 1 when one of our presets misses a bar.
"""

import argparse
import sys
from pathlib import Path
from typing import Any

import runs

COLUMNS = (("sMAPE", "8.2f"), ("MASE", "7.3f"), ("OWA", "7.3f"), ("wQL", "8.4f"), ("cov80", "7.1%"))
# preset -> field -> the most it may be, on M4 Hourly
M4_BARS = {
    "gatecast fast": {"OWA": 0.43, "cpu_s": 25.0, "wQL": 0.025},
    "gatecast balanced": {"OWA": 0.40, "cpu_s": 110.0, "wQL": 0.025},
    "gatecast thorough": {"OWA": 0.39, "MASE": 0.735, "wQL": 0.025},
}
STATISTICAL = ("statsforecast AutoETS", "statsforecast AutoTheta")
SHARE = 0.8  # of the data sets on which ours must be better than both of them


def table(data: str, rows: list[dict[str, Any]]) -> None:
    head = "".join(f"{name:>{form.split('.')[0]}}" for name, form in COLUMNS)
    print(f"\n{data:38s}{head}{'CPU s':>9s}{'whole':>9s}{'MB':>7s}{'load':>6s}  run")
    for row in rows:
        if "failed" in row:
            print(f"  {row['peer']:36s} {row['failed']}")
            continue
        cells = "".join(
            f"{row[name]:{form}}" if name in row else f"{'-':>{form.split('.')[0]}}" for name, form in COLUMNS
        )
        cost = f"{row['cpu_s']:9.1f}{row['whole_cpu_s']:9.1f}{row['peak_mb']:7d}{row['load']:6.1f}"
        print(f"  {row['peer']:36s}{cells}{cost}  {'this' if row['new'] else 'kept ' + row['date']}", flush=True)


def missed_bars(rows: list[dict[str, Any]]) -> list[str]:
    """Sentences on the bars of M4 Hourly that one of our presets misses."""
    return [
        f"{row['peer']}: {name} {row[name]:g} > {most:g}"
        for row in rows
        for name, most in M4_BARS.get(row["peer"], {}).items()
        if "failed" not in row and row[name] > most
    ]


def sharper(rows: list[dict[str, Any]]) -> list[str]:
    """Sentences on our presets whose wQL a peer is below."""
    known = [row for row in rows if "wQL" in row]
    theirs = [row for row in known if not row["peer"].startswith(runs.OURS)]
    found = []
    for row in (row for row in known if row["peer"].startswith(runs.OURS)):
        if names := ", ".join(peer["peer"] for peer in theirs if peer["wQL"] < row["wQL"]):
            found.append(f"{row['data']}: {row['peer']}: wQL {row['wQL']:g} is above that of {names}")
    return found


def verdict(preset: str, found: dict[str, dict[str, Any]]) -> tuple[bool, bool, str] | None:
    """Whether a preset is better than both statistical peers in MASE and wQL, and not worse than seasonal naive in
    MASE, with a sentence; None where something to compare with is missing."""
    naive = found.get("statsforecast SeasonalNaive", {})
    others = [found.get(name, {}) for name in STATISTICAL]
    ours = found.get(preset, {})
    if any("MASE" not in row for row in (ours, naive, *others)):
        return None
    mase, wql = (min(row.get(name, float("inf")) for row in others) for name in ("MASE", "wQL"))
    better = ours["MASE"] < mase and ours["wQL"] < wql
    sound = ours["MASE"] <= naive["MASE"]
    text = f"MASE {ours['MASE']:.3f} / {mase:.3f}, wQL {ours['wQL']:.4f} / {wql:.4f}, naive's {naive['MASE']:.3f}"
    return better, sound, f"{'better' if better else 'NOT better'}; {text}"


def compare(sets: dict[str, dict[str, dict[str, Any]]]) -> bool:
    """Print how each preset stands beside the statistical peers on all sets. Whether `balanced` meets its bar."""
    fine = True
    for preset in (name for name in runs.NAMES if name.startswith(runs.OURS)):
        verdicts = {data: verdict(preset, found) for data, found in sets.items()}
        known = {data: one for data, one in verdicts.items() if one}
        if not known:
            continue
        wins = sum(better for better, _, _ in known.values())
        worse = [data for data, (_, sound, _) in known.items() if not sound]
        print(f"\n{preset} beside the best of AutoETS and AutoTheta (ours / theirs)")
        for data, (_, _, text) in known.items():
            print(f"  {data:30s}{text}")
        print(f"  better on {wins} of {len(known)}; worse than seasonal naive on {', '.join(worse) or 'none'}")
        if preset == "gatecast balanced":
            fine = wins >= SHARE * len(known) and not worse
    return fine


def chosen(asked: list[str]) -> list[str]:
    """The full names of the peers that were asked for."""
    names = [name for name in runs.NAMES if not asked or name in asked or name.split()[0] in asked]
    unknown = [one for one in asked if one not in runs.NAMES and one not in runs.PEERS]
    if unknown:
        raise SystemExit(f"--peers: expected names among {', '.join(runs.NAMES)}, got {unknown[0]!r}")
    return names


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, nargs="+", required=True)
    parser.add_argument("--scorer", type=Path, required=True)
    parser.add_argument("--peers", nargs="*", default=[], metavar="NAME")
    parser.add_argument("--set", nargs="*", default=[], help="fields of TrainConfig for our presets, name=value")
    parser.add_argument("--environments", type=Path, default=runs.default_environments())
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--limit", type=float, default=3600.0, help="seconds that one run may take")
    parser.add_argument("--again", action="store_true", help="run peers whose results were kept")
    parser.add_argument("--out", type=Path, help="write the figures as JSON")
    asked = parser.parse_args()
    place = runs.Place(asked.scorer, asked.environments.expanduser(), asked.threads, asked.again, asked.limit)
    sets: dict[str, dict[str, dict[str, Any]]] = {}
    missed: list[str] = []
    for folder in asked.data:
        rows = []
        for name in chosen(asked.peers):
            rows.append(runs.result(place, folder, name, asked.set if name.startswith(runs.OURS) else None))
        table(folder.name, rows)
        sets[folder.name] = {row["peer"]: row for row in rows}
        missed += (missed_bars(rows) if folder.name == "m4_hourly" else []) + sharper(rows)
    fine = compare(sets) and not missed
    for sentence in missed:
        print(f"missed  {sentence}")
    runs.publish(asked.out, rows=[row for found in sets.values() for row in found.values()])
    sys.exit(not fine)


if __name__ == "__main__":
    main()
