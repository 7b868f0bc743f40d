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

import platform
import re
import runpy
import sys
import time
from dataclasses import dataclass

import scipy

from original_repro.folders import check_folder

from .. import Experiment, Places, Section, Settings, option
from ..harness import environments, records
from ..harness.progress import Progress
from . import matrix, scipy_releases
from .fidelity_probe import SOLVERS
from .matrix import REFERENCE

NAME = "integrator_fidelity"
RELEASES = "1.1.0,1.11.4,1.14.1,1.16.3,1.17.1,1.18.1"

PROBLEMS = ("A1", "A3", "B1", "B5", "C3", "D3", "E2", "brusselator", "lorenz", "arenstorf", "robertson")
# Stiff: for Newton's iteration and a tolerance below its smallest component.
STIFF = ("robertson",)
NEWTON_SOLVERS = ("lsoda", "vode-bdf-newton")
TOLERANCES = (1e-3, 1.5e-8)
OUTPUTS = (1, 8)

COMMITTED = Places(records.RESULTS).record(NAME, "paper-seed0")


@dataclass(frozen=True, kw_only=True)
class RunSettings(Settings):
    """Settings of a run."""

    releases: str | None = option(None, f"SciPy releases of the paper preset (default: {RELEASES})", metavar="X.Y.Z,...")


def run(settings, places):
    """Measure, compare, write the record and the figure, print the tables; returns the record."""
    if settings.releases is not None and settings.preset == "quick":
        raise ValueError("--releases goes with --preset paper: the quick preset measures the SciPy that runs the command")
    releases = (
        [scipy.__version__]
        if settings.preset == "quick"
        else _releases(RELEASES if settings.releases is None else settings.releases)
    )
    if settings.preset != "quick":
        check_folder(environments.environments_folder(), "the cache, which $NEURAL_ODE_REPRO_CACHE names,")
    begun = time.perf_counter()
    asked = {"problems": problems(), "tasks": tasks()}
    measured, gaps = {}, {}
    with Progress(len(releases), "SciPy releases") as shown:
        for release in releases:
            try:
                python = sys.executable if settings.preset == "quick" else scipy_releases.environment(release)
                measured[release] = scipy_releases.probe(python, asked)
            except environments.Gap as gap:
                if settings.preset == "quick":
                    raise RuntimeError(f"the probe failed: {gap}") from gap
                gaps[release] = str(gap)
            shown.done(release)
    own = settings.preset != "quick" and REFERENCE in measured
    reference = {matrix.key(cell): cell for cell in measured[REFERENCE]["cells"]} if own else committed_reference()
    history = matrix.compare({release: answer["cells"] for release, answer in measured.items()}, reference)
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
        "kernels": scipy_releases.kernels(),
    }
    record = records.record_run(
        NAME,
        settings,
        places,
        configuration=configuration,
        metrics=matrix.metrics(history, gaps),
        history=history,
        wall_seconds=time.perf_counter() - begun,
    )
    print(matrix.markdown_table(record))
    print(matrix.differences_table(record))
    matrix.draw(record, places.figure(NAME, settings.stem))
    return record


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


def committed_reference():
    """The reference's cells in the committed record of the paper preset; {} if there is none."""
    if not COMMITTED.exists():
        return {}
    rows = records.read_record(COMMITTED)["history"]
    return {matrix.key(row): row["releases"][REFERENCE] for row in rows if REFERENCE in row["releases"]}


def table(found):
    """The matrix of the first record there is."""
    record = records.first(found, NAME)
    return matrix.markdown_table(record) if record else ""


EXPERIMENT = Experiment(
    name=NAME,
    resumes=False,
    source="How faithful",
    shows="each integrator in each SciPy release, Fortran and C, against 1.16",
    run=run,
    description=__doc__,
    settings=RunSettings,
    takes={"quick": "seconds"},
    section=Section(
        "Integrators of SciPy releases",
        table,
        captions={
            "": "How many solves of the test problems differ between SciPy releases: none among those in Fortran, some in those "
            "that were translated to C."
        },
    ),
)
