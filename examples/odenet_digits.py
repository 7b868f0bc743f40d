"""An ODE-Net learns to read digits: a small one, written out, on the 2,000 training digits that come with the project.

    python examples/odenet_digits.py --epochs 5 --method adams --tolerance 1e-3

A stem makes a 7 by 7 picture of a digit, an ODE from t = 0 to 1 transforms it, a head reads it. Stem and head are TensorFlow
functions, the ODE's right-hand side is another; autograd differentiates through all three. The paper's own network, whose weights
are kept, is `python -m experiments evaluate table1_mnist --preset paper`.
"""

import argparse

import numpy as np
import tensorflow as tf
from autograd import value_and_grad

from original_repro.datasets.mnist import load_sample
from original_repro.training import adam, constant, fit, minibatches
from solvers_bridge import TensorFlowDynamics, odeint, record_solves, tensorflow_primitive


def init(rng, channels):
    """Parameters, float32: convolutions and a dense layer, scaled by the numbers of their inputs."""

    def weights(*shape):
        return (rng.normal(size=shape) / np.sqrt(np.prod(shape[:-1]))).astype(np.float32)

    ode = {"first": weights(3, 3, channels, channels), "second": weights(3, 3, channels, channels)}
    return {"stem": weights(4, 4, 1, channels), "ode": ode, "head": weights(7 * 7 * channels, 10)}


def stem(weight, images):
    return tf.nn.relu(tf.nn.conv2d(images, weight, strides=4, padding="SAME"))


def dynamics(t, z, params):
    """dz/dt of z (batch, 7, 7, channels)."""
    h = tf.nn.relu(tf.nn.conv2d(z, params["first"], strides=1, padding="SAME"))
    return tf.tanh(tf.nn.conv2d(h, params["second"], strides=1, padding="SAME"))


def logits(weight, z):
    return tf.reshape(z, [-1, weight.shape[0]]) @ weight


def cross_entropy(weight, z, labels):
    return tf.reduce_mean(tf.nn.sparse_softmax_cross_entropy_with_logits(labels, logits(weight, z)))


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--epochs", type=int, default=5)
    parser.add_argument("--channels", type=int, default=16)
    parser.add_argument("--images", type=int, default=2000, help="training images, at most 2000 (default: 2000)")
    parser.add_argument("--method", default="adams", help="bdf, lsoda, dopri5, ... (default: adams)")
    parser.add_argument("--tolerance", type=float, default=1e-3)
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    settings = dict(method=options.method, rtol=options.tolerance, atol=options.tolerance)
    digits = load_sample()
    images, test_images = (pixels[..., None].astype(np.float32) / 255 for pixels in (digits.train_images, digits.test_images))
    order = np.random.default_rng(options.seed).permutation(len(images))[: options.images]
    field, stem_primitive, loss_primitive = TensorFlowDynamics(dynamics), *map(tensorflow_primitive, (stem, cross_entropy))

    def end_state(params, batch):
        return odeint(field, stem_primitive(params["stem"], batch), [0.0, 1.0], params["ode"], **settings)[-1].astype(np.float32)

    def step(params, batch, labels):
        with record_solves() as solves:
            loss, grads = value_and_grad(lambda p: loss_primitive(p["head"], end_state(p, batch), labels))(params)
        return {"loss": float(loss), **{f"nfe_{solve.direction}": solve.nfe for solve in solves}}, grads

    def test_error(params):
        answers = np.argmax(logits(params["head"], end_state(params, test_images)), axis=1)
        return {"test_error": float(np.mean(answers != digits.test_labels))}

    _, history = fit(
        step,
        init(np.random.default_rng(options.seed), options.channels),
        batches=minibatches((images[order], digits.train_labels[order].astype(np.int32)), 64),
        optimiser=adam(),
        schedule=constant(0.003),
        epochs=options.epochs,
        seed=options.seed,
        evaluate=test_error,
    )
    for epoch in history:
        numbers = {**epoch["train"], **epoch["evaluation"]}
        print(f"epoch {epoch['epoch']}: " + ", ".join(f"{name} {value:.3g}" for name, value in numbers.items()))


if __name__ == "__main__":
    main()
