"""Training: optimisers, learning-rate schedules, batches, checkpoints, and the loop that every experiment runs.

Parameters are nested dicts, lists and tuples of floating-point NumPy arrays. Nothing here knows a model, a data set or a
differential equation, and nothing mutates what it is given.
"""

import glob
import io
import json
import math
import os
import secrets
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import numpy as np
from tqdm import tqdm

# Nested parameters


def tree_map(function, tree, *others):
    """Apply `function` to the arrays of `tree`, and to those at the same places of `others`; returns the same nesting.

    Raises ValueError where the nestings differ.
    """
    if type(tree) not in (dict, list, tuple):
        return function(tree, *others)
    for other in others:
        if type(other) is not type(tree) or len(other) != len(tree) or (type(tree) is dict and other.keys() != tree.keys()):
            raise ValueError(f"nestings differ: {_outline(tree)} and {_outline(other)}")
    if type(tree) is dict:
        return {key: tree_map(function, *(branch[key] for branch in (tree, *others))) for key in tree}
    return type(tree)(tree_map(function, *branches) for branches in zip(tree, *others))


def tree_leaves(tree):
    """The arrays of a nesting, in its order, as a list."""
    if type(tree) not in (dict, list, tuple):
        return [tree]
    return [leaf for branch in (tree.values() if type(tree) is dict else tree) for leaf in tree_leaves(branch)]


def _outline(tree):
    if type(tree) is dict:
        return f"a dict of {list(tree)}"
    return f"a {type(tree).__name__} of {len(tree)}" if type(tree) in (list, tuple) else f"one {type(tree).__name__}"


# Optimisers


class Optimiser(NamedTuple):
    """A way to turn gradients into new parameters; both functions are pure.

    settings: the name and constants, by which a checkpoint knows its optimiser.
    init: params -> state.
    update: (grads, state, params, learning_rate) -> (new_params, new_state). Each array keeps its dtype, and comes back in C
        order, so that it is the same to a model before and after a checkpoint. ValueError where the shapes of the gradients
        are not those of the parameters.
    """

    settings: dict
    init: Callable
    update: Callable


def sgd(momentum=0.9, nesterov=False, weight_decay=0.0):
    """Stochastic gradient descent with momentum (Sutskever, Martens, Dahl, Hinton 2013), as PyTorch's SGD has it.

    g += weight_decay p; v = momentum v + g; p -= rate (g + momentum v if nesterov else v). The rate multiplies v when it is
    used, not when it is gathered, so that a cut in the rate acts at once.
    """
    _check_fraction("momentum", momentum)
    _check_not_negative("weight_decay", weight_decay)

    def init(params):
        return {"velocity": tree_map(np.zeros_like, params)}

    def update(grads, state, params, learning_rate):
        rate = float(learning_rate)
        grads = tree_map(lambda g, p: _gradient_for(p, g) + weight_decay * p, grads, params)
        velocity = tree_map(lambda v, g: _as_stored(momentum * v + g, v), state["velocity"], grads)
        ahead = tree_map(lambda g, v: g + momentum * v, grads, velocity) if nesterov else velocity
        return tree_map(lambda p, v: _as_stored(p - rate * v, p), params, ahead), {"velocity": velocity}

    return Optimiser({"name": "sgd", "momentum": momentum, "nesterov": nesterov, "weight_decay": weight_decay}, init, update)


def adam(beta1=0.9, beta2=0.999, epsilon=1e-8):
    """Adam, Algorithm 1 of Kingma and Ba (2015): both moments corrected for their start at zero, epsilon outside the root."""
    _check_fraction("beta1", beta1)
    _check_fraction("beta2", beta2)
    _check_not_negative("epsilon", epsilon)

    def init(params):
        return {"count": 0, "mean": tree_map(np.zeros_like, params), "square": tree_map(np.zeros_like, params)}

    def update(grads, state, params, learning_rate):
        rate, count = float(learning_rate), state["count"] + 1
        grads = tree_map(lambda g, p: _gradient_for(p, g), grads, params)
        mean = tree_map(lambda m, g: _as_stored(beta1 * m + (1 - beta1) * g, m), state["mean"], grads)
        square = tree_map(lambda s, g: _as_stored(beta2 * s + (1 - beta2) * g * g, s), state["square"], grads)
        mean_scale, square_scale = 1 / (1 - beta1**count), 1 / (1 - beta2**count)
        params = tree_map(
            lambda p, m, s: _as_stored(p - rate * (mean_scale * m) / (np.sqrt(square_scale * s) + epsilon), p),
            params,
            mean,
            square,
        )
        return params, {"count": count, "mean": mean, "square": square}

    return Optimiser({"name": "adam", "beta1": beta1, "beta2": beta2, "epsilon": epsilon}, init, update)


def rmsprop(decay=0.9, momentum=0.0, epsilon=1e-7):
    """RMSprop (Tieleman and Hinton 2012, lecture 6.5) in TensorFlow's form: epsilon inside the root, momentum after it.

    s = decay s + (1 - decay) g²; m = momentum m + rate g / sqrt(s + epsilon); p -= m, with s and m zero at first.
    """
    _check_fraction("decay", decay)
    _check_fraction("momentum", momentum)
    _check_not_negative("epsilon", epsilon)

    def init(params):
        return {"square": tree_map(np.zeros_like, params), "step": tree_map(np.zeros_like, params)}

    def update(grads, state, params, learning_rate):
        rate = float(learning_rate)
        grads = tree_map(lambda g, p: _gradient_for(p, g), grads, params)
        square = tree_map(lambda s, g: _as_stored(decay * s + (1 - decay) * g * g, s), state["square"], grads)
        step = tree_map(
            lambda m, g, s: _as_stored(momentum * m + rate * g / np.sqrt(s + epsilon), m), state["step"], grads, square
        )
        return tree_map(lambda p, m: _as_stored(p - m, p), params, step), {"square": square, "step": step}

    return Optimiser({"name": "rmsprop", "decay": decay, "momentum": momentum, "epsilon": epsilon}, init, update)


def clip_norm(grads, limit):
    """Gradients scaled down by one factor to a Euclidean norm of at most `limit` (Pascanu, Mikolov and Bengio 2013)."""
    if not limit > 0:
        raise ValueError(f"limit must be above 0; got {limit}")
    norm = math.sqrt(sum(float(np.vdot(g, g)) for g in tree_leaves(grads)))
    # A norm that is not finite stays in the gradients, for fit to refuse.
    return tree_map(lambda g: g * g.dtype.type(limit / norm), grads) if norm > limit else grads


def _gradient_for(param, grad):
    grad = np.asarray(grad, dtype=param.dtype)
    if grad.shape != param.shape:
        raise ValueError(f"grads must have the shapes of params; got {grad.shape} for {param.shape}")
    return grad


def _as_stored(value, like):
    return np.asarray(value, dtype=like.dtype, order="C")


# Learning rates: functions of the number of steps already taken, 0 at the first


def constant(rate):
    """The same rate at every step."""
    _check_not_negative("rate", rate)
    return lambda step: float(rate)


def piecewise(rates, cuts):
    """rates[0] before step cuts[0], rates[1] from there until before cuts[1], and so on: one rate more than there are cuts."""
    rates, cuts = [float(rate) for rate in rates], list(cuts)
    if len(rates) != len(cuts) + 1:
        raise ValueError(f"rates must have one entry more than cuts; got {len(rates)} and {len(cuts)}")
    if any(later <= earlier for earlier, later in zip(cuts, cuts[1:])):
        raise ValueError(f"cuts must increase strictly; got {cuts}")
    return lambda step: rates[sum(step >= cut for cut in cuts)]


def warmup_cosine(peak, total_steps, warmup_steps=0):
    """A straight line that reaches `peak` after `warmup_steps`, then half a cosine that reaches zero at `total_steps`."""
    _check_not_negative("peak", peak)
    if not 0 <= warmup_steps < total_steps:
        raise ValueError(f"warmup_steps must be at least 0 and below total_steps = {total_steps}; got {warmup_steps}")

    def rate(step):
        if step < warmup_steps:
            return peak * (step + 1) / (warmup_steps + 1)
        return _cosine(peak, 0.0, (step - warmup_steps) / (total_steps - warmup_steps))

    return rate


def one_cycle(peak, total_steps, warmup_fraction=0.3, start_factor=25.0, final_factor=1e4):
    """Half a cosine up from peak / start_factor, then one down to peak / (start_factor final_factor) at the last step.

    Smith and Topin (2018), "Super-convergence", in the form of PyTorch's OneCycleLR.
    """
    _check_not_negative("peak", peak)
    if not 0 < warmup_fraction < 1:
        raise ValueError(f"warmup_fraction must lie between 0 and 1; got {warmup_fraction}")
    summit = warmup_fraction * total_steps - 1
    if summit <= 0:
        raise ValueError(f"total_steps must leave a step for the way up: more than {1 / warmup_fraction:g}; got {total_steps}")
    start = peak / start_factor

    def rate(step):
        if step < summit:
            return _cosine(start, peak, step / summit)
        return _cosine(peak, start / final_factor, (step - summit) / (total_steps - 1 - summit))

    return rate


def _cosine(first, last, fraction):
    return last + (first - last) * 0.5 * (1 + math.cos(math.pi * min(fraction, 1.0)))


# Batches


def minibatches(order, batch_size, drop_last=True):
    """Cut a permutation of the examples into batches: a list of index arrays, without the odd last one if `drop_last`.

    Raises ValueError where that would leave no batch.
    """
    _check_at_least_one("batch_size", batch_size)
    stop = len(order) - len(order) % batch_size if drop_last else len(order)
    if stop == 0:
        raise ValueError(
            f"batch_size must be at most the {len(order)} examples where the last batch is dropped; got {batch_size}"
        )
    return [order[start : start + batch_size] for start in range(0, stop, batch_size)]


def random_crops(images, rng, padding=4):
    """Images of shape (batch, height, width, ...) moved by up to `padding` pixels each way, each by its own draw.

    The same as padding with zeros on all sides and cutting the original size out at random: the paper's augmentation.
    """
    images = np.asarray(images)
    if images.ndim < 3:
        raise ValueError(f"images must have shape (batch, height, width, ...); got {images.shape}")
    if padding < 0:
        raise ValueError(f"padding must be at least 0; got {padding}")
    count, height, width = images.shape[:3]
    margins = [(0, 0), (padding, padding), (padding, padding)] + [(0, 0)] * (images.ndim - 3)
    top, left = rng.integers(0, 2 * padding + 1, size=(2, count))
    rows = top[:, None, None] + np.arange(height)[:, None]
    columns = left[:, None, None] + np.arange(width)
    return np.pad(images, margins)[np.arange(count)[:, None, None], rows, columns]


# Checkpoints

CHECKPOINT_FORMAT = "neural-ode-repro checkpoint, version 1"


class CheckpointError(RuntimeError):
    """A file is no checkpoint, or not one of this run."""


def save_checkpoint(path, state):
    """Write `state` to `path`, an .npz file, in one atomic step: whoever reads it finds all of it or what was there before.

    state: nested dicts (keys: str or int), lists and tuples of None, bool, int, float, str, NumPy numbers and arrays. Raises
    TypeError where it holds anything else. Nothing is pickled.
    """
    members, floats = {}, []
    structure = json.dumps({"format": CHECKPOINT_FORMAT, "state": _encode(state, members, floats)})
    members["structure"] = np.frombuffer(structure.encode(), np.uint8)
    members["floats"] = np.array(floats, np.float64)
    content = io.BytesIO()
    np.savez(content, **members)
    write_atomically(path, content.getvalue())


def load_checkpoint(path):
    """The state that `save_checkpoint` wrote to `path`, equal bit for bit; arrays are in C order unless Fortran-contiguous.

    Raises CheckpointError where the file is cut short, damaged or foreign; OSError where it cannot be read at all.
    """
    content = Path(path).read_bytes()
    try:
        with np.load(io.BytesIO(content), allow_pickle=False) as members:
            structure = json.loads(members["structure"].tobytes())
            if structure["format"] != CHECKPOINT_FORMAT:
                raise ValueError(f"its format is {structure['format']!r}, not {CHECKPOINT_FORMAT!r}")
            return _decode(structure["state"], members, members["floats"].tolist())
    except Exception as error:  # a damaged archive can fail anywhere in zipfile, numpy or json, in as many ways
        raise CheckpointError(
            f"{path} is not a whole checkpoint of this program ({type(error).__name__}: {error}); remove it to begin anew"
        ) from error


def save_weights(path, params):
    """Write nested dicts and lists of arrays to `path`, an .npz file, atomically: float32, compressed, no pickles.

    An array's name in the file is its way through the nesting: "stem/conv1/weight", "blocks/0/norm1/scale". Keys are therefore
    strings without a slash that are not whole numbers, and nothing in the nesting is empty: ValueError otherwise.
    """
    content = io.BytesIO()
    np.savez_compressed(content, **{name: np.asarray(leaf, np.float32) for name, leaf in _named_leaves(params)})
    Path(path).parent.mkdir(parents=True, exist_ok=True)
    write_atomically(path, content.getvalue())


def load_weights(path):
    """The nested dicts and lists of float32 arrays that `save_weights` wrote to `path`; tuples come back as lists.

    Raises CheckpointError where the file is cut short, damaged or foreign; OSError where it cannot be read at all.
    """
    content = Path(path).read_bytes()
    nesting = {}
    try:
        with np.load(io.BytesIO(content), allow_pickle=False) as arrays:
            for name in arrays.files:
                *branches, leaf = name.split("/")
                place = nesting
                for branch in branches:
                    place = place.setdefault(branch, {})
                place[leaf] = arrays[name]
    except Exception as error:  # as in load_checkpoint
        raise CheckpointError(f"{path} is not a whole file of weights ({type(error).__name__}: {error})") from error
    return _with_lists(nesting)


def _named_leaves(tree, name=""):
    if name and type(tree) not in (dict, list, tuple):
        return [(name, tree)]
    branches = list(tree.items()) if type(tree) is dict else list(enumerate(tree)) if type(tree) in (list, tuple) else []
    if not branches or type(tree) is dict and any(type(key) is not str or "/" in key or key.isdigit() for key in tree):
        raise ValueError(
            f"params must have string keys without a slash that are not whole numbers, and nothing empty; "
            f"got {_outline(tree)} at {name or 'the top'!r}"
        )
    return [pair for key, branch in branches for pair in _named_leaves(branch, f"{name}/{key}" if name else str(key))]


def _with_lists(nesting):
    if not isinstance(nesting, dict):
        return nesting
    branches = {key: _with_lists(branch) for key, branch in nesting.items()}
    return list(branches.values()) if all(key.isdigit() for key in branches) else branches


def write_atomically(path, content):
    """Write the bytes `content` to `path` so that no reader, and no end of this process, ever finds a part of them there."""
    path = Path(path)
    temporary = path.with_name(f"{path.name}.{secrets.token_hex(8)}.tmp")
    try:
        with open(temporary, "xb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, path)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise


def _encode(node, members, floats):
    # Floats go into an array, not into the JSON text, which has no infinities and forgets the bits of a NaN.
    if node is None or type(node) in (bool, int, str):
        return node
    if type(node) is float:
        floats.append(node)
        return ["float", len(floats) - 1]
    if isinstance(node, (np.ndarray, np.generic)) and node.dtype.kind in "biufc":
        name = f"array_{len(members)}"
        members[name] = np.asarray(node)
        return ["array" if isinstance(node, np.ndarray) else "number", name]
    if type(node) is dict and all(type(key) in (str, int) for key in node):
        return ["dict", [[key, _encode(value, members, floats)] for key, value in node.items()]]
    if type(node) in (list, tuple):
        return [type(node).__name__, [_encode(value, members, floats) for value in node]]
    raise TypeError(
        f"state must hold dicts with str or int keys, lists, tuples, plain values and numeric arrays; "
        f"got a {type(node).__name__}: {node!r:.80}"
    )


def _decode(node, members, floats):
    if not isinstance(node, list):
        return node
    kind, content = node
    if kind == "float":
        return floats[content]
    if kind in ("array", "number"):
        return members[content] if kind == "array" else members[content][()]
    if kind == "dict":
        return {key: _decode(value, members, floats) for key, value in content}
    return {"list": list, "tuple": tuple}[kind](_decode(value, members, floats) for value in content)


# The loop

_EPOCH_START = {"order": None, "position": 0, "sums": {}, "examples": 0, "seconds": 0.0}


def fit(
    value_and_grad_fn,
    params,
    data,
    *,
    optimiser,
    schedule,
    epochs,
    batch_size,
    seed,
    drop_last=True,
    augment=None,
    evaluate=None,
    checkpoint=None,
    checkpoint_every=200,
    checkpoint_seconds=None,
    configuration=None,
    progress=True,
):
    """Train `params` on `data`; returns (params, history).

    value_and_grad_fn(params, *batch): -> (metrics, grads); metrics is a dict of numbers with "loss" among them.
    params: initial parameters, nested dicts, lists and tuples of floating-point arrays.
    data: tuple of arrays; their leading axis is the examples.
    optimiser, schedule: an `Optimiser`, and a function from the step, 0 at the first, to the learning rate.
    epochs, batch_size, drop_last: passes through `data`; examples a step; whether an odd last batch is left out.
    seed: an int from 0, of the one PCG64 generator that shuffles each epoch and serves `augment`.
    augment(batch, rng): -> the batch for value_and_grad_fn, of as many arrays as that wants; all randomness belongs here.
    evaluate(params): -> a dict of numbers, called at each epoch's end.
    checkpoint: a path, the run's own; saved to every `checkpoint_every` steps, every `checkpoint_seconds`, and at each
        epoch's end. Where the file exists the run goes on from it, and ends as if it had never been stopped; a finished run
        returns from it at once. None: neither saves nor resumes.
    configuration: a dict, JSON's types only, of whatever else makes this run what it is.
    progress: show on standard error a bar if that is a terminal, and plain lines otherwise.

    history is a list with a dict for each epoch: "epoch" (from 1), "steps" (from the run's start), "learning_rate" (of the
    last step), "wall_seconds" (work lost to a stop not counted), "train" (means of the metrics over the examples) and
    "evaluation" (what `evaluate` returned, or an empty dict).

    Raises ValueError and TypeError for arguments that make no sense; CheckpointError where `checkpoint` is no checkpoint, or
    that of another configuration, and says what differs; FloatingPointError, before the parameters are touched, where a
    loss or a gradient is not finite.
    """
    params, data = _check_params(params), _check_data(data)
    _check_at_least_one("epochs", epochs)
    rng = np.random.Generator(np.random.PCG64(_check_seed(seed)))
    total_steps = epochs * len(minibatches(range(len(data[0])), batch_size, drop_last))
    identity = {
        "configuration": _check_configuration(configuration),
        "optimiser": optimiser.settings,
        "epochs": epochs,
        "batch_size": batch_size,
        "seed": seed,
        "drop_last": drop_last,
        "learning_rates": [float(schedule(total_steps * quarter // 4)) for quarter in range(4)],
        "data": [f"{array.dtype} {array.shape}" for array in data],
        "params": tree_map(lambda p: f"{p.dtype} {p.shape}", params),
    }
    keeper = _CheckpointKeeper(checkpoint, checkpoint_every, checkpoint_seconds, identity)
    run = keeper.resume() or {
        "params": params,
        "optimiser": optimiser.init(params),
        "generator": rng.bit_generator.state,
        "step": 0,
        "history": [],
        **_EPOCH_START,
    }
    rng.bit_generator.state = run["generator"]

    with _Progress(progress, epochs, total_steps, run["step"]) as shown:
        while len(run["history"]) < epochs:
            epoch, begun = len(run["history"]) + 1, time.monotonic() - run["seconds"]
            if run["order"] is None:
                run["order"] = rng.permutation(len(data[0]))
            for indices in minibatches(run["order"], batch_size, drop_last)[run["position"] :]:
                batch = tuple(array[indices] for array in data)
                if augment is not None:
                    batch = augment(batch, rng)
                metrics, grads = value_and_grad_fn(run["params"], *batch)
                metrics = _check_step(metrics, grads, run["sums"], f"epoch {epoch}, step {run['step'] + 1}")
                run["params"], run["optimiser"] = optimiser.update(grads, run["optimiser"], run["params"], schedule(run["step"]))
                run["sums"] = {name: run["sums"].get(name, 0.0) + len(indices) * value for name, value in metrics.items()}
                run["examples"] += len(indices)
                run["step"] += 1
                run["position"] += 1
                shown.step(epoch, run["step"], metrics)
                if keeper.due(run["step"]):
                    keeper.save(run | {"seconds": time.monotonic() - begun, "generator": rng.bit_generator.state})
            evaluation = {} if evaluate is None else {name: float(value) for name, value in evaluate(run["params"]).items()}
            record = {
                "epoch": epoch,
                "steps": run["step"],
                "learning_rate": float(schedule(run["step"] - 1)),
                "wall_seconds": time.monotonic() - begun,
                "train": {name: total / run["examples"] for name, total in run["sums"].items()},
                "evaluation": evaluation,
            }
            run |= {"history": run["history"] + [record], **_EPOCH_START}
            keeper.save(run | {"generator": rng.bit_generator.state})
            shown.epoch(record)
    return run["params"], run["history"]


def fit_in_chunks(
    advance,
    params,
    *,
    optimiser,
    schedule,
    epochs,
    chunks,
    chunk_steps,
    seed,
    evaluate=None,
    checkpoint=None,
    checkpoint_seconds=5.0,
    configuration=None,
    progress=True,
):
    """Train `params` by a function that takes many steps at a time, a compiled one perhaps; returns (params, history) as `fit`.

    advance(params, state, first_step, learning_rate, seed): -> (params, state, mean loss) after `chunk_steps` steps of
        `optimiser`, whose state goes in and out; its randomness is to depend on seed and the number of the step only.
    epochs, chunks: records in the history, and calls of `advance` for each.
    schedule: asked at the beginning of a chunk.
    Other arguments, the history and the errors are those of `fit`; metrics have "loss" alone.
    """
    params = _check_params(params)
    for name, value in (("epochs", epochs), ("chunks", chunks), ("chunk_steps", chunk_steps)):
        _check_at_least_one(name, value)
    total_steps = epochs * chunks * chunk_steps
    identity = {
        "configuration": _check_configuration(configuration),
        "optimiser": optimiser.settings,
        "epochs": epochs,
        "chunks": chunks,
        "chunk_steps": chunk_steps,
        "seed": _check_seed(seed),
        "learning_rates": [float(schedule(total_steps * quarter // 4)) for quarter in range(4)],
        "params": tree_map(lambda p: f"{p.dtype} {p.shape}", params),
    }
    keeper = _CheckpointKeeper(checkpoint, total_steps, checkpoint_seconds, identity)
    start = {"losses": [], "seconds": 0.0}
    run = keeper.resume() or {"params": params, "optimiser": optimiser.init(params), "step": 0, "history": [], **start}
    with _Progress(progress, epochs, total_steps, run["step"]) as shown:
        while len(run["history"]) < epochs:
            epoch, begun = len(run["history"]) + 1, time.monotonic() - run["seconds"]
            while len(run["losses"]) < chunks:
                rate = float(schedule(run["step"]))
                new_params, state, loss = advance(run["params"], run["optimiser"], run["step"], rate, seed)
                where = f"epoch {epoch}, before step {run['step'] + chunk_steps + 1}"
                _check_step({"loss": loss}, new_params, {}, where)
                run |= {
                    "params": new_params,
                    "optimiser": state,
                    "step": run["step"] + chunk_steps,
                    "losses": run["losses"] + [float(loss)],
                }
                shown.step(epoch, run["step"], {"loss": loss}, chunk_steps)
                if keeper.due(run["step"]):
                    keeper.save(run | {"seconds": time.monotonic() - begun})
            evaluation = {} if evaluate is None else {name: float(value) for name, value in evaluate(run["params"]).items()}
            record = {
                "epoch": epoch,
                "steps": run["step"],
                "learning_rate": float(schedule(run["step"] - chunk_steps)),
                "wall_seconds": time.monotonic() - begun,
                "train": {"loss": sum(run["losses"]) / chunks},
                "evaluation": evaluation,
            }
            run |= {"history": run["history"] + [record], **start}
            keeper.save(run)
            shown.epoch(record)
    return run["params"], run["history"]


class _CheckpointKeeper:
    """Knows where a run's checkpoint lies, when to write it, and what run it must be of; without a path, does nothing."""

    def __init__(self, path, every_steps, every_seconds, identity):
        _check_at_least_one("checkpoint_every", every_steps)
        if every_seconds is not None and not every_seconds > 0:
            raise ValueError(f"checkpoint_seconds must be above 0, or None; got {every_seconds}")
        self.path = None if path is None else Path(path)
        self.every_steps, self.every_seconds, self.identity = every_steps, every_seconds, identity
        self.saved_at = time.monotonic()

    def resume(self):
        """The run as it was saved, or None."""
        if self.path is None:
            return None
        self.path.parent.mkdir(parents=True, exist_ok=True)
        for leftover in self.path.parent.glob(f"{glob.escape(self.path.name)}.*.tmp"):
            leftover.unlink(missing_ok=True)  # of a save that a kill cut short; the checkpoint is one run's, so nobody else's
        if not self.path.exists():
            return None
        saved = load_checkpoint(self.path)
        if not isinstance(saved, dict) or saved.keys() != {"identity", "run"}:
            raise CheckpointError(f"{self.path} is a checkpoint, but not one that fit wrote")
        then, now = dict(_flat(saved["identity"])), dict(_flat(self.identity))
        differences = [
            f"{name} was {then.get(name, 'absent')} and is {now.get(name, 'absent')}"
            for name in {**then, **now}
            if then.get(name) != now.get(name)
        ]
        if differences:
            raise CheckpointError(
                f"{self.path} is of another configuration: {'; '.join(differences)}. "
                "Restore the configuration, or give another path for the checkpoint."
            )
        return saved["run"]

    def due(self, step):
        """Whether it is time to save after this step."""
        late = self.every_seconds is not None and time.monotonic() - self.saved_at >= self.every_seconds
        return late or step % self.every_steps == 0

    def save(self, run):
        """Write the run."""
        if self.path is not None:
            save_checkpoint(self.path, {"identity": self.identity, "run": run})
            self.saved_at = time.monotonic()


def _flat(node, name=""):
    # repr, so that a NaN in a configuration equals itself, and 1 is not 1.0
    if type(node) is dict:
        branches = [(f"{name}.{key}" if name else str(key), value) for key, value in node.items()]
    elif type(node) in (list, tuple):
        branches = [(f"{name}[{place}]", value) for place, value in enumerate(node)]
    else:
        return [(name, repr(node))]
    return [pair for branch, value in branches for pair in _flat(value, branch)] or [(name, repr(node))]


class _Progress:
    """What the user sees of a run: a bar on a terminal, elsewhere a line every half-minute and at each epoch's end."""

    LINE_SECONDS = 30.0
    METRICS = ("loss", "accuracy", "nfe_forward", "nfe_backward")

    def __init__(self, wanted, epochs, total_steps, step):
        self.wanted, self.epochs, self.total_steps, self.first_step = wanted, epochs, total_steps, step
        self.bar = None
        if wanted and sys.stderr.isatty():
            self.bar = tqdm(total=total_steps, initial=step, unit="step", dynamic_ncols=True)
        self.begun = self.written_at = time.monotonic()

    def __enter__(self):
        return self

    def __exit__(self, *exception):
        if self.bar is not None:
            self.bar.close()

    def step(self, epoch, step, metrics, count=1):
        """Show the metrics of one step, or the means of `count` steps."""
        if self.bar is not None:
            self.bar.set_postfix_str(f"epoch {epoch}/{self.epochs}, {self._text(metrics)}", refresh=False)
            self.bar.update(count)
        elif self.wanted and time.monotonic() - self.written_at >= self.LINE_SECONDS:
            self._write(f"epoch {epoch}/{self.epochs}, step {step}/{self.total_steps}: {self._text(metrics)}{self._left(step)}")

    def epoch(self, record):
        """Show an epoch's means and its evaluation."""
        if self.wanted:
            evaluation = ", ".join(f"{name} {value:.4g}" for name, value in record["evaluation"].items())
            self._write(
                f"epoch {record['epoch']}/{self.epochs} done in {tqdm.format_interval(record['wall_seconds'])}: "
                f"{self._text(record['train'])}{'; ' if evaluation else ''}{evaluation}{self._left(record['steps'])}"
            )

    def _text(self, metrics):
        return ", ".join(f"{name} {metrics[name]:.4g}" for name in self.METRICS if name in metrics)

    def _left(self, step):
        if step == self.first_step:
            return ""
        seconds = (time.monotonic() - self.begun) / (step - self.first_step) * (self.total_steps - step)
        return f", {tqdm.format_interval(seconds)} left"

    def _write(self, line):
        tqdm.write(line, file=sys.stderr)
        self.written_at = time.monotonic()


# Checks


def _check_fraction(name, value):
    if not 0 <= value < 1:
        raise ValueError(f"{name} must be at least 0 and below 1; got {value}")


def _check_not_negative(name, value):
    if not 0 <= value < math.inf:
        raise ValueError(f"{name} must be at least 0 and finite; got {value}")


def _check_at_least_one(name, value):
    if type(value) is not int or value < 1:
        raise ValueError(f"{name} must be a whole number from 1; got {value!r}")


def _check_seed(seed):
    if type(seed) is not int or seed < 0:
        raise ValueError(f"seed must be a whole number from 0; got {seed!r}")
    return seed


def _check_params(params):
    def copied(leaf):
        if not isinstance(leaf, (np.ndarray, np.floating)) or np.asarray(leaf).dtype.kind != "f":
            kind = leaf.dtype if isinstance(leaf, np.ndarray) else type(leaf).__name__
            raise TypeError(f"params must be dicts, lists and tuples of floating-point arrays; got {kind} among them")
        return np.array(leaf, order="C")  # the order a checkpoint gives back

    return tree_map(copied, params)


def _check_data(data):
    if type(data) not in (tuple, list) or not data:
        raise TypeError(f"data must be a tuple of arrays; got {type(data).__name__}")
    data = tuple(np.asarray(array) for array in data)
    if any(array.ndim == 0 or len(array) != len(data[0]) for array in data):
        raise ValueError(f"data must be arrays with one entry an example; got shapes {[array.shape for array in data]}")
    return data


def _check_configuration(configuration):
    try:
        return json.loads(json.dumps({} if configuration is None else configuration))
    except TypeError as error:
        raise TypeError(f"configuration must hold JSON's types only: {error}") from error


def _check_step(metrics, grads, sums, where):
    if "loss" not in metrics:
        raise ValueError(f"value_and_grad_fn must give a metric named 'loss'; got {list(metrics)}")
    if sums and sums.keys() != metrics.keys():
        raise ValueError(f"value_and_grad_fn must give the same metrics at each step; got {list(metrics)} after {list(sums)}")
    metrics = {name: float(value) for name, value in metrics.items()}
    if not math.isfinite(metrics["loss"]):
        raise FloatingPointError(f"the loss is {metrics['loss']} at {where}")
    if not all(np.isfinite(gradient).all() for gradient in tree_leaves(grads)):
        raise FloatingPointError(f"the gradient is not finite at {where}, where the loss is {metrics['loss']}")
    return metrics
