"""Runge-Kutta methods on a fixed grid: Euler, midpoint, and the classical method of order 4."""

from __future__ import annotations

import math

import autograd.numpy as anp
import numpy as np
from autograd.tracer import getval

from .base import Integrator

ORDER = {"euler": 1, "midpoint": 2, "rk4": 4}


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


STEPS = {"euler": euler_step, "midpoint": midpoint_step, "rk4": rk4_step}


def integrate_on_grid(method, f, z0, ts, step_size, after_step):
    """List of the states at ts; f, z0 and ts may be traced by autograd, which then differentiates through every step.

    Each interval between output times is cut into the least number of equal steps not longer than step_size (None: one step).
    after_step(t, h) is called for each step.
    """
    step = STEPS[method]
    z, zs = z0, [z0]
    for i in range(len(ts) - 1):
        interval = ts[i + 1] - ts[i]
        length = abs(float(getval(interval)))
        # A whole number of steps that rounding made a little larger is still that number.
        count = 1 if step_size is None else max(1, math.ceil(length / step_size * (1 - 1e-12)))
        h = interval / count
        for k in range(count):
            t = ts[i] + k * h
            z = step(f, t, h, z)
            after_step(float(getval(t + h)), float(getval(h)))
        zs.append(z)
    return zs


class FixedGrid(Integrator):
    """method "euler", "midpoint" or "rk4"; tolerances play no part."""

    known_options = ("step_size",)

    def solve(self, rhs, z0, ts, rtol, atol, options, statistics):
        method = statistics.method
        return np.stack(
            integrate_on_grid(
                # The copy: stages are kept, which a func that returns the same buffer each time would overwrite.
                method,
                lambda t, z: np.array(rhs(float(t), z)),
                np.array(z0),
                ts,
                options.step_size,
                lambda t, h: statistics.add_step(t, h, ORDER[method]),
            )
        )


def integrate_traced(method, f, z0, ts, options, statistics):
    """States at ts with autograd's tape through the integrator itself, as RK-Net is trained: memory O(steps)."""
    return anp.stack(
        integrate_on_grid(method, f, z0, ts, options.step_size, lambda t, h: statistics.add_step(t, h, ORDER[method]))
    )
