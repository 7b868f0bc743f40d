"""Records: what a run measured, with everything needed to know what measured it."""

import json
import math
import os
import platform
import shlex
import subprocess
import sys
from dataclasses import fields
from datetime import UTC, datetime
from importlib import metadata
from pathlib import Path

from original_repro.training import write_atomically
from solvers_bridge.integrators import provenance

from .. import Places

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
REPOSITORY = Path(__file__).resolve().parents[2]
PACKAGED = REPOSITORY / "experiments" / "results"
RESULTS = PACKAGED if PACKAGED.is_dir() else REPOSITORY / "results"
DEFAULT_OUT = Path("results")


def record_run(experiment, settings, places, *, configuration, metrics, history, wall_seconds, command=None):
    """Write the record of a run, runs/<experiment>/<stem>.json, and return it as it can be read again.

    command: what follows `python -m experiments`; by default the run of this experiment.
    """
    return write_record(
        places.record(experiment, settings.stem),
        experiment=experiment,
        preset=settings.preset,
        seed=settings.seed,
        command=full_command(command or f"run {experiment}", settings, places),
        configuration=configuration,
        metrics=metrics,
        history=history,
        wall_seconds=wall_seconds,
    )


def write_record(path, *, experiment, preset, seed, command, configuration, metrics, history, wall_seconds, **further):
    """Write a record atomically and return it. Numbers that are not finite become null: JSON has no name for them.

    further: entries that only some records have.
    """
    record = {
        "experiment": experiment,
        "preset": preset,
        "seed": seed,
        "command": command,
        "configuration": configuration,
        "metrics": metrics,
        "history": history,
        "wall_seconds": round(wall_seconds, 3),
        "date": datetime.now(UTC).isoformat(timespec="seconds"),
        "git_commit": git_commit(),
        "versions": versions(),
        "integrators": provenance(),
        "host": host(),
        **further,
    }
    path.parent.mkdir(parents=True, exist_ok=True)
    text = json.dumps(_finite(record), indent=1, allow_nan=False) + "\n"
    write_atomically(path, text.encode())
    return json.loads(text)


def kept(path):
    """path, or where nothing is there and it is below the default folder, the same file among the results that we ship."""
    if path.exists() or not path.is_relative_to(DEFAULT_OUT):
        return path
    shipped = RESULTS / path.relative_to(DEFAULT_OUT)
    if not shipped.exists():
        return path
    print(f"Nothing at {path}; taking what comes with the project, {shipped}", file=sys.stderr)
    return shipped


def kept_record(experiment, settings, places):
    """The record that a run left, or that comes with the project; FileNotFoundError, with the command, where there is none."""
    path = kept(places.record(experiment, settings.stem))
    if not path.is_file():
        raise FileNotFoundError(f"no record at {path}; `{full_command(f'run {experiment}', settings, places)}` writes it")
    return json.loads(path.read_text())


def read_records(out):
    """All records under out/runs, as (path, dict), in the order of their paths."""
    return [(path, json.loads(path.read_text())) for path in sorted(Path(out).glob("runs/*/*.json"))]


def first(found, experiment):
    """The experiment's first record in the order of paths, in which the paper preset's come before the quick one's; or None."""
    return next((record for _, record in found if record["experiment"] == experiment), None)


def by_option(found, experiment, option, **options):
    """{value of an option: records of the experiment, of all seeds}, by rising value; of the paper preset where there are any.

    found: (path, record) of any experiment; those of runs with other options than the seed, this one and `options`, which all
    have, are left out. The option has its name in the configuration too.
    """

    def stems(record):
        for chosen in (options, {**options, option: record["configuration"][option]}):
            named = (f"{name}={value}" for name, value in sorted(chosen.items()))
            yield "-".join([record["preset"], f"seed{record['seed']}", *named])

    named = [record for path, record in found if record["experiment"] == experiment and path.stem in stems(record)]
    chosen = [record for record in named if record["preset"] == "paper"] or named
    values = sorted({record["configuration"][option] for record in chosen})
    return {value: [record for record in chosen if record["configuration"][option] == value] for value in values}


def how_long(experiment, settings):
    """How long the committed record of a run tells that it took, in words; or None."""
    path = Places(RESULTS).record(experiment, settings.stem)
    if not path.is_file():
        return None
    seconds = json.loads(path.read_text())["wall_seconds"]
    return f"{seconds / 60:.0f} min" if seconds >= 60 else f"{seconds:.0f} s"


def full_command(command, settings, places):
    """A command with every option that differs from its default, as one would type it."""
    chosen = [(about.flag, value) for about, value in settings.chosen()]
    chosen += [
        (f"--{field.name}", getattr(places, field.name))
        for field in fields(places)
        if field.name != "fresh" and getattr(places, field.name) != field.default
    ]
    return " ".join(["python -m experiments", command, *(f"{flag} {shlex.quote(str(value))}" for flag, value in chosen)])


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
