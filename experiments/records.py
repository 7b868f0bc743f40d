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
# The folder of our packages: a checkout's root, or where a wheel was installed, whose results are inside experiments/ (setup.py).
REPOSITORY = Path(__file__).resolve().parent.parent
PACKAGED = REPOSITORY / "experiments" / "results"
RESULTS = PACKAGED if PACKAGED.is_dir() else REPOSITORY / "results"
DEFAULT_OUT = Path("results")


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


def kept(path):
    """path, or where nothing is there and it is below the default folder, the same file among the results that we ship."""
    if path.exists() or not path.is_relative_to(DEFAULT_OUT):
        return path
    shipped = RESULTS / path.relative_to(DEFAULT_OUT)
    if not shipped.exists():
        return path
    print(f"Nothing at {path}; taking what comes with the project, {shipped}", file=sys.stderr)
    return shipped


def read_records(out):
    """All records under out/runs, as (path, dict), in the order of their paths."""
    return [(path, json.loads(path.read_text())) for path in sorted(Path(out).glob("runs/*/*.json"))]


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
    """The commit of this checkout, with "+changes" if the working tree differs; None outside one.

    A repository around an installed copy, or around a copy without a .git of its own, is not ours.
    """

    def git(*arguments):
        return subprocess.run(["git", *arguments], cwd=REPOSITORY, capture_output=True, text=True, check=True).stdout.strip()

    try:
        if PACKAGED.is_dir() or Path(git("rev-parse", "--show-toplevel")).resolve() != REPOSITORY:
            return None
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
