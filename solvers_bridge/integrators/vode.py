"""VODE (Brown, Byrne and Hindmarsh 1989): variable-coefficient Adams-Moulton and BDF, as in scipy.integrate.ode("vode")."""

from __future__ import annotations

from .base import COMMON_OPTIONS, Integrator, check_dense_workspace
from .compiled import prepare_fortran
from .multistep import solve_by_ode
from .scipy_private import VODE_LOCK

HIGHEST_ORDER = {"adams": 12, "bdf": 5}


class Vode(Integrator):
    """method "adams" or "bdf".

    jacobian None: functional (fixed-point) iteration, SciPy's default; work space 20 + 16 n (adams) or 20 + 9 n (bdf) numbers,
    so any size goes. "diagonal", "finite_difference" (with bands: of a banded matrix), "autodiff" or a function: chord iteration
    with that Jacobian.
    """

    known_options = ("first_step", "max_step", "max_num_steps", "max_order", "jacobian", "bands", *COMMON_OPTIONS)
    restart_from_last_step = False

    @property
    def highest_order(self):
        """The greatest max_order."""
        return HIGHEST_ORDER[self.name]

    def solve(self, call):
        solve_by_ode(call, "vode", VODE_LOCK, nordsieck_of_next_step=False, **self._parameters(call.options, call.rhs.size))

    def prepare(self, solver, size, compiled, jacobian, wants_first_step):
        parameters = self._parameters(solver.options, size)
        if solver.options.stay_inside:
            return None
        return prepare_fortran("vode", solver, size, compiled, jacobian, wants_first_step, VODE_LOCK, **parameters)

    def _parameters(self, options, size):
        parameters = {"method": self.name, "order": options.max_order or self.highest_order}
        if options.jacobian == "diagonal":
            parameters.update(lband=0, uband=0)
        elif options.bands is not None:
            parameters.update(lband=options.bands[0], uband=options.bands[1], with_jacobian=True)
        elif options.jacobian is not None:
            check_dense_workspace(self.name, size, options.jacobian, words_per_entry=2)
            parameters["with_jacobian"] = True
        return parameters
