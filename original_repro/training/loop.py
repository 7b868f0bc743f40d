"""The loop that every experiment runs: `fit` a step at a time, `fit_in_chunks` many steps at a time."""

import contextlib
import hashlib
import json
import math
import time

import numpy as np

from solvers_bridge import SolverError
from solvers_bridge.nested import flatten

from .batches import Batches
from .checks import check_at_least_one
from .progress import Progress
from .resuming import Resumable
from .trees import tree_leaves, tree_map

_EPOCH_START = {"order": None, "position": 0, "sums": {}, "examples": 0, "seconds": 0.0}
_CHUNKED_EPOCH_START = {"losses": [], "seconds": 0.0}


def fit(
    value_and_grad_fn,
    params,
    *,
    batches,
    optimiser,
    schedule,
    epochs,
    seed,
    evaluate=None,
    checkpoint=None,
    checkpoint_every=200,
    checkpoint_seconds=None,
    configuration=None,
    progress=True,
):
    """Train `params` on `batches`; returns (params, history).

    value_and_grad_fn(params, *batch): -> (metrics, grads); metrics is a dict of numbers with "loss" among them. After the batch
        comes the number of the step where the batches are numbered.
    params: initial parameters, nested dicts, lists and tuples of floating-point arrays.
    batches: a `Batches`, of a data set (`minibatches`, `index_batches`) or of none (`drawn_batches`).
    optimiser, schedule: an `Optimiser`, and a function from the step, 0 at the first, to the learning rate.
    epochs: how often to go through the batches.
    seed: an int from 0, of the one PCG64 generator that shuffles each epoch and serves `batches`; all randomness belongs there.
    evaluate(params): -> a dict of numbers, called at each epoch's end.
    checkpoint: a path, the run's own; saved to every `checkpoint_every` steps, every `checkpoint_seconds`, and at each
        epoch's end. Where the file exists the run goes on from it, and ends as if it had never been stopped; a finished run
        returns from it at once, and goes on where `epochs` are more and the learning rate is constant. None: neither saves nor
        resumes.
    configuration: a dict, JSON's types only, of whatever else makes this run what it is.
    progress: show on standard error a bar if that is a terminal, and plain lines otherwise; a string: lines that begin with it,
        for one of several runs side by side; False: nothing.

    history is a list with a dict for each epoch: "epoch" (from 1), "steps" (from the run's start), "learning_rate" (of the
    last step), "wall_seconds" (work lost to a stop not counted), "train" (means of the metrics over the examples) and
    "evaluation" (what `evaluate` returned, or an empty dict).

    Raises ValueError and TypeError for arguments that make no sense; CheckpointError where `checkpoint` is no checkpoint, or
    that of another configuration, and says what differs, or where another run that is alive has it; FloatingPointError, before
    the parameters are touched, where a loss or a gradient is not finite, or value_and_grad_fn refuses what they have become;
    SolverError as it comes. Both name epoch and step.
    """
    params = _check_params(params)
    if not isinstance(batches, Batches):
        raise TypeError(f"batches must be a Batches, of minibatches or its like; got {type(batches).__name__}")
    check_at_least_one("epochs", epochs)
    rng = np.random.Generator(np.random.PCG64(_check_seed(seed)))
    total_steps = epochs * batches.steps
    identity = {
        **_identity(params, optimiser, schedule, total_steps, epochs, seed, configuration),
        "batch_size": batches.batch_size,
        "drop_last": batches.drop_last,
        "data": batches.data,
        **_digests(checkpoint, sha256_of_initial_params=tree_leaves(params), sha256_of_data=batches.arrays),
    }
    with (
        Resumable(checkpoint, checkpoint_every, checkpoint_seconds, identity) as resumable,
        Progress(progress, epochs, total_steps) as shown,
    ):
        run = resumable.saved or {
            "params": params,
            "optimiser": optimiser.init(params),
            "generator": rng.bit_generator.state,
            "step": 0,
            "history": [],
            **_EPOCH_START,
        }
        rng.bit_generator.state = run["generator"]
        shown.begin(run["step"])
        while len(run["history"]) < epochs:
            epoch, begun = len(run["history"]) + 1, time.monotonic() - run["seconds"]
            if run["order"] is None:
                run["order"] = rng.permutation(batches.count)
            for indices in batches.parts(run["order"])[run["position"] :]:
                where, batch = f"epoch {epoch}, step {run['step'] + 1}", batches.make(indices, rng)
                number = (run["step"],) if batches.numbered else ()
                with _named(where, run["step"]):
                    metrics, grads = value_and_grad_fn(run["params"], *batch, *number)
                metrics = _check_step(metrics, grads, run["sums"], where)
                run["params"], run["optimiser"] = optimiser.update(grads, run["optimiser"], run["params"], schedule(run["step"]))
                run["sums"] = {name: run["sums"].get(name, 0.0) + len(indices) * value for name, value in metrics.items()}
                run["examples"] += len(indices)
                run["step"] += 1
                run["position"] += 1
                shown.step(epoch, run["step"], metrics)
                if resumable.due(run["step"]):
                    resumable.save(run | {"seconds": time.monotonic() - begun, "generator": rng.bit_generator.state})
            means = {name: total / run["examples"] for name, total in run["sums"].items()}
            record = _record(run, float(schedule(run["step"] - 1)), begun, means, evaluate)
            run |= {"history": run["history"] + [record], **_EPOCH_START}
            resumable.save(run | {"generator": rng.bit_generator.state})
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
        check_at_least_one(name, value)
    total_steps = epochs * chunks * chunk_steps
    identity = {
        **_identity(params, optimiser, schedule, total_steps, epochs, _check_seed(seed), configuration),
        "chunks": chunks,
        "chunk_steps": chunk_steps,
        **_digests(checkpoint, sha256_of_initial_params=tree_leaves(params)),
    }
    with (
        Resumable(checkpoint, total_steps, checkpoint_seconds, identity) as resumable,
        Progress(progress, epochs, total_steps) as shown,
    ):
        run = resumable.saved or {
            "params": params,
            "optimiser": optimiser.init(params),
            "step": 0,
            "history": [],
            **_CHUNKED_EPOCH_START,
        }
        shown.begin(run["step"])
        while len(run["history"]) < epochs:
            epoch, begun = len(run["history"]) + 1, time.monotonic() - run["seconds"]
            while len(run["losses"]) < chunks:
                rate = float(schedule(run["step"]))
                where = f"epoch {epoch}, before step {run['step'] + chunk_steps + 1}"
                with _named(where, run["step"]):
                    new_params, state, loss = advance(run["params"], run["optimiser"], run["step"], rate, seed)
                _check_step({"loss": loss}, new_params, {}, where)
                run |= {
                    "params": new_params,
                    "optimiser": state,
                    "step": run["step"] + chunk_steps,
                    "losses": run["losses"] + [float(loss)],
                }
                shown.step(epoch, run["step"], {"loss": loss}, chunk_steps)
                if resumable.due(run["step"]):
                    resumable.save(run | {"seconds": time.monotonic() - begun})
            means = {"loss": sum(run["losses"]) / chunks}
            record = _record(run, float(schedule(run["step"] - chunk_steps)), begun, means, evaluate)
            run |= {"history": run["history"] + [record], **_CHUNKED_EPOCH_START}
            resumable.save(run)
            shown.epoch(record)
    return run["params"], run["history"]


def _identity(params, optimiser, schedule, total_steps, epochs, seed, configuration):
    """What a checkpoint of a run must agree with, so far as every run has it."""
    return {
        "configuration": _check_configuration(configuration),
        "optimiser": optimiser.settings,
        "epochs": epochs,
        "seed": seed,
        "learning_rates": [float(schedule(total_steps * quarter // 4)) for quarter in range(4)],
        "params": tree_map(lambda p: f"{p.dtype} {p.shape}", params),
    }


@contextlib.contextmanager
def _named(where, steps):
    """Errors of numbers within the statement say where they were raised.

    After the first steps a ValueError is one of them: what made sense there does so still, unless the training diverged.
    """
    try:
        yield
    except SolverError as error:
        error.reason = f"{error.reason}; at {where}"
        raise
    except FloatingPointError as error:
        raise FloatingPointError(f"{error}, at {where}") from error
    except ValueError as error:
        if not steps:
            raise
        raise FloatingPointError(f"the training diverged at {where}: {error}") from error


def _digests(checkpoint, **arrays):
    """SHA-256 of lists of arrays, by name, for the identity of a checkpoint, if there is one."""
    return {} if checkpoint is None else {name: _sha256(some) for name, some in arrays.items()}


def _sha256(arrays):
    digest = hashlib.sha256()
    for array in arrays:
        digest.update(f"{array.dtype} {array.shape} ".encode())
        digest.update(np.ascontiguousarray(array))
    return digest.hexdigest()


def _record(run, rate, begun, means, evaluate):
    """An epoch's entry in the history, with the evaluation made here."""
    evaluation = {}
    if evaluate is not None:
        with _named(f"the evaluation after step {run['step']}", run["step"]):
            evaluation = {name: float(value) for name, value in evaluate(run["params"]).items()}
    return {
        "epoch": len(run["history"]) + 1,
        "steps": run["step"],
        "learning_rate": rate,
        "wall_seconds": time.monotonic() - begun,
        "train": means,
        "evaluation": evaluation,
    }


def _check_seed(seed):
    if type(seed) is not int or seed < 0:
        raise ValueError(f"seed must be a whole number from 0; got {seed!r}")
    return seed


def _check_params(params):
    leaves, structure = flatten(params)
    for leaf in [*leaves, *structure.constants]:
        if not isinstance(leaf, (np.ndarray, np.floating)) or leaf.dtype.kind != "f":
            kind = leaf.dtype if isinstance(leaf, np.ndarray) else type(leaf).__name__
            raise TypeError(f"params must be dicts, lists and tuples of floating-point arrays; got {kind} among them")
    return structure.unflatten([np.array(leaf, order="C") for leaf in leaves])  # the order that a checkpoint gives back


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
