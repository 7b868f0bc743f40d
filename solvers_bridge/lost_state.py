"""Whether a reverse solve has lost z(t): what counts as lost, what as doubtful, and what is said where nobody heals it."""

from __future__ import annotations

import math
from typing import Any, NamedTuple

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
# From the same part on, or this many times the tolerance, if that is more, it is doubtful, and told though not healed: of 404
# gradients of DETEST's problems and some of Hairer's at 1e-1 to 1e-4 (adams, lsoda, dopri5), 100 were doubtful. 43 of these were
# more than three times worse than with known states or than the tolerance, one 900 times; 12 were right to 3 %. Of the others 35.
DOUBTFUL_TOLERANCES = 3.0
# The same for a fixed grid, which has no tolerance: in thousandths of the greatest component.
LOST_GAP_ON_GRID, GRID_UNIT = 100.0, 1e-3


class Lost(Exception):
    """A reverse solve has lost z(t), which is known from the forward solve."""


class Found(NamedTuple):
    """How far z, found anew, is from the stored state: gap, RMS in units of the tolerance; excess and doubt, the greatest error
    over that at which it counts as lost, and as doubtful.
    """

    gap: float
    excess: float
    doubt: float


def reconstruction(solver: Any, z: np.ndarray, stored: np.ndarray, origin: np.ndarray) -> Found:
    """How well z, found anew from `origin`, was found. All (n,)."""
    error, adaptive, tiny = np.abs(z - stored), solver.integrator.adaptive, np.finfo(float).tiny
    greatest = max(np.abs(stored).max(), tiny)
    unit = solver.atol + solver.rtol * np.abs(stored) if adaptive else max(GRID_UNIT * greatest, tiny)
    gap = float(np.sqrt(np.mean((error / unit) ** 2)))
    greatest = max(greatest, np.abs(origin).max())
    tolerance = max(np.max(solver.rtol), np.max(solver.atol) / greatest) if adaptive else 0.0
    part = float(error.max() / greatest)
    excess = part / max(LOST_PART, LOST_ROOTS * math.sqrt(tolerance))
    doubt = part / max(LOST_PART, DOUBTFUL_TOLERANCES * tolerance)
    return Found(gap, excess, doubt) if np.isfinite(gap) else Found(np.inf, np.inf, np.inf)


def lost_gap(solver: Any) -> float:
    """The gap from which on z(t) counts as lost by a reverse solver."""
    return LOST_GAP / np.sqrt(np.max(solver.rtol)) if solver.integrator.adaptive else LOST_GAP_ON_GRID


class _Segment(NamedTuple):
    found: Found
    start: float
    end: float


class Watch:
    """Of the segments of a reverse sweep of problem: the worst of those lost and not healed, and of the doubtful, to be told.

    traced: whether the sweep is differentiated in turn.
    """

    def __init__(self, problem: Problem, *, traced: bool = False) -> None:
        self.solver, self.heals, self.traced = problem.adjoint_solver, problem.reconstruction != "solve", traced
        self.lost: _Segment | None = None
        self.doubtful: _Segment | None = None

    def is_lost(self, found: Found, start: float, end: float) -> bool:
        """Whether z(t) counts as lost on the way from time start back to end, as `reconstruction` found it."""
        segment = _Segment(found, float(start), float(end))
        if found.gap > lost_gap(self.solver) or found.excess > 1.0:
            if not self.heals and (self.lost is None or found.excess > self.lost.found.excess):
                self.lost = segment
            return True
        if found.doubt > 1.0 and (self.doubtful is None or found.doubt > self.doubtful.found.doubt):
            self.doubtful = segment
        return False

    def check(self, z: np.ndarray, stored: np.ndarray, origin: np.ndarray, start: float, end: float) -> None:
        """Lost where z, found from origin at time start, is lost at end, where it is stored, and that can be healed.

        For sweeps that are differentiated in turn; a fixed grid's are not healed.
        """
        if not self.solver.integrator.adaptive:
            return
        if self.is_lost(reconstruction(self.solver, z, stored, origin), start, end) and self.heals:
            method = self.solver.integrator.name
            raise Lost(f"the reverse solve of {method} lost z(t) between t = {float(start)!r} and {float(end)!r}")

    def tell(self) -> bool:
        """Warn of what was lost and not healed, or else of what is doubtful; whether there was any."""
        worst = self.lost or self.doubtful
        if worst is None:
            return False
        suffers = "the gradient, which is being differentiated in its turn," if self.traced else "the gradient"
        did, ways, further = (
            ("lost", "'auto'} or 'interpolate'", "'checkpoint': K helps where the loss is slow")
            if self.lost
            else ("hardly found", "'interpolate'}", "tighter tolerances help, too")
        )
        warn_user(
            f"the reverse solve of {self.solver.integrator.name} {did} z(t) between t = {worst.start!r} and {worst.end!r}: it "
            f"ended {worst.found.gap:.1e} tolerances away from the stored state, so {suffers} may be wrong. "
            f"adjoint_options={{'reconstruction': {ways} takes z(t) from the forward solve instead; {further}.",
            kind=did,
        )
        return True
