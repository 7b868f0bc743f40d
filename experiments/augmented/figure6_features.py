"""Figures 6 and 8: features and evaluations over training, of the Neural ODE and the augmented one on g(x).

Figure 6 claims that a Neural ODE in two dimensions pushes, stretches and breaks the annulus, at a growing number of evaluations;
Figure 8 that the augmented one does not, and that in one dimension the Neural ODE's evaluations nearly double (about 18 to 37, as
read off by a replication) while the augmented one's stay. The author adds that both rise by the epoch, and that evaluations are
to be compared at equal loss.

The trainings are those of Figure 5. Growth is the mean of forward evaluations in the last epoch over that in the first; at equal
loss means in the first epoch whose loss is below 0.05. Growth, its ratio and that at equal loss, NODE's to ANODE's, are geometric
means over seeds with their 95 % interval. Evaluations at the paper's 1e-3 say how the solver's
steps there grow; those of the trained models at tighter tolerances are in `anode_propositions`.
"""

import time

import numpy as np

from .. import Experiment, Section
from ..harness import plotting, records
from ..harness.tables import markdown_table
from ..harness.workers import WorkerSettings
from . import figure5_losses, summary, toy, trained
from .figure5_losses import TITLES

NAME = "anode_figure6"
PROBLEMS = ("spheres1", "spheres2")


def run(settings, places):
    """Train, where Figure 5 has not, write record and figures; returns the record."""
    begun = time.perf_counter()
    tasks = [
        task for task in figure5_losses.tasks_of(settings) if task["problem"] in PROBLEMS and task["model"] in ("node", "anode")
    ]
    made = trained.train_all(tasks, places, settings.workers)
    preset = figure5_losses.PRESETS[settings.preset]
    record = records.record_run(
        NAME,
        settings,
        places,
        configuration={
            **{name: value for name, value in toy.TASK.items() if name != "seed"},
            **{name: preset[name] for name in ("repetitions", "epochs")},
            "problems": PROBLEMS,
            "models": {"node": 0, "anode": figure5_losses.MODELS["anode"]},
        },
        metrics=metrics_of(made),
        history=[one.row() for one in made],
        wall_seconds=trained.wall_seconds(begun, made, settings.workers),
        checkpoints=trained.checkpoints(tasks, places),
    )
    _draw_features(made, places.figure(NAME, settings.stem))
    _draw_evaluations(made, places.figure(NAME, f"{settings.stem}-evaluations"))
    return record


def metrics_of(made):
    """Evaluations in the first and last epochs and at equal loss, growth, and ratios of NODE to ANODE with their intervals."""
    metrics = {"failed": summary.failures(made)}
    for problem in PROBLEMS:
        growth, equal = {}, {}
        for model in ("node", "anode"):
            runs = summary.chosen(made, problem=problem, model=model)
            first, last = (summary.by_seed(runs, summary.in_epoch(place, "nfe_forward")) for place in (0, -1))
            for when, found in (("first", first), ("last", last)):
                metrics[f"nfe_{when}_{problem}_{model}"] = _mean(found)
            metrics |= summary.with_interval(f"growth_{problem}_{model}", summary.ratio(last, first))
            growth[model] = {seed: last[seed] / first[seed] for seed in last}
            equal[model] = summary.by_seed(runs, _evaluations_when_fitted)
            metrics |= {
                f"nfe_equal_loss_{problem}_{model}": _mean(equal[model]),
                f"fitted_{problem}_{model}": len(equal[model]),
            }
        for name, found in (("growth_ratio", growth), ("nfe_equal_loss_ratio", equal)):
            metrics |= summary.with_interval(f"{name}_{problem}", summary.ratio(found["node"], found["anode"]))
    return metrics


def _evaluations_when_fitted(one):
    """Evaluations in the first epoch whose loss counts as fitted, or None."""
    place = summary.first_below(one, figure5_losses.REACHED)
    return None if place is None else one.result["epochs"][place]["nfe_forward"]


def _mean(found):
    return float(np.mean(list(found.values()))) if found else None


def _draw_features(made, path):
    """The features of one seed in two dimensions at the kept epochs, with evaluations: NODE above, ANODE below."""
    rows = [summary.chosen(made, problem="spheres2", model=model)[0] for model in ("node", "anode")]
    epochs = sorted(rows[0].result["kept"])
    figure, panels = plotting.subplots(2, len(epochs), figsize=(2.6 * len(epochs), 5.6), frames=True)
    for one, line in zip(rows, panels):
        model, _ = toy.model_of(one.task)
        points = toy.points_of(one.task)[0]
        for axes, epoch in zip(line, epochs):
            axes.set(xticks=[], yticks=[])
            if epoch not in one.result["kept"]:
                axes.set_title("failed")
                continue
            features = model.states(one.result["kept"][epoch], points.x[:1000])[-1]
            axes.scatter(*features[:, :2].T, c=points.y[:1000, 0], s=2, cmap="coolwarm")
            evaluations = "" if epoch == 0 else f", {one.result['epochs'][epoch - 1]['nfe_forward']:.0f} evaluations"
            axes.set_title(f"epoch {epoch}{evaluations}", fontsize=8)
        line[0].set_ylabel(summary.NAMES[one.task["model"]])
    plotting.save(figure, path)


def _draw_evaluations(made, path):
    """Evaluations over the epochs, and over the loss, epoch by epoch."""
    figure, panels = plotting.subplots(2, len(PROBLEMS), figsize=(9, 7))
    for column, problem in zip(panels.T, PROBLEMS):
        for model in ("node", "anode"):
            runs = summary.chosen(made, problem=problem, model=model)
            summary.draw_curves(column[0], runs, "nfe_forward")
            losses, evaluations = (summary.curves(runs, name).ravel() for name in ("loss", "nfe_forward"))
            column[1].scatter(losses, evaluations, s=3, alpha=0.4, color=summary.COLOURS[model])
        column[0].set(title=TITLES[problem], ylabel="evaluations forward", ylim=(0, None))
        column[1].set(xlabel="loss", ylabel="evaluations forward")
    panels[0, 0].legend(frameon=False, loc="lower right")
    plotting.save(figure, path)


def table(found):
    """Evaluations in the first and last epochs, growth, ratio."""
    record = records.first(found, NAME)
    if record is None:
        return ""
    metrics, rows = record["metrics"], []
    for problem in PROBLEMS:
        for model in ("node", "anode"):
            numbers = [metrics[f"{what}_{problem}_{model}"] for what in ("nfe_first", "nfe_last")]
            rows.append(
                [
                    TITLES[problem],
                    summary.NAMES[model],
                    *("" if one is None else f"{one:.1f}" for one in numbers),
                    _with_interval(metrics, f"growth_{problem}_{model}"),
                    _at_equal_loss(metrics, f"{problem}_{model}"),
                ]
            )
        ratios = [_with_interval(metrics, f"{name}_{problem}") for name in ("growth_ratio", "nfe_equal_loss_ratio")]
        rows.append([TITLES[problem], "NODE / ANODE", "", "", *ratios])
    headers = ["problem", "model", "evaluations, first epoch", "last epoch", "growth", "evaluations at equal loss"]
    note = f"Intervals are of 95 %. Equal loss: the first epoch below {figure5_losses.REACHED}, of the runs that get there."
    return f"{note}\n\n" + markdown_table(headers, rows)


def _with_interval(metrics, name):
    number, low, high = (metrics[key] for key in (name, f"{name}_low", f"{name}_high"))
    if number is None:
        return ""
    return f"{number:.2f}" + ("" if low is None else f" ({low:.2f} to {high:.2f})")


def _at_equal_loss(metrics, name):
    number = metrics[f"nfe_equal_loss_{name}"]
    return "never there" if number is None else f"{number:.1f}, {metrics[f'fitted_{name}']} runs"


EXPERIMENT = Experiment(
    name=NAME,
    source="Augmented, Figures 6 and 8",
    shows="features and evaluations over training, NODE and ANODE",
    run=run,
    description=__doc__,
    preset_of=lambda settings: {**figure5_losses.PRESETS[settings.preset], "problems": PROBLEMS},
    settings=WorkerSettings,
    takes={"quick": "1 min"},
    section=Section(
        "Augmented Neural ODEs, Figures 6 and 8: features and evaluations",
        table,
        {
            "": (
                "Figures 6 and 8: features in training, the first two coordinates at the end of the flow; red is the "
                "outer class, blue the inner."
            ),
            "evaluations": (
                "Figure 8: evaluations over the epochs, a thin line a seed, and their mean; and over the loss, a point an epoch."
            ),
        },
    ),
    page="docs/augmented.md",
)
