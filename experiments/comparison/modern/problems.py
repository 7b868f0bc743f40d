"""The problems that libraries are compared on, in `modern_comparison` and, some in other sizes, in `bench`.

Each has its equal weights and data, whatever library solves it. In `modern_comparison` arrays are float64, and cotangents are
scaled so that the greatest entry of the right gradient is one: the absolute tolerance means the same in every adjoint.
"""

from collections.abc import Callable
from typing import NamedTuple

import numpy as np
from autograd import grad

from original_repro import flows, supervised
from original_repro.datasets import mnist
from solvers_bridge import TensorFlowDynamics, odeint

from ...harness import right_hand_sides
from ...harness.digits import digits
from ...neural_ode.reverse_instability import problems as contracting
from .library import Problem

LATENT_BATCH, LAYER_BATCH, FLOW_POINTS, CELLS = 100, 4, 256, 100_000


class About(NamedTuple):
    """make() -> Problem. kind: "smooth" or "stiff", which methods are asked; atol: the absolute tolerance over the relative."""

    make: Callable[[], Problem]
    kind: str
    words: str
    atol: float = 1.0


class Model(NamedTuple):
    """What one of the papers' models poses, in float32, as we train it and as any library takes it.

    dynamics: of nested params. problem: of the same numbers in one row of arrays, its right-hand side written for all libraries.
    """

    dynamics: TensorFlowDynamics
    params: dict
    problem: Problem


def small(units=50, times=30):
    """A 2-units-2 network whose weights turn y (1, 2) a few times around the origin."""
    rng = np.random.default_rng(0)
    turn = np.array([[-0.1, 2.0], [-2.0, -0.1]])
    first = rng.normal(size=(2, units))
    second = np.linalg.pinv(first) @ turn + 0.1 * rng.normal(size=(units, 2)) / np.sqrt(units)
    params = first, 0.1 * rng.normal(size=units), second, 0.1 * rng.normal(size=2)
    states_bar = rng.normal(size=(times, 2)) / times
    return Problem(right_hand_sides.mlp, np.array([[2.0, 0.0]]), np.linspace(0.0, 10.0, times), params, states_bar[:, None])


def latent(batch=LATENT_BATCH, times=100, units=20):
    """Dynamics of a latent ODE: a 4-units-4 network that turns two planes of y (batch, 4) once and half over the times."""
    rng = np.random.default_rng(0)
    turns = np.zeros((4, 4))
    turns[:2, :2], turns[2:, 2:] = [[-0.05, 1.3], [-1.3, -0.05]], [[-0.05, 0.65], [-0.65, -0.05]]
    first = 0.5 * rng.normal(size=(4, units))
    second = np.linalg.pinv(first) @ turns + 0.05 * rng.normal(size=(units, 4))
    params = first, 0.1 * rng.normal(size=units), second, 0.1 * rng.normal(size=4)
    y0, states_bar = rng.normal(size=(batch, 4)), rng.normal(size=(times, batch, 4)) / batch
    return Problem(right_hand_sides.mlp, y0, np.linspace(0.0, 5.0, times), params, states_bar)


def flow(points=FLOW_POINTS, units=64):
    """The Model of a planar continuous flow at its initialisation.

    From the data to the base: y0 (points, 3), normal points with log density 0; the cotangent is the mean log-likelihood's.
    """
    rng, times = np.random.default_rng(0), (10.0, 0.0)
    dynamics = flows.ContinuousFlow(flows.planar_dynamics, times[::-1]).dynamics
    params = flows.init_planar_dynamics(rng, units, width=32)
    y0 = np.concatenate([rng.normal(size=(points, 2)), np.zeros((points, 1))], 1).astype(np.float32)
    end = odeint(dynamics, y0, times, params, rtol=1e-5, atol=1e-5)[-1]
    at_end = np.concatenate([end[:, :2], np.ones((points, 1))], 1) / points
    arrays = [params[name][part] for name in ("hidden1", "hidden2", "output") for part in ("weight", "bias")]
    return Model(dynamics, params, _last(right_hand_sides.planar_flow, y0, times, arrays, at_end).astype(np.float32))


def layer(batch=LAYER_BATCH, channels=64):
    """The Model of an ODE-Net's layer of `channels` channels (even) at its initialisation, in groups of two, as the paper's.

    y0 (batch, 6, 6, channels) is made by the stem from real digits, the cotangent by the head and the mean cross-entropy.
    """
    groups, times = channels // 2, (0.0, 1.0)
    params = supervised.init_odenet(np.random.default_rng(0), mnist.FORMAT, channels=channels)
    images, labels = digits(batch)
    net = supervised.OdeNet(mnist.FORMAT, groups=groups)
    y0 = supervised.stem(params["stem"], images, mnist.FORMAT, groups=groups).numpy()
    end = odeint(net.dynamics, y0, times, params["dynamics"], rtol=1e-3, atol=1e-3)[-1]
    at_end = grad(lambda z: net.head_loss(params["head"], z, labels)[0])(end)
    arrays = layer_arrays(params["dynamics"])
    problem = _last(right_hand_sides.conv_layer, y0, times, arrays, at_end)
    return Model(net.dynamics, params["dynamics"], problem.astype(np.float32))


def layer_arrays(params):
    """The params of `right_hand_sides.conv_layer` from those of `supervised.conv_dynamics`, or gradients by them."""
    arrays = []
    for name in ("norm1", "conv1", "norm2", "conv2", "norm3"):
        part = params[name]
        if "scale" in part:
            arrays += [part["scale"], part["shift"]]
        else:
            arrays += [np.concatenate([part["time_weight"][:, :, None], part["weight"]], 2), part["bias"]]
    return arrays


def _smooth_layer():
    # With ReLU, two integrators at 1e-6 are two hundredths apart in the gradient, and no reference is to be had.
    return layer().problem.astype(np.float64)._replace(f=right_hand_sides.smooth_conv_layer)


def _orbit():
    return _last(right_hand_sides.lotka_volterra, [1.0, 1.0], (0.0, 100.0), [[1.5, 1.0, 3.0, 1.0]])


def _contracting(found):
    return _last(found.func, found.y0, (0.0, found.times[1]), [found.params], found.states_bar)


def _stiff_network():
    rng, rates = np.random.default_rng(0), np.logspace(0.0, 4.0, 4)
    params = rates, rng.normal(size=(4, 8)), 0.1 * rng.normal(size=8), rng.normal(size=(8, 4)) / 3, rng.normal(size=4)
    return _last(right_hand_sides.stiff_network, rng.normal(size=(1, 4)), (0.0, 5.0), params)


def _large():
    rng = np.random.default_rng(0)
    start = 0.5 + 0.4 * np.sin(2 * np.pi * np.arange(CELLS) / CELLS) + 0.1 * rng.uniform(-1, 1, CELLS)
    return _last(right_hand_sides.reaction_diffusion, start, (0.0, 2.0), [[1.0, 1.0]], rng.normal(size=CELLS))


def _last(f, y0, times, params, at_end=None):
    """A Problem of the state at the second of two times alone; at_end: its cotangent, by default ones."""
    at_end = np.ones_like(y0, float) if at_end is None else at_end
    return Problem(f, y0, times, params, np.stack([0 * at_end, at_end])).astype(np.float64)


PROBLEMS = {
    "small": About(small, "smooth", "a 2-50-2 network, 30 output times"),
    "flow": About(
        lambda: flow().problem.astype(np.float64), "smooth", f"a planar continuous flow, {FLOW_POINTS} points, 64 units"
    ),
    "latent": About(latent, "smooth", f"dynamics of a latent ODE, {LATENT_BATCH} trajectories of 4, 100 output times"),
    "layer": About(_smooth_layer, "smooth", f"the ODE-Net's layer, {LAYER_BATCH} digits of 6 x 6 x 64, tanh for ReLU"),
    "orbit": About(_orbit, "smooth", "Lotka-Volterra over 100 units of time, by its four parameters"),
    "large": About(_large, "smooth", f"Fisher's equation on a ring of {CELLS:,} cells"),
    "contraction": About(lambda: _contracting(contracting.relaxation(100.0)), "stiff", "y' = -100 (y - cos t)"),
    "van_der_pol_10": About(lambda: _contracting(contracting.van_der_pol(10.0)), "stiff", "Van der Pol, mu = 10", 1e-2),
    "van_der_pol_1000": About(lambda: _contracting(contracting.van_der_pol(1000.0)), "stiff", "Van der Pol, mu = 1000", 1e-2),
    "robertson": About(lambda: _contracting(contracting.robertson(1e4)), "stiff", "Robertson's reaction to 10,000", 1e-6),
    "stiff_network": About(_stiff_network, "stiff", "four unknowns that follow a network at rates 1 to 10,000"),
}
