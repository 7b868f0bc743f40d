"""jax.experimental.ode and diffrax as candidates of a benchmark: a solve and its gradient, each one compiled function.

Both are given the times as numbers, so that neither computes their gradients; inputs are on the device before the clock starts.
"""

import importlib.util
import time

import numpy as np

from .side_by_side import Step

WAYS = ("jax", "diffrax_backsolve", "diffrax_recursive")


def jax_is_installed():
    return all(importlib.util.find_spec(package) for package in ("jax", "diffrax"))


def jax_candidates(f, arrays, y0, t, states_bar, tolerance, dtype):
    """{name: a function that makes a Step} for f(t, y, parameters, tanh) in jax.numpy's operations.

    "jax": jax.experimental.ode.odeint, dopri5 and its adjoint, a fresh solve between output times. "diffrax_backsolve": Dopri5
    with BacksolveAdjoint. "diffrax_recursive": Tsit5 with RecursiveCheckpointAdjoint, its default, discretise-then-optimise.
    A Step's backward is the time of the gradient less that of the solve alone; evaluations are not told.
    """
    import jax

    jax.config.update("jax_enable_x64", True)
    tensors = [
        tuple(jax.numpy.asarray(array, dtype) for array in arrays),
        *(jax.numpy.asarray(x, dtype) for x in (y0, t, states_bar)),
    ]
    solvers = _solvers(lambda t, y, params: f(t, y, params, jax.numpy.tanh), tolerance)
    return {name: _candidate(solve, *tensors) for name, solve in solvers.items()}


def _solvers(f, tolerance):
    """{name: solve(params, y0, t) -> states}."""
    import diffrax
    from jax.experimental.ode import odeint

    def by_diffrax(solver, adjoint):
        def solve(params, y0, t):
            return diffrax.diffeqsolve(
                diffrax.ODETerm(f),
                solver,
                t[0],
                t[-1],
                None,
                y0,
                params,
                saveat=diffrax.SaveAt(ts=t),
                stepsize_controller=diffrax.PIDController(rtol=tolerance, atol=tolerance),
                adjoint=adjoint,
                max_steps=16_384,
            ).ys

        return solve

    return {
        "jax": lambda params, y0, t: odeint(lambda y, t, params: f(t, y, params), y0, t, params, rtol=tolerance, atol=tolerance),
        "diffrax_backsolve": by_diffrax(diffrax.Dopri5(), diffrax.BacksolveAdjoint()),
        "diffrax_recursive": by_diffrax(diffrax.Tsit5(), diffrax.RecursiveCheckpointAdjoint()),
    }


def _candidate(solve, params, y0, t, states_bar):
    import jax

    forward = jax.jit(solve)

    @jax.jit
    def gradient(params, y0, t, states_bar):
        _, pullback = jax.vjp(lambda params, y0: solve(params, y0, t), params, y0)
        params_bar, y0_bar = pullback(states_bar)
        return y0_bar, params_bar

    def step():
        begun = time.perf_counter()
        jax.block_until_ready(forward(params, y0, t))
        middle = time.perf_counter()
        y0_bar, params_bar = jax.block_until_ready(gradient(params, y0, t, states_bar))
        both = time.perf_counter() - middle
        bars = np.asarray(y0_bar), tuple(np.asarray(bar) for bar in params_bar)
        return Step(middle - begun, both - (middle - begun), 0, 0, bars)

    return step
