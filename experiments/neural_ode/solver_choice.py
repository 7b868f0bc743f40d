"""Does it matter with which solver, and at which tolerance, one trains?

A spiral: segments of the solution of dz/dt = A z^3 (elementwise cube, from (2, 0)), learned by a network of one hidden layer
through euler, rk4, dopri5, dop853, adams, bdf, lsoda and radau, all from the same start on the same batches, those that control
their error at 1e-5. An ODE-Net on the embedded digits, one epoch of the quick preset of Table 1, through the same solvers at
1e-3; bdf takes the Jacobian for a diagonal one, for no dense one of 46,080 unknowns fits, and radau has no such choice. Recorded
of each: the loss at the end, evaluations and seconds of a step, and why it failed, if it did.

The same network at 1e-3 and at 1e-5: the ODE-Net trained through adams at both, from one start on the same batches, and the
share of test digits which the two answer differently. (Settings of the fits are those of the quick preset of Table 1, and for
the spiral Adam at 1e-2; nothing was tuned.)
"""

import time

import autograd.numpy as anp
import numpy as np
from autograd import value_and_grad
from scipy.integrate import solve_ivp

import solvers_bridge
from original_repro import training
from original_repro.datasets import mnist
from solvers_bridge import SolverError, odeint, record_solves

from .. import Experiment, Section
from ..harness import records
from ..harness.tables import markdown_table
from ..harness.tasks import measure_all
from . import table1_mnist

NAME = "solver_choice"
GRIDS = {"spiral": {"euler": 0.025, "rk4": 0.1}, "digits": {"euler": 1 / 8, "rk4": 1 / 2}}
SOLVERS = ("euler", "rk4", "dopri5", "dop853", "adams", "bdf", "lsoda", "radau")
PRESETS = {
    "quick": {
        "spiral": {"iterations": 20, "segments": 10, "hidden": 16, "tolerance": 1e-5},
        "digits": {"steps": 5, "batch_size": 20, "peak_rate": 0.1, "test": 250},
        "tolerances": (1e-3, 1e-4),
        "max_steps": 200,
    },
    "paper": {
        "spiral": {"iterations": 200, "segments": 10, "hidden": 16, "tolerance": 1e-5},
        "digits": {"steps": 100, "batch_size": 20, "peak_rate": 0.1, "test": 1000},
        "tolerances": (1e-3, 1e-5),
        "max_steps": 500,
    },
}


def run(settings, places):
    """All trainings, one after the other, the record; goes on from a checkpoint."""
    preset, checkpoint = PRESETS[settings.preset], places.checkpoint(NAME, settings.stem)
    measure = {"spiral": fit_spiral, "digits": fit_digits, "tolerance": fit_digits}
    rows, seconds = measure_all(
        tasks(preset),
        lambda task, rows: measure[task["part"]](task, preset, settings.seed),
        checkpoint,
        {"settings": preset, "seed": settings.seed},
    )
    answers = {row["tolerance"]: row.pop("answers") for row in rows if row["part"] == "tolerance" and "answers" in row}
    for row in rows:
        row.pop("answers", None)
    record = records.record_run(
        NAME,
        settings,
        places,
        configuration={**preset, "grids": GRIDS},
        metrics=metrics(rows, answers),
        history=rows,
        wall_seconds=seconds,
    )
    checkpoint.unlink(missing_ok=True)
    return record


def tasks(preset):
    """A training each."""
    return [
        *({"part": part, "method": method} for part in ("spiral", "digits") for method in SOLVERS),
        *({"part": "tolerance", "method": "adams", "tolerance": tolerance} for tolerance in preset["tolerances"]),
    ]


def metrics(rows, answers):
    """Spread of time and loss over the solvers that reached the end, and the answers on which two tolerances differ."""
    found = {}
    for part in ("spiral", "digits"):
        ended = [row for row in rows if row["part"] == part and row.get("reason") is None]
        found |= {f"{part}_solvers_that_ended": len(ended)}
        for name in ("seconds", "loss"):
            values = [row[name] for row in ended]
            found[f"{part}_{name}_spread"] = max(values) / min(values)
    if len(answers) == 2:
        (loose, one), (tight, other) = answers.items()
        found[f"answers_that_differ_{loose:.0e}_{tight:.0e}"] = float(np.mean(np.asarray(one) != np.asarray(other)))
    return found


def spiral(times):
    """The solution (len(times), 2) of dz/dt = A z^3 from (2, 0), A = [[-0.1, 2], [-2, -0.1]]."""
    matrix = np.array([[-0.1, 2.0], [-2.0, -0.1]])
    found = solve_ivp(lambda t, z: matrix @ z**3, (0.0, times[-1]), [2.0, 0.0], t_eval=times, rtol=1e-10, atol=1e-10)
    return found.y.T


def fit_spiral(task, preset, seed):
    """Loss of all segments, evaluations and seconds of a step after a training through one solver, or why it ended early."""
    from original_repro import latent_ode

    chosen, rng = preset["spiral"], np.random.default_rng(seed)
    times = np.linspace(0.0, 10.0, 401)
    path, span = spiral(times), 5
    dynamics = solvers_bridge.TensorFlowDynamics(lambda t, z, params: latent_ode.mlp(params, z**3), "float64")
    params = latent_ode.init_mlp(rng, 2, chosen["hidden"], 2)
    solver = solver_settings(task["method"], chosen["tolerance"], "spiral", preset["max_steps"])

    def loss(params, starts):
        ys = odeint(dynamics, path[starts], times[: span + 1], params, **solver)
        return anp.mean((ys - path[starts + np.arange(span + 1)[:, None]]) ** 2)

    def step(params, starts):
        with record_solves() as solves:
            value, gradient = value_and_grad(loss)(params, starts)
        return {"loss": float(value), **_evaluations(solves)}, gradient

    def draw(rng):
        return (rng.integers(0, len(times) - span - 1, chosen["segments"]),)

    row, params = _fit(step, params, training.drawn_batches(draw, chosen["iterations"]), training.adam(), 1e-2, seed)
    if params is not None:
        every = np.arange(0, len(times) - span - 1, 1)
        row["loss"] = float(loss(params, every))
    return row


def fit_digits(task, preset, seed):
    """As `fit_spiral`, of an ODE-Net on digits: loss and answers on test digits."""
    from original_repro import supervised

    chosen, tolerance = preset["digits"], task.get("tolerance", 1e-3)
    images, labels, test_images, test_labels = table1_mnist.load_images("embedded sample", None)
    test_images, test_labels = test_images[: chosen["test"]], test_labels[: chosen["test"]]
    count = chosen["steps"] * chosen["batch_size"]
    solver = solver_settings(task["method"], tolerance, "digits", preset["max_steps"])
    net = supervised.OdeNet(mnist.FORMAT, solver.pop("method"), solver.pop("rtol"), solver.pop("atol"), **solver)
    row, params = _fit(
        net.value_and_grad,
        supervised.init_odenet(np.random.default_rng(seed), mnist.FORMAT),
        training.minibatches((images[:count], labels[:count]), chosen["batch_size"]),
        training.sgd(momentum=0.9),
        chosen["peak_rate"],
        seed,
    )
    if params is not None:
        logits = []
        for start in range(0, len(test_images), supervised.EVALUATION_BATCH):
            z0 = net.stem(params["stem"], test_images[start : start + supervised.EVALUATION_BATCH])
            z1 = odeint(net.dynamics, z0, [0.0, 1.0], params["dynamics"], **net.solver)[-1]
            logits.append(supervised.head(params["head"], z1.astype(np.float32)).numpy())
        answers = np.concatenate(logits)
        loss, _ = supervised.cross_entropy(answers, test_labels)
        row |= {"loss": float(loss), "errors": int(np.sum(answers.argmax(1) != test_labels))}
        row["answers"] = answers.argmax(1).tolist()
    return row


def solver_settings(method, tolerance, part, max_steps):
    """Settings of odeint for a method: steps of a grid, or a tolerance, and a diagonal Jacobian for large stiff systems."""
    if method in GRIDS[part]:
        options = {"step_size": GRIDS[part][method]}
    else:
        options = {"max_num_steps": max_steps}
        if part == "digits" and method == "bdf":
            options["jacobian"] = "diagonal"
    return {"method": method, "rtol": tolerance, "atol": tolerance, "options": options, "adjoint_options": dict(options)}


def _fit(step, params, batches, optimiser, rate, seed):
    """({"nfe_forward", "nfe_backward", "seconds", "loss"} or with "reason", trained parameters or None)."""
    begun = time.perf_counter()
    try:
        params, (epoch,) = training.fit(
            step,
            params,
            batches=batches,
            optimiser=optimiser,
            schedule=training.warmup_cosine(rate, batches.steps, batches.steps // 10),
            epochs=1,
            seed=seed,
            progress=False,
        )
    except (SolverError, FloatingPointError, ValueError, MemoryError) as error:
        return {"reason": str(error)[:200], "seconds": time.perf_counter() - begun}, None
    nfe = {name: mean for name, mean in epoch["train"].items() if name.startswith("nfe_")}
    return {**nfe, "loss": epoch["train"]["loss"], "seconds": epoch["wall_seconds"]}, params


def _evaluations(solves):
    ways = ("forward", "backward")
    return {f"nfe_{way}": sum(solve.nfe for solve in solves if solve.direction == way) for way in ways}


def table(found):
    """Every training, in Markdown."""
    record = records.first(found, NAME)
    if record is None:
        return ""
    rows = [
        [
            {"spiral": "spiral", "digits": "ODE-Net", "tolerance": f"ODE-Net at {row.get('tolerance', 0):g}"}[row["part"]],
            row["method"],
            *(f"{row[name]:.3g}" if name in row else "" for name in ("loss", "nfe_forward", "nfe_backward", "seconds")),
            row.get("errors", ""),
            row.get("reason", ""),
        ]
        for row in record["history"]
    ]
    return markdown_table(
        ["trained", "through", "loss", "evaluations of a step forward", "backward", "seconds", "errors of test digits", "failed"],
        rows,
    )


EXPERIMENT = Experiment(
    name=NAME,
    source="Of the field",
    shows="training through eight solvers, and at two tolerances",
    run=run,
    description=__doc__,
    preset_of=lambda settings: PRESETS[settings.preset],
    takes={"quick": "3 min", "paper": "15 min"},
    in_all=False,
    section=Section("The choice of solver in training", table),
)
