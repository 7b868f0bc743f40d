"""Forward solves on flat float64 arrays; reverse.py has the way back. Knows no autodiff framework: every door calls these two."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import NamedTuple

import numpy as np

from .adjoint import Augmented
from .dynamics.base import Dynamics, leaf_tuple, num_params
from .integrators import Call, Integrator, Options, RightHandSide
from .integrators.compiled import attempt
from .integrators.fixed_grid import ORDER, integrate_on_grid
from .interpolant import Interpolant, Polynomial
from .jacobian import jacobian_of
from .nested import Layout, Structure
from .progress import Progress
from .statistics import SolverError, new_statistics, publish

# Output times nearer to each other than this many units in the last place are one: the integrators cannot step between them.
CLOSE_TIMES = 16
# Where an integrator's own guess of a first step is lost in rounding: this part of the interval.
FIRST_PART = 1e-6
# Times this many intervals away from zero are counted from the start: steps in them would lose their digits.
FAR_TIMES = 1e5


class Solver(NamedTuple):
    """An integrator with its tolerances (numbers, or vectors of one number an unknown) and options."""

    integrator: Integrator
    rtol: object
    atol: object
    options: Options


class Problem(NamedTuple):
    """Everything about a solve that is not differentiated.

    reconstruction: "auto", "solve" or "interpolate", how the reverse sweep knows z(t); discrete: whether it goes back through the
    steps that were taken. keep: where the forward solve leaves what the reverse sweep will want, if it is to; see Kept. warm: of
    a segment of a reverse sweep that restarts warm and is itself differentiated; see Warm.
    """

    dynamics: Dynamics
    layout: Layout
    structure: Structure
    solver: Solver
    adjoint_solver: Solver
    reconstruction: str = "auto"
    discrete: bool = False
    warm_restart: bool = False
    seminorm: bool = False
    keep: Kept | None = None
    warm: Warm | None = None
    direction: str = "forward"


class Kept:
    """What one forward solve keeps for its reverse sweep: its evaluations, and with steps, its interpolant or its steps."""

    def __init__(self, steps=False, interpolant=None):
        self.steps, self.nfe = steps, 0
        self.interpolant, self.tape = interpolant, None


class Warm:
    """The size of step with which a segment of a reverse sweep is to begin, then that with which the next one is; or None."""

    def __init__(self, step=None):
        self.step = step

    def begin(self, solver, t):
        """solver with that first step, for times t (T,)."""
        if self.step is None:
            return solver
        first_step = min(self.step, abs(float(t[-1] - t[0])))
        return solver._replace(options=solver.options._replace(first_step=first_step))

    def note(self, integrator, statistics):
        """Take up the step of a solve that has ended."""
        self.step = abs(statistics.last_step if integrator.restart_from_last_step else statistics.first_step)


def forward(problem, z0, t, leaves):
    """States (T, n) of problem at times t (T,) from z0 (n,); what problem.keep asks for is left there."""
    sent = problem.dynamics.send(leaves)
    rhs = problem.dynamics.bind(problem.layout, problem.structure, sent)
    jacobian = jacobian_of(problem, leaves, sent)
    kept = problem.keep or Kept()
    kept.interpolant = Interpolant() if kept.steps and not problem.discrete else None
    kept.tape = [] if kept.steps and problem.discrete else None
    layout, direction = problem.layout, problem.direction
    return solve(problem.solver, rhs, z0, t, direction, jacobian, layout=layout, warm=problem.warm, kept=kept)[0]


def solve(solver, rhs, z0, t, direction, jacobian=None, *, layout, warm=None, kept=None, after_step=None):
    """(states (T, n), SolveStatistics of the last integrator call) at times t (T,), which may repeat.

    One call of the integrator, or one for each piece between times at which func jumps. Raises SolverError where the end is not
    reached, with the times and states that were. kept, a Kept, takes up what it asks for. after_step(t, z) is told of the end of
    every step, and may end the solve by an exception. layout is the problem's, and marks the errors that are this solve's.
    """
    t = np.asarray(t, dtype=np.float64)
    wants_first_step = warm is not None and not solver.integrator.restart_from_last_step
    solver = solver if warm is None else warm.begin(solver, t)
    first_of_close = _first_of_close_times(t)
    grid = np.unique(first_of_close)
    row = np.searchsorted(grid, first_of_close)
    ts, zs = t[grid], np.empty((len(grid), z0.size))
    zs[0] = z0
    statistics = new_statistics(direction, solver.integrator.name, z0.size)
    kept = Kept() if kept is None else kept
    kept.nfe, intervals = 0, None if kept.tape is None else []
    wanted = _Wanted(direction, layout, wants_first_step, kept.interpolant, intervals, after_step)
    for start, end in pieces(ts, solver.options):
        inside, options = inside_of(ts[start], ts[end], solver.options)
        piece = slice(start, end + 1)
        try:
            statistics = _solve_piece(solver._replace(options=options), rhs, jacobian, ts[piece], zs[piece], inside, wanted)
        except SolverError as error:
            if error.layout is layout and error.ts is not None:
                reached = row < start + len(error.ts)
                error.ts, error.ys = t[reached], zs[row[reached]]
            raise
        kept.nfe += statistics.nfe
    if warm is not None and statistics.steps:
        warm.note(solver.integrator, statistics)
    if kept.tape is not None:
        kept.tape[:] = _spread(intervals, grid, len(t))
    return zs[row], statistics


def solve_traced(problem, f, z0, t, value, constant):
    """The states (n,) of a problem on a fixed grid at times t (T,), as a list; f(t, z), z0 and t may be traced, of any framework.

    So a framework differentiates through every step, in O(steps) memory. value(x) is the array or number in what is traced,
    constant(x) the same in the framework's own type, as f takes it; None: func jumps wherever the output time there is moved to.
    """
    name, options = problem.solver.integrator.name, problem.solver.options
    times, inside = value(t), None
    statistics = new_statistics("forward", name, problem.layout.size)
    start = time.perf_counter()

    def watched(t_i, z):
        statistics.nfe += 1
        if inside is not None:
            t_i = t_i + (min(max(value(t_i), min(inside)), max(inside)) - value(t_i))
        dz = f(t_i, z)
        if not np.isfinite(value(dz)).all():
            raise SolverError("func returned a value that is not finite", float(value(t_i)), statistics)
        return dz

    def after_step(t_i, h, before, z):
        statistics.steps += 1
        statistics.last_step, statistics.last_order = h, ORDER[name]
        statistics.first_step = statistics.first_step or h
        if statistics.t is not None:
            statistics.t.append(t_i + h)
            statistics.step_sizes.append(h)
            statistics.orders.append(ORDER[name])
            statistics.states.append(np.array(value(z)))
        if statistics.dense_output is not None:
            ends = [(t_i, before), (t_i + h, z)]
            slopes = [value(watched(*end)) for end in ends]
            piece = Polynomial.hermite(t_i, h, value(before), value(z), *slopes)
            statistics.dense_output.add(t_i + h, np.sign(h), piece, 0.0)

    try:
        states, z = [z0], z0
        for first, last in pieces(times, options):
            inside, _ = inside_of(times[first], times[last], options)
            piece = list(t[first : last + 1])
            is_at_jump = constant is not None and last < len(times) - 1
            if constant is not None and first > 0:
                piece[0] = constant(piece[0])
            if is_at_jump:
                piece[-1] = constant(piece[-1])
            integrate_on_grid(name, watched, z, piece, options.step_size, after_step, states.append, value)
            z = states[-1]
            if is_at_jump:
                slope = watched(at_slope_time(piece[-1], times[last], times, options), z)
                states[-1] = z + (t[last] - piece[-1]) * slope
        return states
    finally:
        statistics.wall_seconds = time.perf_counter() - start
        publish(statistics)


def _spread(intervals, grid, count):
    """Steps for each of count - 1 intervals, given those between the times numbered in grid: none where times are close."""
    spread = [[] for _ in range(count - 1)]
    for end, steps in zip(grid[1:], intervals):
        spread[end - 1] = steps
    return spread


def _first_of_close_times(t):
    """For each time the number of the first of those that it is too close to to be solved apart from; mostly its own."""
    first = np.arange(len(t))
    if len(t) > 1 and np.any(np.abs(np.diff(t)) <= CLOSE_TIMES * np.spacing(np.abs(t).max())):
        for i in range(1, len(t)):
            before = first[i - 1]
            if abs(t[i] - t[before]) <= CLOSE_TIMES * np.spacing(max(abs(t[i]), abs(t[before]))):
                first[i] = before
    return first


def with_stored(times, stored):
    """(inner, order): those of stored not in times (T,), and the order in which both together, times first, are solved."""
    inner = np.asarray([time for time in stored if not np.isin(time, times)])
    together = np.concatenate([times, inner])
    # Stable for decreasing times as well: y0 belongs to the first of equal ones.
    return inner, np.argsort(together if times[-1] >= times[0] else -together, kind="stable")


def are_close(t0, t1):
    """Whether two times are too close to each other to be solved apart."""
    return abs(t1 - t0) <= CLOSE_TIMES * np.spacing(max(abs(t0), abs(t1)))


def pieces(ts, options):
    """(start, end) of the pieces of ts (T,) between which func jumps."""
    # Of times that are too close to be solved apart, another one than that of the jump may stand for both.
    is_jump = [any(are_close(time, jump) for jump in options.jump_t) for time in ts[1:-1]] if options.jump_t else []
    bounds = [0, *(1 + np.flatnonzero(is_jump)), len(ts) - 1]
    return list(zip(bounds, bounds[1:])) if len(ts) > 1 else []


def inside_of(start, end, options):
    """Times outside of which func is not to be called on the way from start to end, or None; and the options that keep it so.

    At a time at which func jumps, its value is asked for on this side of it only.
    """
    if not options.stay_inside and not options.jump_t:
        return None, options
    return (beside(start, end, options), beside(end, start, options)), options._replace(stay_inside=True)


def beside(t, towards, options):
    """t; where func jumps there, the nearest time that in func's precision is past the jump towards another time."""
    for jump, (low, high) in zip(options.jump_t, options.jump_sides):
        if are_close(t, jump):
            return float(np.nextafter(options.time_dtype(high if towards > t else low), options.time_dtype(towards)))
    return float(t)


def slope_time(t, times, options):
    """When to ask func for the slope at an output time t of times: at a jump on the side from which the solve comes to it.

    At times[0] that is the side to which the solve goes.
    """
    return beside(t, times[-1] if are_close(t, times[0]) else times[0], options)


def at_slope_time(t, time, times, options):
    """A traced output time t, whose value is `time`, moved to its slope_time: the same number where func does not jump."""
    return t + (slope_time(time, times, options) - time)


class _Wanted(NamedTuple):
    """What of a solve is to be told or kept."""

    direction: str
    layout: Layout
    first_step: bool
    interpolant: Interpolant | None
    tape: list | None
    after_step: Callable | None


def _solve_piece(solver, rhs, jacobian, ts, zs, inside, wanted):
    """Fill zs (T, n), whose first row is the start, by one call of the integrator; returns its SolveStatistics.

    An integrator may evaluate func beyond the last time and interpolate back; where func has no value there, the solve is made
    again, staying inside. So is one that could not begin because the integrator's guess of a first step, which squares what it
    divides by tolerances, came out as next to nothing: with a part of the interval.
    """
    call = _new_call(solver, rhs, jacobian, ts, zs, inside, wanted)
    kept = [(of_solve, len(of_solve)) for of_solve in (wanted.interpolant, wanted.tape) if of_solve is not None]
    try:
        return _run(solver.integrator, call)
    except Exception as error:
        failed_at = call.rhs.trouble_t
        again = None
        if inside is None and failed_at is not None and not min(ts[0], ts[-1]) <= failed_at <= max(ts[0], ts[-1]):
            inside, again = (float(ts[0]), float(ts[-1])), {"stay_inside": True}
        elif _could_not_begin(error, call):
            again = {"first_step": FIRST_PART * abs(float(ts[-1] - ts[0]))}
        if again is not None:
            # What the pieces before this one have left stays.
            for of_solve, count in kept:
                del of_solve[count:]
            solver = solver._replace(options=solver.options._replace(**again))
            return _solve_piece(solver, rhs, jacobian, ts, zs, inside, wanted)
        if isinstance(error, SolverError) and error.statistics is call.statistics:
            error.layout = wanted.layout
            if wanted.direction == "forward":
                error.ts, error.ys = ts[: call.done], zs[: call.done]
        raise


def _could_not_begin(error, call):
    """Whether a call failed at its very start, with a first step that nobody had asked for, and for no fault of func's."""
    return (
        isinstance(error, SolverError)
        and error.statistics is call.statistics
        and error.t_reached == call.ts[0] + call.rhs.origin
        and call.options.first_step is None
        and call.rhs.trouble is None
        and call.rhs.nfe > 0
    )


def _new_call(solver, rhs, jacobian, ts, zs, inside, wanted):
    name, size = solver.integrator.name, zs.shape[1]
    origin = float(ts[0]) if np.abs(ts).max() > FAR_TIMES * abs(ts[-1] - ts[0]) else 0.0
    statistics, interpolant = new_statistics(wanted.direction, name, size), wanted.interpolant
    if statistics.dense_output is not None:
        interpolant = statistics.dense_output = statistics.dense_output if interpolant is None else interpolant
    watch = Progress(name, ts[0], ts[-1]) if solver.options.progress else None
    return Call(
        rhs=RightHandSide(rhs, size, jacobian, origin, inside, watch),
        ts=ts - origin,
        zs=zs,
        rtol=solver.rtol,
        atol=solver.atol,
        options=solver.options,
        statistics=statistics,
        wants_first_step=wanted.first_step,
        interpolant=interpolant,
        tape=wanted.tape,
        after_step=wanted.after_step,
    )


def _run(integrator, call):
    """One call of an integrator, timed and published; a failure comes out as a complete SolverError."""
    statistics, rhs = call.statistics, call.rhs
    start = time.perf_counter()
    try:
        if not attempt(integrator, call):
            integrator.solve(call)
        if not np.isfinite(call.zs).all():
            reason = rhs.trouble or "the integrator returned a state that is not finite"
            call.done = int(np.argmin(np.isfinite(call.zs).all(axis=1)))
            raise SolverError(reason, t_reached=rhs.last_t)
    except SolverError as error:
        # One that has statistics or a layout already comes from a solve inside func, and goes on unchanged.
        if error.statistics is None and error.layout is None:
            error.statistics = statistics
            error.t_reached = float(call.ts[0]) + rhs.origin if error.t_reached is None else error.t_reached
        raise
    finally:
        statistics.wall_seconds = time.perf_counter() - start
        statistics.nfe = rhs.nfe
        if rhs.watch is not None:
            rhs.watch.close()
        publish(statistics)
    return statistics


def adjoint_problem(problem, leaves):
    """The augmented system of problem as a problem of its own, whose adjoint is solved by the same means."""
    augmented = Augmented(problem.layout.size, num_params(leaves))
    means = problem.adjoint_solver
    means = means._replace(rtol=augmented.tolerance(means.rtol), atol=augmented.tolerance(means.atol))
    solver = means
    if problem.seminorm:
        rtol, atol = augmented.seminorm(means.rtol, means.atol, means.integrator.rms_norm)
        solver = means._replace(rtol=rtol, atol=atol)
    return problem._replace(
        dynamics=problem.dynamics.augmented(problem.layout, problem.structure),
        layout=Layout.flat(augmented.size),
        structure=leaf_tuple(len(leaves)),
        solver=solver,
        adjoint_solver=means,
        direction="backward",
        keep=None,
        warm=None,
    )
