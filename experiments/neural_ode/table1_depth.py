"""Table 1, memory and time: a training step of ResNet, RK-Net and ODE-Net against depth, with fitted slopes and constants.

Depth is L, residual blocks, for the ResNet; for the others L~, evaluations of the dynamics in the forward pass, four for each
of the RK-Net's Runge-Kutta steps and as many as the tolerance asks for in the ODE-Net (implicit Adams of VODE). Each point is
measured in fresh processes, one a round, each round in an order of its own, since processes differ by tens of MiB and a machine
is not as quick at all times; its numbers are medians over the rounds. (Records without `rounds` have one.) A process takes steps
on the same digits of the embedded sample from initial parameters: the gradient of the mean cross-entropy, without the optimiser.

Memory is the peak of what the whole process has resident in its first steps, libraries and the tracing of graphs included.
Nothing is subtracted, because a step also reuses what importing and building left free; what does not depend on depth is the
fitted constant. Several steps, because a few MiB of TensorFlow's own fill up over the first hundred evaluations or so, which
one shallow step does not make. In these steps malloc is told to hand freed arrays back to the system (glibc's mallopt; another
allocator is left as it is). By itself it keeps many of them, tens of MiB more with each step, so that the peak would tell how
long one had measured rather than what was in use at once. Time is the median of the steps that follow, with malloc as it is by
itself; the peak of those is in each point too, and so is their processor time, which a busy machine disturbs less.

What rises with depth: the ResNet keeps the activations inside every block. The RK-Net keeps the state at which each evaluation
was made, in the float64 of the integrator, and evaluates again for its vector-Jacobian product, so that nothing inside the
dynamics is kept: two float32 states of memory for each evaluation. That is O(L~) still, if a smaller multiple than a tape
through the dynamics would need. The ODE-Net keeps z(1) only; its constant holds the work space of VODE for the augmented
system. Slopes are also in units of one float32 state (batch, 6, 6, channels).
"""

import json
import sys
import time

import numpy as np
from tabulate import tabulate

from original_repro import children
from original_repro.datasets import mnist

from .. import Experiment, Section
from ..harness import plotting, records
from ..harness.digits import STATE_SIDE, digits
from ..harness.memory import freed_memory_handed_back, resident_peak
from ..harness.progress import Progress
from ..harness.statistics import line_fit
from ..harness.tables import markdown_table

NAME = "table1_depth"

# Settings that give the depths: residual blocks, Runge-Kutta steps, tolerances.
# Up to hundreds of evaluations: processes differ by tens of MiB, in which the RK-Net's two states for each of 64 would not show.
PRESETS = {
    "quick": {
        "batch_size": 32,
        "channels": 64,
        "rounds": 1,
        "memory_steps": 3,
        "timed_steps": 3,
        "settings": {"resnet": (1, 16), "rknet": (1, 16), "odenet": (1e-1, 1e-4)},
    },
    "paper": {
        "batch_size": 128,
        "channels": 64,
        "rounds": 3,
        "memory_steps": 3,
        "timed_steps": 3,
        "settings": {
            "resnet": (1, 2, 4, 8, 16, 32),
            "rknet": (1, 2, 4, 8, 16, 32, 64),
            "odenet": (1e-1, 1e-2, 1e-3, 1e-4, 1e-5, 1e-6),
        },
    },
}
# What is fitted: its name in a point, and its unit.
COLUMNS = {"memory": ("peak_mib", "mib"), "time": ("step_seconds", "seconds"), "cpu": ("cpu_seconds", "seconds")}
LABELS = {"resnet": "ResNet", "rknet": "RK-Net", "odenet": "ODE-Net"}


def run(settings, places):
    """Measure, fit, write the record and the figure, print the points; returns the record."""
    preset = PRESETS[settings.preset]
    wanted = [(model, setting) for model, chosen in preset["settings"].items() for setting in chosen]
    begun = time.perf_counter()
    measured = {one: [] for one in wanted}
    rng = np.random.default_rng(settings.seed)
    with Progress(preset["rounds"] * len(wanted), "processes") as shown:
        for place in (place for _ in range(preset["rounds"]) for place in rng.permutation(len(wanted))):
            model, setting = wanted[place]
            point = measure_in_fresh_process(
                model=model,
                setting=setting,
                seed=settings.seed,
                **{name: value for name, value in preset.items() if name not in ("settings", "rounds")},
            )
            measured[model, setting].append(point)
            found = f"depth {point['depth']}, {point['peak_mib']:.0f} MiB, {point['step_seconds']:.3g} s"
            shown.done(f"{LABELS[model]} {setting:g}: {found}", always=True)
    points = [over_rounds(found) for found in measured.values()]
    configuration = {"data": "embedded sample", "method": "adams", **preset}
    state_mib = preset["batch_size"] * STATE_SIDE**2 * preset["channels"] * 4 / 2**20
    record = records.record_run(
        NAME,
        settings,
        places,
        configuration=configuration,
        metrics=metrics(points, state_mib),
        history=points,
        wall_seconds=time.perf_counter() - begun,
    )
    print(points_table(record))
    draw(record, places.figure(NAME, settings.stem))
    return record


def measure_in_fresh_process(**point):
    """What `measure` returns for these arguments in a process that has done nothing else. Raises RuntimeError if it fails."""
    child = children.run([sys.executable, "-m", __name__, json.dumps(point)], cwd=records.REPOSITORY)
    if child.returncode:
        last = (child.stderr.strip().splitlines() or [f"status {child.returncode}"])[-1]
        raise RuntimeError(f"measuring {LABELS.get(point['model'], point['model'])} at {point['setting']} failed: {last}")
    return json.loads(child.stdout.splitlines()[-1])


def measure(model, setting, *, batch_size, channels, seed, memory_steps, timed_steps):
    """One point, measured in this process, which must not have done anything before.

    model and setting are those of `network`; memory_steps steps are taken for memory, then timed_steps for time. Returns model,
    setting, depth, blocks or nfe_forward and nfe_backward, before_mib and peak_mib (greatest resident memory before and in the
    steps for memory), peak_kept_mib (in all, malloc keeping what is freed), step_seconds and cpu_seconds (medians of elapsed time
    and of all threads' processor time) and seconds (each step's elapsed time).
    """
    net, params = network(model, setting, channels=channels, seed=seed)
    images, labels = digits(batch_size)
    before = resident_peak()
    with freed_memory_handed_back():
        for _ in range(memory_steps):
            found, _ = net.value_and_grad(params, images, labels)
        peak = resident_peak()
    seconds, cpu_seconds = [], []
    for _ in range(timed_steps):
        begun, cpu_begun = time.perf_counter(), time.process_time()
        net.value_and_grad(params, images, labels)
        seconds.append(time.perf_counter() - begun)
        cpu_seconds.append(time.process_time() - cpu_begun)
    depth = {"blocks": setting} if model == "resnet" else {name: found[name] for name in ("nfe_forward", "nfe_backward")}
    return {
        "model": model,
        "setting": setting,
        "depth": next(iter(depth.values())),
        **depth,
        "before_mib": before,
        "peak_mib": peak,
        "peak_kept_mib": resident_peak(),
        "step_seconds": float(np.median(seconds)),
        "cpu_seconds": float(np.median(cpu_seconds)),
        "seconds": seconds,
    }


def over_rounds(found):
    """One point of those of several processes: medians of memory and times, `seconds` of all their steps."""
    medians = ("before_mib", "peak_mib", "peak_kept_mib", "step_seconds", "cpu_seconds")
    return {
        **found[0],
        **{name: float(np.median([point[name] for point in found])) for name in medians},
        "seconds": [seconds for point in found for seconds in point["seconds"]],
    }


def network(model, setting, *, channels, seed):
    """(network, initial parameters) of "resnet" with `setting` blocks, "rknet" with as many steps, "odenet" at that tolerance.

    channels is even: group norms take them in pairs, as the paper's 64. Raises ValueError for a model or setting of no sense.
    """
    if model not in LABELS:
        raise ValueError(f"model must be one of {', '.join(LABELS)}, got {model!r}")
    if not setting > 0 or (model != "odenet" and setting != int(setting)):
        what = "a positive tolerance" if model == "odenet" else "a whole number of blocks or steps from 1"
        raise ValueError(f"setting of {model} must be {what}, got {setting!r}")
    # TensorFlow takes seconds to import, and `list` should not.
    from original_repro import supervised

    rng, groups = np.random.default_rng(seed), channels // 2
    if model == "resnet":
        params = supervised.init_resnet(rng, mnist.FORMAT, channels=channels, blocks=setting)
        return supervised.ResNet(mnist.FORMAT, groups=groups), params
    params = supervised.init_odenet(rng, mnist.FORMAT, channels=channels)
    if model == "rknet":
        return supervised.RkNet(mnist.FORMAT, setting, groups=groups), params
    return supervised.OdeNet(mnist.FORMAT, "adams", setting, setting, groups=groups), params


def metrics(points, state_mib):
    """Flat numbers for each model: the lines of memory, time and processor time, and each at the greatest depth over the least.

    points as `measure` returns them; state_mib is the size of one float32 state, in which the slopes of memory are given too.
    """
    flat = {"state_mib": state_mib}
    for model, found in by_model(points).items():
        depths = [point["depth"] for point in found]
        flat[f"{model}_depth_ratio"] = max(depths) / min(depths)
        shallow, deep = found[int(np.argmin(depths))], found[int(np.argmax(depths))]
        for column, (name, unit) in COLUMNS.items():
            line = line_fit(depths, [point[name] for point in found])._asdict()
            del line["r2"]
            flat |= {f"{model}_{column}_{part}_{unit}": value for part, value in line.items()}
            flat[f"{model}_{column}_ratio"] = deep[name] / shallow[name]
            if column == "memory":
                flat |= {
                    f"{model}_memory_{part}_states": None if line[part] is None else line[part] / state_mib
                    for part in ("slope", "slope_error")
                }
    return flat


def by_model(points):
    """{model: its points}, in the order of depth."""
    return {
        model: sorted((point for point in points if point["model"] == model), key=lambda point: point["depth"])
        for model in dict.fromkeys(point["model"] for point in points)
    }


def points_table(record):
    """The points of a record, for the terminal."""
    rows = [
        [
            LABELS[point["model"]],
            f"{point['setting']:g}",
            point["depth"],
            point.get("nfe_backward", ""),
            f"{point['before_mib']:.0f}",
            f"{point['peak_mib']:.0f}",
            f"{point['peak_kept_mib']:.0f}",
            f"{point['step_seconds']:.3g}",
            f"{point['cpu_seconds']:.3g}",
        ]
        for point in record["history"]
    ]
    return tabulate(
        rows,
        [
            "",
            "setting",
            "depth",
            "nfe backward",
            "MiB before",
            "peak in a step",
            "peak, malloc keeping",
            "seconds",
            "of processors",
        ],
        disable_numparse=True,
    )


def draw(record, path):
    """Memory and time against depth, a colour for each network, with the fitted lines."""
    figure, (left, right) = plotting.subplots(1, 2, figsize=(10, 4))
    for axes, column in ((left, "memory"), (right, "time")):
        name, unit = COLUMNS[column]
        for (model, points), marker in zip(by_model(record["history"]).items(), "os^"):
            depths = np.array([point["depth"] for point in points])
            slope, constant = (record["metrics"][f"{model}_{column}_{part}_{unit}"] for part in ("slope", "constant"))
            ends = np.array([0, depths.max()])
            (line,) = axes.plot(ends, constant + slope * ends, linewidth=1.2)
            text = f"{slope:+.2f} MiB" if column == "memory" else f"{1e3 * slope:+.0f} ms"
            axes.plot(
                depths,
                [point[name] for point in points],
                marker,
                color=line.get_color(),
                label=f"{LABELS[model]}: {text} {'a block' if model == 'resnet' else 'an evaluation'}",
            )
        axes.set(xlabel="depth: blocks (ResNet), evaluations forward (RK-Net, ODE-Net)", xlim=(0, None))
        axes.legend(frameon=False, loc="lower left", bbox_to_anchor=(0, 1), borderaxespad=0)
    # Libraries, parameters and digits are most of the memory; from zero, no slope would be seen.
    before = float(np.median([point["before_mib"] for point in record["history"]]))
    left.set_ylim(before, before + 1.05 * (left.dataLim.y1 - before))
    left.set_ylabel(f"peak memory (MiB; {before:.0f} before)")
    right.set(ylabel="time of a training step (s)", ylim=(0, None))
    figure.suptitle(
        f"A training step against depth: batch {record['configuration']['batch_size']}, "
        f"{record['configuration']['channels']} channels"
    )
    plotting.save(figure, path)


def table(found):
    """Fitted lines of memory and time against depth, beside the paper's orders of growth."""
    record = records.first(found, NAME)
    if not record:
        return ""
    metrics, rows = record["metrics"], []
    for model, memory_growth, time_growth in (("resnet", "O(L)", "O(L)"), ("rknet", "O(L̃)", "O(L̃)"), ("odenet", "O(1)", "O(L̃)")):
        depths = [point["depth"] for point in record["history"] if point["model"] == model]
        rows.append(
            [
                LABELS[model],
                f"{min(depths)} to {max(depths)}",
                memory_growth,
                _with_error(metrics, f"{model}_memory_slope_mib", "{:.2f}"),
                f"{metrics[f'{model}_memory_ratio']:.2f}",
                time_growth,
                _with_error(metrics, f"{model}_time_slope_seconds", "{:.1f}", 1e3),
                f"{metrics[f'{model}_time_ratio']:.1f}",
            ]
        )
    return markdown_table(
        [
            "network",
            "depth",
            "memory, paper",
            "MiB a unit of depth",
            "deepest over shallowest",
            "time, paper",
            "ms a unit of depth",
            "deepest over shallowest",
        ],
        rows,
    )


def _with_error(metrics, name, form, factor=1):
    """A slope and its standard error, which a line through two points has none of."""
    error = metrics[name.replace("_slope_", "_slope_error_")]
    value = form.format(factor * metrics[name])
    return value if error is None else f"{value} ± {form.format(factor * error)}"


EXPERIMENT = Experiment(
    name=NAME,
    resumes=False,
    source="Table 1",
    shows="memory and time of a training step against depth",
    run=run,
    description=__doc__,
    preset_of=lambda settings: PRESETS[settings.preset],
    takes={"quick": "1 min"},
    section=Section(
        "Table 1: memory and time",
        table,
        captions={
            "": "Table 1, its columns on memory and time: peak memory of a training step grows with the depth of the ResNet and "
            "with the evaluations of the RK-Net, not with those of the ODE-Net; time grows with all of them."
        },
    ),
)


if __name__ == "__main__":
    if len(sys.argv) != 2:
        raise SystemExit(
            f"usage: python -m experiments.neural_ode.{NAME} JSON (the arguments of measure; "
            f"all points: python -m experiments run {NAME})"
        )
    print(json.dumps(measure(**json.loads(sys.argv[1]))))
