"""Figure 13: what overfitting does to the evaluations.

Both matched models learn a few images by heart, epoch after epoch. The paper claims that the Neural ODE's evaluations explode, or
its step underflows, while the augmented model's stay. A run that fails is the result, and is shown as such. How many images and
epochs the paper took is not known; here the first so many of MNIST, halved to 14 x 14 pixels, in batches of 256.
"""

from .. import Experiment, Section
from ..harness import plotting, records
from ..harness.tables import markdown_table
from . import images, summary

NAME = "anode_figure13"
PRESETS = {
    "quick": {"data": "mnist_sample_half", "examples": 128, "test_examples": 250, "batch_size": 128, "epochs": 3},
    "paper": {"data": "mnist_half", "examples": 1024, "test_examples": 1000, "batch_size": 256, "epochs": 150},
}


def run(settings, places):
    """Train both models, write record and figure; returns the record."""
    preset = PRESETS[settings.preset]
    folder = places.checkpoint_folder(NAME, settings.stem)
    results = {}
    for model, (filters, extra) in images.SIZES["grey"].items():
        task = images.task(filters=filters, extra=extra, seed=settings.seed, **preset)
        results[model] = images.train(task, folder / f"{model}.npz")
    record = records.record_run(
        NAME,
        settings,
        places,
        configuration={**preset, "sizes": images.SIZES["grey"]},
        metrics=metrics_of(results),
        history=[{"model": model, **one} for model, result in results.items() for one in result["history"]],
        wall_seconds=sum(one["wall_seconds"] for result in results.values() for one in result["history"]),
    )
    _draw(results, places.figure(NAME, settings.stem))
    return record


def metrics_of(results):
    """Evaluations of the first and last epochs, the most and what it is over the first, last losses, and failures.

    A failed solve counts as the evaluations of the steps at which dopri5 gives up; a loss that was not finite does not.
    """
    from original_repro.augmented import MOST_STEPS

    metrics, given_up = {}, 6 * MOST_STEPS
    for model, result in results.items():
        history = result["history"]
        metrics |= {f"failed_{model}": result["failed"], f"epochs_{model}": len(history)}
        unsolved = result["failed"] is not None and result["failed"]["kind"] == "solve"
        if history:
            evaluations = [one["train"]["nfe_forward"] for one in history]
            metrics |= {
                f"nfe_first_{model}": evaluations[0],
                f"nfe_last_{model}": evaluations[-1],
                f"nfe_most_{model}": max(evaluations),
                f"growth_{model}": (given_up if unsolved else max(evaluations)) / evaluations[0],
                f"train_loss_{model}": history[-1]["train"]["loss"],
            }
    return metrics


def _draw(results, path):
    figure, panels = plotting.subplots(1, 2, figsize=(9, 3.6))
    for model, result in results.items():
        epochs = [one["epoch"] for one in result["history"]]
        failed = "" if result["failed"] is None else ", failed after these"
        for axes, name in zip(panels, ("loss", "nfe_forward")):
            values = [one["train"][name] for one in result["history"]]
            axes.plot(epochs, values, color=summary.COLOURS[model], label=summary.NAMES[model] + failed)
    panels[0].set(title="training loss", xlabel="epoch", yscale="log")
    panels[1].set(title="evaluations forward", xlabel="epoch", ylim=(0, None))
    panels[0].legend(frameon=False)
    plotting.save(figure, path)


def table(found):
    """Evaluations and losses of both models."""
    record = records.first(found, NAME)
    if record is None:
        return "Not measured yet."
    metrics, rows = record["metrics"], []
    for model in images.SIZES["grey"]:
        failed = metrics[f"failed_{model}"]
        numbers = [metrics.get(f"{name}_{model}") for name in ("train_loss", "nfe_first", "nfe_last", "nfe_most")]
        cells = ["" if number is None else f"{number:.4g}" for number in numbers]
        rows.append([summary.NAMES[model], metrics[f"epochs_{model}"], *cells, "" if failed is None else failed["reason"]])
    headers = ["model", "epochs", "training loss", "evaluations, first", "last", "most", "failed"]
    return markdown_table(headers, rows)


EXPERIMENT = Experiment(
    name=NAME,
    in_all=False,  # A minute: `make repro` has the second paper's Figures 3, 6 and 8.
    source="Augmented, Figure 13",
    shows="evaluations of models that learn a few images by heart",
    run=run,
    description=__doc__,
    preset_of=lambda settings: PRESETS[settings.preset],
    takes={"quick": "1 min"},
    section=Section(
        "Augmented Neural ODEs, Figure 13: overfitting",
        table,
        {
            "": "Figure 13: training loss and evaluations of models that learn a few images by heart.",
        },
    ),
    page="docs/augmented.md",
)
