"""The reverse sweep: gradients of a solve at several output times by the adjoint method.

Reads beside the paper: the augmented system is Dynamics.augmented (Algorithm 1, with the t-component of Algorithm 2, appendix C);
reverse_sweep is the loop of appendix D over the output times. Nothing here knows autograd's tape or how a system is solved:
solve and f are given, and where they are differentiable, so is the sweep, which makes gradients of gradients.
"""

from __future__ import annotations

import autograd.numpy as anp
import numpy as np
from autograd.tracer import isbox

from .dynamics import split_augmented


def reverse_sweep(solve, f, t, zs, zs_bar, num_params):
    """Cotangents (z0_bar (n,), t_bar (T,), theta_bar (P,)) of the states zs (T, n) at times t (T,), given theirs, zs_bar (T, n).

    solve(s, times) -> the augmented state at times[1] from s at times[0]; f(t, z) -> dz/dt. The reconstruction of z(t) begins
    anew from the stored zs at each output time; a, the adjoint, takes up the cotangent of each output as it passes.
    """
    n, last = zs.shape[1], len(t) - 1
    a = zs_bar[last]
    theta_bar, t0_bar = np.zeros(num_params), 0.0
    t_bars = []
    for i in range(last, 0, -1):
        # Moving the output time t_i moves the output along f: dL/dt_i = zs_bar_i . f(t_i, z_i).
        t_bar = anp.dot(zs_bar[i], f(t[i], zs[i]))
        t_bars.append(t_bar)
        t0_bar = t0_bar - t_bar
        if isbox(a) or isbox(theta_bar) or np.any(a) or np.any(theta_bar):
            s = anp.concatenate([zs[i], a, theta_bar, anp.reshape(t0_bar, 1)])
            s = solve(s, (t[i], t[i - 1]))
            _, a, theta_bar, t0_bar = split_augmented(s, n, num_params)
        a = a + zs_bar[i - 1]
    t_bars.append(t0_bar)
    return a, anp.array(t_bars[::-1]), theta_bar


def augmented_tolerance(value, n, num_params):
    """A tolerance of z as one of the augmented state: a vector is used for z and a alike, its least entry for the rest."""
    if np.ndim(value) == 0:
        return value
    return np.concatenate([value, value, np.full(num_params + 1, np.min(value))])


# Weight of an unknown that is to play no part in an error norm; its square must not overflow, nor its inverse be zero.
EXCLUDED = 1e100


def seminorm_tolerances(rtol, atol, n, num_params, rms_norm):
    """(rtol, atol) under which only z and a are in the error norm (Kidger, Chen and Lyons 2021), the rest controlled as alone.

    An integrator whose norm is a root mean square divides by all 2n + P + 1 unknowns, so the sum over the 2n that count would
    weigh less: their tolerances are scaled by sqrt(2n / (2n + P + 1)). A maximum norm needs no scaling.
    """
    size = 2 * n + num_params + 1
    scale = np.sqrt(2 * n / size) if rms_norm else 1.0
    atol_vector = np.full(size, EXCLUDED)
    atol_vector[: 2 * n] = np.broadcast_to(atol, (size,))[: 2 * n] * scale
    return rtol * scale, atol_vector
