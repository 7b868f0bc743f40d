"""Solves of several SciPy releases compared with those of a reference: verdicts, tables, the figure."""

from matplotlib.patches import Rectangle
from tabulate import tabulate

from ..harness import plotting
from ..harness.tables import markdown_table as table_of
from .fidelity_probe import SOLVERS

REFERENCE = "1.16.3"
VERDICTS = ("same", "equal counts", "differs", "not compared")


def key(cell):
    """What tells a solve from another."""
    return cell["solver"], cell["problem"], cell["tolerance"], cell["outputs"]


def compare(cells, reference):
    """A row for each solve, with a cell for each release.

    cells: {release: [cell]}; reference: {(solver, problem, tolerance, outputs): cell}. A cell of a row has evaluations, steps,
    success and verdict, and the state unless it is the reference's; "relative_difference" (largest component, relative to the
    largest of the reference's) where the state is another.
    """
    rows = {}
    for release, measured in cells.items():
        for cell in measured:
            row = rows.setdefault(
                key(cell), {name: cell[name] for name in ("solver", "problem", "tolerance", "outputs")} | {"releases": {}}
            )
            row["releases"][release] = judge(cell, reference.get(key(cell)), keep_state=release == REFERENCE)
    return list(rows.values())


def judge(cell, reference, keep_state=False):
    """One cell compared with the reference's (None: not compared)."""
    judged = {name: cell[name] for name in ("evaluations", "steps", "success")}
    if reference is None:
        return {"verdict": "not compared", **judged, "state": cell["state"]}
    counts = all(cell[name] == reference[name] for name in judged)
    bits = cell["state"] == reference["state"]
    verdict = "same" if counts and bits else "equal counts" if counts else "differs"
    judged = {"verdict": verdict, **judged}
    if not bits or keep_state:
        judged["state"] = cell["state"]
    if not bits:
        judged["relative_difference"] = relative_difference(cell["state"], reference["state"])
    return judged


def relative_difference(state, reference):
    """Largest |difference| over largest |reference|, of states as hexadecimal floats."""
    one, other = ([float.fromhex(text) for text in texts.split()] for texts in (state, reference))
    scale = max(map(abs, other))
    return max(abs(a - b) for a, b in zip(one, other, strict=True)) / (scale or 1.0)


def metrics(history, gaps):
    """Flat numbers: solves, and for each release how many have which verdict."""
    flat = {
        "solves": len(history),
        "releases": len(_measured(history)),
        "gaps": len(gaps),
        "cells": sum(len(row["releases"]) for row in history),
    }
    for release in _measured(history):
        found = [row["releases"][release]["verdict"] for row in history if release in row["releases"]]
        flat[f"cells_same_as_1.16/{release}"] = found.count("same")
        flat[f"cells_equal_counts/{release}"] = found.count("equal counts")
        flat[f"cells_differing/{release}"] = found.count("differs")
    return flat


def _measured(history):
    return list(dict.fromkeys(release for row in history for release in row["releases"]))


def _summary(history, solver, release):
    """(counts by verdict, largest relative difference at equal counts) of one cell of the matrix."""
    found = [row["releases"][release] for row in history if row["solver"] == solver and release in row["releases"]]
    counts = {verdict: sum(cell["verdict"] == verdict for cell in found) for verdict in VERDICTS}
    return counts, max((cell["relative_difference"] for cell in found if cell["verdict"] == "equal counts"), default=0.0)


def _heading(record, release):
    kinds = set(record["configuration"]["releases"][release]["integrators"].values())
    return f"{release} ({', '.join('C' if kind == 'c' else 'Fortran' for kind in sorted(kinds))})"


def markdown_table(record):
    """The matrix of a record as Markdown: a row for each solver, a column for each release, the gaps below it."""
    history, gaps = record["history"], record["configuration"]["gaps"]
    releases = sorted([*_measured(history), *gaps], key=_order)
    rows = [
        [solver, *(_words(record, solver, release) for release in releases)]
        for solver in dict.fromkeys(row["solver"] for row in history)
    ]
    headings = [_heading(record, release) if release not in gaps else release for release in releases]
    table = table_of(["solver", *headings], rows)
    return "\n".join([table, *(f"\nSciPy {release} was not measured: {gaps[release]}." for release in sorted(gaps, key=_order))])


def _order(release):
    return tuple(int(part) if part.isdigit() else 0 for part in release.split("."))


def _itself(record, release):
    """Whether a release is what the others are compared with, rather than being compared."""
    return record["configuration"]["compared_with"] == "this run" and release == record["configuration"]["reference"]


def _words(record, solver, release):
    if release in record["configuration"]["gaps"]:
        return "not measured"
    counts, largest = _summary(record["history"], solver, release)
    solves = sum(counts.values())
    if _itself(record, release):
        return f"{solves} solves"
    words = [f"**{counts['differs']} differ**"] if counts["differs"] else []
    if counts["equal counts"]:
        words.append(f"{counts['equal counts']} equal counts (to {largest:.0e})")
    if counts["not compared"]:
        words.append(f"{counts['not compared']} not compared")
    if counts["same"]:
        words.append(f"{'all' if counts['same'] == solves else counts['same']} same")
    return ", ".join(words)


def differences_table(record):
    """Every solve that is not the same in some release, with what it did there and in the reference."""
    reference = record["configuration"]["reference"]
    rows = []
    for row in record["history"]:
        was = row["releases"].get(reference, {})
        for release, cell in row["releases"].items():
            if cell["verdict"] in ("equal counts", "differs"):
                rows.append(
                    [
                        release,
                        row["solver"],
                        row["problem"],
                        f"{row['tolerance']:g}",
                        row["outputs"],
                        cell["verdict"],
                        f"{was.get('evaluations', '?')} -> {cell['evaluations']}",
                        f"{was.get('steps', '?')} -> {cell['steps']}",
                        f"{cell.get('relative_difference', 0.0):.1e}",
                    ]
                )
    if not rows:
        return "No solve differs."
    rows.sort(key=lambda row: (_order(row[0]), row[5] != "differs"))
    return tabulate(
        rows,
        headers=[
            "SciPy",
            "solver",
            "problem",
            "tolerance",
            "output times",
            "verdict",
            "evaluations",
            "steps",
            "relative difference",
        ],
        disable_numparse=True,
    )


COLOURS = {"same": "#8fc79a", "equal counts": "#f2d16b", "differs": "#e07b6a", "not compared": "#d9d9d9", "gap": "#ffffff"}


def draw(record, path):
    """The matrix in colours: each cell has its worst verdict and how many solves are other than in the reference."""
    history, gaps, reference = record["history"], record["configuration"]["gaps"], record["configuration"]["reference"]
    releases = sorted([*_measured(history), *gaps], key=_order)
    solvers = list(dict.fromkeys(row["solver"] for row in history)) or list(SOLVERS)
    figure, axes = plotting.subplots(figsize=(max(2.6 + 1.25 * len(releases), 7.0), 1.7 + 0.5 * len(solvers)), frames=True)
    for i, solver in enumerate(solvers):
        for j, release in enumerate(releases):
            kind, text = _cell(record, solver, release)
            axes.add_patch(
                Rectangle(
                    (j - 0.5, i - 0.5),
                    1,
                    1,
                    facecolor=COLOURS[kind],
                    edgecolor="white",
                    linewidth=2,
                    hatch="//" if kind == "gap" else None,
                )
            )
            axes.text(j, i, text, ha="center", va="center", fontsize=9)
    axes.set(xlim=(-0.5, len(releases) - 0.5), ylim=(len(solvers) - 0.5, -0.5))
    axes.set_yticks(range(len(solvers)), solvers)
    axes.set_xticks(
        range(len(releases)),
        [_heading(record, release).replace(" ", "\n") if release not in gaps else f"{release}\n(gap)" for release in releases],
    )
    axes.xaxis.tick_top()
    axes.tick_params(length=0)
    axes.spines[:].set_visible(False)
    axes.legend(
        [Rectangle((0, 0), 1, 1, facecolor=COLOURS[verdict]) for verdict in VERDICTS[:3]],
        ["all the same bits", "equal counts, other bits", "other evaluations or steps"],
        loc="upper center",
        bbox_to_anchor=(0.5, 0.0),
        ncols=3,
        frameon=False,
        fontsize=8,
    )
    figure.suptitle(f"Solves that are not as in SciPy {reference}", fontsize=11)
    plotting.save(figure, path)


def _cell(record, solver, release):
    if release in record["configuration"]["gaps"]:
        return "gap", "not\nmeasured"
    counts, _ = _summary(record["history"], solver, release)
    solves = sum(counts.values())
    worst = next((verdict for verdict in ("differs", "equal counts", "not compared", "same") if counts[verdict]), "not compared")
    text = {
        "same": f"0 of {solves}",
        "equal counts": f"{counts['equal counts']} of {solves}",
        "differs": f"{counts['differs']} of {solves}",
        "not compared": "not compared",
    }[worst]
    return worst, "reference" if _itself(record, release) else text
