"""What benchmarks share: a solve with its gradient, timed; candidates that take turns; other libraries among them.

Candidates take turns, round by round, so that noise on the machine hits all alike; trust ratios more than seconds.
"""

import time
from typing import NamedTuple

import numpy as np
from tabulate import tabulate

from solvers_bridge.nested import flatten

from .modern.measure import SAME_DYNAMICS, check_dynamics
from .modern.names import LIBRARIES
from .modern.references import error

SAME = {"float64": SAME_DYNAMICS, "float32": 1e-4}  # relative: how near dy/dt has to be to ours
EXTRA = '"neural-ode-repro[modern]"'


class Step(NamedTuple):
    """One forward solve and its gradient: seconds and evaluations, where told, shares of the solves outside the graphs."""

    forward: float
    backward: float
    nfe_forward: int | None
    nfe_backward: int | None
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


def over(results, name, other):
    """`compare` of the seconds of two candidates, of {name: [Step, ...]}."""
    return compare(*([step.seconds for step in results[which]] for which in (name, other)))


def native_is_available():
    """Whether graphs can be compiled ahead of time here."""
    from solvers_bridge.dynamics import native

    try:
        native.check_tensorflow()
        native.cpp_compiler()
    except native.NativeError:
        return False
    return True


def candidate(solver):
    """A function that makes a Step of a Solver of `modern.library`.

    Where the library does not tell when it turned backwards, forward is the time of a solve alone.
    """

    def step():
        begun = time.perf_counter()
        _, y0_bar, params_bar = solver.gradient()
        end = time.perf_counter()
        forward, both = solver.counts.get("turned", begun) - begun, end - begun
        if not forward:
            solver.forward()
            forward = time.perf_counter() - end
        counts = solver.counts.get("forward"), solver.counts.get("backward")
        if not isinstance(params_bar, dict):  # some are arrays of their library
            params_bar = [np.asarray(bar) for bar in params_bar]
        return Step(forward, both - forward, *counts, (np.asarray(y0_bar), params_bar))

    return step


def peers(problem, derivative, tolerance, wanted):
    """{name: candidate} of wanted, {name: (a library of `modern.names`, its method)}; prints which are not installed.

    Raises DynamicsDiffer where a library's dy/dt of problem is not derivative(t, y).
    """
    found, (begin, *_, end) = {}, problem.t
    t, most = float(begin + 0.3 * (end - begin)), SAME[problem.y0.dtype.name]
    for name, (library, method) in wanted.items():
        if absent := LIBRARIES[library].absent():
            print(f"{name}: not installed: {', '.join(absent)}; pip install {EXTRA}", flush=True)
            continue
        opened = LIBRARIES[library].load()(problem)
        check_dynamics(library, "ours", opened.derivative(t, problem.y0), derivative(t, problem.y0), most)
        found[name] = candidate(opened.solver(method, tolerance, tolerance))
    return found


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
        counts = {f"{prefix}_{name}_nfe_{way}": getattr(last, f"nfe_{way}") for way in ("forward", "backward")}
        metrics |= {name: count for name, count in counts.items() if count is not None}
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


def gradient_error(step, reference):
    """Greatest error of a Step's gradient over the greatest entry of the right one, all its numbers in one vector."""
    return error([flat(step.gradient)], [reference])
