"""The adjoint method: the augmented system's layout and norms, and the sweep over output times that makes gradients of it.

Reads beside the paper: a Dynamics' augmented system has the equations of Algorithm 1, with the t-component of Algorithm 2
(appendix C); reverse_sweep is the loop of appendix D over the output times. Nothing here knows how a system is solved, nor any
autodiff framework: arrays are joined by the namespace xp that is given, autograd.numpy for gradients of gradients.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

# Weight of an unknown that is to play no part in an error norm; its square must not overflow, nor its inverse be zero.
EXCLUDED = 1e100


class Augmented(NamedTuple):
    """The augmented state s = [z (n), a (n), a_theta (p), a_t (1)], flat.

    z: the state; a: dL/dz, the adjoint; a_theta, a_t: what has gathered of dL/dtheta and dL/dt0.
    """

    n: int
    p: int

    @property
    def size(self):
        """2n + p + 1."""
        return 2 * self.n + self.p + 1

    def join(self, z, a, a_theta, a_t, xp=np):
        """s (2n + p + 1,) of its parts."""
        return xp.concatenate([z, a, a_theta, xp.reshape(a_t, 1)])

    def split(self, s):
        """z (n), a (n), a_theta (p) and the scalar a_t of s."""
        n, p = self.n, self.p
        return s[:n], s[n : 2 * n], s[2 * n : 2 * n + p], s[2 * n + p]

    def tolerance(self, value):
        """A tolerance of z as one of s: a vector is used for z and a alike, its least entry for the rest."""
        if np.ndim(value) == 0:
            return value
        return np.concatenate([value, value, np.full(self.p + 1, np.min(value))])

    def seminorm(self, rtol, atol, rms_norm):
        """(rtol, atol) of s under which only z and a are in the error norm (Kidger, Chen and Lyons 2021), controlled as alone.

        An integrator whose norm is a root mean square divides by all 2n + p + 1 unknowns, so the sum over the 2n that count
        would weigh less: their tolerances are scaled by sqrt(2n / (2n + p + 1)). A maximum norm needs no scaling.
        """
        return _only_first(2 * self.n, self.size, rtol, atol, rms_norm)


def without_state(augmented):
    """How many unknowns are left of an augmented state whose z is known: [a, a_theta, a_t]."""
    return augmented.size - augmented.n


def seminorm_without_state(augmented, rtol, atol, rms_norm):
    """As Augmented.seminorm for [a, a_theta, a_t], of which only a counts."""
    return _only_first(augmented.n, without_state(augmented), rtol, atol, rms_norm)


def _only_first(count, size, rtol, atol, rms_norm):
    scale = np.sqrt(count / size) if rms_norm else 1.0
    atol_vector = np.full(size, EXCLUDED)
    atol_vector[:count] = np.broadcast_to(atol, (size,))[:count] * scale
    return rtol * scale, atol_vector


def reverse_sweep(segment, f, t, zs, zs_bar, p, is_zero, xp=np, t0_from_slope=False):
    """Cotangents (z0_bar (n,), t_bar (T,), theta_bar (p,)) of the states zs (T, n) at times t (T,), given theirs, zs_bar (T, n).

    segment(i, a, theta_bar, t0_bar) -> the three at t[i - 1] from those at t[i]; f(t, z) -> dz/dt. z(t) begins anew from the
    stored zs at each output time; a, the adjoint, takes up the cotangent of each output as it passes. is_zero(a, theta_bar):
    whether there is nothing to carry yet. t0_from_slope: dL/dt0 = -a(t0) . f(t0, z0) at the end, instead of what segments have
    gathered of it by integrating -a . df/dt, which misses what is no derivative: jumps of f, and the size of steps.
    """
    last = len(t) - 1
    a = zs_bar[last]
    theta_bar, t0_bar = np.zeros(p), 0.0
    t_bars = []
    for i in range(last, 0, -1):
        # Moving the output time t_i moves the output along f: dL/dt_i = zs_bar_i . f(t_i, z_i).
        t_bar = xp.dot(zs_bar[i], f(t[i], zs[i]))
        t_bars.append(t_bar)
        t0_bar = t0_bar - t_bar
        if not is_zero(a, theta_bar):
            a, theta_bar, t0_bar = segment(i, a, theta_bar, t0_bar)
        if i == 1 and t0_from_slope:
            t0_bar = -xp.dot(a, f(t[0], zs[0]))
        a = a + zs_bar[i - 1]
    t_bars.append(t0_bar)
    return a, xp.array(t_bars[::-1]), theta_bar
