"""What benchmarks share: a solve with its gradient, timed; candidates that take turns; torchdiffeq's adjoint as one of them.

Candidates take turns, round by round, so that noise on the machine hits all alike; trust ratios more than seconds.
"""

import importlib.util
import time
from typing import NamedTuple

import numpy as np
from autograd import make_vjp
from tabulate import tabulate

from solvers_bridge import odeint, record_solves
from solvers_bridge.dynamics import Dynamics
from solvers_bridge.nested import flatten


class Step(NamedTuple):
    """One forward solve and its gradient: seconds and evaluations, shares of the solves outside the graphs, the gradient."""

    forward: float
    backward: float
    nfe_forward: int
    nfe_backward: int
    gradient: object
    outside_forward: float = float("nan")
    outside_backward: float = float("nan")

    @property
    def seconds(self):
        return self.forward + self.backward


def take_turns(candidates, rounds):
    """{name: [result of each round]} of functions of no argument, called in turn after one round that is not kept."""
    results = {name: [] for name in candidates}
    for i in range(rounds + 1):
        for name, candidate in candidates.items():
            result = candidate()
            if i:
                results[name].append(result)
    return results


def compare(seconds, others):
    """(median of the ratios seconds / others round by round, ratio of the two minima)."""
    return float(np.median(np.divide(seconds, others))), min(seconds) / min(others)


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


def solve_and_differentiate(func, y0, t, params, states_bar, solve=odeint, **solver):
    """A Step: solve(func, y0, t, params, **solver) and its gradient with respect to y0 and params, cotangent states_bar."""
    timed = TimedDynamics(func) if isinstance(func, Dynamics) and getattr(func, "compiler", "graph") == "graph" else None
    with record_solves() as solves:
        begun = time.perf_counter()
        pullback, _ = make_vjp(lambda y0, params: solve(timed or func, y0, t, params, **solver), (0, 1))(y0, params)
        middle = time.perf_counter()
        seconds_in_f = timed.seconds if timed else np.nan
        gradient = pullback(states_bar)
        end = time.perf_counter()
    wall = {way: sum(s.wall_seconds for s in solves if s.direction == way) for way in ("forward", "backward")}
    nfe = {way: sum(s.nfe for s in solves if s.direction == way) for way in ("forward", "backward")}
    step = Step(middle - begun, end - middle, nfe["forward"], nfe["backward"], gradient)
    if timed:
        step = step._replace(outside_forward=1 - seconds_in_f / wall["forward"])
        if wall["backward"]:  # The discrete adjoint has no solve there.
            step = step._replace(outside_backward=1 - timed.adjoint.seconds / wall["backward"])
    return step


def native_is_available():
    """Whether graphs can be compiled ahead of time here."""
    from solvers_bridge.dynamics import native

    try:
        native.check_tensorflow()
        native.cpp_compiler()
    except native.NativeError:
        return False
    return True


def native_candidate(func, y0, t, params, states_bar, **solver):
    """A function that makes a Step as solve_and_differentiate does, of dynamics in compiled code: with no recorder in between.

    Evaluations are counted once, before.
    """
    counted = solve_and_differentiate(func, y0, t, params, states_bar, **solver)

    def step():
        begun = time.perf_counter()
        pullback, _ = make_vjp(lambda y0, params: odeint(func, y0, t, params, **solver), (0, 1))(y0, params)
        middle = time.perf_counter()
        gradient = pullback(states_bar)
        return counted._replace(forward=middle - begun, backward=time.perf_counter() - middle, gradient=gradient)

    return step


def summarise(results, prefix, unit):
    """Print one row for each name in results, {name: [Step, ...]}, in "s" or "ms"; returns the same as metrics, in seconds."""
    metrics, rows, scale = {}, [], {"s": 1, "ms": 1e3}[unit]
    headers = [
        f"forward ({unit})",
        f"backward ({unit})",
        f"both ({unit})",
        "nfe forward",
        "nfe backward",
        "outside forward",
        "outside backward",
    ]
    for name, steps in results.items():
        row = [name]
        for what in ("forward", "backward", "seconds"):
            values = [getattr(step, what) for step in steps]
            label = f"{prefix}_{name}_" + ("step" if what == "seconds" else what)
            metrics |= {f"{label}_seconds_median": float(np.median(values)), f"{label}_seconds_min": min(values)}
            row.append(f"{np.median(values) * scale:.3g} ({min(values) * scale:.3g})")
        last = steps[-1]
        metrics |= {f"{prefix}_{name}_nfe_forward": last.nfe_forward, f"{prefix}_{name}_nfe_backward": last.nfe_backward}
        rows.append([*row, last.nfe_forward, last.nfe_backward])
        for way in ("forward", "backward"):
            share = float(np.median([getattr(step, f"outside_{way}") for step in steps]))
            if not np.isnan(share):
                metrics[f"{prefix}_{name}_outside_graphs_{way}"] = share
                rows[-1].append(f"{100 * share:.0f} %")
    print(tabulate(rows, ["", *headers], disable_numparse=True), flush=True)
    return metrics


def heading(title):
    print(f"\n{title}\n{'=' * len(title)}", flush=True)


def flat(gradient):
    """All numbers of a nesting of arrays in one vector."""
    return np.concatenate([np.reshape(leaf, -1) for leaf in flatten(gradient)[0]])


def torchdiffeq_is_installed():
    return all(importlib.util.find_spec(package) for package in ("torch", "torchdiffeq"))


def torch_candidate(f, arrays, y0, t, states_bar, tolerance):
    """A function that makes a Step of torchdiffeq.odeint_adjoint for f(t, y, parameters) in PyTorch."""
    import torch
    from torchdiffeq import odeint_adjoint

    class Module(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.weights = torch.nn.ParameterList(torch.tensor(array) for array in arrays)
            self.nfe = 0

        def forward(self, t, y):
            self.nfe += 1
            return f(t, y, self.weights)

    module = Module()
    y0, states_bar = torch.tensor(y0, requires_grad=True), torch.tensor(states_bar)
    t = torch.tensor(t, dtype=y0.dtype)

    def step():
        module.nfe, y0.grad = 0, None
        module.zero_grad()
        begun = time.perf_counter()
        states = odeint_adjoint(module, y0, t, rtol=tolerance, atol=tolerance, method="dopri5")
        middle, nfe_forward = time.perf_counter(), module.nfe
        states.backward(states_bar)
        end = time.perf_counter()
        gradient = (y0.grad.numpy(), tuple(weight.grad.numpy() for weight in module.weights))
        return Step(middle - begun, end - middle, nfe_forward, module.nfe - nfe_forward, gradient)

    return step
