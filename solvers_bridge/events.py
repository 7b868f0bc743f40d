"""odeint_event: the time at which a function of the state crosses zero, and the state there, differentiable, for autograd."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import autograd.numpy as anp
import numpy as np
from autograd.tracer import getval, isbox
from scipy.optimize import brentq

from .arguments import check
from .dynamics.autograd import differentiable
from .dynamics.base import Dynamics
from .dynamics.tape import vjp
from .interpolant import Interpolant
from .odeint import odeint
from .solve import Kept, jacobian_of, solve
from .statistics import SolverError

# Where no t_max is given: the time looked at first, by how much it grows each time, and where it ends.
FIRST_HORIZON, GROWTH, LAST_TIME = 1.0, 10.0, 1e100


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
        two crossings that lie close together, set options["max_step"].
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
    if not problem.solver.integrator.adaptive and problem.solver.options.step_size is None:
        raise ValueError(f"method {method!r} needs options['step_size'], where a plain solve would take one step to the end")
    search = _Search(problem, event, y0_leaves, leaves)
    t_event, z_event = search.first_crossing(start, last, FIRST_HORIZON if end is None else math.inf)
    slope = search.slope(t_event, z_event)
    # event itself may hold what is differentiated.
    may_be_traced = (*y0_leaves, t0, *leaves, search.event(t_event, z_event, search.leaves))
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
        t_event = before - search.event(before, z, leaves) / slope
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


class _Crossed(Exception):
    """Ends a solve at the end of the step in which the event lies."""


class _Search:
    """The search for a crossing, on numbers that nothing traces."""

    def __init__(self, problem, event, y0_leaves, leaves):
        self.problem, self.func = problem, event
        self.leaves = [getval(leaf) for leaf in leaves]
        self.z0 = problem.layout.pack([getval(leaf) for leaf in y0_leaves], np.reshape, np.concatenate)
        self.sent = problem.dynamics.send(self.leaves)
        self.f = problem.dynamics.bind(problem.layout, problem.structure, self.sent)
        self.steps, self.side = 0, 0.0

    def event(self, t, z, leaves):
        """The event's value at a flat state, traced if anything is."""
        problem = self.problem
        value = self.func(t, problem.layout.unpack(z, anp.reshape), problem.structure.unflatten(leaves))
        if isinstance(value, (list, tuple)):
            value = anp.array(value)
        array = np.asarray(getval(value))
        if array.dtype.kind not in "fiub":
            raise TypeError(f"event must return one real number, got {type(value).__name__} of dtype {array.dtype}")
        if array.size != 1:
            raise ValueError(f"event must return one real number, got shape {array.shape}; for several events, their product")
        return anp.reshape(value, ())

    def value(self, t, z):
        """The event's value as a float."""
        value = float(getval(self.event(t, z, self.leaves)))
        if not math.isfinite(value):
            raise ValueError(f"event returned {value} at t = {t!r}")
        return value

    def slope(self, t, z):
        """d event/dt along the solution."""
        _, pullback = vjp(lambda t, z: self.event(t, z, self.leaves), t, z)
        t_bar, z_bar = pullback(1.0)
        return float(getval(t_bar) + np.dot(getval(z_bar), self.f(t, z)))

    def first_crossing(self, start, end, horizon):
        """(t, z) at the first crossing between start and end, of which as much as horizon is looked at first, and then more."""
        t, z, direction = start, self.z0, math.copysign(1.0, end - start)
        g, self.doubt = self.value(t, z), self._doubt(t, z)
        self.side = math.copysign(1.0, g) if abs(g) > self.doubt else 0.0
        horizon = max(horizon, 1e6 * np.spacing(abs(start)))
        while t != end:
            t_next = t + direction * min(horizon, abs(end - t))
            crossing, z = self._up_to(t, z, t_next)
            if crossing is not None:
                return crossing
            t, horizon = t_next, GROWTH * horizon
        raise SolverError(f"event did not cross zero between t = {start!r} and {end!r}", t_reached=end)

    def _doubt(self, t, z):
        """How far from zero the event may be where the solution, within its tolerances, is at zero."""
        solver = self.problem.solver
        _, pullback = vjp(lambda z: self.event(t, z, self.leaves), z)
        (z_bar,) = pullback(1.0)
        return float(np.sum(np.abs(getval(z_bar)) * (solver.atol + solver.rtol * np.abs(z))))

    def _up_to(self, start, z_start, end):
        """((t, z) of a crossing between start and end, or None; the state at end, or None)."""
        solver, direction = self.problem.solver, math.copysign(1.0, end - start)
        inner = [jump for jump in solver.options.jump_t if min(start, end) < jump < max(start, end)]
        times = np.array([start, *sorted(inner, reverse=direction < 0), end])
        before = (start, z_start)

        def after_step(t, z):
            nonlocal before
            # A step may go beyond the end; and one solve that failed beyond it is made again from the start.
            if not 0 < direction * (t - before[0]) <= direction * (end - before[0]):
                return
            g, after = self.value(t, z), (t, np.array(z))
            if self.side == 0.0 and abs(g) > self.doubt:
                self.side = math.copysign(1.0, g)
            elif self.side and self.side * g <= 0:
                raise _Crossed(before, after)
            before = after
            self._count(t)

        jacobian = jacobian_of(self.problem, self.leaves, self.sent)
        try:
            zs, _ = solve(solver, self.f, z_start, times, "forward", jacobian, after_step=after_step)
            after_step(end, zs[-1])
        except _Crossed as crossed:
            return self._between(*crossed.args, jacobian), None
        return None, zs[-1]

    def _count(self, t):
        limit = self.problem.solver.options.max_num_steps
        self.steps += 1
        if self.steps > limit:
            raise SolverError(
                f"event did not cross zero in max_num_steps = {limit} steps; give t_max, or a larger options['max_num_steps']",
                t_reached=t,
            )

    def _between(self, before, after, jacobian):
        """The root between two states on both sides of it, on the interpolant of the steps between them."""
        interpolant = Interpolant()
        times = np.array([before[0], after[0]])
        solve(self.problem.solver, self.f, before[1], times, "forward", jacobian, kept=Kept(interpolant=interpolant))

        def value(t):
            return self.side * self.value(t, interpolant(t))

        # Where a root is as near to an end as the tolerance, this solve may have it beyond that end.
        if value(after[0]) >= 0:
            return after
        if value(before[0]) <= 0:
            return before
        t = brentq(value, *times, xtol=4 * np.spacing(np.abs(times).max()))
        return t, interpolant(t)
