"""Peak memory of a training step of the ODE-Net, measured in a fresh process for each tolerance."""

import json
import sys

import numpy as np
from tabulate import tabulate

from original_repro import children, supervised
from original_repro.datasets import mnist

from ..harness.digits import digits
from ..harness.memory import resident_peak
from ..harness.records import REPOSITORY
from .goals import GOALS
from .side_by_side import heading

BATCH, CHANNELS = 128, 64
MEMORY_TOLERANCES = (1e-2, 1e-6)


def bench_memory(batch, channels):
    """Peak memory of a training step of the ODE-Net at a loose and a tight tolerance; metrics memory_*."""
    heading(
        f"One training step of the whole ODE-Net (stem, ODE, head), batch {batch}, each in a fresh process: "
        "resident memory (MiB), evaluations"
    )
    loose, tight = (peak_memory(tolerance, batch, channels) for tolerance in MEMORY_TOLERANCES)
    rows = [
        [f"{tolerance:g}", f"{m['peak_mib']:.0f}", f"{m['peak_mib'] - m['before_mib']:.0f}", m["nfe_forward"], m["nfe_backward"]]
        for tolerance, m in zip(MEMORY_TOLERANCES, (loose, tight))
    ]
    print(tabulate(rows, ["tolerance", "peak", "of it the step", "nfe forward", "nfe backward"], disable_numparse=True))
    ratio = tight["peak_mib"] / loose["peak_mib"]
    evaluations = total_evaluations(tight) / total_evaluations(loose)
    print(
        f"Peak {ratio:.3f} times as high (goal: at most {GOALS['memory_ratio']:g}) for {evaluations:.1f} times the evaluations",
        flush=True,
    )
    return {
        "memory_ratio": ratio,
        "memory_evaluations_ratio": evaluations,
        **{f"memory_{name}_{key}": value for name, m in (("loose", loose), ("tight", tight)) for key, value in m.items()},
    }


def total_evaluations(measured):
    """Evaluations forward and backward of what peak_memory returned."""
    return measured["nfe_forward"] + measured["nfe_backward"]


def peak_memory(tolerance, batch=BATCH, channels=CHANNELS):
    """Memory of one training step in a fresh process: {"peak_mib", "before_mib", "nfe_forward", "nfe_backward"}."""
    child = children.run([sys.executable, "-m", __name__, str(tolerance), str(batch), str(channels)], cwd=REPOSITORY)
    if child.returncode:
        raise RuntimeError(f"measuring memory failed with status {child.returncode}: {child.stderr[-2000:]}")
    return json.loads(child.stdout.splitlines()[-1])


def measure_memory(tolerance, batch, channels):
    """What peak_memory returns, for this process: it must not have done anything before."""
    params = supervised.init_odenet(np.random.default_rng(0), mnist.FORMAT, channels=channels)
    net = supervised.OdeNet(mnist.FORMAT, "adams", tolerance, tolerance, groups=channels // 2)
    images, labels = digits(batch)
    before = resident_peak()
    metrics, _ = net.value_and_grad(params, images, labels)
    return {
        "peak_mib": resident_peak(),
        "before_mib": before,
        **{name: metrics[name] for name in ("nfe_forward", "nfe_backward")},
    }


if __name__ == "__main__":
    if len(sys.argv) != 4:
        raise SystemExit(
            "usage: python -m experiments.comparison.bench_memory TOLERANCE BATCH CHANNELS (all: python -m experiments bench)"
        )
    print(json.dumps(measure_memory(float(sys.argv[1]), int(sys.argv[2]), int(sys.argv[3]))))
