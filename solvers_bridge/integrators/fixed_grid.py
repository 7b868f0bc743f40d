"""Runge-Kutta methods on a fixed grid: Euler, midpoint, and of order 4 the classical method and Kutta's 3/8 rule."""

from __future__ import annotations

import math

import numpy as np

from ..interpolant import Polynomial
from .base import COMMON_OPTIONS, Integrator, under_callers_errstate
from .compiled import prepare_grid

ORDER = {"euler": 1, "midpoint": 2, "rk4": 4, "rk4_38": 4}


def euler_step(f, t, h, z):
    return z + h * f(t, z)


def midpoint_step(f, t, h, z):
    return z + h * f(t + h / 2, z + h / 2 * f(t, z))


def rk4_step(f, t, h, z):
    k1 = f(t, z)
    k2 = f(t + h / 2, z + h / 2 * k1)
    k3 = f(t + h / 2, z + h / 2 * k2)
    k4 = f(t + h, z + h * k3)
    return z + h / 6 * (k1 + 2 * (k2 + k3) + k4)


def rk4_38_step(f, t, h, z):
    """The 3/8 rule (Hairer, Norsett and Wanner 1993, table II.1.2), which torchdiffeq calls rk4."""
    k1 = f(t, z)
    k2 = f(t + h / 3, z + h / 3 * k1)
    k3 = f(t + 2 * h / 3, z + h * (k2 - k1 / 3))
    k4 = f(t + h, z + h * (k1 - k2 + k3))
    return z + h / 8 * (k1 + 3 * (k2 + k3) + k4)


STEPS = {"euler": euler_step, "midpoint": midpoint_step, "rk4": rk4_step, "rk4_38": rk4_38_step}


def steps_in(length, step_size):
    """The number of steps in an interval between output times."""
    # A whole number of steps that rounding made a little larger is still that number.
    return 1 if step_size is None else max(1, math.ceil(length / step_size * (1 - 1e-12)))


def ends_of_steps(ts, step_size):
    """The times (K,) between those of ts at which steps end."""
    inner = [np.linspace(start, end, steps_in(abs(end - start), step_size) + 1)[1:-1] for start, end in zip(ts, ts[1:])]
    return np.concatenate(inner) if inner else np.empty(0)


def integrate_on_grid(method, f, z0, ts, step_size, after_step, keep, value=float):
    """keep(z) of the state at each of ts after the first; f, z0 and ts may be traced, which differentiates through every step.

    Each interval between output times is cut into the least number of equal steps not longer than step_size (None: one step).
    after_step(t, h, z) is called for each step; value(x) is the number in a traced one.
    """
    step = STEPS[method]
    z = z0
    for i in range(len(ts) - 1):
        interval = ts[i + 1] - ts[i]
        count = steps_in(abs(float(value(interval))), step_size)
        h = interval / count
        for k in range(count):
            t = ts[i] + k * h
            before, z = z, step(f, t, h, z)
            after_step(float(value(t)), float(value(h)), before, z)
        keep(z)


class FixedGrid(Integrator):
    """method "euler", "midpoint", "rk4" or "rk4_38"; tolerances play no part."""

    known_options = ("step_size", *COMMON_OPTIONS)
    adaptive = False

    def prepare(self, solver, size, compiled, jacobian, wants_first_step):
        # Of its order, the compiled code has the classical method.
        return None if self.name == "rk4_38" else prepare_grid(compiled, solver, ORDER[self.name])

    def solve(self, call):
        rhs = under_callers_errstate(call.rhs)

        def f(t, z):
            # The copy: stages are kept, which a func that returns the same buffer each time would overwrite.
            return np.array(rhs(float(t), z))

        def after_step(t, h, before, z):
            call.accept(t + h, h, ORDER[self.name], z, lambda: Polynomial.hermite(t, h, before, z, f(t, before), f(t + h, z)))

        def keep(z):
            call.zs[call.done] = z
            call.done += 1

        with np.errstate(all="ignore"):
            integrate_on_grid(self.name, f, np.array(call.zs[0]), call.ts, call.options.step_size, after_step, keep)
