"""Numbers of parameters of the models of images: as the second paper publishes them, and by both ways of counting.

The published totals are, to the unit, those of the field without the weights of its time channels; the authors' public code has
them, and so do the models here. ImageNet's totals are those of a head of ten classes, where the paper has 200.
"""

from typing import NamedTuple

from ..harness.tables import markdown_table


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


SIZES = (
    Size("MNIST", "NODE", (28, 28, 1), 92, 0, "84,395"),
    Size("MNIST", "ANODE", (28, 28, 1), 64, 5, "84,816"),
    Size("CIFAR-10, SVHN", "NODE", (32, 32, 3), 125, 0, "172,358"),
    Size("CIFAR-10, SVHN", "ANODE", (32, 32, 3), 64, 10, "171,799"),
    Size("ImageNet 64 x 64", "NODE", (64, 64, 3), 164, 0, "366 thousand", classes=200),
    Size("ImageNet 64 x 64", "ANODE", (64, 64, 3), 64, 5, "365 thousand", classes=200),
)


def counts(size, *, classes, time):
    """(parameters of the field, of the head) of a Size."""
    height, width, channels = size.shape
    state, filters, t = channels + size.extra, size.filters, int(time)
    field = (state + t) * filters + filters + 9 * (filters + t) * filters + filters + (filters + t) * state + state
    return field, height * width * state * classes + classes


def table():
    """Published totals beside both ways of counting."""
    rows = []
    for size in SIZES:
        field, head = counts(size, classes=size.published_classes, time=False)
        with_time = sum(counts(size, classes=size.classes, time=True))
        rows.append(
            [
                size.images,
                size.model,
                f"{size.filters}, {size.extra}",
                size.published,
                f"{field:,} + {head:,}, {size.published_classes} classes",
                f"{with_time:,}, {size.classes} classes",
            ]
        )
    headers = ["images", "model", "filters k, zeros p", "published", "field + head, without time channels", "with them, as here"]
    return markdown_table(headers, rows)
