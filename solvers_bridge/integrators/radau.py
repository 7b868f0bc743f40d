"""Radau IIA of order 5 (Hairer and Wanner 1996), SciPy's Python implementation, as in solve_ivp(method="Radau")."""

from __future__ import annotations

import numpy as np
import scipy.integrate

from ..statistics import SolverError
from .base import Integrator, check_dense_workspace, step_limit_reason

ORDER = 5


class Radau(Integrator):
    """method "radau": steps across the output times, with dense output at them.

    jacobian None or "finite_difference": SciPy's finite differences of the whole matrix; "autodiff": from the dynamics. A
    diagonal one is refused: Radau's Newton iteration takes wrong Jacobians for converged ones. A vector rtol enters by its
    least entry, since SciPy's Radau asks for a number.
    """

    known_options = ("first_step", "max_step", "max_num_steps", "jacobian")
    jacobians = (None, "finite_difference", "autodiff")

    def solve(self, rhs, z0, ts, rtol, atol, options, statistics):
        check_dense_workspace("radau", rhs.size, options.jacobian, words_per_entry=5)
        # SciPy refuses a first step beyond the end, which the Fortran codes cut short.
        first_step = options.first_step and min(options.first_step, abs(float(ts[-1] - ts[0])))
        solver = scipy.integrate.Radau(
            # The copy: Radau keeps derivatives, which a func that returns the same buffer each time would overwrite.
            lambda t, z: np.array(rhs(t, z)),
            float(ts[0]),
            np.array(z0),
            float(ts[-1]),
            max_step=options.max_step or np.inf,
            rtol=float(np.min(rtol)),
            atol=atol,
            jac=rhs.jacobian,
            first_step=first_step,
        )
        zs = np.empty((len(ts), rhs.size))
        zs[0] = z0
        done, steps_since_output = 1, 0
        while done < len(ts):
            if steps_since_output == options.max_num_steps:
                raise SolverError(step_limit_reason(options), t_reached=float(solver.t))
            t_before = solver.t
            message = solver.step()
            if solver.status == "failed":
                raise SolverError(message, t_reached=float(solver.t))
            statistics.add_step(solver.t, solver.t - t_before, ORDER)
            statistics.nje = int(solver.njev)
            steps_since_output += 1
            dense = None
            while done < len(ts) and solver.direction * (ts[done] - solver.t) <= 0:
                if ts[done] == solver.t:
                    zs[done] = solver.y
                else:
                    dense = dense or solver.dense_output()
                    zs[done] = dense(ts[done])
                done, steps_since_output = done + 1, 0
        return zs
