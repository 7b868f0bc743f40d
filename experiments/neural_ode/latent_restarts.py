"""What the reverse sweep of a latent ODE costs, way by way: it restarts at each of up to 100 output times.

The paper's way begins a new solve with VODE's Adams method at every output time, at order one and with tiny steps. Compared
with it, on the gradient of a training batch's ELBO with respect to all parameters: warm restarts from a known step; LSODA;
one-step methods whose first step is known (the spacing of the output times, which they then cross in one step); the classical
Runge-Kutta method on the grid of the output times, or half or twice as fine in cost (midpoint, rk4_half); the seminorm; stored
states between the output times (checkpoints); looser tolerances. On a fixed grid nothing controls the error, but z(t) restarts
from stored states, so only the error of the adjoint accumulates.

The forward solve is the same for all, VODE's Adams method at the paper's 1.5e-8, but for `all_1e-5`, where it is looser as
well. Table 2 is trained with fewer restarts still: an iteration has only FEW_TIMES of the output times in its log-likelihood,
drawn at random and weighed so that the gradient's expectation is the same. That is `few_times`, whose error is the noise that
this adds.

The reference is dop853 at 1e-12 both ways. The model is a latent ODE trained for a number of iterations, since dynamics at
their initialisation are slow and smooth. Error: greatest difference from the reference over the reference's greatest entry.
Seconds: the least of the rounds, in which the ways take turns; gradient noise: the error that another draw of z0 from q(z0)
makes, beside which any of these errors can be judged.
"""

import itertools
import time
from dataclasses import dataclass

import numpy as np
from tabulate import tabulate

from original_repro import training

from .. import Experiment, Section, Settings, option
from ..harness import plotting, records
from ..harness.progress import Progress
from ..harness.tables import markdown_table
from . import spiral_fits, table2_latent_ode
from .spiral_fits import BEST, FEW_TIMES, WAYS

NAME = "latent_restarts"
PRESETS = {
    "quick": {
        "batch_size": 50,
        "rounds": 1,
        "trajectories": {"train": 200, "validation": 20, "test": 20},
        "training": {**table2_latent_ode.PRESETS["quick"]["latent_ode"], "stages": [[25, 25]]},
    },
    "paper": {
        "batch_size": 100,
        "rounds": 5,
        "trajectories": {"train": 1000, "validation": 20, "test": 20},
        "training": {
            **table2_latent_ode.PRESETS["paper"]["latent_ode"],
            **table2_latent_ode.PRESETS["paper"]["latent_ode_100"],
            "stages": [[25, 400], [50, 400], [100, 400]],
        },
    },
}
REFERENCE = {"method": "dop853", "rtol": 1e-12, "atol": 1e-12}


@dataclass(frozen=True, kw_only=True)
class RunSettings(Settings):
    """Settings of a run."""

    points: int = option(100, "observations of each spiral (default: 100)", type=int)


def run(settings, places):
    """Train for a while, take gradients every way, write record and figure; returns the record."""
    from original_repro import latent_ode

    begun = time.perf_counter()
    preset = PRESETS[settings.preset]
    task = {
        "model": "latent_ode",
        "points": settings.points,
        "seed": settings.seed,
        "noise": 0.1,
        "geometry": "growing",
        "encoder": "rnn",
        "reverse": BEST,
        "trajectories": preset["trajectories"],
        **preset["training"],
    }
    checkpoint = places.checkpoint_folder(NAME, settings.stem) / "fit.npz"
    params = spiral_fits.fit({**task, "checkpoint": str(checkpoint)})["params"]
    data = spiral_fits.make_data(task)[0]
    batch = spiral_fits.series(data, slice(preset["batch_size"]))
    net, rng = latent_ode.LatentOde(), np.random.default_rng(settings.seed)
    draws, other_draws = rng.normal(size=(2, len(batch[0]), 4))
    exact = net.with_solver(**REFERENCE)
    reference, other = (_flat(exact.value_and_grad(params, *batch, some)[1]) for some in (draws, other_draws))
    nets = {way: net.with_solver(**solver) for way, solver in WAYS.items()}
    gradients = {way: lambda net=net: net.value_and_grad(params, *batch, draws) for way, net in nets.items()}
    few = latent_ode.weights_of_few_times(batch[0], batch[2], data.grid, FEW_TIMES, rng)
    gradients["few_times"] = lambda: nets[BEST].value_and_grad(params, *batch, draws, few)
    rows = {way: {"way": way, "seconds": np.inf} for way in gradients}
    rounds = range(preset["rounds"] + 1)
    with Progress(len(rounds) * len(gradients), "gradients") as shown:
        for i, (way, take_gradient) in itertools.product(rounds, gradients.items()):
            started = time.perf_counter()
            measured, gradient = take_gradient()
            seconds = time.perf_counter() - started
            # The first round makes the graphs.
            rows[way] |= {
                "seconds": min(seconds, rows[way]["seconds"]) if i else np.inf,
                "nfe_forward": measured["nfe_forward"],
                "nfe_backward": measured["nfe_backward"],
                "gradient_error": _error(_flat(gradient), reference),
            }
            shown.done(way)
    metrics = {f"{what}_{way}": row[what] for way, row in rows.items() for what in ("nfe_backward", "gradient_error", "seconds")}
    metrics |= {"gradient_noise": _error(other, reference), "nfe_forward": rows["paper"]["nfe_forward"]}
    configuration = {
        "data": "spirals, noise 0.1",
        "points": settings.points,
        **preset,
        "ways": WAYS,
        "reference": REFERENCE,
        "few_times": FEW_TIMES,
        "method": "adams",
        "tolerance": 1.5e-8,
    }
    record = records.record_run(
        NAME,
        settings,
        places,
        configuration=configuration,
        metrics=metrics,
        history=list(rows.values()),
        wall_seconds=time.perf_counter() - begun,
    )
    print(
        tabulate(
            [list(row.values()) for row in rows.values()],
            floatfmt=".3g",
            headers=["reverse sweep", "seconds", "nfe forward", "nfe backward", "gradient error"],
        )
    )
    _draw(rows, metrics["gradient_noise"], places.figure(NAME, settings.stem))
    return record


def _flat(gradient):
    return np.concatenate([np.ravel(leaf) for leaf in training.tree_leaves(gradient)])


def _error(gradient, reference):
    return float(np.abs(gradient - reference).max() / np.abs(reference).max())


def _draw(rows, noise, path):
    """Error over seconds, with the evaluations of the reverse sweep at each way's point."""
    figure, axes = plotting.subplots(figsize=(8.5, 4.8))
    for row in rows.values():
        axes.plot(
            row["seconds"],
            row["gradient_error"],
            "o",
            color="C3" if row["way"] == "paper" else "C2" if row["way"] == BEST else "C0",
        )
        # Slanted, since many ways have the same error.
        axes.annotate(
            f"{row['way']}, {row['nfe_backward']}",
            (row["seconds"], row["gradient_error"]),
            xytext=(0, 5),
            textcoords="offset points",
            fontsize=8,
            rotation=50,
            rotation_mode="anchor",
        )
    axes.axhline(noise, color="grey", linestyle=":", linewidth=1)
    axes.annotate(
        "another draw of z0",
        (0.99, noise),
        xycoords=("axes fraction", "data"),
        xytext=(0, 3),
        ha="right",
        textcoords="offset points",
        fontsize=8,
        color="grey",
    )
    axes.set(
        xscale="log",
        yscale="log",
        xlabel="seconds a gradient (forward and reverse)",
        ylabel="greatest error of the gradient, relative",
    )
    left, right = axes.get_xlim()
    axes.set(xlim=(left, right * 1.2), ylim=(None, 20))
    axes.set_title("Reverse sweep of a latent ODE: way, evaluations")
    plotting.save(figure, path)


def table(found):
    """Evaluations, errors and seconds of every way, in Markdown."""
    record = records.first(found, NAME)
    if not record:
        return ""
    metrics, prefix = record["metrics"], "nfe_backward_"
    ways = [name.removeprefix(prefix) for name in metrics if name.startswith(prefix)]
    return markdown_table(
        ["reverse sweep", "evaluations", "gradient error", "seconds"],
        [
            [
                way,
                *(
                    f"{metrics[name]:.3g}" if metrics.get(name) is not None else ""
                    for name in (prefix + way, f"gradient_error_{way}", f"seconds_{way}")
                ),
            ]
            for way in ways
        ],
    )


EXPERIMENT = Experiment(
    name=NAME,
    source="Section 5",
    shows="cost and error of the latent ODE's reverse sweep, way by way",
    run=run,
    description=__doc__,
    preset_of=lambda settings: PRESETS[settings.preset],
    settings=RunSettings,
    takes={"quick": "1 min"},
    section=Section(
        "What restarts of the reverse sweep cost",
        table,
        captions={
            "": "Section 5, the latent ODE's reverse sweep: the gradient's error over its time for every way to solve it, the "
            "paper's in red, the one used here in green, each with its evaluations."
        },
    ),
)
