"""Measuring again from the weights that come with the project: no training, no download."""

import sys
import time

from .. import Places
from . import records
from .workers import run_tasks


def measure_again(experiments, out, workers=1):
    """For each run whose weights are kept, write a record of what they give now into out/runs; returns the records' paths.

    `workers` are measured at a time, each in a process of its own with one thread. A record has the configuration of the run that
    left the weights, and under "kept_weights" their file and its SHA-256.
    """
    shipped, runs, paths = Places(records.RESULTS), [], []
    for experiment in experiments:
        for options in experiment.kept:
            of_run = experiment.settings(preset="paper", **options)
            runs.append((experiment, of_run, experiment.evaluation_settings(preset="paper", **options)))
            paths.append(Places(out).record(experiment.name, of_run.stem))

    def finished(place, result):
        experiment, of_run, settings = runs[place]
        trained = records.read_record(shipped.record(experiment.name, of_run.stem))
        records.write_record(
            paths[place],
            experiment=experiment.name,
            preset="paper",
            seed=of_run.seed,
            command=records.full_command(f"evaluate {experiment.name}", settings, Places()),
            configuration=trained["configuration"],
            kept_weights=_weights_of(experiment, trained, shipped, of_run),
            **result,
        )
        print(f"{experiment.title}, {of_run.stem}: measured again from kept weights", file=sys.stderr, flush=True)

    tasks = [(*_functions(experiment), settings, shipped) for experiment, _, settings in runs]
    run_tasks(_measure, tasks, workers, finished)
    return paths


def _functions(experiment):
    """(function, whether it gives a history as well), of those with which an experiment measures kept weights."""
    return (experiment.measure, True) if experiment.measure else (experiment.evaluate, False)


def _measure(task):
    measure, with_history, settings, places = task
    begun = time.perf_counter()
    found = measure(settings, places)
    metrics, history = found if with_history else (found, [])
    return {"metrics": metrics, "history": history, "wall_seconds": time.perf_counter() - begun}


def _weights_of(experiment, trained, shipped, settings):
    """{"file", "sha256", "trained"}: what was measured, and when it had been trained."""
    path = shipped.weights(experiment.name, settings.stem)
    if not path.is_file():
        path = shipped.weights(experiment.needs, settings.stem)
    return {"file": path.name, "sha256": records.sha256(path), "trained": trained["date"]}
