"""Figures: one way to begin and to save them, without a display and without pyplot's list of open ones."""

import io
import math
from pathlib import Path

import numpy as np
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.ticker import FormatStrFormatter, LogLocator, MaxNLocator, NullLocator

from original_repro.atomic_writes import write_atomically


def subplots(rows=1, columns=1, *, figsize, frames=False, **settings):
    """(figure, axes) as pyplot's subplots; no lines above and on the right of the axes, unless frames are wanted."""
    figure = Figure(figsize=figsize, layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.subplots(rows, columns, **settings)
    if not frames:
        for one in np.ravel(axes):
            one.spines[["top", "right"]].set_visible(False)
    return figure, axes


def save(figure, path, dpi=110):
    """Write a figure, whole or not at all, making its folder."""
    content = io.BytesIO()
    figure.savefig(content, dpi=dpi, format=Path(path).suffix[1:])
    Path(path).parent.mkdir(parents=True, exist_ok=True)
    write_atomically(path, content.getvalue())


def whole_numbers(axis):
    """Ticks at whole numbers only."""
    axis.set_major_locator(MaxNLocator(integer=True))


def plain_log(axis, digits=(1, 2, 5)):
    """Ticks of a logarithmic axis at these multiples of powers of ten, written in full."""
    axis.set_major_locator(LogLocator(subs=digits))
    axis.set_major_formatter(FormatStrFormatter("%g"))
    axis.set_minor_locator(NullLocator())


def power_of_ten(value):
    """10 to the power of -3 and its like, as a label."""
    return f"$10^{{{math.log10(value):.0f}}}$"
