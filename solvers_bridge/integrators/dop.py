"""Hairer's Fortran codes of Dormand and Prince's explicit Runge-Kutta methods of order 5(4) and 8(5,3)."""

from __future__ import annotations

import numpy as np

from ..statistics import SolverError
from .base import Integrator, both_tolerances, step_limit_reason
from .multistep import signed_first_step
from .provenance import is_translated
from .quiet import Callbacks
from .scipy_private import inner_integrator

ORDER = {"dopri5": 5, "dop853": 8}
LARGER_NSTEPS_NEEDED = -2  # idid
STOP, GO_ON = -1, 0  # answers of solout


class Dop(Integrator):
    """method "dopri5" or "dop853": a call of the Fortran for each output time, as scipy.integrate.ode makes them."""

    known_options = ("first_step", "max_step", "max_num_steps")

    def solve(self, rhs, z0, ts, rtol, atol, options, statistics):
        callbacks = Callbacks(fortran_prints=False, goes_on=is_translated("dop"))
        # A step with f = 0 is accepted, after which STOP ends the solve; NaN would be tried again without end.
        f = callbacks.wrap(rhs, to_end=np.zeros(rhs.size))
        rtol, atol = both_tolerances(rtol, atol, rhs.size)
        integrator = inner_integrator(
            statistics.method,
            rtol=rtol,
            atol=atol,
            nsteps=options.max_num_steps,
            first_step=signed_first_step(options, ts),
            max_step=options.max_step or 0.0,
        )
        accepted = float(ts[0])

        def after_step(t, z):
            nonlocal accepted
            if t != accepted:
                statistics.add_step(t, t - accepted, ORDER[statistics.method])
                accepted = t
            return GO_ON

        integrator.set_solout(callbacks.wrap(after_step, to_end=STOP))
        integrator.reset(rhs.size, False)
        zs = np.empty((len(ts), rhs.size))
        zs[0] = z0
        for i in range(1, len(ts)):
            answer = callbacks.call(integrator.run, f, None, zs[i - 1].copy(), float(ts[i - 1]), float(ts[i]), (), ())
            if not integrator.success or integrator.istate < 0:
                reason = (
                    step_limit_reason(options)
                    if integrator.istate == LARGER_NSTEPS_NEEDED
                    else integrator.messages.get(integrator.istate, f"idid = {integrator.istate}")
                )
                raise SolverError(reason, t_reached=accepted)
            zs[i] = answer[0]
        return zs
