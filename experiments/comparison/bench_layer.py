"""The ODE layer of an ODE-Net, timed: solvers beside each other, graphs beside bare convolutions, and torchdiffeq.

The layer is `modern.problems.layer`, that of the ODE-Net at its initialisation.
"""

import functools
import time

import numpy as np
import tensorflow as tf
from autograd import make_vjp
from tabulate import tabulate

from original_repro import supervised
from original_repro.datasets import mnist
from solvers_bridge import odeint, record_solves
from solvers_bridge.adjoint import Augmented
from solvers_bridge.dynamics import Dynamics
from solvers_bridge.dynamics.base import leaf_tuple, num_params
from solvers_bridge.nested import Layout, flatten

from ..harness import workers
from ..harness.digits import digits
from ..harness.threads import threads
from ..neural_ode import table1_mnist
from .goals import GOALS
from .modern import problems
from .modern.of_solvers_bridge import Bridge
from .side_by_side import Step, candidate, compare, flat, heading, over, peers, summarise, take_turns

BATCH, CHANNELS, TOLERANCE = 128, 64, 1e-3
PEERS = {"torchdiffeq": ("torchdiffeq", "dopri5, adjoint")}


class TimedDynamics(Dynamics):
    """Another Dynamics, with a count of the seconds spent inside its right-hand sides (and, in `adjoint`, its adjoint's)."""

    def __init__(self, dynamics):
        self.dynamics, self.seconds, self.adjoint = dynamics, 0.0, None

    def bind(self, layout, structure, leaves):
        rhs = self.dynamics.bind(layout, structure, leaves)

        def timed(t, z):
            begun = time.perf_counter()
            dz = rhs(t, z)
            self.seconds += time.perf_counter() - begun
            return dz

        return timed

    def bind_jacobian(self, layout, structure, leaves):
        return self.dynamics.bind_jacobian(layout, structure, leaves)

    def augmented(self, layout, structure):
        self.adjoint = self.adjoint or TimedDynamics(self.dynamics.augmented(layout, structure))
        return self.adjoint

    def tangent(self, layout, structure):
        return self.dynamics.tangent(layout, structure)


def step(layer, **solver):
    """A Step of the layer at tolerance 1e-3, with the shares of its solves outside the graphs."""
    dynamics, problem = TimedDynamics(layer.dynamics), layer.problem
    solver = {"rtol": TOLERANCE, "atol": TOLERANCE, **solver}
    with record_solves() as solves:
        begun = time.perf_counter()
        pullback, _ = make_vjp(lambda y0, params: odeint(dynamics, y0, problem.t, params, **solver), (0, 1))(
            problem.y0, layer.params
        )
        middle = time.perf_counter()
        gradient = pullback(problem.states_bar)
        end = time.perf_counter()
    forward, backward = ([solve for solve in solves if solve.direction == way] for way in ("forward", "backward"))
    inside = dynamics.seconds, dynamics.adjoint.seconds
    shares = (1 - seconds / sum(solve.wall_seconds for solve in way) for seconds, way in zip(inside, (forward, backward)))
    counts = (sum(solve.nfe for solve in way) for way in (forward, backward))
    return Step(middle - begun, end - middle, *counts, gradient, *shares)


def bench_layer(layer, rounds):
    """Forward and backward solve of the layer by three of the library's ways; metrics layer_*."""
    heading(
        f"ODE layer, {' x '.join(map(str, layer.problem.y0.shape))} unknowns, tolerance {TOLERANCE:g}: "
        "seconds, median (minimum); evaluations; share of the solve outside graphs"
    )
    results = take_turns(
        {
            "adams": lambda: step(layer),
            "adams_seminorm": lambda: step(layer, adjoint_options={"norm": "seminorm"}),
            "lsoda": lambda: step(layer, method="lsoda"),
        },
        rounds,
    )
    return summarise(results, "layer", "s")


def bench_processes(batch, rounds, processes=2, model="odenet"):
    """A training step of a whole network: one process with all cores, and the batch shared among several; metrics training_*."""
    heading(
        f"Training step of the whole {table1_mnist.MODELS[model]}, batch {batch}: in one process with threads on all cores, "
        f"and shared among {processes} processes with one thread each"
    )
    params = {"odenet": supervised.init_odenet, "mlp": supervised.init_mlp}[model](np.random.default_rng(0), mnist.FORMAT)
    make = functools.partial(table1_mnist.make_value_and_grad, model)

    images, labels = digits(batch)

    def timed(value_and_grad):
        begun = time.perf_counter()
        metrics, _ = value_and_grad(params, images, labels)
        return time.perf_counter() - begun, metrics

    with workers.data_parallel(make, processes) as shared:
        results = take_turns(
            {"one_process": functools.partial(timed, make()), "shared": functools.partial(timed, shared)}, rounds
        )
    metrics, rows = {}, []
    for name, steps in results.items():
        seconds, (_, last) = [step[0] for step in steps], steps[-1]
        metrics |= {
            f"training_{name}_step_seconds_median": float(np.median(seconds)),
            f"training_{name}_step_seconds_min": min(seconds),
        }
        rows.append([name, np.median(seconds), min(seconds), last.get("nfe_forward"), last.get("nfe_backward")])
    ratio, of_minima = compare(*([seconds for seconds, _ in results[name]] for name in ("one_process", "shared")))
    print(tabulate(rows, ["", "median (s)", "minimum (s)", "nfe forward", "nfe backward"], floatfmt=".3g"))
    print(f"Times faster when shared: {ratio:.2f} (median of the rounds' ratios), {of_minima:.2f} (ratio of minima).", flush=True)
    return {**metrics, "training_shared_speedup": ratio, "training_shared_speedup_of_minima": of_minima}


def bound_graphs(layer):
    """Functions that make one bare graph call each: the bridge's f and fused VJP, and the two convolutions of f alone."""
    leaves, structure = flatten(layer.params)
    z0, z1_bar = layer.problem.y0, layer.problem.states_bar[-1]
    layout, n = Layout.of([z0]), z0.size
    f = layer.dynamics.bind(layout, structure, leaves)
    size = Augmented(n, num_params(leaves)).size
    fused = layer.dynamics.augmented(layout, structure).bind(Layout.flat(size), leaf_tuple(len(leaves)), leaves)
    z = z0.reshape(-1).astype(np.float64)
    s = np.concatenate([z, np.reshape(z1_bar, -1), np.zeros(size - 2 * n)])
    weights = [tf.constant(layer.params[name]["weight"]) for name in ("conv1", "conv2")]
    x = tf.constant(z0)

    @tf.function
    def convolve(x):
        for weight in weights:
            x = tf.nn.conv2d(x, weight, 1, "SAME")
        return x

    concrete = convolve.get_concrete_function(x)
    return {"two_convolutions": lambda: concrete(x), "f": lambda: f(0.3, z), "fused_vjp": lambda: fused(0.3, s)}


def bench_graphs(layer, rounds):
    """One call of each graph over one call of its two bare convolutions; metrics graph_*."""
    heading("One graph call as the bridge makes it, over one call of its two bare convolutions: milliseconds, ratios")

    def timed(call):
        begun = time.perf_counter()
        call()
        return time.perf_counter() - begun

    seconds = take_turns({name: lambda call=call: timed(call) for name, call in bound_graphs(layer).items()}, rounds)
    metrics, rows = {}, []
    for name, values in seconds.items():
        ratio, ratio_of_minima = compare(values, seconds["two_convolutions"])
        metrics |= {
            f"graph_{name}_seconds_median": float(np.median(values)),
            f"graph_{name}_seconds_min": min(values),
            f"graph_{name}_ratio": ratio,
            f"graph_{name}_ratio_of_minima": ratio_of_minima,
        }
        rows.append([name, 1e3 * np.median(values), 1e3 * min(values), ratio, ratio_of_minima, GOALS.get(name)])
    print(
        tabulate(rows, ["", "median (ms)", "minimum (ms)", "ratio, median", "ratio of minima", "at most"], floatfmt=".2f"),
        flush=True,
    )
    return metrics


def bench_torchdiffeq(layer, rounds):
    """The layer by three of our solvers beside torchdiffeq's MNIST example (dopri5, adjoint); metrics torchdiffeq_*, beside_*.

    Errors of gradients: the greater one of those by z0 and by the parameters, in Euclidean norms relative to what dopri5 gives at
    a tolerance of a thousandth.
    """
    heading(
        f"The same ODE layer in torchdiffeq (dopri5, adjoint, tolerance {TOLERANCE:g}): seconds, median (minimum); evaluations"
    )
    others = peers(layer.problem, lambda t, y: layer.dynamics.func(t, y, layer.params).numpy(), TOLERANCE, PEERS)
    if not others:
        return {}
    ours = Bridge(layer.problem._replace(params=layer.params), layer.dynamics)
    ways = {
        "ours": {},
        "ours_dopri5": {"method": "dopri5"},
        "ours_dopri5_discrete": {"method": "dopri5", "adjoint_method": "discrete"},
    }
    candidates = {name: candidate(ours.solver_of(rtol=TOLERANCE, atol=TOLERANCE, **way)) for name, way in ways.items()}
    results = take_turns(candidates | others, rounds)
    metrics = summarise(results, "beside", "s")
    exact = ours.solver_of(method="dopri5", rtol=1e-3 * TOLERANCE, atol=1e-3 * TOLERANCE).gradient()[1:]
    rows = []
    for name, steps in results.items():
        ratio, of_minima = over(results, name, "torchdiffeq")
        label = "torchdiffeq_ratio" + name.removeprefix("ours")
        metrics[f"beside_{name}_gradient_error"] = error = _relative_error(steps[-1].gradient, exact)
        if name != "torchdiffeq":
            metrics |= {label: ratio, f"{label}_of_minima": of_minima}
        rows.append([name, f"{ratio:.2f} ({of_minima:.2f})", f"{error:.1e}"])
    print(
        "\nTraining step of the layer, time over torchdiffeq's, median of the rounds' ratios (ratio of minima); goal: at most "
        f"{GOALS['torchdiffeq_ratio']:g}; error of the gradient"
    )
    print(tabulate(rows, ["", "ratio", "gradient error"], disable_numparse=True))
    print("On a busy machine read the minima: PyTorch's threads wait for each other and suffer more from neighbours.")
    print(f"Threads: {threads()}", flush=True)
    return metrics


def _relative_error(gradient, exact):
    """Of gradients by z0 and by params, nested as ours or the arrays of `conv_layer`."""
    errors = []
    for part, wanted in zip(gradient, exact, strict=True):
        part, wanted = (flat(problems.layer_arrays(bars) if isinstance(bars, dict) else bars) for bars in (part, wanted))
        errors.append(float(np.linalg.norm(part - wanted) / np.linalg.norm(wanted)))
    return max(errors)
