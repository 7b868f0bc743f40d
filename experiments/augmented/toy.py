"""One training of one model on a synthetic problem of Augmented Neural ODEs, and what is then asked of the trained model.

A task is a dict of plain values (see TASK), so that it can be sent to a process and kept in a record. Its seed gives the points,
the initial parameters and the order of the batches. Settings are the paper's as a replication quotes them: H = 32, 3000 points,
batches of 64 (the odd last one of an epoch too), Adam at 1e-3, 50 epochs, dopri5 at 1e-3, backpropagated through its steps; Huber
loss as in the public code, which has no seeds. Chosen here: the same points for all models of a seed.

A run whose solve fails, or whose loss is not finite, is a result: it ends there, `failed` says where and why, and what it had
measured until then is kept.
"""

import time
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import numpy as np

from original_repro.datasets import toy_functions
from original_repro.training import adam, constant, fit, load_checkpoint, minibatches, save_checkpoint, tree_map
from solvers_bridge import SolverError


class Problem(NamedTuple):
    """draw(rng) -> Points in dim dimensions; has_head: whether a linear map follows the ODE."""

    draw: Callable
    dim: int
    has_head: bool


PROBLEMS = {
    "identity": Problem(lambda rng: toy_functions.signs(rng, 500, flipped=False), 1, False),
    "flip": Problem(lambda rng: toy_functions.signs(rng, 500, flipped=True), 1, False),
    "spheres1": Problem(lambda rng: toy_functions.spheres(rng, 1), 1, True),
    "spheres2": Problem(lambda rng: toy_functions.spheres(rng, 2), 2, True),
    "separable1": Problem(lambda rng: toy_functions.separable(rng, 1), 1, True),
    "separable2": Problem(lambda rng: toy_functions.separable(rng, 2), 2, True),
}
MODELS = ("resnet", "node", "anode")
TASK = {
    "problem": "spheres2",
    "model": "node",
    "extra": 0,
    "hidden": 32,
    "blocks": 5,
    "loss": "huber",
    "rate": 1e-3,
    "weight_decay": 0.0,
    "batch_size": 64,
    "epochs": 50,
    "method": "dopri5",
    "tolerance": 1e-3,
    "adjoint_method": "discrete",
    "compiler": "auto",
    "slice_removed": False,
    "keep_epochs": (),
    "seed": 0,
}


def task(**settings):
    """A whole task: TASK with these settings instead. ValueError for settings of no sense."""
    unknown = settings.keys() - TASK.keys()
    if unknown:
        raise ValueError(f"a task has no {', '.join(sorted(unknown))}; it has {', '.join(TASK)}")
    made = {**TASK, **settings}
    for name, known in (("problem", PROBLEMS), ("model", MODELS)):
        if made[name] not in known:
            raise ValueError(f"{name} must be one of {', '.join(known)}, got {made[name]!r}")
    if (made["model"] == "anode") != (made["extra"] > 0):
        raise ValueError(f"an anode has extra dimensions and other models none, got {made['model']} with {made['extra']}")
    return made


def points_of(task):
    """(training points, points for validation or None) of a task, as toy_functions.Points."""
    points = PROBLEMS[task["problem"]].draw(np.random.default_rng([task["seed"], 0]))
    if not task["slice_removed"]:
        return points, None
    return toy_functions.without_slice(points)


def model_of(task, *, tolerance=None, dtype="float32", compiler="graph"):
    """(model, initial parameters) of a task; `tolerance` instead of the task's.

    compiler : of the ODE's graphs, each of which serves one number of points: "graph" for what is asked once.
    """
    from original_repro import augmented

    _, dim, has_head = PROBLEMS[task["problem"]]
    rng = np.random.default_rng([task["seed"], 1])
    if task["model"] == "resnet":
        return augmented.ResidualMlp(task["loss"]), augmented.init_residual_mlp(rng, dim, task["hidden"], task["blocks"])
    tolerance = task["tolerance"] if tolerance is None else tolerance
    model = augmented.NeuralOde(
        augmented.mlp_field,
        task["loss"],
        extra=task["extra"],
        readout="all" if has_head else "none",
        method=task["method"],
        rtol=tolerance,
        atol=tolerance,
        adjoint_method=task["adjoint_method"],
        dtype=dtype,
        compiler=compiler,
    )
    outputs = 1 if has_head else None
    return model, augmented.init_vector_ode(rng, dim, task["hidden"], extra=task["extra"], outputs=outputs)


def train(task):
    """Train a task's model: a dict that `save_checkpoint` takes.

    "epochs": a list of dicts, "loss", "accuracy", "nfe_forward", "nfe_backward" (means over the batches) and with a slice removed
    "validation_loss"; "iterations": lists of the first four, one number a step; "params": the last; "kept": {epoch: params} after
    task["keep_epochs"], 0 the initial ones; "failed": None, or {"iteration", "reason"}; "seconds".
    """
    points, validation = points_of(task)
    model, initial = model_of(task, compiler=task["compiler"])
    iterations, epochs, kept = [], [], {0: initial} if 0 in task["keep_epochs"] else {}
    last = {"params": initial}

    def step(params, x, y):
        last["params"] = params
        metrics, grads = model.value_and_grad(params, x, y)
        iterations.append(metrics)
        return metrics, with_decay(grads, params, task["weight_decay"])

    def end_of_epoch(params):
        last["params"] = params
        done = len(epochs) + 1
        steps = iterations[len(iterations) * (done - 1) // done :]
        epochs.append({name: float(np.mean([metrics[name] for metrics in steps])) for name in steps[0]})
        if validation is not None:
            epochs[-1]["validation_loss"] = float(model.loss(params, *validation)[0])
        if done in task["keep_epochs"]:
            kept[done] = params
        return {}

    begun, failed = time.perf_counter(), None
    try:
        fit(
            step,
            initial,
            batches=minibatches(tuple(points), task["batch_size"], drop_last=False),
            optimiser=adam(),
            schedule=constant(task["rate"]),
            epochs=task["epochs"],
            seed=task["seed"],
            evaluate=end_of_epoch,
            progress=False,
        )
    except (SolverError, FloatingPointError) as error:
        failed = {"iteration": len(iterations) + 1, "reason": str(error)}
    names = list(iterations[0]) if iterations else []
    return {
        "epochs": epochs,
        "iterations": {name: np.array([metrics[name] for metrics in iterations]) for name in names},
        "params": last["params"],
        "kept": kept,
        "failed": failed,
        "seconds": time.perf_counter() - begun,
    }


def with_decay(grads, params, decay):
    """Gradients of the loss plus decay / 2 times the squared norm of the parameters: L2 weight decay inside Adam."""
    return tree_map(lambda g, p: g + g.dtype.type(decay) * p, grads, params) if decay else grads


def train_or_load(task, path, fresh=False):
    """The result of `train(task)` from the file at the path where there is one of this task, else made and kept there.

    fresh: made and kept in any case.
    """
    path = Path(path)
    if path.exists() and not fresh:
        saved = load_checkpoint(path)
        if saved.get("task") == task:
            return saved["result"]
    result = train(task)
    path.parent.mkdir(parents=True, exist_ok=True)
    save_checkpoint(path, {"task": task, "result": result})
    return result


# What is asked of a trained model


def initial_states(task, x):
    """Points x (points, d) with the zeros of the task's model, float64 (points, d + extra)."""
    return np.concatenate([x, np.zeros((len(x), task["extra"]))], 1).astype(np.float64)


def judge(task, params, *, tolerances=None, points=40, dense=1000):
    """Propositions 1 to 3 of a trained Neural ODE, augmented or not: a dict of plain numbers.

    tolerances: by default those of flow_checks.LADDER.
    "ladder": flow_checks.tolerance_ladder on `points` points of the training set. In one dimension without a head, "swap" at the
    tightest tolerance; with a head, "dense" at the paper's and at the tightest tolerance, on `dense` points of each region. For a
    flow of the line "gap"; for one of the plane "winding" and "tunnel", the largest of flow_checks.tunnel_margins (for an
    augmented model of the plane, too, the positive control). Tightest is the last of `tolerances` at which all solves end; what
    asks for more than that is None if none is.
    """
    from original_repro import flow_checks
    from original_repro.augmented import mlp_field

    _, dim, has_head = PROBLEMS[task["problem"]]
    x = points_of(task)[0].x[:points]
    z = np.unique(initial_states(task, x), axis=0)
    ladder = flow_checks.tolerance_ladder(mlp_field, params["field"], z, flow_checks.LADDER if tolerances is None else tolerances)
    ended = [row["tolerance"] for row in ladder if not row["failed"]]
    answers = {"ladder": ladder, "tightest": ended[-1] if ended else None}
    if not ended:
        return answers
    flow = flow_checks.Flow(mlp_field, params["field"], tolerance=ended[-1])
    if not has_head:
        answers["swap"] = flow_checks.swap_errors(flow, task["extra"])
    else:
        regions = toy_functions.dense_regions(dim, dense, np.random.default_rng(0))
        answers["dense"] = {
            name: flow_checks.wrong_answers(_answers_of(task, params, tolerance), regions)
            for name, tolerance in (("paper", task["tolerance"]), ("tight", ended[-1]))
        }
    if dim + task["extra"] == 1:
        answers["gap"] = flow_checks.smallest_gap(flow, reach=1.0 if not has_head else 1.5)
    if dim == 2:
        answers["tunnel"] = max(flow_checks.tunnel_margins(_answers_of(task, params, ended[-1]), points=180))
        if not task["extra"]:
            answers["winding"] = flow_checks.winding_number(flow)
    return answers


def swaps(task, kept):
    """[{"epoch", "gap", "squared_error", "huber"}], solved tightly, of a model without a head; kept: {epoch: params}."""
    from original_repro import flow_checks
    from original_repro.augmented import mlp_field

    flow, rows = None, []
    for epoch, params in sorted(kept.items()):
        flow = flow or flow_checks.Flow(mlp_field, params["field"])
        rows.append({"epoch": epoch, **flow_checks.swap_errors(flow.but(params=params["field"]), task["extra"])})
    return rows


def _answers_of(task, params, tolerance):
    """What a trained model answers in float64 at a tolerance, as a function of points."""
    model, _ = model_of(task, tolerance=tolerance, dtype="float64", compiler="auto")
    return lambda x: model.outputs(params, x)
