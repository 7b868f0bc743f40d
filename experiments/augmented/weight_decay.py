"""Weight decay and augmentation, alone and together: does either lower the evaluations, and at what loss?

The paper claims that an augmented model without weight decay beats a Neural ODE with it, and that both together give the fewest
evaluations, at a slightly higher loss. Its values are not known; here L2 decay inside Adam, as its public code has it, on g in
two dimensions. Evaluations and loss are those of the last epoch, at 1e-3.
"""

import time

import numpy as np

from .. import Experiment, Section
from ..harness import plotting, records
from ..harness.tables import markdown_table
from ..harness.workers import WorkerSettings
from . import summary, toy, trained

NAME = "anode_weight_decay"
MODELS = {"node": 0, "anode": 5}
PRESETS = {
    "quick": {"repetitions": 1, "epochs": 12, "decays": (0.0, 1e-3)},
    "paper": {"repetitions": 5, "epochs": 50, "decays": (0.0, 1e-5, 1e-4, 1e-3, 1e-2)},
}


def run(settings, places):
    """Train, write record and figure; returns the record."""
    begun = time.perf_counter()
    preset = PRESETS[settings.preset]
    seeds = trained.seeds(settings, preset["repetitions"])
    tasks = [
        task
        for decay in preset["decays"]
        for task in trained.tasks(MODELS, ["spheres2"], seeds, epochs=preset["epochs"], weight_decay=decay)
    ]
    made = trained.train_all(tasks, places, settings.workers)
    record = records.record_run(
        NAME,
        settings,
        places,
        configuration={
            **{name: value for name, value in toy.TASK.items() if name not in ("seed", "weight_decay")},
            **preset,
            "models": MODELS,
        },
        metrics=metrics_of(made, preset["decays"]),
        history=[one.row() for one in made],
        wall_seconds=trained.wall_seconds(begun, made, settings.workers),
        checkpoints=trained.checkpoints(tasks, places),
    )
    _draw(made, preset["decays"], places.figure(NAME, settings.stem))
    return record


def metrics_of(made, decays):
    """Mean loss and evaluations of the last epoch by model and decay, and each model's fewest evaluations with any decay."""
    metrics = {"failed": summary.failures(made)}
    for model in MODELS:
        for decay in decays:
            runs = summary.chosen(made, model=model, weight_decay=decay)
            for name, metric in (("loss", "loss"), ("nfe", "nfe_forward")):
                values = summary.finals(runs, metric)
                metrics[f"{name}_{model}_{decay:g}"] = float(np.mean(values)) if values else None
        decayed = [metrics[f"nfe_{model}_{decay:g}"] for decay in decays if decay]
        metrics[f"nfe_{model}_decayed_least"] = None if None in decayed else min(decayed)
    return metrics


def _draw(made, decays, path):
    """Loss against evaluations of each run, and their means joined over the decays."""
    figure, axes = plotting.subplots(figsize=(6.5, 4.5))
    for model in MODELS:
        means = []
        for decay in decays:
            runs = summary.chosen(made, model=model, weight_decay=decay)
            x, y = summary.finals(runs, "nfe_forward"), summary.finals(runs, "loss")
            axes.scatter(x, y, s=8, color=summary.COLOURS[model], alpha=0.4)
            if x:
                means.append((np.mean(x), np.mean(y)))
                axes.annotate(f"{decay:g}", means[-1], xytext=(4, 4), textcoords="offset points", fontsize=8)
        axes.plot(*zip(*means), "o-", color=summary.COLOURS[model], label=summary.NAMES[model])
    axes.set(xlabel="evaluations forward, last epoch", ylabel="Huber loss, last epoch", yscale="log")
    axes.set_title("Weight decay (the numbers) and augmentation")
    axes.legend(frameon=False)
    plotting.save(figure, path)


def table(found):
    """Loss and evaluations by model and decay."""
    record = records.first(found, NAME)
    if record is None:
        return ""
    metrics = record["metrics"]
    rows = []
    for decay in record["configuration"]["decays"]:
        cells = []
        for model in MODELS:
            loss, evaluations = (metrics[f"{name}_{model}_{decay:g}"] for name in ("loss", "nfe"))
            cells.append("failed" if loss is None else f"{loss:.2g}, {evaluations:.1f}")
        rows.append([f"{decay:g}", *cells])
    return markdown_table(["weight decay", *(f"{summary.NAMES[model]}: loss, evaluations" for model in MODELS)], rows)


EXPERIMENT = Experiment(
    name=NAME,
    in_all=False,  # Dozens of trainings: `make repro` has the second paper's Figures 3, 6 and 8.
    source="Augmented, section 5",
    shows="weight decay and augmentation: evaluations and loss",
    run=run,
    description=__doc__,
    preset_of=lambda settings: PRESETS[settings.preset],
    settings=WorkerSettings,
    takes={"quick": "1 min"},
    section=Section(
        "Augmented Neural ODEs: weight decay and augmentation",
        table,
        {
            "": (
                "Loss over evaluations in the last epoch, a point a run; the means of a model are joined, and named "
                "by their weight decay."
            ),
        },
    ),
    page="docs/augmented.md",
)
