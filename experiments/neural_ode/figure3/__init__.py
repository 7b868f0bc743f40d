"""Figure 3: a trained ODE-Net's error, time, reverse evaluations and training; and "train with high accuracy, test with low".

The weights are those that `run table1_mnist` left; panel (d) is its record. The images are the test set's.

(a) and (b): z(1) of one batch over tolerances (relative and absolute alike), its error relative to z(1) (root mean square over
root mean square) of a much tighter solve in a float64 graph. The graph in float32 sets a floor below which no tolerance gets, and
which is measured by itself: the same steps of Runge and Kutta on a fixed grid in both precisions. These two panels compute
convolutions directly, whose floor is lower than that of Winograd's algorithm, with which networks train; both floors are in the
record. Where rounding exceeds the tolerance a solver shortens its steps without end, LSODA, with its maximum norm, first: the
series stops at the first tolerance that takes more than a given number of steps. Time is that of the solve alone, the median of
as many as fill a given time.

(c): evaluations of the reverse solve of a gradient against those of the forward one: the paper finds "roughly half". What could
make it so is varied: the integrator, whose error norm is a root mean square over all unknowns (VODE, dopri5) or their maximum
(LSODA); the tolerance; the loss, a mean or a sum over the batch, which scales the adjoint against the absolute tolerance; trained
or initial weights, which have small and large adjoints; the size of the batch, one image being the least. A reverse solve that
takes more than a given number of steps is stopped, and its ratio is a lower bound.

To tell why, z(t) alone, without any adjoint, is solved backwards too: at the same tolerance, and at that tolerance times
sqrt((2n + P + 1) / n). The augmented system of n states, n adjoints, P parameter gradients and a time gradient amounts to the
latter where its norm is a root mean square and all but z(t) is small against the absolute tolerance.
Rectified linear units hold the order at 2, where evaluations go as the tolerance to the power of -1/3: this alone would leave
0.55 of them with one image (n = 2,304, P = 75,392), 0.87 with 128, and all of them under a maximum norm.

(d): evaluations of a training step, means over the epochs.

Test error over the tolerance of testing is for the whole test set; beside it, fixed grids of Euler's and of Runge and Kutta's
method. Intervals are Wilson's, of 95 %.
"""

import functools
from dataclasses import dataclass
from pathlib import Path

from original_repro import training

from ... import Experiment, Places, Section, option
from ...harness import records
from ...harness.tasks import measure_all
from ...harness.workers import WorkerSettings
from .. import table1_mnist
from . import figures, summary
from .laboratory import check_weights, measure_in_laboratory
from .presets import ALONE, NAME, PRESETS, tasks


@dataclass(frozen=True, kw_only=True)
class RunSettings(WorkerSettings):
    """Settings of a run."""

    weights: Path | None = option(
        None,
        "weights of an ODE-Net, as OUT/weights/table1_mnist-STEM.npz with its record, "
        "OUT/runs/table1_mnist/STEM.json (default: those of `run table1_mnist` with this preset and seed)",
        type=Path,
        metavar="FILE",
    )
    data: str | None = option(
        None, "folder with MNIST's four IDX files (default: cache, else download)", metavar="FOLDER", named=False
    )


def run(settings, places):
    """Measure, write the record and both figures, print the table of panel (c); returns the record.

    Raises FileNotFoundError where there are no weights or no record of their training, ValueError where the weights are those of
    another network.
    """
    weights, training_record = training_results(settings, places)
    params = training.load_weights(weights)
    check_weights(weights, params)
    preset = PRESETS[settings.preset]
    identity = {"settings": preset, "seed": settings.seed, "weights": records.sha256(weights)}
    checkpoint = places.checkpoint(NAME, settings.stem)
    measure = functools.partial(measure_in_laboratory, settings.preset, weights, settings.data, settings.seed)
    rows, seconds = measure_all(tasks(preset), measure, checkpoint, identity, settings.workers, ALONE)
    rows += [
        {
            "part": "training",
            "epoch": epoch["epoch"],
            "nfe_forward": epoch["train"]["nfe_forward"],
            "nfe_backward": epoch["train"]["nfe_backward"],
        }
        for epoch in training_record["history"]
    ]
    configuration = {
        **preset,
        "model": "odenet",
        "weights": str(weights),
        "weights_sha256": identity["weights"],
        "trained_with": {name: training_record["configuration"][name] for name in ("method", "tolerance")},
    }
    record = records.record_run(
        NAME,
        settings,
        places,
        configuration=configuration,
        metrics=summary.metrics(rows, configuration),
        history=rows + summary.verdicts(rows),
        wall_seconds=seconds,
    )
    checkpoint.unlink(missing_ok=True)
    print(summary.markdown_table(record))
    _draw(record, settings, places)
    return record


def redraw(settings, places):
    """Both figures again, from the record; returns their paths. FileNotFoundError where there is none."""
    return _draw(records.kept_record(NAME, settings, places), settings, places)


def _draw(record, settings, places):
    paths = places.figure(NAME, settings.stem), places.figure(NAME, f"test_tolerance-{settings.stem}")
    figures.draw(record, paths[0])
    figures.draw_test(record, paths[1])
    return paths


def training_results(settings, places):
    """(path of the weights, record of their training); FileNotFoundError names the command that makes what is missing."""
    weights = settings.weights or records.kept(places.weights(table1_mnist.NAME, f"{settings.preset}-seed{settings.seed}"))
    stem = weights.stem.removeprefix(f"{table1_mnist.NAME}-")
    record = Places(out=weights.parent.parent).record(table1_mnist.NAME, stem)
    for what, path in (("weights", weights), ("record of the training", record)):
        if not path.is_file():
            raise FileNotFoundError(
                f"no {what} at {path}; `python -m experiments run {table1_mnist.NAME} --preset {settings.preset} "
                f"--seed {settings.seed} --out {places.out}` trains the network and leaves both in {places.out}"
            )
    return weights, records.read_record(record)


EXPERIMENT = Experiment(
    name=NAME,
    source="Figure 3",
    shows="error, time, reverse evaluations and training of an ODE-Net; test error over tolerance",
    run=run,
    redraw=redraw,
    description=__doc__,
    preset_of=lambda settings: PRESETS[settings.preset],
    settings=RunSettings,
    takes={"quick": "1 min"},
    needs=table1_mnist.NAME,
    section=Section(
        "Figure 3, and panel c in full: evaluations backward and forward",
        summary.table,
        captions={
            "": "Figure 3, statistics of a trained ODE-Net: (a) the error of z(1) falls with the evaluations that a tolerance "
            "costs; (b) time is proportional to evaluations, both in logarithms; (c) evaluations backward against those "
            "forward, apart by the loss, with an arrow where a reverse solve was stopped before its end; (d) evaluations grow "
            "in training.",
            "test_tolerance": "Trained with high accuracy, tested with low (section 3): test error over the tolerance of testing "
            "and over the evaluations that it leaves, with intervals of 95 %.",
        },
    ),
)
