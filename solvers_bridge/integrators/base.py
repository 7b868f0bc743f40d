"""What the integrators share: the guarded right-hand side, the table of options, the abstract base."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from typing import NamedTuple

import numpy as np

from ..statistics import SolverError, SolveStatistics

DEFAULT_MAX_NUM_STEPS = 50_000


class RightHandSide:
    """rhs(t, z) as an integrator calls it: counted, and stopped at the first value that is not finite.

    jacobian(t, z) -> (n, n) is None unless options ask for jacobian="autodiff".
    """

    def __init__(self, rhs, size, jacobian=None):
        self.rhs, self.size, self.jacobian = rhs, size, jacobian
        self.nfe = 0
        self.last_t = None

    def __call__(self, t, z):
        self.nfe += 1
        dz = self.rhs(t, z)
        # One pass instead of isfinite and all; an overflow of the sum alone is not an error.
        if not math.isfinite(np.add.reduce(dz)) and not np.isfinite(dz).all():
            bad = np.flatnonzero(~np.isfinite(dz))
            state = (
                ""
                if np.isfinite(z).all()
                else " (the state itself was not finite: a step had left the region "
                "where func is defined; try first_step or max_step)"
            )
            raise SolverError(
                f"func returned {dz[bad[0]]} in {bad.size} of {self.size} components, the first at flat "
                f"index {bad[0]}, at t = {float(t)!r}{state}",
                t_reached=self.last_t,
            )
        self.last_t = float(t)
        return dz


class Options(NamedTuple):
    """The integrator's own options, checked; None stands for the integrator's default."""

    first_step: float | None = None
    max_step: float | None = None
    max_num_steps: int = DEFAULT_MAX_NUM_STEPS
    max_order: int | None = None
    jacobian: str | None = None
    step_size: float | None = None


class Integrator(ABC):
    """A family of integration methods. Stateless: everything of one solve lives in the call of solve.

    known_options : names that options may hold; jacobians : values of its entry "jacobian".
    rms_norm : whether the error norm is a root mean square over all unknowns (otherwise a maximum).
    restart_from_last_step : whether a warm restart takes up the last step; a multistep code, which begins at order 1, takes up
        the first one again.
    """

    known_options: tuple[str, ...] = ()
    jacobians: tuple[str | None, ...] = (None, "diagonal", "finite_difference", "autodiff")
    rms_norm = True
    restart_from_last_step = True

    @abstractmethod
    def solve(self, rhs: RightHandSide, z0, ts, rtol, atol, options: Options, statistics: SolveStatistics):
        """States (len(ts), n) at ts, the first of them z0. Raises SolverError where the end is not reached."""


def check_options(method, integrator, options, name="options"):
    """Options from the user's dict. Raises ValueError or TypeError naming the entry and what would be right."""
    if options is None:
        return Options()
    if not isinstance(options, dict):
        raise TypeError(f"{name} must be a dict, got {type(options).__name__}")
    unknown = [key for key in options if key not in integrator.known_options]
    if unknown:
        raise ValueError(
            f"{name} of method {method!r}: unknown {', '.join(map(repr, unknown))}; "
            f"known are {', '.join(integrator.known_options)}"
        )
    checked = {}
    for key, value in options.items():
        where = f"{name}[{key!r}]"
        if key == "jacobian":
            if not (value is None or isinstance(value, str)) or value not in integrator.jacobians:
                raise ValueError(
                    f"{where} must be one of {', '.join(map(repr, integrator.jacobians))} for method {method!r}, got {value!r}"
                )
            checked[key] = value
        elif value is None:
            continue
        elif key in ("max_num_steps", "max_order"):
            limit = integrator.highest_order(method) if key == "max_order" else None
            checked[key] = _positive_integer(value, where, limit)
        else:
            checked[key] = _positive_number(value, where)
    return Options(**checked)


def _positive_integer(value, where, limit):
    if isinstance(value, bool) or not isinstance(value, (int, np.integer)):
        raise TypeError(f"{where} must be an integer, got {value!r}")
    if value < 1 or (limit is not None and value > limit):
        raise ValueError(f"{where} must be at least 1{f' and at most {limit}' if limit else ''}, got {value}")
    return int(value)


def _positive_number(value, where):
    try:
        number = float(value)
    except (TypeError, ValueError):
        raise TypeError(f"{where} must be a positive number, got {value!r}") from None
    if not (math.isfinite(number) and number > 0):
        raise ValueError(f"{where} must be positive and finite, got {value!r}")
    return number


def step_limit_reason(options):
    """Why a solve ended at its step limit, and what would help."""
    return (
        f"max_num_steps = {options.max_num_steps} steps taken before the next output time; the problem may be stiff for this "
        "method, blow up, or need a larger options['max_num_steps']"
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
