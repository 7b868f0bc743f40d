"""Figure 5: continuous against planar normalizing flows on Two Circles and Two Moons, by maximum likelihood.

As in the paper, a continuous flow (CNF) of 64 units stands beside a planar flow (NF) of 64 one-unit layers, here with the
layers running from the data to the base, so that the likelihood needs no inversion. The paper gives neither sizes of the data
nor optimisers for this figure: here 10,000 training, 5,000 validation and 10,000 test points, and the optimisers of Figure 4,
Adam (512 points an iteration) and RMSprop (256). Rates fall to zero by half a cosine. Peaks were compared on validation data:
1e-2 for the NF, in fits of 40,000 iterations, where 3e-3 and 1e-3 did worse on Two Circles; 3e-3 for the CNF, as in Figure 4:
1e-2 learnt faster in fits of 600 iterations, with up to three times the evaluations, so the quick preset alone has it. The
number of iterations is chosen on validation data too: of twenty looks at it in the course of a fit (quick: four), the
parameters at the best one are kept. Test points are looked at once, with those.

log_likelihood (nats) is the mean over test points, with its standard error. No model can exceed that of the density that the
data came from, but by chance; it is recorded as "true".

Reversal (an informal claim of section 6: reversing a CNF recovers its initial states): test points are solved to the base and
back at the tolerance of training, 1e-5, and the distances to where they began are recorded; in the history at other tolerances
as well, in float32, the precision of training, and in float64. A finished run leaves its weights in OUT/weights.
"""

import functools
import math
import sys
import time
from dataclasses import dataclass

import numpy as np

from original_repro import training
from original_repro.datasets import circles_and_moons
from solvers_bridge.dynamics.base import COMPILERS

from .. import Experiment, Section, option
from ..harness import records
from ..harness.statistics import standard_error
from ..harness.tables import markdown_table, with_standard_error
from ..harness.workers import WorkerSettings, run_tasks
from . import figure5_figures
from .figure5_figures import IMAGE_SIDE, LABELS, SHOWN
from .figure5_fits import Best, continuous_flow, fit_cnf, fit_nf, flow_of
from .seeds import check_compiled_seed

NAME = "figure5_flows"
REVERSAL_TOLERANCES = (1e-3, 1e-4, 1e-5, 1e-6, 1e-7, 1.5e-8)
IMAGE_POINTS, BATCH = 100, 2500
COMPILER = "auto"

NF = {"optimiser": "rmsprop", "decay": 0.9, "peak_rate": 1e-2, "batch_size": 256}
CNF = {"optimiser": "adam", "peak_rate": 3e-3, "batch_size": 512, "times": (0.0, 10.0), "method": "adams", "tolerance": 1e-5}
PRESETS = {
    "quick": {
        "data": {"train": 5_000, "validation": 2_500, "test": 2_500},
        "looks": 4,
        "paths": 500,
        "frames": 20,
        "nf": {**NF, "size": 8, "iterations": 8_000, "chunk": 500},
        "cnf": {**CNF, "peak_rate": 1e-2, "size": 64, "iterations": 500},
    },
    "paper": {
        "data": {"train": 10_000, "validation": 5_000, "test": 10_000},
        "looks": 20,
        "paths": 1_500,
        "frames": 40,
        "nf": {**NF, "size": 64, "iterations": 200_000, "chunk": 500},
        "cnf": {**CNF, "size": 64, "iterations": 5_000},
    },
}


@dataclass(frozen=True, kw_only=True)
class RunSettings(WorkerSettings):
    """Settings of a run."""

    nf_iterations: int | None = option(
        None, "of the NF, instead of the preset's; Figure 4 of the paper has 500,000", type=int, metavar="N", least=1
    )
    compiler: str | None = option(None, "what makes code of the CNF's dynamics in training (default: auto)", choices=COMPILERS)


def run(settings, places):
    """Fit, evaluate, record, weights, figure and animation; returns the record."""
    check_compiled_seed(settings.seed)
    preset = preset_of(settings)
    compiler = settings.compiler or COMPILER
    folder = places.checkpoint_folder(NAME, settings.stem)
    tasks = [
        {
            "data": data,
            "flow": flow,
            "settings": preset,
            "compiler": compiler,
            "seed": settings.seed,
            "checkpoint": folder / f"{data}-{flow}.npz",
        }
        for flow in ("cnf", "nf")
        for data in circles_and_moons.NAMES
    ]
    begun = time.perf_counter()
    fits = {(one["data"], one["flow"]): one for one in run_tasks(fit, tasks, settings.workers)}
    training.save_weights(
        places.weights(NAME, settings.stem),
        {data: {flow: fits[data, flow]["params"] for flow in ("cnf", "nf")} for data in circles_and_moons.NAMES},
    )
    configuration = {**preset, "compiler": compiler, "noise": circles_and_moons.NOISE, "schedule": "cosine to zero"}
    record = records.record_run(
        NAME,
        settings,
        places,
        configuration=configuration,
        metrics={name: value for one in fits.values() for name, value in one["metrics"].items()},
        history=[row for one in fits.values() for row in one["history"]],
        wall_seconds=time.perf_counter() - begun,
    )
    _draw({pair: one["drawn"] for pair, one in fits.items()}, record["metrics"], settings, places)
    return record


def preset_of(settings):
    """The preset of a run, with the NF's iterations of its own. ValueError where they are no multiple of what a look takes."""
    preset, iterations = PRESETS[settings.preset], settings.nf_iterations
    if iterations is None:
        return preset
    least = preset["looks"] * preset["nf"]["chunk"]
    if iterations % least:
        raise ValueError(f"--nf-iterations must be a multiple of {least}, got {iterations}")
    return {**preset, "nf": {**preset["nf"], "iterations": iterations}}


def redraw(settings, places):
    """Figure and animation again, from the weights and the record that the run left; returns their paths."""
    from original_repro import flows

    preset, weights = PRESETS[settings.preset], kept_weights(settings, places)
    drawn = {}
    for data in circles_and_moons.NAMES:
        test = circles_and_moons.load(data, **preset["data"], seed=settings.seed).test
        for kind in ("cnf", "nf"):
            flow = flow_of(kind, preset, flows)
            drawn[data, kind] = _to_draw(kind, flow, weights[data][kind], test, preset, settings.seed, flows)
    return _draw(drawn, records.kept_record(NAME, settings, places)["metrics"], settings, places)


def _draw(drawn, metrics, settings, places):
    true = {data: _image(functools.partial(circles_and_moons.log_density, data)) for data in circles_and_moons.NAMES}
    paths = places.figure(NAME, settings.stem), places.figure(NAME, settings.stem, ".gif")
    figure5_figures.draw(drawn, true, metrics, paths[0])
    figure5_figures.animate(drawn, paths[1])
    return paths


def fit(task):
    """One flow fitted to one data set, in a worker process, with what is measured of it and drawn.

    Returns {"data", "flow", "params", "metrics", "history", "drawn"}, the last as of `_to_draw`.
    """
    # TensorFlow takes seconds to import, and `list` should not.
    from original_repro import flows

    data, kind, settings = task["data"], task["flow"], task["settings"]
    split = circles_and_moons.load(data, **settings["data"], seed=task["seed"])
    flow, fit_flow = flow_of(kind, settings, flows), fit_cnf if kind == "cnf" else fit_nf
    best = Best(task["checkpoint"], lambda params: log_likelihoods(flow, params, split.validation).mean())
    history = fit_flow(task, flow, split.train, best)
    params = best.params()
    metrics, reversal = test_metrics(data, kind, flow, params, split.test, settings[kind], flows)
    metrics |= {
        f"iterations_{data}_{kind}": best.steps(history),
        f"seconds_{data}_{kind}": sum(row["seconds"] for row in history),
    }
    name = f"log_likelihood_{data}"
    rows = [{"part": "training", "data": data, "flow": kind, **row} for row in history]
    rows += [{"part": "reversal", "data": data, **row} for row in reversal]
    print(
        f"{LABELS[data]}, {LABELS[kind]}: {metrics[f'{name}_{kind}']:.4f} ± {metrics[f'{name}_{kind}_se']:.4f} nats, "
        f"{metrics[f'seconds_{data}_{kind}']:.0f} s",
        file=sys.stderr,
        flush=True,
    )
    return {
        "data": data,
        "flow": kind,
        "params": params,
        "metrics": metrics,
        "history": rows,
        "drawn": _to_draw(kind, flow, params, split.test, settings, task["seed"], flows),
    }


def test_metrics(data, kind, flow, params, test, settings, flows):
    """(metrics of one flow on test points (N, 2), rows of its reversal, which only a CNF has)."""
    mine, name = log_likelihoods(flow, params, test), f"log_likelihood_{data}"
    metrics = {f"{name}_{kind}": float(mine.mean()), f"{name}_{kind}_se": standard_error(mine)}
    if kind != "cnf":
        return metrics, []
    true = circles_and_moons.log_density(data, test)
    reversal = reversal_rows(params, settings, test[:BATCH], flows)
    at_training = next(row for row in reversal if row["tolerance"] == settings["tolerance"] and row["dtype"] == "float32")
    metrics |= {
        f"{name}_true": float(true.mean()),
        f"{name}_true_se": standard_error(true),
        f"reversal_error_{data}_max": at_training["max"],
        f"reversal_error_{data}_rms": at_training["rms"],
    }
    return metrics, reversal


def evaluate(settings, places):
    """The metrics of the flows whose weights the run left, on its test points. FileNotFoundError where there are none."""
    from original_repro import flows

    preset, weights, metrics = PRESETS[settings.preset], kept_weights(settings, places), {}
    for data in circles_and_moons.NAMES:
        test = circles_and_moons.load(data, **preset["data"], seed=settings.seed).test
        for kind in ("cnf", "nf"):
            flow = flow_of(kind, preset, flows)
            metrics |= test_metrics(data, kind, flow, weights[data][kind], test, preset[kind], flows)[0]
    return metrics


def kept_weights(settings, places):
    """{data: {kind: parameters}} that the run left.

    FileNotFoundError, with the command that makes them, where there are none; ValueError where they are of another model.
    """
    from original_repro import flows

    path = records.kept(places.weights(NAME, settings.stem))
    if not path.is_file():
        raise FileNotFoundError(
            f"no weights at {path}; `python -m experiments run {NAME} --preset {settings.preset}` leaves them"
        )
    weights, preset, rng = training.load_weights(path), PRESETS[settings.preset], np.random.default_rng(0)
    expected = {
        "cnf": flows.init_planar_dynamics(rng, preset["cnf"]["size"]),
        "nf": flows.init_planar_flow(rng, preset["nf"]["size"]),
    }
    training.check_weights(path, weights, dict.fromkeys(circles_and_moons.NAMES, expected), f"`run {NAME}`")
    return weights


def log_likelihoods(flow, params, x):
    """Log density at each of the points x, whose number is a multiple of BATCH: graphs are compiled for one number of points."""
    return np.concatenate([flow.log_density(params, part) for part in np.split(x, len(x) // BATCH)])


def reversal_rows(params, settings, x, flows):
    """Distances between x and x solved to the base and back, a row for each precision and tolerance."""
    rows = []
    for dtype in ("float32", "float64"):
        flow = continuous_flow(settings, flows, dtype=dtype)
        for tolerance in REVERSAL_TOLERANCES:
            flow.solver |= {"rtol": tolerance, "atol": tolerance}
            z = flow.solve(params, x, flow.times[::-1])[0][-1]
            distances = np.linalg.norm(flow.solve(params, z, flow.times)[0][-1] - x, axis=1)
            rows.append(
                {
                    "dtype": dtype,
                    "tolerance": tolerance,
                    "max": float(distances.max()),
                    "rms": float(np.sqrt(np.mean(distances**2))),
                }
            )
    return rows


def _to_draw(kind, flow, params, test, settings, seed, flows):
    """What the figures show of a flow: {"images": densities at the SHOWN shares of the way from the base to the data, "samples"},
    of an NF also the "layers" of each image, of a CNF the "test" points and the "paths" of samples (frames, points, 2).
    """
    base = np.random.default_rng([seed, 1]).normal(size=(BATCH, 2))
    if kind == "cnf":
        return {**_over_time(flow, params, base, settings, flows), "test": test[:BATCH]}
    size = settings["nf"]["size"]
    layers = [math.ceil(share * size) for share in SHOWN]
    images = []
    for count in layers:
        # Layers run from the data to the base: the last ones alone make the base's next densities.
        last = {name: array[size - count :] for name, array in params.items()}
        images.append(_image(functools.partial(flow.log_density, last)))
    return {"samples": [flow.sample(params, base)[0]], "images": images, "layers": layers}


def _over_time(flow, params, base, settings, flows):
    """Samples and densities of a CNF at the SHOWN shares of its time, and the paths of some samples."""
    start, end = flow.times
    times = start + np.array(SHOWN) * (end - start)

    def log_density_at(shown, x):
        z, change = flow.solve(params, x, (shown, start))
        return flows.log_normal(z[-1]) - change[-1]

    return {
        "samples": list(flow.solve(params, base, [start, *times])[0][1:]),
        "images": [_image(functools.partial(log_density_at, shown)) for shown in times],
        "paths": flow.solve(params, base, np.linspace(start, end, settings["frames"]))[0][:, : settings["paths"]],
    }


def _image(log_density):
    """exp of log_density on a square grid, (IMAGE_POINTS, IMAGE_POINTS), rows upwards."""
    side = np.linspace(-IMAGE_SIDE, IMAGE_SIDE, IMAGE_POINTS)
    points = np.stack(np.meshgrid(side, side), -1).reshape(-1, 2)
    return np.exp(np.concatenate([log_density(part) for part in np.split(points, len(points) // BATCH)])).reshape(
        IMAGE_POINTS, IMAGE_POINTS
    )


def table(found):
    """Held-out log-likelihoods, in Markdown."""
    rows = [
        [LABELS[data], flow.upper(), with_standard_error(record["metrics"], f"log_likelihood_{data}_{flow}")]
        for record in filter(None, [records.first(found, NAME)])
        for data in circles_and_moons.NAMES
        for flow in ("nf", "cnf")
    ]
    return markdown_table(["data", "flow", "held-out log-likelihood, nats"], rows)


EXPERIMENT = Experiment(
    name=NAME,
    source="Figure 5",
    shows="continuous and planar normalizing flows on Two Circles and Two Moons, by maximum likelihood",
    run=run,
    description=__doc__,
    preset_of=preset_of,
    settings=RunSettings,
    takes={"quick": "3 min"},
    evaluate=evaluate,
    redraw=redraw,
    kept=({},),
    section=Section(
        "Figure 5: maximum likelihood",
        table,
        captions={
            "": "Figure 5, noise becoming data: densities and samples of the continuous flow (CNF) at shares of its integration "
            "time, densities of the planar flow (NF) after as large a share of its layers, which pass outside the frame, and the "
            "data, all in one colour scale; below the last ones their mean log-likelihood on held-out points.",
            "gif": "Samples of both continuous flows on their way from the base to the data.",
        },
    ),
)
