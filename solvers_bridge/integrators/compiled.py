"""Whole solves and reverse sweeps of right-hand sides that are machine code, with no Python between their evaluations.

Only what goes well is done so: where the compiled code returns without success, the caller solves again by its own means, with
the same function called from Python, which know how to go on or what to say.
"""

from __future__ import annotations

import ctypes
from typing import Any, NamedTuple

import numpy as np

from .base import MOST_NOT_FINITE, StepArrays, both_tolerances
from .blas_threads import with_one_blas_thread
from .exclusive import run_exclusively
from .quiet import Callbacks
from .scipy_private import fortran_address, inner_integrator

VODE, LSODA, HAIRER, GRID = range(4)  # Plan.family
RUNNING, NOT_FINITE, INTERRUPTED, EVALUATION_LIMIT, LOST = range(5)  # a binding's control.stop
JACOBIAN_NAMES = {VODE: "sb_jacobian", LSODA: "sb_jacobian_lsoda"}
DRIVERS = {"vode": VODE, "lsoda": LSODA, "dopri5": HAIRER, "dop853": HAIRER}


class Compiled(NamedTuple):
    """A right-hand side as machine code, a Binding of dynamics/native.

    ignore_last: whether a last component that is not finite counts as zero.
    """

    binding: Any
    ignore_last: bool = False


class Plan(ctypes.Structure):
    """An integrator that is ready to begin; drive.h has the same."""

    _fields_ = [
        ("family", ctypes.c_int64),
        ("routine", ctypes.c_void_p),
        ("vector_tolerances", ctypes.c_int64),
        ("rtol", ctypes.c_void_p),
        ("atol", ctypes.c_void_p),
        ("rwork", ctypes.c_void_p),
        ("rwork_size", ctypes.c_int64),
        ("iwork", ctypes.c_void_p),
        ("iwork_size", ctypes.c_int64),
        ("iteration", ctypes.c_int64),
        ("jacobian", ctypes.c_void_p),
        ("jacobian_control", ctypes.c_void_p),
        ("order", ctypes.c_int64),
        ("wants_first_step", ctypes.c_int64),
        *((name, ctypes.c_double) for name in ("first_step", "max_step", "step_size")),
    ]


class Outcome(ctypes.Structure):
    """What one solve cost; drive.h has the same."""

    _fields_ = [
        *((name, ctypes.c_int64) for name in ("evaluations", "steps", "jacobians", "last_order", "beside", "solved")),
        *((name, ctypes.c_double) for name in ("last_step", "first_step", "seconds", "gap", "excess", "doubt")),
    ]


class Prepared(NamedTuple):
    """A Plan, what it points to, and how to run it: as the only solve of the process where there is a lock."""

    plan: Plan
    keep: Any
    scipy_integrator: Any
    binding: Any
    jacobian: Any
    lock: Any

    def run(self, function):
        """function() in the circumstances of the integrator; returns (its value, what Fortran printed)."""
        if self.lock is None:
            return with_one_blas_thread(function), ""
        callbacks = Callbacks(fortran_prints=True)

        def solve():
            self.scipy_integrator.acquire_new_handle()  # Another ode object's solve cannot be gone on with.
            if self.jacobian is None:
                return callbacks.call(function)
            with self.jacobian:
                return callbacks.call(function)

        return run_exclusively(self.lock, solve), callbacks.messages


def compiled_of(rhs):
    """The Compiled of a right-hand side, or None for one that only Python can call."""
    return getattr(rhs, "compiled", None)


def prepare_fortran(name, solver, size, compiled, jacobian, wants_first_step, lock=None, runge_kutta_order=0, **scipy_parameters):
    """A Prepared of one of SciPy's integrators; None where its Fortran, or its Jacobian, cannot be called directly.

    solver : what has rtol, atol and options. jacobian : function (t, z) -> matrix that the integrator is to use, or None.
    """
    compiled_jacobian = None if jacobian is None else compiled_of(jacobian)
    if jacobian is not None and compiled_jacobian is None:
        return None
    options = solver.options
    rtol, atol = both_tolerances(solver.rtol, solver.atol, size)
    scipy_integrator = inner_integrator(name, rtol=rtol, atol=atol, nsteps=options.max_num_steps, **scipy_parameters)
    routine = fortran_address(scipy_integrator.runner)
    if routine is None:
        return None
    scipy_integrator.max_step = options.max_step or 0.0
    scipy_integrator.reset(size, jacobian is not None)
    if scipy_integrator.iwork.dtype != np.int32:
        return None  # A Fortran of other integers than drive.h's.
    family, rtol, atol = DRIVERS[name], np.atleast_1d(rtol), np.atleast_1d(atol)
    work = scipy_integrator.work if family == HAIRER else scipy_integrator.rwork
    plan = Plan(
        family=family,
        routine=routine,
        vector_tolerances=len(rtol) > 1,
        rtol=rtol.ctypes.data,
        atol=atol.ctypes.data,
        rwork=work.ctypes.data,
        rwork_size=len(work),
        iwork=scipy_integrator.iwork.ctypes.data,
        iwork_size=len(scipy_integrator.iwork),
        order=runge_kutta_order,
        wants_first_step=wants_first_step,
        first_step=options.first_step or 0.0,
        max_step=options.max_step or 0.0,
    )
    if family != HAIRER:
        plan.iteration = scipy_integrator.call_args[-1]
    binding = None
    if compiled_jacobian is not None:
        binding = compiled_jacobian.binding
        binding.reset()
        binding.set_bands(options.bands)
        plan.jacobian = binding.library.jacobian_addresses[JACOBIAN_NAMES[family]]
        plan.jacobian_control = ctypes.addressof(binding.control)
    else:
        plan.jacobian = routine  # An address that is never called.
    return Prepared(plan, (rtol, atol, work), scipy_integrator, compiled.binding, binding, lock)


def prepare_grid(compiled, solver, order):
    """A Prepared of a method on a fixed grid."""
    plan = Plan(family=GRID, order=order, step_size=solver.options.step_size or 0.0)
    return Prepared(plan, None, None, compiled.binding, None, None)


def attempt(integrator, call):
    """Whether call was solved by compiled code; if so, it is filled as by Integrator.solve. If not, it is as it was."""
    rhs, zs = call.rhs, call.zs
    if rhs.compiled is None or (call.keeps_steps() and not call.keeps_stages_alone()) or not zs.size:
        return False
    prepared = integrator.prepare(call, rhs.size, rhs.compiled, rhs.given_jacobian, call.wants_first_step)
    if prepared is None or (call.tape is not None and prepared.plan.family != HAIRER):
        return False
    binding = prepared.binding
    binding.record(integrator.name if call.tape is not None else None)
    begin(rhs.compiled, rhs.origin, rhs.low, rhs.high, prepared.jacobian)
    ts, states, outcome = np.ascontiguousarray(call.ts), np.array(zs), Outcome()
    arguments = [ctypes.addressof(prepared.plan), ts.ctypes.data, len(ts), states.ctypes.data, zs.shape[1]]
    solved, messages = prepared.run(lambda: binding.library.sb_solve(binding.handle, *arguments, ctypes.addressof(outcome)))
    if not solved or has_false_success(outcome, messages):
        return False
    zs[1:], call.done = states[1:], len(ts)
    rhs.nfe += outcome.evaluations
    enter(call.statistics, outcome, prepared.plan)
    if call.tape is not None:
        call.tape += _intervals(binding, rhs.origin, len(integrator.tableau.b))
    return True


def _intervals(binding, origin, stages):
    """StepArrays for each interval between output times of what a binding has recorded."""
    t, z, k, begins, owner = binding.take_recorded()
    bounds = [*begins, len(t)]
    every = []
    for j, (start, end) in enumerate(zip(bounds, bounds[1:])):
        # Each interval has a point more than it has steps.
        every.append(StepArrays(t[start:end] + origin, z[start:end], k[start - j : end - j - 1], stages, owner))
    return every


def begin(compiled, origin=0.0, low=None, high=None, jacobian=None):
    """Reset the counts of a binding for a solve in which times are counted from origin and kept between low and high."""
    every = [compiled.binding] if jacobian is None else [compiled.binding, jacobian]
    for binding in every:
        binding.reset()
        control = binding.control
        control.origin = origin
        control.low, control.high = -np.inf if low is None else low, np.inf if high is None else high
    control = compiled.binding.control
    control.not_finite_limit, control.ignore_last = MOST_NOT_FINITE, compiled.ignore_last


def has_false_success(outcome, messages):
    """Whether the Fortran says that it has succeeded and prints that it could not interpolate (see multistep)."""
    return bool(messages) and not outcome.beside and ("intdy" in messages.lower() or "dvindy" in messages.lower())


def enter(statistics, outcome, plan):
    """Write an Outcome into SolveStatistics."""
    statistics.steps, statistics.nje = outcome.steps, outcome.jacobians
    if outcome.steps:
        statistics.last_step, statistics.last_order = outcome.last_step, outcome.last_order
        if plan.family in (HAIRER, GRID) or plan.wants_first_step:
            statistics.first_step = outcome.first_step
