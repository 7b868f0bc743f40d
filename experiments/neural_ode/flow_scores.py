"""Figure 5 and section 4, scored from kept weights: both flows on the same points, and what a continuous flow costs.

The weights are those that `run figure5_flows` of the same preset and seed left. Scores: log-likelihoods (nats) of the continuous
flow (CNF) and of the planar one (NF) on that run's test points, and their gap point by point, whose standard error is that of
the differences: both see the same points. Loss of the tolerance: the CNF's mean log-likelihood at 1e-5, that of training, against
1e-8. Sampling: evaluations and seconds (median of five, in turn) of drawing points with their densities, from the base to the
data, against the density of as many points of the data, the other way. Inversion: test points to the base and back in float64 at
tolerances from 1e-3 to 1e-10, their distances from where they began. Cost: the median time of an evaluation of the dynamics with
its trace, for planar fields of 64 to 16,384 units at 500 points; with few units most of it is what any call costs.
"""

import time

import numpy as np

from original_repro.datasets import circles_and_moons

from .. import Experiment, Section
from ..harness import records
from ..harness.statistics import standard_error
from ..harness.tables import markdown_table, with_standard_error
from . import figure5_fits, figure5_flows
from .figure5_figures import LABELS

NAME = "flow_scores"
PRESETS = {
    "quick": {"ladder": (1e-3, 1e-5, 1e-7), "points": 500, "units": (64, 256, 1024), "repeats": 20, "solves": 3},
    "paper": {
        "ladder": tuple(10.0**-power for power in range(3, 11)),
        "points": 500,
        "units": (64, 256, 1024, 2048, 4096, 8192, 16384),
        "repeats": 50,
        "solves": 5,
    },
}
TIGHT = 1e-8


def run(settings, places):
    """Measure with the weights, write and return the record. FileNotFoundError where there are none."""
    weights = places.weights(figure5_flows.NAME, settings.stem).name
    return records.record_measured(NAME, settings, places, measure, {"weights": weights, **PRESETS[settings.preset]})


def evaluate(settings, places):
    """The metrics of `run`."""
    return measure(settings, places)[0]


def measure(settings, places):
    """(metrics, history) of the flows that figure5_flows left."""
    preset = PRESETS[settings.preset]
    from original_repro import flows

    weights = figure5_flows.kept_weights(settings, places)
    flow_preset = figure5_flows.PRESETS[settings.preset]
    metrics, history = {}, cost_rows(preset, flows)
    for data in circles_and_moons.NAMES:
        test = circles_and_moons.load(data, **flow_preset["data"], seed=settings.seed).test
        cnf = figure5_fits.flow_of("cnf", flow_preset, flows)
        nf = figure5_fits.flow_of("nf", flow_preset, flows)
        metrics |= scores(data, cnf, nf, weights[data], test)
        metrics |= costs_of_both_ways(data, cnf, weights[data]["cnf"], test[: figure5_flows.BATCH], settings.seed, preset)
        history += inversion_rows(data, weights[data]["cnf"], flow_preset["cnf"], test[: preset["points"]], preset, flows)
    for name in ("tolerance_loss", "sampling_over_density_nfe", "sampling_over_density_seconds"):
        metrics[f"{name}_greatest"] = max(metrics[f"{name}_{data}"] for data in circles_and_moons.NAMES)
    return metrics, history


def scores(data, cnf, nf, params, test):
    """Log-likelihoods of both flows on test points, their paired gap, and what the CNF's tolerance costs, in nats."""
    ours = figure5_flows.log_likelihoods(cnf, params["cnf"], test)
    theirs = figure5_flows.log_likelihoods(nf, params["nf"], test)
    loose = dict(cnf.solver)
    cnf.solver |= {"rtol": TIGHT, "atol": TIGHT}
    tight = figure5_flows.log_likelihoods(cnf, params["cnf"], test)
    cnf.solver = loose
    return {
        f"log_likelihood_{data}_cnf": float(ours.mean()),
        f"log_likelihood_{data}_nf": float(theirs.mean()),
        f"gap_{data}": float((ours - theirs).mean()),
        f"gap_{data}_se": standard_error(ours - theirs),
        f"gap_{data}_unpaired_se": float(np.hypot(standard_error(ours), standard_error(theirs))),
        f"tolerance_loss_{data}": float(abs(ours.mean() - tight.mean())),
    }


def costs_of_both_ways(data, flow, params, points, seed, preset):
    """Evaluations and seconds of sampling as many points as `points` (N, 2), and of their density."""
    from solvers_bridge import record_solves

    base = np.random.default_rng([seed, 1]).normal(size=points.shape)
    ways = {"sampling": lambda: flow.sample(params, base), "density": lambda: flow.log_density(params, points)}
    nfe, seconds = {}, {way: [] for way in ways}
    for _ in range(preset["solves"]):
        for way, solve in ways.items():
            with record_solves() as solves:
                solve()
            nfe[way] = solves[0].nfe
            seconds[way].append(solves[0].wall_seconds)
    median = {way: float(np.median(taken)) for way, taken in seconds.items()}
    return {
        **{f"{way}_nfe_{data}": count for way, count in nfe.items()},
        **{f"{way}_seconds_{data}": taken for way, taken in median.items()},
        f"sampling_over_density_nfe_{data}": nfe["sampling"] / nfe["density"],
        f"sampling_over_density_seconds_{data}": median["sampling"] / median["density"],
    }


def inversion_rows(data, params, settings, points, preset, flows):
    """Distances between points (N, 2) and the same solved to the base and back, in float64, a row for each tolerance."""
    flow = figure5_fits.continuous_flow(settings, flows, dtype="float64")
    rows = []
    for tolerance in preset["ladder"]:
        flow.solver |= {"rtol": tolerance, "atol": tolerance}
        z = flow.solve(params, points, flow.times[::-1])[0][-1]
        distances = np.linalg.norm(flow.solve(params, z, flow.times)[0][-1] - points, axis=1)
        largest, rms = float(distances.max()), float(np.sqrt(np.mean(distances**2)))
        rows.append({"part": "inversion", "data": data, "tolerance": tolerance, "max": largest, "rms": rms})
    return rows


def cost_rows(preset, flows):
    """Median seconds of an evaluation of planar fields with their traces, a row for each number of units."""
    import tensorflow as tf

    rng = np.random.default_rng(0)
    points = tf.constant(rng.normal(size=(preset["points"], 2)), tf.float32)
    rows = []
    for units in preset["units"]:
        params = tf.nest.map_structure(tf.constant, flows.init_planar_dynamics(rng, units))
        graph = tf.function(flows.planar_dynamics)
        seconds = []
        for _ in range(preset["repeats"] + 1):
            begun = time.perf_counter()
            graph(tf.constant(0.5), points, params)[1].numpy()
            seconds.append(time.perf_counter() - begun)
        rows.append({"part": "cost", "units": units, "seconds": float(np.median(seconds[1:]))})
    return rows


def table(found):
    """The gaps of every seed, when either flow reached the other's likelihood, and both ways' costs, in Markdown."""
    rows = []
    for _, record in found:
        if record["experiment"] != NAME:
            continue
        training = next(
            (
                other["history"]
                for _, other in found
                if (other["experiment"], other["preset"], other["seed"]) == (figure5_flows.NAME, record["preset"], record["seed"])
            ),
            [],
        )
        metrics = record["metrics"]
        rows += [
            [
                LABELS[data],
                record["preset"],
                record["seed"],
                with_standard_error(metrics, f"gap_{data}"),
                reaching(training, data, "cnf"),
                reaching(training, data, "nf"),
                f"{metrics[f'sampling_nfe_{data}']}, {metrics[f'density_nfe_{data}']}",
                f"{metrics[f'tolerance_loss_{data}']:.2g}",
            ]
            for data in circles_and_moons.NAMES
        ]
    return markdown_table(
        [
            "data",
            "preset",
            "seed",
            "CNF over NF, nats, paired",
            "CNF reaches the NF's best after",
            "NF reaches the CNF's best after",
            "evaluations of sampling and density",
            "nats that 1e-5 costs",
        ],
        rows,
    )


def reaching(history, data, flow):
    """When a flow first had the other's best validation log-likelihood: iterations and seconds, or that it never had."""
    mine, other = (
        [row for row in history if row.get("part") == "training" and row["data"] == data and (row["flow"] == flow) == own]
        for own in (True, False)
    )
    if not mine or not other:
        return ""
    goal, seconds = max(row["validation_log_likelihood"] for row in other), 0.0
    for row in mine:
        seconds += row["seconds"]
        if row["validation_log_likelihood"] >= goal:
            return f"{row['steps']:,} iterations, {seconds:,.0f} s"
    return f"not in {mine[-1]['steps']:,} iterations, {seconds:,.0f} s"


EXPERIMENT = Experiment(
    name=NAME,
    source="Figure 5 and section 4",
    shows="both flows scored on the same points; inversion, sampling and cost of continuous flows, from kept weights",
    run=run,
    description=__doc__,
    preset_of=lambda settings: PRESETS[settings.preset],
    evaluate=evaluate,
    measure=measure,
    kept=({},),
    takes={"quick": "1 min"},
    in_all=False,  # What it checks are the trained networks of the paper preset.
    needs=figure5_flows.NAME,
    section=Section("Figure 5: paired scores", table),
)
