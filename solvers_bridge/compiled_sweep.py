"""Reverse sweeps over many output times in compiled code: one prepared integrator for all segments, no Python between them.

A segment that does not go well is left to reverse.py, which solves it again by its own means; the sweep goes on behind it.
"""

from __future__ import annotations

import ctypes

import numpy as np

from .integrators.compiled import Outcome, Plan, begin, compiled_of, enter, has_false_success
from .solve import CLOSE_TIMES, FAR_TIMES, jacobian_of
from .statistics import new_statistics, publish


class Sweep(ctypes.Structure):
    """A sweep's state, and what it needs to go on; drive.h has the same."""

    _fields_ = [
        ("plan", Plan),
        ("slope", ctypes.c_void_p),
        ("slope_binding", ctypes.c_void_p),
        *((name, ctypes.c_int64) for name in ("wants_t", "n", "p", "count")),
        *((name, ctypes.c_void_p) for name in ("t", "zs", "zs_bar", "is_close")),
        ("vector_tolerances", ctypes.c_int64),
        *((name, ctypes.c_void_p) for name in ("rtol", "atol")),
        *((name, ctypes.c_double) for name in ("grid_unit", "gap_limit")),
        ("stops_where_lost", ctypes.c_int64),
        ("blown_up", ctypes.c_double),
        *((name, ctypes.c_int64) for name in ("is_warm", "warm_from_last")),
        ("warm_step", ctypes.c_double),
        *((name, ctypes.c_void_p) for name in ("s", "t_bars", "outcomes")),
        ("i", ctypes.c_int64),
    ]


def compiled_sweep(reverse, zs_bar):
    """What adjoint.reverse_sweep gives for a reverse._Reverse; None where it is not, or not all, machine code."""
    problem, adjoint = reverse.problem, reverse.adjoint
    compiled, slope = compiled_of(reverse.f_augmented), compiled_of(reverse.f)
    solver, options = adjoint.solver, adjoint.solver.options
    if compiled is None or slope is None or problem.discrete or problem.reconstruction == "interpolate":
        return None
    if options.jump_t or options.stay_inside or options.progress or not problem.layout.size:
        return None
    is_close = _close_times(reverse.t)
    if is_close is None:
        return None
    wants_first_step = reverse.warm is not None and not solver.integrator.restart_from_last_step
    jacobian = jacobian_of(adjoint, reverse.leaves, reverse.sent)
    prepared = solver.integrator.prepare(solver, adjoint.layout.size, compiled, jacobian, wants_first_step)
    if prepared is None or _keeps_steps(adjoint):
        return None
    return _Run(reverse, zs_bar, is_close, prepared, compiled, slope).bars()


def _close_times(t):
    """For each of t (T,) whether it is too close to the one before it to be solved apart; None if they are far from zero.

    (Those are counted from the beginning of each segment, which is left to Python.)
    """
    is_close = np.zeros(len(t), np.uint8)
    distance, magnitude = np.abs(np.diff(t)), np.maximum(np.abs(t[1:]), np.abs(t[:-1]))
    is_close[1:] = distance <= CLOSE_TIMES * np.spacing(magnitude)
    is_far = (magnitude > FAR_TIMES * distance) & (is_close[1:] == 0)
    return None if is_far.any() or np.max(magnitude, initial=0.0) > FAR_TIMES else is_close


def _keeps_steps(problem):
    """Whether somebody records every step."""
    statistics = new_statistics("backward", problem.solver.integrator.name, problem.layout.size)
    return statistics.t is not None or statistics.dense_output is not None


class _Run:
    """One sweep: its arrays, and the segments that are left to Python."""

    def __init__(self, reverse, zs_bar, is_close, prepared, compiled, slope):
        self.reverse, self.prepared = reverse, prepared
        means = reverse.problem.adjoint_solver
        n, p, count = reverse.augmented.n, reverse.augmented.p, len(reverse.t)
        self.zs_bar = np.ascontiguousarray(zs_bar, float)
        self.s, self.t_bars = np.zeros(reverse.augmented.size), np.zeros(count)
        self.s[n : 2 * n] = self.zs_bar[-1]
        self.outcomes = (Outcome * count)()
        rtol, atol = np.atleast_1d(means.rtol), np.atleast_1d(means.atol)
        if max(len(rtol), len(atol)) > 1:
            rtol, atol = (np.ascontiguousarray(np.broadcast_to(value, (n,)), float) for value in (rtol, atol))
        arrays = {
            "t": np.ascontiguousarray(reverse.t),
            "zs": np.ascontiguousarray(reverse.zs, float),
            "zs_bar": self.zs_bar,
            "is_close": is_close,
            "rtol": np.asarray(rtol, float),
            "atol": np.asarray(atol, float),
            "s": self.s,
            "t_bars": self.t_bars,
        }
        self.arrays = arrays
        self.sweep = Sweep(
            plan=prepared.plan,
            slope=slope.binding.library.evaluate_address,
            slope_binding=slope.binding.handle,
            wants_t=reverse.wants_t,
            n=n,
            p=p,
            count=count,
            vector_tolerances=len(rtol) > 1,
            grid_unit=0.0 if means.integrator.adaptive else reverse.grid_unit,
            gap_limit=reverse.gap_limit,
            stops_where_lost=reverse.problem.reconstruction == "auto",
            blown_up=reverse.blown_up,
            is_warm=reverse.warm is not None,
            warm_from_last=means.integrator.restart_from_last_step,
            warm_step=(reverse.warm and reverse.warm.step) or 0.0,
            outcomes=ctypes.addressof(self.outcomes),
            i=count - 1,
            **{name: array.ctypes.data for name, array in arrays.items()},
        )
        begin(compiled, jacobian=prepared.jacobian)
        self.compiled = compiled

    def bars(self):
        """(z0_bar, t_bar, theta_bar)."""
        reverse, sweep, n = self.reverse, self.sweep, self.reverse.augmented.n
        binding = self.prepared.binding
        while sweep.i > 0:
            begun = sweep.i
            begin(self.compiled, jacobian=self.prepared.jacobian)
            i, messages = self.prepared.run(lambda: binding.library.sb_sweep(binding.handle, ctypes.addressof(sweep)))
            if messages and any(has_false_success(outcome, messages) for outcome in self.outcomes[i : begun + 1]):
                return None
            self._tell(begun, i)
            if i > 0:
                self._segment(i)
                sweep.i = i - 1
        a, theta_bar, t0_bar = self.s[n : 2 * n], self.s[2 * n : -1], self.s[-1]
        self.t_bars[0] = t0_bar
        return a.copy(), self.t_bars, theta_bar.copy()

    def _tell(self, begun, i):
        """Publish the solves of the segments from begun down to i, and note what their gaps say."""
        reverse, problem = self.reverse, self.reverse.adjoint
        for k in range(begun, max(i, 1) - 1, -1):
            outcome = self.outcomes[k]
            if not outcome.solved:
                continue
            reverse.has_solved = problem.solver.integrator.adaptive
            reverse.is_lost(outcome.gap, k)
            statistics = new_statistics("backward", problem.solver.integrator.name, problem.layout.size)
            statistics.nfe, statistics.wall_seconds = outcome.evaluations, outcome.seconds
            statistics.reconstruction_gap = outcome.gap
            enter(statistics, outcome, self.prepared.plan)
            publish(statistics)

    def _segment(self, i):
        """Segment i by Python, up to the cotangent at t[i - 1]."""
        reverse, n, s = self.reverse, self.reverse.augmented.n, self.s
        if reverse.warm is not None:
            reverse.warm.step = self.sweep.warm_step or None
        bars = s[n : 2 * n].copy(), s[2 * n : -1].copy(), s[-1]
        segment = reverse.with_known_state if self.outcomes[i].solved else reverse.segment
        a, theta_bar, t0_bar = segment(i, *bars)
        s[n : 2 * n], s[2 * n : -1], s[-1] = a + self.zs_bar[i - 1], theta_bar, t0_bar
        if reverse.warm is not None:
            self.sweep.warm_step = reverse.warm.step or 0.0
