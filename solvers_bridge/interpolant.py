"""Dense output: the state between the steps of a solve, from a polynomial a step."""

from __future__ import annotations

from bisect import bisect_left

import numpy as np


class Polynomial:
    """z(t) = sum_j c_j s**j with s = (t - origin) / scale; c an array (degree + 1, n)."""

    __slots__ = ("coefficients", "origin", "scale")

    def __init__(self, origin, scale, coefficients):
        self.origin, self.scale, self.coefficients = origin, scale, coefficients

    def __call__(self, t):
        # In Python's floats, which are faster one by one; and of this call alone: threads share interpolants.
        s = float((t - self.origin) / self.scale)
        power, powers = 1.0, [1.0]
        for _ in range(len(self.coefficients) - 1):
            power *= s
            powers.append(power)
        return np.array(powers) @ self.coefficients

    @classmethod
    def hermite(cls, t, h, z, z_next, slope, slope_next):
        """The cubic with values z, z_next and slopes at t and t + h."""
        rise, run, run_next = z_next - z, h * slope, h * slope_next
        return cls(t, h, np.stack([z, run, 3 * rise - 2 * run - run_next, run + run_next - 2 * rise]))


class Interpolant:
    """The state (n,) of a solve at any t between its first time and its last, from one function of t a step.

    Memory is O(steps): for a polynomial of degree q, (q + 1) n numbers a step.
    """

    def __init__(self):
        self.pieces = []
        self.ends = []  # of the steps, times the direction of time, so that they increase

    def add(self, t_end, direction, piece, origin):
        """The next step, which ended at origin + t_end; piece is a function of t - origin, direction is 1.0 or -1.0."""
        self.direction = direction
        self.ends.append(direction * (t_end + origin))
        self.pieces.append((piece, origin))

    def __delitem__(self, steps):
        """Forget some steps, given as a slice."""
        del self.pieces[steps], self.ends[steps]

    def __len__(self):
        return len(self.pieces)

    def __call__(self, t):
        if not self.pieces:
            raise ValueError("an interpolant without steps has no values")
        # Beyond the last end, by rounding, the last piece goes on.
        piece, origin = self.pieces[min(bisect_left(self.ends, self.direction * t), len(self.ends) - 1)]
        return piece(t - origin)
