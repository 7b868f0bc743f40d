"""A training iteration of Augmented Neural ODEs' toy problems, with the field as a graph and compiled ahead of time."""

import time

import numpy as np
from tabulate import tabulate

from ..augmented import toy
from .side_by_side import compare, heading, native_is_available, take_turns

MODELS = {"node": 0, "anode": 1}  # and how many dimensions each has more than the points


def bench_toy(rounds):
    """Seconds of an iteration at the initialisation on spheres of the plane, by model and compiler; returns metrics toy_*.

    toy_<model>_native_speedup: median of the rounds' ratios.
    """
    heading("Iteration of a toy problem, batch of 64, dopri5 at 1e-3 and its discrete adjoint: milliseconds, median (minimum)")
    compilers = ("graph", "native") if native_is_available() else ("graph",)
    candidates = {(model, compiler): _iteration(model, compiler) for model in MODELS for compiler in compilers}
    results = take_turns(candidates, rounds)
    metrics, rows = {}, []
    for (model, compiler), seconds in results.items():
        metrics[f"toy_{model}_{compiler}_seconds_median"] = float(np.median(seconds))
        metrics[f"toy_{model}_{compiler}_seconds_min"] = min(seconds)
        rows.append([model, compiler, f"{1e3 * np.median(seconds):.3g} ({1e3 * min(seconds):.3g})"])
        if compiler == "native":
            metrics[f"toy_{model}_native_speedup"] = compare(results[model, "graph"], seconds)[0]
            rows[-1].append(f"{metrics[f'toy_{model}_native_speedup']:.1f} times as fast")
    print(tabulate(rows, disable_numparse=True), flush=True)
    return metrics


def _iteration(model, compiler):
    """A function that takes a training step's value and gradient, and gives its seconds."""
    task = toy.task(problem="spheres2", model=model, extra=MODELS[model])
    net, params = toy.model_of(task, compiler=compiler)
    x, y = (array[: task["batch_size"]] for array in toy.points_of(task)[0])

    def step():
        begun = time.perf_counter()
        net.value_and_grad(params, x, y)
        return time.perf_counter() - begun

    return step
