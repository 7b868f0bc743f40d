"""Table 1 and Figure 3d: an ODE-Net on MNIST, trained through VODE with gradients by the adjoint method.

The paper gives no learning rate, schedule or number of epochs. Chosen here: SGD with momentum 0.9, half an epoch of warm-up, then
a cosine to zero; random crops after padding by 4 in the paper preset, as in the authors' later example. The quick preset trains
on the embedded sample (2,000 training and 1,000 test images) in batches of 20 without crops; batch size, rate and epochs were
chosen on a validation split of the sample's training images (its last 500), before its test images were looked at.
"""

import time
from pathlib import Path

import matplotlib
import numpy as np

from original_repro import training
from original_repro.datasets import mnist

from . import records

NAME = "table1_mnist"
TITLE = "Table 1: test error of the MNIST networks (at present the ODE-Net)"
MODELS = ("odenet",)

PRESETS = {
    "quick": {"data": "embedded sample", "epochs": 5, "batch_size": 20, "peak_rate": 0.1, "crops": False},
    "paper": {"data": "full MNIST", "epochs": 10, "batch_size": 128, "peak_rate": 0.1, "crops": True},
}


def add_arguments(parser):
    """The experiment's own options."""
    parser.add_argument("--model", choices=MODELS, default="odenet", help="which network of the table")
    parser.add_argument("--method", default="adams", help="integrator of the ODE-Net (default: adams, VODE's)")
    parser.add_argument("--tolerance", type=float, default=1e-3,
                        help="relative and absolute tolerance (default: the paper's 1e-3)")
    parser.add_argument("--epochs", type=int, help="instead of the preset's")
    parser.add_argument("--validation", type=int, default=0, metavar="N",
                        help="train without the last N training images and evaluate on those instead of the test set")
    parser.add_argument("--data", metavar="FOLDER", help="folder with MNIST's four IDX files (default: cache, else download)")


# Arguments that say where things are, not what is measured: they have no place in a record's name.
LOCATION_ARGUMENTS = ("data",)


def run(arguments, stem):
    """Train, evaluate, write the record and the figure; returns the path of the record."""
    # TensorFlow takes seconds to import, and `list` should not.
    from original_repro import supervised

    settings = dict(PRESETS[arguments.preset])
    if arguments.epochs is not None:
        settings["epochs"] = arguments.epochs
    images, labels, test_images, test_labels = _load(settings["data"], arguments.data)
    if arguments.validation:
        images, test_images = images[:-arguments.validation], images[-arguments.validation:]
        labels, test_labels = labels[:-arguments.validation], labels[-arguments.validation:]
    configuration = {"model": arguments.model, "method": arguments.method, "tolerance": arguments.tolerance,
                     "validation": arguments.validation, "optimiser": "sgd, momentum 0.9",
                     "schedule": "warm-up over half an epoch, cosine to zero", **settings}
    net = supervised.OdeNet(arguments.method, arguments.tolerance, arguments.tolerance)
    params = supervised.init_odenet(np.random.default_rng(arguments.seed))
    steps = len(images) // settings["batch_size"]
    begun = time.perf_counter()
    params, history = training.fit(
        net.value_and_grad, params, (images, labels), optimiser=training.sgd(momentum=0.9),
        schedule=training.warmup_cosine(settings["peak_rate"], settings["epochs"] * steps, steps // 2),
        epochs=settings["epochs"], batch_size=settings["batch_size"], seed=arguments.seed,
        augment=_crop if settings["crops"] else None,
        evaluate=lambda params: net.evaluate(params, test_images, test_labels),
        checkpoint=Path(arguments.checkpoints) / NAME / f"{stem}.npz", checkpoint_every=50, configuration=configuration)
    last = history[-1]["evaluation"]
    metrics = {"parameters": supervised.parameter_count(params), "error_rate": last["error_rate"], "errors": last["errors"],
               "examples": len(test_labels), "accuracy": 1 - last["error_rate"],
               "nfe_forward": history[-1]["train"]["nfe_forward"], "nfe_backward": history[-1]["train"]["nfe_backward"],
               "training_seconds": sum(epoch["wall_seconds"] for epoch in history)}
    path = records.record_path(arguments.out, NAME, stem)
    records.write_record(path, experiment=NAME, preset=arguments.preset, seed=arguments.seed, configuration=configuration,
                         # A run that went on from a checkpoint took the time of all its parts.
                         metrics=metrics, history=history,
                         wall_seconds=max(time.perf_counter() - begun, metrics["training_seconds"]))
    _draw(history, configuration, Path(arguments.out) / "figures" / f"{NAME}-{stem}.png")
    return path


def _load(which, folder):
    """Training images (N, 28, 28, 1) float32 in [0, 1], labels, and the same of the test set."""
    data = mnist.load_sample() if which == "embedded sample" else mnist.load(folder)
    train, test = ((images[..., None] / np.float32(255)) for images in (data.train_images, data.test_images))
    if which == "embedded sample":
        # In file order by digit as good as sorted; a validation split takes the last ones.
        order = np.random.default_rng(0).permutation(len(train))
        return train[order], data.train_labels[order], test, data.test_labels
    return train, data.train_labels, test, data.test_labels


def _crop(batch, rng):
    images, labels = batch
    return training.random_crops(images, rng, padding=4), labels


def _draw(history, configuration, path):
    """Loss, error and evaluations over training (the last is the paper's Figure 3d)."""
    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    epochs = [epoch["epoch"] for epoch in history]
    figure, (left, middle, right) = plt.subplots(1, 3, figsize=(11, 3.2), layout="constrained")
    left.plot(epochs, [epoch["train"]["loss"] for epoch in history], "o-", label="training")
    left.plot(epochs, [epoch["evaluation"]["loss"] for epoch in history], "s--", label="held out")
    left.set(ylabel="cross-entropy (nats)", ylim=(0, None))
    middle.plot(epochs, [100 * epoch["evaluation"]["error_rate"] for epoch in history], "s--", color="C1")
    middle.set(ylabel="error on held-out images (%)", ylim=(0, None))
    right.plot(epochs, [epoch["train"]["nfe_forward"] for epoch in history], "o-", color="C2", label="forward")
    right.plot(epochs, [epoch["train"]["nfe_backward"] for epoch in history], "s--", color="C3", label="backward")
    most = max(epoch["train"][f"nfe_{way}"] for epoch in history for way in ("forward", "backward"))
    right.set(ylabel="evaluations a training step", ylim=(0, 1.2 * most))
    for axes in (left, middle, right):
        axes.set_xlabel("epoch")
        axes.xaxis.set_major_locator(matplotlib.ticker.MaxNLocator(integer=True))
        axes.spines[["top", "right"]].set_visible(False)
    left.legend(frameon=False)
    right.legend(frameon=False)
    figure.suptitle(f"ODE-Net on {configuration['data']}, {configuration['method']} at {configuration['tolerance']:g}")
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=110)
    plt.close(figure)
