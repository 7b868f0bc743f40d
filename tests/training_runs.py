"""A small training run, stopped at will, and comparisons bit for bit, for the tests of training."""

import itertools
import math

import numpy as np

from original_repro.training import adam, fit, minibatches, one_cycle, rmsprop, sgd

OPTIMISERS = {
    "sgd": sgd(),
    "plain sgd": sgd(momentum=0.0),
    "nesterov": sgd(nesterov=True, weight_decay=0.1),
    "adam": adam(),
    "rmsprop": rmsprop(),
    "rmsprop with momentum": rmsprop(momentum=0.8),
}


def same_bits(left, right):
    if type(left) is not type(right):
        return False
    if isinstance(left, dict):
        return list(left) == list(right) and all(same_bits(left[key], right[key]) for key in left)
    if isinstance(left, (list, tuple)):
        return len(left) == len(right) and all(map(same_bits, left, right))
    if isinstance(left, (np.ndarray, np.generic)):
        return left.dtype == right.dtype and left.shape == right.shape and left.tobytes() == right.tobytes()
    if isinstance(left, float):
        return np.float64(left).tobytes() == np.float64(right).tobytes()
    return left == right


def squares(params, x, y):
    """Least squares: a metric of each kind, and the gradient."""
    error = x @ params["w"] + params["b"] - y
    metrics = {"loss": np.mean(error**2), "accuracy": float(np.mean(np.abs(error) < 1)), "nfe_forward": 3}
    return metrics, {"w": 2 * x.T @ error / len(x), "b": np.array(2 * error.mean())}


def noisy(batch, rng):
    x, y = batch
    return x + 0.1 * rng.normal(size=x.shape), y


def norm(params):
    return {"norm": np.linalg.norm(params["w"]), "odd": math.nan}


def small_run(checkpoint=None, function=squares, **changes):
    """fit for 24 steps, saved every second; changes: arguments of it or of `minibatches`."""
    rng = np.random.default_rng(5)
    x = rng.normal(size=(23, 3))
    of_batches = dict(data=(x, x @ [1.0, -2.0, 0.5] + 0.3), batch_size=4, drop_last=False, augment=noisy)
    of_batches |= {name: changes.pop(name) for name in of_batches if name in changes}
    arguments = dict(
        params={"w": np.zeros(3), "b": np.zeros(())},
        batches=changes.pop("batches", None) or minibatches(**of_batches),
        optimiser=adam(),
        schedule=one_cycle(0.2, 24),
        epochs=4,
        seed=7,
        evaluate=norm,
        checkpoint=checkpoint,
        checkpoint_every=2,
        configuration={"network": {"width": 3}, "name": "small"},
        progress=False,
    )
    return fit(function, **(arguments | changes))


def without_times(history):
    return [{name: value for name, value in record.items() if name != "wall_seconds"} for record in history]


def assert_same_run(got, expected):
    assert same_bits(got[0], expected[0])
    assert same_bits(without_times(got[1]), without_times(expected[1]))


class Killed(BaseException):
    pass


def killed_at(count, function):
    calls = itertools.count(1)

    def wrapped(*arguments):
        if next(calls) == count:
            raise Killed
        return function(*arguments)

    return wrapped
