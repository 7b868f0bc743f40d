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

# The part of its terms by which the sum may be off. Of 1,291 gradients of 26 problems (DETEST's, some of Hairer's, stiff ones; by
# five methods; z(t) solved back, interpolated, or through steps; 1e-2 to 1e-6) 114 were off by more: 89 of these were wrong by a
# tenth or more, 67 by three tenths. Of the others 72 and 37, most of them where the solution was as wrong, orbits above all.
LIMIT = 0.2
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
    part = off / max(at_start, at_outputs)
    if not part > LIMIT or not _depends_smoothly_on_time(reverse, a):
        return
    problem, start, end = reverse.problem, float(reverse.t[0]), float(reverse.t[-1])
    by = "through the steps of" if problem.discrete else "by"
    warn_user(
        f"the gradient {by} {problem.adjoint_solver.integrator.name} may be wrong: the adjoint's a . f + a_t, constant along the "
        f"flow, was off by {100 * part:.0f} % of its terms between t = {end!r} and {start!r}. Tighter tolerances help, of the "
        "reverse solve (adjoint_rtol, adjoint_atol) or of both; where func jumps, options['jump_t'] does.",
        kind="imbalance",
    )


def _depends_smoothly_on_time(reverse: Any, a: np.ndarray) -> bool:
    """Whether f, at z0 and as a sees it, changes with t as its derivative by t says; of the same dynamics asked once."""
    dynamics = reverse.problem.dynamics
    if dynamics not in _smooth:
        try:
            _smooth[dynamics] = _compare(reverse, a)
        except Exception:
            # func may have no value there.
            _smooth[dynamics] = False
    return _smooth[dynamics]


def _compare(reverse: Any, a: np.ndarray) -> bool:
    times, z = np.linspace(reverse.t[0], reverse.t[-1], PIECES + 1), reverse.zs[0]
    s = reverse.augmented.join(z, a, np.zeros(reverse.augmented.p), 0.0)
    steps = np.diff([a @ reverse.f(t, z) for t in times])
    slopes = np.array([-reverse.f_augmented(t, s)[-1] for t in (times[1:] + times[:-1]) / 2])
    return bool(np.abs(steps - slopes * np.diff(times)).sum() <= ROUGH * np.abs(steps).sum())
