"""Propositions 1 to 3 of the second paper, as numerical checks of trained models, tolerance by tolerance.

At the paper's 1e-3 a trained field is often not integrated: solving it back does not return to where it began, and what the model
answers is not what its ODE answers. So the models of g of Figures 5 and 7, of ten seeds, are solved again at tolerances down to
1e-9. The ladder has evaluations, reconstruction error and determinants of the flow's derivative (proposition 3); at the tightest
tolerance follow the order of the line, the winding number of the plane's unit circle and the tunnel of the inner class through
each circle (propositions 1 and 2), and wrong answers on dense samples of both regions. Augmented models are the positive
controls. Figure 3 has the same of its own models.

The checks hold of any flow. What they measure here is whether the flow was solved, and what the models' answers are worth.
"""

import time

import numpy as np

from .. import Experiment, Section
from ..harness import plotting, records
from ..harness.tables import markdown_table
from ..harness.workers import WorkerSettings
from . import figure5_losses, summary, trained

NAME = "anode_propositions"
PRESETS = {
    "quick": {"tolerances": (1e-3, 1e-5, 1e-7), "points": 20, "dense": 500, "repetitions": 1},
    "paper": {"tolerances": (1e-3, 1e-4, 1e-5, 1e-6, 1e-7, 1e-8, 1e-9), "points": 40, "dense": 2000, "repetitions": 10},
}
PROBLEMS = ("spheres1", "spheres2")
INTEGRATED = 1e-2  # greatest reconstruction error, in units of the points, at which a flow counts as solved


def run(settings, places):
    """Train what other figures have not, judge, write record and figure; returns the record."""
    begun = time.perf_counter()
    preset = PRESETS[settings.preset]
    seeds = trained.seeds(settings, preset["repetitions"])
    tasks = [
        task
        for task in figure5_losses.tasks_of(settings)
        if task["problem"] in PROBLEMS and task["model"] != "resnet" and task["seed"] in seeds
    ]
    judge = {name: preset[name] for name in ("tolerances", "points", "dense")}
    made = trained.train_all(tasks, places, settings.workers, judge=judge)
    record = records.record_run(
        NAME,
        settings,
        places,
        configuration={
            "data": "g",
            **preset,
            "problems": PROBLEMS,
            "epochs": figure5_losses.PRESETS[settings.preset]["epochs"],
            "integrated": INTEGRATED,
        },
        metrics=metrics_of(made, preset["tolerances"]),
        history=[one.row() for one in made],
        wall_seconds=trained.wall_seconds(begun, made, settings.workers),
        checkpoints=trained.checkpoints(tasks, places),
    )
    _draw(made, preset["tolerances"], places.figure(NAME, settings.stem))
    return record


def metrics_of(made, tolerances):
    """By problem and model: how many flows are solved at each tolerance, the checks' extremes, and the evaluations."""
    metrics = {"failed": summary.failures(made)}
    for problem in PROBLEMS:
        for model in ("node", "anode"):
            runs, name = summary.chosen(made, problem=problem, model=model), f"{problem}_{model}"
            for tolerance in tolerances:
                rows = [row for one in runs for row in one.judgement["ladder"] if row["tolerance"] == tolerance]
                solved = [row for row in rows if row["failed"] is None]
                metrics[f"integrated_{name}_{tolerance:g}"] = sum(row["reconstruction_max"] < INTEGRATED for row in solved)
                metrics[f"nfe_{name}_{tolerance:g}"] = float(np.mean([row["nfe"] for row in solved])) if solved else None
            tightest = [one.judgement for one in runs if one.judgement["tightest"] is not None]
            metrics[f"models_{name}"] = len(runs)
            metrics[f"det_least_{name}"] = _extreme(min, (row["det_trace_min"] for one in tightest for row in one["ladder"]))
            metrics[f"det_differences_least_{name}"] = _extreme(
                min, (row["det_min"] for one in tightest for row in one["ladder"] if row["tolerance"] == one["tightest"])
            )
            metrics[f"wrong_dense_{name}"] = _extreme(max, (one["dense"]["tight"]["wrong"] for one in tightest))
            metrics[f"wrong_dense_least_{name}"] = _extreme(min, (one["dense"]["tight"]["wrong"] for one in tightest))
            if problem == "spheres2":
                metrics[f"tunnel_most_{name}"] = _extreme(max, (one["tunnel"] for one in tightest))
                metrics[f"tunnel_least_{name}"] = _extreme(min, (one["tunnel"] for one in tightest))
        if problem == "spheres1":
            gaps = [one.judgement["gap"] for one in summary.chosen(made, problem=problem, model="node") if "gap" in one.judgement]
            metrics["gap_least_spheres1_node"] = _extreme(min, gaps)
        else:
            runs = [one.judgement for one in summary.chosen(made, problem=problem, model="node") if "winding" in one.judgement]
            metrics["winding_one_spheres2_node"] = sum(one["winding"] == 1 for one in runs)
    return metrics


def _extreme(function, values):
    values = [value for value in values if value is not None]
    return function(values) if values else None


def _draw(made, tolerances, path):
    """Reconstruction error and evaluations over the tolerance: a line a model."""
    figure, panels = plotting.subplots(2, len(PROBLEMS), figsize=(9, 7), sharex=True)
    for column, problem in zip(panels.T, PROBLEMS):
        for model in ("node", "anode"):
            for i, one in enumerate(summary.chosen(made, problem=problem, model=model)):
                rows = [row for row in one.judgement["ladder"] if row["failed"] is None]
                x = [row["tolerance"] for row in rows]
                label = summary.NAMES[model] if i == 0 else None
                for axes, what in zip(column, ("reconstruction_max", "nfe")):
                    colour = summary.COLOURS[model]
                    axes.plot(x, [row[what] for row in rows], color=colour, linewidth=0.8, alpha=0.6, label=label)
        column[0].axhline(INTEGRATED, color="0.6", linestyle=":")
        column[0].set(title=figure5_losses.TITLES[problem], ylabel="greatest error, there and back", xscale="log", yscale="log")
        column[1].set(xlabel="tolerance", ylabel="evaluations forward", yscale="log")
        column[1].invert_xaxis()
    panels[0, 0].legend(frameon=False)
    plotting.save(figure, path)


def table(found):
    """How many flows are solved at which tolerance, and the checks at the tightest."""
    record = records.first(found, NAME)
    if record is None:
        return ""
    metrics, tolerances = record["metrics"], record["configuration"]["tolerances"]
    rows = []
    for problem in PROBLEMS:
        for model in ("node", "anode"):
            name = f"{problem}_{model}"
            solved = [f"{metrics[f'integrated_{name}_{tolerance:g}']} of {metrics[f'models_{name}']}" for tolerance in tolerances]
            wrong = metrics[f"wrong_dense_{name}"]
            checks = ["" if wrong is None else f"{100 * metrics[f'wrong_dense_least_{name}']:.2g} to {100 * wrong:.2g} %"]
            rows.append([figure5_losses.TITLES[problem], summary.NAMES[model], *solved, *checks])
    headers = ["problem", "model", *(f"solved at {tolerance:g}" for tolerance in tolerances), "wrong on dense samples"]
    return markdown_table(headers, rows)


EXPERIMENT = Experiment(
    name=NAME,
    in_all=False,  # Dozens of trainings: `make repro` has the second paper's Figures 3, 6 and 8.
    source="Augmented, propositions 1 to 3",
    shows="whether trained flows are integrated, and that the propositions hold of them",
    run=run,
    description=__doc__,
    preset_of=lambda settings: PRESETS[settings.preset],
    settings=WorkerSettings,
    takes={"quick": "1 min"},
    section=Section(
        "Augmented Neural ODEs: propositions of trained models",
        table,
        {
            "": (
                "Solving forwards and backwards at tighter and tighter tolerances: what is lost, and the evaluations, "
                "a line a trained model."
            ),
        },
    ),
    page="docs/augmented.md",
)
