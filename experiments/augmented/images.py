"""One training of one model on images, of Augmented Neural ODEs, that goes on from its checkpoint.

A task is a dict of plain values (see TASK). Settings are the paper's: pixels in [0, 1] and nothing else, batches of 256, Adam
at a constant 1e-3, dopri5 at 1e-3 with the adjoint at the same tolerance, time-dependent field. The sizes that the paper matches
by their numbers of parameters are SIZES. Data sets that end in _half are means of 2 x 2 pixels, and are named as that wherever
they appear.

Every record of the history, an epoch or so many steps, has the training loss and accuracy, evaluations forwards and backwards,
and the test loss, accuracy and evaluations: which epoch is read decides some of the paper's comparisons. A run whose solve fails
is a result; `failed` says where and why, and the history until then is kept.
"""

from importlib.util import find_spec
from pathlib import Path

import numpy as np

from original_repro.datasets import cifar10, fashion_mnist, mnist, svhn, tiny_imagenet
from original_repro.training import adam, constant, drawn_batches, fit, load_checkpoint, minibatches
from solvers_bridge import SolverError

from .toy import with_decay


def _load_sample(folder):
    if folder is not None:
        raise ValueError(f"--folder goes with images from files; the sample comes with the package; got {folder}")
    return mnist.load_sample()


# name: (how it is loaded from a folder or None, whether it is halved)
DATA = {
    "mnist_sample": (_load_sample, False),
    "mnist_sample_half": (_load_sample, True),
    "mnist": (mnist.load, False),
    "mnist_half": (mnist.load, True),
    "fashion_mnist": (fashion_mnist.load, False),
    "fashion_mnist_half": (fashion_mnist.load, True),
    "cifar10": (cifar10.load, False),
    "cifar10_jpeg": (cifar10.load_jpeg, False),
    "svhn": (svhn.load, False),
    "tiny_imagenet": (tiny_imagenet.load, False),
}
CLASSES = {"tiny_imagenet": 200}  # all others have ten
# Matched numbers of parameters: {model: (filters, extra channels)}.
SIZES = {
    "grey": {"node": (92, 0), "anode": (64, 5)},
    "coloured": {"node": (125, 0), "anode": (64, 10)},
    "imagenet": {"node": (164, 0), "anode": (64, 5)},
}
TASK = {
    "data": "mnist",
    "filters": 64,
    "extra": 5,
    "readout": "all",
    "linear": False,
    "rate": 1e-3,
    "weight_decay": 0.0,
    "batch_size": 256,
    "epochs": 8,
    "steps": None,
    "examples": None,
    "test_examples": None,
    "method": "dopri5",
    "tolerance": 1e-3,
    "seed": 0,
}
TEST_BATCH = 250


def task(**settings):
    """A whole task: TASK with these settings instead. ValueError for settings of no sense.

    steps: of a record of the history, on batches drawn at random; None: an epoch, every image once. examples, test_examples: how
    many images there are, from the first; None: all. linear: a linear classifier alone, without an ODE.
    """
    unknown = settings.keys() - TASK.keys()
    if unknown:
        raise ValueError(f"a task has no {', '.join(sorted(unknown))}; it has {', '.join(TASK)}")
    made = {**TASK, **settings}
    if made["data"] not in DATA:
        raise ValueError(f"data must be one of {', '.join(DATA)}, got {made['data']!r}")
    return made


def sizes(data):
    """{model: (filters, extra channels)} that the paper matches for these images, by their name in DATA."""
    if data == "tiny_imagenet":
        return SIZES["imagenet"]
    return SIZES["coloured" if data.startswith(("cifar10", "svhn")) else "grey"]


def load(task, folder=None):
    """(training images, labels, test images, labels) of a task as uint8, images (examples, height, width, channels)."""
    from original_repro.augmented_images import halved

    read, half = DATA[task["data"]]
    data = read(folder)

    def images(array, count):
        array = array[:count]
        array = array if array.ndim == 4 else array[..., None]
        return halved(array) if half else array

    test_count = task["test_examples"] or len(data.test_labels) - len(data.test_labels) % TEST_BATCH
    return (
        images(data.train_images, task["examples"]),
        data.train_labels[: task["examples"]],
        images(data.test_images, test_count),
        data.test_labels[:test_count],
    )


def model_of(task, shape):
    """(model, initial parameters) of a task for images of `shape` (height, width, channels)."""
    from original_repro import augmented_images
    from original_repro.layers import init_dense

    rng, classes = np.random.default_rng([task["seed"], 1]), CLASSES.get(task["data"], 10)
    if task["linear"]:
        return augmented_images.LinearClassifier(), init_dense(rng, int(np.prod(shape)), classes)
    model = augmented_images.image_ode(
        field=_field(shape[-1] + task["extra"]),
        extra=task["extra"],
        readout=task["readout"],
        method=task["method"],
        rtol=task["tolerance"],
        atol=task["tolerance"],
    )
    sizes = {"extra": task["extra"], "classes": classes, "readout": task["readout"]}
    return model, augmented_images.init_image_ode(rng, shape, task["filters"], **sizes)


def _field(channels):
    """The field's function for states of so many channels: on a processor with Numba by tables, of one, or in tiles, of more."""
    import tensorflow as tf

    if find_spec("numba") is None or tf.config.list_logical_devices("GPU"):
        from original_repro.augmented_images import conv_field as field
    elif channels == 1:
        from original_repro.tabulated_field import tabulated_conv_field as field
    else:
        from original_repro.tiled_field import tiled_conv_field as field
    return field


def train(task, checkpoint, folder=None, *, progress=True):
    """Train a task's model, going on from `checkpoint`, a path, also where that is of fewer epochs.

    Returns {"history": as training.fit's, "params", "failed": None or {"after_records", "kind": "solve", or "loss" where that was
    not finite, "reason"}, "parameters": their number, "parameters_without_time": without the weights of time channels, as the
    paper counts, "examples": those of the test set}.
    """
    from original_repro.supervised import parameter_count

    images, labels, test_images, test_labels = load(task, folder)
    model, initial = model_of(task, images.shape[1:])

    def scaled(batch, rng=None):
        return np.float32(batch[0]) / np.float32(255), batch[1]

    def step(params, *batch):
        metrics, grads = model.value_and_grad(params, *batch)
        return metrics, with_decay(grads, params, task["weight_decay"])

    def draw(rng):
        chosen = rng.choice(len(labels), task["batch_size"], replace=False)
        return scaled((images[chosen], labels[chosen]))

    def evaluate(params):
        found = model.evaluate(params, *scaled((test_images, test_labels)), batch_size=min(TEST_BATCH, len(test_labels)))
        return {"accuracy": 1.0 - found["error_rate"], **{name: found[name] for name in ("loss", "nfe_forward") if name in found}}

    batches = (
        minibatches((images, labels), task["batch_size"], drop_last=False, augment=scaled)
        if task["steps"] is None
        else drawn_batches(draw, task["steps"], (images, labels))
    )
    total, time_channels = parameter_count(initial), parameter_count(_time_weights(initial))
    result = {
        "failed": None,
        "parameters": total,
        "parameters_without_time": total - time_channels,
        "examples": len(test_labels),
    }
    try:
        params, history = fit(
            step,
            initial,
            batches=batches,
            optimiser=adam(),
            schedule=constant(task["rate"]),
            epochs=task["epochs"],
            seed=task["seed"],
            evaluate=evaluate,
            checkpoint=checkpoint,
            checkpoint_every=10**9,
            checkpoint_seconds=60.0,
            configuration={name: value for name, value in task.items() if name != "epochs"},
            progress=progress,
        )
    except (SolverError, FloatingPointError) as error:
        run = load_checkpoint(checkpoint)["run"] if Path(checkpoint).exists() else {"params": initial, "history": []}
        params, history = run["params"], run["history"]
        result["failed"] = {
            "after_records": len(history),
            "kind": "solve" if isinstance(error, SolverError) else "loss",
            "reason": str(error),
        }
    return {**result, "params": params, "history": history}


def _time_weights(params):
    """The weights of time channels among a model's parameters."""
    return [layer["time_weight"] for layer in params.get("field", {}).values() if "time_weight" in layer]
