"""What recognises q(z0): the paper's recurrent network beside one block of a Transformer's encoder.

The latent ODE of Table 2 with 30 of 100 observations is trained with either encoder, all else being equal: the paper's network of
25 recurrent units, which reads backwards in time, and self-attention of as many features over the observations with their times
(Vaswani et al. 2017; original_repro/attention.py). Each is fitted with as many peak learning rates; the one that leaves the least
RMSE on validation spirals, noisy targets, is tested. Batches, times in a log-likelihood and iterations are fewer than Table 2's
(100 spirals, 20 times, half the iterations), for both. Nothing but the rates was tuned for the attention.
"""

import time

import numpy as np

from original_repro import training

from .. import Experiment, Section
from ..harness import records, workers
from ..harness.tables import markdown_table
from . import figures8to10_latent_ode, spiral_fits, table2_latent_ode

NAME = "latent_encoders"
POINTS, NOISE = figures8to10_latent_ode.POINTS, figures8to10_latent_ode.NOISE
LABELS = {"rnn": "RNN, 25 units", "attention": "attention, 25 features"}
PRESETS = {
    "quick": {"stages": [[25, 50], [50, 50], [100, 100]], "iterations_an_evaluation": 50, "peak_rates": (1e-2,)},
    "paper": {"stages": [[25, 200], [50, 200], [100, 1600]], "iterations_an_evaluation": 200, "peak_rates": (1e-2, 2e-2)},
}


def run(settings, places):
    """All fits, those that validation chooses, the record; goes on from checkpoints."""
    begun, folder = time.perf_counter(), places.checkpoint_folder(NAME, settings.stem)
    tasks = [{**task, "checkpoint": str(folder / f"{number}.npz")} for number, task in enumerate(fits(settings))]
    rows = [
        {
            **{name: task[name] for name in ("encoder", "peak_rate")},
            "validation_rmse": min(epoch["evaluation"]["rmse"] for epoch in fitted["history"]),
            "test": fitted["test"]["latent_ode"],
            "parameters": sum(np.size(leaf) for leaf in training.tree_leaves(fitted["params"])),
            "seconds": fitted["seconds"],
            "history": fitted["history"],
        }
        for task, fitted in zip(tasks, workers.run_tasks(spiral_fits.fit, tasks, settings.workers))
    ]
    return records.record_run(
        NAME,
        settings,
        places,
        configuration={
            "data": f"spirals, noise {NOISE:g}",
            "points": POINTS,
            "rates_chosen": {encoder: row["peak_rate"] for encoder, row in chosen(rows).items()},
            **{name: value for name, value in tasks[0].items() if name not in ("encoder", "peak_rate", "checkpoint", "seed")},
            "peak_rates": PRESETS[settings.preset]["peak_rates"],
        },
        metrics=metrics(rows),
        history=rows,
        wall_seconds=time.perf_counter() - begun,
    )


def fits(settings):
    """The task of every fit."""
    of_table, preset = table2_latent_ode.PRESETS[settings.preset], PRESETS[settings.preset]
    return [
        {
            "seed": settings.seed,
            "noise": NOISE,
            "reverse": spiral_fits.BEST,
            "geometry": "growing",
            "compiler": of_table["compiler"],
            "trajectories": of_table["trajectories"],
            **table2_latent_ode.fit_settings(of_table, "latent_ode", POINTS),
            "batch_size": 100,
            "few_times": spiral_fits.FEW_TIMES,
            "stages": preset["stages"],
            "iterations_an_evaluation": preset["iterations_an_evaluation"],
            "encoder": encoder,
            "peak_rate": rate,
        }
        for encoder in LABELS
        for rate in preset["peak_rates"]
    ]


def chosen(rows):
    """{encoder: its row with the least validation RMSE}."""
    return {
        encoder: min((row for row in rows if row["encoder"] == encoder), key=lambda row: row["validation_rmse"])
        for encoder in LABELS
    }


def metrics(rows):
    """RMSE of either encoder on test spirals, and the attention's over the RNN's."""
    best, found = chosen(rows), {}
    for encoder, row in best.items():
        found |= {f"rmse_{encoder}_{targets}": error for targets, error in row["test"].items()}
        found |= {f"{name}_{encoder}": row[name] for name in ("parameters", "seconds", "validation_rmse")}
    return found | {
        f"attention_over_rnn_{targets}": best["attention"]["test"][targets] / best["rnn"]["test"][targets]
        for targets in ("noisy", "clean")
    }


def table(found):
    """RMSE of either encoder, in Markdown."""
    record = records.first(found, NAME)
    if record is None:
        return ""
    rows = [
        [
            LABELS[row["encoder"]],
            row["parameters"],
            f"{row['peak_rate']:g}",
            f"{row['validation_rmse']:.4f}",
            *(f"{row['test'][targets]:.4f}" for targets in ("noisy", "clean")),
            f"{row['seconds']:.0f}",
        ]
        for row in record["history"]
    ]
    names = [
        "encoder",
        "parameters",
        "peak rate",
        "least validation RMSE",
        "test RMSE, noisy targets",
        "clean targets",
        "seconds",
    ]
    return markdown_table(names, rows)


EXPERIMENT = Experiment(
    name=NAME,
    source="Section 5",
    shows="a latent ODE whose encoder attends to the observations, beside the recurrent one",
    run=run,
    description=__doc__,
    preset_of=lambda settings: PRESETS[settings.preset],
    settings=workers.WorkerSettings,
    takes={"quick": "1 min", "paper": "10 min"},
    in_all=False,
    section=Section("Latent ODE: encoders", table),
)
