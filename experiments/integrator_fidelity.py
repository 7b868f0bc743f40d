"""Do VODE, LSODA and Hairer's codes do the same in every SciPy? Solver by release, over classic problems, against release 1.16.

Each release from SciPy 1.1.0 (2018, Fortran) to 1.18 (C) runs the same solves in a virtual environment of its own, which this
command makes below neural-ode-repro/environments in the user's cache, or in $NEURAL_ODE_REPRO_CACHE/environments. A release that
cannot be had, for want of its Python or of a package, is a named gap in the record and the table. Every environment is asked for
OpenBLAS's kernels of one processor, as the traces of stack_2018 are: what differs then is the integrator, not the daxpy that it
calls.

The quick preset builds nothing: it measures the SciPy that runs the command and compares it with the committed record of the
paper preset.

A solve is the "same" if evaluations, steps and every bit of the final state are; "equal counts" if only the state differs;
otherwise it "differs".

What the C translations of SciPy 1.17 and 1.18 changed, found from the times and states at which they evaluate the right-hand side
(c_translations.py shows all three):

1. dopri5 and dop853 lose the step size between two calls of integrate(). The Fortran leaves it in WORK(7), which SciPy keeps, and
   the next call begins with it; in C WORK(7) stays 0, and each call estimates a first step anew: one more evaluation, at the end
   of an Euler step, and then a step that is too short. A solve with several output times takes other steps from the second on;
   one with a single output time is untouched. Proof: the Fortran with WORK(7) set to 0 between the calls gives C's evaluations
   and bits with dopri5.
2. dop853 loses the error of a rejected step. The next try is dfactor (0.3) times as long, always; in the Fortran it is 0.9
   err^(-1/8) times as long, and at least 0.3 (0.49 to 0.90 over the orbit D3 at 1e-6). With dfactor = 0.5, C's ratio is 0.5.
   Solves without a rejected step and with one output time (A1) keep every bit: coefficients, error estimate, first step and
   greatest step are the Fortran's.
3. VODE with Newton's iteration spoils an element of its Jacobian: the last one of the matrix holds the first, as if the copy that
   VODE keeps began one place too early, so that either overwrites the other. Only with_jacobian=True or a Jacobian of one's own
   comes to that (1.17 also transposes the latter; 1.18 does not): the default, functional iteration, is the Fortran's but for
   last bits.

Not in the matrix: Robertson's problem at 1e-3, where a component of 1e-5 is below the tolerance. LSODA's state overflows to NaN
there in every release, which 1.11 to 1.16 tell as a failure, 1.1.0 and the C ones as a success.
"""

import json
import os
import platform
import re
import runpy
import shutil
import subprocess
import sys
import time
from pathlib import Path

import matplotlib
import platformdirs
import scipy
from tabulate import tabulate
from tqdm import tqdm

from . import records
from .fidelity_probe import SOLVERS

NAME = "integrator_fidelity"
TITLE = "How faithful: each integrator in each SciPy release, Fortran and C, against 1.16"
REFERENCE = "1.16.3"
RELEASES = "1.1.0,1.11.4,1.14.1,1.16.3,1.17.1,1.18.1"
LOCATION_ARGUMENTS = ()

PROBLEMS = ("A1", "A3", "B1", "B5", "C3", "D3", "E2", "brusselator", "lorenz", "arenstorf", "robertson")
# Stiff: for Newton's iteration and a tolerance below its smallest component.
STIFF = ("robertson",)
NEWTON_SOLVERS = ("lsoda", "vode-bdf-newton")
TOLERANCES = (1e-3, 1.5e-8)
OUTPUTS = (1, 8)

# Series of SciPy: NumPy, and the Pythons that have binaries of both, the preferred one first.
ENVIRONMENTS = {
    "1.1": ("1.14.5", ("3.6",)),
    **dict.fromkeys(("1.11", "1.12"), ("1.26.4", ("3.11", "3.12", "3.10"))),
    **dict.fromkeys(("1.13", "1.14", "1.15"), ("1.26.4", ("3.11", "3.12"))),
    **dict.fromkeys(("1.16", "1.17"), ("2.4.6", ("3.11", "3.12", "3.13"))),
    "1.18": ("2.4.6", ("3.12", "3.13", "3.14")),
}
PROBE = Path(__file__).with_name("fidelity_probe.py")
COMMITTED = records.RESULTS / "runs" / NAME / "paper-seed0.json"
VERDICTS = ("same", "equal counts", "differs", "not compared")
SECONDS = 900


class Gap(Exception):
    """A release that cannot be measured here; its text says why."""


def add_arguments(parser):
    """The experiment's own options."""
    parser.add_argument("--releases", metavar="X.Y.Z,...", help=f"SciPy releases of the paper preset (default: {RELEASES})")


def run(arguments, stem):
    """Measure, compare, write the record and the figure, print the tables; returns the path of the record."""
    if arguments.releases is not None and arguments.preset == "quick":
        raise ValueError("--releases goes with --preset paper: the quick preset measures the SciPy that runs the command")
    releases = [scipy.__version__] if arguments.preset == "quick" else _releases(arguments.releases or RELEASES)
    begun = time.perf_counter()
    asked = {"problems": problems(), "tasks": tasks()}
    measured, gaps = {}, {}
    for release in tqdm(releases, desc="SciPy releases", disable=None):
        try:
            python = sys.executable if arguments.preset == "quick" else environment(release)
            measured[release] = probe(python, asked)
        except Gap as gap:
            if arguments.preset == "quick":
                raise RuntimeError(f"the probe failed: {gap}") from gap
            gaps[release] = str(gap)
    own = arguments.preset != "quick" and REFERENCE in measured
    reference = {_key(cell): cell for cell in measured[REFERENCE]["cells"]} if own else committed_reference()
    history = compare({release: answer["cells"] for release, answer in measured.items()}, reference)
    configuration = {
        "data": "classic problems",
        "reference": REFERENCE,
        "compared_with": "this run" if own else "the committed record" if reference else None,
        "problems": list(PROBLEMS),
        "tolerances": list(TOLERANCES),
        "output_times": list(OUTPUTS),
        "solvers": {name: [kind, options] for name, (kind, options) in SOLVERS.items()},
        "releases": {
            release: {key: value for key, value in answer.items() if key != "cells"} for release, answer in measured.items()
        },
        "gaps": gaps,
        "libc": " ".join(platform.libc_ver()),
        "kernels": _settings(),
    }
    path = records.record_path(arguments.out, NAME, stem)
    records.write_record(
        path,
        experiment=NAME,
        preset=arguments.preset,
        seed=arguments.seed,
        configuration=configuration,
        metrics=metrics(history, gaps),
        history=history,
        wall_seconds=time.perf_counter() - begun,
    )
    record = json.loads(path.read_text())
    print(markdown_table(record))
    print(differences_table(record))
    draw(record, Path(arguments.out) / "figures" / f"{NAME}-{stem}.png")
    return path


def _releases(text):
    releases = list(dict.fromkeys(part.strip() for part in text.split(",")))
    wrong = [release for release in releases if not re.fullmatch(r"\d+\.\d+\.\d+", release)]
    if wrong:
        raise ValueError(f"--releases takes full versions with commas between them, like {RELEASES}; got {', '.join(wrong)}")
    return releases


def problems():
    """The classic problems as text: {name: (right-hand side, y0, end)}, from the scripts that recorded the traces of 2018."""
    every = runpy.run_path(str(records.REPOSITORY / "original_repro" / "stack_2018" / "classics.py"))["PROBLEMS"]
    return {name: every[name] for name in PROBLEMS}


def tasks():
    """Every solve: solver, problem, tolerance, output times. Stiff ones: only Newton's iteration, the tight tolerance."""
    return [
        {"solver": solver, "problem": problem, "tolerance": tolerance, "outputs": outputs}
        for solver in SOLVERS
        for problem in PROBLEMS
        for tolerance in TOLERANCES
        for outputs in OUTPUTS
        if problem not in STIFF or (solver in NEWTON_SOLVERS and tolerance == min(TOLERANCES))
    ]


def probe(python, asked):
    """What the SciPy of an interpreter does with the tasks: fidelity_probe.py's answer."""
    done = _call([str(python), str(PROBE)], input=json.dumps(asked), env={**os.environ, **_settings()})
    return next(json.loads(line) for line in reversed(done.stdout.splitlines()) if line.startswith('{"python"'))


def _settings():
    return {"OPENBLAS_CORETYPE": "Nehalem", "OPENBLAS_NUM_THREADS": "1"}


def environment(release):
    """The interpreter of a virtual environment with this SciPy, made if it is not there. Raises Gap if it cannot be made."""
    series = release.rpartition(".")[0]
    if series not in ENVIRONMENTS:
        raise Gap(f"no NumPy and Python are known for SciPy {series}; known are {', '.join(ENVIRONMENTS)}")
    numpy_release, pythons = ENVIRONMENTS[series]
    base = next(filter(None, map(find_python, pythons)), None)
    if base is None:
        raise Gap(f"no Python {' or '.join(pythons)} on PATH or in ~/.pyenv/versions")
    folder = environments_folder() / f"scipy-{release}-numpy-{numpy_release}"
    python = folder / "bin" / "python"
    complete = folder / "complete"
    if not complete.exists():
        shutil.rmtree(folder, ignore_errors=True)
        _call([base, "-m", "venv", str(folder)])
        # Binaries only: building a SciPy of 2018 from source would take an hour and a Fortran compiler.
        _call(
            [
                str(python),
                "-m",
                "pip",
                "install",
                "--quiet",
                "--disable-pip-version-check",
                "--only-binary",
                ":all:",
                f"numpy=={numpy_release}",
                f"scipy=={release}",
            ]
        )
        complete.touch()
    return python


def environments_folder():
    """$NEURAL_ODE_REPRO_CACHE/environments, or environments in the user's cache for neural-ode-repro."""
    root = os.environ.get("NEURAL_ODE_REPRO_CACHE") or platformdirs.user_cache_dir("neural-ode-repro", appauthor=False)
    return Path(root) / "environments"


def find_python(version):
    """An interpreter of a version like "3.6": the one that runs this, pyenv's or one on PATH; None if none runs."""
    pyenv = sorted(Path.home().glob(f".pyenv/versions/{version}.*/bin/python"))
    on_path = shutil.which(f"python{version}")
    for candidate in [sys.executable, *map(str, pyenv), *([on_path] if on_path else [])]:
        try:
            answer = subprocess.run(
                [candidate, "-c", "import sys; print('%d.%d' % sys.version_info[:2])"], capture_output=True, text=True, timeout=60
            )
        except (OSError, subprocess.TimeoutExpired):
            continue
        if answer.stdout.strip() == version:
            return candidate
    return None


def _call(command, **options):
    """Run a command; a Gap with its last word if it fails. Addresses stay out of it: records are public, pip's set-up is not."""
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=SECONDS, **options)
    except (OSError, subprocess.TimeoutExpired) as error:
        raise Gap(f"{type(error).__name__} from {' '.join(command[1:4])}") from error
    if done.returncode:
        lines = [line.strip() for line in (done.stderr or done.stdout).splitlines() if line.strip()]
        errors = [line for line in lines if "error" in line.lower() or "no matching" in line.lower()] or lines or ["no message"]
        raise Gap(re.sub(r"\w+://\S+", "(address)", errors[-1])[:200])
    return done


def committed_reference():
    """The reference's cells in the committed record of the paper preset; {} if there is none."""
    if not COMMITTED.exists():
        return {}
    rows = json.loads(COMMITTED.read_text())["history"]
    return {_key(row): row["releases"][REFERENCE] for row in rows if REFERENCE in row["releases"]}


def _key(cell):
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
                _key(cell), {name: cell[name] for name in ("solver", "problem", "tolerance", "outputs")} | {"releases": {}}
            )
            row["releases"][release] = judge(cell, reference.get(_key(cell)), keep_state=release == REFERENCE)
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
    table = tabulate(rows, headers=["solver", *headings], tablefmt="github", disable_numparse=True)
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
    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    history, gaps, reference = record["history"], record["configuration"]["gaps"], record["configuration"]["reference"]
    releases = sorted([*_measured(history), *gaps], key=_order)
    solvers = list(dict.fromkeys(row["solver"] for row in history)) or list(SOLVERS)
    figure, axes = plt.subplots(figsize=(max(2.6 + 1.25 * len(releases), 7.0), 1.7 + 0.5 * len(solvers)), layout="constrained")
    for i, solver in enumerate(solvers):
        for j, release in enumerate(releases):
            kind, text = _cell(record, solver, release)
            axes.add_patch(
                plt.Rectangle(
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
        [plt.Rectangle((0, 0), 1, 1, facecolor=COLOURS[verdict]) for verdict in VERDICTS[:3]],
        ["all the same bits", "equal counts, other bits", "other evaluations or steps"],
        loc="upper center",
        bbox_to_anchor=(0.5, 0.0),
        ncols=3,
        frameon=False,
        fontsize=8,
    )
    figure.suptitle(f"Solves that are not as in SciPy {reference}", fontsize=11)
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=110)
    plt.close(figure)


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
