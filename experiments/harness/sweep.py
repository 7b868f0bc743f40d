"""One experiment over lists of its options: every combination a run of its own, here or on a Dask cluster."""

import contextlib
import functools
import itertools
import os
import re
import sys
import traceback
from pathlib import Path

from .progress import Progress
from .workers import run_tasks

RANGE = re.compile(r"(\d+)-(\d+)")
SHOWN_OF_A_FAILURE = 2000


def values_of(option, text):
    """Values of an option in a list such as "a,b" or, of whole numbers, "0-19,30". Raises ValueError for one of no sense."""
    found = []
    for part in text.split(","):
        span = RANGE.fullmatch(part) if option.type is int else None
        if span is not None:
            first, last = map(int, span.groups())
            if last < first:
                raise ValueError(f"{option.flag}: a range goes upwards, got {part!r}")
            found += range(first, last + 1)
            continue
        try:
            found.append(option.type(part))
        except ValueError:
            raise ValueError(f"{option.flag} must be a list of {option.type.__name__}s, got {part!r} in {text!r}") from None
    return found


def plan(settings, lists):
    """[Settings] of every combination of values, the first list's slowest; lists: {name of an option: values}."""
    return [settings(**dict(zip(lists, combination))) for combination in itertools.product(*lists.values())]


def sweep(experiment, every, places, main, workers, scheduler=None):
    """Run an experiment with each of the settings in `every`, by the command line's main; returns 1 if a run failed, else 0.

    Runs whose record is there are left out, unless `places` asks to begin anew; a run that was stopped goes on from its
    checkpoints. So does one whose worker is lost: a cluster's workers share the folders of `places`. Output goes to files in the
    folder logs beside the checkpoints, and a failed run stops no other.
    """
    left = [one for one in every if places.fresh or not places.record(experiment.name, one.stem).exists()]
    logs = places.checkpoints.absolute() / "logs"
    logs.mkdir(parents=True, exist_ok=True)
    orders = [
        {"arguments": _arguments(experiment, one, places), "log": str(logs / f"{experiment.name}-{one.stem}.txt")} for one in left
    ]
    failed = []
    with Progress(len(every), "runs", len(every) - len(left)) as shown:

        def finished(place, status):
            shown.done(left[place].stem)
            if status:
                log = Path(orders[place]["log"])
                failed.append(log)
                end = log.read_text(encoding="utf-8", errors="replace")[-SHOWN_OF_A_FAILURE:] if log.exists() else ""
                shown.bar.write(f"{experiment.name} {left[place].stem}: failed with status {status}\n{end}", file=sys.stderr)

        run_tasks(functools.partial(_run, main), orders, workers, finished, scheduler=scheduler, apart=True)
    print(f"{len(left) - len(failed)} runs done, {len(every) - len(left)} were there, {len(failed)} failed; output in {logs}")
    return 1 if failed else 0


def _arguments(experiment, settings, places):
    """What `python -m experiments` is given for one run."""
    chosen = [f"{about.flag}={value}" for about, value in settings.chosen()]
    if any(about.name == "workers" for about in settings.options()):
        chosen = [word for word in chosen if not word.startswith("--workers=")] + ["--workers=1"]
    where = [f"--out={places.out.absolute()}", f"--checkpoints={places.checkpoints.absolute()}"]
    return ["run", experiment.name, *chosen, *where, *(["--fresh"] if places.fresh else [])]


def _run(main, order):
    """Exit status of main, its output in a file: for a process that does nothing else."""
    with open(order["log"], "ab") as log:
        before = [os.dup(1), os.dup(2)]
        os.dup2(log.fileno(), 1)
        os.dup2(log.fileno(), 2)
        try:
            return main(order["arguments"]) or 0
        except SystemExit as ended:
            return ended.code if isinstance(ended.code, int) else 1
        except Exception:
            traceback.print_exc()
            return 1
        finally:
            for stream in (sys.stdout, sys.stderr):
                with contextlib.suppress(ValueError, OSError):
                    stream.flush()
            for number, saved in zip((1, 2), before):
                os.dup2(saved, number)
                os.close(saved)
