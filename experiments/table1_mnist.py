"""Table 1 and Figure 3d: the four networks on MNIST; the ODE-Net through VODE, with gradients by the adjoint method.

The paper gives no learning rate, schedule or number of epochs. Chosen here: SGD with momentum 0.9, half an epoch of warm-up, then
a cosine to zero; random crops after padding by 4 in the paper preset, as in the authors' later example. There the convolutional
networks take the peak rate and the ten epochs of an earlier prototype of this ODE-Net, which reached 0.41 %, but for the ResNet's
twenty epochs. Those, and the MLP's crops after padding by 1, left the fewest errors on the last 10,000 training images
(`--validation 10000`); the report has the table. Each batch of the ODE-Net is shared among two processes, which solve one ODE
each, of half the batch: faster on two cores than one process with two threads, as `bench` measures. The quick preset trains on
the embedded sample (2,000 training and 1,000 test images) without crops; each network's batch size, rate and epochs were chosen
on a validation split of the sample's training images (its last 500), before its test images were looked at.

A finished run leaves its weights, float32, in OUT/weights, from which `python -m experiments evaluate table1_mnist` counts the
errors again, with another solver or tolerance if wanted. Intervals of error rates are Wilson's, of 95 %.
"""

import contextlib
import functools
import time
from pathlib import Path

import matplotlib
import numpy as np

from original_repro import training
from original_repro.datasets import mnist

from . import records, workers

NAME = "table1_mnist"
TITLE = "Table 1: test error of the MNIST networks: ODE-Net, ResNet, RK-Net, MLP"
MODELS = {"odenet": "ODE-Net", "resnet": "ResNet", "rknet": "RK-Net", "mlp": "MLP"}
CROP_PADDING = 4  # pixels, where the preset does not say otherwise
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


def add_arguments(parser):
    """Options of a run."""
    _add_network_arguments(parser)
    parser.add_argument("--epochs", type=int, help="instead of the preset's")
    parser.add_argument("--rate", type=float, help="the highest learning rate, instead of the preset's")
    parser.add_argument(
        "--weight-decay",
        type=float,
        metavar="W",
        help="coefficient of the squared parameters' halved sum in the loss, instead of the preset's",
    )
    parser.add_argument(
        "--crop-padding",
        type=int,
        metavar="PIXELS",
        help="pad training images by this much before random crops, instead of the preset's",
    )
    parser.add_argument(
        "--processes",
        type=int,
        metavar="N",
        help="share each batch among N processes with a thread each, instead of the preset's",
    )
    parser.add_argument(
        "--validation",
        type=int,
        default=0,
        metavar="N",
        help="train without the last N training images and evaluate on those instead of the test set",
    )


def add_evaluation_arguments(parser):
    """Options of an evaluation; those of the solver may differ from what the weights were trained with."""
    _add_network_arguments(parser)
    parser.add_argument(
        "--weights",
        type=Path,
        metavar="FILE",
        help="(default: those that `run` with the same preset, seed and model left in OUT/weights)",
    )


def _add_network_arguments(parser):
    parser.add_argument("--model", choices=MODELS, default="odenet", help="which network of the table (default: odenet)")
    parser.add_argument("--method", default="adams", help="integrator of the ODE-Net (default: adams, VODE's)")
    parser.add_argument(
        "--tolerance", type=float, default=1e-3, help="relative and absolute tolerance of the ODE-Net (default: the paper's 1e-3)"
    )
    parser.add_argument("--data", metavar="FOLDER", help="folder with MNIST's four IDX files (default: cache, else download)")


# Arguments that say where things are, not what is measured: they have no place in a record's name.
LOCATION_ARGUMENTS = ("data",)
# Arguments that say how weights are evaluated: they have no place in the name of the run that made them.
EVALUATION_ARGUMENTS = ("weights", "method", "tolerance")


def run(arguments, stem):
    """Train, evaluate, write weights, record and figure; returns the path of the record."""
    # TensorFlow takes seconds to import, and `list` should not.
    from original_repro import supervised

    _check(arguments)
    settings = dict(PRESETS[arguments.preset][arguments.model])
    if arguments.epochs is not None:
        settings["epochs"] = arguments.epochs
    if arguments.rate is not None:
        settings["peak_rate"] = arguments.rate
    if arguments.weight_decay is not None:
        settings["weight_decay"] = arguments.weight_decay
    if arguments.crop_padding is not None:
        settings |= {"crops": True, "crop_padding": arguments.crop_padding}
    if arguments.processes is not None:
        settings["processes"] = arguments.processes
    net, initial_params, how = _network(arguments.model, arguments.method, arguments.tolerance)
    images, labels, test_images, test_labels = _load(settings["data"], arguments.data)
    if arguments.validation:
        if arguments.validation % supervised.EVALUATION_BATCH or arguments.validation >= len(images):
            raise ValueError(
                f"--validation must be a multiple of {supervised.EVALUATION_BATCH} below {len(images)}, the number "
                f"of training images; got {arguments.validation}"
            )
        images, test_images = images[: -arguments.validation], images[-arguments.validation :]
        labels, test_labels = labels[: -arguments.validation], labels[-arguments.validation :]
    optimiser = training.sgd(momentum=0.9, weight_decay=settings.get("weight_decay", 0.0))
    configuration = {
        "model": arguments.model,
        **how,
        "validation": arguments.validation,
        "optimiser": "sgd, momentum 0.9",
        "schedule": "warm-up over half an epoch, cosine to zero",
        **settings,
    }
    steps = len(images) // settings["batch_size"]
    begun = time.perf_counter()
    with _value_and_grad(net, arguments, settings.get("processes")) as value_and_grad:
        params, history = training.fit(
            value_and_grad,
            initial_params(np.random.default_rng(arguments.seed)),
            batches=training.minibatches((images, labels), settings["batch_size"], augment=_crops(settings)),
            optimiser=optimiser,
            schedule=training.warmup_cosine(settings["peak_rate"], settings["epochs"] * steps, steps // 2),
            epochs=settings["epochs"],
            seed=arguments.seed,
            evaluate=lambda params: net.evaluate(params, test_images, test_labels),
            checkpoint=Path(arguments.checkpoints) / NAME / f"{stem}.npz",
            checkpoint_every=50,
            configuration=configuration,
        )
    training.save_weights(weights_path(arguments.out, stem), params)
    training_seconds = sum(epoch["wall_seconds"] for epoch in history)
    metrics = {
        "parameters": supervised.parameter_count(params),
        **_error_metrics(history[-1]["evaluation"], len(test_labels)),
        **{name: mean for name, mean in history[-1]["train"].items() if name.startswith("nfe_")},
        "training_seconds": training_seconds,
        "seconds_per_epoch": training_seconds / len(history),
    }
    path = records.record_path(arguments.out, NAME, stem)
    records.write_record(
        path,
        experiment=NAME,
        preset=arguments.preset,
        seed=arguments.seed,
        configuration=configuration,
        # A run that went on from a checkpoint took the time of all its parts.
        metrics=metrics,
        history=history,
        wall_seconds=max(time.perf_counter() - begun, metrics["training_seconds"]),
    )
    _draw(history, configuration, Path(arguments.out) / "figures" / f"{NAME}-{stem}.png")
    return path


def _check(arguments):
    for name, least in (("epochs", 1), ("crop_padding", 0), ("validation", 0)):
        value = getattr(arguments, name)
        if value is not None and value < least:
            raise ValueError(f"--{name.replace('_', '-')} must be a whole number from {least}, got {value}")


def evaluate(arguments, stem):
    """Errors on the test set with the weights that the run of this stem left, or those of --weights; returns a dict of metrics.

    Raises FileNotFoundError where there are no such weights, ValueError where they are those of another network.
    """
    net, initial_params, _ = _network(arguments.model, arguments.method, arguments.tolerance)
    path = arguments.weights or records.kept(weights_path(arguments.out, stem))
    if not path.is_file():
        raise FileNotFoundError(
            f"no weights at {path}; `python -m experiments run {NAME} --model {arguments.model} --preset {arguments.preset} "
            f"--seed {arguments.seed} --out {arguments.out}` trains the network and leaves them in {arguments.out / 'weights'}"
        )
    params = training.load_weights(path)
    try:
        training.tree_map(_check_shape, initial_params(np.random.default_rng(0)), params)
    except ValueError as error:
        raise ValueError(f"{path} does not hold weights of --model {arguments.model}: {error}") from error
    _, _, images, labels = _load(PRESETS[arguments.preset][arguments.model]["data"], arguments.data)
    begun = time.perf_counter()
    evaluation = net.evaluate(params, images, labels)
    return {**_error_metrics(evaluation, len(labels)), **evaluation, "seconds": time.perf_counter() - begun}


def weights_path(out, stem):
    """Where the weights of a run lie: out/weights/table1_mnist-<stem>.npz."""
    return Path(out) / "weights" / f"{NAME}-{stem}.npz"


def _network(model, method, tolerance):
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


def _check_shape(array, other):
    if array.shape != other.shape:
        raise ValueError("other shapes")


def _initial(init):
    return lambda rng: init(rng, mnist.FORMAT)


def _value_and_grad(net, arguments, processes):
    """For a `with` statement: the network's value_and_grad, in this process or shared among several."""
    if processes is None:
        return contextlib.nullcontext(net.value_and_grad)
    return workers.data_parallel(
        functools.partial(make_value_and_grad, arguments.model, arguments.method, arguments.tolerance), processes
    )


def make_value_and_grad(model, method="adams", tolerance=1e-3):
    """The value_and_grad of a network, for `training.fit`; method and tolerance are those of the ODE-Net."""
    return _network(model, method, tolerance)[0].value_and_grad


def _error_metrics(evaluation, examples):
    """Errors, their rate with its 95 % interval (Wilson 1927), and accuracy, from what a network's `evaluate` returned."""
    from scipy.stats import binomtest

    errors = int(evaluation["errors"])
    interval = binomtest(errors, examples).proportion_ci(0.95, method="wilson")
    return {
        "errors": errors,
        "examples": examples,
        "error_rate": errors / examples,
        "error_rate_95_low": float(interval.low),
        "error_rate_95_high": float(interval.high),
        "accuracy": 1 - errors / examples,
    }


# By the name in a preset: (the folder of --data or None) -> mnist.Mnist.
DATA_SETS = {"embedded sample": lambda folder: mnist.load_sample(), "full MNIST": lambda folder: mnist.load(folder)}
# In file order by digit as good as sorted; a validation split takes the last ones.
SORTED_DATA_SETS = ("embedded sample",)


def _load(which, folder):
    """Training images (N, 28, 28, 1) float32 in [0, 1], labels, and the same of the test set."""
    data = DATA_SETS[which](folder)
    train, test = ((images[..., None] / np.float32(255)) for images in (data.train_images, data.test_images))
    if which in SORTED_DATA_SETS:
        order = np.random.default_rng(0).permutation(len(train))
        return train[order], data.train_labels[order], test, data.test_labels
    return train, data.train_labels, test, data.test_labels


def _crops(settings):
    """The augmentation of training batches, or None."""
    return functools.partial(_crop, padding=settings.get("crop_padding", CROP_PADDING)) if settings["crops"] else None


def _crop(batch, rng, padding):
    images, labels = batch
    return training.random_crops(images, rng, padding), labels


def _draw(history, configuration, path):
    """Loss and error over training, and with an ODE its evaluations (the ODE-Net's are the paper's Figure 3d)."""
    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    epochs = [epoch["epoch"] for epoch in history]
    with_ode = "nfe_forward" in history[0]["train"]
    figure, panels = plt.subplots(1, 3 if with_ode else 2, figsize=(11 if with_ode else 7.4, 3.2), layout="constrained")
    left, middle = panels[:2]
    left.plot(epochs, [epoch["train"]["loss"] for epoch in history], "o-", label="training")
    left.plot(epochs, [epoch["evaluation"]["loss"] for epoch in history], "s--", label="held out")
    left.set(ylabel="cross-entropy (nats)", ylim=(0, None))
    left.legend(frameon=False)
    middle.plot(epochs, [100 * epoch["evaluation"]["error_rate"] for epoch in history], "s--", color="C1")
    middle.set(ylabel="error on held-out images (%)", ylim=(0, None))
    if with_ode:
        _draw_evaluations(history, epochs, panels[2])
    for axes in panels:
        axes.set_xlabel("epoch")
        axes.xaxis.set_major_locator(matplotlib.ticker.MaxNLocator(integer=True))
        axes.spines[["top", "right"]].set_visible(False)
    parts = [f"{MODELS[configuration['model']]} on {configuration['data']}", solver(configuration)]
    figure.suptitle(", ".join(filter(None, parts)))
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=110)
    plt.close(figure)


def solver(configuration):
    """The solver of a record's configuration, in words; none for a network without an ODE."""
    return {
        "odenet": f"{configuration.get('method')} at {configuration.get('tolerance', 0):g}",
        "rknet": f"{configuration.get('steps')} steps of {configuration.get('method')}",
    }.get(configuration["model"], "")


def _draw_evaluations(history, epochs, axes):
    axes.plot(epochs, [epoch["train"]["nfe_forward"] for epoch in history], "o-", color="C2", label="forward")
    axes.plot(epochs, [epoch["train"]["nfe_backward"] for epoch in history], "s--", color="C3", label="backward")
    most = max(epoch["train"][f"nfe_{way}"] for epoch in history for way in ("forward", "backward"))
    axes.set(ylabel="evaluations a training step", ylim=(0, 1.2 * most))
    axes.legend(frameon=False)
