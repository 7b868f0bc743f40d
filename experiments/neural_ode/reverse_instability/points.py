"""One point of reverse_instability: a gradient, its error, the gap, and what became of it."""

import functools
import time
import warnings

import numpy as np
from autograd import make_jvp, make_vjp

from solvers_bridge import GradientWarning, odeint, record_solves

from . import problems

# {way: its adjoint_options, given the number of checkpoints}; "discrete" and "torchdiffeq" are ways of their own.
WAYS = {
    "solve": lambda count: {"reconstruction": "solve"},
    "checkpoints_backwards": lambda count: {"reconstruction": "solve", "checkpoint": count},
    "checkpoints": lambda count: {"reconstruction": "interpolate", "checkpoint": count},
    "interpolate": lambda count: {"reconstruction": "interpolate"},
    "auto": lambda count: {},
}
RIGHT, SAID, SILENT, RAISED, NO_FORWARD = "right", "wrong, said", "wrong in silence", "raised", "no forward solve"
# A limit that depends on the method is this many times the error of its forward sensitivity.
TIMES_FORWARD = 3.0


class TooManyEvaluations(RuntimeError):
    """func was called more often than one point may take."""


class Counted:
    """func, which may be called `most` times."""

    def __init__(self, func, most):
        self.func, self.most, self.count = func, most, 0

    def __call__(self, t, y, *params):
        self.count += 1
        if self.count > self.most:
            raise TooManyEvaluations(f"not done after {self.most} evaluations")
        return self.func(t, y, *params)


def measure(limits, places, task, rows):
    """What there is to add to a task to make it a row; `rows` are those before it."""
    if task["part"] == "reference":
        return _reference(limits, places, task)
    if task["part"] == "forward":
        return _forward(limits, task, _reference_of(task, rows))
    return _gradient(limits, places, task, rows)


@functools.cache
def _problem(name, value, places, size):
    return problems.NETWORKS[name](places, size) if name in problems.NETWORKS else problems.SMALL[name](value)


def _problem_of(task, limits, places):
    return _problem(task["problem"], task["value"], places, limits["sizes"].get(task["problem"]))


def _reference(limits, places, task):
    """The right gradient, and how far a second way to it is from that, relative to the greatest entry."""
    problem, tolerance = _problem_of(task, limits, places), limits["reference_tolerance"]
    if problem.func is not None:
        first, second = (
            np.array([problems.forward_sensitivity(task["problem"], problem, method, tolerance)]) for method in ("Radau", "LSODA")
        )
    else:
        tolerance = limits["network_reference_tolerance"]
        means = {"rtol": tolerance, "atol": tolerance}
        first = _through(problem, {"method": "dop853", "adjoint_method": "discrete", **means})
        second = _through(problem, {"method": "adams", "adjoint_options": {"reconstruction": "interpolate"}, **means})
    return {"gradient": first, "second_way": _error(second, first), "tolerance": tolerance}


def _through(problem, means):
    pullback, _ = make_vjp(_last(problem, problem.dynamics, means), (0, 1))(problem.y0, problem.params)
    return problem.chosen(pullback(problem.states_bar))


def _last(problem, func, means):
    return lambda y0, params: odeint(func, y0, problem.times, params, **means)[-1]


def _error(got, right):
    return float(np.abs(got - right).max() / np.abs(right).max())


def _reference_of(task, rows):
    [row] = [
        row for row in rows if row["part"] == "reference" and (row["problem"], row["value"]) == (task["problem"], task["value"])
    ]
    return row["gradient"]


def _means(problem, method, limits):
    """Tolerances and options of a solve, with exact Jacobians for the methods that have to be told."""
    options = {"max_num_steps": limits["steps"]}
    if problem.func is not None and method in ("bdf", "radau"):
        options["jacobian"] = "autodiff"
    return {"method": method, "rtol": problem.rtol, "atol": problem.atol, "options": options}


def _forward(limits, task, right):
    """The error of forward sensitivity by the same method and tolerance: where a flow amplifies errors, no gradient has less."""
    problem = problems.SMALL[task["problem"]](task["value"])
    last = _last(problem, problems.autograd_function(problem), _means(problem, task["method"], limits))
    direction = np.eye(len(problem.params))[0]
    _, derivative = make_jvp(lambda params: last(problem.y0, params))(problem.params)(direction)
    return {"error": _error(np.array([problem.states_bar @ derivative]), right)}


def _gradient(limits, places, task, rows):
    """Error, outcome, gap, evaluations and seconds of a gradient taken one way by one method."""
    problem, begun = _problem_of(task, limits, places), time.perf_counter()
    state = {"nfe_forward": None, "nfe_backward": None, "gap": None, "reason": ""}
    take = _of_torchdiffeq if task["way"] == "torchdiffeq" else _of_the_bridge
    with warnings.catch_warnings(record=True) as caught, np.errstate(all="ignore"):
        warnings.simplefilter("always")
        try:
            got = take(problem, task, limits, state)
        except ImportError:
            raise
        # Whatever else a library raises is a result here.
        except Exception as error:
            got, state["reason"] = None, f"{type(error).__name__}: {error}"[:200]
    state["seconds"] = time.perf_counter() - begun
    if got is None:
        return {**state, "outcome": NO_FORWARD if state["nfe_forward"] is None else RAISED}
    limit = problem.limit
    of_forward = [row["error"] for row in rows if row["part"] == "forward" and _is_alike(row, task)]
    if of_forward:
        limit = max(limit, TIMES_FORWARD * of_forward[0])
    error = _error(got, _reference_of(task, rows))
    is_said = any(issubclass(one.category, GradientWarning) and "lost z(t)" in str(one.message) for one in caught)
    outcome = RIGHT if error <= limit else SAID if is_said else SILENT
    return {**state, "error": error, "limit": limit, "outcome": outcome}


def _is_alike(row, task):
    return all(row[name] == task[name] for name in ("problem", "value", "method"))


def _of_the_bridge(problem, task, limits, state):
    func = problem.dynamics
    if problem.func is not None:
        func = Counted(problems.autograd_function(problem), limits["evaluations"])
    means = _means(problem, task["method"], limits)
    if task["way"] == "discrete":
        means["adjoint_method"] = "discrete"
    else:
        means["adjoint_options"] = WAYS[task["way"]](limits["checkpoints"])
    with record_solves() as solves:
        pullback, _ = make_vjp(_last(problem, func, means), (0, 1))(problem.y0, problem.params)
        state["nfe_forward"] = sum(solve.nfe for solve in solves)
        count = len(solves)
        try:
            return problem.chosen(pullback(problem.states_bar))
        finally:
            state["nfe_backward"] = sum(solve.nfe for solve in solves[count:])
            gaps = [solve.reconstruction_gap for solve in solves[count:] if solve.reconstruction_gap is not None]
            # One that did not get there is infinite, for which JSON has no name.
            state["gap"] = max(filter(np.isfinite, gaps), default=None)
            state["segments_lost"] = sum(not np.isfinite(gap) for gap in gaps)


def _of_torchdiffeq(problem, task, limits, state):
    import torch
    from torchdiffeq import odeint_adjoint

    counted = Counted(problems.torch_function(problem), limits["evaluations_of_torchdiffeq"])

    class Module(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.params = torch.nn.Parameter(torch.tensor(problem.params))

        def forward(self, t, y):
            return counted(t, y, self.params)

    module = Module()
    y0 = torch.tensor(problem.y0, requires_grad=True)
    # It takes numbers where ours take a tolerance for each unknown.
    tolerance = {"rtol": problem.rtol, "atol": float(np.min(problem.atol))}
    last = odeint_adjoint(module, y0, torch.tensor(problem.times, dtype=y0.dtype), method=task["method"], **tolerance)[-1]
    state["nfe_forward"] = counted.count
    try:
        last.backward(torch.tensor(problem.states_bar))
    finally:
        state["nfe_backward"] = counted.count - state["nfe_forward"]
    gradient = module.params.grad.numpy()
    if not np.isfinite(gradient).all():
        raise FloatingPointError("a gradient that is not finite")
    return problem.chosen((y0.grad.numpy(), gradient))
