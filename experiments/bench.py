"""Timings and memory of the bridge, from one run: beside bare convolutions, autograd's own odeint and torchdiffeq.

Candidates of a table take turns, round by round, so that noise on the machine hits all alike; trust ratios more than seconds.
The ODE layer is that of the ODE-Net at its initialisation, its z(0) made by the stem from real digits, its cotangent by the head
and the mean cross-entropy. The memory of a training step is measured in a fresh process for each tolerance.
"""

import functools
import json
import os
import platform
import resource
import subprocess
import sys
import time
from pathlib import Path
from typing import NamedTuple

import autograd.numpy as anp
import numpy as np
import tensorflow as tf
from autograd import grad
from autograd.scipy.integrate import odeint as autograd_odeint
from tabulate import tabulate

from original_repro import supervised
from original_repro.datasets import mnist
from solvers_bridge import TensorFlowDynamics, odeint
from solvers_bridge.dynamics.base import leaf_tuple, num_params
from solvers_bridge.nested import flatten

from . import records, table1_mnist, workers
from .bench_flows import bench_flow
from .bench_latent import bench_latent
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

NAME = "bench"
BATCH, CHANNELS, TOLERANCE = 128, 64, 1e-3
LAYER_ROUNDS, GRAPH_ROUNDS, SMALL_ROUNDS, FLOW_ROUNDS, LATENT_ROUNDS = 5, 40, 10, 5, 2
SMALL_TOLERANCE = 1e-6
MEMORY_TOLERANCES = (1e-2, 1e-6)
GOALS = {
    "f": 2.0,
    "fused_vjp": 6.0,
    "small_speedup": 8.0,
    "torchdiffeq_ratio": 1.0,
    "memory_ratio": 1.05,
    "flow_speedup": 10.0,
    "latent_speedup_loose": 10.0,
    "latent_speedup_tight": 10.0,
}


def run(out):
    """Measure everything, print it, write the record bench/quick-seed0.json under `out`; returns the record's path."""
    begun = time.perf_counter()
    layer = make_layer(BATCH, CHANNELS)
    metrics = {
        **bench_layer(layer, LAYER_ROUNDS),
        **bench_processes(BATCH, LAYER_ROUNDS),
        **bench_graphs(layer, GRAPH_ROUNDS),
        **bench_small(SMALL_ROUNDS),
        **bench_torchdiffeq(layer, LAYER_ROUNDS),
        **bench_flow(FLOW_ROUNDS),
        **bench_latent(LATENT_ROUNDS),
        **bench_memory(BATCH, CHANNELS),
    }
    configuration = {
        "batch": BATCH,
        "channels": CHANNELS,
        "tolerance": TOLERANCE,
        "small_tolerance": SMALL_TOLERANCE,
        "memory_tolerances": MEMORY_TOLERANCES,
        "goals": GOALS,
        "threads": threads(),
        "rounds": {
            "layer": LAYER_ROUNDS,
            "graphs": GRAPH_ROUNDS,
            "small": SMALL_ROUNDS,
            "flow": FLOW_ROUNDS,
            "latent": LATENT_ROUNDS,
        },
    }
    path = records.record_path(out, NAME, "quick-seed0")
    records.write_record(
        path,
        experiment=NAME,
        preset="quick",
        seed=0,
        configuration=configuration,
        metrics=metrics,
        history=[],
        wall_seconds=time.perf_counter() - begun,
    )
    print(f"\nrecord: {path}")
    return path


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


def digits(batch):
    """The first `batch` images (batch, 28, 28, 1) in [0, 1] of a fixed shuffle of the embedded sample, and their labels."""
    data = mnist.load_sample()
    chosen = np.random.default_rng(0).permutation(len(data.train_labels))[:batch]
    return data.train_images[chosen, ..., None] / np.float32(255), data.train_labels[chosen]


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
    shape, n = layer.z0.shape, layer.z0.size
    f = layer.dynamics.bind(shape, structure, leaves)
    size = 2 * n + num_params(leaves) + 1
    fused = layer.dynamics.augmented(shape, structure).bind((size,), leaf_tuple(leaves), leaves)
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


class SmallProblem(NamedTuple):
    """dy/dt = tanh(y W1 + b1) W2 + b2, a 2-50-2 network, at 30 times; states_bar (30, 2) is the cotangent of the states."""

    params: tuple
    y0: np.ndarray
    t: np.ndarray
    states_bar: np.ndarray

    def step(self, func, **solver):
        """A Step at the small problem's tolerance, unless solver says otherwise."""
        return solve_and_differentiate(
            func, self.y0, self.t, self.params, self.states_bar, **{"rtol": SMALL_TOLERANCE, "atol": SMALL_TOLERANCE, **solver}
        )


def make_small_problem(units=50, times=30):
    """A SmallProblem whose weights turn y a few times around the origin."""
    rng = np.random.default_rng(0)
    turn = np.array([[-0.1, 2.0], [-2.0, -0.1]])
    first = rng.normal(size=(2, units))
    second = np.linalg.pinv(first) @ turn + 0.1 * rng.normal(size=(units, 2)) / np.sqrt(units)
    params = (first, 0.1 * rng.normal(size=units), second, 0.1 * rng.normal(size=2))
    return SmallProblem(params, np.array([2.0, 0.0]), np.linspace(0.0, 10.0, times), rng.normal(size=(times, 2)) / times)


def mlp(t, y, params, tanh=anp.tanh):
    """The small problem's dy/dt, for any library whose arrays know @ and whose tanh is given."""
    w1, b1, w2, b2 = params
    return tanh(y @ w1 + b1) @ w2 + b2


def mlp_tensorflow(t, y, params):
    """`mlp` in TensorFlow operations."""
    return mlp(t, y[None], params, tf.tanh)[0]


def autograd_own(problem):
    """A function that makes a Step through autograd.scipy.integrate.odeint."""
    calls = []

    def func(y, t, *params):
        calls.append(t)
        return mlp(t, y, params)

    autograd_odeint(func, problem.y0, problem.t, problem.params, rtol=SMALL_TOLERANCE, atol=SMALL_TOLERANCE)
    nfe_forward = len(calls)

    def step():
        calls.clear()
        measured = problem.step(func, solve=autograd_odeint)
        # Its reverse sweep also calls func once at each output time but the first, for the gradient of the times.
        return measured._replace(nfe_forward=nfe_forward, nfe_backward=len(calls) - nfe_forward - (len(problem.t) - 1))

    return step


def bench_small(rounds, problem=None):
    """The small problem by autograd's own odeint, by ours and, where installed, by torchdiffeq; metrics small_*."""
    problem = problem or make_small_problem()
    heading(
        f"Small problem, 2-{len(problem.params[1])}-2 tanh network, {len(problem.t)} output times, "
        f"tolerance {SMALL_TOLERANCE:g}: milliseconds, median (minimum); evaluations"
    )
    tensorflow = TensorFlowDynamics(mlp_tensorflow, "float64")
    candidates = {
        "autograd_odeint": autograd_own(problem),
        "lsoda": lambda: problem.step(mlp, method="lsoda"),
        "adams": lambda: problem.step(mlp),
        "lsoda_tensorflow": lambda: problem.step(tensorflow, method="lsoda"),
        "adams_tensorflow": lambda: problem.step(tensorflow),
        "adams_tensorflow_warm": lambda: problem.step(tensorflow, adjoint_options={"restart": "warm"}),
    }
    if torchdiffeq_is_installed():
        candidates["torchdiffeq"] = torch_small(problem)
    results = take_turns(candidates, rounds)
    metrics = summarise(results, "small", "ms")
    reference = flat(problem.step(mlp, method="dop853", rtol=1e-12, atol=1e-12).gradient)
    rows = []
    for name, steps in results.items():
        row = [name]
        for what, seconds in (("gradient", lambda step: step.backward), ("both", lambda step: step.seconds)):
            speedup, of_minima = compare(
                [seconds(step) for step in results["autograd_odeint"]], [seconds(step) for step in steps]
            )
            metrics |= {f"small_{name}_{what}_speedup": speedup, f"small_{name}_{what}_speedup_of_minima": of_minima}
            row.append(f"{speedup:.1f} ({of_minima:.1f})")
        error = float(np.max(np.abs(flat(steps[-1].gradient) - reference)) / np.max(np.abs(reference)))
        metrics[f"small_{name}_gradient_error"] = error
        rows.append([*row, f"{error:.1e}"])
    print(
        "\nTimes faster than autograd's own odeint, median of the rounds' ratios (ratio of minima); goal for the gradient: at "
        f"least {GOALS['small_speedup']:g};\ngreatest error of the gradient over its greatest entry, against dop853 at 1e-12"
    )
    print(tabulate(rows, ["", "gradient (backward)", "both", "gradient error"], disable_numparse=True), flush=True)
    return metrics


def bench_torchdiffeq(layer, rounds):
    """The layer beside torchdiffeq's MNIST example (dopri5, adjoint); metrics torchdiffeq_*."""
    heading(
        f"The same ODE layer in torchdiffeq (dopri5, adjoint, tolerance {TOLERANCE:g}): seconds, median (minimum); evaluations"
    )
    if not torchdiffeq_is_installed():
        print('torch and torchdiffeq are not installed: pip install "neural-ode-repro[modern]"', flush=True)
        return {}
    results = take_turns({"ours": layer.step, "torchdiffeq": torch_layer(layer)}, rounds)
    metrics = summarise(results, "beside", "s")
    ratio, ratio_of_minima = compare(*([step.seconds for step in results[name]] for name in ("ours", "torchdiffeq")))
    print(
        f"Training step of the layer, ours over torchdiffeq's: {ratio:.2f} (median), {ratio_of_minima:.2f} (minima); "
        f"goal: at most {GOALS['torchdiffeq_ratio']:g}."
    )
    print("On a busy machine read the minima: PyTorch's threads wait for each other and suffer more from neighbours.")
    print(f"Threads: {threads()}", flush=True)
    return {**metrics, "torchdiffeq_ratio": ratio, "torchdiffeq_ratio_of_minima": ratio_of_minima}


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

    def images(z):
        return np.ascontiguousarray(z.transpose(0, 3, 1, 2), dtype=np.float32)

    arrays = []
    for name in ("norm1", "conv1", "norm2", "conv2", "norm3"):
        params = layer.params[name]
        if "scale" in params:
            arrays += [params["scale"], params["shift"]]
        else:
            weight = np.concatenate([params["time_weight"][:, :, None], params["weight"]], 2)
            arrays += [np.ascontiguousarray(weight.transpose(3, 2, 0, 1)), params["bias"]]
    with torch.no_grad():
        theirs = f(0.3, torch.tensor(images(layer.z0)), [torch.tensor(array) for array in arrays]).numpy()
    difference = np.abs(theirs - images(layer.dynamics.func(0.3, layer.z0, layer.params).numpy())).max()
    if difference > 1e-4:
        raise RuntimeError(f"the layer in PyTorch differs from ours by {difference:g}")
    z1_bar = images(layer.z1_bar)
    return torch_candidate(f, arrays, images(layer.z0), [0.0, 1.0], np.stack([0 * z1_bar, z1_bar]), tolerance)


def torch_small(problem):
    """A function that makes a Step of the small problem in torchdiffeq."""
    import torch

    return torch_candidate(
        lambda t, y, weights: mlp(t, y, weights, torch.tanh),
        problem.params,
        problem.y0,
        problem.t,
        problem.states_bar,
        SMALL_TOLERANCE,
    )


def bench_memory(batch, channels):
    """Peak memory of a training step of the ODE-Net at a loose and a tight tolerance; metrics memory_*."""
    heading(
        f"One training step of the whole ODE-Net (stem, ODE, head), batch {batch}, each in a fresh process: "
        "resident memory (MiB), evaluations"
    )
    loose, tight = (peak_memory(tolerance, batch, channels) for tolerance in MEMORY_TOLERANCES)
    rows = [
        [f"{tolerance:g}", f"{m['peak_mib']:.0f}", f"{m['peak_mib'] - m['before_mib']:.0f}", m["nfe_forward"], m["nfe_backward"]]
        for tolerance, m in zip(MEMORY_TOLERANCES, (loose, tight))
    ]
    print(tabulate(rows, ["tolerance", "peak", "of it the step", "nfe forward", "nfe backward"], disable_numparse=True))
    ratio = tight["peak_mib"] / loose["peak_mib"]
    evaluations = total_evaluations(tight) / total_evaluations(loose)
    print(
        f"Peak {ratio:.3f} times as high (goal: at most {GOALS['memory_ratio']:g}) for {evaluations:.1f} times the evaluations",
        flush=True,
    )
    return {
        "memory_ratio": ratio,
        "memory_evaluations_ratio": evaluations,
        **{f"memory_{name}_{key}": value for name, m in (("loose", loose), ("tight", tight)) for key, value in m.items()},
    }


def total_evaluations(measured):
    """Evaluations forward and backward of what peak_memory returned."""
    return measured["nfe_forward"] + measured["nfe_backward"]


def peak_memory(tolerance, batch=BATCH, channels=CHANNELS):
    """Memory of one training step in a fresh process: {"peak_mib", "before_mib", "nfe_forward", "nfe_backward"}."""
    child = subprocess.run(
        [sys.executable, "-m", "experiments.bench", "memory", str(tolerance), str(batch), str(channels)],
        cwd=records.REPOSITORY,
        capture_output=True,
        text=True,
    )
    if child.returncode:
        raise RuntimeError(f"measuring memory failed with status {child.returncode}: {child.stderr[-2000:]}")
    return json.loads(child.stdout.splitlines()[-1])


def measure_memory(tolerance, batch, channels):
    """What peak_memory returns, for this process: it must not have done anything before."""
    params = supervised.init_odenet(np.random.default_rng(0), mnist.FORMAT, channels=channels)
    net = supervised.OdeNet(mnist.FORMAT, "adams", tolerance, tolerance, groups=channels // 2)
    images, labels = digits(batch)
    before = resident_peak()
    metrics, _ = net.value_and_grad(params, images, labels)
    return {
        "peak_mib": resident_peak(),
        "before_mib": before,
        **{name: metrics[name] for name in ("nfe_forward", "nfe_backward")},
    }


def resident_peak():
    """The most memory (MiB) that this process has had resident.

    Linux hands ru_maxrss on from the process that started this one, large as it may have been; VmHWM begins anew.
    """
    try:
        lines = Path("/proc/self/status").read_text().splitlines()
        return next(int(line.split()[1]) for line in lines if line.startswith("VmHWM")) / 2**10
    except (OSError, StopIteration):
        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / (2**20 if platform.system() == "Darwin" else 2**10)


if __name__ == "__main__":
    if len(sys.argv) != 5 or sys.argv[1] != "memory":
        raise SystemExit("usage: python -m experiments.bench memory TOLERANCE BATCH CHANNELS (all: python -m experiments bench)")
    print(json.dumps(measure_memory(float(sys.argv[2]), int(sys.argv[3]), int(sys.argv[4]))))
