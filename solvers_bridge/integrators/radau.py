"""Radau IIA of order 5 (Hairer and Wanner 1996), SciPy's Python implementation, as in solve_ivp(method="Radau")."""

from __future__ import annotations

import numpy as np
import scipy.integrate

from .base import COMMON_OPTIONS, Integrator, check_dense_workspace, step_limit_reason, under_callers_errstate

ORDER = 5


class Radau(Integrator):
    """method "radau": steps across the output times, with dense output at them.

    jacobian None or "finite_difference": SciPy's finite differences of the whole matrix; "autodiff" or a function: that one. A
    diagonal one is refused: Radau's Newton iteration takes wrong Jacobians for converged ones. A vector rtol enters by its
    least entry, since SciPy's Radau asks for a number.
    """

    known_options = ("first_step", "max_step", "max_num_steps", "jacobian", *COMMON_OPTIONS)
    jacobians = (None, "finite_difference", "autodiff")

    def solve(self, call):
        f = under_callers_errstate(call.rhs)
        jacobian = None if call.rhs.jacobian is None else under_callers_errstate(call.rhs.jacobian)
        with np.errstate(all="ignore"):
            _solve(call, f, jacobian)


def _solve(call, f, jacobian):
    rhs, options, ts, zs, statistics = call.rhs, call.options, call.ts, call.zs, call.statistics
    check_dense_workspace("radau", rhs.size, options.jacobian, words_per_entry=5)
    # SciPy refuses a first step beyond the end, which the Fortran codes cut short.
    first_step = options.first_step and min(options.first_step, abs(float(ts[-1] - ts[0])))
    t_reached = float(ts[0])
    try:
        solver = scipy.integrate.Radau(
            # The copy: Radau keeps derivatives, which a func that returns the same buffer each time would overwrite.
            lambda t, z: np.array(f(t, z)),
            t_reached,
            np.array(zs[0]),
            float(ts[-1]),
            max_step=options.max_step or np.inf,
            rtol=float(np.min(call.rtol)),
            atol=call.atol,
            jac=jacobian,
            first_step=first_step,
        )
        steps_since_output = 0
        while call.done < len(ts):
            if steps_since_output == options.max_num_steps:
                call.fail(step_limit_reason(options, "radau"), solver.t)
            t_before = solver.t
            message = solver.step()
            if solver.status == "failed":
                call.fail(message, solver.t)
            statistics.nje = int(solver.njev)
            t_reached = float(solver.t)
            call.accept(t_reached, t_reached - t_before, ORDER, solver.y, solver.dense_output)
            steps_since_output += 1
            dense = None
            while call.done < len(ts) and solver.direction * (ts[call.done] - solver.t) <= 0:
                if ts[call.done] == solver.t:
                    zs[call.done] = solver.y
                else:
                    dense = dense or solver.dense_output()
                    zs[call.done] = dense(ts[call.done])
                call.done, steps_since_output = call.done + 1, 0
    except (ValueError, np.linalg.LinAlgError) as error:
        if not _is_of_the_factorisation(error):
            raise
        call.fail(f"the matrix of Newton's iteration, or its right-hand side, is not finite ({error})", t_reached)


def _is_of_the_factorisation(error):
    """Whether an error comes from SciPy's linear algebra inside Radau, and not from func."""
    frame = error.__traceback__.tb_next  # of solve itself; func is called from this package again
    while frame is not None:
        if frame.tb_frame.f_globals.get("__name__", "").startswith("solvers_bridge"):
            return False
        frame = frame.tb_next
    return True
