"""Figures 10 to 12 and Table 1: Neural ODEs and augmented ones on images, a model and a seed a run.

Models with matched numbers of parameters, as published: NODE k = 92 and ANODE k = 64, p = 5 on grey images; k = 125, and k = 64,
p = 10 on coloured ones. Figure 10 compares several p at the same number of filters: --filters and --extra. Controls for what the
larger readout of an augmented model does: --readout own reads the images' own channels only, --model linear has no ODE at all.

Batch 256, Adam at 1e-3, no decay, tolerance 1e-3 both ways, pixels in [0, 1]. The paper's are 5 runs; its number of epochs is not
known for Table 1, so the record has the test accuracy of every epoch, and metrics the last one's and the best one's.
"""

import dataclasses
import time
from dataclasses import dataclass
from pathlib import Path

from .. import Experiment, Section, Settings, option
from ..harness import plotting, records
from ..harness.statistics import mean_and_deviation
from ..harness.tables import markdown_table
from . import images

NAME = "anode_images"
MODELS = ("node", "anode", "linear")
PRESETS = {
    "quick": {"data": "mnist_sample_half", "epochs": 1, "examples": 512, "test_examples": 250, "batch_size": 128},
    "paper": {"data": "mnist", "epochs": 8, "examples": None, "test_examples": None, "batch_size": 256},
}


@dataclass(frozen=True, kw_only=True)
class RunSettings(Settings):
    """Settings of a run."""

    model: str = option("anode", "node, anode (default) or linear, a linear classifier alone", choices=MODELS)
    data: str | None = option(None, "the images (default: the preset's)", choices=tuple(images.DATA))
    folder: Path | None = option(None, "folder or archive that has them (default: the user's cache)", type=Path, named=False)
    epochs: int | None = option(None, "records of the history (default: the preset's)", type=int, least=1)
    steps: int | None = option(None, "batches a record, drawn at random (default: an epoch)", type=int, least=1)
    filters: int | None = option(None, "between the convolutions (default: the matched number)", type=int, least=1)
    extra: int | None = option(None, "channels of zeros (default: the matched number)", type=int, least=0)
    readout: str = option("all", "own: the linear layer sees the images' own channels only", choices=("all", "own"))

    def task(self):
        """The task of images.py. ValueError for options of an ODE that a linear classifier has not."""
        chosen = [about.flag for about, _ in self.chosen() if about.name in ("filters", "extra", "readout")]
        if self.model == "linear" and chosen:
            raise ValueError(f"{', '.join(chosen)} does not go with --model linear, which has no ODE")
        preset = PRESETS[self.preset]
        data = self.data or preset["data"]
        filters, extra = images.sizes(data).get(self.model, (1, 0))
        return images.task(
            data=data,
            filters=self.filters or filters,
            extra=extra if self.extra is None else self.extra,
            readout=self.readout,
            linear=self.model == "linear",
            epochs=self.epochs or preset["epochs"],
            steps=self.steps,
            seed=self.seed,
            **{name: preset[name] for name in ("examples", "test_examples", "batch_size")},
        )


def run(settings, places):
    """Train from where a stopped run was, write record and figure; returns the record."""
    begun = time.perf_counter()
    task = settings.task()
    # The rate is constant: a run of more epochs goes on from one of fewer.
    checkpoint = places.checkpoint(NAME, dataclasses.replace(settings, epochs=None).stem)
    result = images.train(task, checkpoint, settings.folder)
    record = records.record_run(
        NAME,
        settings,
        places,
        configuration={"model": settings.model, **task, "parameters": result["parameters"]},
        metrics=metrics_of(result),
        history=result["history"],
        wall_seconds=sum(one["wall_seconds"] for one in result["history"]) or time.perf_counter() - begun,
        checkpoints=[checkpoint],
    )
    with records.of_others("the figure of all runs"):
        draw(records.read_records(places.out), task["data"], places.figure(NAME, f"{settings.preset}-{task['data']}"))
    return record


def metrics_of(result):
    """Accuracies, losses and evaluations of the last record and the best, and whether the run failed."""
    history = result["history"]
    counts = {name: result[name] for name in ("parameters", "parameters_without_time", "examples")}
    metrics = {**counts, "failed": result["failed"], "records": len(history)}
    if not history:
        return metrics
    last, best = history[-1], max(history, key=lambda one: one["evaluation"]["accuracy"])
    return {
        **metrics,
        "test_accuracy": last["evaluation"]["accuracy"],
        "errors": round((1 - last["evaluation"]["accuracy"]) * result["examples"]),
        "test_accuracy_best": best["evaluation"]["accuracy"],
        "best_epoch": best["epoch"],
        "test_loss": last["evaluation"]["loss"],
        "train_loss": last["train"]["loss"],
        **{f"{name}_last": last["train"][name] for name in ("nfe_forward", "nfe_backward") if name in last["train"]},
    }


def draw(found, data, path):
    """Figures 10 to 12 from all records of these images: a line a run, each model in its own colour. Without an ODE, none."""
    runs = [record for _, record in found if record["experiment"] == NAME and record["history"]]
    rows = [record for record in runs if record["configuration"]["data"] == data]
    if all(record["configuration"]["linear"] for record in rows):
        return
    names = sorted({_label(record) for record in runs})  # of all images, so that a model keeps its colour
    when = "epoch" if all(record["configuration"]["steps"] is None for record in rows) else "record of the history"
    figure, panels = plotting.subplots(2, 3, figsize=(13, 7))
    panels = panels.ravel()
    for record in rows:
        history, name = record["history"], _label(record)
        colour, epochs = f"C{names.index(name)}", [one["epoch"] for one in history]
        label = name if record is next(row for row in rows if _label(row) == name) else None
        series = {
            "training loss": [one["train"]["loss"] for one in history],
            "test loss": [one["evaluation"]["loss"] for one in history],
            "test accuracy": [one["evaluation"]["accuracy"] for one in history],
        }
        for axes, (title, values) in zip(panels, series.items()):
            axes.plot(epochs, values, ".-", color=colour, label=label)
            axes.set(title=title, xlabel=when)
        if "nfe_forward" in history[0]["train"]:
            evaluations = [one["train"]["nfe_forward"] for one in history]
            panels[3].plot(epochs, evaluations, ".-", color=colour)
            panels[4].plot(series["training loss"], evaluations, ".-", color=colour)
            panels[5].plot(evaluations, [one["train"]["accuracy"] for one in history], ".-", color=colour)
    panels[0].legend(frameon=False, fontsize=8)
    panels[3].set(title="evaluations forward", xlabel=when)
    panels[4].set(title="evaluations over loss", xlabel="training loss")
    panels[5].set(title="training accuracy over evaluations", xlabel="evaluations forward")
    figure.suptitle(data)
    plotting.save(figure, path)


def _label(record):
    about = record["configuration"]
    if about["linear"]:
        return "linear"
    own = ", own channels read" if about["readout"] == "own" else ""
    return f"{'ANODE' if about['extra'] else 'NODE'} k = {about['filters']}, p = {about['extra']}{own}"


def table(found):
    """Test accuracy by images and model over seeds."""
    groups = {}
    for _, record in found:
        if record["experiment"] == NAME and "test_accuracy" in record["metrics"]:
            about = record["configuration"]
            groups.setdefault((about["data"], _label(record), about["epochs"], about["steps"]), []).append(record)
    rows = []
    for (data, label, epochs, steps), group in sorted(groups.items(), key=str):
        cells = []
        for name in ("test_accuracy", "test_accuracy_best"):
            mean, deviation = mean_and_deviation([record["metrics"][name] for record in group])
            cells.append(f"{100 * mean:.2f}" + ("" if deviation is None else f" ± {100 * deviation:.2f}"))
        evaluations = [record["metrics"]["nfe_forward_last"] for record in group if "nfe_forward_last" in record["metrics"]]
        failed = sum(record["metrics"]["failed"] is not None for record in group)
        length = f"{epochs} epoch{'s' if epochs > 1 else ''}" if steps is None else f"{epochs} x {steps} steps"
        seen = f"{sum(evaluations) / len(evaluations):.1f}" if evaluations else ""
        count = f"{group[0]['metrics']['parameters']:,}"
        rows.append([data, label, count, length, len(group), *cells, seen, failed or ""])
    headers = [
        "images",
        "model",
        "parameters",
        "trained",
        "seeds",
        "test accuracy, last (%)",
        "best (%)",
        "evaluations",
        "failed",
    ]
    return markdown_table(headers, rows) if rows else "Not measured yet."


EXPERIMENT = Experiment(
    name=NAME,
    in_all=False,  # A minute for one of its models alone: `make repro` has the second paper's Figures 3, 6 and 8.
    source="Augmented, Figures 10 to 12 and Table 1",
    shows="NODE and ANODE on images: accuracy, loss and evaluations, with controls for the readout",
    run=run,
    description=__doc__,
    preset_of=lambda settings: settings.task(),
    settings=RunSettings,
    takes={"quick": "1 min"},
    section=Section(
        "Augmented Neural ODEs, Figures 10 to 12 and Table 1: images",
        table,
        {
            "": "Figures 10 to 12: losses, accuracy and evaluations over the epochs, a line a run.",
        },
    ),
    page="docs/augmented.md",
)
