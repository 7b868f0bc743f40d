"""What a solve cost: the record kept of each call of an integrator, and the error of one that did not reach its end."""

from __future__ import annotations

import sys
import threading
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from .interpolant import Interpolant


@dataclass
class SolveStatistics:
    """One call of an integrator, over all of its output times.

    Attributes
    ----------
    direction : "forward" for a solve that odeint's caller asked for, "backward" for one of the reverse sweep, "recomputed" for a
        forward one that the reverse sweep made again, to know z(t).
    method : name of the method, as given to odeint.
    size : number of unknowns (2n + parameters + 1 for the augmented system of the reverse sweep, n less where z(t) is known).
    nfe : evaluations of the right-hand side, those for finite-difference Jacobians included.
    steps : accepted steps.
    nje : Jacobians formed.
    last_order, last_step : of the last accepted step; last_step carries the sign of the direction of time.
    first_step : size of the first accepted step, where the integrator tells (None otherwise).
    wall_seconds : duration, from entering the integrator to leaving it.
    reconstruction_gap : of a backward solve that found z(t) anew: how far it ended from the state that the forward solve had
        stored there, a root mean square in units of atol + rtol |z|; infinite if it did not get there. None otherwise.
    t, step_sizes, orders, states : per accepted step, its end, size, order, and the flat state there; None unless
        record_solves(steps=True).
    dense_output : function t -> flat state (n,) between the first time and the last, by the interpolant of the integrator's own
        steps; None unless record_solves(dense=True).
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
    reconstruction_gap: float | None = None
    t: list[float] | None = None
    step_sizes: list[float] | None = None
    orders: list[int] | None = None
    states: list[np.ndarray] | None = field(default=None, repr=False)
    dense_output: Interpolant | None = field(default=None, repr=False)


class SolverError(RuntimeError):
    """A solve that did not reach its end.

    Attributes
    ----------
    reason : what stopped it, with what the Fortran code printed, if anything.
    t_reached : the last time that the integrator, or an evaluation of the right-hand side, reached in good order.
    statistics : the SolveStatistics up to there.
    ts, ys : output times that were reached, from t[0] on, and the states there, nested and shaped as odeint returns them.
    """

    def __init__(self, reason: str, t_reached: float | None = None, statistics: SolveStatistics | None = None) -> None:
        reason = reason.replace("\0", "")
        super().__init__(reason)
        self.reason = reason
        self.t_reached = t_reached
        self.statistics = statistics
        self.ts: np.ndarray | None = None
        self.ys: Any = None
        # That of the problem whose solve raised this: by its identity a solve knows its own errors from those of one inside func.
        self.layout: Any = None

    def __str__(self) -> str:
        if self.statistics is None:
            return self.reason
        return f"{self.statistics.method} ({self.statistics.direction}) stopped at t = {self.t_reached!r}: {self.reason}"


class GradientWarning(UserWarning):
    """A gradient that came out, but is not to be trusted, or was dear; the text says why and what would help."""


# Code of these packages is not where a warning belongs: it points at the user's own line.
_NOT_THE_USER = {__name__.partition(".")[0], "autograd", "importlib", "tensorflow", "keras", "torch"}


class _OfItsKind(str):
    """A warning's text, equal to all of its kind, so that one with other numbers is not shown at the same call site again."""

    kind: str

    def __eq__(self, other: object) -> bool:
        return isinstance(other, _OfItsKind) and other.kind == self.kind

    def __hash__(self) -> int:
        return hash(self.kind)


def warn_user(message: str, category: type[Warning] = GradientWarning, *, kind: str | None = None) -> None:
    """Warn at the innermost line outside this package and what calls it, so that Python's filters show it once a call site.

    kind: what the texts of one kind of warning have in common, whatever their numbers; by default the text.
    """
    level, frame = 1, sys._getframe(1)
    while frame.f_back is not None and frame.f_globals.get("__name__", "").partition(".")[0] in _NOT_THE_USER:
        frame = frame.f_back
        # warnings itself leaves these out of its count.
        level += not frame.f_code.co_filename.startswith("<frozen importlib")
    text = _OfItsKind(message)
    text.kind = kind or message
    warnings.warn(text, category, stacklevel=level + 1)


@dataclass
class _Recorder:
    steps: bool
    dense: bool
    solves: list[SolveStatistics] = field(default_factory=list)


_recorders: list[_Recorder] = []
_recorders_lock = threading.Lock()


@contextmanager
def record_solves(steps: bool = False, dense: bool = False) -> Iterator[list[SolveStatistics]]:
    """Collect the SolveStatistics of every solve made inside the block, in the order in which they ended.

    with record_solves() as solves: ... gives a list that fills while the block runs. Blocks nest; solves of all threads
    are seen. steps=True also records time, size, order and state of every accepted step, and dense=True the interpolant between
    them, for which VODE and LSODA are asked to come back after each one (the steps themselves stay the same).
    """
    recorder = _Recorder(bool(steps), bool(dense))
    with _recorders_lock:
        _recorders.append(recorder)
    try:
        yield recorder.solves
    finally:
        with _recorders_lock:
            # By identity: two empty recorders compare equal.
            _recorders[:] = [other for other in _recorders if other is not recorder]


def recorders_are_open() -> bool:
    """Whether anybody would see what is published."""
    return bool(_recorders)


def new_statistics(direction: str, method: str, size: int) -> SolveStatistics:
    """An empty SolveStatistics, with the lists that some open record_solves block asks for."""
    statistics = SolveStatistics(direction, method, size)
    if any(recorder.steps for recorder in _recorders):
        statistics.t, statistics.step_sizes, statistics.orders, statistics.states = [], [], [], []
    if any(recorder.dense for recorder in _recorders):
        statistics.dense_output = Interpolant()
    return statistics


def publish(statistics: SolveStatistics) -> None:
    """Hand the statistics of an ended solve to every record_solves block that is open."""
    with _recorders_lock:
        for recorder in _recorders:
            recorder.solves.append(statistics)
