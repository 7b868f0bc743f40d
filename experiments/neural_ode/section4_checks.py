"""Theorem 1, Hamiltonian fields and higher derivatives, as numbers.

Theorem 1: d log p(z(t))/dt = -tr df/dz. The integral of the trace along a solve is compared with the log-determinant of the
solved map's derivative, which central differences of the map give, for random planar fields of 2 and 3 dimensions, a random
network with the trace of automatic differentiation, and, where `run figure5_flows` of this preset and seed left weights, for its
flows. Hamiltonian fields (appendix A.1) move two halves by each other: the same determinant has to be 1. All in float64 at 1e-10.

Higher derivatives (appendix D: those of odeint are to any order): dy/dt = -p y^2 from y0 has y(t) = y0 / (1 + p y0 t), whose
second and third derivatives by y0 and by p are compared with those through odeint, one adjoint inside another, for three solvers.
"""

import math

import autograd.numpy as anp
import numpy as np
from autograd import grad

from original_repro.datasets import circles_and_moons
from solvers_bridge import odeint

from .. import Experiment, Section
from ..harness import records
from ..harness.tables import markdown_table
from . import figure5_flows

NAME = "section4_checks"
PRESETS = {
    "quick": {"points": 10, "trained": False, "orders": (2,)},
    "paper": {"points": 100, "trained": True, "orders": (2, 3)},
}
TIGHT, STEP = 1e-10, 1e-5
SOLVERS = ("adams", "lsoda", "dop853")
ORDER_NAMES = {2: "second", 3: "third"}


def run(settings, places):
    """Measure, write and return the record."""
    configuration = {**PRESETS[settings.preset], "tolerance": TIGHT, "difference_step": STEP, "solvers": SOLVERS}
    return records.record_measured(NAME, settings, places, measure, configuration)


def evaluate(settings, places):
    """The metrics of `run`."""
    return measure(settings, places)[0]


def measure(settings, places):
    """(metrics, history): greatest differences and errors, and the rows that they are of."""
    preset = PRESETS[settings.preset]
    history = volume_rows(settings, places, preset) + derivative_rows(preset)
    differences = {part: [row["greatest"] for row in history if row["part"] == part] for part in ("theorem 1", "hamiltonian")}
    return {
        "theorem1_difference_greatest": max(differences["theorem 1"]),
        "hamiltonian_log_det_greatest": max(differences["hamiltonian"]),
        **{
            f"{ORDER_NAMES[order]}_derivative_error": max(row["error"] for row in history if row.get("order") == order)
            for order in preset["orders"]
        },
    }, history


def volume_rows(settings, places, preset):
    """A row for each field: the greatest difference between both log-determinants, or of one from 0, over the points."""
    rng, rows = np.random.default_rng(settings.seed), []
    for part, name, flow, params, dim in _fields(settings, places, preset, rng):
        points = rng.normal(size=(preset["points"], dim))
        by_trace, by_differences = log_determinants(flow, params, points)
        expected = by_trace if part == "theorem 1" else 0.0
        difference = float(np.abs(by_differences - expected).max())
        rows.append({"part": part, "field": name, "dim": dim, "greatest": difference, "moved": float(np.abs(by_trace).max())})
    return rows


def _fields(settings, places, preset, rng):
    """(part, name, flow, parameters, dimensions) of each field."""
    from original_repro import flows, training

    def continuous(dynamics, times=(0.0, 2.0)):
        return flows.ContinuousFlow(dynamics, times, dtype="float64", rtol=TIGHT, atol=TIGHT)

    def livelier(params):
        """float64 and of twice the size, so that a wrong term would show."""
        return training.tree_map(lambda array: 2.0 * array.astype(np.float64), params)

    for dim in (2, 3):
        params = livelier(flows.init_planar_dynamics(rng, 8, dim=dim))
        yield "theorem 1", f"planar, {dim} dimensions", continuous(flows.planar_dynamics), params, dim
    network = livelier(flows.init_hamiltonian_dynamics(rng, dim=4))
    traced = flows.with_trace(lambda t, z, params: flows.hamiltonian_dynamics(t, z, params)[0] - 0.3 * z**3 / (1 + z**2))
    yield "theorem 1", "network, trace by automatic differentiation", continuous(traced), network, 4
    for dim in (2, 4):
        params = livelier(flows.init_hamiltonian_dynamics(rng, dim=dim))
        yield "hamiltonian", f"{dim} dimensions", continuous(flows.hamiltonian_dynamics), params, dim
    if preset["trained"]:
        weights = figure5_flows.kept_weights(settings, places)
        times = figure5_flows.PRESETS[settings.preset]["cnf"]["times"]
        for data in circles_and_moons.NAMES:
            yield "theorem 1", f"trained on {data}", continuous(flows.planar_dynamics, times), weights[data]["cnf"], 2


def log_determinants(flow, params, points):
    """(by the trace, by central differences), each (N,): log |det| of the derivative at points (N, D) of base to data."""
    count, dim = points.shape
    moves = STEP * np.concatenate([np.eye(dim), -np.eye(dim)])
    # Every difference is solved together with its points, by the same steps.
    moved = np.concatenate([points[:, None], points[:, None] + moves], axis=1).reshape(-1, dim)
    states, changes = flow.solve(params, moved, flow.times)
    images = states[-1].reshape(count, 1 + 2 * dim, dim)
    derivatives = (images[:, 1 : 1 + dim] - images[:, 1 + dim :]) / (2 * STEP)
    return -changes[-1].reshape(count, -1)[:, 0], np.linalg.slogdet(derivatives)[1]


def derivative_rows(preset):
    """A row for each solver, order and variable: relative error of the derivative of y(1) through odeint."""
    y0, p, t = 0.7, 1.3, 1.0
    q, rows = 1 + p * y0 * t, []
    # y = y0 / q: derivatives by y0 are (-p t)^(n-1) n! / q^(n+1), those by p (-t)^n n! y0^(n+1) / q^(n+1).
    for method in SOLVERS:

        def end(y0, p, method=method):
            ys = odeint(lambda t, y, p: -p * y**2, anp.array([y0]), [0.0, t], p, method=method, rtol=TIGHT, atol=TIGHT)
            return ys[-1][0]

        for order in preset["orders"]:
            exact = {
                "y0": math.factorial(order) * (-p * t) ** (order - 1) / q ** (order + 1),
                "p": math.factorial(order) * (-t) ** order * y0 ** (order + 1) / q ** (order + 1),
            }
            for number, variable in enumerate(exact):
                derivative = end
                for _ in range(order):
                    derivative = grad(derivative, number)
                error = float(abs(derivative(y0, p) / exact[variable] - 1))
                rows.append({"part": "derivative", "solver": method, "order": order, "variable": variable, "error": error})
    return rows


def table(found):
    """All checks of the first record, in Markdown."""
    record = records.first(found, NAME)
    if record is None:
        return ""
    volumes = [
        [row["part"], row["field"], f"{row['moved']:.3g}", f"{row['greatest']:.1e}"]
        for row in record["history"]
        if row["part"] != "derivative"
    ]
    derivatives = [
        [row["solver"], row["order"], row["variable"], f"{row['error']:.1e}"]
        for row in record["history"]
        if row["part"] == "derivative"
    ]
    return "\n\n".join(
        [
            markdown_table(
                ["check", "field", "greatest log-determinant by the trace", "greatest difference of the solved map's"], volumes
            ),
            markdown_table(["solver", "order of the derivative", "by", "relative error"], derivatives),
        ]
    )


EXPERIMENT = Experiment(
    name=NAME,
    source="Theorem 1 and appendix D",
    shows="log-densities, volumes and higher derivatives against what they have to be",
    run=run,
    description=__doc__,
    preset_of=lambda settings: PRESETS[settings.preset],
    evaluate=evaluate,
    measure=measure,
    kept=({},),
    takes={"quick": "20 s"},
    needs=figure5_flows.NAME,
    section=Section("Theorem 1, volume, and higher derivatives", table),
)
