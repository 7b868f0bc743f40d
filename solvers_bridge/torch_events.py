"""The first of the entries of an event to change sign along a solution, for solvers_bridge.torch."""

from __future__ import annotations

import numpy as np
import torch

from .crossing import FIRST_HORIZON, INSTEAD_OF_BOOLEAN, Search
from .torch_primitive import as_array


class Events:
    """event_fn, and which of its entries, in flat order, was found to be the first to change sign."""

    def __init__(self, event_fn):
        self.event_fn, self.first = event_fn, None

    def __call__(self, t, y):
        return self.event_fn(t, y)

    def first_of(self, t, y):
        """The value of that entry."""
        # Clones, into which event_fn may write.
        clones = tuple(part.clone() for part in y) if isinstance(y, tuple) else y.clone()
        entries = self.event_fn(t.clone(), clones).reshape(-1)
        if self.first is None and len(entries) > 1:
            raise TypeError("odeint_interface must hand event_fn on as it is to odeint or odeint_adjoint of this module")
        return entries[self.first or 0]


class _FirstChange:
    """Entries (m,) of an event as one number, which is positive until the first of them changes sign.

    entries(t, z) -> (m,); doubts(t, z) -> (m,): how far each may be from zero where the solution, within tolerances, is at zero.
    The sign of an entry is that with which it leaves its doubt at the start; until the end of the step in which it does, it plays
    no part.
    """

    def __init__(self, entries, doubts):
        self.entries, self.doubts = entries, doubts
        self.signs, self.has_changed = None, False

    def __call__(self, t, z):
        """The least of the entries in the sense of their signs; 0.0 while none has one."""
        entries = as_array(self.entries(t, z))
        if not np.isfinite(entries).all():
            return float(entries[~np.isfinite(entries)][0])
        if self.signs is None:
            self.signs, self.doubt = np.zeros(len(entries)), self.doubts(t, z)
        self.has_changed = self.has_changed or bool(np.any((self.signs != 0) & (self.signs * entries <= 0)))
        # From then on it is a root between two ends of steps that is looked for.
        if not self.has_changed:
            self.signs = np.where((self.signs == 0) & (np.abs(entries) > self.doubt), np.sign(entries), self.signs)
        known = self.signs != 0
        return float(np.min(self.signs[known] * entries[known])) if known.any() else 0.0

    def first_at(self, t, z):
        """The number of the entry that changes sign there."""
        return int(np.argmin(np.where(self.signs == 0, np.inf, self.signs * as_array(self.entries(t, z)))))


def first_change(problem, state, z0, leaves, event_fn, start, end):
    """The first time between start and end at which an entry of event_fn changes sign; Events are told which."""
    dynamics, solver = problem.dynamics, problem.solver

    def tensor(z):
        return torch.tensor(z, dtype=state.dtype, device=state.device)

    def entries(t, z):
        # A clone, into which event_fn may write.
        values = event_fn(dynamics.time(t), state.unpack(z.clone())).reshape(-1)
        if values.dtype == torch.bool:
            raise TypeError(f"event_fn must return numbers that change their sign, got booleans; {INSTEAD_OF_BOOLEAN}")
        return values

    def values(t, z):
        with torch.no_grad():
            return entries(t, tensor(z))

    def doubts(t, z):
        unit = np.broadcast_to(solver.atol + solver.rtol * np.abs(z), z.shape)
        with torch.enable_grad():
            z = tensor(z).requires_grad_()
            parts = entries(t, z)
            bars = [
                torch.autograd.grad(part, z, allow_unused=True, retain_graph=True)[0] if part.requires_grad else None
                for part in parts
            ]
        return np.array([0.0 if bar is None else np.abs(as_array(bar)) @ unit for bar in bars])

    change = _FirstChange(values, doubts)
    # What doubt there is is in change.
    search = Search(problem, z0, leaves, change, lambda t, z: np.zeros(len(z)))
    event_t, z = search.first_crossing(start, end, FIRST_HORIZON)
    if isinstance(event_fn, Events):
        event_fn.first = change.first_at(event_t, z)
    return event_t


def slope_along(func, events, time, flat, state):
    """(d event/dt along the solution, f there), without gradients; func is of flat states."""
    with torch.enable_grad():
        at, z = time.detach().requires_grad_(), flat.clone().requires_grad_()
        value = events.first_of(at, state.unpack(z))
        bars = torch.autograd.grad(value, (at, z), allow_unused=True) if value.requires_grad else (None, None)
    with torch.no_grad():
        f = func(time.clone(), flat.clone())
        t_bar, z_bar = (0.0 if bar is None else bar for bar in bars)
        return t_bar + torch.sum(z_bar * f), f
