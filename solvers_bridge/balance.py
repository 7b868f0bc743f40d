"""Whether a gradient has kept what is constant along the flow: a check of the adjoint for one evaluation of func.

Where z' = f(t, z), a' = -a df/dz and a_t' = -a . df/dt, the sum a . f + a_t does not change with time, as the Hamiltonian of an
autonomous problem does not, and output times add nothing to it. So at t0 the a_t that has gathered is -a . f, unless the adjoint
was solved badly, or f depends on t otherwise than its derivative says.
"""

from __future__ import annotations

from typing import Any
from weakref import WeakKeyDictionary

import numpy as np

from .statistics import warn_user

# The part of its terms by which the sum may be off, where that is more than the tolerances leave open. Chosen on gradients of 26
# problems, at other times than those by which gradient_warnings judges it.
LIMIT = 0.2
# What a reverse solve gathers may be off by this many relative tolerances.
TOLERANCES = 10.0
# How many pieces of the way f is compared with its derivative by t on, and the part by which they may differ.
PIECES, ROUGH = 16, 0.3

# Of dynamics, whether they depend on t as their derivative says: asked once, where a sum was off.
_smooth: WeakKeyDictionary[Any, bool] = WeakKeyDictionary()


def balance(a: np.ndarray, f: np.ndarray, a_t: float) -> tuple[float, float]:
    """(off, terms): by how much a . f + a_t is not zero, and the sum of sizes of the terms of a . f."""
    terms = a * f
    return abs(a_t + terms.sum()), np.abs(terms).sum()


def tell_imbalance(reverse: Any, a: np.ndarray, t_bar: np.ndarray, zs_bar: np.ndarray) -> None:
    """Warn where a reverse._Reverse has ended off balance, with a (n,) at t[0] and the cotangents t_bar (T,) of the times."""
    off, at_start = reverse.balance
    if not off > LIMIT * max(at_start, np.abs(t_bar[1:]).sum()):
        return
    outputs = zip(reverse.t[1:], reverse.zs[1:], zs_bar[1:])
    at_outputs = sum(np.abs(bar * reverse.slope(t, z)).sum() for t, z, bar in outputs if bar.any())
    try:
        changes, terms = _changes_with_time(reverse, a), max(at_start, at_outputs)
        is_off = terms > 0 and off > max(LIMIT * terms, _tolerated(reverse, changes))
        is_told = is_off and _depends_smoothly_on_time(reverse, a, changes)
    except Exception:
        # func may have no value at z0 at other times than the first.
        return
    if not is_told:
        return
    problem, start, end = reverse.problem, float(reverse.t[0]), float(reverse.t[-1])
    by = "through the steps of" if problem.discrete else "by"
    warn_user(
        f"the gradient {by} {problem.adjoint_solver.integrator.name} may be wrong: the adjoint's a . f + a_t, constant along the "
        f"flow, was off by {100 * off / terms:.0f} % of its terms between t = {end!r} and {start!r}. Tighter tolerances help, of "
        "the reverse solve (adjoint_rtol, adjoint_atol) or of both; where func jumps, options['jump_t'] does.",
        kind="imbalance",
    )


def _tolerated(reverse: Any, changes: np.ndarray) -> float:
    """By how much a . f + a_t may be off where errors are those that the tolerances leave open, however small its terms are."""
    means, gathered = reverse.problem.adjoint_solver, np.abs(changes).sum()
    relative = float(np.max(means.rtol) * gathered)
    if reverse.problem.discrete:
        return relative
    at_start = np.sum(means.atol * np.abs(reverse.slope(reverse.t[0], reverse.zs[0])))
    return TOLERANCES * relative + float(at_start + np.min(means.atol))


def _times(reverse: Any) -> np.ndarray:
    return np.linspace(reverse.t[0], reverse.t[-1], PIECES + 1)


def _changes_with_time(reverse: Any, a: np.ndarray) -> np.ndarray:
    """By how much a . f at z0 changes in each piece of the way."""
    return np.diff([a @ reverse.f(t, reverse.zs[0]) for t in _times(reverse)])


def _depends_smoothly_on_time(reverse: Any, a: np.ndarray, changes: np.ndarray) -> bool:
    """Whether a . f at z0 changes with t as its derivative by t says; of the same dynamics asked once."""
    dynamics = reverse.problem.dynamics
    if dynamics not in _smooth:
        times = _times(reverse)
        s = reverse.augmented.join(reverse.zs[0], a, np.zeros(reverse.augmented.p), 0.0)
        slopes = np.array([-reverse.f_augmented(t, s)[-1] for t in (times[1:] + times[:-1]) / 2])
        missed = np.abs(changes - slopes * np.diff(times)).sum()
        _smooth[dynamics] = bool(missed <= ROUGH * np.abs(changes).sum())
    return _smooth[dynamics]
