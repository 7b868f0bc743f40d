"""The paper's ODE-Net on digits, in Keras: fit with callbacks, and a model that is saved and loaded.

    python examples/keras_odenet.py --epochs 3 --method adams --out odenet.keras

A stem makes a small image of features of each digit, an ODEBlock solves dy/dt = f(t, y) of a convolutional layer f, and a head
reads off the class. Fit reports the evaluations of each solve beside loss and accuracy.
"""

import argparse

import keras
import numpy as np

from original_repro.datasets import mnist
from solvers_bridge.keras import ODEBlock


@keras.saving.register_keras_serializable(package="examples")
class Field(keras.layers.Layer):
    """f(t, y): two convolutions, each of which sees t as one more channel."""

    def __init__(self, channels, **kwargs):
        super().__init__(**kwargs)
        self.channels = channels
        self.first = keras.layers.Conv2D(channels, 3, padding="same", activation="relu")
        self.second = keras.layers.Conv2D(channels, 3, padding="same")

    def call(self, t, y):
        for layer in (self.first, self.second):
            y = layer(keras.ops.concatenate([y, t * keras.ops.ones_like(y[..., :1])], axis=-1))
        return y

    def get_config(self):
        return {**super().get_config(), "channels": self.channels}


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--epochs", type=int, default=3)
    parser.add_argument("--images", type=int, default=2000, help="of the training set (default: 2000)")
    parser.add_argument("--channels", type=int, default=16)
    parser.add_argument("--method", default="adams", help="adams, bdf, lsoda, dopri5, ... (default: adams)")
    parser.add_argument("--tolerance", type=float, default=1e-3)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--out", default="odenet.keras")
    options = parser.parse_args()
    keras.utils.set_random_seed(options.seed)
    data = mnist.load_sample()
    x, y = data.train_images[: options.images, ..., None] / np.float32(255), data.train_labels[: options.images]
    test_x, test_y = data.test_images[..., None] / np.float32(255), data.test_labels
    block = ODEBlock(Field(options.channels), method=options.method, rtol=options.tolerance, atol=options.tolerance, name="ode")
    layers = keras.layers
    stem = [layers.Conv2D(options.channels, 4, 2, activation="relu"), layers.Conv2D(options.channels, 4, 2)]
    head = [layers.ReLU(), layers.Flatten(), layers.Dense(10)]
    model = keras.Sequential([keras.Input((28, 28, 1)), *stem, block, *head])
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    model.compile(keras.optimizers.Adam(3e-3), loss, metrics=["accuracy"])
    model.summary()
    callbacks = [
        keras.callbacks.ModelCheckpoint(options.out, monitor="val_accuracy", save_best_only=True),
        keras.callbacks.ReduceLROnPlateau(monitor="val_loss", factor=0.3, patience=2),
    ]
    model.fit(x, y, 64, options.epochs, validation_data=(test_x, test_y), callbacks=callbacks, verbose=2)
    best = keras.models.load_model(options.out).evaluate(test_x, test_y, verbose=0, return_dict=True)
    print(f"the best model, loaded again: test_accuracy {best['accuracy']:.3f}, nfe_forward {best['ode_nfe_forward']:.1f}")


if __name__ == "__main__":
    main()
