"""Whether a reverse solve has lost z(t): what counts as lost, and what is done and said where nobody heals it."""

from __future__ import annotations

from typing import Any

import numpy as np

from .solve import Problem
from .statistics import warn_user

# A reverse solve has lost z(t) where it ends further from the stored state than this over the root of rtol, in units of
# atol + rtol |z| (RMS): at 1e-8 an error of z of a hundredth. Measured on problems of DETEST, A1 to C4, at 1e-2 to 1e-10 with
# five methods (271 solves) it singles out those that contract (B2, C4, once C1), whose gradients were up to 117 times worse than
# with known states or than the tolerance, and none else; those of the others were up to 15 times worse, at whatever gap. The
# traces of 2018 stay below half of it; wrong gradients of stiff problems begin at fifty times.
LOST_GAP = 100.0
# Or where a component ends further from its stored value than this part of the greatest component at both ends, or, if that is
# more, than the other one times the root of the tolerance relative to it: the gap above allows any error where rtol is far below
# atol, and a root mean square hides a component among many. On a flow that contracts, with six methods at 1e-2 to 1e-8, the
# gradient's relative error is a third of the part. The ODE-Nets of the paper stay below 0.05 at 1e-1 and 0.004 at 1e-3 (adams);
# the traces of 2018, all at 1e-3, below 0.64, which is 20 roots.
LOST_PART, LOST_ROOTS = 0.1, 22.0
# The same for a fixed grid, which has no tolerance: in thousandths of the greatest component.
LOST_GAP_ON_GRID, GRID_UNIT = 100.0, 1e-3


class Lost(Exception):
    """A reverse solve has lost z(t), which is known from the forward solve."""


def reconstruction(solver: Any, z: np.ndarray, stored: np.ndarray, origin: np.ndarray) -> tuple[float, float]:
    """(gap, excess): how far z, found anew from `origin`, is from the stored state: RMS in units of the tolerance; and its
    greatest error over that at which it counts as lost. All (n,).
    """
    error, adaptive, tiny = np.abs(z - stored), solver.integrator.adaptive, np.finfo(float).tiny
    greatest = max(np.abs(stored).max(), tiny)
    unit = solver.atol + solver.rtol * np.abs(stored) if adaptive else max(GRID_UNIT * greatest, tiny)
    gap = float(np.sqrt(np.mean((error / unit) ** 2)))
    greatest = max(greatest, np.abs(origin).max())
    tolerance = max(np.max(solver.rtol), np.max(solver.atol) / greatest) if adaptive else 0.0
    excess = float(error.max() / (greatest * max(LOST_PART, LOST_ROOTS * np.sqrt(tolerance))))
    return (gap, excess) if np.isfinite(gap) else (np.inf, np.inf)


def lost_gap(solver: Any) -> float:
    """The gap from which on z(t) counts as lost by a reverse solver."""
    return LOST_GAP / np.sqrt(np.max(solver.rtol)) if solver.integrator.adaptive else LOST_GAP_ON_GRID


class Watch:
    """Of the segments of a reverse sweep of problem. Where nobody heals a z(t) that was lost, the worst is kept to be told.

    traced: whether the sweep is differentiated in turn.
    """

    def __init__(self, problem: Problem, *, traced: bool = False) -> None:
        self.solver, self.heals, self.traced = problem.adjoint_solver, problem.reconstruction != "solve", traced
        self.greatest_excess = self.gap = 0.0
        self.worst: tuple[float, float] | None = None

    def is_lost(self, gap: float, excess: float, start: float, end: float) -> bool:
        """Whether z(t) counts as lost on the way from time start back to end, as `reconstruction` found it."""
        if not (gap > lost_gap(self.solver) or excess > 1.0):
            return False
        if not self.heals and excess > self.greatest_excess:
            self.greatest_excess, self.gap, self.worst = excess, gap, (float(start), float(end))
        return True

    def check(self, z: np.ndarray, stored: np.ndarray, origin: np.ndarray, start: float, end: float) -> None:
        """Lost where z, found from origin at time start, is lost at end, where it is stored, and that can be healed.

        For sweeps that are differentiated in turn; a fixed grid's are not healed.
        """
        if not self.solver.integrator.adaptive:
            return
        if self.is_lost(*reconstruction(self.solver, z, stored, origin), start, end) and self.heals:
            method = self.solver.integrator.name
            raise Lost(f"the reverse solve of {method} lost z(t) between t = {float(start)!r} and {float(end)!r}")

    def tell(self) -> None:
        """Warn of what was lost and not healed."""
        if self.worst is not None:
            start, end = self.worst
            suffers = "the gradient, which is being differentiated in its turn," if self.traced else "the gradient"
            warn_user(
                f"the reverse solve of {self.solver.integrator.name} lost z(t) between t = {start!r} and {end!r}: it ended "
                f"{self.gap:.1e} tolerances away from the stored state, so {suffers} may be wrong. "
                "adjoint_options={'reconstruction': 'auto'} or 'interpolate' takes z(t) from the forward solve instead; "
                "'checkpoint': K helps where the loss is slow."
            )
