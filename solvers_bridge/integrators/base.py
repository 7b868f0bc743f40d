"""What the integrators share: one call of an integrator, its guarded right-hand side, its options, the abstract base."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from ..interpolant import Interpolant
from ..statistics import SolverError, SolveStatistics

DEFAULT_MAX_NUM_STEPS = 50_000
COMMON_OPTIONS = ("jump_t", "stay_inside", "progress")  # of every method
# Values that are not finite, in which a solve has to come on by at least PROGRESS of the way behind it. A step that shrinks away
# from where func is not finite needs some hundreds at most; before a wall of them, VODE would go on till its step limit.
MOST_NOT_FINITE, PROGRESS = 1_000, 1e-6


class RightHandSide:
    """rhs(t, z) as an integrator calls it: counted, and watched for values that are not finite.

    The first evaluation must be finite. Later ones may not be, in a trial step that the integrator then rejects: the first of
    them is kept in `trouble`, to say why a solve failed if it does.

    jacobian(t, z) -> (n, n), or None. compiled: rhs as machine code, if it has that and nothing is to be told of its evaluations
    (see compiled.py). origin is added to the integrator's own time, which solves far from zero count from there.
    inside: the (first, last) time outside of which func is not to be called, or None. watch(t) is told of each evaluation.
    """

    def __init__(self, rhs, size, jacobian=None, origin=0.0, inside=None, watch=None):
        self.rhs, self.size, self.origin, self.watch = rhs, size, origin, watch
        self.compiled = getattr(rhs, "compiled", None) if watch is None else None
        self.given_jacobian = jacobian
        self.jacobian = None if jacobian is None else lambda t, z: jacobian(self._time(t), z)
        self.low, self.high = (None, None) if inside is None else sorted(inside)
        self.nfe = 0
        self.last_t = None
        self.trouble = None
        self.trouble_t = None
        self.first_t = self.last_t_before = None
        self.not_finite = 0

    def _time(self, t):
        if self.origin:
            t = t + self.origin
        if self.low is not None:
            t = min(max(t, self.low), self.high)
        return t

    def __call__(self, t, z):
        self.nfe += 1
        if self.origin or self.low is not None:
            t = self._time(t)
        if self.watch is not None:
            self.watch(t)
        try:
            dz = self.rhs(t, z)
        except BaseException:
            self.trouble_t = float(t)
            raise
        if not np.isfinite(dz).all():
            self._note(float(t), z, dz)
        else:
            self.last_t = float(t)
            if self.first_t is None:
                self.first_t = self.last_t_before = self.last_t
        return dz

    def _note(self, t, z, dz):
        self.not_finite += 1
        if self.trouble is None:
            bad = np.flatnonzero(~np.isfinite(dz))
            state = (
                ""
                if np.isfinite(z).all()
                else " (the state itself was not finite: a step had left the region "
                "where func is defined; try first_step or max_step)"
            )
            self.trouble = (
                f"func returned {dz[bad[0]]} in {bad.size} of {self.size} components, the first at flat index {bad[0]}, "
                f"at t = {t!r}{state}"
            )
            self.trouble_t = t
        if self.nfe == 1 or (self.not_finite % MOST_NOT_FINITE == 0 and self._stands_still()):
            raise SolverError(self.trouble, t_reached=self.last_t)

    def _stands_still(self):
        """Whether the solve has hardly come on since this was asked last."""
        progress = abs(self.last_t - self.last_t_before)
        self.last_t_before = self.last_t
        return progress <= PROGRESS * abs(self.last_t - self.first_t)


def under_callers_errstate(rhs):
    """rhs under the floating-point error handling of now, for integrators in Python that go on to work under none."""
    handling = np.geterr()

    def f(t, z):
        with np.errstate(**handling):
            return rhs(t, z)

    return f


class Options(NamedTuple):
    """The integrator's own options, checked; None stands for the integrator's default."""

    first_step: float | None = None
    max_step: float | None = None
    max_num_steps: int = DEFAULT_MAX_NUM_STEPS
    max_order: int | None = None
    jacobian: str | Callable | None = None
    bands: tuple[int, int] | None = None
    step_size: float | None = None
    jump_t: tuple[float, ...] = ()
    jump_sides: tuple[tuple[float, float], ...] = ()  # for each of them, between which times func is not to be called
    stay_inside: bool = False
    progress: bool = False
    time_dtype: type = np.float64  # in which func is given t, not for users to set


class RungeKuttaStep(NamedTuple):
    """An accepted step of an explicit Runge-Kutta method: from (t, z), of size h, with its stage derivatives ks (stages, n)."""

    t: float
    h: float
    z: np.ndarray
    ks: np.ndarray


class StepArrays(Sequence):
    """The RungeKuttaSteps between two output times, kept as arrays: t (s + 1,), z (s + 1, n), k (s, at least stages, n)."""

    def __init__(self, t, z, k, stages, owner=None):
        self.t, self.z, self.k, self.stages = t, z, k, stages
        self.owner = owner  # of the arrays' memory

    def __len__(self):
        return len(self.k)

    def __getitem__(self, i):
        i = range(len(self))[i]
        # Copies, which may outlive the owner.
        return RungeKuttaStep(self.t[i], self.t[i + 1] - self.t[i], self.z[i].copy(), self.k[i, : self.stages].copy())


@dataclass
class Call:
    """One call of an integrator: what is to be solved, and where the answer goes.

    ts (T,) are strictly monotonous, in the integrator's own time (see RightHandSide). zs (T, n) has the start in its first row;
    the integrator fills the others in order, and counts rows in `done`. interpolant, if given, takes up every step; tape, too, of
    a method that has stages: a list of steps for each interval between output times. after_step(t, z), if given, is told of the
    end of every step, and may end the solve by an exception.
    """

    rhs: RightHandSide
    ts: np.ndarray
    zs: np.ndarray
    rtol: object
    atol: object
    options: Options
    statistics: SolveStatistics
    wants_first_step: bool = False
    interpolant: Interpolant | None = None
    tape: list[Sequence[RungeKuttaStep]] | None = None
    after_step: Callable | None = None
    done: int = 1

    @property
    def direction(self):
        """1.0 if time increases, -1.0 if it decreases."""
        return 1.0 if self.ts[-1] > self.ts[0] else -1.0

    @property
    def signed_first_step(self):
        """first_step with the sign of the direction of time, as the Fortran wants it; 0 for the integrator's own choice."""
        first_step = self.options.first_step
        if first_step is None:
            return 0.0
        return self.direction * min(first_step, self.options.max_step or math.inf)

    def keeps_steps(self):
        """Whether every accepted step is asked for."""
        return any(wants is not None for wants in (self.statistics.t, self.interpolant, self.tape, self.after_step))

    def keeps_stages_alone(self):
        """Whether of all that can be kept of a step, only its stages are."""
        return self.tape is not None and not any(
            wants is not None for wants in (self.statistics.t, self.interpolant, self.after_step)
        )

    def needs_step_by_step(self):
        """Whether a multistep code has to come back after its next step, so that accept can be told."""
        return self.keeps_steps() or (self.wants_first_step and self.statistics.first_step is None)

    def accept(self, t, step_size, order, z, piece=None):
        """Count an accepted step that ended at t in state z; piece() is its part of the interpolant, if one is kept."""
        statistics = self.statistics
        statistics.steps += 1
        statistics.last_step, statistics.last_order = float(step_size), int(order)
        if statistics.first_step is None:
            statistics.first_step = statistics.last_step
        if statistics.t is not None:
            statistics.t.append(float(t) + self.rhs.origin)
            statistics.step_sizes.append(statistics.last_step)
            statistics.orders.append(statistics.last_order)
            statistics.states.append(np.array(z))
        if self.interpolant is not None and piece is not None:
            with np.errstate(all="ignore"):
                piece = piece()
            self.interpolant.add(float(t), self.direction, piece, self.rhs.origin)
        if self.after_step is not None:
            self.after_step(float(t) + self.rhs.origin, z)

    def fail(self, reason, t):
        """Raise the SolverError of a call that stopped at t for reason; what func returned first of all, if it was not finite."""
        t_reached = float(t) + self.rhs.origin
        if self.rhs.trouble is not None:
            reason = f"{self.rhs.trouble} [integrator: {reason}]"
            if self.rhs.last_t is not None and self.direction * (t_reached - self.rhs.trouble_t) >= 0:
                # A code that took values that are not finite for a step has not come that far.
                t_reached = self.rhs.last_t
        raise SolverError(reason, t_reached=t_reached)


class Integrator(ABC):
    """An integration method, a value that knows its name. Everything of one solve lives in the Call that solve is given.

    known_options : names that options may hold; jacobians : values of its entry "jacobian" besides a function.
    rms_norm : whether the error norm is a root mean square over all unknowns (otherwise a maximum).
    restart_from_last_step : whether a warm restart takes up the last step; a multistep code, which begins at order 1, takes up
        the first one again.
    adaptive : whether tolerances play a part.
    """

    known_options: tuple[str, ...] = ()
    jacobians: tuple[str | None, ...] = (None, "diagonal", "finite_difference", "autodiff")
    rms_norm = True
    restart_from_last_step = True
    adaptive = True
    highest_order: int | None = None

    def __init__(self, name):
        self.name = name

    @abstractmethod
    def solve(self, call: Call):
        """Fill call.zs. Raises SolverError where the end is not reached."""

    def prepare(self, solver, size, compiled, jacobian, wants_first_step):
        """A Prepared (see compiled.py) for solves of size unknowns without Python; None where there is no such way.

        solver : what has rtol, atol and options, a Call or a Solver. jacobian : function (t, z) of the solve, or None.
        """
        return None


def step_limit_reason(options, method):
    """Why a solve ended at its step limit, and what would help."""
    newton = (
        "; method 'bdf' iterates functionally, which stiff problems defeat: options['jacobian'] = 'finite_difference' or "
        "'autodiff' makes it Newton's"
        if method == "bdf" and options.jacobian is None
        else ""
    )
    return (
        f"max_num_steps = {options.max_num_steps} steps taken before the next output time; the problem may be stiff for this "
        f"method, blow up, or need a larger options['max_num_steps']{newton}"
    )


def check_dense_workspace(method, size, jacobian, words_per_entry):
    """Refuse, before any work, a dense Jacobian that would not fit: ValueError says which options would.

    SciPy leaves it to malloc, or to a Fortran STOP that ends the interpreter.
    """
    gibibytes = 8 * words_per_entry * size**2 / 2**30
    if gibibytes > 8:
        raise ValueError(
            f"options['jacobian'] = {jacobian!r} of method {method!r} needs a dense {size} x {size} matrix "
            f"({gibibytes:.0f} GiB of work space); use adams or bdf with jacobian None, "
            "or lsoda, adams or bdf with 'diagonal'"
        )


def tolerance(value, size):
    """A tolerance as SciPy's f2py wrappers take it: a number, or a vector of one number an unknown."""
    return float(value) if np.ndim(value) == 0 else np.broadcast_to(np.asarray(value, float), (size,)).copy()


def both_tolerances(rtol, atol, size):
    """rtol and atol as two numbers or two vectors: Hairer's codes and VODE want both of one kind."""
    if np.ndim(rtol) == np.ndim(atol) == 0:
        return float(rtol), float(atol)
    return tuple(np.broadcast_to(np.asarray(value, float), (size,)).copy() for value in (rtol, atol))
