"""The paper's appendix D over SciPy 1.1.0: the gradient of a solve by one reverse solve from output time to output time.

Written anew after the paper. One thing is not as printed: the augmented state is [z, a, a_theta, a_t], where the paper has
[z, a, a_t, a_theta], so that error norms add the same numbers in the same order as solvers_bridge.dynamics does.
"""
import autograd.numpy as np
from autograd import make_vjp
from autograd.misc import flatten

from solvers import solve


def augmented_dynamics(func, n, args):
    """ds/dt as a function (s, t): z and its adjoints, Algorithms 1 and 2, for func(y, t, args) on flat y (n,)."""
    flat_args, unflatten = flatten(args)

    def flat_func(y, t, flat_args):
        return func(y, t, unflatten(flat_args))

    def dynamics(s, t):
        z, a = s[:n], s[n:2 * n]
        vjp, dz_dt = make_vjp(flat_func, argnum=(0, 1, 2))(z, t, flat_args)
        vjp_z, vjp_t, vjp_args = vjp(-a)
        return np.hstack((dz_dt, vjp_z, vjp_args, vjp_t))

    return dynamics


def reverse_sweep(method, f, augmented, ts, zs, zs_bar, num_args, tolerance, **options):
    """Cotangents (z0_bar (n,), ts_bar (T,), args_bar (num_args,)) of the states zs (T, n) at ts, given theirs, and statistics.

    f(z, t) -> dz/dt and augmented(s, t) -> ds/dt; options as for solve. statistics: a list with those of each segment, the last
    in time first.
    """
    n, last = zs.shape[1], len(ts) - 1
    a, args_bar, t0_bar = zs_bar[last], np.zeros(num_args), 0.0
    ts_bar, statistics = [], []
    for i in range(last, 0, -1):
        # The effect of moving the output time.
        t_bar = np.dot(f(zs[i], ts[i]), zs_bar[i])
        ts_bar.append(t_bar)
        t0_bar = t0_bar - t_bar
        # The augmented system backwards to the output before, z beginning from its stored value.
        s = np.hstack((zs[i], a, args_bar, t0_bar))
        states, segment = solve(method, augmented, s, (ts[i], ts[i - 1]), tolerance, **options)
        s = states[-1]
        a, args_bar, t0_bar = s[n:2 * n], s[2 * n:2 * n + num_args], s[-1]
        statistics.append(segment)
        # The gradient of that output.
        a = a + zs_bar[i - 1]
    ts_bar.append(t0_bar)
    return a, np.array(ts_bar[::-1]), args_bar, statistics
