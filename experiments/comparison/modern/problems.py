"""The problems that libraries are compared on: those of `bench` and `reverse_instability`, and those that neither has.

Each has its equal weights and data as float64 arrays, whatever library solves it. Cotangents are scaled so that the greatest
entry of the right gradient is one: the absolute tolerance means the same in every adjoint.
"""

from collections.abc import Callable
from typing import NamedTuple

import numpy as np

from ...harness import right_hand_sides
from ...neural_ode.reverse_instability import problems as contracting
from .. import bench_flows, bench_latent, bench_layer, bench_small
from .library import Problem

LATENT_BATCH, LAYER_BATCH, FLOW_POINTS, CELLS = 100, 4, 256, 100_000


class About(NamedTuple):
    """make() -> Problem. kind: "smooth" or "stiff", which methods are asked; atol: the absolute tolerance over the relative."""

    make: Callable[[], Problem]
    kind: str
    words: str
    atol: float = 1.0


def _small():
    bench = bench_small.make_small_problem()
    return Problem(right_hand_sides.mlp, bench.y0[None], bench.t, bench.params, bench.states_bar[:, None])


def _flow():
    bench = bench_flows.Problem(points=FLOW_POINTS)
    params = [bench.params[name][part] for name in ("hidden1", "hidden2", "output") for part in ("weight", "bias")]
    return _in_float64(right_hand_sides.planar_flow, bench.y0, bench_flows.TIMES, params, bench.states_bar)


def _latent():
    bench = bench_latent.make_problem(batch=LATENT_BATCH)
    return Problem(right_hand_sides.mlp, bench.z0, bench.t, bench.params, bench.states_bar)


def _layer():
    layer, params = bench_layer.make_layer(LAYER_BATCH, bench_layer.CHANNELS), []
    for name in ("norm1", "conv1", "norm2", "conv2", "norm3"):
        found = layer.params[name]
        if "scale" in found:
            params += [found["scale"], found["shift"]]
        else:
            params += [np.concatenate([found["time_weight"][:, :, None], found["weight"]], 2), found["bias"]]
    states_bar = np.stack([0 * layer.z1_bar, layer.z1_bar])
    # With ReLU, two integrators at 1e-6 are two hundredths apart in the gradient, and no reference is to be had.
    return _in_float64(right_hand_sides.smooth_conv_layer, layer.z0, (0.0, 1.0), params, states_bar)


def _orbit():
    return _last(right_hand_sides.lotka_volterra, [1.0, 1.0], 100.0, [[1.5, 1.0, 3.0, 1.0]])


def _contracting(found):
    return _last(found.func, found.y0, found.times[1], [found.params], found.states_bar)


def _stiff_network():
    rng, rates = np.random.default_rng(0), np.logspace(0.0, 4.0, 4)
    params = rates, rng.normal(size=(4, 8)), 0.1 * rng.normal(size=8), rng.normal(size=(8, 4)) / 3, rng.normal(size=4)
    return _last(right_hand_sides.stiff_network, rng.normal(size=(1, 4)), 5.0, params)


def _large():
    rng = np.random.default_rng(0)
    start = 0.5 + 0.4 * np.sin(2 * np.pi * np.arange(CELLS) / CELLS) + 0.1 * rng.uniform(-1, 1, CELLS)
    return _last(right_hand_sides.reaction_diffusion, start, 2.0, [[1.0, 1.0]], rng.normal(size=CELLS))


def _last(f, y0, end, params, at_end=None):
    """A Problem of the state at `end` alone; at_end: its cotangent, by default ones."""
    y0 = np.asarray(y0, float)
    at_end = np.ones_like(y0) if at_end is None else at_end
    return _in_float64(f, y0, (0.0, end), params, np.stack([0 * at_end, at_end]))


def _in_float64(f, y0, t, params, states_bar):
    arrays = (np.asarray(array, np.float64) for array in (y0, t, states_bar))
    y0, t, states_bar = arrays
    return Problem(f, y0, t, tuple(np.asarray(array, np.float64) for array in params), states_bar)


PROBLEMS = {
    "small": About(_small, "smooth", "a 2-50-2 network, 30 output times"),
    "flow": About(_flow, "smooth", f"a planar continuous flow, {FLOW_POINTS} points, 64 units"),
    "latent": About(_latent, "smooth", f"dynamics of a latent ODE, {LATENT_BATCH} trajectories of 4, 100 output times"),
    "layer": About(_layer, "smooth", f"the ODE-Net's layer, {LAYER_BATCH} digits of 6 x 6 x 64, tanh for ReLU"),
    "orbit": About(_orbit, "smooth", "Lotka-Volterra over 100 units of time, by its four parameters"),
    "large": About(_large, "smooth", f"Fisher's equation on a ring of {CELLS:,} cells"),
    "contraction": About(lambda: _contracting(contracting.relaxation(100.0)), "stiff", "y' = -100 (y - cos t)"),
    "van_der_pol_10": About(lambda: _contracting(contracting.van_der_pol(10.0)), "stiff", "Van der Pol, mu = 10", 1e-2),
    "van_der_pol_1000": About(lambda: _contracting(contracting.van_der_pol(1000.0)), "stiff", "Van der Pol, mu = 1000", 1e-2),
    "robertson": About(lambda: _contracting(contracting.robertson(1e4)), "stiff", "Robertson's reaction to 10,000", 1e-6),
    "stiff_network": About(_stiff_network, "stiff", "four unknowns that follow a network at rates 1 to 10,000"),
}
