"""Numbers of parameters of the models of images: as the second paper publishes them, and as its public code has them.

The published totals are, to the unit, those of the field without the weights of its time channels; the authors' public code has
them, and so do the models here. ImageNet's totals are those of a head of ten classes, where the paper has 200. Counted in the
models themselves; nothing is trained.
"""

from typing import NamedTuple

import numpy as np

from .. import Experiment, Section
from ..harness import records
from ..harness.tables import markdown_table

NAME = "anode_parameters"


class Size(NamedTuple):
    """A model of images of `shape` (height, width, channels): what the paper publishes for it, in its own words."""

    images: str
    model: str
    shape: tuple
    filters: int
    extra: int
    published: str
    published_classes: int = 10
    classes: int = 10


# By their names in the metrics.
SIZES = {
    "mnist_node": Size("MNIST", "NODE", (28, 28, 1), 92, 0, "84,395"),
    "mnist_anode": Size("MNIST", "ANODE", (28, 28, 1), 64, 5, "84,816"),
    "coloured_node": Size("CIFAR-10, SVHN", "NODE", (32, 32, 3), 125, 0, "172,358"),
    "coloured_anode": Size("CIFAR-10, SVHN", "ANODE", (32, 32, 3), 64, 10, "171,799"),
    "imagenet_node": Size("ImageNet 64 x 64", "NODE", (64, 64, 3), 164, 0, "366 thousand", classes=200),
    "imagenet_anode": Size("ImageNet 64 x 64", "ANODE", (64, 64, 3), 64, 5, "365 thousand", classes=200),
}


def run(settings, places):
    """Count, write and return the record."""
    return records.record_measured(NAME, settings, places, measure, {name: size._asdict() for name, size in SIZES.items()})


def measure(settings, places):
    """(metrics, no history): totals as published, without the weights of time channels, and as the public code has them."""
    metrics = {}
    for name, size in SIZES.items():
        field, head = _counts(size, classes=size.published_classes, time=False)
        metrics |= {f"{name}_field": field, f"{name}_head": head, name: field + head}
        metrics[f"{name}_with_time"] = sum(_counts(size, classes=size.classes, time=True))
    return metrics, []


def _counts(size, *, classes, time):
    """(parameters of the field, of the head) of a Size."""
    from original_repro.augmented_images import init_image_ode
    from original_repro.supervised import parameter_count

    rng = np.random.default_rng(0)
    params = init_image_ode(rng, size.shape, size.filters, extra=size.extra, classes=classes, time=time)
    return parameter_count(params["field"]), parameter_count(params["head"])


def table(found):
    """Published totals beside both ways of counting."""
    record = records.first(found, NAME)
    if record is None:
        return "Not measured yet."
    rows, metrics = [], record["metrics"]
    for name, size in SIZES.items():
        parts = f"{metrics[f'{name}_field']:,} + {metrics[f'{name}_head']:,}"
        rows.append(
            [
                size.images,
                size.model,
                f"{size.filters}, {size.extra}",
                size.published,
                f"{parts}, {size.published_classes} classes",
                f"{metrics[f'{name}_with_time']:,}, {size.classes} classes",
            ]
        )
    headers = ["images", "model", "filters k, zeros p", "published", "field + head, without time channels", "with them, as here"]
    return markdown_table(headers, rows)


EXPERIMENT = Experiment(
    name=NAME,
    source="Augmented, section 5",
    shows="numbers of parameters of the models of images, as published and as in the public code",
    run=run,
    description=__doc__,
    takes={"quick": "10 s"},
    section=Section("Augmented Neural ODEs: numbers of parameters", table),
    page="docs/augmented.md",
)
