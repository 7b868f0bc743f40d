"""Whether reverse solves that are themselves differentiated have lost z(t); see reverse.py for those that are not."""

from __future__ import annotations

import numpy as np

from .reverse import is_lost, lost_words, reconstruction
from .solve import Problem
from .statistics import warn_user


class Lost(Exception):
    """A reverse solve has lost z(t), which is known from the forward solve."""


class Watch:
    """Of the segments of a reverse sweep of problem: Lost at the first that lost z(t); where that is not healed, it is told."""

    def __init__(self, problem: Problem) -> None:
        self.heals, self.solver = problem.reconstruction != "solve", problem.adjoint_solver
        self.greatest_excess = self.gap = 0.0
        self.at: tuple[float, float] | None = None

    def check(self, z: np.ndarray, stored: np.ndarray, origin: np.ndarray, start: float, end: float) -> None:
        """Of a segment from time start, where z is origin, back to end, where z was found and is to be stored."""
        solver = self.solver
        if not solver.integrator.adaptive:
            return
        gap, excess = reconstruction(solver, z, stored, origin)
        if not is_lost(solver, gap, excess):
            return
        if self.heals:
            raise Lost(f"the reverse solve of {solver.integrator.name} lost z(t) between t = {float(start)!r} and {float(end)!r}")
        if excess > self.greatest_excess:
            self.greatest_excess, self.gap, self.at = excess, gap, (float(start), float(end))

    def tell(self) -> None:
        """Warn of what was lost and not healed."""
        if self.at is not None:
            which = "the gradient, which is being differentiated in its turn,"
            warn_user(lost_words(self.solver.integrator.name, *self.at, self.gap, which))
