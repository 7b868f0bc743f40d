"""Every experiment in all its variants, several at a time, each in a process of its own with its output in a file."""

import os
import subprocess
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from original_repro import children

from . import process
from .workers import ONE_THREAD


def chains(experiments):
    """[[(name, variant), ...], ...]: runs of each list follow one another, lists are independent.

    experiments: {name: Experiment}. One that needs another works on what that one's run without options leaves.
    """
    following = {}
    for name, experiment in experiments.items():
        following.setdefault(experiment.needs, []).append((name, {}))
    found = []
    for name, experiment in experiments.items():
        if experiment.needs is None:
            found.append([(name, {}), *following.get(name, [])])
            found += [[(name, variant)] for variant in experiment.variants]
    return found


def run_all(experiments, options, workers, logs):
    """Run the chains of `experiments`, `workers` at a time; returns the highest exit status, 128 + n of a run ended by signal n.

    options: command-line arguments that every run gets. Output goes to files in the folder `logs`; a line tells of each run's
    end. A run whose predecessor failed is not begun. However this process ends, its runs end with it.
    """
    Path(logs).mkdir(parents=True, exist_ok=True)
    environment = {**os.environ, **(ONE_THREAD if workers > 1 else {})}
    running, printing, begun = set(), threading.Lock(), time.monotonic()
    stopping = threading.Event()

    def run(name, variant):
        chosen = [f"--{option}={value}" for option, value in variant.items()]
        if workers > 1 and any(option.name == "workers" for option in experiments[name].settings.options()):
            chosen.append("--workers=1")
        log = Path(logs) / f"{'-'.join([name, *variant.values()])}.txt"
        command = [sys.executable, "-m", "experiments", "run", name, *options, *chosen]
        with open(log, "wb") as file:
            child = subprocess.Popen(
                children.ending_with_us(command), stdout=file, stderr=subprocess.STDOUT, stdin=subprocess.DEVNULL, env=environment
            )
            running.add(child)
            if stopping.is_set():
                child.terminate()
            status = child.wait()
            status = 128 - status if status < 0 else status
            running.discard(child)
        with printing:
            outcome = "done" if status == 0 else f"failed with status {status}"
            title = " ".join([name, *variant.values()])
            print(f"{time.monotonic() - begun:5.0f} s  {title}: {outcome}; output in {log}", flush=True)
            if status:
                print(log.read_text(encoding="utf-8", errors="replace")[-2000:], file=sys.stderr, flush=True)
        return status

    def run_chain(chain):
        for name, variant in chain:
            status = run(name, variant)
            if status:
                return status
        return 0

    pool = ThreadPoolExecutor(workers)
    try:
        return max(pool.map(run_chain, chains(experiments)))
    except BaseException:
        stopping.set()
        pool.shutdown(wait=False, cancel_futures=True)
        process.end(list(running))
        raise
    finally:
        pool.shutdown()
