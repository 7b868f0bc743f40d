"""A small problem, timed: autograd's own odeint, ours with dynamics in autograd and in TensorFlow, and the libraries of today."""

from tabulate import tabulate

from .goals import GOALS
from .modern import problems
from .modern.of_solvers_bridge import OfAutograd, OfGraph, OfNative
from .side_by_side import (
    candidate,
    compare,
    flat,
    gradient_error,
    heading,
    native_is_available,
    over,
    peers,
    summarise,
    take_turns,
)

SMALL_TOLERANCE = 1e-6
OWN = {"autograd_odeint": ("autograd's odeint", "LSODA, adjoint")}
PEERS = {
    "torchdiffeq": ("torchdiffeq", "dopri5, adjoint"),
    "jax": ("jax.experimental.ode", "dopri5, adjoint"),
    "diffrax_backsolve": ("diffrax", "Dopri5, backsolve"),
}
OURS = {
    OfAutograd: {"lsoda": "lsoda, adjoint", "adams": "adams, adjoint"},
    OfGraph: {
        "lsoda_tensorflow": "lsoda, adjoint",
        "adams_tensorflow": "adams, adjoint",
        "adams_tensorflow_warm": "adams, warm adjoint",
    },
    OfNative: {
        "adams_native": "adams, adjoint",
        "lsoda_native": "lsoda, adjoint",
        "dopri5_native": "dopri5, adjoint",
        "adams_warm_native": "adams, warm adjoint",
        "dopri5_warm_native": "dopri5, warm adjoint",
        "dopri5_discrete_native": "dopri5, discrete",
    },
}


def bench_small(rounds, problem=None):
    """The small problem by autograd's own odeint, by ours and by what is installed of others; metrics small_*."""
    problem = problem or problems.small()
    heading(
        f"Small problem, 2-{len(problem.params[1])}-2 tanh network, {len(problem.t)} output times, "
        f"tolerance {SMALL_TOLERANCE:g}: milliseconds, median (minimum); evaluations"
    )
    derivative = OfAutograd(problem).derivative
    candidates = peers(problem, derivative, SMALL_TOLERANCE, OWN)
    for cls, methods in OURS.items():
        if cls is not OfNative or native_is_available():
            opened = cls(problem)
            candidates |= {
                name: candidate(opened.solver(method, SMALL_TOLERANCE, SMALL_TOLERANCE)) for name, method in methods.items()
            }
    others = peers(problem, derivative, SMALL_TOLERANCE, PEERS)
    results = take_turns(candidates | others, rounds)
    metrics = summarise(results, "small", "ms")
    reference = flat(OfAutograd(problem).solver("dop853, adjoint", 1e-12, 1e-12).gradient()[1:])
    rows = []
    for name, steps in results.items():
        row = [name]
        for what, seconds in (("gradient", lambda step: step.backward), ("both", lambda step: step.seconds)):
            speedup, of_minima = compare(
                [seconds(step) for step in results["autograd_odeint"]], [seconds(step) for step in steps]
            )
            metrics |= {f"small_{name}_{what}_speedup": speedup, f"small_{name}_{what}_speedup_of_minima": of_minima}
            row.append(f"{speedup:.1f} ({of_minima:.1f})")
        metrics[f"small_{name}_gradient_error"] = error = gradient_error(steps[-1], reference)
        rows.append([*row, f"{error:.1e}"])
    print(
        "\nTimes faster than autograd's own odeint, median of the rounds' ratios (ratio of minima); goal for the gradient: at "
        f"least {GOALS['small_speedup']:g};\ngreatest error of the gradient over its greatest entry, against dop853 at 1e-12"
    )
    print(tabulate(rows, ["", "gradient (backward)", "both", "gradient error"], disable_numparse=True), flush=True)
    return metrics | _beside_peers(results, list(others))


def _beside_peers(results, others):
    """Print and return the time of each compiled candidate over that of each other library, medians of the rounds' ratios."""
    metrics, rows = {}, []
    for name in (name for name in results if name.endswith("_native") and others):
        ratios = {other: over(results, name, other)[0] for other in others}
        metrics |= {f"small_{name}_over_{other}": ratio for other, ratio in ratios.items()}
        rows.append([name, *(f"{ratio:.3f}" for ratio in ratios.values())])
    if rows:
        print("\nTime of solve and gradient over that of the peer, median of the rounds' ratios")
        print(tabulate(rows, ["", *others], disable_numparse=True), flush=True)
    return metrics
