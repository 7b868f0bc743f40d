"""A small problem, timed: autograd's own odeint, ours with dynamics in autograd and in TensorFlow, torchdiffeq."""

from types import SimpleNamespace
from typing import NamedTuple

import autograd.numpy as anp
import numpy as np
import tensorflow as tf
from autograd.scipy.integrate import odeint as autograd_odeint
from tabulate import tabulate

from solvers_bridge import TensorFlowDynamics

from ..harness import right_hand_sides
from .goals import GOALS
from .jax_candidates import WAYS as JAX_WAYS
from .jax_candidates import jax_candidates, jax_is_installed
from .side_by_side import (
    compare,
    flat,
    heading,
    native_candidate,
    native_is_available,
    solve_and_differentiate,
    summarise,
    take_turns,
    torch_candidate,
    torchdiffeq_is_installed,
)

SMALL_TOLERANCE = 1e-6


class SmallProblem(NamedTuple):
    """dy/dt = tanh(y W1 + b1) W2 + b2, a 2-50-2 network, at 30 times; states_bar (30, 2) is the cotangent of the states."""

    params: tuple
    y0: np.ndarray
    t: np.ndarray
    states_bar: np.ndarray

    def step(self, func, **solver):
        """A Step at the small problem's tolerance, unless solver says otherwise."""
        return solve_and_differentiate(
            func, self.y0, self.t, self.params, self.states_bar, **{"rtol": SMALL_TOLERANCE, "atol": SMALL_TOLERANCE, **solver}
        )


def make_small_problem(units=50, times=30):
    """A SmallProblem whose weights turn y a few times around the origin."""
    rng = np.random.default_rng(0)
    turn = np.array([[-0.1, 2.0], [-2.0, -0.1]])
    first = rng.normal(size=(2, units))
    second = np.linalg.pinv(first) @ turn + 0.1 * rng.normal(size=(units, 2)) / np.sqrt(units)
    params = (first, 0.1 * rng.normal(size=units), second, 0.1 * rng.normal(size=2))
    return SmallProblem(params, np.array([2.0, 0.0]), np.linspace(0.0, 10.0, times), rng.normal(size=(times, 2)) / times)


def mlp(t, y, params, tanh=anp.tanh):
    """The small problem's dy/dt, for any library whose arrays know @ and whose tanh is given."""
    return right_hand_sides.mlp(SimpleNamespace(tanh=tanh), t, y, *params)


def mlp_tensorflow(t, y, params):
    """`mlp` in TensorFlow operations."""
    return mlp(t, y[None], params, tf.tanh)[0]


def autograd_own(problem):
    """A function that makes a Step through autograd.scipy.integrate.odeint."""
    calls = []

    def func(y, t, *params):
        calls.append(t)
        return mlp(t, y, params)

    autograd_odeint(func, problem.y0, problem.t, problem.params, rtol=SMALL_TOLERANCE, atol=SMALL_TOLERANCE)
    nfe_forward = len(calls)

    def step():
        calls.clear()
        measured = problem.step(func, solve=autograd_odeint)
        # Its reverse sweep also calls func once at each output time but the first, for the gradient of the times.
        return measured._replace(nfe_forward=nfe_forward, nfe_backward=len(calls) - nfe_forward - (len(problem.t) - 1))

    return step


def bench_small(rounds, problem=None):
    """The small problem by autograd's own odeint, by ours and, where installed, by torchdiffeq; metrics small_*."""
    problem = problem or make_small_problem()
    heading(
        f"Small problem, 2-{len(problem.params[1])}-2 tanh network, {len(problem.t)} output times, "
        f"tolerance {SMALL_TOLERANCE:g}: milliseconds, median (minimum); evaluations"
    )
    tensorflow = TensorFlowDynamics(mlp_tensorflow, "float64")
    candidates = {
        "autograd_odeint": autograd_own(problem),
        "lsoda": lambda: problem.step(mlp, method="lsoda"),
        "adams": lambda: problem.step(mlp),
        "lsoda_tensorflow": lambda: problem.step(tensorflow, method="lsoda"),
        "adams_tensorflow": lambda: problem.step(tensorflow),
        "adams_tensorflow_warm": lambda: problem.step(tensorflow, adjoint_options={"restart": "warm"}),
    }
    if native_is_available():
        candidates |= _native_small(problem)
    if torchdiffeq_is_installed():
        candidates["torchdiffeq"] = torch_small(problem)
    if jax_is_installed():
        candidates |= jax_candidates(mlp, problem.params, problem.y0, problem.t, problem.states_bar, SMALL_TOLERANCE, "float64")
    results = take_turns(candidates, rounds)
    metrics = summarise(results, "small", "ms")
    reference = flat(problem.step(mlp, method="dop853", rtol=1e-12, atol=1e-12).gradient)
    rows = []
    for name, steps in results.items():
        row = [name]
        for what, seconds in (("gradient", lambda step: step.backward), ("both", lambda step: step.seconds)):
            speedup, of_minima = compare(
                [seconds(step) for step in results["autograd_odeint"]], [seconds(step) for step in steps]
            )
            metrics |= {f"small_{name}_{what}_speedup": speedup, f"small_{name}_{what}_speedup_of_minima": of_minima}
            row.append(f"{speedup:.1f} ({of_minima:.1f})")
        error = float(np.max(np.abs(flat(steps[-1].gradient) - reference)) / np.max(np.abs(reference)))
        metrics[f"small_{name}_gradient_error"] = error
        rows.append([*row, f"{error:.1e}"])
    print(
        "\nTimes faster than autograd's own odeint, median of the rounds' ratios (ratio of minima); goal for the gradient: at "
        f"least {GOALS['small_speedup']:g};\ngreatest error of the gradient over its greatest entry, against dop853 at 1e-12"
    )
    print(tabulate(rows, ["", "gradient (backward)", "both", "gradient error"], disable_numparse=True), flush=True)
    return metrics | _beside_peers(results)


def _native_small(problem):
    """Candidates whose dynamics are compiled ahead of time."""
    native = TensorFlowDynamics(mlp_tensorflow, "float64", compiler="native")
    solvers = {method: {"method": method} for method in ("adams", "lsoda", "dopri5")}
    for method in ("adams", "dopri5"):
        solvers[f"{method}_warm"] = {"method": method, "adjoint_options": {"restart": "warm"}}
    solvers["dopri5_discrete"] = {"method": "dopri5", "adjoint_method": "discrete"}
    return {
        f"{name}_native": native_candidate(
            native,
            problem.y0,
            problem.t,
            problem.params,
            problem.states_bar,
            rtol=SMALL_TOLERANCE,
            atol=SMALL_TOLERANCE,
            **solver,
        )
        for name, solver in solvers.items()
    }


def _beside_peers(results):
    """Print and return the time of each compiled candidate over that of each peer, medians of the rounds' ratios."""
    peers = [name for name in ("torchdiffeq", *JAX_WAYS) if name in results]
    natives = [name for name in results if name.endswith("_native")]
    if not peers:
        return {}
    metrics, rows = {}, []
    for name in natives:
        row = [name]
        for peer in peers:
            ratio = compare([step.seconds for step in results[name]], [step.seconds for step in results[peer]])[0]
            metrics[f"small_{name}_over_{peer}"] = ratio
            row.append(f"{ratio:.3f}")
        rows.append(row)
    print("\nTime of solve and gradient over that of the peer, median of the rounds' ratios")
    print(tabulate(rows, ["", *peers], disable_numparse=True), flush=True)
    return metrics


def torch_small(problem):
    """A function that makes a Step of the small problem in torchdiffeq."""
    import torch

    return torch_candidate(
        lambda t, y, weights: mlp(t, y, weights, torch.tanh),
        problem.params,
        problem.y0,
        problem.t,
        problem.states_bar,
        SMALL_TOLERANCE,
    )
