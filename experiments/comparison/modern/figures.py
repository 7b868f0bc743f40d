"""Work-precision figures of a comparison: the gradient's error over time, and over evaluations, a panel a problem."""

import textwrap

from matplotlib.lines import Line2D
from matplotlib.ticker import NullFormatter

from ...harness import plotting
from .winners import points, seconds

LEAST = 1e-12
MARKERS = "osv^DPX*<>"


def evaluations(row):
    """Evaluations both ways of a gradient; None where the library does not tell both."""
    counts = row.get("nfe_forward"), row.get("nfe_backward")
    return None if None in counts else sum(counts)


AXES = {
    "time": (seconds, "processor seconds of solve and gradient"),
    "evaluations": (evaluations, "evaluations, forward and backward"),
}


def draw(record, path):
    """path(name) -> where the figure of AXES' name goes."""
    for name, (value, label) in AXES.items():
        _draw(record, value, label, path(name))


def _draw(record, value, label, path):
    rows = [row for row in points(record["history"]) if row.get("gradient_error") is not None and value(row)]
    libraries = list(dict.fromkeys(row["library"] for row in points(record["history"])))
    colours = {library: f"C{number}" for number, library in enumerate(libraries)}
    references = record["configuration"]["references"]
    problems = list(references)
    columns = min(3, len(problems))
    lines = -(-len(problems) // columns)
    figure, axes = plotting.subplots(lines, columns, figsize=(4.6 * columns, 3.5 * lines + 1.2), squeeze=False)
    shown = {}
    for one, problem in zip(axes.flat, problems, strict=False):
        of_problem = [row for row in rows if row["problem"] == problem]
        for library in libraries:
            methods = list(dict.fromkeys(row["method"] for row in points(record["history"]) if row["library"] == library))
            for number, method in enumerate(methods):
                style = {"color": colours[library], "marker": MARKERS[number % len(MARKERS)]}
                line = [row for row in of_problem if (row["library"], row["method"]) == (library, method)]
                if line:
                    x, y = zip(*((value(row), max(row["gradient_error"], LEAST)) for row in line), strict=True)
                    one.plot(x, y, linewidth=0.9, markersize=4, **style)
                    shown[library, method] = style
        one.axhspan(LEAST / 10, max(references[problem]["gradient"], LEAST), color="0.9", linewidth=0)
        one.set(xscale="log", yscale="log", ylim=(LEAST / 3, 30.0))
        one.xaxis.set_minor_formatter(NullFormatter())
        one.set_title(textwrap.fill(record["configuration"]["words"][problem], 42), fontsize=9)
    for one in axes.flat[len(problems) :]:
        one.set_visible(False)
    for one in axes[:, 0]:
        one.set_ylabel("error of the gradient")
    for place, one in enumerate(axes.flat):
        if place + columns >= len(problems):
            one.set_xlabel(label)
    handles = [
        Line2D([], [], linewidth=0.9, markersize=5, label=f"{library}: {method}", **style)
        for (library, method), style in sorted(shown.items(), key=lambda one: libraries.index(one[0][0]))
    ]
    figure.legend(handles=handles, loc="outside lower center", ncols=3, fontsize=8, frameon=False)
    plotting.save(figure, path)
