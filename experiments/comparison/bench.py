"""Timings and memory of the bridge, from one run: beside bare convolutions, autograd's own odeint and today's libraries.

Candidates of a table take turns, round by round, so that noise on the machine hits all alike; trust ratios more than seconds.
Problems and libraries are those of `run modern_comparison` (modern/problems.py, modern/of_*.py), here in one process with all its
threads, and no more of them than guards the bridge's own speed. The memory of a training step is measured in a fresh process for
each tolerance.
"""

import time

from .. import Experiment, Section
from ..harness import records
from ..harness.progress import Progress
from ..harness.tables import markdown_table
from .goals import GOALS

NAME = "bench"
ROUNDS = {"layer": 5, "graphs": 40, "small": 10, "flow": 5, "latent": 3, "toy": 20, "images": 3, "compilers": 7}


def run(settings, places):
    """Measure everything, print it, write the record bench/quick-seed0.json; returns the record."""
    # They import TensorFlow, which takes seconds.
    from . import bench_compilers, bench_flows, bench_images, bench_latent, bench_layer, bench_memory, bench_small, bench_toy
    from .modern import problems

    begun = time.perf_counter()
    layer = problems.layer(bench_layer.BATCH, bench_layer.CHANNELS)
    parts = {
        "ODE layer": lambda: bench_layer.bench_layer(layer, ROUNDS["layer"]),
        "two processes": lambda: bench_layer.bench_processes(bench_layer.BATCH, ROUNDS["layer"]),
        "graphs": lambda: bench_layer.bench_graphs(layer, ROUNDS["graphs"]),
        "small problem": lambda: bench_small.bench_small(ROUNDS["small"]),
        "torchdiffeq": lambda: bench_layer.bench_torchdiffeq(layer, ROUNDS["layer"]),
        "flow": lambda: bench_flows.bench_flow(ROUNDS["flow"]),
        "latent ODE": lambda: bench_latent.bench_latent(ROUNDS["latent"]),
        "toy problem": lambda: bench_toy.bench_toy(ROUNDS["toy"]),
        "images": lambda: bench_images.bench_images(ROUNDS["images"]),
        "compilers": lambda: bench_compilers.bench_compilers(ROUNDS["compilers"]),
        "memory": lambda: bench_memory.bench_memory(bench_memory.BATCH, bench_memory.CHANNELS),
    }
    metrics = {}
    with Progress(len(parts), "parts") as shown:
        for part, measure in parts.items():
            metrics |= measure()
            shown.done(part)
    configuration = {
        "batch": bench_layer.BATCH,
        "channels": bench_layer.CHANNELS,
        "tolerance": bench_layer.TOLERANCE,
        "small_tolerance": bench_small.SMALL_TOLERANCE,
        "memory_tolerances": bench_memory.MEMORY_TOLERANCES,
        "goals": GOALS,
        "rounds": ROUNDS,
    }
    return records.record_run(
        NAME,
        settings,
        places,
        configuration=configuration,
        metrics=metrics,
        history=[],
        wall_seconds=time.perf_counter() - begun,
        command=NAME,
    )


ROWS = (  # what, metric, its goal's name, how to print it
    ("graph of f over its two bare convolutions, time", "graph_f_ratio", "f", "{:.2f}"),
    ("fused graph of f and all VJPs over the same", "graph_fused_vjp_ratio", "fused_vjp", "{:.2f}"),
    ("ODE layer, share of the forward solve outside graphs", "layer_adams_outside_graphs_forward", None, "{:.0%}"),
    ("ODE layer, share of the reverse solve outside graphs", "layer_adams_outside_graphs_backward", None, "{:.0%}"),
    (
        "ODE-Net, training step: times faster shared among two processes than with threads",
        "training_shared_speedup",
        None,
        "{:.2f}",
    ),
    ("ODE layer, training step: ours over torchdiffeq's, time", "torchdiffeq_ratio", "torchdiffeq_ratio", "{:.2f}"),
    ("the same, our dopri5", "torchdiffeq_ratio_dopri5", "torchdiffeq_ratio", "{:.2f}"),
    ("the same, our dopri5 and its discrete adjoint", "torchdiffeq_ratio_dopri5_discrete", "torchdiffeq_ratio", "{:.2f}"),
    (
        "small problem, gradient: times faster than autograd's odeint, TensorFlow, LSODA",
        "small_lsoda_tensorflow_gradient_speedup",
        "small_speedup",
        "{:.1f}",
    ),
    ("the same, TensorFlow, Adams with warm restarts", "small_adams_tensorflow_warm_gradient_speedup", "small_speedup", "{:.1f}"),
    ("the same, autograd dynamics, LSODA", "small_lsoda_gradient_speedup", "small_speedup", "{:.1f}"),
    ("peak memory of a training step, tolerance 1e-6 over 1e-2", "memory_ratio", "memory_ratio", "{:.3f}"),
    ("evaluations of the same", "memory_evaluations_ratio", None, "{:.1f}"),
    ("CNF, training iteration: times faster than torchdiffeq's adjoint", "flow_speedup", "flow_speedup", "{:.1f}"),
    (
        "latent ODE, gradient at 1e-5: times faster than torchdiffeq's adjoint",
        "latent_speedup_loose",
        "latent_speedup_loose",
        "{:.1f}",
    ),
    ("the same at 1.5e-8", "latent_speedup_tight", "latent_speedup_tight", "{:.1f}"),
    (
        'small problem, solve and gradient, compiler="native", dopri5 with warm restarts: time over jax.experimental.ode\'s',
        "small_dopri5_warm_native_over_jax",
        "small_over_jax",
        "{:.2f}",
    ),
    ("the same over diffrax's backsolve", "small_dopri5_warm_native_over_diffrax_backsolve", "small_over_diffrax", "{:.2f}"),
    ("the same over torchdiffeq's", "small_dopri5_warm_native_over_torchdiffeq", "small_over_torchdiffeq", "{:.4f}"),
    ('CNF, compiler="native": times faster than torchdiffeq', "flow_speedup_native", "flow_native_speedup", "{:.1f}"),
    ("the same, torchdiffeq's trace by hand, not by autograd as its example's", "flow_speedup_by_hand_native", None, "{:.1f}"),
    (
        'latent ODE at 1e-5, compiler="native": times faster than torchdiffeq',
        "latent_loose_rk4_native_speedup",
        "latent_native_speedup",
        "{:.1f}",
    ),
    ("the same at 1.5e-8", "latent_tight_rk4_native_speedup", "latent_native_speedup", "{:.1f}"),
    (
        "latent ODE at 1e-5, native: time over diffrax's backsolve",
        "latent_loose_rk4_native_over_diffrax_backsolve",
        "latent_over_diffrax",
        "{:.2f}",
    ),
    (
        "the same at 1.5e-8, dopri5 and its discrete adjoint, whose error is below diffrax's",
        "latent_tight_dopri5_discrete_native_over_diffrax_backsolve",
        "latent_over_diffrax",
        "{:.2f}",
    ),
    ("CNF, iteration: native times as fast as graph", "flow_native_over_graph_speedup", None, "{:.1f}"),
    ("latent ODE, iteration at 1e-5: native times as fast as graph", "latent_loose_native_over_graph_speedup", None, "{:.1f}"),
    ("the same at 1.5e-8", "latent_tight_native_over_graph_speedup", None, "{:.1f}"),
    ("toy problem of Augmented Neural ODEs, iteration: native times as fast as graph", "toy_node_native_speedup", None, "{:.1f}"),
    (
        "NODE of images, step: time by Winograd's algorithm over that by the direct one",
        "images_node_winograd_ratio",
        None,
        "{:.2f}",
    ),
    ("the same, by tables", "images_node_tables_ratio", None, "{:.2f}"),
    ("ANODE, by Winograd's algorithm", "images_anode_winograd_ratio", None, "{:.2f}"),
)


def table(found):
    """The ratios of the record, beside their goals."""
    record = records.first(found, NAME)
    if not record:
        return ""
    metrics, goals = record["metrics"], record["configuration"]["goals"]
    rows = [
        [what, form.format(metrics[metric]), goals.get(goal, "")]
        for what, metric, goal, form in ROWS
        if metrics.get(metric) is not None
    ]
    return markdown_table(["medians of ratios in one run", "measured", "goal"], rows)


EXPERIMENT = Experiment(
    name=NAME,
    resumes=False,
    source="The bridge",
    shows="its speed and memory, beside other libraries where installed",
    run=run,
    description=__doc__,
    takes={"quick": "5 min"},
    section=Section("The bridge's speed and memory", table),
)
