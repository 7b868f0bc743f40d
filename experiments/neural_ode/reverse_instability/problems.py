"""The problems of reverse_instability: flows that contract ever more, and two trained networks, with their references.

Small problems are those of harness.right_hand_sides, so that autograd and PyTorch take the same text. Their
references are derivatives of the last state by one parameter: of the variational equations [y, dy/dp], written by hand and solved
forwards by SciPy's Radau at 1e-12, and as a second, independent way by LSODA.
"""

import functools
import importlib.util
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any, NamedTuple

import autograd.numpy as anp
import numpy as np
from autograd import grad
from scipy.integrate import solve_ivp

from original_repro import training
from original_repro.datasets import circles_and_moons, mnist
from solvers_bridge import odeint

from ...harness import right_hand_sides
from ...harness.digits import digits
from ...harness.records import kept
from .. import figure5_flows, table1_mnist


class Problem(NamedTuple):
    """What is solved from y0 at 0 to end, and of which the gradient is taken, of states_bar . y(end).

    func(ops, t, y, p) -> dy/dt, of a small problem, see right_hand_sides; dynamics: a TensorFlowDynamics otherwise.
    chosen(gradient by (y0, params)) -> the vector that is compared. limit: the greatest relative error that counts as right.
    """

    y0: Any
    times: tuple
    params: Any
    states_bar: Any
    rtol: float
    atol: Any
    chosen: Callable
    limit: float
    func: Callable | None = None
    dynamics: Any = None


def _small(func, y0, end, params, component, atol, limit=1e-4):
    states_bar = np.zeros(len(y0))
    states_bar[component] = 1.0
    times, y0, params = (0.0, end), np.array(y0), np.array(params)
    return Problem(y0, times, params, states_bar, 1e-8, atol, lambda gradient: gradient[1][:1], limit, func=func)


def relaxation(rate):
    """y' = -rate (y - cos t) from 1.2 over a unit of time: contracts at the rate lambda T = rate."""
    return _small(right_hand_sides.relaxation, [1.2], 1.0, [rate], 0, 1e-8)


def van_der_pol(mu):
    """Van der Pol's oscillator from (2, 0); dy_1/dmu after a jump, or two at mu = 4."""
    end = {4.0: 12.0, 10.0: 15.0, 50.0: 60.0, 1000.0: 1500.0}[mu]
    return _small(right_hand_sides.van_der_pol, [2.0, 0.0], end, [mu], 0, 1e-10)


def robertson(end):
    """Robertson's reaction; dy_3/dk_1."""
    return _small(right_hand_sides.robertson, [1.0, 0.0, 0.0], end, [0.04, 3e7, 1e4], 2, np.array([1e-10, 1e-14, 1e-10]))


SMALL = {"relaxation": relaxation, "van_der_pol": van_der_pol, "robertson": robertson}


def derivatives(name, t, y, p):
    """(f, df/dy, df/dp) of a small problem, by hand."""
    if name == "relaxation":
        return -p[0] * (y - np.cos(t)), np.array([[-p[0]]]), (np.cos(t) - y)[:, None]
    if name == "van_der_pol":
        f = [y[1], p[0] * (1 - y[0] ** 2) * y[1] - y[0]]
        by_y = [[0.0, 1.0], [-2 * p[0] * y[0] * y[1] - 1, p[0] * (1 - y[0] ** 2)]]
        return np.array(f), np.array(by_y), np.array([[0.0], [(1 - y[0] ** 2) * y[1]]])
    by_y = np.zeros((3, 3))
    by_y[0] = -p[0], p[2] * y[2], p[2] * y[1]
    by_y[2, 1] = 2 * p[1] * y[1]
    by_y[1] = -by_y[0] - by_y[2]
    slow, fast, back = p[0] * y[0], p[1] * y[1] ** 2, p[2] * y[1] * y[2]
    by_p = np.array([[-y[0], 0.0, y[1] * y[2]], [y[0], -(y[1] ** 2), -y[1] * y[2]], [0.0, y[1] ** 2, 0.0]])
    return np.array([back - slow, slow - back - fast, fast]), by_y, by_p


def forward_sensitivity(name, problem, method, tolerance):
    """d(states_bar . y(end))/dp_1 by the variational equations [y, dy/dp_1], solved by SciPy's solve_ivp."""
    n = len(problem.y0)

    def variational(t, s):
        f, by_y, by_p = derivatives(name, t, s[:n], problem.params)
        return np.concatenate([f, by_y @ s[n:] + by_p[:, 0]])

    # dy/dp_1 of Robertson's reaction is some ten times y, and of Van der Pol's far above one where it matters.
    atol = np.tile(np.broadcast_to(np.multiply(problem.atol, tolerance * 1e6), n), 2)
    start = np.concatenate([problem.y0, np.zeros(n)])
    solution = solve_ivp(variational, problem.times, start, method=method, rtol=tolerance, atol=atol)
    if not solution.success:
        raise RuntimeError(f"no reference of {name}: {solution.message}")
    return float(problem.states_bar @ solution.y[n:, -1])


def torchdiffeq_is_installed():
    return all(importlib.util.find_spec(package) for package in ("torch", "torchdiffeq"))


def torch_function(problem):
    """The small problem's func in PyTorch."""
    import torch

    return functools.partial(problem.func, SimpleNamespace(stack=torch.stack, cos=torch.cos))


def autograd_function(problem):
    """The small problem's func in autograd.numpy."""
    return functools.partial(problem.func, SimpleNamespace(stack=anp.array, cos=anp.cos))


def _whole(gradient):
    return np.concatenate([np.ravel(leaf) for leaf in training.tree_leaves(gradient)])


def continuous_flow(places, size):
    """The flow trained on Two Moons: the mean log density of `size` test points, from the data to the base, in float64."""
    # TensorFlow takes seconds to import, and `list` should not.
    from original_repro import flows

    # The weights are the paper preset's, whatever the preset here: the quick one's flow is hardly trained.
    weights = figure5_flows.kept_weights(figure5_flows.RunSettings(preset="paper"), places)["two_moons"]["cnf"]
    preset = figure5_flows.PRESETS["paper"]
    points = circles_and_moons.load("two_moons", **preset["data"], seed=0).test[:size]
    flow = flows.ContinuousFlow(flows.planar_dynamics, preset["cnf"]["times"], dtype="float64")
    y0 = np.concatenate([points, np.zeros((size, 1))], 1)
    states_bar = np.full((size, 3), -1.0 / size)
    # log N(z) - change: by z at z(end) it depends on z; a cotangent of the same size does for the purpose.
    states_bar[:, :2] = -points / size
    tolerance = preset["cnf"]["tolerance"]
    return Problem(
        y0, flow.times[::-1], _in_float64(weights), states_bar, tolerance, tolerance, _whole, 0.1, dynamics=flow.dynamics
    )


def ode_net(places, size):
    """The ODE-Net trained on MNIST: the loss of `size` digits, linearised at their last state, in float64."""
    # TensorFlow takes seconds to import, and `list` should not.
    from original_repro import supervised
    from solvers_bridge import TensorFlowDynamics

    path = kept(places.weights(table1_mnist.NAME, "paper-seed0"))
    params, net = training.load_weights(path), supervised.OdeNet(mnist.FORMAT)
    images, labels = digits(size)
    y0 = np.asarray(net.stem(params["stem"], images), np.float64)
    weights = _in_float64(params["dynamics"])
    dynamics = TensorFlowDynamics(supervised.conv_dynamics, "float64")
    last = odeint(dynamics, y0, [0.0, 1.0], weights, rtol=1e-6, atol=1e-6)[-1]
    states_bar = np.asarray(grad(lambda z: net.head_loss(params["head"], z, labels)[0])(last), np.float64)
    # As good as certain of its digits, the network has next to no gradient, which atol would swallow.
    states_bar /= np.abs(states_bar).max()
    return Problem(y0, (0.0, 1.0), weights, states_bar, 1e-3, 1e-3, _whole, 0.1, dynamics=dynamics)


def _in_float64(params):
    return training.tree_map(lambda leaf: np.asarray(leaf, np.float64), params)


NETWORKS = {"continuous_flow": continuous_flow, "ode_net": ode_net}
