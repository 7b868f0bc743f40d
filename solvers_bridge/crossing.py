"""Where a function of the state crosses zero along a solution, on flat float64 arrays. Knows no autodiff framework."""

from __future__ import annotations

import math

import numpy as np
from scipy.optimize import brentq

from .interpolant import Interpolant
from .jacobian import jacobian_of
from .solve import Kept, solve
from .statistics import SolverError

# Where no end is given: the time looked at first, by how much it grows each time, and where it ends.
FIRST_HORIZON, GROWTH, LAST_TIME = 1.0, 10.0, 1e100
# A boolean is zero on one side, which is no side to come from.
INSTEAD_OF_BOOLEAN = "for y[0] > 1.0 return y[0] - 1.0"


class _Crossed(Exception):
    """Ends a solve at the end of the step in which the event lies."""


class Search:
    """The search for a crossing of zero of event(t, z) -> float along the solution of problem from z0 (n,).

    gradient(t, z) -> (n,) is d event/dz. leaves are the parameters; nothing is traced.
    """

    def __init__(self, problem, z0, leaves, event, gradient):
        self.problem, self.z0, self.leaves, self.gradient = problem, z0, leaves, gradient
        self.event = event
        self.sent = problem.dynamics.send(leaves)
        self.f = problem.dynamics.bind(problem.layout, problem.structure, self.sent)
        self.steps, self.side = 0, 0.0

    def value(self, t, z):
        """The event's value, a finite float."""
        value = self.event(t, z)
        if not math.isfinite(value):
            raise ValueError(f"event returned {value} at t = {t!r}")
        return value

    def _doubt(self, t, z):
        """How far from zero the event may be where the solution, within its tolerances, is at zero."""
        solver = self.problem.solver
        return float(np.sum(np.abs(self.gradient(t, z)) * (solver.atol + solver.rtol * np.abs(z))))

    def first_crossing(self, start, end, horizon):
        """(t, z) at the first crossing between start and end, of which as much as horizon is looked at first, and then more.

        Of a SolverError, ts and ys are the start alone: no other time was asked for.
        """
        layout = self.problem.layout
        try:
            return self._first_crossing(start, end, horizon)
        except SolverError as error:
            if error.statistics is None and error.layout is None:
                error.layout = layout
            if error.layout is layout:
                error.ts, error.ys = np.array([start]), self.z0[None].copy()
            raise

    def _first_crossing(self, start, end, horizon):
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
            layout = self.problem.layout
            zs, _ = solve(solver, self.f, z_start, times, "forward", jacobian, layout=layout, after_step=after_step)
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
        solver, layout, kept = self.problem.solver, self.problem.layout, Kept(interpolant=interpolant)
        solve(solver, self.f, before[1], times, "forward", jacobian, layout=layout, kept=kept)

        def value(t):
            return self.side * self.value(t, interpolant(t))

        # Where a root is as near to an end as the tolerance, this solve may have it beyond that end.
        if value(after[0]) > 0:
            return after
        if value(before[0]) <= 0:
            return before
        latest = np.abs(times).max()
        xtol, rounding = 4 * np.spacing(latest), 16 * np.finfo(self.problem.solver.options.time_dtype).eps * latest
        t = _first_of_zeros(value, before[0], brentq(value, *times, xtol=xtol), rounding, xtol)
        return after if t == after[0] else (t, interpolant(t))


def _first_of_zeros(value, start, root, rounding, xtol):
    """root; where value has been zero for longer than rounding before it, the time after start, to xtol, at which it comes there.

    Of the two sides of that time it is the one on which value is positive: there the event still has its slope.
    """
    zero = root - math.copysign(rounding, root - start)
    if not min(start, root) < zero < max(start, root) or value(zero) != 0:
        return root
    while abs(zero - start) > xtol:
        middle = start + (zero - start) / 2
        if value(middle) > 0:
            start = middle
        else:
            zero = middle
    return start
