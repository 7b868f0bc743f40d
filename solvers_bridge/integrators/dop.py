"""Hairer's Fortran codes of Dormand and Prince's explicit Runge-Kutta methods of order 5(4) and 8(5,3)."""

from __future__ import annotations

from collections import deque
from typing import NamedTuple

import numpy as np
from scipy.integrate import DOP853, RK45

from ..interpolant import Polynomial
from .base import COMMON_OPTIONS, Call, Integrator, RungeKuttaStep, both_tolerances, step_limit_reason
from .compiled import prepare_fortran
from .provenance import is_translated
from .quiet import Callbacks
from .scipy_private import inner_integrator

LARGER_NSTEPS_NEEDED = -2  # idid
STOP, GO_ON = -1, 0  # answers of solout
FIRST_STEP = 6  # 0-based place in WORK
HAIRERS_SMALL_STEP = 1e-6  # his guess of the first one where components are zero, whatever the unit of time


class Tableau(NamedTuple):
    """Stages Y_i = z + h sum_j a_ij k_j at times t + c_i h, and the new state z + h sum_i b_i k_i."""

    order: int
    a: np.ndarray
    b: np.ndarray
    c: np.ndarray


# Hairer, Norsett and Wanner (1993), tables II.5.2 and in the appendix, from where SciPy's solve_ivp takes them, too.
TABLEAUS = {
    # The last stage of all feeds none.
    "dopri5": Tableau(5, np.pad(RK45.A, ((0, 0), (0, 1))), RK45.B, RK45.C),
    "dop853": Tableau(8, DOP853.A, DOP853.B, DOP853.C),
}


class Dop(Integrator):
    """method "dopri5" or "dop853": a call of the Fortran for each output time, as scipy.integrate.ode makes them."""

    known_options = ("first_step", "max_step", "max_num_steps", *COMMON_OPTIONS)

    @property
    def tableau(self):
        """The method's coefficients."""
        return TABLEAUS[self.name]

    def solve(self, call):
        callbacks = Callbacks(fortran_prints=False, goes_on=is_translated("dop"))
        rhs, options, ts, zs = call.rhs, call.options, call.ts, call.zs
        rtol, atol = both_tolerances(call.rtol, call.atol, rhs.size)
        integrator = inner_integrator(
            self.name,
            rtol=rtol,
            atol=atol,
            nsteps=options.max_num_steps,
            first_step=call.signed_first_step or self._first_step_of_long_times(call),
            max_step=options.max_step or 0.0,
        )
        stages = _Stages(call, self.tableau) if call.interpolant is not None or call.tape is not None else None
        # A step with f = 0 is accepted, after which STOP ends the solve; NaN would be tried again without end.
        f = callbacks.wrap(rhs if stages is None else stages.record(rhs), to_end=np.zeros(rhs.size))
        accepted = float(ts[0])

        def after_step(t, z):
            nonlocal accepted
            if t != accepted:
                call.accept(t, t - accepted, self.tableau.order, z)
                if stages is not None:
                    stages.accept(accepted, t - accepted, z)
                accepted = t
            return GO_ON

        integrator.set_solout(callbacks.wrap(after_step, to_end=STOP))
        integrator.reset(rhs.size, False)
        for i in range(1, len(ts)):
            if i > 1 and options.max_step:
                # The Fortran leaves there the step that it would take next, and holds no first step below the greatest.
                integrator.work[FIRST_STEP] = np.clip(integrator.work[FIRST_STEP], -options.max_step, options.max_step)
            # The last step's end may differ from the time that was asked for, by rounding.
            accepted = float(ts[i - 1])
            if stages is not None:
                stages.begin(zs[i - 1])
            answer = callbacks.call(integrator.run, f, None, zs[i - 1].copy(), float(ts[i - 1]), float(ts[i]), (), ())
            if not integrator.success or integrator.istate < 0:
                reason = (
                    step_limit_reason(options, self.name)
                    if integrator.istate == LARGER_NSTEPS_NEEDED
                    else integrator.messages.get(integrator.istate, f"idid = {integrator.istate}")
                )
                call.fail(reason, accepted)
            zs[i] = answer[0]
            call.done = i + 1
        if stages is not None:
            with np.errstate(all="ignore"):
                stages.keep()

    def prepare(self, solver, size, compiled, jacobian, wants_first_step):
        prepared = prepare_fortran(
            self.name, solver, size, compiled, None, wants_first_step, runge_kutta_order=self.tableau.order
        )
        if prepared is not None and isinstance(solver, Call) and not prepared.plan.first_step:
            prepared.plan.first_step = abs(self._first_step_of_long_times(solver))
        return prepared

    def _first_step_of_long_times(self, call):
        """A first step for times at which Hairer's own smallest guess would be lost in rounding, 0.0 otherwise."""
        greatest = np.abs(call.ts).max()
        if HAIRERS_SMALL_STEP > 100 * np.spacing(greatest):
            return 0.0
        return float(HAIRERS_SMALL_STEP * (call.ts[1] - call.ts[0]))


class _Stages:
    """The stage derivatives of accepted steps, taken from the evaluations that the Fortran asks for: none is made again.

    Both codes evaluate f at the start of a call, then all further stages of a trial step in order, and last f at its end, before
    they say that it is accepted: so the stages are the last evaluations then, and the last is the next step's first stage.
    """

    def __init__(self, call, tableau):
        self.call, self.count = call, len(tableau.b)
        self.recent = deque(maxlen=self.count)
        self.steps, self.last_slopes, self.intervals = [], [], []
        self.first = self.z = None

    def record(self, rhs):
        def recorded(t, z):
            dz = rhs(t, z)
            # The copy: a func may return the same buffer each time.
            self.recent.append(np.array(dz))
            if self.first is None:
                self.first = self.recent[-1]
            return dz

        return recorded

    def begin(self, z):
        self.first, self.z = None, z.copy()
        self.intervals.append(len(self.steps))

    def accept(self, t, h, z):
        *further, last = self.recent
        # The state of this step's start, its stages, and the slope at its end.
        self.steps.append(RungeKuttaStep(t, h, self.z, np.stack([self.first, *further])))
        self.last_slopes.append(last)
        self.first, self.z = last, np.array(z)

    def keep(self):
        call, origin = self.call, self.call.rhs.origin
        if call.tape is not None:
            bounds = [*self.intervals, len(self.steps)]
            steps = [step._replace(t=step.t + origin) for step in self.steps]
            call.tape += [steps[start:end] for start, end in zip(bounds, bounds[1:])]
        if call.interpolant is not None:
            interpolate = _dopri5_polynomial if self.count == 6 else _dop853_polynomial
            ends = [*(step.z for step in self.steps[1:]), self.z]
            for step, slope, end in zip(self.steps, self.last_slopes, ends):
                piece = interpolate(call.rhs, step, slope, end)
                call.interpolant.add(step.t + step.h, call.direction, piece, origin)


def _dopri5_polynomial(rhs, step, slope, end):
    """Shampine's interpolant of order 4, as SciPy's RK45 has it."""
    t, h, z, ks = step
    return Polynomial(t, h, np.concatenate([z[None], h * (RK45.P.T @ np.concatenate([ks, slope[None]]))]))


def _dop853_polynomial(rhs, step, slope, end):
    """Hairer's interpolant of order 7, which takes three more evaluations a step, as SciPy's DOP853 has it."""
    t, h, z, ks = step
    ks = np.concatenate([ks, slope[None], np.empty((3, len(z)))])
    for s, (a, c) in enumerate(zip(DOP853.A_EXTRA, DOP853.C_EXTRA), start=len(ks) - 3):
        ks[s] = rhs(t + c * h, z + h * (a[:s] @ ks[:s]))
    rise = end - z
    rows = np.concatenate([[rise, h * ks[0] - rise, 2 * rise - h * (slope + ks[0])], h * (DOP853.D @ ks)])
    return Polynomial(t, h, np.concatenate([z[None], DOP853_POWERS @ rows]))


def _dop853_powers():
    """(7, 7): row j has the coefficients of s**(j + 1) in the interpolant's products s, s (1 - s), s**2 (1 - s), ..."""
    product, columns = np.polynomial.Polynomial([1.0]), []
    for i in range(7):
        product = product * np.polynomial.Polynomial([0.0, 1.0] if i % 2 == 0 else [1.0, -1.0])
        columns.append(np.pad(product.coef, (0, 8 - len(product.coef)))[1:])
    return np.stack(columns, axis=1)


DOP853_POWERS = _dop853_powers()
