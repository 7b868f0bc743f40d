"""VODE (Brown, Byrne and Hindmarsh 1989): variable-coefficient Adams-Moulton and BDF, as in scipy.integrate.ode("vode")."""

from __future__ import annotations

from .base import Integrator, check_dense_workspace
from .multistep import solve_by_ode
from .scipy_private import VODE_LOCK

HIGHEST_ORDER = {"adams": 12, "bdf": 5}


class Vode(Integrator):
    """method "adams" or "bdf".

    jacobian None: functional (fixed-point) iteration, SciPy's default; work space 20 + 16 n (adams) or 20 + 9 n (bdf) numbers,
    so any size goes. "diagonal", "finite_difference" and "autodiff": chord iteration with that Jacobian.
    """

    known_options = ("first_step", "max_step", "max_num_steps", "max_order", "jacobian")
    restart_from_last_step = False

    def highest_order(self, method):
        """The greatest max_order of a method."""
        return HIGHEST_ORDER[method]

    def solve(self, rhs, z0, ts, rtol, atol, options, statistics):
        parameters = {"method": statistics.method, "order": options.max_order or HIGHEST_ORDER[statistics.method]}
        if options.jacobian == "diagonal":
            parameters.update(lband=0, uband=0)
        elif options.jacobian is not None:
            check_dense_workspace(statistics.method, rhs.size, options.jacobian, words_per_entry=2)
            parameters["with_jacobian"] = True
        return solve_by_ode("vode", VODE_LOCK, rhs, z0, ts, rtol, atol, options, statistics, **parameters)
