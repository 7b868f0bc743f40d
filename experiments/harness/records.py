"""Records: what a run measured, with everything needed to know what measured it."""

import json
import math
import os
import platform
import subprocess
import sys
from datetime import UTC, datetime
from importlib import metadata
from pathlib import Path

from original_repro.training import write_atomically
from solvers_bridge.integrators import provenance

PACKAGES = (
    "numpy",
    "scipy",
    "autograd",
    "tensorflow",
    "matplotlib",
    "tqdm",
    "platformdirs",
    "tabulate",
    "torch",
    "torchdiffeq",
    "jax",
    "diffrax",
)
REPOSITORY = Path(__file__).resolve().parents[2]


def record_path(out, experiment, stem):
    """Where the record of a run lies: out/runs/<experiment>/<stem>.json, stem being <preset>-seed<N> and what else was chosen."""
    return Path(out) / "runs" / experiment / f"{stem}.json"


def write_record(path, *, experiment, preset, seed, configuration, metrics, history, wall_seconds):
    """Write a record atomically. Numbers that are not finite become null: JSON has no name for them."""
    record = {
        "experiment": experiment,
        "preset": preset,
        "seed": seed,
        "command": command(),
        "configuration": configuration,
        "metrics": metrics,
        "history": history,
        "wall_seconds": round(wall_seconds, 3),
        "date": datetime.now(UTC).isoformat(timespec="seconds"),
        "git_commit": git_commit(),
        "versions": versions(),
        "integrators": provenance(),
        "host": host(),
    }
    path.parent.mkdir(parents=True, exist_ok=True)
    write_atomically(path, (json.dumps(_finite(record), indent=1, allow_nan=False) + "\n").encode())


def read_records(out):
    """All records under out/runs, as (path, dict), in the order of their paths."""
    return [(path, json.loads(path.read_text())) for path in sorted(Path(out).glob("runs/*/*.json"))]


def first(found, experiment):
    """The experiment's first record in the order of paths, in which the paper preset's come before the quick one's; or None."""
    return next((record for _, record in found if record["experiment"] == experiment), None)


def by_option(found, experiment, option):
    """{value of an option: records of the experiment, of all seeds}, by rising value; of the paper preset where there are any.

    found: (path, record) of any experiment; those of runs with other options than the seed and this one are left out. The option
    has its name in the configuration too.
    """
    named = [
        record
        for path, record in found
        if record["experiment"] == experiment
        and path.stem
        in (
            f"{record['preset']}-seed{record['seed']}",
            f"{record['preset']}-seed{record['seed']}-{option}={record['configuration'][option]}",
        )
    ]
    chosen = [record for record in named if record["preset"] == "paper"] or named
    values = sorted({record["configuration"][option] for record in chosen})
    return {value: [record for record in chosen if record["configuration"][option] == value] for value in values}


def command():
    """The command that is running, as one would type it."""
    return " ".join(["python", "-m", "experiments", *sys.argv[1:]])


def versions():
    """Versions of Python and of those of our dependencies that are installed."""
    found = {"python": platform.python_version()}
    for package in PACKAGES:
        try:
            found[package] = metadata.version(package)
        except metadata.PackageNotFoundError:
            continue
    return found


def host():
    """The machine: system, processor, cores that this process may use."""
    return {
        "system": platform.platform(),
        "processor": _processor(),
        "cores": len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count(),
    }


def _processor():
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return platform.processor()
    return next((line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")), platform.processor())


def git_commit():
    """The commit of this checkout, with "+changes" if the working tree differs; None outside a checkout."""

    def git(*arguments):
        return subprocess.run(["git", *arguments], cwd=REPOSITORY, capture_output=True, text=True, check=True).stdout.strip()

    try:
        commit = git("rev-parse", "HEAD")
        # Results that are being written do not change what measured them.
        return commit + ("+changes" if git("status", "--porcelain", "--", ".", ":!results") else "")
    except (OSError, subprocess.CalledProcessError):
        return None


def _finite(value):
    if isinstance(value, dict):
        return {str(key): _finite(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [_finite(item) for item in value]
    if isinstance(value, float) and not math.isfinite(value):
        return None
    return value.item() if hasattr(value, "item") else value
