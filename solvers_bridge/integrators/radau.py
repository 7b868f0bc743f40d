"""Radau IIA of order 5 (Hairer and Wanner 1996), SciPy's Python implementation, as in solve_ivp(method="Radau")."""

from __future__ import annotations

import numpy as np
import scipy.integrate

from ..interpolant import Polynomial
from .base import COMMON_OPTIONS, Integrator, check_dense_workspace, step_limit_reason, under_callers_errstate

ORDER = 5
C1_TIMES_C2 = (4 - 6**0.5) * (4 + 6**0.5) / 100  # of the collocation points c1, c2, 1
# A step this many times as long as the one after it says less of that one than its own stages do.
LONG_BEFORE = 4.0
# A step of fewer units in the last place of t, the remainder before the end perhaps, has not enough times between its ends.
FEW_TIMES = 16


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
        interpolation = _Interpolation(solver.y, solver.f)
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
            call.accept(t_reached, t_reached - t_before, ORDER, solver.y, lambda: interpolation.piece(solver))
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


class _Interpolation:
    """z(t) between the steps of a solve to order 5, of what each step and the one before it have; to be asked after every step.

    SciPy's dense output is the collocation polynomial u, a cubic: as good as its error estimate, and far worse than the states
    at its ends, which gradients would suffer from. Here the cubic of Hermite through both ends, and

        p(s) = hermite(s) + s^2 (1 - s)^2 (a + b s),  s = (t - t0) / h,

    with a and b such that the start of the step before is met, in value and slope; or, where there is none of like size, b = 0
    and a as the stages have it: u is off by a multiple of the integral of (s - c1) (s - c2) (s - 1), which the slope at s = 0
    tells. Slopes are those of u at the ends of steps, and not func's, which stiffness makes of rounding in z what it likes.
    """

    def __init__(self, z, slope):
        self.z, self.slope = z, slope
        self.before = None  # size, value and slope at the start of the step before

    def piece(self, solver):
        """The Polynomial of the step that the solver has done."""
        t, h = solver.t_old, solver.t - solver.t_old
        z, slope, z_next = self.z, self.slope, solver.y
        slope_of_u, slope_next = _slopes_at_ends(solver.dense_output(), z, h)
        hermite = Polynomial.hermite(t, h, z, z_next, slope, slope_next)
        if self.before is not None and self.before[0] <= LONG_BEFORE * h * solver.direction:
            a, b = self._through_before(hermite.coefficients, h)
        else:
            a, b = h * (slope - slope_of_u) / (-4 * C1_TIMES_C2), np.zeros_like(z)
        # s^2 (1 - s)^2 (a + b s), by powers of s.
        coefficients = np.concatenate([hermite.coefficients, np.zeros((2, len(z)))])
        coefficients[2:] += np.stack([a, b - 2 * a, a - 2 * b, b])
        self.before = abs(h), z, slope
        self.z, self.slope = np.array(z_next), slope_next
        return Polynomial(t, h, coefficients)

    def _through_before(self, c, h):
        """a and b; c are the coefficients of Hermite's cubic."""
        size, z, slope = self.before
        s = -size / abs(h)
        # What is left for w (a + b s), w = s^2 (1 - s)^2, and for its derivative w' (a + b s) + w b.
        value = z - (c[0] + s * (c[1] + s * (c[2] + s * c[3])))
        rise = h * slope - (c[1] + s * (2 * c[2] + 3 * s * c[3]))
        w, dw = s**2 * (1 - s) ** 2, 2 * s * (1 - s) * (1 - 2 * s)
        line = value / w
        b = (rise - dw * line) / w
        return line - b * s, b


def _slopes_at_ends(dense_output, z, h):
    """dz/dt at both ends of a cubic that starts in z, from its values at a third, two thirds and the end."""
    if abs(h) < FEW_TIMES * np.spacing(abs(dense_output.t_old)):
        chord = (dense_output(dense_output.t) - z) / h
        return chord, chord
    s = (dense_output.t_old + np.array([1 / 3, 2 / 3, 1.0]) * h - dense_output.t_old) / h
    values = dense_output(dense_output.t_old + s * h).T - z
    c1, c2, c3 = np.linalg.solve(s[:, None] ** np.arange(1, 4), values)
    return c1 / h, (c1 + 2 * c2 + 3 * c3) / h


def _is_of_the_factorisation(error):
    """Whether an error comes from SciPy's linear algebra inside Radau, and not from func."""
    frame = error.__traceback__.tb_next  # of solve itself; func is called from this package again
    while frame is not None:
        if frame.tb_frame.f_globals.get("__name__", "").startswith("solvers_bridge"):
            return False
        frame = frame.tb_next
    return True
