"""Figure 9: what both models answer over the plane, and how they generalise to a slice of g(x) that training never saw.

Points at angles from 0 to pi / 5 are taken out of the training set and used for validation. The paper claims a large gap between
training and validation loss for the Neural ODE, and nearly none for the augmented one. Over seeds the outcome is skewed: a hole
of the Neural ODE's answers is somewhere, and costs little unless it is in the slice. Hence medians and quartiles of many seeds.
"""

import time

import numpy as np

from .. import Experiment, Section
from ..harness import plotting, records
from ..harness.tables import markdown_table
from ..harness.workers import WorkerSettings
from . import summary, toy, trained

NAME = "anode_figure9"
MODELS = {"node": 0, "anode": 5}
PRESETS = {"quick": {"repetitions": 1, "epochs": 12}, "paper": {"repetitions": 20, "epochs": 50}}
SIDE = np.linspace(-2, 2, 120)


def run(settings, places):
    """Train, write record and figure; returns the record."""
    begun = time.perf_counter()
    preset = PRESETS[settings.preset]
    seeds = trained.seeds(settings, preset["repetitions"])
    tasks = trained.tasks(MODELS, ["spheres2"], seeds, epochs=preset["epochs"], slice_removed=True)
    made = trained.train_all(tasks, places, settings.workers)
    accuracies = [held_out_accuracy(one) for one in made]
    record = records.record_run(
        NAME,
        settings,
        places,
        configuration={**{k: v for k, v in toy.TASK.items() if k != "seed"}, **preset, "models": MODELS, "slice_removed": True},
        metrics=metrics_of(made, accuracies),
        history=[{**one.row(), "held_out_accuracy": accuracy} for one, accuracy in zip(made, accuracies)],
        wall_seconds=trained.wall_seconds(begun, made, settings.workers),
        checkpoints=trained.checkpoints(tasks, places),
    )
    _draw(made, places.figure(NAME, settings.stem))
    return record


def held_out_accuracy(one):
    """Share of the slice's points whose answer has the right sign; None of a run that failed."""
    if not one.ended:
        return None
    _, removed = toy.points_of(one.task)
    answers = toy.model_of(one.task)[0].outputs(one.result["params"], removed.x)
    return float(np.mean(np.sign(answers) == removed.y))


def metrics_of(made, accuracies):
    """Quartiles over seeds of training and validation loss in the last epoch, their difference, and the held-out accuracy."""
    metrics = {"failed": summary.failures(made)}
    for model in MODELS:
        runs = summary.chosen(made, model=model)
        training, validation = (np.array(summary.finals(runs, name)) for name in ("loss", "validation_loss"))
        right = [value for one, value in zip(made, accuracies) if one.task["model"] == model and value is not None]
        for name, values in (
            ("loss", training),
            ("validation_loss", validation),
            ("gap", validation - training),
            ("held_out_accuracy", right),
        ):
            low, median, high = summary.quartiles(values)
            metrics |= {f"{name}_{model}": median, f"{name}_{model}_q1": low, f"{name}_{model}_q3": high}
    return metrics


def _draw(made, path):
    """Answers over the plane of one seed, and losses over the epochs: median with quartiles."""
    figure, panels = plotting.subplots(2, 2, figsize=(9, 7.5))
    grid = np.stack(np.meshgrid(SIDE, SIDE), -1).reshape(-1, 2)
    for (plane, losses), model_name in zip(panels, MODELS):
        runs = summary.chosen(made, model=model_name)
        model, _ = toy.model_of(runs[0].task)
        answers = model.outputs(runs[0].result["params"], grid).reshape(len(SIDE), -1)
        plane.contourf(SIDE, SIDE, answers, np.linspace(-1.5, 1.5, 21), cmap="coolwarm", extend="both")
        plane.contour(SIDE, SIDE, answers, [0.0], colors="black", linewidths=1)
        for angle in toy.toy_functions.SLICE:
            plane.plot([0, 2 * np.cos(angle)], [0, 2 * np.sin(angle)], "--", color="0.3", linewidth=0.8)
        plane.set(title=f"{summary.NAMES[model_name]}: answers, the slice dashed", xlim=(-2, 2), ylim=(-2, 2), aspect="equal")
        for name, label, colour in (("loss", "training", "C0"), ("validation_loss", "the slice", "C1")):
            rows = summary.curves(runs, name)
            alive = ~np.isnan(rows).all(0)
            epochs = np.arange(1, rows.shape[1] + 1)[alive]
            low, median, high = np.nanquantile(rows[:, alive], (0.25, 0.5, 0.75), axis=0)
            losses.fill_between(epochs, low, high, color=colour, alpha=0.25, linewidth=0)
            losses.plot(epochs, median, color=colour, label=label)
        losses.set(
            xlabel="epoch", ylabel="Huber loss", title=f"{summary.NAMES[model_name]}: median and quartiles", ylim=(0, None)
        )
        losses.legend(frameon=False)
    plotting.save(figure, path)


def table(found):
    """Medians with quartiles."""
    record = records.first(found, NAME)
    if record is None:
        return ""
    metrics = record["metrics"]

    def cell(name):
        numbers = [metrics[key] for key in (name, f"{name}_q1", f"{name}_q3")]
        return "failed" if None in numbers else "{:.3f} ({:.3f} to {:.3f})".format(*numbers)

    names = ("loss", "validation_loss", "gap", "held_out_accuracy")
    rows = [[summary.NAMES[model], *(cell(f"{name}_{model}") for name in names)] for model in MODELS]
    return markdown_table(["", "training loss", "loss on the slice", "difference", "accuracy on the slice"], rows)


EXPERIMENT = Experiment(
    name=NAME,
    in_all=False,  # Dozens of trainings: `make repro` has the second paper's Figures 3, 6 and 8.
    source="Augmented, Figure 9",
    shows="answers over the plane, and generalisation to a slice left out of training",
    run=run,
    description=__doc__,
    preset_of=lambda settings: PRESETS[settings.preset],
    settings=WorkerSettings,
    takes={"quick": "1 min"},
    section=Section(
        "Augmented Neural ODEs, Figure 9: a slice left out",
        table,
        {
            "": (
                "Figure 9: answers over the plane, the training points' slice left out between the dashed lines, the "
                "black line where the class changes; training loss and loss on the slice, median and quartiles over "
                "seeds."
            ),
        },
    ),
    page="docs/augmented.md",
)
