"""Beside the modern libraries: who is right, how fast, after how many evaluations and at what memory.

Ten libraries, each in a process of its own and, in the paper preset, in an environment of its own, which the command makes below
neural-ode-repro/environments in the user's cache: solvers_bridge with dynamics in autograd, as a TensorFlow graph and compiled
ahead of time; autograd's own odeint; torchdiffeq; torchode; diffrax; jax.experimental.ode; TensorFlow Probability; and SciPy's
solve_ivp, which has no gradients, beside the forward solves. One that cannot be had is a named gap in the record. The quick
preset takes what is installed here.

Weights and data of a problem are the same float64 arrays in all, and its right-hand side one text, harness/right_hand_sides.py,
with the library's own operations put in. Before anything is timed, dy/dt of every library is compared with NumPy's at random
points; 1e-6 apart is an error.

A point is a problem, a library, a method with its way to gradients, and a tolerance (relative; the absolute one is a fixed
multiple). It has the errors of solution and gradient, as the greatest difference over the greatest entry, against a reference
found in two independent ways at 1e-13, whose distance is in the record; the evaluations that the library tells; the processor
time of a solve alone and of a solve with its gradient; and an outcome. Off by more than a tenth is wrong, with a warning or in
silence; further outcomes are raised, and did not finish within its limit of processor time, after which tighter tolerances are
not tried. The cotangent is scaled so that the greatest entry of the gradient is one.

Every process has one thread, and times are of its processor, so that neighbours on the machine do not count; what a first call
takes more, compiling, is kept apart. At each tolerance the points take turns, round by round; when all tolerances of a problem
are done, they take their turns a second time, and the ratios of both passes are compared with a band that was stated before.
Memory is the peak of a fresh process that takes one gradient.
"""

import functools
import re
from collections import Counter

from .. import Experiment, Section
from ..harness import records
from ..harness.tables import markdown_table
from ..harness.tasks import measure_all
from .modern import figures, winners
from .modern.outcomes import OUTCOMES, RAISED, WRONG

NAME = "modern_comparison"
PATH = re.compile(r"(/[\w.+-]+){2,}")
# seconds, of a processor: a first call may take, and where it compiles; slow: a turn from there on is taken once.
LIMITS = {"rounds": 5, "slow": 0.1, "seconds": 4.0, "compile_seconds": 20.0}
PRESETS = {
    "quick": {
        "problems": ["small", "contraction"],
        "environments": False,
        "limits": {**LIMITS, "rounds": 1, "tolerances": [1e-4], "memory": {}},
    },
    "paper": {
        "problems": [
            "small",
            "contraction",
            "latent",
            "orbit",
            "robertson",
            "van_der_pol_1000",
            "stiff_network",
            "van_der_pol_10",
            "flow",
            "layer",
            "large",
        ],
        "environments": True,
        "limits": {**LIMITS, "tolerances": [1e-2, 1e-3, 1e-5, 1e-7, 1e-9], "memory": {"large": 1e-5}},
    },
}


def run(settings, places):
    """Measure, judge, write the record and the figures; returns the record."""
    # They import TensorFlow, which takes seconds.
    from .modern import measure
    from .modern.problems import PROBLEMS

    preset = PRESETS[settings.preset]
    checkpoint = places.checkpoint(NAME, settings.stem)
    tasks = [{"part": "problem", "problem": name} for name in preset["problems"]]
    with measure.clients(preset["environments"]) as (found, gaps):
        libraries = {name: client.about() for name, client in found.items()}
        # Not the problems: each has its own numbers, and a list that grew goes on from those that are there.
        identity = {"limits": preset["limits"], "seed": settings.seed, "libraries": libraries}
        made, seconds = measure_all(tasks, functools.partial(_measure, found, preset["limits"]), checkpoint, identity)
    rows = [_without_paths(row) for one in made for row in one["rows"]]
    references = {one["problem"]: one["reference"] for one in made}
    record = records.record_run(
        NAME,
        settings,
        places,
        configuration={
            **preset,
            "words": {name: PROBLEMS[name].words for name in preset["problems"]},
            "libraries": libraries,
            "not_measured": gaps,
            "left_out": {name: about.words for name, about in PROBLEMS.items() if name not in preset["problems"]},
            "references": references,
            "wrong": WRONG,
            "band": {"factor": winners.BAND, "share": winners.SHARE},
        },
        metrics=winners.metrics(rows, references),
        history=rows,
        wall_seconds=seconds,
    )
    checkpoint.unlink(missing_ok=True)
    figures.draw(record, lambda name: places.figure(NAME, f"{settings.stem}-{name}"))
    print(table([(None, record)]))
    return record


def _without_paths(row):
    """A row whose reason, which a library wrote, names no folder of this machine."""
    return {**row, "reason": PATH.sub("(path)", row["reason"])} if "reason" in row else row


def _measure(found, limits, task, rows):
    from .modern import measure

    measured, reference = measure.measure(found, limits, task["problem"])
    return {"rows": measured, "reference": reference}


def table(found):
    """Who is fastest at given accuracies, and how the points of each library ended, in Markdown."""
    record = records.first(found, NAME)
    if not record:
        return ""
    rows, configuration = record["history"], record["configuration"]
    parts = [_winners(rows, configuration), _outcomes(rows)]
    memory = [row for row in rows if row["part"] == "memory"]
    if memory:
        parts.append(_memory(memory, configuration["words"]))
    parts.append(_reasons(rows))
    share, band = record["metrics"].get("share_in_band"), configuration["band"]
    if share is not None:
        met = "met" if share >= band["share"] else "not met"
        parts.append(
            f"In the second pass {100 * share:.0f} % of the times, each over the median of its problem and tolerance, were "
            f"within a factor of {band['factor']:g} of the first pass; the {100 * band['share']:.0f} % stated before are {met}."
        )
    if configuration["left_out"]:
        parts.append(f"Defined, and not in this preset's grid: {'; '.join(configuration['left_out'].values())}.")
    parts += [f"{name} was not measured: {why}." for name, why in configuration["not_measured"].items()]
    return "\n\n".join(filter(None, parts))


def _winners(rows, configuration):
    cells = []
    for row in winners.winners(rows, configuration["references"]):
        problem = configuration["words"][row["problem"]]
        ours, original = (_beside(row[name], row["winner"]) for name in ("ours", "original"))
        cells.append([problem, f"{row['accuracy']:g}", _words(row["winner"]), _time(row["winner"]), ours, original])
    headers = [
        "problem",
        "gradient's error at most",
        "fastest",
        "time",
        "fastest of ours, times its time",
        "autograd's odeint, times its time",
    ]
    return markdown_table(headers, cells)


def _words(row):
    return f"{row['library']}: {row['method']} at {row['rtol']:g}"


def _time(row):
    milliseconds = 1e3 * winners.seconds(row)
    return f"{milliseconds:.3g} ms" if milliseconds < 1000 else f"{milliseconds:.0f} ms"


def _beside(row, winner):
    if row is None:
        return "not reached"
    ratio = winners.seconds(row) / winners.seconds(winner)
    return "itself" if row is winner else f"{ratio:.3g} ({_words(row)})"


def _outcomes(rows):
    every = winners.points(rows)
    cells = [
        [library, *(sum((row["library"], row["outcome"]) == (library, outcome) for row in every) for outcome in OUTCOMES)]
        for library in dict.fromkeys(row["library"] for row in every)
    ]
    return markdown_table(["points", *OUTCOMES], cells)


def _reasons(rows):
    """What was raised and how often."""
    raised = [row for row in winners.points(rows) if row["outcome"] == RAISED]
    counts = Counter((row["library"], row["method"], row["problem"], row["reason"].partition(":")[0]) for row in raised)
    cells = [[f"{library}: {method}", problem, kind, count] for (library, method, problem, kind), count in counts.items()]
    return markdown_table(["raised by", "problem", "what", "points"], cells)


def _memory(rows, words):
    cells = [
        [words[row["problem"]], _words(row), f"{row['peak_mib']:.0f}", f"{row['peak_mib'] - row['before_mib']:.0f}"]
        for row in sorted(rows, key=lambda row: row["peak_mib"] - row["before_mib"])
    ]
    return markdown_table(["problem", "by", "peak (MiB)", "of it the solve and its gradient"], cells)


EXPERIMENT = Experiment(
    name=NAME,
    source="The bridge",
    shows="beside the modern libraries: who is right, how fast, at what memory",
    run=run,
    description=__doc__,
    preset_of=lambda settings: PRESETS[settings.preset],
    takes={"quick": "1 min", "paper": "1 h"},
    page="docs/modern.md",
    section=Section(
        "Beside the modern libraries",
        table,
        captions={
            "time": "Beside the modern libraries: error of the gradient over the processor time of solve and gradient, a mark a "
            "tolerance; below the grey the reference cannot tell.",
            "evaluations": "Beside the modern libraries: error of the gradient over evaluations both ways, of those that tell.",
        },
    ),
)
