"""What VODE and LSODA share: f2py's ode interface, with optional outputs read from the work space."""

from __future__ import annotations

import numpy as np

from ..statistics import SolverError
from .base import both_tolerances, step_limit_reason
from .exclusive import run_exclusively
from .provenance import is_translated
from .quiet import Callbacks, with_messages
from .scipy_private import inner_integrator

# 0-based places of the optional outputs in RWORK and IWORK, the same in VODE and ODEPACK.
HU, TCUR = 10, 12
NST, NJE, NQU = 10, 12, 13
EXCESS_WORK = -1  # istate
ITASK = 2  # place in call_args
TO_OUTPUT_TIME, ONE_STEP = 1, 2  # its values


def signed_first_step(options, ts):
    """first_step with the sign of the direction of time, as the Fortran wants it; 0 for the integrator's own choice."""
    return 0.0 if options.first_step is None else float(np.copysign(options.first_step, ts[-1] - ts[0]))


def solve_by_ode(name, scipy_lock, rhs, z0, ts, rtol, atol, options, statistics, **scipy_parameters):
    """States at ts by scipy.integrate.ode(name), which goes on from one output time to the next without a restart.

    If statistics keep steps, or have to tell the first one, the integrator is asked to return after internal steps; it takes the
    same ones, and interpolates at the output times as it would have done by itself.
    """
    callbacks = Callbacks(fortran_prints=True, goes_on=name == "vode" and is_translated(name))
    # With NaN the corrector does not converge, and after ten tries VODE gives up.
    f = callbacks.wrap(rhs, to_end=np.full(rhs.size, np.nan))
    jacobian = None if rhs.jacobian is None else callbacks.wrap(rhs.jacobian, to_end=np.full((rhs.size, rhs.size), np.nan))
    rtol, atol = both_tolerances(rtol, atol, rhs.size)
    integrator = inner_integrator(
        name,
        rtol=rtol,
        atol=atol,
        nsteps=options.max_num_steps,
        first_step=signed_first_step(options, ts),
        max_step=options.max_step or 0.0,
        **scipy_parameters,
    )
    integrator.reset(rhs.size, jacobian is not None)

    def advance(itask, z, t, t_out):
        # What SciPy's own step() does; its warnings would not be attributed to us.
        integrator.call_args[ITASK] = itask
        answer = callbacks.call(integrator.run, f, jacobian or _nothing, z, t, t_out, (), ())
        if not integrator.success or integrator.istate < 0:
            fail(integrator.istate, t)
        return answer

    def fail(istate, t):
        reason = step_limit_reason(options) if istate == EXCESS_WORK else integrator.messages.get(istate, f"istate = {istate}")
        t_reached = integrator.rwork[TCUR] if integrator.iwork[NST] else t
        raise SolverError(with_messages(reason, callbacks.messages), t_reached=float(t_reached))

    def step(z, t, t_out):
        z, t = advance(ONE_STEP, z, t, t_out)
        statistics.add_step(t, integrator.rwork[HU], integrator.iwork[NQU])
        return z, t

    def solve():
        zs = np.empty((len(ts), rhs.size))
        zs[0] = z0
        z, t = zs[0].copy(), float(ts[0])
        reached, forwards = t, ts[-1] > ts[0]
        for i in range(1, len(ts)):
            t_out, steps_before = float(ts[i]), statistics.steps
            while statistics.needs_step_by_step() and reached != t_out and (reached < t_out) == forwards:
                if statistics.steps - steps_before == options.max_num_steps:
                    fail(EXCESS_WORK, t)
                z, reached = step(z, t, t_out)
                t = reached
            z, t = advance(TO_OUTPUT_TIME, z, t, t_out)
            zs[i] = z
        return zs

    try:
        return run_exclusively(scipy_lock, solve)
    finally:
        _read_statistics(integrator, statistics)


def _nothing():
    """What scipy.integrate.ode hands its routines in place of a Jacobian, too."""


def _read_statistics(integrator, statistics):
    statistics.nje = int(integrator.iwork[NJE])
    if statistics.t is None:
        statistics.steps = int(integrator.iwork[NST])
        if statistics.steps:
            statistics.last_step = float(integrator.rwork[HU])
            statistics.last_order = int(integrator.iwork[NQU])
