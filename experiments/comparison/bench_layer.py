"""The ODE layer of an ODE-Net, timed: solvers beside each other, graphs beside bare convolutions, and torchdiffeq.

The layer is that of the ODE-Net at its initialisation, its z(0) made by the stem from real digits, its cotangent by the head and
the mean cross-entropy.
"""

import functools
import os
import sys
import time
from typing import NamedTuple

import numpy as np
import tensorflow as tf
from autograd import grad
from tabulate import tabulate

from original_repro import supervised
from original_repro.datasets import mnist
from solvers_bridge import TensorFlowDynamics, odeint
from solvers_bridge.adjoint import Augmented
from solvers_bridge.dynamics.base import leaf_tuple, num_params
from solvers_bridge.nested import Layout, flatten

from ..harness import workers
from ..harness.digits import digits
from ..neural_ode import table1_mnist
from .goals import GOALS
from .side_by_side import (
    compare,
    flat,
    heading,
    solve_and_differentiate,
    summarise,
    take_turns,
    torch_candidate,
    torchdiffeq_is_installed,
)

BATCH, CHANNELS, TOLERANCE = 128, 64, 1e-3


class Layer(NamedTuple):
    """The ODE layer of an ODE-Net: dz/dt = conv_dynamics, z0 (batch, 6, 6, channels), its cotangent z1_bar, all float32."""

    dynamics: TensorFlowDynamics
    params: dict
    z0: np.ndarray
    z1_bar: np.ndarray

    def step(self, **solver):
        """A Step of the layer at tolerance 1e-3, unless solver says otherwise."""
        return solve_and_differentiate(
            self.dynamics,
            self.z0,
            [0.0, 1.0],
            self.params,
            np.stack([0 * self.z1_bar, self.z1_bar]),
            **{"rtol": TOLERANCE, "atol": TOLERANCE, **solver},
        )


def make_layer(batch, channels):
    """The Layer of an ODE-Net of `channels` channels (even) at its initialisation, in groups of two, as the paper's."""
    groups = channels // 2
    params = supervised.init_odenet(np.random.default_rng(0), mnist.FORMAT, channels=channels)
    images, labels = digits(batch)
    net = supervised.OdeNet(mnist.FORMAT, groups=groups)
    z0 = supervised.stem(params["stem"], images, mnist.FORMAT, groups=groups).numpy()
    z1 = odeint(net.dynamics, z0, [0.0, 1.0], params["dynamics"], rtol=TOLERANCE, atol=TOLERANCE)[-1]
    z1_bar = grad(lambda z: net.head_loss(params["head"], z, labels)[0])(z1)
    return Layer(net.dynamics, params["dynamics"], z0, z1_bar)


def bench_layer(layer, rounds):
    """Forward and backward solve of the layer by three of the library's ways; metrics layer_*."""
    heading(
        f"ODE layer, {' x '.join(map(str, layer.z0.shape))} unknowns, tolerance {TOLERANCE:g}: "
        "seconds, median (minimum); evaluations; share of the solve outside graphs"
    )
    results = take_turns(
        {
            "adams": layer.step,
            "adams_seminorm": lambda: layer.step(adjoint_options={"norm": "seminorm"}),
            "lsoda": lambda: layer.step(method="lsoda"),
        },
        rounds,
    )
    return summarise(results, "layer", "s")


def bench_processes(batch, rounds, processes=2, model="odenet"):
    """A training step of a whole network: one process with all cores, and the batch shared among several; metrics training_*."""
    heading(
        f"Training step of the whole {table1_mnist.MODELS[model]}, batch {batch}: in one process with threads on all cores, "
        f"and shared among {processes} processes with one thread each"
    )
    params = {"odenet": supervised.init_odenet, "mlp": supervised.init_mlp}[model](np.random.default_rng(0), mnist.FORMAT)
    make = functools.partial(table1_mnist.make_value_and_grad, model)

    images, labels = digits(batch)

    def timed(value_and_grad):
        begun = time.perf_counter()
        metrics, _ = value_and_grad(params, images, labels)
        return time.perf_counter() - begun, metrics

    with workers.data_parallel(make, processes) as shared:
        results = take_turns(
            {"one_process": functools.partial(timed, make()), "shared": functools.partial(timed, shared)}, rounds
        )
    metrics, rows = {}, []
    for name, steps in results.items():
        seconds, (_, last) = [step[0] for step in steps], steps[-1]
        metrics |= {
            f"training_{name}_step_seconds_median": float(np.median(seconds)),
            f"training_{name}_step_seconds_min": min(seconds),
        }
        rows.append([name, np.median(seconds), min(seconds), last.get("nfe_forward"), last.get("nfe_backward")])
    ratio, of_minima = compare(*([seconds for seconds, _ in results[name]] for name in ("one_process", "shared")))
    print(tabulate(rows, ["", "median (s)", "minimum (s)", "nfe forward", "nfe backward"], floatfmt=".3g"))
    print(f"Times faster when shared: {ratio:.2f} (median of the rounds' ratios), {of_minima:.2f} (ratio of minima).", flush=True)
    return {**metrics, "training_shared_speedup": ratio, "training_shared_speedup_of_minima": of_minima}


def bound_graphs(layer):
    """Functions that make one bare graph call each: the bridge's f and fused VJP, and the two convolutions of f alone."""
    leaves, structure = flatten(layer.params)
    layout, n = Layout.of([layer.z0]), layer.z0.size
    f = layer.dynamics.bind(layout, structure, leaves)
    size = Augmented(n, num_params(leaves)).size
    fused = layer.dynamics.augmented(layout, structure).bind(Layout.flat(size), leaf_tuple(len(leaves)), leaves)
    z = layer.z0.reshape(-1).astype(np.float64)
    s = np.concatenate([z, np.reshape(layer.z1_bar, -1), np.zeros(size - 2 * n)])
    weights = [tf.constant(layer.params[name]["weight"]) for name in ("conv1", "conv2")]
    x = tf.constant(layer.z0)

    @tf.function
    def convolve(x):
        for weight in weights:
            x = tf.nn.conv2d(x, weight, 1, "SAME")
        return x

    concrete = convolve.get_concrete_function(x)
    return {"two_convolutions": lambda: concrete(x), "f": lambda: f(0.3, z), "fused_vjp": lambda: fused(0.3, s)}


def bench_graphs(layer, rounds):
    """One call of each graph over one call of its two bare convolutions; metrics graph_*."""
    heading("One graph call as the bridge makes it, over one call of its two bare convolutions: milliseconds, ratios")

    def timed(call):
        begun = time.perf_counter()
        call()
        return time.perf_counter() - begun

    seconds = take_turns({name: lambda call=call: timed(call) for name, call in bound_graphs(layer).items()}, rounds)
    metrics, rows = {}, []
    for name, values in seconds.items():
        ratio, ratio_of_minima = compare(values, seconds["two_convolutions"])
        metrics |= {
            f"graph_{name}_seconds_median": float(np.median(values)),
            f"graph_{name}_seconds_min": min(values),
            f"graph_{name}_ratio": ratio,
            f"graph_{name}_ratio_of_minima": ratio_of_minima,
        }
        rows.append([name, 1e3 * np.median(values), 1e3 * min(values), ratio, ratio_of_minima, GOALS.get(name)])
    print(
        tabulate(rows, ["", "median (ms)", "minimum (ms)", "ratio, median", "ratio of minima", "at most"], floatfmt=".2f"),
        flush=True,
    )
    return metrics


def bench_torchdiffeq(layer, rounds):
    """The layer by three of our solvers beside torchdiffeq's MNIST example (dopri5, adjoint); metrics torchdiffeq_*, beside_*.

    Errors of gradients: the greater one of those by z0 and by the parameters, in Euclidean norms relative to what dopri5 gives at
    a tolerance of a thousandth.
    """
    heading(
        f"The same ODE layer in torchdiffeq (dopri5, adjoint, tolerance {TOLERANCE:g}): seconds, median (minimum); evaluations"
    )
    if not torchdiffeq_is_installed():
        print('torch and torchdiffeq are not installed: pip install "neural-ode-repro[modern]"', flush=True)
        return {}
    results = take_turns(
        {
            "ours": layer.step,
            "ours_dopri5": lambda: layer.step(method="dopri5"),
            "ours_dopri5_discrete": lambda: layer.step(method="dopri5", adjoint_method="discrete"),
            "torchdiffeq": torch_layer(layer),
        },
        rounds,
    )
    metrics = summarise(results, "beside", "s")
    exact = as_torch(*layer.step(method="dopri5", rtol=1e-3 * TOLERANCE, atol=1e-3 * TOLERANCE).gradient)
    rows = []
    for name, steps in results.items():
        gradient = steps[-1].gradient if name == "torchdiffeq" else as_torch(*steps[-1].gradient)
        ratio, of_minima = compare(*([step.seconds for step in results[which]] for which in (name, "torchdiffeq")))
        label = "torchdiffeq_ratio" + name.removeprefix("ours")
        metrics[f"beside_{name}_gradient_error"] = error = _relative_error(gradient, exact)
        if name != "torchdiffeq":
            metrics |= {label: ratio, f"{label}_of_minima": of_minima}
        rows.append([name, f"{ratio:.2f} ({of_minima:.2f})", f"{error:.1e}"])
    print(
        "\nTraining step of the layer, time over torchdiffeq's, median of the rounds' ratios (ratio of minima); goal: at most "
        f"{GOALS['torchdiffeq_ratio']:g}; error of the gradient"
    )
    print(tabulate(rows, ["", "ratio", "gradient error"], disable_numparse=True))
    print("On a busy machine read the minima: PyTorch's threads wait for each other and suffer more from neighbours.")
    print(f"Threads: {threads()}", flush=True)
    return metrics


def _relative_error(gradient, exact):
    errors = []
    for part, wanted in zip(gradient, exact, strict=True):
        part, wanted = flat(part), flat(wanted)
        errors.append(float(np.linalg.norm(part - wanted) / np.linalg.norm(wanted)))
    return max(errors)


def as_torch(z0, params):
    """The layer's z0 and params, or their gradients, as arrays in PyTorch's layout, where t is the first channel."""
    arrays = []
    for name in ("norm1", "conv1", "norm2", "conv2", "norm3"):
        part = {key: np.asarray(value, np.float32) for key, value in params[name].items()}
        if "scale" in part:
            arrays += [part["scale"], part["shift"]]
        else:
            weight = np.concatenate([part["time_weight"][:, :, None], part["weight"]], 2)
            arrays += [np.ascontiguousarray(weight.transpose(3, 2, 0, 1)), part["bias"]]
    return np.ascontiguousarray(np.transpose(z0, (0, 3, 1, 2)), np.float32), tuple(arrays)


def torch_layer(layer, tolerance=TOLERANCE):
    """A function that makes a Step of `layer` in PyTorch with the same weights, t concatenated as torchdiffeq's example does it.

    Raises RuntimeError if its dz/dt differs from ours by more than 1e-4.
    """
    import torch
    from torch.nn import functional

    groups = layer.z0.shape[-1] // 2

    def convolve(t, x, weight, bias):
        return functional.conv2d(torch.cat([torch.ones_like(x[:, :1]) * t, x], 1), weight, bias, padding=1)

    def f(t, x, weights):
        x = convolve(t, functional.relu(functional.group_norm(x, groups, *weights[0:2]), inplace=True), *weights[2:4])
        x = convolve(t, functional.relu(functional.group_norm(x, groups, *weights[4:6]), inplace=True), *weights[6:8])
        return functional.group_norm(x, groups, *weights[8:10])

    z0, arrays = as_torch(layer.z0, layer.params)
    with torch.no_grad():
        theirs = f(0.3, torch.tensor(z0), [torch.tensor(array) for array in arrays]).numpy()
    ours, _ = as_torch(layer.dynamics.func(0.3, layer.z0, layer.params).numpy(), layer.params)
    difference = np.abs(theirs - ours).max()
    if difference > 1e-4:
        raise RuntimeError(f"the layer in PyTorch differs from ours by {difference:g}")
    z1_bar, _ = as_torch(layer.z1_bar, layer.params)
    return torch_candidate(f, arrays, z0, [0.0, 1.0], np.stack([0 * z1_bar, z1_bar]), tolerance)


def threads():
    """Threads that each library may use; TensorFlow's 0 means all cores."""
    found = {
        "tensorflow_intra_op": tf.config.threading.get_intra_op_parallelism_threads(),
        "tensorflow_inter_op": tf.config.threading.get_inter_op_parallelism_threads(),
        **{name: os.environ[name] for name in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS") if name in os.environ},
    }
    if "torch" in sys.modules:
        found["torch"] = sys.modules["torch"].get_num_threads()
    return found
