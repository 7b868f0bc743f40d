"""Figure 3: a trained ODE-Net's error, time, reverse evaluations and training; and "train with high accuracy, test with low".

The weights are those that `run table1_mnist` left; panel (d) is its record. The images are the test set's.

(a) and (b): z(1) of one batch over tolerances (relative and absolute alike), its error relative to z(1) (root mean square over
root mean square) of a much tighter solve in a float64 graph. The graph in float32 sets a floor below which no tolerance gets, and
which is measured by itself: the same steps of Runge and Kutta on a fixed grid in both precisions. These two panels compute
convolutions directly, whose floor is lower than that of Winograd's algorithm, with which networks train; both floors are in the
record. Where rounding exceeds the tolerance a solver shortens its steps without end, LSODA, with its maximum norm, first: the
series stops at the first tolerance that takes more than a given number of steps. Time is that of the solve alone, the median of
as many as fill a given time.

(c): evaluations of the reverse solve of a gradient against those of the forward one: the paper finds "roughly half". What could
make it so is varied: the integrator, whose error norm is a root mean square over all unknowns (VODE, dopri5) or their maximum
(LSODA); the tolerance; the loss, a mean or a sum over the batch, which scales the adjoint against the absolute tolerance; trained
or initial weights, which have small and large adjoints; the size of the batch, one image being the least. A reverse solve that
takes more than a given number of steps is stopped, and its ratio is a lower bound.

To tell why, z(t) alone, without any adjoint, is solved backwards too: at the same tolerance, and at that tolerance times
sqrt((2n + P + 1) / n). The augmented system of n states, n adjoints, P parameter gradients and a time gradient amounts to the
latter where its norm is a root mean square and all but z(t) is small against the absolute tolerance.
Rectified linear units hold the order at 2, where evaluations go as the tolerance to the power of -1/3: this alone would leave
0.55 of them with one image (n = 2,304, P = 75,392), 0.87 with 128, and all of them under a maximum norm.

(d): evaluations of a training step, means over the epochs.

Test error over the tolerance of testing is for the whole test set; beside it, fixed grids of Euler's and of Runge and Kutta's
method. Intervals are Wilson's, of 95 %.
"""

import copy
import functools
import hashlib
import json
import math
import sys
import time
from pathlib import Path

import matplotlib
import numpy as np
from tabulate import tabulate
from tqdm import tqdm

from original_repro import training
from original_repro.datasets import mnist

from . import records, table1_mnist, workers

NAME = "figure3_mnist"
TITLE = "Figure 3: error, time, reverse evaluations and training of an ODE-Net; test error over tolerance"
LOCATION_ARGUMENTS = ("data", "workers")
NEEDS = table1_mnist.NAME
DEFAULT_METHOD = "adams"
GRID_METHODS = ("euler", "rk4")
# What is measured by itself, in this order: seconds are among the results.
ALONE = ("floor", "reference", "forward")
LABELS = {"adams": "VODE Adams", "lsoda": "LSODA", "dopri5": "dopri5", "euler": "Euler", "rk4": "Runge–Kutta 4"}

# The paper's "roughly half" is taken as at most the first; at least the second is as many evaluations as forward.
HALF, WHOLE = 0.6, 0.9

PRESETS = {
    "quick": {
        "data": "embedded sample",
        "batch_size": 20,
        "methods": ("adams", "lsoda", "dopri5"),
        "tolerances": (1e-1, 1e-2, 1e-3, 1e-4),
        "max_steps": 300,
        "timed_seconds": 0.1,
        "reference_tolerance": 1e-7,
        "floor_steps": 16,
        "backward": (
            {"weights": "trained", "batch_size": 20, "batches": 1, "tolerances": (1e-1, 1e-3), "reductions": ("mean", "sum")},
            {"weights": "trained", "batch_size": 1, "batches": 2, "tolerances": (1e-3, 1e-5), "reductions": ("mean",)},
        ),
        "max_steps_backward": 60,
        "test_tolerances": (1e1, 1e-1, 1e-3),
        "test_steps": {"euler": (1, 4), "rk4": (1,)},
        "test_batch_size": 250,
    },
    "paper": {
        "data": "full MNIST",
        "batch_size": 128,
        "methods": ("adams", "lsoda", "dopri5"),
        "tolerances": (1e-1, 1e-2, 1e-3, 1e-4, 1e-5, 1e-6, 1e-7, 1e-8, 1e-9),
        "max_steps": 3000,
        "timed_seconds": 1.0,
        "reference_tolerance": 1e-10,
        "floor_steps": 32,
        "backward": (
            {
                "weights": "trained",
                "batch_size": 128,
                "batches": 2,
                "tolerances": (1e-1, 1e-2, 1e-3, 1e-4, 1e-5),
                "reductions": ("mean", "sum"),
            },
            {
                "weights": "trained",
                "batch_size": 1,
                "batches": 5,
                "tolerances": (1e-1, 1e-2, 1e-3, 1e-4, 1e-5),
                "reductions": ("mean",),
            },
            {
                "weights": "initial",
                "batch_size": 128,
                "batches": 1,
                "tolerances": (1e-1, 1e-2, 1e-3, 1e-4),
                "reductions": ("mean", "sum"),
            },
        ),
        "max_steps_backward": 200,
        "test_tolerances": (1e1, 1e0, 1e-1, 1e-2, 1e-3, 1e-4, 1e-5),
        "test_steps": {"euler": (1, 2, 4, 8, 16), "rk4": (1, 2, 4)},
        "test_batch_size": 250,
    },
}


def add_arguments(parser):
    """The experiment's own options."""
    parser.add_argument(
        "--weights",
        type=Path,
        metavar="FILE",
        help="weights of an ODE-Net, as OUT/weights/table1_mnist-STEM.npz with its record, "
        "OUT/runs/table1_mnist/STEM.json (default: those of `run table1_mnist` with this preset and seed)",
    )
    parser.add_argument("--data", metavar="FOLDER", help="folder with MNIST's four IDX files (default: cache, else download)")
    parser.add_argument(
        "--workers",
        type=int,
        default=workers.available_cores(),
        metavar="N",
        help="processes at a time, for what is not timed (default: one for each core)",
    )


def run(arguments, stem):
    """Measure, write the record and both figures, print the table of panel (c); returns the path of the record.

    Raises FileNotFoundError where there are no weights or no record of their training, ValueError where the weights are those of
    another network.
    """
    weights, training_record = training_results(arguments)
    params = training.load_weights(weights)
    if not isinstance(params, dict) or params.keys() != {"stem", "dynamics", "head"}:
        raise ValueError(f"{weights} does not hold weights of an ODE-Net")
    settings = PRESETS[arguments.preset]
    identity = {"settings": settings, "seed": arguments.seed, "weights": hashlib.sha256(weights.read_bytes()).hexdigest()}
    checkpoint = arguments.checkpoints / NAME / f"{stem}.npz"
    measure = functools.partial(measure_in_laboratory, arguments.preset, weights, arguments.data, arguments.seed)
    rows, seconds = measure_all(tasks(settings), measure, checkpoint, identity, arguments.workers)
    rows += [
        {
            "part": "training",
            "epoch": epoch["epoch"],
            "nfe_forward": epoch["train"]["nfe_forward"],
            "nfe_backward": epoch["train"]["nfe_backward"],
        }
        for epoch in training_record["history"]
    ]
    configuration = {
        **settings,
        "model": "odenet",
        "weights": str(weights),
        "weights_sha256": identity["weights"],
        "trained_with": {name: training_record["configuration"][name] for name in ("method", "tolerance")},
    }
    path = records.record_path(arguments.out, NAME, stem)
    records.write_record(
        path,
        experiment=NAME,
        preset=arguments.preset,
        seed=arguments.seed,
        configuration=configuration,
        metrics=metrics(rows, configuration),
        history=rows + verdicts(rows),
        wall_seconds=seconds,
    )
    checkpoint.unlink(missing_ok=True)
    record = json.loads(path.read_text())
    print(markdown_table(record))
    draw(record, Path(arguments.out) / "figures" / f"{NAME}-{stem}.png")
    draw_test(record, Path(arguments.out) / "figures" / f"{NAME}-test_tolerance-{stem}.png")
    return path


def training_results(arguments):
    """(path of the weights, record of their training); FileNotFoundError names the command that makes what is missing."""
    default = records.kept(table1_mnist.weights_path(arguments.out, f"{arguments.preset}-seed{arguments.seed}"))
    weights = arguments.weights or default
    stem = weights.stem.removeprefix(f"{table1_mnist.NAME}-")
    record = records.record_path(weights.parent.parent, table1_mnist.NAME, stem)
    for what, path in (("weights", weights), ("record of the training", record)):
        if not path.is_file():
            raise FileNotFoundError(
                f"no {what} at {path}; `python -m experiments run {table1_mnist.NAME} --preset {arguments.preset} "
                f"--seed {arguments.seed} --out {arguments.out}` trains the network and leaves both in {arguments.out}"
            )
    return weights, json.loads(record.read_text())


def tasks(settings):
    """Everything to measure, in order: dicts with the "part" and its arguments, each to become a row of the record."""
    found = [{"part": "floor", "convolution": convolution} for convolution in ("direct", "winograd")]
    found += [{"part": "reference"}]
    found += [
        {"part": "forward", "method": method, "tolerance": tolerance}
        for method in settings["methods"]
        for tolerance in settings["tolerances"]
    ]
    for group in settings["backward"]:
        where = {"weights": group["weights"], "batch_size": group["batch_size"]}
        found.append({"part": "cotangent", **where})
        found += [
            {"part": "state", **where, "method": method, "tolerance": tolerance}
            for method in settings["methods"]
            for tolerance in group["tolerances"]
        ]
        found += [
            {"part": "backward", **where, "method": method, "tolerance": tolerance, "reduction": reduction}
            for method in settings["methods"]
            for reduction in group["reductions"]
            for tolerance in group["tolerances"]
        ]
    found += [{"part": "test", "method": DEFAULT_METHOD, "tolerance": tolerance} for tolerance in settings["test_tolerances"]]
    return found + [
        {"part": "test", "method": method, "grid_steps": steps}
        for method, grids in settings["test_steps"].items()
        for steps in grids
    ]


def measure_all(tasks, measure, checkpoint, identity, count=1):
    """(rows, seconds): each task with what `measure(task, rows before it)` returns; goes on from `checkpoint`, if there is one.

    With a count above 1, what is not to be measured alone comes from so many processes, whose `measure` is given no rows.
    Raises CheckpointError where the checkpoint is of another `identity`, ValueError for a count below 1.
    """
    workers.check_count("workers", count)
    saved = {"identity": identity, "rows": {}, "seconds": 0.0}
    if checkpoint.exists():
        saved = training.load_checkpoint(checkpoint)
        if saved.get("identity") != identity:
            raise training.CheckpointError(f"{checkpoint} is of other weights or another configuration; --fresh begins anew")
    checkpoint.parent.mkdir(parents=True, exist_ok=True)
    rows, begun = saved["rows"], time.monotonic() - saved["seconds"]
    left = [place for place in range(len(tasks)) if place not in rows]
    shared = [place for place in left if count > 1 and tasks[place]["part"] not in ALONE]
    with _Progress(len(tasks), len(rows)) as shown:

        def finished(place, result):
            rows[place] = {**tasks[place], **result}
            training.save_checkpoint(checkpoint, {"identity": identity, "rows": rows, "seconds": time.monotonic() - begun})
            shown.done(rows[place])

        for place in left:
            if place not in shared:
                finished(place, measure(tasks[place], [rows[before] for before in sorted(rows) if before < place]))
        workers.run_tasks(
            functools.partial(measure, rows=()),
            [tasks[place] for place in shared],
            count,
            lambda number, result: finished(shared[number], result),
        )
    return [rows[place] for place in sorted(rows)], time.monotonic() - begun


def measure_in_laboratory(preset, weights, data, seed, task, rows):
    """`Laboratory.measure` of the task, in this process's laboratory."""
    return _laboratory(preset, weights, data, seed).measure(task, rows)


@functools.cache
def _laboratory(preset, weights, data, seed):
    settings = PRESETS[preset]
    *_, images, labels = table1_mnist._load(settings["data"], data)
    order = np.random.default_rng(seed).permutation(len(labels))
    return Laboratory(settings, training.load_weights(weights), images[order], labels[order], seed)


class _Progress:
    """A bar on a terminal, elsewhere a line every half-minute."""

    LINE_SECONDS = 30.0

    def __init__(self, total, done):
        self.bar = tqdm(total=total, initial=done, desc="measurements", disable=None)
        self.count, self.total, self.written_at = done, total, time.monotonic()

    def __enter__(self):
        return self

    def __exit__(self, *exception):
        self.bar.close()

    def done(self, row):
        """Count a measurement."""
        self.count += 1
        self.bar.update()
        if self.bar.disable and time.monotonic() - self.written_at >= self.LINE_SECONDS:
            print(f"{self.count} of {self.total} measurements, the last: {row['part']} {row.get('method', '')}", file=sys.stderr)
            self.written_at = time.monotonic()


class Laboratory:
    """A network with its weights, images and graphs: what the measurements share.

    settings: a preset; params: trained weights; images (N, 28, 28, 1) in [0, 1] and labels (N,), in the order of their use;
    seed: of the initial weights.
    """

    def __init__(self, settings, params, images, labels, seed):
        # TensorFlow takes seconds to import, and `list` should not.
        from original_repro import supervised

        channels = params["stem"]["conv1"]["weight"].shape[-1]
        # Pairs of channels, as with the paper's 64.
        self.groups = channels // 2
        self.settings, self.images, self.labels = settings, images, labels
        initial = supervised.init_odenet(np.random.default_rng(seed), mnist.FORMAT, channels=channels)
        self.params = {"trained": params, "initial": initial}
        self.net = supervised.OdeNet(mnist.FORMAT, groups=self.groups)
        self.graphs = {}

    def measure(self, task, rows):
        """What there is to add to a task to make it a row; `rows` are those before it."""
        what = {name: value for name, value in task.items() if name != "part"}
        if task["part"] == "forward" and any(
            row["part"] == "forward" and row["method"] == task["method"] and "error" not in row for row in rows
        ):
            return {"reason": "not tried: a looser tolerance took too many steps"}
        return getattr(self, task["part"])(**what)

    # Panels (a) and (b)

    def floor(self, convolution):
        """Relative difference of z(1) in float32 and float64 after the same steps of Runge and Kutta's method."""
        options = {"step_size": 1 / self.settings["floor_steps"]}
        single, double = (
            self.solve(*graph, method="rk4", options=options) for graph in (("float32", convolution), ("float64", "winograd"))
        )
        return {"error": relative_error(single, double)}

    def reference(self):
        """How far the reference is from a solve at ten times its tolerance."""
        nearly = self.solve("float64", "winograd", **_tight(10 * self.settings["reference_tolerance"]))
        return {"tolerance": self.settings["reference_tolerance"], "difference": relative_error(nearly, self.reference_state)}

    def forward(self, method, tolerance):
        """Error of z(1), evaluations and seconds of a solve."""
        from solvers_bridge import SolverError, record_solves

        self.dynamics("float32", "direct")  # not to be traced in the time that is measured
        try:
            with record_solves() as solves:
                while sum(solve.wall_seconds for solve in solves) < self.settings["timed_seconds"]:
                    z1 = self.solve(
                        "float32",
                        "direct",
                        method=method,
                        rtol=tolerance,
                        atol=tolerance,
                        options={"max_num_steps": self.settings["max_steps"]},
                    )
        except SolverError as error:
            return {"reason": str(error)}
        return {
            "nfe": solves[0].nfe,
            "steps": solves[0].steps,
            "order": solves[0].last_order,
            "seconds": float(np.median([solve.wall_seconds for solve in solves])),
            "solves": len(solves),
            "error": relative_error(z1, self.reference_state),
        }

    @functools.cached_property
    def reference_state(self):
        return self.solve("float64", "winograd", **_tight(self.settings["reference_tolerance"]))

    @functools.cached_property
    def first_state(self):
        images, _ = self.batch(self.settings["batch_size"], 0)
        return np.asarray(self.net.stem(self.params["trained"]["stem"], images))

    def dynamics(self, dtype, convolution):
        """The dynamics in float32 or float64, with "direct" convolutions or "winograd", traced for `first_state`."""
        from original_repro import supervised
        from solvers_bridge import TensorFlowDynamics, odeint

        if (dtype, convolution) not in self.graphs:
            layer = functools.partial(supervised.conv_dynamics, groups=self.groups, winograd=convolution == "winograd")
            self.graphs[dtype, convolution] = TensorFlowDynamics(layer, dtype)
            odeint(
                self.graphs[dtype, convolution], self.first_state, [0.0, 1.0], self.params["trained"]["dynamics"], method="euler"
            )
        return self.graphs[dtype, convolution]

    def solve(self, dtype, convolution, **solver):
        """z(1) of the first batch."""
        from solvers_bridge import odeint

        return odeint(
            self.dynamics(dtype, convolution), self.first_state, [0.0, 1.0], self.params["trained"]["dynamics"], **solver
        )[-1]

    # Panel (c)

    def cotangent(self, weights, batch_size):
        """Loss of a batch, a mean, and its derivatives: by z(1), entries' root mean square and maximum; by the parameters."""
        from autograd import value_and_grad

        net, params = self.solving(DEFAULT_METHOD, 1e-3), self.params[weights]
        images, labels = self.batch(batch_size, 0)
        z1 = self.final_state(net, params, images)
        loss, z1_bar = value_and_grad(lambda z: net.head_loss(params["head"], z, labels)[0])(z1)
        _, params_bar = net.value_and_grad(params, images, labels)
        return {
            "loss": float(loss),
            "adjoint_rms": rms(z1_bar),
            "adjoint_max": float(np.abs(z1_bar).max()),
            "gradient_max": max(float(np.abs(leaf).max()) for leaf in training.tree_leaves(params_bar["dynamics"])),
        }

    def state(self, weights, batch_size, method, tolerance):
        """Evaluations for z(t) alone: forwards, backwards, and backwards at the tolerance that a diluted norm amounts to.

        The latter for norms that are a root mean square. Means over the batches.
        """
        from solvers_bridge import SolverError, odeint, record_solves

        params, counts = self.params[weights], []
        for images, _ in self.batches(weights, batch_size):
            try:
                with record_solves() as solves:
                    z1 = self.final_state(self.solving(method, tolerance), params, images)
                    factor = dilution(method, z1.size, sum(leaf.size for leaf in training.tree_leaves(params["dynamics"])))
                    for net in (self.solving(method, tolerance), self.solving(method, factor * tolerance)):
                        odeint(net.dynamics, z1, [1.0, 0.0], params["dynamics"], **net.solver)
            except SolverError as error:
                return {"reason": str(error)}
            counts.append([solve.nfe for solve in solves])
        forward, backward, diluted = np.mean(counts, axis=0)
        return {"nfe_forward": forward, "nfe_backward": backward, "tolerance_factor": factor, "nfe_backward_diluted": diluted}

    def backward(self, weights, batch_size, method, tolerance, reduction):
        """Evaluations of the two solves of a gradient, means over the batches; the ratio is a lower bound if not "finished"."""
        net = self.solving(method, tolerance, adjoint_options={"max_num_steps": self.settings["max_steps_backward"]})
        counts, reason = [], None
        for images, labels in self.batches(weights, batch_size):
            count, reason = gradient_evaluations(net, self.params[weights], images, labels, reduction)
            counts.append(count)
            if reason is not None:
                # What is not finished with one batch has no mean; its bound needs no other.
                counts = [count]
                break
        forward, backward = np.mean(counts, axis=0)
        row = {
            "batches": len(counts),
            "nfe_forward": forward,
            "nfe_backward": backward,
            "ratio": backward / forward,
            "finished": reason is None,
        }
        return row if reason is None else {**row, "reason": reason}

    def batch(self, batch_size, number):
        """(images, labels) of a batch."""
        chosen = slice(number * batch_size, (number + 1) * batch_size)
        return self.images[chosen], self.labels[chosen]

    def batches(self, weights, batch_size):
        """The batches over which a group of panel (c) is averaged."""
        group = next(
            group for group in self.settings["backward"] if group["weights"] == weights and group["batch_size"] == batch_size
        )
        return [self.batch(batch_size, number) for number in range(group["batches"])]

    def solving(self, method, tolerance=1.0, **solver):
        """The network with another solver and the graphs that it has already."""
        net = copy.copy(self.net)
        net.solver = {"method": method, "rtol": tolerance, "atol": tolerance, **solver}
        if method not in GRID_METHODS:
            net.solver["options"] = {"max_num_steps": self.settings["max_steps"]}
        return net

    @staticmethod
    def final_state(net, params, images):
        """z(1) (batch, height, width, channels) as `net` solves it."""
        from solvers_bridge import odeint

        z0 = net.stem(params["stem"], images)
        return odeint(net.dynamics, z0, [0.0, 1.0], params["dynamics"], **net.solver)[-1]

    # Test error

    def test(self, method, tolerance=None, grid_steps=None):
        """Errors on the test set, at a tolerance or on a fixed grid of so many steps."""
        net = (
            self.solving(method, tolerance) if grid_steps is None else self.solving(method, options={"step_size": 1 / grid_steps})
        )
        evaluation = net.evaluate(self.params["trained"], self.images, self.labels, self.settings["test_batch_size"])
        return {
            **table1_mnist._error_metrics(evaluation, len(self.labels)),
            "loss": evaluation["loss"],
            "nfe": evaluation["nfe_forward"],
        }


def dilution(method, n, parameters):
    """By what a tolerance of n states is multiplied if they share the method's norm with all the rest of the adjoint system."""
    from solvers_bridge.integrators import INTEGRATORS

    return math.sqrt((2 * n + parameters + 1) / n) if INTEGRATORS[method].rms_norm else 1.0


def _tight(tolerance):
    return {"method": "dopri5", "rtol": tolerance, "atol": tolerance}


def rms(values):
    """Root mean square of an array."""
    return float(np.sqrt(np.mean(np.square(values, dtype=np.float64))))


def relative_error(values, reference):
    """Root mean square of the difference over that of the reference."""
    return rms(values - reference) / rms(reference)


def gradient_evaluations(net, params, images, labels, reduction):
    """((evaluations forward, evaluations backward), None) of the loss's gradient; `reduction` over the batch: "mean" or "sum".

    Where a solve does not end, evaluations are those up to there, and the reason stands in the place of None.
    """
    from autograd import grad

    from solvers_bridge import SolverError, record_solves

    scale, reason = {"mean": 1.0, "sum": float(len(labels))}[reduction], None
    with record_solves() as solves:
        try:
            grad(lambda params: scale * net.loss(params, images, labels)[0])(params)
        except SolverError as error:
            reason = str(error)
    return tuple(sum(solve.nfe for solve in solves if solve.direction == way) for way in ("forward", "backward")), reason


def line_fit(x, y):
    """(slope, intercept, R²) of the least-squares line through points; NaN where there are less than two different x."""
    x, y = np.asarray(x, float), np.asarray(y, float)
    if len(np.unique(x)) < 2:
        return math.nan, math.nan, math.nan
    slope, intercept = np.polyfit(x, y, 1)
    residual, total = np.sum((y - slope * x - intercept) ** 2), np.sum((y - y.mean()) ** 2)
    return float(slope), float(intercept), float(1 - residual / total) if total else math.nan


def is_half(row):
    """Whether a row of panel (c) bears out "roughly half": a lower bound never does."""
    return row["finished"] and row["ratio"] <= HALF


def is_whole(row):
    """Whether a row of panel (c) has about as many evaluations backward as forward, or more."""
    return row["ratio"] >= WHOLE


CONDITION = ("weights", "batch_size", "method", "reduction")


def verdicts(rows):
    """Where "roughly half" holds: a row for each condition of panel (c) but the tolerance, which is judged over.

    Each has the least and greatest ratio (the greatest is a lower bound where "finished" is false), the tolerances at which the
    ratio is at most HALF and at least WHOLE, and in words whether it holds.
    """
    found = []
    for condition, group in _by_condition(rows).items():
        half, whole = ([row["tolerance"] for row in group if judge(row)] for judge in (is_half, is_whole))
        holds = "holds" if len(half) == len(group) else f"holds at {_tolerances(half)} only" if half else "does not hold"
        found.append(
            {
                "part": "verdict",
                **dict(zip(CONDITION, condition, strict=True)),
                "conditions": len(group),
                "finished": all(row["finished"] for row in group),
                "ratio_least": min(row["ratio"] for row in group),
                "ratio_greatest": max(row["ratio"] for row in group),
                "half_at": half,
                "whole_at": whole,
                "roughly_half": holds,
            }
        )
    return found


def _by_condition(rows):
    groups = {}
    for row in rows:
        if row["part"] == "backward":
            groups.setdefault(tuple(row[name] for name in CONDITION), []).append(row)
    return groups


def _tolerances(values):
    return ", ".join(f"{value:.0e}" for value in values)


def metrics(rows, configuration):
    """Flat numbers of all panels; what has a tolerance is named by it, as ratio/adams/1e-03/mean.

    Of panel (c), names without more are of trained weights and the batch of the configuration.
    """
    flat = {f"float32_floor_{row['convolution']}": row["error"] for row in _part(rows, "floor")}
    for row in _part(rows, "reference"):
        flat["reference_difference"] = row["difference"]
    for row in _part(rows, "forward"):
        if "error" in row:
            flat |= {f"{name}/{row['method']}/{row['tolerance']:.0e}": row[name] for name in ("error", "nfe")}
    for method in configuration["methods"]:
        solved = [row for row in _part(rows, "forward") if row["method"] == method and "error" in row]
        slope, intercept, r2 = line_fit([row["nfe"] for row in solved], [1e3 * row["seconds"] for row in solved])
        flat |= {f"time_ms_per_evaluation/{method}": slope, f"time_ms_constant/{method}": intercept, f"time_r2/{method}": r2}
    backward = _part(rows, "backward")
    for row in backward:
        usual = row["weights"] == "trained" and row["batch_size"] == configuration["batch_size"]
        name = f"{row['method']}/{row['tolerance']:.0e}/{row['reduction']}"
        if usual:
            flat |= {f"{what}/{name}": row[what] for what in ("nfe_forward", "nfe_backward", "ratio")}
        else:
            flat[f"ratio/{name}/{row['weights']}/batch_{row['batch_size']}"] = row["ratio"]
    flat |= {
        "conditions": len(backward),
        f"conditions_at_most_{HALF}": sum(map(is_half, backward)),
        f"conditions_at_least_{WHOLE}": sum(map(is_whole, backward)),
        "conditions_not_finished": sum(not row["finished"] for row in backward),
    }
    epochs = _part(rows, "training")
    for when, epoch in (("first", epochs[0]), ("last", epochs[-1])):
        flat |= {f"nfe_{way}_{when}_epoch": epoch[f"nfe_{way}"] for way in ("forward", "backward")}
    return flat | _test_metrics(rows, configuration["trained_with"]["tolerance"])


def _test_metrics(rows, trained_tolerance):
    tests = _part(rows, "test")
    flat = {f"test_error/{_setting(row)}": row["error_rate"] for row in tests}
    at_training = next((row for row in tests if row.get("tolerance") == trained_tolerance), None)
    if at_training is not None:
        same = loosest_with_same_error(tests, at_training)
        flat |= {
            "test_tolerance_loosest_with_same_error": same["tolerance"],
            "test_evaluations_saved": 1 - same["nfe"] / at_training["nfe"],
        }
    return flat


def loosest_with_same_error(tests, at_training):
    """Of the rows of tests at tolerances: the loosest up to which none has an error above the 95 % interval of `at_training`."""
    looser = [row for row in tests if row.get("tolerance", 0) > at_training["tolerance"]]
    found = at_training
    for row in sorted(looser, key=lambda row: row["tolerance"]):
        if row["error_rate"] > at_training["error_rate_95_high"]:
            break
        found = row
    return found


def _setting(row):
    return f"{row['method']}/{row['tolerance']:.0e}" if "tolerance" in row else f"{row['method']}/steps_{row['grid_steps']}"


def _part(rows, part):
    return [row for row in rows if row["part"] == part]


def markdown_table(record):
    """Panel (c) of a record as Markdown: evaluations forward, backward, and their ratio, by condition; what it comes to below."""
    rows = record["history"]
    found = verdicts(rows)
    tolerances = sorted({row["tolerance"] for row in _part(rows, "backward")}, reverse=True)
    table = []
    for (condition, group), verdict in zip(_by_condition(rows).items(), found, strict=True):
        weights, batch_size, method, reduction = condition
        cells = {row["tolerance"]: _cell(row) for row in group}
        loss = "one image's" if batch_size == 1 else reduction
        table.append(
            [weights, batch_size, loss, LABELS[method], *(cells.get(value, "") for value in tolerances), verdict["roughly_half"]]
        )
    for row_group in _state_groups(rows):
        cells = {
            row["tolerance"]: f"{row['nfe_backward'] / row['nfe_forward']:.2f}, "
            f"{row['nfe_backward_diluted'] / row['nfe_forward']:.2f}"
            for row in row_group
        }
        first = row_group[0]
        table.append(
            [
                first["weights"],
                first["batch_size"],
                "z(t) alone",
                LABELS[first["method"]],
                *(cells.get(value, "") for value in tolerances),
                f"tolerance x 1, x {first['tolerance_factor']:.2f}",
            ]
        )
    headers = ["weights", "batch", "loss", "solver", *(f"{value:.0e}" for value in tolerances), f"ratio at most {HALF}"]
    return tabulate(table, headers=headers, tablefmt="github", disable_numparse=True) + "\n\n" + sentence(found)


def sentence(found):
    """Verdicts in a sentence."""
    conditions = sum(verdict["conditions"] for verdict in found)
    half = [
        f"{LABELS[verdict['method']]}, {verdict['weights']} weights, batch {verdict['batch_size']}, loss a "
        f"{verdict['reduction']}, at {_tolerances(verdict['half_at'])}"
        for verdict in found
        if verdict["half_at"]
    ]
    whole = sum(len(verdict["whole_at"]) for verdict in found)
    count = sum(len(verdict["half_at"]) for verdict in found)
    return (
        f"Evaluations backward are at most {HALF} of those forward in {count} of {conditions} conditions"
        f"{': ' + '; '.join(half) if half else ''}. They are at least {WHOLE} of them in {whole}."
    )


def _state_groups(rows):
    groups = {}
    for row in (row for row in _part(rows, "state") if "nfe_backward" in row):
        groups.setdefault((row["weights"], row["batch_size"], row["method"]), []).append(row)
    return list(groups.values())


def _cell(row):
    ratio = f"{row['ratio']:.2f}" if row["finished"] else f"over {row['ratio']:.1f}"
    return f"{row['nfe_forward']:.3g} → {row['nfe_backward']:.3g} ({ratio})"


COLOURS = {"adams": "C0", "lsoda": "C1", "dopri5": "C2", "euler": "C3", "rk4": "C4"}
MARKERS = {"adams": "o", "lsoda": "s", "dopri5": "^", "euler": "v", "rk4": "D"}


def draw(record, path):
    """The four panels of Figure 3."""
    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    rows, configuration = record["history"], record["configuration"]
    figure, ((a, b), (c, d)) = plt.subplots(2, 2, figsize=(10, 7.6), layout="constrained")
    _draw_error(a, rows)
    _draw_time(b, rows, record["metrics"])
    _draw_backward(c, rows, configuration["batch_size"])
    _draw_training(d, rows)
    for letter, axes in zip("abcd", (a, b, c, d), strict=True):
        axes.set_title(f"({letter})", loc="left", fontsize=10)
        axes.spines[["top", "right"]].set_visible(False)
    figure.suptitle(
        f"An ODE-Net trained on {configuration['data']}, {LABELS[configuration['trained_with']['method']]} "
        f"at {configuration['trained_with']['tolerance']:g}; batches of {configuration['batch_size']}"
    )
    _save(figure, path)


def _draw_error(axes, rows):
    for method, series in _by_method(row for row in _part(rows, "forward") if "error" in row):
        axes.loglog(
            [row["nfe"] for row in series],
            [row["error"] for row in series],
            f"{MARKERS[method]}-",
            color=COLOURS[method],
            markersize=4.5,
            linewidth=1,
            label=LABELS[method],
        )
        for row in series if method == DEFAULT_METHOD else ():
            axes.annotate(
                f"$10^{{{math.log10(row['tolerance']):.0f}}}$",
                (row["nfe"], row["error"]),
                xytext=(-4, -4),
                textcoords="offset points",
                ha="right",
                va="top",
                fontsize=7,
                color=COLOURS[method],
            )
    for row, style in zip(_part(rows, "floor"), (":", "-."), strict=True):
        how = {"direct": "direct", "winograd": "Winograd"}[row["convolution"]]
        axes.axhline(row["error"], color="grey", linestyle=style, linewidth=1, label=f"float32, {how} convolutions")
    axes.set(xlabel="evaluations forward", ylabel="relative error of z(1)")
    _plain_log(axes.xaxis, (1, 3))
    axes.margins(x=0.12)
    axes.legend(frameon=False, fontsize=8)


def _draw_time(axes, rows, metrics):
    for method, series in _by_method(row for row in _part(rows, "forward") if "error" in row):
        counts = np.array([row["nfe"] for row in series])
        slope, constant, r2 = (metrics[f"{name}/{method}"] for name in ("time_ms_per_evaluation", "time_ms_constant", "time_r2"))
        fitted = slope is not None
        label = f"{LABELS[method]}: {slope:.3g} ms each{'' if r2 is None else f', R² {r2:.3f}'}" if fitted else LABELS[method]
        axes.plot(counts, [row["seconds"] for row in series], MARKERS[method], color=COLOURS[method], markersize=4.5, label=label)
        if fitted:
            ends = np.array([0, counts.max()])
            axes.plot(ends, (constant + slope * ends) / 1e3, color=COLOURS[method], linewidth=1)
    axes.set(xlabel="evaluations forward", ylabel="time of the forward solve (s)", xlim=(0, None), ylim=(0, None))
    axes.legend(frameon=False, fontsize=8)


def _draw_backward(axes, rows, batch_size):
    groups = {
        "mean": ("full", f"loss a mean over {batch_size}"),
        "sum": ("none", f"loss a sum over {batch_size}"),
        "one": ("left", "one image"),
    }
    found = [row for row in _part(rows, "backward") if row["weights"] == "trained"]
    for row in found:
        style = groups["one" if row["batch_size"] == 1 else row["reduction"]][0]
        axes.plot(
            row["nfe_forward"],
            row["nfe_backward"],
            MARKERS[row["method"]],
            color=COLOURS[row["method"]],
            fillstyle=style,
            markersize=5.5,
            markeredgewidth=1,
            linestyle="none",
        )
        if not row["finished"]:
            axes.annotate(
                "",
                (row["nfe_forward"], 1.9 * row["nfe_backward"]),
                (row["nfe_forward"], row["nfe_backward"]),
                arrowprops={"arrowstyle": "->", "color": COLOURS[row["method"]]},
            )
    ends = np.array([0.8 * min(row["nfe_forward"] for row in found), 1.25 * max(row["nfe_forward"] for row in found)])
    axes.loglog(ends, ends, "-", color="grey", linewidth=1)
    axes.loglog(ends, ends / 2, "--", color="grey", linewidth=1)
    for share, text in ((1, "as many"), (0.5, "half")):
        axes.annotate(
            text, (ends[1], share * ends[1]), xytext=(3, 0), textcoords="offset points", fontsize=8, color="grey", va="center"
        )
    handles = [
        axes.plot([], [], "o", color="black", fillstyle=style, markersize=5.5, label=text)[0] for style, text in groups.values()
    ]
    handles += [
        axes.plot([], [], MARKERS[method], color=COLOURS[method], markersize=5.5, label=LABELS[method])[0]
        for method in dict.fromkeys(row["method"] for row in found)
    ]
    axes.set(
        xlabel="evaluations forward",
        ylabel="evaluations backward (trained weights)",
        ylim=(0.35 * ends[0], 2.5 * max(row["nfe_backward"] for row in found)),
    )
    _plain_log(axes.xaxis)
    _plain_log(axes.yaxis)
    axes.legend(handles=handles, frameon=False, fontsize=8, loc="upper left")


def _draw_training(axes, rows):
    epochs = _part(rows, "training")
    for way, style, colour in (("forward", "o-", "C5"), ("backward", "s--", "C6")):
        axes.plot(
            [row["epoch"] for row in epochs],
            [row[f"nfe_{way}"] for row in epochs],
            style,
            color=colour,
            markersize=4.5,
            label=way,
        )
    most = max(row[f"nfe_{way}"] for row in epochs for way in ("forward", "backward"))
    axes.set(xlabel="epoch", ylabel="evaluations a training step", ylim=(0, 1.25 * most))
    axes.xaxis.set_major_locator(matplotlib.ticker.MaxNLocator(integer=True))
    axes.legend(frameon=False, fontsize=8, loc="lower right")


def draw_test(record, path):
    """Test error over the tolerance of testing, and over evaluations."""
    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    rows, configuration = record["history"], record["configuration"]
    trained = configuration["trained_with"]["tolerance"]
    figure, (left, right) = plt.subplots(1, 2, figsize=(10, 3.9), layout="constrained", sharey=True)
    for method, series in _by_method(_part(rows, "test")):
        percent = [100 * row["error_rate"] for row in series]
        bars = [[100 * abs(row[f"error_rate_95_{end}"] - row["error_rate"]) for row in series] for end in ("low", "high")]
        style = {"color": COLOURS[method], "marker": MARKERS[method], "markersize": 4.5, "linewidth": 1}
        right.plot([row["nfe"] for row in series], percent, label=LABELS[method], **style)
        if "tolerance" in series[0]:
            left.errorbar([row["tolerance"] for row in series], percent, bars, capsize=2, **style)
            for row in series:
                left.annotate(
                    f"{row['nfe']:.3g}",
                    (row["tolerance"], 100 * row["error_rate_95_high"]),
                    xytext=(0, 3),
                    textcoords="offset points",
                    ha="center",
                    va="bottom",
                    fontsize=7,
                )
    left.axvline(trained, color="grey", linestyle=":", linewidth=1)
    left.annotate(
        "trained with",
        (trained, 0.98),
        xycoords=("data", "axes fraction"),
        xytext=(4, 0),
        textcoords="offset points",
        fontsize=8,
        color="grey",
        va="top",
    )
    left.set(xscale="log", yscale="log", xlabel="tolerance of testing (above the points: evaluations)", ylabel="test error (%)")
    right.set(xscale="log", xlabel="evaluations of a forward solve")
    for axes in (left, right):
        axes.spines[["top", "right"]].set_visible(False)
    _plain_log(left.yaxis, (1, 2, 3, 4, 5, 6, 8))
    _plain_log(right.xaxis)
    right.legend(frameon=False, fontsize=8)
    figure.suptitle(f"Trained with high accuracy, tested with low: {configuration['data']}")
    _save(figure, path)


def _by_method(rows):
    series = {}
    for row in rows:
        series.setdefault(row["method"], []).append(row)
    return series.items()


def _plain_log(axis, digits=(1, 2, 5)):
    """Ticks of a logarithmic axis at these multiples of powers of ten, written in full."""
    axis.set_major_locator(matplotlib.ticker.LogLocator(subs=digits))
    axis.set_major_formatter(matplotlib.ticker.FormatStrFormatter("%g"))
    axis.set_minor_locator(matplotlib.ticker.NullLocator())


def _save(figure, path):
    from matplotlib import pyplot

    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=110)
    pyplot.close(figure)
