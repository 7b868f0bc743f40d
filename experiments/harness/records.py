"""Records: what a run measured, with everything needed to know what measured it."""

import contextlib
import hashlib
import json
import math
import os
import platform
import shlex
import sys
import time
from dataclasses import fields
from datetime import UTC, datetime
from importlib import metadata
from pathlib import Path

from original_repro import computed
from original_repro.computed import PACKAGED, REPOSITORY
from original_repro.datasets import mnist
from original_repro.training import sessions_of, write_atomically
from solvers_bridge.integrators import provenance

from .. import Places
from .threads import threads

PACKAGES = (
    "numpy",
    "scipy",
    "autograd",
    "tensorflow",
    "numba",
    "matplotlib",
    "tqdm",
    "platformdirs",
    "tabulate",
    "torch",
    "torchdiffeq",
    "jax",
    "diffrax",
)
RESULTS = PACKAGED if PACKAGED.is_dir() else REPOSITORY / "results"
DEFAULT_OUT = Path("results")


class BadRecord(ValueError):
    """A file among the records that is none."""


# What every record has, and of which types.
PARTS = {
    "experiment": str,
    "preset": str,
    "seed": int,
    "command": str,
    "configuration": dict,
    "metrics": dict,
    "history": list,
    "wall_seconds": (int, float),
    "date": str,
    "git_commit": (str, type(None)),
    "versions": dict,
    "integrators": dict,
}


def record_run(experiment, settings, places, *, configuration, metrics, history, wall_seconds, command=None, checkpoints=None):
    """Write the record of a run, runs/<experiment>/<stem>.json, and return it as it can be read again.

    command: what follows `python -m experiments`; by default the run of this experiment. checkpoints: paths of those in which its
    numbers were kept; by default all of this run's.
    """
    if checkpoints is None:
        place = places.checkpoints / experiment
        checkpoints = [place / f"{settings.stem}.npz", *sorted((place / settings.stem).glob("*.npz"))]
    left = places.weights(experiment, settings.stem)
    further = {"left_weights": {"file": left.name, "sha256": sha256(left)}} if left.is_file() else {}
    digest = data_digest(configuration.get("data"))
    if digest is not None:
        further["data_sha256"] = digest
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
        sessions=[one for path in checkpoints if path.is_file() for one in sessions_of(path)],
        **further,
    )


def record_measured(experiment, settings, places, measure, configuration):
    """The record of what measure(settings, places) -> (metrics, history) gives, and of how long it took."""
    begun = time.perf_counter()
    metrics, history = measure(settings, places)
    return record_run(
        experiment,
        settings,
        places,
        configuration=configuration,
        metrics=metrics,
        history=history,
        wall_seconds=time.perf_counter() - begun,
    )


def write_record(
    path, *, experiment, preset, seed, command, configuration, metrics, history, wall_seconds, sessions=(), **further
):
    """Write a record atomically and return it. Numbers that are not finite become null: JSON has no name for them.

    "date" and "git_commit" are of the record; "computed" tells when, at which commit and in which environment its numbers were
    computed, those of `sessions` if there are any. further: entries that only some records have.
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
        "git_commit": computed.commit(),
        "computed": computed.merged(sessions or [computed.session()]),
        "versions": versions(),
        "integrators": provenance(),
        "host": host(),
        "environment": computed.environment(),
        "threads": threads(),
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
    return read_record(path)


def read_record(path):
    """The record in a file. Raises BadRecord, naming the file and what is wrong, where there is none in it."""
    try:
        record = json.loads(Path(path).read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise BadRecord(f"{path} is no record: {error}") from error
    if not isinstance(record, dict):
        raise BadRecord(f"{path} is no record: it holds a {type(record).__name__}")
    for name, kind in PARTS.items():
        if name not in record or not isinstance(record[name], kind) or isinstance(record[name], bool):
            given = f"is {record[name]!r:.40}" if name in record else "is missing"
            raise BadRecord(f"{path} is no record: {name} {given}")
    if not all(isinstance(row, dict) for row in record["history"]):
        raise BadRecord(f"{path} is no record: history is no list of rows")
    return record


def read_records(out):
    """All records under out/runs, as (path, dict), in the order of their paths; what is none is left out: see `unreadable`."""
    return _sorted_out(out)[0]


def unreadable(out):
    """What is wrong with each file under out/runs that is no record: sentences that name it."""
    return _sorted_out(out)[1]


def _sorted_out(out):
    good, bad = [], []
    for path in sorted(Path(out).glob("runs/*/*.json")):
        try:
            good.append((path, read_record(path)))
        except BadRecord as error:
            bad.append(str(error))
    return good, bad


def data_digest(name):
    """SHA-256 of the embedded digits by whatever name a configuration has for them; None of other data.

    Files of whole data sets are known by the digests that their loaders check.
    """
    if not isinstance(name, str) or not name.startswith(("embedded sample", "mnist_sample")):
        return None
    digest = hashlib.sha256()
    for array in mnist.load_sample():
        digest.update(f"{array.dtype} {array.shape} ".encode())
        digest.update(array.tobytes())
    return digest.hexdigest()


def sha256(path):
    """Of a file's content, as hexadecimal digits."""
    return hashlib.sha256(Path(path).read_bytes()).hexdigest()


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

    named = [
        record
        for path, record in found
        if record["experiment"] == experiment
        and isinstance(record["configuration"].get(option), (int, float, str))
        and path.stem in stems(record)
    ]
    chosen = [record for record in named if record["preset"] == "paper"] or named
    values = sorted({record["configuration"][option] for record in chosen})
    return {value: [record for record in chosen if record["configuration"][option] == value] for value in values}


@contextlib.contextmanager
def of_others(what):
    """For a `with` statement that draws from records of other runs: one that is not as expected costs a line, not the run."""
    try:
        yield
    except (TypeError, KeyError, ValueError, AttributeError, IndexError) as error:
        print(f"{what} was not drawn: a record of another run is not as expected: {error!r}", file=sys.stderr)


def how_long(experiment, settings):
    """How long the committed record of a run tells that it took, in words; or None."""
    path = Places(RESULTS).record(experiment, settings.stem)
    if not path.is_file():
        return None
    try:
        seconds = read_record(path)["wall_seconds"]
    except BadRecord:
        return None
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


def portable(command):
    """A record's command without the options that name folders of the machine it ran on: what one would type on another."""
    words = shlex.split(command)
    kept = [
        word
        for word, before, after in zip(words, ["", *words], [*words[1:], ""])
        if not _is_folder_of(before, word) and not _is_folder_of(word, after)
    ]
    return shlex.join(kept)


def _is_folder_of(flag, value):
    return flag.startswith("--") and os.path.isabs(value)


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
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError:
        return platform.processor()
    return next((line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")), platform.processor())


def _finite(value):
    if isinstance(value, dict):
        return {str(key): _finite(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [_finite(item) for item in value]
    if isinstance(value, float) and not math.isfinite(value):
        return None
    return value.item() if hasattr(value, "item") else value
