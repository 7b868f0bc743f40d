"""What VODE and LSODA share: f2py's ode interface, with optional outputs and Nordsieck's array read from the work space."""

from __future__ import annotations

import numpy as np

from ..interpolant import Polynomial
from ..statistics import SolverError
from .base import both_tolerances, step_limit_reason
from .exclusive import run_exclusively
from .provenance import is_translated
from .quiet import Callbacks, with_messages
from .scipy_private import inner_integrator, with_rows_below

# 0-based places in RWORK and IWORK, the same in VODE and ODEPACK: the critical time, optional outputs, and the Nordsieck array.
TCRIT, HU, HCUR, TCUR, NORDSIECK = 0, 10, 11, 12, 20
NST, NJE, NQU, NQCUR = 10, 12, 13, 14
EXCESS_WORK, ILLEGAL_INPUT = -1, -3  # istate
ISTATE = 3  # place in call_args
ITASK = 2  # place in call_args
# Its values: to the output time, stepping over it and interpolating; a single step; a single step that does not pass TCRIT.
TO_OUTPUT_TIME, ONE_STEP, ONE_STEP_INSIDE = 1, 2, 5


def solve_by_ode(call, name, scipy_lock, nordsieck_of_next_step, **scipy_parameters):
    """Solve call by scipy.integrate.ode(name), which goes on from one output time to the next without a restart.

    Where steps are asked for, the integrator returns after internal ones; it takes the same ones, and interpolates at the output
    times as it would have done by itself. nordsieck_of_next_step: whether the code has scaled its Nordsieck array for the step
    to come when it returns (LSODA), or leaves it as of the step done (VODE).
    """
    callbacks = Callbacks(fortran_prints=True, goes_on=name == "vode" and is_translated(name))
    rhs, options, statistics, ts = call.rhs, call.options, call.statistics, call.ts
    # With NaN the corrector does not converge, and after ten tries VODE gives up.
    f = callbacks.wrap(rhs, to_end=np.full(rhs.size, np.nan))
    jacobian = rhs.jacobian
    rtol, atol = both_tolerances(call.rtol, call.atol, rhs.size)
    integrator = inner_integrator(
        name,
        rtol=rtol,
        atol=atol,
        nsteps=options.max_num_steps,
        first_step=call.signed_first_step,
        max_step=options.max_step or 0.0,
        **scipy_parameters,
    )
    integrator.reset(rhs.size, jacobian is not None)
    if name == "lsoda":
        jacobian = with_rows_below(integrator, jacobian)
    if jacobian is not None:
        jacobian = callbacks.wrap(jacobian, to_end=np.full((rhs.size, rhs.size), np.nan))
    one_step = ONE_STEP
    if options.stay_inside:
        integrator.rwork[TCRIT] = ts[-1]
        one_step = ONE_STEP_INSIDE

    def advance(itask, z, t, t_out):
        # What SciPy's own step() does; its warnings would not be attributed to us.
        integrator.call_args[ITASK] = itask
        answer = callbacks.call(integrator.run, f, jacobian or _nothing, z, t, t_out, (), ())
        if integrator.istate == ILLEGAL_INPUT and ends_beside(t_out):
            integrator.success, integrator.call_args[ISTATE] = 1, 2
            return piece()(t_out), t_out
        if not integrator.success or integrator.istate < 0:
            fail(integrator.istate, t)
        return answer

    def fail(istate, t):
        reason = (
            step_limit_reason(options, call.statistics.method)
            if istate == EXCESS_WORK
            else integrator.messages.get(istate, f"istate = {istate}")
        )
        call.fail(with_messages(reason, callbacks.messages), integrator.rwork[TCUR] if integrator.iwork[NST] else t)

    def piece():
        order = integrator.iwork[NQCUR if nordsieck_of_next_step else NQU]
        scale = integrator.rwork[HCUR if nordsieck_of_next_step else HU]
        array = integrator.rwork[NORDSIECK : NORDSIECK + (order + 1) * rhs.size].reshape(order + 1, rhs.size)
        return Polynomial(float(integrator.rwork[TCUR]), float(scale), array.copy())

    def ends_beside(t_out):
        """Whether t_out is, but for rounding, an end of the last step, where DVINDY refuses to interpolate on the way back."""
        t_end, h = integrator.rwork[TCUR], integrator.rwork[HU]
        rounding = 200 * np.finfo(float).eps * (abs(t_end) + abs(h))
        return integrator.iwork[NST] > 0 and min(abs(t_out - t_end), abs(t_out - (t_end - h))) <= rounding

    def state_at(t_out, z):
        if ends_beside(t_out):
            return piece()(t_out)
        refuse_false_success(call, callbacks.messages, integrator.rwork[TCUR] if integrator.iwork[NST] else ts[0])
        return z

    def step(z, t, t_out):
        z, t = advance(one_step, z, t, t_out)
        call.accept(t, integrator.rwork[HU], integrator.iwork[NQU], z, piece)
        return z, t

    def solve():
        z, t = call.zs[0].copy(), float(ts[0])
        reached, forwards = t, ts[-1] > ts[0]
        for i in range(1, len(ts)):
            t_out, steps_before = float(ts[i]), statistics.steps
            while (call.needs_step_by_step() or options.stay_inside) and reached != t_out and (reached < t_out) == forwards:
                if statistics.steps - steps_before == options.max_num_steps:
                    fail(EXCESS_WORK, t)
                z, reached = step(z, t, t_out)
                t = reached
            if not options.stay_inside:
                z, t = advance(TO_OUTPUT_TIME, z, t, t_out)
                call.zs[i] = state_at(t_out, z)
            else:
                call.zs[i] = z if reached == t_out else piece()(t_out)
            call.done = i + 1

    try:
        run_exclusively(scipy_lock, solve)
    finally:
        _read_statistics(integrator, call)


def is_false_success(messages):
    """Whether the code has printed that it could not interpolate; it says that it has succeeded all the same."""
    return "intdy" in messages.lower() or "dvindy" in messages.lower()


def refuse_false_success(call, messages, reached):
    """Raise SolverError for a false success, at the time that the code's last step has reached.

    LSODA has such when its first step is zero, and hands back the start as every state; and when its steps have become so small
    that they are lost in the time.
    """
    if not is_false_success(messages):
        return
    if reached != call.ts[0]:
        call.fail(with_messages("the integrator's steps became too small to go on", messages), reached)
    raise SolverError(with_messages("the integrator took no step of any length", messages), t_reached=float(reached))


def _nothing():
    """What scipy.integrate.ode hands its routines in place of a Jacobian, too."""


def _read_statistics(integrator, call):
    statistics = call.statistics
    statistics.nje = int(integrator.iwork[NJE])
    if not call.keeps_steps():
        statistics.steps = int(integrator.iwork[NST])
        if statistics.steps:
            statistics.last_step = float(integrator.rwork[HU])
            statistics.last_order = int(integrator.iwork[NQU])
