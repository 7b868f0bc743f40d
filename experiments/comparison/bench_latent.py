"""The ODE in a training iteration of a latent ODE, timed beside torchdiffeq: a batch of 1000 trajectories, 4-20-4 dynamics, 100
times.

Two settings: tolerance 1e-5 in float32 and the paper's 1.5e-8 in float64. Ours by the paper's way, a fresh VODE solve from
output time to output time of the reverse sweep, and by the fixed-grid reverse sweep that Table 2 is trained with; torchdiffeq
by dopri5 and its adjoint. Errors: greatest error of the gradient over its greatest entry, against dop853 at 1e-12. A speed-up
counts at equal error only, so both are in the metrics; in the loose setting, where the forward solve makes the error, the
fixed-grid way takes 3e-6 for it.
"""

from typing import NamedTuple

import numpy as np
from tabulate import tabulate

from solvers_bridge import TensorFlowDynamics

from ..neural_ode.spiral_fits import BEST, WAYS
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

BATCH, TIMES, END = 1000, 100, 5.0
# Precision, tolerance, and the forward tolerance of the fixed-grid way.
SETTINGS = {"loose": ("float32", 1e-5, 3e-6), "tight": ("float64", 1.5e-8, 1.5e-8)}
GOAL = 10.0


class Problem(NamedTuple):
    """dz/dt = tanh(z W1 + b1) W2 + b2, z0 (batch, 4), at times t (T,); states_bar (T, batch, 4): cotangent of the states."""

    params: tuple
    z0: np.ndarray
    t: np.ndarray
    states_bar: np.ndarray

    def step(self, dynamics, tolerance, **solver):
        """A Step of the problem."""
        return solve_and_differentiate(
            dynamics, self.z0, self.t, self.params, self.states_bar, **{"rtol": tolerance, "atol": tolerance, **solver}
        )


def make_problem(batch=BATCH, times=TIMES, units=20):
    """A Problem whose weights turn two planes of z once and half over the times."""
    rng = np.random.default_rng(0)
    turns = np.zeros((4, 4))
    turns[:2, :2], turns[2:, 2:] = [[-0.05, 1.3], [-1.3, -0.05]], [[-0.05, 0.65], [-0.65, -0.05]]
    first = 0.5 * rng.normal(size=(4, units))
    second = np.linalg.pinv(first) @ turns + 0.05 * rng.normal(size=(units, 4))
    params = (first, 0.1 * rng.normal(size=units), second, 0.1 * rng.normal(size=4))
    return Problem(params, rng.normal(size=(batch, 4)), np.linspace(0.0, END, times), rng.normal(size=(times, batch, 4)) / batch)


def dynamics_tensorflow(t, z, params):
    """The problem's dz/dt in TensorFlow operations."""
    import tensorflow as tf

    w1, b1, w2, b2 = params
    return tf.tanh(z @ w1 + b1) @ w2 + b2


def bench_latent(rounds, problem=None):
    """Both settings, ours and, where installed, torchdiffeq's; prints tables, returns metrics latent_*."""
    problem = problem or make_problem()
    reference = flat(problem.step(TensorFlowDynamics(dynamics_tensorflow, "float64"), 1e-12, method="dop853").gradient)
    metrics = {}
    for setting, (dtype, tolerance, forward_tolerance) in SETTINGS.items():
        heading(
            f"Latent ODE: batch {len(problem.z0)}, 4-20-4 dynamics, {len(problem.t)} output times, tolerance {tolerance:g}, "
            f"{dtype}: seconds, median (minimum); evaluations"
        )
        dynamics = TensorFlowDynamics(dynamics_tensorflow, dtype)
        candidates = {
            "paper": lambda: problem.step(dynamics, tolerance),
            BEST: lambda: problem.step(dynamics, forward_tolerance, **WAYS[BEST]),
        }
        if native_is_available():
            candidates |= _native(problem, dtype, tolerance, forward_tolerance)
        if torchdiffeq_is_installed():
            candidates["torchdiffeq"] = _torch(problem, dtype, tolerance)
        if jax_is_installed():
            arguments = problem.params, problem.z0, problem.t, problem.states_bar, tolerance, dtype
            candidates |= jax_candidates(dynamics_jax, *arguments)
        results = take_turns(candidates, rounds)
        metrics |= summarise(results, f"latent_{setting}", "s")
        if f"{BEST}_native" in results:
            graph, native = ([step.seconds for step in results[name]] for name in (BEST, f"{BEST}_native"))
            metrics[f"latent_{setting}_native_over_graph_speedup"] = compare(graph, native)[0]
        rows = []
        for name, steps in results.items():
            error = float(np.max(np.abs(flat(steps[-1].gradient) - reference)) / np.max(np.abs(reference)))
            metrics[f"latent_{setting}_{name}_gradient_error"] = error
            rows.append([name, f"{error:.1e}"])
            if "torchdiffeq" in results:
                speedup = compare([step.seconds for step in results["torchdiffeq"]], [step.seconds for step in steps])[0]
                metrics[f"latent_{setting}_{name}_speedup"] = speedup
                rows[-1].append(f"{speedup:.1f}")
            if "diffrax_backsolve" in results and name.endswith("_native"):
                ratio = compare([step.seconds for step in steps], [step.seconds for step in results["diffrax_backsolve"]])[0]
                metrics[f"latent_{setting}_{name}_over_diffrax_backsolve"] = ratio
        if "torchdiffeq" in results:
            metrics[f"latent_speedup_{setting}"] = metrics[f"latent_{setting}_{BEST}_speedup"]
        print(f"\nGradient error; times faster than torchdiffeq (goal for {BEST}: at least {GOAL:g} at no greater error)")
        print(tabulate(rows, disable_numparse=True), flush=True)
    return metrics


def dynamics_jax(t, z, params, tanh):
    """The same for any library whose arrays know @ and whose tanh is given."""
    w1, b1, w2, b2 = params
    return tanh(z @ w1 + b1) @ w2 + b2


def _native(problem, dtype, tolerance, forward_tolerance):
    """Candidates whose dynamics are compiled ahead of time."""
    dynamics = TensorFlowDynamics(dynamics_tensorflow, dtype, compiler="native")
    solvers = {
        "paper_native": {},
        f"{BEST}_native": {**WAYS[BEST], "rtol": forward_tolerance, "atol": forward_tolerance},
        "dopri5_native": {"method": "dopri5"},
        "dopri5_discrete_native": {"method": "dopri5", "adjoint_method": "discrete"},
    }
    return {
        name: native_candidate(
            dynamics,
            problem.z0,
            problem.t,
            problem.params,
            problem.states_bar,
            **{"rtol": tolerance, "atol": tolerance, **solver},
        )
        for name, solver in solvers.items()
    }


def _torch(problem, dtype, tolerance):
    import torch

    def f(t, z, weights):
        w1, b1, w2, b2 = weights
        return torch.tanh(z @ w1 + b1) @ w2 + b2

    arrays = [np.asarray(array, dtype) for array in problem.params]
    return torch_candidate(f, arrays, problem.z0.astype(dtype), problem.t, problem.states_bar.astype(dtype), tolerance)
