"""Measuring again from the weights that come with the project: no training, no download."""

import sys
import time

from .. import Places
from . import records


def measure_again(experiments, out):
    """For each run whose weights are kept, write a record of what they give now into out/runs; returns the records' paths.

    A record has the configuration of the run that left the weights, and under "kept_weights" their file and its SHA-256.
    """
    shipped, paths = Places(records.RESULTS), []
    for experiment in experiments:
        for options in experiment.kept:
            begun = time.perf_counter()
            settings = experiment.evaluation_settings(preset="paper", **options)
            of_run = experiment.settings(preset="paper", **{name: options[name] for name in options})
            print(f"{experiment.title} {options or ''}: measured again from kept weights", file=sys.stderr, flush=True)
            measure = experiment.measure or (lambda *places, of=experiment: (of.evaluate(*places), []))
            metrics, history = measure(settings, shipped)
            trained = records.read_record(shipped.record(experiment.name, of_run.stem))
            path = Places(out).record(experiment.name, of_run.stem)
            records.write_record(
                path,
                experiment=experiment.name,
                preset="paper",
                seed=of_run.seed,
                command=records.full_command(f"evaluate {experiment.name}", settings, Places()),
                configuration=trained["configuration"],
                metrics=metrics,
                history=history,
                wall_seconds=time.perf_counter() - begun,
                kept_weights=_weights_of(experiment, trained, shipped, of_run),
            )
            paths.append(path)
    return paths


def _weights_of(experiment, trained, shipped, settings):
    """{"file", "sha256", "trained"}: what was measured, and when it had been trained."""
    path = shipped.weights(experiment.name, settings.stem)
    if not path.is_file():
        path = shipped.weights(experiment.needs, settings.stem)
    return {"file": path.name, "sha256": records.sha256(path), "trained": trained["date"]}
