"""How long trained networks of Table 1 take at test: ODE-Net, RK-Net and the equal ResNet on the same images, in turn.

The weights are those that `run table1_mnist --preset paper` of each network left; in the quick preset those of an untrained one
stand in, whose ODE takes fewer evaluations. Each network answers the same test images in batches of 250, one network after the
other, five times over; medians of the time, after a first round that does not count.
"""

import time

import numpy as np

from original_repro import training

from .. import Experiment, Section
from ..harness import records
from ..harness.tables import markdown_table
from . import table1_mnist, table1_summary

NAME = "inference_speed"
MODELS = ("odenet", "rknet", "resnet")
PRESETS = {
    "quick": {"data": "embedded sample", "images": 250, "rounds": 2, "trained": False},
    "paper": {"data": "full MNIST", "images": 1000, "rounds": 5, "trained": True},
}


def run(settings, places):
    """Measure, write and return the record. FileNotFoundError where there are no weights."""
    begun, preset = time.perf_counter(), PRESETS[settings.preset]
    images, labels = (array[: preset["images"]] for array in table1_mnist.load_test_images(preset["data"], None))
    networks, seconds, evaluations = {}, {model: [] for model in MODELS}, {}
    for model in MODELS:
        net, initial_params, _ = table1_mnist.network(model, "adams", 1e-3)
        if preset["trained"]:
            of_model = table1_mnist.RunSettings(preset=settings.preset, seed=settings.seed, model=model)
            networks[model] = net, training.load_weights(table1_mnist.kept_weights(of_model, places))
        else:
            networks[model] = net, initial_params(np.random.default_rng(settings.seed))
    for number in range(1 + preset["rounds"]):
        for model, (net, params) in networks.items():
            start = time.perf_counter()
            evaluation = net.evaluate(params, images, labels)
            if number:
                seconds[model].append(time.perf_counter() - start)
            evaluations[model] = evaluation.get("nfe_forward")
    medians = {model: float(np.median(taken)) for model, taken in seconds.items()}
    return records.record_run(
        NAME,
        settings,
        places,
        configuration={**preset, "tolerance": 1e-3},
        metrics={
            **{f"{model}_seconds": taken for model, taken in medians.items()},
            **{f"{model}_over_resnet_seconds": medians[model] / medians["resnet"] for model in ("odenet", "rknet")},
            **{f"{model}_nfe": count for model, count in evaluations.items() if count is not None},
        },
        history=[{"model": model, "seconds": taken} for model, taken in seconds.items()],
        wall_seconds=time.perf_counter() - begun,
    )


def table(found):
    """Milliseconds an image of each network, and its ratio to the ResNet's, in Markdown."""
    record = records.first(found, NAME)
    if record is None:
        return ""
    metrics, images = record["metrics"], record["configuration"]["images"]
    rows = [
        [
            table1_summary.LABELS[model],
            f"{1e3 * metrics[f'{model}_seconds'] / images:.3f}",
            f"{metrics[f'{model}_seconds'] / metrics['resnet_seconds']:.2f}",
            f"{metrics[f'{model}_nfe']:.1f}" if f"{model}_nfe" in metrics else "",
        ]
        for model in MODELS
    ]
    return markdown_table(["network", "ms an image at test", "over the ResNet's", "evaluations"], rows)


EXPERIMENT = Experiment(
    name=NAME,
    source="Table 1",
    shows="time of trained networks at test",
    run=run,
    description=__doc__,
    preset_of=lambda settings: PRESETS[settings.preset],
    takes={"quick": "20 s"},
    in_all=False,  # What it checks are the trained networks of the paper preset.
    needs=table1_mnist.NAME,
    section=Section("Time at test", table),
)
