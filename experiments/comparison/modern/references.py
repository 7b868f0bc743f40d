"""Right solutions and gradients, each by two ways that do not share the integrator.

What is not stiff: backpropagation through the steps of Hairer's dop853, and VODE's Adams method with its adjoint along the
forward solve's interpolant; both ours, dynamics in TensorFlow. What is stiff and small: the variational equations
[y, dy/dy0, dy/dp] solved forwards by SciPy's Radau, and by its LSODA. The stiff network: adjoints along the interpolants of Radau
and of LSODA, which share the way to differentiate.
"""

import functools
from typing import NamedTuple

import numpy as np
from autograd import make_vjp
from scipy.integrate import solve_ivp

from original_repro.layers import group_norm
from solvers_bridge import TensorFlowDynamics, odeint

from ...neural_ode.reverse_instability import problems as contracting
from .operations import of_tensorflow

TOLERANCE = 1e-13
STEPS = 1_000_000


class Reference(NamedTuple):
    """states, y0_bar, params_bar of a Problem whose cotangent was divided by `scale`; how far the second way was from both.

    Distances are as `error` gives them.
    """

    states: np.ndarray
    y0_bar: np.ndarray
    params_bar: list
    scale: float
    second_states: float
    second_gradient: float


def error(found, right):
    """Greatest difference over the greatest entry of what is right, over all arrays of both; infinite if not all are finite."""
    if not all(np.isfinite(array).all() for array in found):
        return np.inf
    difference = max(float(np.max(np.abs(one - other), initial=0.0)) for one, other in zip(found, right, strict=True))
    return difference / max(float(np.max(np.abs(other), initial=0.0)) for other in right)


def reference(problem, kind, atol=1.0):
    """The Reference of a Problem of a kind, "smooth" or "stiff"; atol: its absolute over its relative tolerance."""
    tolerances = {"rtol": TOLERANCE, "atol": atol * TOLERANCE}
    if problem.f.__name__ in contracting.SMALL:
        ways = functools.partial(_variational, method="Radau"), functools.partial(_variational, method="LSODA")
    elif kind == "stiff":
        ways = (
            functools.partial(_interpolated, method="radau", jacobian="autodiff"),
            functools.partial(_interpolated, method="lsoda"),
        )
    else:
        ways = _through_dop853, functools.partial(_interpolated, method="adams")
    (states, *bars), (other_states, *other_bars) = (way(problem, **tolerances) for way in ways)
    bars, other_bars = _listed(bars), _listed(other_bars)
    scale = max(float(np.max(np.abs(bar))) for bar in bars)
    y0_bar, *params_bar = (bar / scale for bar in bars)
    return Reference(states, y0_bar, params_bar, scale, error([other_states], [states]), error(other_bars, bars))


def _listed(bars):
    y0_bar, params_bar = bars
    return [y0_bar, *params_bar]


def _pulled_back(func, problem, **solver):
    pullback, states = make_vjp(lambda y0, params: odeint(func, y0, problem.t, params, **solver), (0, 1))(
        problem.y0, problem.params
    )
    return states, *pullback(problem.states_bar)


def _in_tensorflow(problem):
    def norm(x, scale, shift, groups):
        return group_norm({"scale": scale, "shift": shift}, x, groups)

    ops = of_tensorflow(norm)
    return TensorFlowDynamics(lambda t, y, params: problem.f(ops, t, y, *params), "float64")


def _through_dop853(problem, **tolerances):
    solver = {"method": "dop853", "adjoint_method": "discrete", "options": {"max_num_steps": STEPS}}
    return _pulled_back(_in_tensorflow(problem), problem, **tolerances, **solver)


def _interpolated(problem, method, jacobian=None, **tolerances):
    options = {"max_num_steps": STEPS, "jacobian": jacobian}
    solver = {"method": method, "adjoint_options": {"reconstruction": "interpolate"}, "options": options}
    return _pulled_back(_in_tensorflow(problem), problem, **tolerances, **solver)


def _variational(problem, method, **tolerances):
    """SciPy's solve_ivp of the variational equations, whose derivatives are written by hand."""
    (p,), y0 = problem.params, problem.y0
    n, columns = y0.size, y0.size + p.size

    def together(t, s):
        y, sensitivities = s[:n], s[n:].reshape(n, columns)
        f, by_y, by_p = contracting.derivatives(problem.f.__name__, t, y, p)
        moved = by_y @ sensitivities
        moved[:, n:] += by_p
        return np.concatenate([f, moved.reshape(-1)])

    start = np.concatenate([y0, np.eye(n, columns).reshape(-1)])
    found = solve_ivp(together, (problem.t[0], problem.t[-1]), start, method=method, t_eval=problem.t, **tolerances)
    if not found.success:
        raise RuntimeError(f"no reference: {found.message}")
    states, sensitivities = found.y[:n].T, found.y[n:].T.reshape(len(problem.t), n, columns)
    bars = np.einsum("tn,tnc->c", problem.states_bar, sensitivities)
    return states, bars[:n], [bars[n:]]
