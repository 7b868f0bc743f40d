"""Today's solvers_bridge does what the software of June 2018 did: every trace of results/stack_2018, replayed.

The traces were recorded with NumPy 1.14.5, SciPy 1.1.0, autograd 1.2 and TensorFlow 1.8.0 under Python 3.6 by
original_repro/stack_2018. No count of evaluations or steps may differ where the dynamics are float64. States and gradients may
differ by 1e-9: NumPy's tanh is no longer the mathematical library's, and OpenBLAS has other kernels. Where neither plays a part,
every bit is the same (the last test).
"""

import json
import math
import os
import platform
import subprocess
import sys
from functools import lru_cache
from pathlib import Path

import autograd.numpy as anp
import numpy as np
import pytest
import scipy
from autograd import grad
from autograd.tracer import getval

from original_repro.datasets.mnist import FORMAT
from solvers_bridge import TensorFlowDynamics, odeint, record_solves

ROOT = Path(__file__).resolve().parents[2]
TRACES = ROOT / "results" / "stack_2018"
METHODS = {
    "vode-adams": "adams",
    "vode-bdf": "bdf",
    "lsoda-odeint": "lsoda",
    "lsoda-ode": "lsoda",
    "dopri5": "dopri5",
    "dop853": "dop853",
}
COUNTS = ("evaluations", "steps", "nje", "last_order")

BOUND = 1e-9
# The last step size is where a difference in the last bit shows most: an error estimate is a difference of nearly equal numbers.
LAST_STEP_BOUND = 1e-3
# name of a trace, up to a blank: (bound on states and gradients, why); counts are the same there too.
WIDER = {
    "classics/pleiades": (
        1e-4,
        "close encounters of seven bodies amplify the last bits of OpenBLAS's daxpy, which fuses "
        "multiplication and addition, in VODE; without that every bit is as in 2018 (the last test)",
    ),
    "adjoint/tanh_minibatch": (
        1e-7,
        "the last bits of NumPy's tanh move step sizes by 1e-6, and those an error of 1e-3; with "
        "the mathematical library's tanh and OPENBLAS_CORETYPE=Nehalem every bit is as in 2018",
    ),
}


def tanh(t, y, params):
    w1, b1, w2, b2 = params
    return anp.dot(anp.tanh(anp.dot(y, w1) + b1), w2) + b2


def softplus_time(t, y, params):
    w1, v, b1, w2, b2 = params
    return anp.dot(anp.logaddexp(0.0, anp.dot(y, w1) + t * v + b1), w2) + b2


def tanh_minibatch(t, y, params):
    w1, v, b1, w2, b2 = params
    return anp.dot(anp.tanh(anp.dot(y, w1) + t * v + b1), w2) + b2


def rational(t, y, params):
    w1, b1, w2, b2 = params
    return linear(ratio(linear(y, w1) + b1), w2) + b2


def rational_time(t, y, params):
    w1, v, b1, w2, b2 = params
    return linear(ratio(linear(y, w1) + t * v + b1), w2) + b2


def ratio(x):
    return x / (1.0 + x * x)


def linear(y, w):
    """y w without BLAS, in an order of additions that is written out."""
    total = y[0] * w[0]
    for i in range(1, len(w)):
        total = total + y[i] * w[i]
    return total


NETWORKS = {func.__name__: func for func in (tanh, softplus_time, tanh_minibatch, rational, rational_time)}


@lru_cache
def trace(name):
    return json.loads((TRACES / f"{name}.json").read_text())


def network(inputs, name):
    """(func, y0, params) from the inputs stored in a trace; a minibatch in its own shape."""
    y0 = np.array(inputs[name]["y0"])
    shape = (inputs[name]["samples"], -1) if inputs[name]["samples"] > 1 else (-1,)
    return NETWORKS[name], y0.reshape(shape), [np.array(leaf) for leaf in inputs[name]["params"]]


def solver(entry):
    """Keyword arguments of odeint for an entry of a trace."""
    return {"method": METHODS[entry["method"]], "rtol": entry["tolerance"], "atol": entry["tolerance"]}


def solved(func, y0, params, entry):
    """(states after the first, flat; statistics) of today's solve of an entry, LSODA through odeint or ode as in the trace."""
    with record_solves(steps=entry["method"] == "lsoda-ode") as solves:
        ys = odeint(func, y0, entry["times"], params, **solver(entry))
    (statistics,) = solves
    return ys[1:].reshape(len(ys) - 1, -1), statistics


def counts(statistics):
    return {"evaluations": statistics.nfe, "steps": statistics.steps, "nje": statistics.nje, "last_order": statistics.last_order}


def counts_that_differ(label, recorded, statistics):
    now = counts(statistics)
    lines = [f"{label}: {key} was {recorded[key]}, is {now[key]}" for key in COUNTS if recorded[key] != now[key]]
    if abs(statistics.last_step / recorded["last_step"] - 1) > LAST_STEP_BOUND:
        lines.append(f"{label}: last step was {recorded['last_step']}, is {statistics.last_step}")
    return lines


def relative_difference(now, then):
    """Largest difference, relative to the largest entry."""
    now, then = np.asarray(now).reshape(-1), np.asarray(then).reshape(-1)
    return np.max(np.abs(now - then)) / np.max(np.abs(then))


def too_far(label, now, then):
    bound, reason = WIDER.get(label.split()[0], (BOUND, "no reason known for more"))
    difference = relative_difference(now, then)
    return [] if difference <= bound else [f"{label}: {difference:.2g} apart, {bound:g} allowed: {reason}"]


def replayed_forward(entry):
    return solved(*network(trace("forward")["networks"], entry["network"]), entry)


def replayed_classic(entry):
    problem = trace("classics")["problems"][entry["problem"]]
    functions = {"sqrt": math.sqrt, "sin": math.sin, "cos": math.cos}
    rhs = eval(f"lambda t, y: [{', '.join(problem['rhs'])}]", functions)
    return solved(lambda t, y, _: np.array(rhs(t, y.tolist())), problem["y0"], (), entry)


def replayed_sweep(entry):
    """(gradients named as in the trace, forward statistics, list of backward statistics)."""
    func, y0, params = network(trace("adjoint")["networks"], entry["network"])
    cotangents = np.reshape(entry["cotangents"], (len(entry["times"]), *y0.shape))

    def loss(y0, t, params):
        return anp.sum(cotangents * odeint(func, y0, t, params, **solver(entry)))

    with record_solves() as solves:
        y0_bar, times_bar, params_bar = grad(loss, (0, 1, 2))(y0, np.array(entry["times"]), params)
    params_bar = np.concatenate([leaf.reshape(-1) for leaf in params_bar])
    gradients = {"y0_bar": y0_bar, "times_bar": times_bar, "params_bar": params_bar}
    forward, *backward = solves
    return gradients, forward, backward


def segments(entry):
    """The statistics of each segment of a recorded reverse sweep, the last in time first."""
    recorded = entry["backward"]
    return [{key: values[i] for key, values in recorded.items()} for i in range(len(recorded["steps"]))]


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("name", NETWORKS)
def test_forward_solves(name, method):
    entries = [entry for entry in trace("forward")["solves"] if entry["network"] == name and entry["method"] == method]
    assert len(entries) == 9
    lines = []
    for entry in entries:
        states, statistics = replayed_forward(entry)
        label = f"forward/{entry['name']}"
        lines += counts_that_differ(label, entry, statistics) + too_far(label, states, entry["states"])
    assert not lines


@pytest.mark.parametrize("problem", trace("classics")["problems"])
def test_classics(problem):
    entries = [entry for entry in trace("classics")["solves"] if entry["problem"] == problem]
    assert len(entries) >= 6
    lines = []
    for entry in entries:
        states, statistics = replayed_classic(entry)
        label = f"classics/{entry['name']}"
        lines += counts_that_differ(label, entry, statistics) + too_far(label, states, entry["states"])
    assert not lines


@pytest.mark.parametrize("method", ("vode-adams", "lsoda-odeint"))
@pytest.mark.parametrize("name", NETWORKS)
def test_gradients(name, method):
    entries = [entry for entry in trace("adjoint")["sweeps"] if entry["network"] == name and entry["method"] == method]
    assert len(entries) == 7
    lines = []
    for entry in entries:
        gradients, forward, backward = replayed_sweep(entry)
        label = f"adjoint/{entry['name']}"
        lines += counts_that_differ(f"{label} forward", entry["forward"], forward)
        for i, (then, now) in enumerate(zip(segments(entry), backward, strict=True)):
            lines += counts_that_differ(f"{label} segment {i}", then, now)
        for key, value in gradients.items():
            lines += too_far(f"{label} {key}", value, entry[key])
    assert not lines


# Bounds for the ODE-Net in float32. TensorFlow 1.8 and today's add in other orders: f differs by 4e-7, and step sizes follow. In
# a training step the adjoint is as small as the absolute tolerance, so that its discretisation error shows: today's gradients
# with the dynamics in float64 are 3e-3 from those in float32, at the same counts.
LAYER = {"evaluations": 0, "states": 2e-6, "gradients": 1e-4}
STEP = {"evaluations": 0, "states": 1e-5, "gradients": 5e-3, "loss": 1e-6}
# Where the trace has a reason for another course at tolerance 1e-3: so many evaluations more or fewer in a solve.
OTHER_COURSE = {"evaluations": 10, "states": 3e-3, "gradients": 0.3, "loss": 1e-4}


def splitmix64(seed, count):
    """Steele, Lea and Flood (2014), as original_repro/stack_2018/generator.py says."""
    z = np.uint64(seed) + np.arange(1, count + 1, dtype=np.uint64) * np.uint64(0x9E3779B97F4A7C15)
    z = (z ^ (z >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    z = (z ^ (z >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return z ^ (z >> np.uint64(31))


def uniform(seed, shape):
    return ((splitmix64(seed, math.prod(shape)) >> np.uint64(40)).astype(np.float64) / 2**23 - 1).reshape(shape)


def projections(seed, array, count):
    bits = splitmix64(seed, array.size)
    flat = np.asarray(array, np.float64).reshape(-1)
    return np.array([np.sum((1.0 - 2.0 * ((bits >> np.uint64(k)) & np.uint64(1))) * flat) for k in range(count)])


def odenet_parameters(part, seed):
    """The parameters that original_repro/stack_2018/odenet.py makes, in the nesting of supervised.init_odenet."""
    from original_repro import supervised

    params = {}
    for layer, leaves in supervised.init_odenet(np.random.default_rng(0), FORMAT)[part].items():
        params[layer] = {}
        for name, leaf in leaves.items():
            u = uniform(seed, leaf.shape)
            seed += 1
            if name in ("scale", "shift"):
                value = 0.1 * u + (1.0 if name == "scale" else 0.0)
            else:
                # t is one more channel of the input.
                time_inputs = math.prod(leaves["time_weight"].shape[:-1]) if "time_weight" in leaves else 0
                value = u / math.sqrt(math.prod(leaves["weight"].shape[:-1]) + time_inputs)
            params[layer][name] = value.astype(np.float32)
    return params


def named_leaves(params, prefix=""):
    for name, item in params.items():
        if isinstance(item, dict):
            yield from named_leaves(item, f"{prefix}{name}/")
        else:
            yield f"{prefix}{name}", item


def estimated_difference(arrays, key, now, sign_seed):
    """Norm of the difference to a recorded array, relative to its norm; estimated where only projections are stored."""
    if key in arrays:
        return np.linalg.norm(now - arrays[key]) / np.linalg.norm(arrays[key])
    then = arrays[f"{key}/projections"]
    return np.sqrt(np.mean((projections(sign_seed, now, len(then)) - then) ** 2)) / arrays[f"{key}/norm"]


def odenet_solver(recorded, entry):
    settings = {"method": METHODS[entry["method"]], "rtol": recorded["tolerance"], "atol": recorded["tolerance"]}
    return settings | ({"options": {"first_step": entry["first_step"]}} if entry["first_step"] else {})


def assert_counts(entry, solves, allowed):
    recorded = [entry["forward"], *entry["backward"]]
    assert [solve.direction for solve in solves] == ["forward"] + ["backward"] * len(entry["backward"])
    if not allowed:
        assert [counts(solve) for solve in solves] == [{key: then[key] for key in COUNTS} for then in recorded]
    differences = [solve.nfe - then["evaluations"] for solve, then in zip(solves, recorded, strict=True)]
    assert np.abs(differences).max() <= allowed, (differences, entry.get("reason"))


@pytest.fixture(scope="module")
def conv_dynamics():
    from original_repro import supervised

    return TensorFlowDynamics(lambda t, z, params: supervised.conv_dynamics(t, z, params))


@pytest.mark.parametrize("entry", trace("odenet_layer")["solves"], ids=lambda entry: entry["name"])
def test_odenet_layer(entry, conv_dynamics):
    recorded, bounds = trace("odenet_layer"), OTHER_COURSE if "reason" in entry else LAYER
    shape, seeds = recorded["shape"], recorded["seeds"]
    y0, params = uniform(seeds["y0"], shape), odenet_parameters("dynamics", seeds["params"])
    cotangents = uniform(seeds["cotangents"], (len(recorded["times"]), *shape)) / recorded["cotangent_divisor"]
    states = []

    def loss(y0, t, params):
        ys = odeint(conv_dynamics, y0, t, params, **odenet_solver(recorded, entry))
        states.append(getval(ys))
        return anp.sum(cotangents * ys)

    with record_solves() as solves:
        y0_bar, times_bar, params_bar = grad(loss, (0, 1, 2))(y0, np.array(recorded["times"]), params)
    assert_counts(entry, solves, bounds["evaluations"])
    assert relative_difference(times_bar, entry["times_bar"]) < bounds["states"]
    with np.load(TRACES / "odenet_layer.npz") as arrays:
        for name, value in (("states/1", states[0][1]), ("states/2", states[0][2])):
            assert estimated_difference(arrays, f"{entry['name']}/{name}", value, seeds["signs"]) < bounds["states"], name
        for name, value in (("y0_bar", y0_bar), *named_leaves(params_bar)):
            assert estimated_difference(arrays, f"{entry['name']}/{name}", value, seeds["signs"]) < bounds["gradients"], name


@pytest.fixture(scope="module")
def network_of_today():
    from original_repro import supervised

    return supervised.OdeNet(FORMAT, winograd=False)  # the convolutions of 2018 were direct ones


@pytest.mark.parametrize("entry", trace("odenet_step")["steps"], ids=lambda entry: entry["name"])
def test_odenet_training_step(entry, network_of_today):
    from original_repro import supervised
    from original_repro.datasets import mnist

    recorded, bounds = trace("odenet_step"), OTHER_COURSE if "reason" in entry else STEP
    field, start, end = recorded["images"]
    images = getattr(mnist.load_sample(), field)[start:end, ..., None].astype(np.float32) / np.float32(255)
    labels = np.array(recorded["labels"])
    params = {part: odenet_parameters(part, recorded["seeds"][part]) for part in ("stem", "dynamics", "head")}
    assert sum(leaf.size for _, leaf in named_leaves(params)) == 208_266

    network = network_of_today
    network.solver = odenet_solver(recorded, entry)
    with record_solves() as solves:
        metrics, gradient = network.value_and_grad(params, images, labels)
    assert_counts(entry, solves, bounds["evaluations"])
    assert metrics["loss"] == pytest.approx(entry["loss"], rel=bounds["loss"])
    z1 = odeint(network.dynamics, network.stem(params["stem"], images), [0.0, 1.0], params["dynamics"], **network.solver)[-1]
    logits = supervised.head(params["head"], z1.astype(np.float32))
    assert relative_difference(logits, entry["logits"]) < bounds["states"]
    with np.load(TRACES / "odenet_step.npz") as arrays:
        for name, value in named_leaves(gradient):
            difference = estimated_difference(arrays, f"{entry['name']}/{name}", value, recorded["seeds"]["signs"])
            assert difference < bounds["gradients"], name


def bits_that_differ():
    """Labels of traces at 1e-6 that differ at all, of those in plain arithmetic: no mathematical library, no product by BLAS."""

    def chosen(name, kind):
        return (entry for entry in trace(name)[kind] if entry["tolerance"] == 1e-6)

    different = []
    for entry in chosen("forward", "solves"):
        if entry["network"].startswith("rational"):
            states, statistics = replayed_forward(entry)
            if states.tolist() != entry["states"] or statistics.last_step != entry["last_step"]:
                different.append(f"forward/{entry['name']}")
    for entry in chosen("classics", "solves"):
        if not any(name in "".join(trace("classics")["problems"][entry["problem"]]["rhs"]) for name in ("sin", "cos")):
            states, statistics = replayed_classic(entry)
            if states.tolist() != entry["states"] or statistics.last_step != entry["last_step"]:
                different.append(f"classics/{entry['name']}")
    for entry in chosen("adjoint", "sweeps"):
        if entry["network"].startswith("rational") and entry["name"].split()[1] == "several":
            gradients, _, _ = replayed_sweep(entry)
            if any(value.tolist() != entry[key] for key, value in gradients.items()):
                different.append(f"adjoint/{entry['name']}")
    return different


def has_openblas():
    return "openblas" in scipy.show_config(mode="dicts")["Build Dependencies"]["blas"]["name"]


@pytest.mark.skipif(platform.machine() != "x86_64" or not has_openblas(), reason="needs the kernels of OpenBLAS for x86-64")
def test_every_bit_where_blas_has_the_same_kernels():
    """VODE's vectors go through BLAS; the traces were recorded with kernels that do not fuse multiplication and addition."""
    environment = {**os.environ, "OPENBLAS_CORETYPE": "Nehalem", "OPENBLAS_NUM_THREADS": "1", "PYTHONPATH": str(ROOT)}
    ran = subprocess.run([sys.executable, __file__], env=environment, capture_output=True, text=True, timeout=300)
    assert ran.returncode == 0, ran.stderr[-2000:]
    assert json.loads(ran.stdout.splitlines()[-1]) == []


if __name__ == "__main__":
    print(json.dumps(bits_that_differ()))
