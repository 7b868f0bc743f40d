"""Table 1 and Figure 3d: the four networks on MNIST; the ODE-Net through VODE, with gradients by the adjoint method.

The paper gives no learning rate, schedule or number of epochs. Chosen here: SGD with momentum 0.9, half an epoch of warm-up, then
a cosine to zero; random crops after padding by 4 in the paper preset, as in the authors' later example. There the convolutional
networks take the peak rate and the ten epochs of an earlier prototype of this ODE-Net, which reached 0.41 %, but for the ResNet's
twenty epochs. Those, and the MLP's crops after padding by 1, left the fewest errors on the last 10,000 training images
(`--validation 10000`); the report has the table. Earlier runs of five, seven and ten epochs had been scored on the test set
before that; the report lists them as superseded. The paper's 1.60 % of an MLP is that of LeCun et al. (1998), of 300 units on
deskewed digits: `--model mlp --deskew yes`, without crops, all other settings as ours. Each batch of the ODE-Net is shared among
two processes, which solve one ODE each, of half the batch: faster on two cores than one process with two threads, as `bench`
measures. The quick preset trains on the embedded sample (2,000 training and 1,000 test images) without crops; each network's
batch size, rate and epochs were chosen on a validation split of the sample's training images (its last 500), before its test
images were looked at.

A finished run leaves its weights, float32, in OUT/weights, from which `python -m experiments evaluate table1_mnist` counts the
errors again, with another solver or tolerance if wanted. Intervals of error rates are Wilson's, of 95 %.
"""

import contextlib
import functools
import time
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from original_repro import training
from original_repro.datasets import mnist
from original_repro.datasets.deskewing import deskewed

from .. import Experiment, Section, Settings, option
from ..harness import records, workers
from ..harness.statistics import wilson_interval
from . import table1_summary
from .table1_summary import CROP_PADDING

NAME = "table1_mnist"
MODELS = table1_summary.LABELS
# Options of the further runs that make the table whole; `run all` adds them to the one without options.
VARIANTS = tuple({"model": model} for model in MODELS if model != "odenet")

SAMPLE = {"data": "embedded sample", "crops": False}
FULL = {"data": "full MNIST", "crops": True}
PRESETS = {
    "quick": {
        "odenet": {**SAMPLE, "epochs": 5, "batch_size": 20, "peak_rate": 0.1},
        "resnet": {**SAMPLE, "epochs": 3, "batch_size": 20, "peak_rate": 0.03},
        "rknet": {**SAMPLE, "epochs": 3, "batch_size": 20, "peak_rate": 0.1},
        "mlp": {**SAMPLE, "epochs": 20, "batch_size": 20, "peak_rate": 0.05},
    },
    "paper": {
        # Two processes, not one for each core, so that the result does not depend on the machine.
        "odenet": {**FULL, "epochs": 10, "batch_size": 128, "peak_rate": 0.1, "processes": 2},
        "resnet": {**FULL, "epochs": 20, "batch_size": 128, "peak_rate": 0.1},
        "rknet": {**FULL, "epochs": 10, "batch_size": 128, "peak_rate": 0.1},
        "mlp": {**FULL, "crop_padding": 1, "epochs": 20, "batch_size": 128, "peak_rate": 0.1},
    },
}


@dataclass(frozen=True, kw_only=True)
class NetworkSettings(Settings):
    """Which network of the table, and how its ODE is solved."""

    model: str = option("odenet", "which network of the table (default: odenet)", choices=MODELS)
    method: str = option("adams", "integrator of the ODE-Net (default: adams, VODE's)")
    tolerance: float = option(1e-3, "relative and absolute tolerance of the ODE-Net (default: the paper's 1e-3)", type=float)
    data: str | None = option(
        None, "folder with MNIST's four IDX files (default: cache, else download)", metavar="FOLDER", named=False
    )


@dataclass(frozen=True, kw_only=True)
class RunSettings(NetworkSettings):
    """Settings of a run; None stands for the preset's."""

    epochs: int | None = option(None, "instead of the preset's", type=int, least=1)
    rate: float | None = option(None, "the highest learning rate, instead of the preset's", type=float)
    weight_decay: float | None = option(
        None,
        "coefficient of the squared parameters' halved sum in the loss, instead of the preset's",
        type=float,
        metavar="W",
    )
    crop_padding: int | None = option(
        None,
        "pad training images by this much before random crops, instead of the preset's",
        type=int,
        metavar="PIXELS",
        least=0,
    )
    deskew: str = option(
        "no", "deskew the digits, as LeCun et al. (1998), and take no crops (default: no)", choices=("no", "yes")
    )
    processes: int | None = option(
        None, "share each batch among N processes with a thread each, instead of the preset's", type=int, metavar="N"
    )
    validation: int = option(
        0,
        "train without the last N training images and evaluate on those instead of the test set",
        type=int,
        metavar="N",
        least=0,
    )


@dataclass(frozen=True, kw_only=True)
class EvaluationSettings(NetworkSettings):
    """Settings of an evaluation; its solver may be another than that of the run, by whose name the weights are found."""

    method: str = option("adams", "integrator of the ODE-Net (default: adams, VODE's)", named=False)
    tolerance: float = option(
        1e-3, "relative and absolute tolerance of the ODE-Net (default: the paper's 1e-3)", type=float, named=False
    )
    weights: Path | None = option(
        None,
        "(default: those that `run` with the same preset, seed and model left in OUT/weights)",
        type=Path,
        metavar="FILE",
        named=False,
    )


def run(settings, places):
    """Train, evaluate, write weights, record and figure; returns the record."""
    # TensorFlow takes seconds to import, and `list` should not.
    from original_repro import supervised

    chosen = preset_of(settings)
    net, initial_params, how = network(settings.model, settings.method, settings.tolerance)
    images, labels, test_images, test_labels = load_images(chosen["data"], settings.data)
    if settings.deskew == "yes":
        images, test_images = deskewed(images), deskewed(test_images)
    if settings.validation:
        if settings.validation % supervised.EVALUATION_BATCH or settings.validation >= len(images):
            raise ValueError(
                f"--validation must be a multiple of {supervised.EVALUATION_BATCH} below {len(images)}, the number "
                f"of training images; got {settings.validation}"
            )
        images, test_images = images[: -settings.validation], images[-settings.validation :]
        labels, test_labels = labels[: -settings.validation], labels[-settings.validation :]
    optimiser = training.sgd(momentum=0.9, weight_decay=chosen.get("weight_decay", 0.0))
    configuration = {
        "model": settings.model,
        **how,
        "validation": settings.validation,
        "optimiser": "sgd, momentum 0.9",
        "schedule": "warm-up over half an epoch, cosine to zero",
        **chosen,
    }
    steps = len(images) // chosen["batch_size"]
    begun = time.perf_counter()
    with _value_and_grad(net, settings, chosen.get("processes")) as value_and_grad:
        params, history = training.fit(
            value_and_grad,
            initial_params(np.random.default_rng(settings.seed)),
            batches=training.minibatches((images, labels), chosen["batch_size"], augment=_crops(chosen)),
            optimiser=optimiser,
            schedule=training.warmup_cosine(chosen["peak_rate"], chosen["epochs"] * steps, steps // 2),
            epochs=chosen["epochs"],
            seed=settings.seed,
            evaluate=lambda params: net.evaluate(params, test_images, test_labels),
            checkpoint=places.checkpoint(NAME, settings.stem),
            checkpoint_every=50,
            configuration=configuration,
        )
    training.save_weights(places.weights(NAME, settings.stem), params)
    training_seconds = sum(epoch["wall_seconds"] for epoch in history)
    metrics = {
        "parameters": supervised.parameter_count(params),
        **error_metrics(history[-1]["evaluation"], len(test_labels)),
        **{name: mean for name, mean in history[-1]["train"].items() if name.startswith("nfe_")},
        "training_seconds": training_seconds,
        "seconds_per_epoch": training_seconds / len(history),
    }
    record = records.record_run(
        NAME,
        settings,
        places,
        configuration=configuration,
        # A run that went on from a checkpoint took the time of all its parts.
        metrics=metrics,
        history=history,
        wall_seconds=max(time.perf_counter() - begun, metrics["training_seconds"]),
    )
    table1_summary.draw(history, configuration, places.figure(NAME, settings.stem))
    return record


def preset_of(settings):
    """The network's preset, with what the settings have instead."""
    chosen = dict(PRESETS[settings.preset][settings.model])
    if settings.epochs is not None:
        chosen["epochs"] = settings.epochs
    if settings.rate is not None:
        chosen["peak_rate"] = settings.rate
    if settings.weight_decay is not None:
        chosen["weight_decay"] = settings.weight_decay
    if settings.crop_padding is not None:
        chosen |= {"crops": True, "crop_padding": settings.crop_padding}
    if settings.deskew == "yes":
        if settings.crop_padding is not None:
            raise ValueError("--deskew yes takes no crops; leave out --crop-padding")
        chosen |= {"crops": False, "deskewed": True}
    if settings.processes is not None:
        chosen["processes"] = settings.processes
    return chosen


def evaluate(settings, places):
    """Errors on the test set with the weights that the run left, or those of --weights; returns a dict of metrics.

    Raises FileNotFoundError where there are no such weights, ValueError where they are those of another network.
    """
    # TensorFlow takes seconds to import, and `list` should not.
    from original_repro import supervised

    net, initial_params, _ = network(settings.model, settings.method, settings.tolerance)
    path = settings.weights or kept_weights(settings, places)
    params = training.load_weights(path)
    training.check_weights(path, params, initial_params(np.random.default_rng(0)), f"--model {settings.model}")
    which = PRESETS[settings.preset][settings.model]["data"]
    images, labels = load_test_images(which, settings.data)
    begun = time.perf_counter()
    evaluation = net.evaluate(params, images, labels)
    return {
        "parameters": supervised.parameter_count(params),
        **error_metrics(evaluation, len(labels)),
        **evaluation,
        "seconds": time.perf_counter() - begun,
    }


def kept_weights(settings, places):
    """The file of weights that a run left, or that comes with the project; settings: those of the run.

    Raises FileNotFoundError, with the command that makes it, where there is none.
    """
    path, model = records.kept(places.weights(NAME, settings.stem)), getattr(settings, "model", "odenet")
    if not path.is_file():
        raise FileNotFoundError(
            f"no weights at {path}; `python -m experiments run {NAME} --model {model} --preset {settings.preset} "
            f"--seed {settings.seed} --out {places.out}` trains the network and leaves them in {places.out / 'weights'}"
        )
    return path


def network(model, method, tolerance):
    """The network, the function rng -> initial parameters, and what there is to say of its solver, a dict."""
    from original_repro import supervised

    if model == "odenet":
        net = supervised.OdeNet(mnist.FORMAT, method, tolerance, tolerance)
        return net, _initial(supervised.init_odenet), {"method": method, "tolerance": tolerance}
    if (method, tolerance) != ("adams", 1e-3):
        raise ValueError(f"--method and --tolerance go with --model odenet, not {model}")
    if model == "rknet":
        return supervised.RkNet(mnist.FORMAT, steps=2), _initial(supervised.init_odenet), {"method": "rk4", "steps": 2}
    if model == "resnet":
        return supervised.ResNet(mnist.FORMAT), _initial(supervised.init_resnet), {}
    return supervised.Mlp(mnist.FORMAT), _initial(supervised.init_mlp), {}


def _initial(init):
    return lambda rng: init(rng, mnist.FORMAT)


def _value_and_grad(net, settings, processes):
    """For a `with` statement: the network's value_and_grad, in this process or shared among several."""
    if processes is None:
        return contextlib.nullcontext(net.value_and_grad)
    return workers.data_parallel(
        functools.partial(make_value_and_grad, settings.model, settings.method, settings.tolerance), processes
    )


def make_value_and_grad(model, method="adams", tolerance=1e-3):
    """The value_and_grad of a network, for `training.fit`; method and tolerance are those of the ODE-Net."""
    return network(model, method, tolerance)[0].value_and_grad


def error_metrics(evaluation, examples):
    """Errors, their rate with its 95 % interval (Wilson 1927), and accuracy, from what a network's `evaluate` returned."""
    errors = int(evaluation["errors"])
    low, high = wilson_interval(errors / examples, examples)
    return {
        "errors": errors,
        "examples": examples,
        "error_rate": errors / examples,
        "error_rate_95_low": low,
        "error_rate_95_high": high,
        "accuracy": 1 - errors / examples,
    }


# By the name in a preset: (the folder of --data or None) -> mnist.Mnist.
DATA_SETS = {"embedded sample": lambda folder: mnist.load_sample(), "full MNIST": lambda folder: mnist.load(folder)}
# They come with the package, in file order by digit as good as sorted: a validation split takes the last ones.
EMBEDDED = ("embedded sample",)


def load_images(which, folder):
    """Training images (N, 28, 28, 1) float32 in [0, 1], labels, the same of the test set. ValueError for a needless folder."""
    if folder is not None and which in EMBEDDED:
        raise ValueError(f"--data goes with full MNIST, of --preset paper: this preset has the {which}; got {folder}")
    data = DATA_SETS[which](folder)
    train, test = scaled(data.train_images), scaled(data.test_images)
    if which in EMBEDDED:
        order = np.random.default_rng(0).permutation(len(train))
        return train[order], data.train_labels[order], test, data.test_labels
    return train, data.train_labels, test, data.test_labels


def load_test_images(which, folder):
    """Test images (N, 28, 28, 1) float32 in [0, 1], and labels; those of all of MNIST come with the project."""
    if which == "full MNIST" and folder is None:
        images, labels = mnist.load_test()
        return scaled(images), labels
    *_, images, labels = load_images(which, folder)
    return images, labels


def scaled(images):
    """Grey levels from 0 to 1: (N, 28, 28, 1) float32 of uint8 images (N, 28, 28)."""
    return images[..., None] / np.float32(255)


def _crops(settings):
    """The augmentation of training batches, or None."""
    return functools.partial(_crop, padding=settings.get("crop_padding", CROP_PADDING)) if settings["crops"] else None


def _crop(batch, rng, padding):
    images, labels = batch
    return training.random_crops(images, rng, padding), labels


EXPERIMENT = Experiment(
    name=NAME,
    source="Table 1",
    shows="test error of the MNIST networks: ODE-Net, ResNet, RK-Net, MLP",
    run=run,
    description=__doc__,
    preset_of=preset_of,
    settings=RunSettings,
    takes={"quick": "4 min"},
    evaluate=evaluate,
    evaluation_settings=EvaluationSettings,
    kept=tuple({"model": model} for model in MODELS),
    variants=VARIANTS,
    section=Section(
        "Table 1: networks on MNIST",
        functools.partial(table1_summary.table, NAME),
        captions={
            "": "Table 1, the ODE-Net in training: cross-entropy, error on held-out images, and evaluations of a training step "
            "forward and backward, which grow as in Figure 3d.",
            "model=resnet": "Table 1, the ResNet in training: cross-entropy, and error on held-out images.",
            "model=rknet": "Table 1, the RK-Net in training: cross-entropy, and error on held-out images.",
            "model=mlp": "Table 1, the MLP in training: cross-entropy, and error on held-out images.",
        },
    ),
)
