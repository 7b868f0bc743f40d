"""LSODA (Hindmarsh 1983, Petzold 1983): ODEPACK's LSODE that switches between Adams and BDF, as in scipy.integrate.odeint."""

from __future__ import annotations

import numpy as np
import scipy.integrate

from ..statistics import SolverError
from .base import Integrator, check_dense_workspace, step_limit_reason, tolerance
from .exclusive import run_exclusively
from .multistep import signed_first_step, solve_by_ode
from .quiet import Callbacks, with_messages
from .scipy_private import LSODA_LOCK, ODEPACK_LOCK

DENSE_LIMIT = 2_000
HIGHEST_ORDER_ADAMS, HIGHEST_ORDER_BDF = 12, 5


class Lsoda(Integrator):
    """method "lsoda".

    jacobian None: internal finite differences, SciPy's default, up to 2,000 unknowns; beyond, where SciPy would ask for n**2
    numbers, the same as "diagonal": finite differences of the diagonal alone (ml = mu = 0), 20 + 16 n numbers, any size.
    """

    known_options = ("first_step", "max_step", "max_num_steps", "max_order", "jacobian")
    rms_norm = False
    restart_from_last_step = False

    def highest_order(self, method):
        """The greatest max_order; BDF orders are limited to 5 besides."""
        return HIGHEST_ORDER_ADAMS

    def solve(self, rhs, z0, ts, rtol, atol, options, statistics):
        diagonal = options.jacobian == "diagonal" or (options.jacobian is None and rhs.size > DENSE_LIMIT)
        if not diagonal:
            check_dense_workspace("lsoda", rhs.size, options.jacobian, words_per_entry=1)
        order_adams = options.max_order or HIGHEST_ORDER_ADAMS
        order_bdf = min(order_adams, HIGHEST_ORDER_BDF)
        if statistics.needs_step_by_step():
            bands = {"lband": 0, "uband": 0} if diagonal else {}
            return solve_by_ode(
                "lsoda",
                LSODA_LOCK,
                rhs,
                z0,
                ts,
                rtol,
                atol,
                options,
                statistics,
                max_order_ns=order_adams,
                max_order_s=order_bdf,
                **bands,
            )
        return _solve_in_one_call(rhs, z0, ts, rtol, atol, options, statistics, diagonal, order_adams, order_bdf)


def _solve_in_one_call(rhs, z0, ts, rtol, atol, options, statistics, diagonal, order_adams, order_bdf):
    """All output times in one call of scipy.integrate.odeint: the routine, and the steps, of ode("lsoda")."""
    callbacks = Callbacks(fortran_prints=True)
    f = callbacks.wrap(rhs)
    jacobian = None if rhs.jacobian is None else callbacks.wrap(rhs.jacobian)
    bands = {"ml": 0, "mu": 0} if diagonal else {}

    def run():
        return scipy.integrate.odeint(
            f,
            z0,
            ts,
            Dfun=jacobian,
            tfirst=True,
            full_output=True,
            rtol=tolerance(rtol, rhs.size),
            atol=tolerance(atol, rhs.size),
            h0=signed_first_step(options, ts),
            hmax=options.max_step or 0.0,
            mxstep=options.max_num_steps,
            mxordn=order_adams,
            mxords=order_bdf,
            **bands,
        )

    zs, info = run_exclusively(ODEPACK_LOCK, lambda: callbacks.call(run))
    done = np.flatnonzero(info["nst"])  # rows that odeint had not come to when it failed stay at zero
    if done.size:
        last = done[-1]
        statistics.steps, statistics.nje = int(info["nst"][last]), int(info["nje"][last])
        statistics.last_step, statistics.last_order = float(info["hu"][last]), int(info["nqu"][last])
    if info["message"] != "Integration successful.":
        reason = step_limit_reason(options) if info["message"].startswith("Excess work") else info["message"]
        raise SolverError(with_messages(reason, callbacks.messages), t_reached=float(info["tcur"][last] if done.size else ts[0]))
    return zs
