"""A training step of Augmented Neural ODEs' models of images, whose 3 x 3 convolution is made in several ways."""

import functools
import time
from importlib.util import find_spec

import numpy as np
from tabulate import tabulate

from ..augmented import images
from .side_by_side import compare, heading, take_turns

DATA, BATCH = "mnist_sample_half", 256
WAYS = ("direct", "winograd", "tables", "tiles")
COMPILED = ("tables", "tiles")


def bench_images(rounds, batch=BATCH, sizes=images.SIZES["grey"]):
    """Seconds of a step at the initialisation on halved digits, by model and way; sizes: {model: (filters, extra channels)}.

    Returns metrics images_*, images_<model>_winograd_ratio, images_node_tables_ratio and images_anode_tiles_ratio among them: the
    time over the direct convolution's, median of the rounds' ratios. With Numba, one channel by tables, more in tiles.
    """
    heading(f"Step of a model of images, 14 x 14, batch of {batch}, dopri5 at 1e-3 and its adjoint: seconds, median (minimum)")
    candidates = {
        (model, way): _step(filters, extra, way, batch)
        for model, (filters, extra) in sizes.items()
        for way in WAYS
        if way not in COMPILED or (find_spec("numba") and (way == "tables") == (extra == 0))
    }
    results = take_turns(candidates, rounds)
    metrics, rows = {}, []
    for (model, way), seconds in results.items():
        metrics[f"images_{model}_{way}_seconds_median"] = float(np.median(seconds))
        metrics[f"images_{model}_{way}_seconds_min"] = min(seconds)
        rows.append([model, way, f"{np.median(seconds):.3g} ({min(seconds):.3g})"])
        if way != "direct":
            metrics[f"images_{model}_{way}_ratio"] = compare(seconds, results[model, "direct"])[0]
            rows[-1].append(f"{metrics[f'images_{model}_{way}_ratio']:.2f} of the time")
    print(tabulate(rows, disable_numparse=True), flush=True)
    return metrics


def _step(filters, extra, way, batch):
    """A function that takes a training step's value and gradient, and gives its seconds."""
    from original_repro.augmented import NeuralOde
    from original_repro.augmented_images import conv_field, init_image_ode

    digits, labels, _, _ = images.load(images.task(data=DATA, examples=batch))
    params = init_image_ode(np.random.default_rng(0), digits.shape[1:], filters, extra=extra)
    if way == "tables":
        from original_repro.tabulated_field import tabulated_conv_field as field
    elif way == "tiles":
        from original_repro.tiled_field import tiled_conv_field as field
    else:
        field = functools.partial(conv_field, winograd=way == "winograd")
    model = NeuralOde(field, "cross_entropy", extra=extra)
    x = np.float32(digits) / np.float32(255)

    def step():
        begun = time.perf_counter()
        model.value_and_grad(params, x, labels)
        return time.perf_counter() - begun

    return step
