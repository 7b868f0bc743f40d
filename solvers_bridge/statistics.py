"""What a solve cost: the record kept of each call of an integrator, and the error of one that did not reach its end."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field


@dataclass
class SolveStatistics:
    """One call of an integrator, over all of its output times.

    Attributes
    ----------
    direction : "forward" for a solve that odeint's caller asked for, "backward" for one of the reverse sweep.
    method : name of the method, as given to odeint.
    size : number of unknowns (2n + parameters + 1 for the augmented system of the reverse sweep).
    nfe : evaluations of the right-hand side, those for finite-difference Jacobians included.
    steps : accepted steps.
    nje : Jacobians formed.
    last_order, last_step : of the last accepted step; last_step carries the sign of the direction of time.
    first_step : size of the first accepted step, where the integrator tells (None otherwise).
    wall_seconds : duration, from entering the integrator to leaving it.
    t, step_sizes, orders : per accepted step, its end, size and order; None unless record_solves(steps=True).
    """

    direction: str
    method: str
    size: int
    nfe: int = 0
    steps: int = 0
    nje: int = 0
    last_order: int | None = None
    last_step: float | None = None
    first_step: float | None = None
    wall_seconds: float = 0.0
    t: list[float] | None = None
    step_sizes: list[float] | None = None
    orders: list[int] | None = None
    wants_first_step: bool = field(default=False, repr=False)

    def needs_step_by_step(self) -> bool:
        """Whether a multistep code has to come back after its next step, so that add_step can be told."""
        return self.t is not None or (self.wants_first_step and self.first_step is None)

    def add_step(self, t: float, step_size: float, order: int) -> None:
        """Count an accepted step that ended at t, and keep it if steps are recorded."""
        self.steps += 1
        self.last_step, self.last_order = float(step_size), int(order)
        if self.first_step is None:
            self.first_step = self.last_step
        if self.t is not None and self.step_sizes is not None and self.orders is not None:
            self.t.append(float(t))
            self.step_sizes.append(self.last_step)
            self.orders.append(self.last_order)


class SolverError(RuntimeError):
    """A solve that did not reach its end.

    Attributes
    ----------
    reason : what stopped it, with what the Fortran code printed, if anything.
    t_reached : the last time that the integrator, or an evaluation of the right-hand side, reached in good order.
    statistics : the SolveStatistics up to there.
    """

    def __init__(self, reason: str, t_reached: float | None = None, statistics: SolveStatistics | None = None) -> None:
        super().__init__(reason)
        self.reason = reason
        self.t_reached = t_reached
        self.statistics = statistics

    def __str__(self) -> str:
        if self.statistics is None:
            return self.reason
        return f"{self.statistics.method} ({self.statistics.direction}) stopped at t = {self.t_reached!r}: {self.reason}"


@dataclass
class _Recorder:
    steps: bool
    solves: list[SolveStatistics] = field(default_factory=list)


_recorders: list[_Recorder] = []
_recorders_lock = threading.Lock()


@contextmanager
def record_solves(steps: bool = False) -> Iterator[list[SolveStatistics]]:
    """Collect the SolveStatistics of every solve made inside the block, in the order in which they ended.

    with record_solves() as solves: ... gives a list that fills while the block runs. Blocks nest; solves of all threads
    are seen. steps=True also records time, size and order of every accepted step, for which VODE and LSODA are asked
    to come back after each one (the steps themselves stay the same).
    """
    recorder = _Recorder(bool(steps))
    with _recorders_lock:
        _recorders.append(recorder)
    try:
        yield recorder.solves
    finally:
        with _recorders_lock:
            # By identity: two empty recorders compare equal.
            _recorders[:] = [other for other in _recorders if other is not recorder]


def new_statistics(direction: str, method: str, size: int) -> SolveStatistics:
    """An empty SolveStatistics, which keeps steps if some record_solves block asks for them."""
    statistics = SolveStatistics(direction, method, size)
    if any(recorder.steps for recorder in _recorders):
        statistics.t, statistics.step_sizes, statistics.orders = [], [], []
    return statistics


def publish(statistics: SolveStatistics) -> None:
    """Hand the statistics of an ended solve to every record_solves block that is open."""
    with _recorders_lock:
        for recorder in _recorders:
            recorder.solves.append(statistics)
