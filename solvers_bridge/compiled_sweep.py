"""Reverse sweeps over many output times in compiled code: one prepared integrator for all segments, no Python between them.

A segment that does not go well is left to reverse.py, which solves it again by its own means; the sweep goes on behind it.
"""

from __future__ import annotations

import ctypes

import numpy as np

from .integrators.base import StepArrays
from .integrators.compiled import (
    EVALUATION_LIMIT,
    HAIRER,
    LOST,
    Outcome,
    Plan,
    Prepared,
    begin,
    compiled_of,
    enter,
    has_false_success,
)
from .jacobian import jacobian_of
from .lost_state import DOUBTFUL_TOLERANCES, GRID_UNIT, LOST_PART, LOST_ROOTS, Found, lost_gap
from .solve import CLOSE_TIMES, FAR_TIMES, inside_of, slope_time
from .statistics import new_statistics, publish, recorders_are_open


class TakenSteps(ctypes.Structure):
    """StepArrays for drive.h, which has the same."""

    _fields_ = [
        *((name, ctypes.c_int64) for name in ("count", "stride")),
        *((name, ctypes.c_void_p) for name in ("t", "z", "k")),
        *((name, ctypes.c_double) for name in ("low", "high")),
    ]


class Sweep(ctypes.Structure):
    """A sweep's state, and what it needs to go on; drive.h has the same."""

    _fields_ = [
        ("plan", Plan),
        ("slope", ctypes.c_void_p),
        ("slope_binding", ctypes.c_void_p),
        *((name, ctypes.c_int64) for name in ("wants_t", "n", "p", "count")),
        *((name, ctypes.c_void_p) for name in ("t", "slope_t", "zs", "zs_bar", "is_close")),
        ("vector_tolerances", ctypes.c_int64),
        *((name, ctypes.c_void_p) for name in ("rtol", "atol")),
        *(
            (name, ctypes.c_double)
            for name in (
                *("grid_unit", "gap_limit", "greatest_rtol", "greatest_atol"),
                *("lost_part", "lost_roots", "doubtful_tolerances"),
            )
        ),
        ("stops_where_lost", ctypes.c_int64),
        ("blown_up", ctypes.c_double),
        *((name, ctypes.c_int64) for name in ("is_warm", "warm_from_last")),
        ("warm_step", ctypes.c_double),
        *((name, ctypes.c_void_p) for name in ("s", "t_bars")),
        *((name, ctypes.c_double) for name in ("off", "terms")),
        *((name, ctypes.c_void_p) for name in ("outcomes", "steps")),
        ("stages", ctypes.c_int64),
        *((name, ctypes.c_void_p) for name in ("tableau_a", "tableau_b", "tableau_c")),
        ("i", ctypes.c_int64),
    ]


def compiled_sweep(reverse, zs_bar):
    """What adjoint.reverse_sweep gives for a reverse._Reverse; None where it is not, or not all, machine code."""
    problem = reverse.problem
    compiled, slope = compiled_of(reverse.f_augmented), compiled_of(reverse.f)
    if compiled is None or slope is None or not problem.layout.size or len(reverse.t) < 2:
        return None
    if problem.discrete:
        if not all(isinstance(steps, StepArrays) or not steps for steps in problem.keep.tape):
            return None
        # No integrator plays a part.
        prepared = Prepared(Plan(family=HAIRER), None, None, compiled.binding, None, None)
        return _Run(reverse, zs_bar, np.zeros(len(reverse.t), np.uint8), prepared, compiled, slope).bars()
    is_close, prepared = _close_times(reverse.t), _prepared(reverse, compiled)
    if is_close is None or prepared is None or _keeps_steps(reverse.adjoint):
        return None
    return _Run(reverse, zs_bar, is_close, prepared, compiled, slope).bars()


def _prepared(reverse, compiled):
    """The reverse solver made ready, or None where its segments are Python's."""
    solver, options = reverse.adjoint.solver, reverse.adjoint.solver.options
    if reverse.problem.reconstruction == "interpolate" or options.jump_t or options.stay_inside or options.progress:
        return None
    wants_first_step = reverse.warm is not None and not solver.integrator.restart_from_last_step
    jacobian = jacobian_of(reverse.adjoint, reverse.leaves, reverse.sent)
    return solver.integrator.prepare(solver, reverse.augmented.size, compiled, jacobian, wants_first_step)


def _close_times(t):
    """For each of t (T,) whether it is too close to the one before it to be solved apart; None if they are far from zero.

    (Those are counted from the beginning of each segment, which is left to Python.)
    """
    is_close = np.zeros(len(t), np.uint8)
    distance, magnitude = np.abs(t[1:] - t[:-1]), np.maximum(np.abs(t[1:]), np.abs(t[:-1]))
    is_close[1:] = distance <= CLOSE_TIMES * np.spacing(magnitude)
    is_far = (magnitude > FAR_TIMES * distance) & (is_close[1:] == 0)
    return None if is_far.any() or magnitude.max() > FAR_TIMES else is_close


def _keeps_steps(problem):
    """Whether somebody records every step."""
    statistics = new_statistics("backward", problem.solver.integrator.name, problem.layout.size)
    return statistics.t is not None or statistics.dense_output is not None


class _Run:
    """One sweep: its arrays, and the segments that are left to Python."""

    def __init__(self, reverse, zs_bar, is_close, prepared, compiled, slope):
        self.reverse, self.prepared, self.compiled = reverse, prepared, compiled
        means = reverse.problem.adjoint_solver
        n, count = reverse.augmented.n, len(reverse.t)
        rtol, atol = np.atleast_1d(means.rtol), np.atleast_1d(means.atol)
        if max(len(rtol), len(atol)) > 1:
            rtol, atol = (np.broadcast_to(value, (n,)) for value in (rtol, atol))
        self.zs_bar = np.ascontiguousarray(zs_bar, float)
        self.s, self.t_bars = np.zeros(reverse.augmented.size), np.zeros(count)
        self.s[n : 2 * n] = self.zs_bar[-1]
        self.outcomes = (Outcome * count)()
        self.arrays = {
            "t": np.ascontiguousarray(reverse.t),
            "slope_t": np.array([slope_time(t, reverse.t, reverse.problem.solver.options) for t in reverse.t], float),
            "zs": np.ascontiguousarray(reverse.zs, float),
            "zs_bar": self.zs_bar,
            "is_close": is_close,
            "rtol": np.ascontiguousarray(rtol, float),
            "atol": np.ascontiguousarray(atol, float),
            "s": self.s,
            "t_bars": self.t_bars,
        }
        self.sweep = Sweep(
            plan=prepared.plan,
            slope=slope.binding.library.evaluate_address,
            slope_binding=slope.binding.handle,
            wants_t=reverse.wants_t,
            n=n,
            p=reverse.augmented.p,
            count=count,
            vector_tolerances=len(rtol) > 1,
            grid_unit=0.0 if means.integrator.adaptive else GRID_UNIT,
            gap_limit=lost_gap(means),
            greatest_rtol=rtol.max(),
            greatest_atol=atol.max(),
            lost_part=LOST_PART,
            lost_roots=LOST_ROOTS,
            doubtful_tolerances=DOUBTFUL_TOLERANCES,
            stops_where_lost=reverse.problem.reconstruction == "auto",
            blown_up=reverse.blown_up,
            is_warm=reverse.warm is not None,
            warm_from_last=means.integrator.restart_from_last_step,
            warm_step=(reverse.warm and reverse.warm.step) or 0.0,
            off=np.nan,
            outcomes=ctypes.addressof(self.outcomes),
            i=count - 1,
            **{name: array.ctypes.data for name, array in self.arrays.items()},
        )
        if reverse.problem.discrete:
            self._take_steps(reverse)

    def _take_steps(self, reverse):
        solver, t, tape = reverse.problem.solver, reverse.t, reverse.problem.keep.tape
        self.steps = (TakenSteps * len(t))()
        for i, steps in enumerate(tape, start=1):
            inside, _ = inside_of(t[i - 1], t[i], solver.options)
            low, high = (-np.inf, np.inf) if inside is None else sorted(inside)
            arrays = [steps.t, steps.z, steps.k] if len(steps) else []
            stride = steps.k.shape[1] if len(steps) else 0
            self.steps[i] = TakenSteps(len(steps), stride, *(array.ctypes.data for array in arrays or [self.s] * 3), low, high)
        tableau = solver.integrator.tableau
        self.arrays |= {f"tableau_{name}": np.ascontiguousarray(getattr(tableau, name), float) for name in "abc"}
        self.sweep.steps, self.sweep.stages = ctypes.addressof(self.steps), len(tableau.b)
        for name in "abc":
            setattr(self.sweep, f"tableau_{name}", self.arrays[f"tableau_{name}"].ctypes.data)

    def bars(self):
        """(z0_bar, t_bar, theta_bar); None where the Fortran was not to be trusted."""
        reverse, sweep, binding = self.reverse, self.sweep, self.prepared.binding
        n = reverse.augmented.n
        while sweep.i > 0:
            begun = sweep.i
            begin(self.compiled, jacobian=self.prepared.jacobian)
            if reverse.problem.reconstruction == "auto" and np.isfinite(reverse.allowance):
                binding.control.evaluation_limit = int(reverse.allowance)
            i, messages = self.prepared.run(lambda: binding.library.sb_sweep(binding.handle, ctypes.addressof(sweep)))
            if messages and any(has_false_success(outcome, messages) for outcome in self.outcomes[i : begun + 1]):
                return None
            self._tell(begun, i)
            if i > 0:
                self._leave_to_python(i)
                sweep.i = i - 1
        a, theta_bar, t0_bar = self.s[n : 2 * n], self.s[2 * n : -1], self.s[-1]
        self.t_bars[0] = t0_bar
        if not np.isnan(sweep.off):
            reverse.balance = sweep.off, sweep.terms
        return a.copy(), self.t_bars, theta_bar.copy()

    def _tell(self, begun, i):
        """Publish the solves of the segments from begun down to i, and note what their gaps say."""
        reverse, is_recorded = self.reverse, recorders_are_open()
        if reverse.problem.discrete:
            return
        for k in range(begun, max(i, 1) - 1, -1):
            outcome = self.outcomes[k]
            if outcome.solved:
                reverse.has_solved = reverse.adjoint.solver.integrator.adaptive
                found = Found(outcome.gap, outcome.excess, outcome.doubt)
                reverse.watch.is_lost(found, reverse.t[k], reverse.t[k - 1])
                if is_recorded:
                    self._publish(outcome, outcome.evaluations, outcome.gap)

    def _publish(self, outcome, nfe, gap):
        problem = self.reverse.adjoint
        statistics = new_statistics("backward", problem.solver.integrator.name, problem.layout.size)
        statistics.nfe, statistics.wall_seconds, statistics.reconstruction_gap = nfe, outcome.seconds, gap
        enter(statistics, outcome, self.prepared.plan)
        publish(statistics)

    def _leave_to_python(self, i):
        """Segment i, up to the cotangent at t[i - 1]."""
        reverse, n, s = self.reverse, self.reverse.augmented.n, self.s
        if reverse.warm is not None:
            reverse.warm.step = self.sweep.warm_step or None
        bars = s[n : 2 * n].copy(), s[2 * n : -1].copy(), s[-1]
        outcome, stop = self.outcomes[i], self.prepared.binding.control.stop
        is_lost = outcome.solved or stop in (LOST, EVALUATION_LIMIT)
        if is_lost:
            nfe = outcome.evaluations + (stop == EVALUATION_LIMIT)  # with the one that was refused
            reverse.spend(nfe)
            if not outcome.solved:
                self._publish(outcome, nfe, np.inf)
        segment = reverse.with_known_state if is_lost else reverse.segment
        a, theta_bar, t0_bar = segment(i, *bars)
        s[n : 2 * n], s[2 * n : -1], s[-1] = a + self.zs_bar[i - 1], theta_bar, t0_bar
        if reverse.warm is not None:
            self.sweep.warm_step = reverse.warm.step or 0.0
