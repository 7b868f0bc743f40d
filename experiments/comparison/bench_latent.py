"""The ODE in a training iteration of a latent ODE, timed beside torchdiffeq: a batch of 1000 trajectories, 4-20-4 dynamics, 100
times.

Two settings: tolerance 1e-5 in float32 and the paper's 1.5e-8 in float64. Ours by the paper's way, a fresh VODE solve from
output time to output time of the reverse sweep, and by the fixed-grid reverse sweep that Table 2 is trained with; torchdiffeq
and diffrax by dopri5 and its adjoint, and diffrax by its default, back through checkpointed steps of Tsit5. Errors: greatest
error of the gradient over its greatest entry, against dop853 at 1e-12. A speed-up counts at equal error only, so both are in the
metrics; in the loose setting, where the forward solve makes the error, the fixed-grid way takes 3e-6 for it.
"""

from tabulate import tabulate

from ..neural_ode.spiral_fits import BEST, WAYS
from .modern import problems
from .modern.of_solvers_bridge import OfAutograd, OfGraph, OfNative
from .side_by_side import candidate, flat, gradient_error, heading, native_is_available, over, peers, summarise, take_turns

BATCH = 1000
# Precision, tolerance, and the forward tolerance of the fixed-grid way.
SETTINGS = {"loose": ("float32", 1e-5, 3e-6), "tight": ("float64", 1.5e-8, 1.5e-8)}
GOAL = 10.0
PEERS = {
    "torchdiffeq": ("torchdiffeq", "dopri5, adjoint"),
    "diffrax_backsolve": ("diffrax", "Dopri5, backsolve"),
    "diffrax_recursive": ("diffrax", "Tsit5, recursive checkpoints"),
}


def bench_latent(rounds, problem=None):
    """Both settings, ours and those of others that are installed; prints tables, returns metrics latent_*."""
    problem = problem or problems.latent(BATCH)
    reference = flat(OfGraph(problem).solver_of(method="dop853", rtol=1e-12, atol=1e-12).gradient()[1:])
    metrics = {}
    for setting, (dtype, tolerance, forward_tolerance) in SETTINGS.items():
        heading(
            f"Latent ODE: batch {len(problem.y0)}, 4-20-4 dynamics, {len(problem.t)} output times, tolerance {tolerance:g}, "
            f"{dtype}: seconds, median (minimum); evaluations"
        )
        posed = problem.astype(dtype)
        others = peers(posed, OfAutograd(posed).derivative, tolerance, PEERS)
        results = take_turns(_ours(posed, tolerance, forward_tolerance) | others, rounds)
        metrics |= summarise(results, f"latent_{setting}", "s")
        if f"{BEST}_native" in results:
            metrics[f"latent_{setting}_native_over_graph_speedup"] = over(results, BEST, f"{BEST}_native")[0]
        rows = []
        for name, steps in results.items():
            metrics[f"latent_{setting}_{name}_gradient_error"] = error = gradient_error(steps[-1], reference)
            rows.append([name, f"{error:.1e}"])
            if "torchdiffeq" in results:
                metrics[f"latent_{setting}_{name}_speedup"] = speedup = over(results, "torchdiffeq", name)[0]
                rows[-1].append(f"{speedup:.1f}")
            if "diffrax_backsolve" in results and name.endswith("_native"):
                metrics[f"latent_{setting}_{name}_over_diffrax_backsolve"] = over(results, name, "diffrax_backsolve")[0]
        if "torchdiffeq" in results:
            metrics[f"latent_speedup_{setting}"] = metrics[f"latent_{setting}_{BEST}_speedup"]
        print(f"\nGradient error; times faster than torchdiffeq (goal for {BEST}: at least {GOAL:g} at no greater error)")
        print(tabulate(rows, disable_numparse=True), flush=True)
    return metrics


def _ours(problem, tolerance, forward_tolerance):
    """Candidates with graphs and, where that can be, with graphs compiled ahead of time."""
    ways = {"paper": {}, BEST: {**WAYS[BEST], "rtol": forward_tolerance, "atol": forward_tolerance}}
    further = {"dopri5": {"method": "dopri5"}, "dopri5_discrete": {"method": "dopri5", "adjoint_method": "discrete"}}
    opened = [(OfGraph(problem), "", ways)]
    if native_is_available():
        opened.append((OfNative(problem), "_native", ways | further))
    return {
        name + suffix: candidate(library.solver_of(**{"rtol": tolerance, "atol": tolerance, **arguments}))
        for library, suffix, every in opened
        for name, arguments in every.items()
    }
