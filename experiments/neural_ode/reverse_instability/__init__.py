"""Section 6: whether z(t) can be found backwards, and what checkpoints do where it cannot.

The paper's adjoint method solves z(t) backwards in time. Section 6 says that this can diverge from the forward trajectory, that
checkpointing cures it ("storing intermediate values of z on the forward pass, and reconstructing the exact forward trajectory by
re-integrating from those points"), and that it was no problem in practice. Measured here: gradients of flows that contract at
rates lambda T from 1 to 1000 (y' = -lambda (y - cos t)), of Van der Pol's oscillator (mu to 1000), of Robertson's reaction (to
T = 1e4), and of two trained networks, the continuous flow of Figure 5 and the ODE-Net of Table 1, with their kept weights; each
by several methods, and by each way to know z(t):

    solve                   the paper's: z(t) is solved backwards with the adjoint
    checkpoints_backwards   the same, begun anew from each of K stored states
    checkpoints             the trajectory re-integrated forwards from each of K stored states, as section 6 says
    interpolate             the forward solve's own interpolant
    auto                    the default of solvers_bridge: solve, and where z(t) was lost, re-integrated
    discrete                backpropagation through the steps taken
    torchdiffeq             its adjoint (dopri5), where it is installed; on the small problems

Errors are relative to a reference at 1e-12: the variational equations solved forwards (of networks, at 1e-7, backpropagation
through the steps of dop853), with the distance of a second way beside it. A gradient counts as right to 1e-4 (at mu = 1000, whose
jump amplifies the forward solve's own error, to three times the error of forward sensitivity by the same method; of networks, at
the tolerances of their training, to 0.1). Everything else is a result, too: wrong with a warning, wrong in silence, or raised;
each gradient has limits on its steps and evaluations.
"""

import functools

import numpy as np
from tabulate import tabulate

from ... import Experiment, Section
from ...harness import records
from ...harness.tables import markdown_table
from ...harness.tasks import measure_all
from .figure import draw
from .points import NO_FORWARD, RAISED, RIGHT, SAID, SILENT, WAYS, measure
from .problems import torchdiffeq_is_installed

NAME = "reverse_instability"
STIFF = ("bdf", "lsoda", "radau")
LIMITS = {
    "steps": 20_000,
    "evaluations": 40_000,
    "evaluations_of_torchdiffeq": 6_000,
    "reference_tolerance": 1e-12,
    "network_reference_tolerance": 1e-7,
}
PRESETS = {
    "quick": {
        "problems": {"relaxation": {"values": [1.0, 300.0], "methods": ["lsoda", "dopri5"]}},
        "limits": {**LIMITS, "checkpoints": 10, "sizes": {}},
        "forward": {},
    },
    "paper": {
        "problems": {
            "relaxation": {
                "values": [1.0, 10.0, 30.0, 100.0, 1000.0],
                "methods": ["adams", *STIFF, "dopri5"],
            },
            "van_der_pol": {"values": [4.0, 50.0, 1000.0], "methods": list(STIFF)},
            "robertson": {"values": [1.0, 1e4], "methods": list(STIFF)},
            "continuous_flow": {"values": [None], "methods": ["adams", "bdf", "lsoda", "dopri5"]},
            "ode_net": {"values": [None], "methods": ["adams", "bdf", "lsoda", "dopri5"]},
        },
        "limits": {**LIMITS, "checkpoints": 100, "sizes": {"continuous_flow": 128, "ode_net": 2}},
        "forward": {"van_der_pol": 1000.0},
    },
}
OUTCOMES = (RIGHT, SAID, SILENT, RAISED, NO_FORWARD)
NETWORKS = ("continuous_flow", "ode_net")


def tasks(preset):
    """References first, then forward sensitivities, then gradients."""
    every = [(name, value) for name, about in preset["problems"].items() for value in about["values"]]
    found = [{"part": "reference", "problem": name, "value": value} for name, value in every]
    for name, value in preset["forward"].items():
        found += [{"part": "forward", "problem": name, "value": value, "method": method} for method in STIFF]
    for name, value in every:
        about = {"part": "gradient", "problem": name, "value": value}
        for method in preset["problems"][name]["methods"]:
            ways = [*WAYS, "discrete"] if method in ("dopri5", "dop853") else WAYS
            found += [{**about, "method": method, "way": way} for way in ways]
        if torchdiffeq_is_installed() and name not in NETWORKS:
            found.append({**about, "method": "dopri5", "way": "torchdiffeq"})
    return found


def run(settings, places):
    """Take every gradient, write record and figure; returns the record. FileNotFoundError where a network's weights are not."""
    preset = PRESETS[settings.preset]
    has_torchdiffeq = torchdiffeq_is_installed()
    identity = {"settings": preset, "seed": settings.seed, "torchdiffeq": has_torchdiffeq}
    checkpoint = places.checkpoint(NAME, settings.stem)
    rows, seconds = measure_all(tasks(preset), functools.partial(measure, preset["limits"], places), checkpoint, identity)
    gaps = [] if has_torchdiffeq else ["torch and torchdiffeq are not installed: their adjoint was not measured"]
    if has_torchdiffeq and any(name in NETWORKS for name in preset["problems"]):
        gaps.append("torchdiffeq's adjoint was measured on the small problems, not on the networks")
    for row in rows:
        if row["part"] == "reference":
            # Networks have a hundred thousand numbers.
            row["greatest"] = float(np.abs(row.pop("gradient")).max())
    record = records.record_run(
        NAME,
        settings,
        places,
        configuration={**preset, "not_measured": gaps},
        metrics=metrics(rows),
        history=rows,
        wall_seconds=seconds,
    )
    checkpoint.unlink(missing_ok=True)
    print(tabulate(*_outcomes([record])))
    draw(record, places.figure(NAME, settings.stem))
    return record


def metrics(rows):
    """Counts of outcomes by way, shares that checkpoints cured, the networks' gaps, errors of the ways that are safe."""
    gradients = [row for row in rows if row["part"] == "gradient"]
    found = {"second_way_max": max(row["second_way"] for row in rows if row["part"] == "reference")}
    for way in dict.fromkeys(row["way"] for row in gradients):
        for outcome in OUTCOMES:
            count = sum(row["way"] == way and row["outcome"] == outcome for row in gradients)
            found[f"{outcome.replace(', ', '_').replace(' ', '_')}_{way}"] = count
    outcome_of = {_point(row, row["way"]): row["outcome"] for row in gradients}
    lost = [row for row in gradients if row["way"] == "solve" and row["outcome"] not in (RIGHT, NO_FORWARD)]
    found["lost"] = len(lost)
    for way in ("checkpoints", "checkpoints_backwards", "interpolate", "auto"):
        if lost:
            found[f"cured_by_{way}"] = sum(outcome_of[_point(row, way)] == RIGHT for row in lost) / len(lost)
    reversed_networks = [row for row in gradients if row["problem"] in NETWORKS and row["way"] == "solve"]
    if reversed_networks:
        # Where a reverse solve did not arrive, there is no gap, and the metric has no value either.
        gaps = [row["gap"] if row["outcome"] != RAISED else None for row in reversed_networks]
        found["gap_networks_max"] = None if None in gaps else max(gaps)
        found["error_networks_max"] = max(row.get("error", np.inf) for row in reversed_networks)
    forward = {(row["problem"], row["value"], row["method"]): row["error"] for row in rows if row["part"] == "forward"}
    for row in gradients:
        error = forward.get((row["problem"], row["value"], row["method"]))
        if error and row["way"] in ("interpolate", "auto") and "error" in row:
            found[f"over_forward_{row['problem']}_{row['value']:g}_{row['method']}_{row['way']}"] = row["error"] / error
    return found


def _point(row, way):
    return row["problem"], row["value"], row["method"], way


def _outcomes(found):
    """(rows, headers) of how often each way ended how."""
    gradients = [row for record in found for row in record["history"] if row["part"] == "gradient"]
    ways = list(dict.fromkeys(row["way"] for row in gradients))
    count = {
        (way, outcome): sum((row["way"], row["outcome"]) == (way, outcome) for row in gradients)
        for way in ways
        for outcome in OUTCOMES
    }
    return [[way, *(count[way, outcome] for outcome in OUTCOMES)] for way in ways], ["z(t) by", *OUTCOMES]


def table(found):
    """How often each way ended how, and the errors of each point by each way, in Markdown."""
    record = records.first(found, NAME)
    if not record:
        return ""
    rows, headers = _outcomes([record])
    gradients = [row for row in record["history"] if row["part"] == "gradient"]
    ways = list(dict.fromkeys(row["way"] for row in gradients))
    points = {}
    for row in gradients:
        points.setdefault((row["problem"], row["value"], row["method"]), {})[row["way"]] = _cell(row)
    errors = [
        [_title(name, value), method, *(cells.get(way, "") for way in ways)] for (name, value, method), cells in points.items()
    ]
    return "\n\n".join(
        [
            markdown_table(headers, [[way, *map(str, counts)] for way, *counts in rows]),
            "Relative errors of the gradients; ! where it is wrong with a warning, !! where in silence:",
            markdown_table(["problem", "method", *ways], errors),
        ]
    )


def _cell(row):
    if "error" not in row or row["error"] is None:
        return row["outcome"]
    return f"{row['error']:.0e}" + {SAID: " !", SILENT: " !!"}.get(row["outcome"], "")


def _title(name, value):
    letter = {"relaxation": "λT", "van_der_pol": "µ", "robertson": "T"}.get(name)
    words = {"relaxation": "contraction", "van_der_pol": "Van der Pol", "robertson": "Robertson"}.get(
        name, name.replace("_", " ")
    )
    return f"{words}, {letter} = {value:g}" if letter else f"{words}, trained"


EXPERIMENT = Experiment(
    name=NAME,
    source="Section 6",
    shows="whether z(t) can be found backwards, and what checkpoints do where it cannot",
    run=run,
    description=__doc__,
    preset_of=lambda settings: PRESETS[settings.preset],
    page="docs/reverse_instability.md",
    takes={"quick": "10 s", "paper": "20 min"},
    section=Section(
        "Whether z(t) can be found backwards",
        table,
        captions={
            "": "Section 6, reconstruction: errors of gradients of a flow that contracts at the rate λT, by method and way "
            "to know z(t); crosses above are gradients that were not returned."
        },
    ),
)
