"""Figures 5 and 7: training losses of ResNet, Neural ODE and augmented Neural ODE on g(x) and on a control.

g maps a ball to -1 and the shell around it to 1. Figure 5 claims: in one dimension the ResNet fits it and the Neural ODE cannot;
in two the Neural ODE gets there slowly; on the separable control the gap is smaller. Figure 7 claims that the augmented model
gets there fast, by a nearly linear flow, drawn here over t in one dimension and as paths of the first two coordinates in two.

How fast is the mean of the loss over all epochs, its course, and the gap the difference of both models' courses; how linear the
length of the paths over the distance of their ends.

Settings as in toy.py; the ResNet has five blocks, the augmented model five dimensions more (the best of 1, 2 and 5, says a
replication of the paper's search). Every loss at the paper's tolerance; `propositions` solves the trained models tightly.
The control in two dimensions is the public code's; that of one dimension is chosen here, since what the paper's was is not known.
"""

import time

import numpy as np

from .. import Experiment, Section
from ..harness import plotting, records
from ..harness.tables import markdown_table
from ..harness.workers import WorkerSettings
from . import summary, toy, trained

NAME = "anode_figure5"
MODELS = {"resnet": 0, "node": 0, "anode": 5}
TITLES = {"spheres1": "g, d = 1", "spheres2": "g, d = 2", "separable1": "control, d = 1", "separable2": "control, d = 2"}
PRESETS = {
    "quick": {"repetitions": 1, "epochs": 12, "problems": ("spheres1", "spheres2", "separable2")},
    "paper": {"repetitions": 20, "epochs": 50, "problems": tuple(TITLES)},
}
REACHED = 0.05  # a loss that counts as fitted, to compare epochs
TIMES, PATHS = np.linspace(0, 1, 40), 80  # of the paths that are drawn and measured


def run(settings, places):
    """Train, write record and figures; returns the record."""
    begun = time.perf_counter()
    preset = PRESETS[settings.preset]
    made = trained.train_all(tasks_of(settings), places, settings.workers)
    record = records.record_run(
        NAME,
        settings,
        places,
        configuration={**{k: v for k, v in toy.TASK.items() if k != "seed"}, **preset, "models": MODELS, "reached": REACHED},
        metrics={**metrics_of(made, preset["problems"]), **heads_of(made), **bends_of(made)},
        history=[one.row() for one in made],
        wall_seconds=trained.wall_seconds(begun, made, settings.workers),
        checkpoints=trained.checkpoints(tasks_of(settings), places),
    )
    _draw_losses(made, preset["problems"], places.figure(NAME, settings.stem))
    _draw_flows(made, places.figure(NAME, f"{settings.stem}-flows"))
    return record


def tasks_of(settings):
    """The trainings of a run, which other figures share: initial parameters and those of some epochs are kept."""
    preset = PRESETS[settings.preset]
    seeds, keep = trained.seeds(settings, preset["repetitions"]), kept_epochs(preset["epochs"])
    return trained.tasks(MODELS, preset["problems"], seeds, epochs=preset["epochs"], keep_epochs=keep)


def kept_epochs(epochs):
    """The epochs whose parameters are kept, 0 the initial ones: six, early ones closer together."""
    return tuple(sorted({0, *(max(1, round(epochs * share)) for share in (0.06, 0.15, 0.3, 0.6, 1.0))}))


def metrics_of(made, problems):
    """Last losses, epochs until REACHED, evaluations, by problem and model."""
    metrics = {"failed": summary.failures(made)}
    for problem in problems:
        course = {}
        for model in MODELS:
            runs = summary.chosen(made, problem=problem, model=model)
            losses, name = summary.finals(runs, "loss"), f"{problem}_{model}"
            reached = [summary.first_below(one, REACHED) for one in runs]
            metrics |= {
                f"loss_{name}": float(np.mean(losses)) if losses else None,
                f"loss_{name}_sd": float(np.std(losses, ddof=1)) if len(losses) > 1 else None,
                f"reached_{name}": sum(epoch is not None for epoch in reached),
                f"epochs_{name}": None if None in reached else float(np.mean(reached)) + 1,
            }
            course[model] = summary.by_seed(runs, _mean_loss)
            if model != "resnet":
                evaluations = summary.finals(runs, "nfe_forward")
                metrics[f"nfe_{name}"] = float(np.mean(evaluations)) if evaluations else None
        for other in ("resnet", "anode"):
            name = f"course_ratio_{problem}_node_{other}"
            metrics |= summary.with_interval(name, summary.ratio(course["node"], course[other]))
        metrics |= summary.with_interval(f"course_gap_{problem}", summary.difference(course["node"], course["resnet"]))
    return metrics


def _mean_loss(one):
    """Mean over all epochs: how high the loss was in the course of a training."""
    return float(np.mean([epoch["loss"] for epoch in one.result["epochs"]]))


def heads_of(made):
    """The NODE's repetitions on the control in one dimension, and those that reached REACHED, by the sign of the initial head.

    A flow of the line keeps the order of points, so a head that begins with the wrong sign has to change it where the loss is
    least when everything lies in one point.
    """
    runs = summary.chosen(made, problem="separable1", model="node")
    if not runs:
        return {}
    metrics = {}
    for name, sign in (("right", 1), ("wrong", -1)):
        group = [one for one in runs if sign * one.result["kept"][0]["head"]["weight"].item() > 0]
        reached = [one for one in group if summary.first_below(one, REACHED) is not None]
        metrics |= {f"heads_{name}_separable1_node": len(group), f"reached_{name}_separable1_node": len(reached)}
    return metrics


def bends_of(made):
    """Length of a model's paths over the distance of their ends, by problem and model, means over seeds: 1 is straight.

    In all d + p dimensions, of the sums over PATHS points of g, of models with an ODE.
    """
    metrics = {}
    for problem in ("spheres1", "spheres2"):
        for model in ("node", "anode"):
            bends = [_bend(one) for one in summary.chosen(made, problem=problem, model=model) if one.ended]
            metrics[f"bend_{problem}_{model}"] = float(np.mean(bends)) if bends else None
    return metrics


def _bend(one):
    states = _paths(one)[0]
    lengths = np.linalg.norm(np.diff(states, axis=0), axis=-1).sum()
    return float(lengths / np.linalg.norm(states[-1] - states[0], axis=-1).sum())


def _paths(one):
    """(states (TIMES, PATHS, d + p), targets (PATHS,)) of a trained model with an ODE, from the first of its points."""
    points = toy.points_of(one.task)[0]
    x, y = points.x[:PATHS], points.y[:PATHS, 0]
    return toy.model_of(one.task)[0].states(one.result["params"], x, TIMES), y


def _draw_losses(made, problems, path):
    figure, panels = plotting.subplots(1, len(problems), figsize=(4 * len(problems), 3.5), sharey=True)
    for axes, problem in zip(panels, problems):
        for model in MODELS:
            summary.draw_curves(axes, summary.chosen(made, problem=problem, model=model), "loss")
        axes.set_title(TITLES[problem])
    panels[0].set(ylabel="Huber loss", ylim=(0, None))
    panels[0].legend(frameon=False, fontsize=8)
    plotting.save(figure, path)


def _draw_flows(made, path):
    """Paths of both models, of one seed, on g: over t in one dimension, in the plane in two; first coordinates."""
    figure, panels = plotting.subplots(2, 2, figsize=(9, 7.5))
    for row, problem in zip(panels, ("spheres1", "spheres2")):
        for axes, model_name in zip(row, ("node", "anode")):
            one = summary.chosen(made, problem=problem, model=model_name)[0]
            states, y = _paths(one)
            for i in range(len(y)):
                path_i = (TIMES, states[:, i, 0]) if problem == "spheres1" else (states[:, i, 0], states[:, i, 1])
                colour = "C3" if y[i] > 0 else "C0"
                axes.plot(*path_i, color=colour, linewidth=0.6)
                axes.plot(*(line[-1:] for line in path_i), ".", color=colour, markersize=3)
            labels = ("t", "first coordinate") if problem == "spheres1" else ("first coordinate", "second coordinate")
            axes.set(title=f"{TITLES[problem]}: {summary.NAMES[model_name]}", xlabel=labels[0], ylabel=labels[1])
    plotting.save(figure, path)


def table(found):
    """Losses of the last epoch and epochs until the loss is small."""
    record = records.first(found, NAME)
    if record is None:
        return ""
    metrics = record["metrics"]

    def cell(name):
        if metrics.get(f"loss_{name}") is None:
            return "failed"
        deviation = metrics[f"loss_{name}_sd"]
        epochs = metrics[f"epochs_{name}"]
        spread = "" if deviation is None else f" ± {deviation:.2g}"
        return f"{metrics[f'loss_{name}']:.2g}{spread}" + (f", in {epochs:.1f} epochs" if epochs is not None else "")

    rows = [
        [TITLES[problem], *(cell(f"{problem}_{model}") for model in MODELS)] for problem in record["configuration"]["problems"]
    ]
    note = f"Huber loss of the last epoch, and the mean of the repetitions' first epochs below {REACHED}, where all get there."
    return f"{note}\n\n" + markdown_table(["problem", *(summary.NAMES[model] for model in MODELS)], rows)


EXPERIMENT = Experiment(
    name=NAME,
    in_all=False,  # Dozens of trainings: `make repro` has the second paper's Figures 3, 6 and 8.
    source="Augmented, Figures 5 and 7",
    shows="training losses of ResNet, NODE and ANODE on g in one and two dimensions and on a control; flows",
    run=run,
    description=__doc__,
    preset_of=lambda settings: PRESETS[settings.preset],
    settings=WorkerSettings,
    takes={"quick": "2 min"},
    section=Section(
        "Augmented Neural ODEs, Figures 5 and 7: losses and flows",
        table,
        {
            "": "Figures 5 and 7: losses in training, a thin line a seed, and their mean.",
            "flows": (
                "Figure 7: paths of points of g through trained models, over t in one dimension, in the plane of the "
                "data's own two coordinates in two; red is the outer class, blue the inner, a dot an end."
            ),
        },
    ),
    page="docs/augmented.md",
)
