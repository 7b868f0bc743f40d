"""What a library has to give to be compared: one class, in a module that imports it.

It is read in an environment that holds NumPy and that library, and nothing of this project but what needs no more.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np

from experiments.harness import right_hand_sides


class Problem(NamedTuple):
    """dy/dt = f(ops, t, y, *params) from y0 at t[0]; states_bar (T, *shape of y0): cotangent of the states.

    Arrays are of one precision, float64 but in `bench`, and times always float64.
    """

    f: Callable[..., Any]
    y0: np.ndarray
    t: np.ndarray
    params: tuple
    states_bar: np.ndarray

    def astype(self, dtype):
        """The same in another precision, with float64 times."""
        y0, states_bar, *params = (np.asarray(array, dtype) for array in (self.y0, self.states_bar, *self.params))
        return self._replace(y0=y0, t=np.asarray(self.t, np.float64), params=tuple(params), states_bar=states_bar)


class Solver(NamedTuple):
    """One method at one tolerance, ready to be called again and again.

    forward() -> states (T, *shape of y0); gradient() -> (states, y0_bar, params_bars), the cotangents of y0 and of each
    parameter, or None where the library has no gradients. counts: evaluations of the last call, "forward" and "backward", and
    the time.perf_counter() at which its gradient "turned" backwards, where it tells.
    """

    forward: Callable[[], Any]
    gradient: Callable[[], tuple] | None
    counts: dict


class Library:
    """A library, opened for one problem.

    METHODS: {name of a method with its way to gradients: "smooth", "stiff" or "any", the problems that a user would take it for}.
    PACKAGES: distributions whose versions belong into the record. COMPILED: whether the first call compiles.
    """

    METHODS: dict[str, str] = {}
    PACKAGES: tuple[str, ...] = ()
    COMPILED = False

    def __init__(self, problem):
        self.problem = problem

    @staticmethod
    def one_thread():
        """Keep the library to one thread for the rest of the process, where environment variables do not."""

    def derivative(self, t, y):
        """dy/dt at a float t and an array y, as the library computes it: an array."""
        raise NotImplementedError

    def solver(self, method, rtol, atol):
        """A Solver. What it raises, there or when called, is a result."""
        raise NotImplementedError


def read_problem(path):
    """The Problem in a file that `write_problem` wrote."""
    with np.load(path) as file:
        params = tuple(file[f"param{number}"] for number in range(int(file["count"])))
        f = getattr(right_hand_sides, str(file["f"]))
        return Problem(f, file["y0"], file["t"], params, file["states_bar"])


def write_problem(path, problem):
    """The Problem as npz, its right-hand side by name."""
    params = {f"param{number}": array for number, array in enumerate(problem.params)}
    np.savez(path, f=problem.f.__name__, y0=problem.y0, t=problem.t, states_bar=problem.states_bar, count=len(params), **params)
