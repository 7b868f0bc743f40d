"""A neural ODE learns a spiral from noisy points on it: the first example of every library of neural ODEs.

    python examples/fit_spiral.py --method adams --tolerance 1e-3 --out fit_spiral.png

The spiral is a solution of dy/dt = y^3 A; the network sees neither A nor the cube, only 60 points. It learns from short pieces:
each point is a start, and the four after it are to be met; all pieces are one ODE. Drawn is what it makes of the first point.
"""

import argparse

import autograd.numpy as np
import matplotlib.pyplot as plt
from autograd import value_and_grad

from solvers_bridge import odeint, record_solves

MATRIX = np.array([[-0.1, 2.0], [-2.0, -0.1]])


def network(t, y, params):
    """A perceptron with one hidden layer; y is (pieces, 2)."""
    return np.dot(np.tanh(np.dot(y, params["in"]) + params["bias"]), params["out"])


def adam(params, grads, moments, step, rate):
    """One step of Adam, in place."""
    for name, grad in grads.items():
        first, second = moments[name]
        first += 0.1 * (grad - first)
        second += 0.001 * (grad**2 - second)
        params[name] -= rate * (first / (1 - 0.9**step)) / (np.sqrt(second / (1 - 0.999**step)) + 1e-8)


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--steps", type=int, default=400, help="of Adam (default: 400)")
    parser.add_argument("--hidden", type=int, default=30)
    parser.add_argument("--rate", type=float, default=0.05)
    parser.add_argument("--method", default="adams", help="bdf, lsoda, dopri5, ... (default: adams)")
    parser.add_argument("--tolerance", type=float, default=1e-3)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--out", default="fit_spiral.png")
    options = parser.parse_args()
    settings = dict(method=options.method, rtol=options.tolerance, atol=options.tolerance)

    rng = np.random.default_rng(options.seed)
    times, start = np.linspace(0.0, 10.0, 60), np.array([1.5, 0.0])
    points = odeint(lambda t, y, matrix: np.dot(y**3, matrix), start, times, MATRIX) + 0.01 * rng.normal(size=(60, 2))
    pieces = np.stack([points[i : 56 + i] for i in range(5)])  # (times, pieces, 2)
    shapes = {"in": (2, options.hidden), "bias": (options.hidden,), "out": (options.hidden, 2)}
    params = {name: 0.3 * rng.normal(size=shape) for name, shape in shapes.items()}
    moments = {name: (np.zeros(shape), np.zeros(shape)) for name, shape in shapes.items()}

    def loss(params):
        return np.mean((odeint(network, pieces[0], times[:5], params, **settings) - pieces) ** 2)

    for step in range(1, options.steps + 1):
        with record_solves() as solves:
            value, grads = value_and_grad(loss)(params)
        if step in (1, options.steps) or step % 50 == 0:
            forward, backward = (sum(one.nfe for one in solves if one.direction == way) for way in ("forward", "backward"))
            print(f"step {step}: loss {value:.6f}; evaluations: {forward} forward, {backward} backward", flush=True)
        adam(params, grads, moments, step, options.rate)

    curve = odeint(network, start, np.linspace(0.0, 10.0, 300), params, **settings)
    plt.plot(*points.T, "k.", label="points")
    plt.plot(*curve.T, label="neural ODE")
    plt.gca().set_aspect("equal")
    plt.legend()
    plt.savefig(options.out)
    print(f"wrote {options.out}")


if __name__ == "__main__":
    main()
