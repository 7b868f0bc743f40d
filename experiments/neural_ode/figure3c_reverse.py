"""Figure 3c over the reverse tolerance: when are the evaluations backward half of those forward?

The paper does not say at which tolerance it solved backwards. Here the reverse tolerance is the forward one times 1, 3, 10 and
30, with VODE's Adams method and LSODA, on the ODE-Net that `run table1_mnist` of the same preset and seed left: a batch of 128 at
forward tolerances from 1e-2 to 1e-5; batches of 1 to 64 at 1e-3 and 1e-5; and untrained networks of 16, 32 and 64 channels, at
1e-3, which change how many parameters share the error norm with the state. The loss is a mean over the batch.

What a looser reverse solve costs is the error of the gradient, relative to that of Adams at a tight tolerance both ways
(Euclidean norm over all parameters), for the batch of 128.
"""

import functools
import time

import numpy as np

from original_repro import training
from original_repro.datasets import mnist

from .. import Experiment, Section
from ..harness import records
from ..harness.tables import markdown_table
from ..harness.tasks import measure_all
from . import table1_mnist
from .figure3.laboratory import gradient_evaluations
from .figure3.presets import LABELS

NAME = "figure3c_reverse"
PRESETS = {
    "quick": {
        "data": "embedded sample",
        "methods": ("adams", "lsoda"),
        "batch_size": 20,
        "tolerances": (1e-2, 1e-3),
        "factors": (1.0, 10.0),
        "batch_sizes": (1,),
        "batch_tolerances": (1e-3,),
        "channels": (16,),
        "reference_tolerance": 1e-5,
        "max_steps_backward": 200,
    },
    "paper": {
        "data": "full MNIST",
        "methods": ("adams", "lsoda"),
        "batch_size": 128,
        "tolerances": (1e-2, 1e-3, 1e-4, 1e-5),
        "factors": (1.0, 3.0, 10.0, 30.0),
        "batch_sizes": (1, 2, 4, 8, 16, 32, 64),
        "batch_tolerances": (1e-3, 1e-5),
        "channels": (16, 32, 64),
        "reference_tolerance": 1e-7,
        "max_steps_backward": 1000,
    },
}
# Images that a small batch's count is a mean over, at least.
IMAGES = 4


def run(settings, places):
    """Measure, write and return the record; goes on from a checkpoint. FileNotFoundError where there are no weights."""
    begun, preset = time.perf_counter(), PRESETS[settings.preset]
    path = table1_mnist.kept_weights(settings, places)
    checkpoint = places.checkpoint(NAME, settings.stem)
    laboratory = functools.cache(lambda: _Laboratory(settings, training.load_weights(path), preset))
    identity = {"settings": preset, "seed": settings.seed, "weights": path.name}
    rows, _ = measure_all(tasks(preset), lambda task, rows: laboratory().measure(task), checkpoint, identity)
    record = records.record_run(
        NAME,
        settings,
        places,
        configuration={**preset, "weights": path.name},
        metrics=metrics(rows),
        history=rows,
        wall_seconds=time.perf_counter() - begun,
    )
    checkpoint.unlink(missing_ok=True)
    return record


def tasks(preset):
    """All conditions: dicts of a part and what a gradient is taken of, at which tolerances."""
    full, trained = preset["batch_size"], {"part": "backward", "weights": "trained"}
    return [
        *(
            {**trained, "batch_size": full, "method": method, "tolerance": tolerance, "factor": factor}
            for method in preset["methods"]
            for tolerance in preset["tolerances"]
            for factor in preset["factors"]
        ),
        *(
            {**trained, "batch_size": size, "method": method, "tolerance": tolerance, "factor": factor}
            for method in preset["methods"]
            for tolerance in preset["batch_tolerances"]
            for size in preset["batch_sizes"]
            for factor in preset["factors"]
        ),
        *(
            {
                "part": "backward",
                "weights": "initial",
                "channels": channels,
                "batch_size": size,
                "method": method,
                "tolerance": 1e-3,
                "factor": factor,
            }
            for method in preset["methods"]
            for channels in preset["channels"]
            for size in (1, full)
            for factor in preset["factors"]
        ),
    ]


class _Laboratory:
    """Images, and networks with their graphs."""

    def __init__(self, settings, params, preset):
        images, labels = table1_mnist.load_test_images(preset["data"], None)
        order = np.random.default_rng(settings.seed).permutation(len(labels))
        self.images, self.labels, self.seed, self.preset = images[order], labels[order], settings.seed, preset
        self.trained = params
        self.nets = {}

    def measure(self, task):
        """Evaluations forward and backward, means over the batches, and for the full trained batch the gradient's error."""
        params = self.params(task.get("channels"))
        net = self.net(params, task["method"], task["tolerance"], task["factor"])
        counts, reason = [], None
        for start in range(0, max(IMAGES, task["batch_size"]), task["batch_size"]):
            chosen = slice(start, start + task["batch_size"])
            count, reason = gradient_evaluations(net, params, self.images[chosen], self.labels[chosen], "mean")
            counts.append(count)
            if reason is not None:
                break
        forward, backward = (float(mean) for mean in np.mean(counts, axis=0))
        row = {"nfe_forward": forward, "nfe_backward": backward, "ratio": backward / forward, "finished": reason is None}
        if reason is not None:
            return {**row, "reason": reason}
        if task["weights"] == "trained" and task["batch_size"] == self.preset["batch_size"]:
            row["gradient_error"] = self.gradient_error(net)
        return row

    def params(self, channels):
        """Trained weights, or initial ones of so many channels."""
        from original_repro import supervised

        if channels is None:
            return self.trained
        return supervised.init_odenet(np.random.default_rng(self.seed), mnist.FORMAT, channels=channels)

    def net(self, params, method, tolerance, factor):
        """The network with a solver, by graphs that all networks of its size share."""
        from original_repro import supervised

        groups = params["stem"]["conv1"]["weight"].shape[-1] // 2
        if groups not in self.nets:
            self.nets[groups] = supervised.OdeNet(mnist.FORMAT, groups=groups)
        net = self.nets[groups]
        net.solver = {
            "method": method,
            "rtol": tolerance,
            "atol": tolerance,
            "adjoint_rtol": factor * tolerance,
            "adjoint_atol": factor * tolerance,
            "adjoint_options": {"max_num_steps": self.preset["max_steps_backward"]},
        }
        return net

    def gradient_error(self, net):
        """Relative error of the full batch's gradient by the trained weights."""
        reference, gradient = self.reference, self.gradient(net)
        return float(np.linalg.norm(gradient - reference) / np.linalg.norm(reference))

    @functools.cached_property
    def reference(self):
        tight = self.preset["reference_tolerance"]
        net = self.nets[self.trained["stem"]["conv1"]["weight"].shape[-1] // 2]
        before = net.solver
        net.solver = {"method": "adams", "rtol": tight, "atol": tight}
        gradient = self.gradient(net)
        net.solver = before
        return gradient

    def gradient(self, net):
        """The gradient of the full batch's mean loss by all trained parameters, flat."""
        chosen = slice(0, self.preset["batch_size"])
        _, gradient = net.value_and_grad(self.trained, self.images[chosen], self.labels[chosen])
        return np.concatenate([np.ravel(leaf) for leaf in training.tree_leaves(gradient)]).astype(np.float64)


def metrics(rows):
    """Ratios of the trained network's full batch by method, tolerance and factor, and the gradient errors."""
    return {
        f"{name}/{row['method']}/{row['tolerance']:.0e}/x{row['factor']:g}": row[name]
        for row in rows
        for name in ("ratio", "gradient_error")
        if "gradient_error" in row
    }


def table(found):
    """Evaluations backward over forward by the reverse tolerance, in Markdown, and what that costs the gradient."""
    record = records.first(found, NAME)
    if record is None:
        return ""
    factors, rows = record["configuration"]["factors"], {}
    for row in record["history"]:
        network = "trained" if row["weights"] == "trained" else f"initial, {row['channels']} channels"
        key = (network, LABELS[row["method"]], row["batch_size"], f"{row['tolerance']:g}")
        error = f" ({100 * row['gradient_error']:.2g} %)" if "gradient_error" in row else ""
        rows.setdefault(key, {})[row["factor"]] = f"{'' if row['finished'] else '> '}{row['ratio']:.2f}{error}"
    heads = ["weights", "method", "batch", "forward tolerance", *(f"reverse tolerance × {factor:g}" for factor in factors)]
    return markdown_table(heads, [[*key, *(cells.get(factor, "") for factor in factors)] for key, cells in rows.items()])


EXPERIMENT = Experiment(
    name=NAME,
    source="Figure 3c",
    shows="evaluations backward over forward, over the reverse tolerance, the method, the batch and the channels",
    run=run,
    description=__doc__,
    preset_of=lambda settings: PRESETS[settings.preset],
    takes={"quick": "1 min"},
    in_all=False,  # What it checks are the trained networks of the paper preset.
    needs=table1_mnist.NAME,
    section=Section("Figure 3c over the reverse tolerance: backward over forward (in brackets, error of the gradient)", table),
)
