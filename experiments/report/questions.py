"""Questions that the records settle, answered in Markdown; every number is taken from a record, none is typed.

An answer whose record is not there yet says which command measures it.
"""

import numpy as np

from ..harness.digits import STATE_SIDE
from ..harness.records import by_option
from ..harness.tables import over_seeds
from . import augmented_questions, comparison_questions, registry, rules
from .answers import NotMeasured, record_of

SIZES = (30, 50, 100)  # observations, those of the paper's Table 2

LSODA_EXAMPLE = """\
```python
import numpy as np
from solvers_bridge import odeint, record_solves

with record_solves() as solves:
    y = odeint(lambda t, y, rate: -rate * y, np.ones(300_000), [0.0, 1.0], 0.5, method="lsoda", rtol=1e-3, atol=1e-3)
```"""


def markdown(found):
    """All questions with their answers, from records as (path, record)."""
    return "\n\n".join(_answered(question, answer, found) for question, answer in QUESTIONS)


def _answered(question, answer, found):
    try:
        text = answer(found)
    except NotMeasured as missing:
        text = f"Not measured yet: `{missing}`."
    return f"**{question}** {text}"


def _evaluation_counts(found):
    bench = record_of(found, "bench")["metrics"]
    if "beside_torchdiffeq_nfe_forward" not in bench:
        raise NotMeasured('pip install ".[modern]"; python -m experiments bench')
    figure3 = record_of(found, "figure3_mnist")
    ratio = {
        method: next(
            (
                row["ratio"]
                for row in rules.select(
                    [figure3],
                    {
                        "part": "backward",
                        "weights": "trained",
                        "reduction": "mean",
                        "tolerance": 1e-3,
                        "method": method,
                        "batch_size": figure3["configuration"]["batch_size"],
                    },
                    ("ratio",),
                )
            ),
            None,
        )
        for method in ("adams", "dopri5", "lsoda")
    }
    one = min(
        rules.select([figure3], {"part": "backward", "weights": "trained", "method": "adams", "batch_size": 1}, ("ratio",)),
        key=lambda row: row["ratio"],
    )
    return (
        f"The integrator, the error norm and the size of the problem. On a layer of the ODE-Net at 1e-3, torchdiffeq (dopri5, "
        f"six evaluations a step) takes {bench['beside_torchdiffeq_nfe_forward']:g} evaluations forward and "
        f"{bench['beside_torchdiffeq_nfe_backward']:g} backward, VODE's Adams method {bench['layer_adams_nfe_forward']:g} and "
        f"{bench['layer_adams_nfe_backward']:g}, LSODA {bench['layer_lsoda_nfe_forward']:g} and "
        f"{bench['layer_lsoda_nfe_backward']:g}. VODE takes one root mean square over state, adjoint and parameter gradients, "
        f"and small gradients forgive z(t) an error; torchdiffeq takes the greatest of separate norms, LSODA the maximum "
        f"over all unknowns, and both forgive nothing. Backward over forward on trained weights at 1e-3: "
        f"{ratio['adams']:.2f} with VODE, {ratio['lsoda']:.2f} with LSODA, {ratio['dopri5']:.2f} with SciPy's dopri5 and VODE's "
        f"norm. The paper's half needs few images and a tight tolerance, {one['ratio']:.2f} for one image at "
        f"{one['tolerance']:g}, or a looser reverse solve. {_looser_reverse_solves(found)}"
        f"(`python -m experiments bench`; `python -m experiments run figure3_mnist --preset paper`)"
    )


def _looser_reverse_solves(found, factor=10.0):
    """Backward over forward where the reverse tolerance is a multiple of the forward one, in a sentence; or what measures it."""
    try:
        record = record_of(found, "figure3c_reverse")
    except NotMeasured as missing:
        return f"How loose is not measured yet: `{missing}`. "
    parts, errors = [], []
    for method, label in (("adams", "VODE"), ("lsoda", "LSODA")):
        wanted = {"method": method, "factor": factor, "weights": "trained", "batch_size": record["configuration"]["batch_size"]}
        rows = rules.select([record], wanted, ("ratio", "gradient_error"))
        ratios = [row["ratio"] for row in rows]
        parts.append(f"{min(ratios):.2f} to {max(ratios):.2f} with {label}")
        errors += [row["gradient_error"] for row in rows]
    return (
        f"At {factor:g} times the forward tolerance backward over forward is {' and '.join(parts)}, the gradient off by "
        f"{100 * min(errors):.2g} to {100 * max(errors):.2g} % (`python -m experiments run figure3c_reverse --preset paper`). "
    )


def _latent_rmse(found):
    paper = [(path, record) for path, record in found if record["preset"] == "paper"]
    levels = by_option(paper, "table2_latent_ode", "noise")
    if not levels:
        raise NotMeasured("python -m experiments run table2_latent_ode --preset paper")
    reported = {entry["id"]: entry["value"] for entry in registry.read()}
    lines = "; ".join(_spiral_errors(noise, records) for noise, records in levels.items())
    return (
        "The noise's standard deviation is a floor: no prediction gets below it against noisy targets, and the rest is what the "
        "model misses. So the paper's 0.1346 means noise below that, and the authors' later example, with noise of 0.3, cannot "
        f"give less than 0.3. Predictive RMSE of the latent ODE from 30, 50 and 100 of 100 observations: {lines}. "
        f"{_noise_of_the_paper(levels, reported)}{_tuned_alike(paper, reported)}Against clean targets, where the floor is zero, "
        "it is in the report's Table 2. (`python -m experiments run table2_latent_ode --preset paper`; `--noise` and `--seed` to "
        "vary)"
    )


def _spiral_errors(noise, records):
    latent_ode, rnn = (
        ", ".join(over_seeds(records, f"rmse_{model}_{size}_noisy") for size in SIZES) for model in ("latent_ode", "rnn")
    )
    return f"noise {noise:g}: {latent_ode} (RNN: {rnn})"


def _tuned_alike(found, reported):
    """Errors of networks tuned by one procedure, of seeds of their own, beside the paper's; nothing where none are recorded."""
    levels = by_option(found, "table2_latent_ode", "noise", tuned="yes")
    if not levels:
        return ""
    lines = "; ".join(_spiral_errors(noise, records) for noise, records in levels.items())
    latent_ode, rnn = (", ".join(f"{reported[f'table2-{model}-{size}']:g}" for size in SIZES) for model in ("latent-ode", "rnn"))
    return f"All tuned alike, on seeds of their own: {lines}; the paper's are {latent_ode} (RNN: {rnn}). "


def _noise_of_the_paper(levels, reported):
    """At which noise our latent ODE would have the paper's errors; nothing where they lie outside what was measured."""
    found = []
    for size in SIZES:
        errors = [
            np.mean([record["metrics"].get(f"rmse_latent_ode_{size}_noisy", np.nan) for record in records])
            for records in levels.values()
        ]
        value = reported[f"table2-latent-ode-{size}"]
        if not np.all(np.diff(errors) > 0) or not errors[0] <= value <= errors[-1]:
            return ""
        found.append(f"{np.interp(value, errors, list(levels)):.3f}")
    return f"Interpolated, the paper's errors are those of noise {', '.join(found)}. "


def _adjoint_memory(found):
    depth = record_of(found, "table1_depth")
    bench = record_of(found, "bench")["metrics"]
    metrics, configuration = depth["metrics"], depth["configuration"]
    try:
        growth = rules.trend([depth], None, {"model": "odenet"}, "depth", "peak_mib")
    except rules.CannotJudge:
        raise NotMeasured(metrics.command) from None
    points = [point for point in depth["history"] if point["model"] == "odenet"]
    unknowns = adjoint_unknowns(configuration["batch_size"], configuration["channels"])
    low, high = growth.interval
    verdict = "In evaluations, yes" if high < metrics["state_mib"] else "In evaluations, this does not show it"
    return (
        f"{verdict}: {growth.measured:.2f} MiB an evaluation (95 % interval {low:.2f} to {high:.2f}) over "
        f"{points[0]['depth']} to {points[-1]['depth']} of them, where one float32 state has {metrics['state_mib']:.2f} MiB; "
        f"and {bench['memory_evaluations_ratio']:.1f} times as many evaluations take {bench['memory_ratio']:.3f} times the "
        f"memory. The constant, {metrics['odenet_memory_constant_mib']:,.0f} MiB at batch {configuration['batch_size']}: "
        f"{np.median([point['before_mib'] for point in points]):.0f} MiB are the process before its first step; VODE's work "
        f"space for the augmented system, 20 + 16 N doubles for N = {unknowns:,}, is {8 * (20 + 16 * unknowns) / 2**20:.0f} MiB; "
        f"the RK-Net, which has the same dynamics and no such work space, has a constant of "
        f"{metrics['rknet_memory_constant_mib']:,.0f} ± {metrics['rknet_memory_constant_error_mib']:.0f} MiB, so what is left is "
        f"the graphs' own. (`python -m experiments run table1_depth --preset paper`; `python -m experiments bench`)"
    )


def adjoint_unknowns(batch_size, channels):
    """Unknowns of the ODE-Net's augmented system: z and its adjoint, the gradients by the parameters, that by t."""
    convolution = (channels + 1) * channels * 9 + channels
    parameters = 2 * convolution + 3 * 2 * channels
    return 2 * batch_size * STATE_SIDE**2 * channels + parameters + 1


def _large_lsoda(found):
    try:
        cost = _cost_of_large_lsoda(record_of(found, "bench"))
    except NotMeasured as missing:
        cost = f"What that costs is not measured yet: `{missing}`."
    return (
        "Call it: above 2,000 unknowns the bridge tells LSODA that the Jacobian is diagonal, which needs 20 + 16 N doubles "
        f"instead of N². (SciPy's `odeint` without bands ends the interpreter at this size.) {cost}\n\n{LSODA_EXAMPLE}"
    )


def _cost_of_large_lsoda(record):
    metrics, configuration = record["metrics"], record["configuration"]
    batch, channels = configuration["batch"], configuration["channels"]
    return (
        f"A layer of the ODE-Net, {batch * STATE_SIDE**2 * channels:,} unknowns, takes "
        f"{metrics['layer_lsoda_nfe_forward']:g} evaluations and {metrics['layer_lsoda_forward_seconds_median']:.2f} s at "
        f"{configuration['tolerance']:g}, its gradient, {adjoint_unknowns(batch, channels):,} unknowns, "
        f"{metrics['layer_lsoda_nfe_backward']:g} and {metrics['layer_lsoda_backward_seconds_median']:.2f} s. "
        f"(`python -m experiments bench`)"
    )


def _c_translations(found):
    record = record_of(found, "integrator_fidelity")
    metrics, reference = record["metrics"], record["configuration"]["reference"]
    kinds = {
        release: about["integrators"]["vode"]
        for release, about in record["configuration"]["releases"].items()
        if release != reference
    }
    if "c" not in kinds.values():
        raise NotMeasured(metrics.command)
    differing = {
        solver: sum(
            row["releases"].get(release, {}).get("verdict") == "differs"
            for row in record["history"]
            for release, kind in kinds.items()
            if row["solver"] == solver and kind == "c"
        )
        for solver in dict.fromkeys(row["solver"] for row in record["history"])
    }
    changed, kept = ([solver for solver, count in differing.items() if bool(count) == whether] for whether in (True, False))
    counts = {
        kind: "; ".join(_cells(metrics, release) for release in kinds if kinds[release] == kind) for kind in ("c", "fortran")
    }
    verdict = "; ".join(
        [
            f"Those of {_listed(changed)}, yes" if changed else "No",
            *([f"those of {_listed(kept)}, at most in last bits"] if kept else []),
        ]
    )
    return (
        f"{verdict}. Of {metrics['solves']} solves, compared with the Fortran of {reference}: {counts['c']}. Among the Fortran "
        f"releases: {counts['fortran']}. (`python -m experiments run integrator_fidelity --preset paper`; "
        f"`python experiments/fidelity/c_translations.py` shows what changed)"
    )


def _cells(metrics, release):
    """How many solves of a release are the same and how many not, in words; what there is none of is left out."""
    words = (
        ("cells_same_as_1.16", "the same in every bit"),
        ("cells_equal_counts", "but for last bits"),
        ("cells_differing", "different"),
    )
    return f"{release}, " + ", ".join(f"{count} {text}" for name, text in words if (count := metrics[f"{name}/{release}"]))


def _listed(names):
    return " and ".join(filter(None, [", ".join(names[:-1]), names[-1]]))


QUESTIONS = (
    ("Why do torchdiffeq's evaluation counts differ from Figure 3c?", _evaluation_counts),
    ("What RMSE is to be expected from the latent ODE, and why?", _latent_rmse),
    ("Is the adjoint method's memory O(1), and where does the constant come from?", _adjoint_memory),
    ("How does one use LSODA on 300,000 unknowns?", _large_lsoda),
    ("Do SciPy's new C integrators change results?", _c_translations),
    *augmented_questions.QUESTIONS,
    *comparison_questions.QUESTIONS,
)
