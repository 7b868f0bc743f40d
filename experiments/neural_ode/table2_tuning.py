"""Settings of Table 2's networks, chosen by one procedure for all of them: as many looks at validation spirals for each.

Every kind of network (RNN, RNN with time gaps, latent ODE) at every number of observations is fitted with each peak learning rate
and batch size of a grid, six looks in all (quick: two), otherwise as table2_latent_ode fits it; those that leave the least
validation RMSE against noisy targets are chosen. The spirals are those of a seed that no entry of Table 2 uses, and no test
spiral is scored. `run table2_latent_ode --tuned yes` takes what is chosen here.
"""

import itertools
import time

from solvers_bridge import SolverError

from .. import Experiment, Section
from ..harness import records, workers
from ..harness.tables import markdown_table
from . import spiral_fits, table2_latent_ode

NAME = table2_latent_ode.TUNING
# Added to the run's seed.
SEED = 1000
NOISE = 0.12
PRESETS = {
    "quick": {"peak_rates": (5e-3, 1e-2), "batch_sizes": (100,)},
    "paper": {"peak_rates": (5e-3, 1e-2, 2e-2), "batch_sizes": (100, 400)},
}


def run(settings, places):
    """All fits, the choice, the record; goes on from checkpoints."""
    begun, preset = time.perf_counter(), PRESETS[settings.preset]
    folder = places.checkpoint_folder(NAME, settings.stem)
    tasks = [{**task, "checkpoint": str(folder / f"{number}.npz")} for number, task in enumerate(looks(settings))]
    rows = workers.run_tasks(look, tasks, settings.workers)
    return records.record_run(
        NAME,
        settings,
        places,
        configuration={**preset, "noise": NOISE, "seed_of_spirals": SEED + settings.seed, "chosen": chosen(rows)},
        metrics={f"looks_{model}_{points}": len(group) for (model, points), group in _groups(rows).items()},
        history=rows,
        wall_seconds=time.perf_counter() - begun,
    )


def looks(settings):
    """The task of every fit, those of the latent ODE first."""
    of_table = table2_latent_ode.PRESETS[settings.preset]
    grid = PRESETS[settings.preset]
    return [
        {
            "seed": SEED + settings.seed,
            "noise": NOISE,
            "reverse": spiral_fits.BEST,
            "geometry": "growing",
            "encoder": "rnn",
            "compiler": of_table["compiler"],
            "trajectories": of_table["trajectories"],
            **table2_latent_ode.fit_settings(of_table, model, points),
            "peak_rate": rate,
            "batch_size": batch_size,
        }
        for model in reversed(table2_latent_ode.MODELS)
        for points in of_table["points"]
        for rate, batch_size in itertools.product(grid["peak_rates"], grid["batch_sizes"])
    ]


def look(task):
    """{"model", "points", "peak_rate", "batch_size", "validation_rmse", "seconds"} of one fit; its test errors are not kept."""
    try:
        fitted = spiral_fits.fit(task)
    except (FloatingPointError, SolverError) as reason:
        fitted, least = {"seconds": None, "reason": str(reason)}, None
    else:
        least = min(epoch["evaluation"]["rmse"] for epoch in fitted["history"])
    return {
        **{name: task[name] for name in ("model", "points", "peak_rate", "batch_size")},
        "validation_rmse": least,
        "seconds": fitted["seconds"],
    }


def _groups(rows):
    keys = dict.fromkeys((row["model"], row["points"]) for row in rows)
    return {key: [row for row in rows if (row["model"], row["points"]) == key] for key in keys}


def chosen(rows):
    """{"<model>_<points>": {"peak_rate", "batch_size"}}: those with the least validation RMSE."""
    found = {}
    for (model, points), group in _groups(rows).items():
        best = min((row for row in group if row["validation_rmse"] is not None), key=lambda row: row["validation_rmse"])
        found[f"{model}_{points}"] = {name: best[name] for name in ("peak_rate", "batch_size")}
    return found


def table(found):
    """Validation RMSE of every look, in Markdown."""
    record = records.first(found, NAME)
    if record is None:
        return ""
    rows = [
        [
            table2_latent_ode.MODELS[row["model"]],
            row["points"],
            f"{row['peak_rate']:g}",
            row["batch_size"],
            "" if row["validation_rmse"] is None else f"{row['validation_rmse']:.4f}",
        ]
        for row in record["history"]
    ]
    return markdown_table(["network", "observations", "peak rate", "batch", "least validation RMSE"], rows)


EXPERIMENT = Experiment(
    name=NAME,
    source="Table 2",
    shows="settings of all networks, by as many looks at validation spirals for each",
    run=run,
    description=__doc__,
    preset_of=lambda settings: PRESETS[settings.preset],
    settings=workers.WorkerSettings,
    takes={"quick": "2 min", "paper": "3 h"},
    in_all=False,
    section=Section("Table 2: settings chosen alike", table),
)
