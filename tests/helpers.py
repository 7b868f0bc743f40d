"""What several files of tests need: a problem and its solve, failing right-hand sides, scripts in a fresh process."""

import subprocess
import sys
import textwrap
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pytest

from solvers_bridge import odeint

ROOT = Path(__file__).resolve().parents[1]
FIXED = ("euler", "midpoint", "rk4")
IMPLICIT = ("adams", "bdf", "lsoda", "radau")
ADAPTIVE = ("adams", "bdf", "lsoda", "dopri5", "dop853", "radau")
Y0, T = np.array([1.0, 2.0]), np.array([0.0, 0.5, 1.0])
HANG = 100
every_adaptive = pytest.mark.parametrize("method", ADAPTIVE)

# One method for each code path of ours: VODE, LSODA, Hairer's codes, SciPy's Radau, fixed grids.  What no method can change runs
# once; what the way to an integrator can change, once a family; what the method itself can change, for all of them.
ADAPTIVE_FAMILIES = ("adams", "lsoda", "dopri5", "radau")
FAMILIES = ADAPTIVE_FAMILIES + ("rk4",)
every_family = pytest.mark.parametrize("method", FAMILIES)


def some_fast(values, *fast):
    """values for parametrize, all but a few of them slow: every kind of fault shows in the few, the full product under -m slow."""
    tuples = [value if isinstance(value, tuple) else (value,) for value in values]
    return [pytest.param(*one, marks=() if value in fast else pytest.mark.slow) for value, one in zip(values, tuples)]


every_adaptive_family = pytest.mark.parametrize("method", ADAPTIVE_FAMILIES)

# VODE and LSODA take another way where steps are recorded.
STEPWISE = (("adams", False), ("adams", True), ("lsoda", False), ("lsoda", True), ("dopri5", False), ("radau", False))
with_and_without_steps = pytest.mark.parametrize("method, steps", STEPWISE)


def decay(t, y, params):
    return -y


def small_steps(method):
    return {"step_size": {"euler": 1e-3, "midpoint": 1e-2, "rk4": 5e-2}[method]} if method in FIXED else {}


def error_of(method):
    """Of solving decay over [0, 1] with small_steps and a tolerance of 1e-8."""
    return {"euler": 2e-3, "midpoint": 1e-4}.get(method, 1e-6)


def solve(func=decay, y0=Y0, t=T, method="adams", **kwargs):
    kwargs = {"rtol": 1e-8, "atol": 1e-8, "options": small_steps(method), **kwargs}
    return odeint(func, y0, t, method=method, **kwargs)


def assert_decays(ys, y0=Y0, t=T, method="adams"):
    t, y0 = np.asarray(t), np.asarray(y0)
    expected = np.exp(-(t - t[0])).reshape(-1, *(1,) * y0.ndim) * y0
    np.testing.assert_allclose(ys, expected, rtol=error_of(method), atol=1e-12)


@contextmanager
def refused(kind, match, method="adams"):
    """The block raises kind with a message like match, and the next solve is right."""
    with pytest.raises(kind, match=match or None) as info:
        yield info
    assert_decays(solve(method=method), method=method)


class Calls:
    """A right-hand side that counts; on call number at (from 0) and later it does something else."""

    def __init__(self, at, then, before=decay):
        self.at, self.then, self.before, self.count = at, then, before, 0

    def __call__(self, t, y, params):
        self.count += 1
        return (self.then if self.count > self.at else self.before)(t, y, params)


def blow_up(t, y, params):
    """dy/dt = y^2: y0 = 1 has its pole at t = 1."""
    with np.errstate(all="ignore"):
        return y**2


def raising(error):
    def func(t, y, params):
        raise error

    return func


def run_script(body, *arguments, timeout=HANG, flags=(), **kwargs):
    """Run a Python script; it prints OK last if all went well. Returns the finished process."""
    done = subprocess.run(
        [sys.executable, *flags, "-c", textwrap.dedent(body), *map(str, arguments)],
        timeout=timeout,
        cwd=ROOT,
        capture_output=True,
        text=True,
        **kwargs,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done


def oscillator(t, y, params):
    return 30.0 * np.array([y[1], -y[0]])
