"""odeint_event: the time at which a function of the state crosses zero, and the state there, differentiable, for autograd."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import autograd.numpy as anp
import numpy as np
from autograd.tracer import getval, isbox

from .arguments import check
from .crossing import FIRST_HORIZON, INSTEAD_OF_BOOLEAN, LAST_TIME, Search
from .dynamics.autograd import differentiable, own
from .dynamics.base import Dynamics
from .dynamics.tape import vjp
from .odeint import odeint, tell_states, with_its_dtype
from .statistics import SolverError


def odeint_event(
    func: Callable | Dynamics,
    y0: Any,
    t0: Any,
    event: Callable,
    params: Any = (),
    *,
    t_max: float | None = None,
    reverse_time: bool = False,
    method: str = "adams",
    rtol: Any = 1.5e-8,
    atol: Any = 1.5e-8,
    options: dict | None = None,
    adjoint_method: str | None = None,
    adjoint_rtol: Any = None,
    adjoint_atol: Any = None,
    adjoint_options: dict | None = None,
) -> tuple[Any, Any]:
    """(t_event, y_event): the first time after t0 at which event(t, y, params) crosses zero on the solution from y0, and y there.

    Both are differentiable with autograd with respect to y0, t0 and params, to the order that is traced: after the root is found,
    t - event / (d event/dt along the solution) is taken once for each order, which leaves its value and gives it the derivatives
    of the implicit function theorem (Chen, Amos and Nickel 2021, "Learning Neural Event Functions", equation 7).

    Parameters
    ----------
    func, y0, params : as for odeint.
    t0 : the time of y0, a number.
    event : function (t, y, params) -> one real number, in autograd.numpy whatever func is written in; y is nested and shaped as
        y0. For the first of several events, return their product. It is looked at where the integrator's steps end: to be sure of
        two crossings that lie close together, set options["max_step"]. One that comes to zero and stays there, as
        maximum(y[0], 0.0), has its event where it comes there.
    t_max : the time at which to give up; earlier than t0, and time runs backwards. Without it the solve goes on until it has
        taken max_num_steps steps (default 50,000).
    reverse_time : whether time runs backwards where there is no t_max to say so.
    method, rtol, atol, options, adjoint_* : as for odeint. A method on a fixed grid needs options["step_size"].

    An event that is zero at the start, within what the tolerances leave open, counts from where the solution has left it: a ball
    that has just bounced does not bounce again at once.

    Returns a number and the nesting of y0. The solve is made twice, once to find the root and once to end at it.

    Raises
    ------
    ValueError, TypeError : arguments that make no sense; event not returning one real number; a derivative asked for where the
        solution touches zero without a slope.
    SolverError : no crossing before t_max or within max_num_steps steps, or a solve that failed on the way.
    """
    means = {
        "method": method,
        "rtol": rtol,
        "atol": atol,
        "options": options,
        "adjoint_method": adjoint_method,
        "adjoint_rtol": adjoint_rtol,
        "adjoint_atol": adjoint_atol,
        "adjoint_options": adjoint_options,
    }
    start, end = _checked_times(t0, t_max, reverse_time)
    if not callable(event):
        raise TypeError(f"event must be a function (t, y, params) -> number, got {type(event).__name__}")
    last = (-LAST_TIME if reverse_time else LAST_TIME) if end is None else end
    problem, y0_leaves, _, leaves, _ = check(func, y0, np.array([start, last]), params, **means)
    t0, leaves = with_its_dtype(t0, np.float64), [with_its_dtype(leaf) for leaf in leaves]
    if not problem.solver.integrator.adaptive and problem.solver.options.step_size is None:
        raise ValueError(f"method {method!r} needs options['step_size'], where a plain solve would take one step to the end")
    event_of = _EventOf(problem, event)
    search, horizon = event_of.search(y0_leaves, leaves), FIRST_HORIZON if end is None else math.inf
    try:
        t_event, z_event = search.first_crossing(start, last, horizon)
    except SolverError as error:
        tell_states(error, problem.layout, [start])
        raise
    slope = event_of.slope(t_event, z_event, leaves)
    # event itself may hold what is differentiated.
    may_be_traced = (*y0_leaves, t0, *leaves, event_of(t_event, z_event, [getval(leaf) for leaf in leaves]))
    orders = len({trace for value in may_be_traced for trace in _traces_of(value)})
    if slope == 0 or not math.isfinite(slope):
        if orders:
            raise ValueError(
                f"event has no derivative at its crossing at t = {t_event!r}: along the solution its slope there is {slope!r}"
            )
        return t_event, problem.layout.unpack(z_event, np.reshape)
    f = differentiable(problem.dynamics, problem.layout, problem.structure)
    for _ in range(max(orders, 1)):
        ys = odeint(func, y0, anp.stack([t0, t_event]), params, **means)
        z = _last_state(problem.layout, ys)
        before = t_event
        t_event = before - event_of(before, z, leaves) / slope
    z = z + (t_event - before) * f(before, z, *leaves)
    return t_event, problem.layout.unpack(z, anp.reshape)


def _last_state(layout, ys):
    """The flat state (n,) in the last row of what odeint returned."""
    return layout.pack([leaf[-1] for leaf in layout.structure.leaves_of(ys)], anp.reshape, anp.concatenate)


def _traces_of(value):
    """The traces that value is boxed in, one for each derivative that is being taken of it."""
    while isbox(value):
        yield value._trace
        value = value._value


def _checked_times(t0, t_max, reverse_time):
    """(t0, t_max or None) as floats."""
    start = _number(t0, "t0")
    if not isinstance(reverse_time, (bool, np.bool_)):
        raise TypeError(f"reverse_time must be True or False, got {reverse_time!r}")
    if t_max is None:
        return start, None
    end = _number(t_max, "t_max")
    if end == start or (reverse_time and end > start):
        raise ValueError(f"t_max must be {'before' if reverse_time else 'other than'} t0 = {start!r}, got {end!r}")
    return start, end


def _number(value, name):
    array = np.asarray(getval(value))
    if array.dtype.kind not in "fiu" or array.shape != ():
        raise TypeError(f"{name} must be a number, got {value!r}")
    if not np.isfinite(array):
        raise ValueError(f"{name} must be finite, got {value!r}")
    return float(array)


class _EventOf:
    """event as a function of flat states and leaves, which autograd may trace."""

    def __init__(self, problem, event):
        self.problem, self.event = problem, event

    def __call__(self, t, z, leaves):
        """The event's value at a flat state, traced if anything is."""
        problem = self.problem
        value = self.event(t, problem.layout.unpack(own(z), anp.reshape), problem.structure.unflatten(leaves))
        if isinstance(value, (list, tuple)):
            value = anp.array(value)
        array = np.asarray(getval(value))
        if array.dtype.kind == "b":
            raise TypeError(f"event must return a number that changes its sign, got a boolean; {INSTEAD_OF_BOOLEAN}")
        if array.dtype.kind not in "fiu":
            raise TypeError(f"event must return one real number, got {type(value).__name__} of dtype {array.dtype}")
        if array.size != 1:
            raise ValueError(f"event must return one real number, got shape {array.shape}; for several events, their product")
        return anp.reshape(value, ())

    def search(self, y0_leaves, leaves):
        """The Search for its crossing, on numbers that nothing traces."""
        leaves = [getval(leaf) for leaf in leaves]
        z0 = self.problem.layout.pack([getval(leaf) for leaf in y0_leaves], np.reshape, np.concatenate)

        def value(t, z):
            return float(getval(self(t, z, leaves)))

        def gradient(t, z):
            _, pullback = vjp(lambda z: self(t, z, leaves), z)
            return getval(pullback(1.0)[0])

        return Search(self.problem, z0, leaves, value, gradient)

    def slope(self, t, z, leaves):
        """d event/dt along the solution."""
        leaves, problem = [getval(leaf) for leaf in leaves], self.problem
        _, pullback = vjp(lambda t, z: self(t, z, leaves), t, z)
        t_bar, z_bar = pullback(1.0)
        f = problem.dynamics.bind(problem.layout, problem.structure, leaves)
        return float(getval(t_bar) + np.dot(getval(z_bar), f(t, z)))
