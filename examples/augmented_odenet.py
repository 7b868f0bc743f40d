"""A Neural ODE and an augmented one learn a disc inside a ring: the well-known picture of Dupont, Doucet and Teh (2019).

    python examples/augmented_odenet.py --extra 1 --epochs 12 --out augmented_odenet.png

A flow of the plane cannot take the disc out of the ring, so the Neural ODE squeezes it out through a gap, at a growing number of
evaluations; with one dimension more it is lifted out. Each row shows a model: where its flow carries the points (the first two
coordinates; the colour is the target), what it answers over the plane, and its evaluations over the epochs.
"""

import argparse

import matplotlib.pyplot as plt
import numpy as np

from original_repro.augmented import NeuralOde, init_vector_ode, mlp_field
from original_repro.datasets.toy_functions import spheres
from original_repro.training import adam, constant, fit, minibatches


def train(points, extra, options):
    """(model, params, history) of a model with `extra` dimensions."""
    model = NeuralOde(mlp_field, extra=extra, method=options.method, rtol=options.tolerance, atol=options.tolerance)
    params = init_vector_ode(np.random.default_rng(options.seed), 2, options.hidden, extra=extra)
    params, history = fit(
        model.value_and_grad,
        params,
        batches=minibatches(tuple(points), 64),
        optimiser=adam(),
        schedule=constant(options.rate),
        epochs=options.epochs,
        seed=options.seed,
    )
    return model, params, history


def draw(axes, points, model, params, history):
    features, plane, evaluations = axes
    z = model.states(params, points.x)[-1]
    features.scatter(*z[:, :2].T, c=points.y[:, 0], s=3, cmap="coolwarm")
    features.set_title(f"{'ANODE' if model.extra else 'NODE'}: features, loss {history[-1]['train']['loss']:.3f}")
    side = np.linspace(-2, 2, 100)
    grid = np.stack(np.meshgrid(side, side), -1).reshape(-1, 2)
    answers = model.outputs(params, grid).reshape(100, 100)
    plane.contourf(side, side, answers, np.linspace(-1.5, 1.5, 21), cmap="coolwarm", extend="both")
    plane.contour(side, side, answers, [0.0], colors="black")
    plane.set_title("answer, 0 in black")
    for way in ("forward", "backward"):
        evaluations.plot([epoch["train"][f"nfe_{way}"] for epoch in history], label=way)
    evaluations.set(title="evaluations a step", xlabel="epoch", ylim=(0, None))
    evaluations.legend()


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--extra", type=int, default=1, help="dimensions that the augmented model adds (default: 1)")
    parser.add_argument("--epochs", type=int, default=12)
    parser.add_argument("--hidden", type=int, default=32)
    parser.add_argument("--rate", type=float, default=1e-3, help="Adam's")
    parser.add_argument("--method", default="dopri5", help="adams, bdf, lsoda, dop853, ... (default: dopri5)")
    parser.add_argument("--tolerance", type=float, default=1e-3)
    parser.add_argument("--points", type=int, default=3000, help="a third of them in the disc")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--out", default="augmented_odenet.png")
    options = parser.parse_args()
    inner = options.points // 3
    points = spheres(np.random.default_rng(options.seed), 2, inner=inner, outer=options.points - inner)
    figure, axes = plt.subplots(2, 3, figsize=(12, 7), layout="constrained")
    for row, extra in zip(axes, (0, options.extra)):
        draw(row, points, *train(points, extra, options))
    figure.savefig(options.out)
    print(f"wrote {options.out}")


if __name__ == "__main__":
    main()
