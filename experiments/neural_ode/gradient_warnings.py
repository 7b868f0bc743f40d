"""Section 6: whether a gradient that came out wrong says so.

Gradients of classic problems (DETEST's and some of Hairer's with at most ten unknowns, stiff ones included; see
original_repro/stack_2018/classics.py) with respect to y0 and to a factor of the right-hand side, of a fixed sum of the states at
the end; by several methods and ways to know z(t), at tolerances from loose to moderate, over a quarter of each problem's time
and all of it. A gradient off by more than a tenth of its norm counts as wrong; it is said where solvers_bridge warned of it, and
an alarm is a warning of a gradient that is right. References are dop853's (radau's where the problem is stiff) at 1e-10 with
known states, and are taken where a second method agrees to 1e-3.

The limits of the warnings were chosen on a part of these problems: 26 of them and five made for it, over an eighth and a half of
their times, with another sum of the states.
"""

import warnings

import autograd.numpy as anp
import numpy as np
from autograd import value_and_grad
from tabulate import tabulate

from original_repro.stack_2018 import classics
from solvers_bridge import GradientWarning, SolverError, odeint

from .. import Experiment, Section
from ..harness import records
from ..harness.tables import markdown_table
from ..harness.tasks import measure_all

NAME = "gradient_warnings"
# (way, method); the default is auto.
WAYS = (
    ("auto", "adams"),
    ("auto", "bdf"),
    ("auto", "lsoda"),
    ("auto", "dopri5"),
    ("interpolate", "bdf"),
    ("interpolate", "dopri5"),
    ("discrete", "dopri5"),
    ("discrete", "dop853"),
)
STIFF = ("van_der_pol", *classics.STIFF)
FOR_STIFF = ("bdf", "lsoda")
LIMITS = {
    "unknowns": 10,
    "steps": 5_000,
    "reference_steps": 50_000,
    "reference_tolerance": 1e-10,
    "references_agree": 1e-3,
    "wrong": 0.1,
}
PRESETS = {
    "quick": {"problems": ["B1", "brusselator"], "parts": [0.25], "tolerances": [1e-2], "limits": LIMITS},
    "paper": {"problems": None, "parts": [0.25, 1.0], "tolerances": [1e-2, 1e-3, 1e-4, 1e-6], "limits": LIMITS},
}
# What the texts of the warnings begin with or hold: {what is counted: a part of the text}.
KINDS = {"lost": " lost z(t)", "hardly_found": " hardly found z(t)", "imbalance": " may be wrong: the adjoint's"}
RIGHT, ALARM, SAID, SILENT, RAISED = "right", "right, with an alarm", "wrong, said", "wrong in silence", "raised"
OUTCOMES = (RIGHT, ALARM, SAID, SILENT, RAISED)


def tasks(preset):
    """References first, each followed by its gradients."""
    names = preset["problems"] or [
        name for name, (_, y0, _) in classics.PROBLEMS.items() if len(y0) <= preset["limits"]["unknowns"]
    ]
    found = []
    for name in names:
        for part in preset["parts"]:
            about = {"problem": name, "time": part * classics.PROBLEMS[name][2]}
            found.append({"part": "reference", **about})
            found += [
                {"part": "gradient", **about, "way": way, "method": method, "tolerance": tolerance}
                for way, method in WAYS
                if name not in STIFF or method in FOR_STIFF
                for tolerance in preset["tolerances"]
            ]
    return found


def measure(limits, task, rows):
    """What there is to add to a task to make it a row; `rows` are those before it."""
    if task["part"] == "reference":
        return _reference(limits, task)
    reference = next(row for row in reversed(rows) if row["part"] == "reference")
    if reference["gradient"] is None:
        return {"outcome": None}
    return _gradient(limits, task, reference)


def _reference(limits, task):
    tolerance = limits["reference_tolerance"]
    methods = ("radau", "lsoda") if task["problem"] in STIFF else ("dop853", "adams")
    means = {"rtol": tolerance, "atol": tolerance * 1e-2, "adjoint_options": {"reconstruction": "interpolate"}}
    limits = {**limits, "steps": limits["reference_steps"]}
    try:
        (value, first), (_, second) = (_value_and_gradient(limits, task, method, means) for method in methods)
    except (SolverError, np.linalg.LinAlgError) as error:
        return {"gradient": None, "reason": str(error)}
    apart = float(np.linalg.norm(second - first) / np.linalg.norm(first))
    agree = apart <= limits["references_agree"]
    return {"gradient": list(first) if agree else None, "value": value, "second_way": apart}


def _gradient(limits, task, reference):
    means = {"rtol": task["tolerance"], "atol": task["tolerance"]}
    if task["way"] == "discrete":
        means["adjoint_method"] = "discrete"
    else:
        means["adjoint_options"] = {"reconstruction": task["way"]}
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        try:
            value, found = _value_and_gradient(limits, task, task["method"], means)
        except (SolverError, np.linalg.LinAlgError) as error:
            return {"outcome": RAISED, "reason": str(error)}
    texts = [str(one.message) for one in caught if issubclass(one.category, GradientWarning)]
    exact = np.array(reference["gradient"])
    error = float(np.linalg.norm(found - exact) / np.linalg.norm(exact))
    is_wrong = not error <= limits["wrong"]
    return {
        "error": error,
        "value_error": abs(value - reference["value"]) / max(abs(reference["value"]), np.finfo(float).tiny),
        "kinds": [kind for kind, text in KINDS.items() if any(text in one for one in texts)],
        "outcome": (SAID if texts else SILENT) if is_wrong else (ALARM if texts else RIGHT),
    }


def _value_and_gradient(limits, task, method, means):
    """The sum of the states at the end with fixed weights, and its gradient by [*y0, factor]."""
    expressions, y0, _ = classics.PROBLEMS[task["problem"]]
    names = {name: getattr(anp, name) for name in classics.FUNCTIONS}
    f = eval(f"lambda t, y: [{', '.join(expressions)}]", names)
    weights = np.sin(1.0 + 2.0 * np.arange(len(y0)))
    options = {"max_num_steps": limits["steps"]}
    if task["problem"] in STIFF and method == "bdf":
        options["jacobian"] = "autodiff"

    def func(t, y, factor):
        return factor * anp.array(f(t, y))

    def value(p):
        ys = odeint(func, p[:-1], [0.0, task["time"]], p[-1], method=method, options=options, **means)
        return anp.sum(weights * ys[-1])

    value, found = value_and_grad(value)(np.append(y0, 1.0))
    return float(value), found


def run(settings, places):
    """Take every gradient and write the record; returns it."""
    preset, checkpoint = PRESETS[settings.preset], places.checkpoint(NAME, settings.stem)
    identity = {"settings": preset, "seed": settings.seed}
    rows, seconds = measure_all(tasks(preset), lambda task, rows: measure(preset["limits"], task, rows), checkpoint, identity)
    record = records.record_run(
        NAME, settings, places, configuration=preset, metrics=metrics(rows), history=rows, wall_seconds=seconds
    )
    checkpoint.unlink(missing_ok=True)
    print(tabulate(_counts(record["history"]), headers=HEADERS))
    return record


def metrics(rows):
    """Counts of outcomes, of all gradients and of those whose solution is right, and of what each warning said."""
    gradients = _gradients(rows)
    found = {
        "gradients": len(gradients),
        "no_reference": sum(row["part"] == "gradient" and row["outcome"] is None for row in rows),
        **{_name(outcome): sum(row["outcome"] == outcome for row in gradients) for outcome in OUTCOMES},
    }
    limit = LIMITS["wrong"]
    for outcome in (SAID, SILENT):
        found[f"{_name(outcome)}_solution_right"] = sum(
            row["outcome"] == outcome and row["value_error"] <= limit for row in gradients
        )
    for kind in KINDS:
        told = [row for row in gradients if kind in row.get("kinds", ())]
        found[f"told_{kind}"] = len(told)
        found[f"told_{kind}_wrong"] = sum(row["outcome"] == SAID for row in told)
    return found


def _gradients(rows):
    return [row for row in rows if row["part"] == "gradient" and row["outcome"] is not None]


def _name(outcome):
    return outcome.replace(", ", "_").replace(" ", "_")


HEADERS = ["z(t) by", "tolerance", *OUTCOMES, "of those in silence, solution right"]


def _counts(rows):
    gradients = _gradients(rows)
    groups = list(dict.fromkeys((row["way"], row["tolerance"]) for row in gradients))
    counts = []
    for way, tolerance in sorted(groups, key=lambda group: ([one for one, _ in WAYS].index(group[0]), -group[1])):
        group = [row for row in gradients if (row["way"], row["tolerance"]) == (way, tolerance)]
        alone = sum(row["outcome"] == SILENT and row["value_error"] <= LIMITS["wrong"] for row in group)
        counts.append([way, f"{tolerance:g}", *(sum(row["outcome"] == outcome for row in group) for outcome in OUTCOMES), alone])
    return counts


def table(found):
    """How many gradients were right, wrong, and said so, by way and tolerance, and what each warning was worth."""
    record = records.first(found, NAME)
    if not record:
        return ""
    metrics = record["metrics"]
    kinds = {"lost": "z(t) lost", "hardly_found": "z(t) hardly found", "imbalance": "off balance"}
    told = [[words, metrics[f"told_{kind}"], metrics[f"told_{kind}_wrong"]] for kind, words in kinds.items()]
    return "\n\n".join(
        [
            markdown_table(HEADERS, [list(map(str, row)) for row in _counts(record["history"])]),
            markdown_table(["warning", "gradients", "of these wrong"], [list(map(str, row)) for row in told]),
        ]
    )


EXPERIMENT = Experiment(
    name=NAME,
    source="Section 6",
    shows="whether a gradient that came out wrong says so",
    run=run,
    description=__doc__,
    preset_of=lambda settings: PRESETS[settings.preset],
    page="docs/reverse_instability.md",
    takes={"quick": "10 s", "paper": "15 min"},
    section=Section("Whether a wrong gradient says so", table),
)
