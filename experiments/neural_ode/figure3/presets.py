"""What Figure 3 measures: presets, and the list of measurements of each."""

NAME = "figure3_mnist"
DEFAULT_METHOD = "adams"
GRID_METHODS = ("euler", "rk4")
# What is measured by itself, in this order: seconds are among the results.
ALONE = ("floor", "reference", "forward")
LABELS = {"adams": "VODE Adams", "lsoda": "LSODA", "dopri5": "dopri5", "euler": "Euler", "rk4": "Runge–Kutta 4"}

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
