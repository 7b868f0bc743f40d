"""Figure 3's measurements: a network with its weights, images and graphs, and a method for each part."""

import copy
import functools
import math

import numpy as np

from original_repro import training
from original_repro.datasets import mnist

from .. import table1_mnist
from .presets import DEFAULT_METHOD, GRID_METHODS, PRESETS


def measure_in_laboratory(preset, weights, data, seed, task, rows):
    """`Laboratory.measure` of the task, in this process's laboratory."""
    return _laboratory(preset, weights, data, seed).measure(task, rows)


def check_weights(path, params):
    """Raise ValueError, naming the file, unless these are weights of an ODE-Net, of any number of channels."""
    # TensorFlow takes seconds to import, and `list` should not.
    from original_repro import supervised

    try:
        channels = params["stem"]["conv1"]["weight"].shape[-1]
    except (KeyError, TypeError, AttributeError, IndexError):
        raise ValueError(f"{path} does not hold weights of an ODE-Net") from None
    expected = supervised.init_odenet(np.random.default_rng(0), mnist.FORMAT, channels=channels)
    training.check_weights(path, params, expected, "an ODE-Net")


@functools.cache
def _laboratory(preset, weights, data, seed):
    settings = PRESETS[preset]
    *_, images, labels = table1_mnist.load_images(settings["data"], data)
    order = np.random.default_rng(seed).permutation(len(labels))
    return Laboratory(settings, training.load_weights(weights), images[order], labels[order], seed)


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
        self.params = {
            "trained": params,
            "initial": supervised.init_odenet(np.random.default_rng(seed), mnist.FORMAT, channels=channels),
        }
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
            **table1_mnist.error_metrics(evaluation, len(self.labels)),
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
