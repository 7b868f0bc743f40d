"""LSODA (Hindmarsh 1983, Petzold 1983): ODEPACK's LSODE that switches between Adams and BDF, as in scipy.integrate.odeint."""

from __future__ import annotations

import numpy as np
import scipy.integrate

from .base import COMMON_OPTIONS, Integrator, check_dense_workspace, step_limit_reason, tolerance
from .compiled import prepare_fortran
from .exclusive import run_exclusively
from .multistep import is_false_success, refuse_false_success, solve_by_ode
from .quiet import Callbacks, with_messages
from .scipy_private import LSODA_LOCK, ODEPACK_LOCK

DENSE_LIMIT = 2_000
HIGHEST_ORDER_ADAMS, HIGHEST_ORDER_BDF = 12, 5


class Lsoda(Integrator):
    """method "lsoda".

    jacobian None: internal finite differences, SciPy's default, up to 2,000 unknowns; beyond, where SciPy would ask for n**2
    numbers, the same as "diagonal": finite differences of the diagonal alone (ml = mu = 0), 20 + 16 n numbers, any size.
    BDF orders are limited to 5 besides max_order.
    """

    known_options = ("first_step", "max_step", "max_num_steps", "max_order", "jacobian", "bands", *COMMON_OPTIONS)
    rms_norm = False
    restart_from_last_step = False
    highest_order = HIGHEST_ORDER_ADAMS

    def solve(self, call):
        bands, order_adams, order_bdf = self._parameters(call.options, call.rhs.size)
        if call.needs_step_by_step() or call.options.stay_inside:
            names = {} if bands is None else {"lband": bands[0], "uband": bands[1]}
            orders = {"max_order_ns": order_adams, "max_order_s": order_bdf}
            solve_by_ode(call, "lsoda", LSODA_LOCK, nordsieck_of_next_step=True, **orders, **names)
        else:
            names = {} if bands is None else {"ml": bands[0], "mu": bands[1]}
            _solve_in_one_call(call, mxordn=order_adams, mxords=order_bdf, **names)

    def prepare(self, solver, size, compiled, jacobian, wants_first_step):
        bands, order_adams, order_bdf = self._parameters(solver.options, size)
        if solver.options.stay_inside:
            return None
        names = {} if bands is None else {"lband": bands[0], "uband": bands[1]}
        orders = {"max_order_ns": order_adams, "max_order_s": order_bdf}
        return prepare_fortran("lsoda", solver, size, compiled, jacobian, wants_first_step, LSODA_LOCK, **orders, **names)

    def _parameters(self, options, size):
        bands = options.bands
        if options.jacobian == "diagonal" or (options.jacobian is None and bands is None and size > DENSE_LIMIT):
            bands = (0, 0)
        if bands is None:
            check_dense_workspace("lsoda", size, options.jacobian, words_per_entry=1)
        order_adams = options.max_order or HIGHEST_ORDER_ADAMS
        return bands, order_adams, min(order_adams, HIGHEST_ORDER_BDF)


def _solve_in_one_call(call, **scipy_parameters):
    """All output times in one call of scipy.integrate.odeint: the routine, and the steps, of ode("lsoda")."""
    callbacks = Callbacks(fortran_prints=True)
    rhs, options, statistics, ts = call.rhs, call.options, call.statistics, call.ts
    f = callbacks.wrap(rhs)
    jacobian = None if rhs.jacobian is None else callbacks.wrap(rhs.jacobian)

    def run():
        return scipy.integrate.odeint(
            f,
            call.zs[0].copy(),
            ts,
            Dfun=jacobian,
            tfirst=True,
            full_output=True,
            rtol=tolerance(call.rtol, rhs.size),
            atol=tolerance(call.atol, rhs.size),
            h0=call.signed_first_step,
            hmax=options.max_step or 0.0,
            mxstep=options.max_num_steps,
            **scipy_parameters,
        )

    zs, info = run_exclusively(ODEPACK_LOCK, lambda: callbacks.call(run))
    is_false = is_false_success(callbacks.messages)
    succeeded = info["message"] == "Integration successful." and not is_false
    # Rows behind the one at which odeint failed are memory that it never wrote to. That one is known by its evaluations, of which
    # there were no more; if the ones before have as many, no step lies between them. Of a false success it is the first that the
    # steps have not reached.
    is_short = (info["tcur"] - ts[1:]) * (ts[-1] - ts[0]) < 0
    failed = np.flatnonzero(is_short if is_false else info["nfe"] == rhs.nfe)
    last = len(ts) - 2 if succeeded else next(iter(failed), None)
    if last is not None:
        statistics.steps, statistics.nje = int(info["nst"][last]), int(info["nje"][last])
        statistics.last_step, statistics.last_order = float(info["hu"][last]), int(info["nqu"][last])
    # The row at which it failed holds a state short of its time.
    call.done = len(ts) if succeeded else 1 + (last or 0)
    call.zs[: call.done] = zs[: call.done]
    if not succeeded:
        reached = ts[0] if last is None else info["tcur"][last]
        refuse_false_success(call, callbacks.messages, reached)
        excess = info["message"].startswith("Excess work")
        reason = step_limit_reason(options, "lsoda") if excess else info["message"]
        call.fail(with_messages(reason, callbacks.messages), reached)
