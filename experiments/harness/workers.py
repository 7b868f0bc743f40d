"""Processes with one thread each: for independent pieces of an experiment, and for the parts of a mini-batch.

Threads do not help where Python or Fortran holds the interpreter's lock, as in a solve, and help small graphs little.
"""

import contextlib
import functools
import multiprocessing
import os
import pickle
import signal
import threading
from concurrent.futures import ProcessPoolExecutor, as_completed
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass
from multiprocessing.connection import wait

import numpy as np

from original_repro.training import tree_map

from .. import Settings, option
from . import own_process, process

# Read when NumPy's BLAS and TensorFlow are loaded, so they have to be there when a worker starts.
ONE_THREAD = {"OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1", "TF_NUM_INTRAOP_THREADS": "1", "TF_NUM_INTEROP_THREADS": "1"}
# Seconds to wait for a scheduler.
CONNECTING = 20


class WorkerDied(RuntimeError):
    """A process of a pool ended without a result or an error."""


def available_cores():
    """How many cores this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()


@dataclass(frozen=True, kw_only=True)
class WorkerSettings(Settings):
    """Settings of what several processes share."""

    workers: int = option(
        available_cores(),
        "processes at a time, each with one thread (default: one for each core)",
        type=int,
        metavar="N",
        least=1,
        named=False,
    )


def run_tasks(function, tasks, workers, finished=None, *, scheduler=None, apart=False):
    """[function(task) for task in tasks], computed `workers` at a time, in fresh processes with one thread each.

    scheduler: address of a Dask cluster's, whose workers compute instead, each task in a process of its own there; a task whose
    worker is lost is begun again on another. apart: every task has a process of its own here, too.

    function is at the top of its module; tasks and results can be pickled. finished(place in the list, result) is called here for
    each task when it ends. With one worker the work is done in processes too, so that a result does not depend on the number of
    workers. Tasks should keep checkpoints: the first error, or an interrupt, stops those that are running. Raises what a task
    raised, WorkerDied where a process ended by itself, ValueError for fewer than one worker.
    """
    check_count("workers", workers)
    tasks = list(tasks)
    if not tasks:
        return []
    pool_of = _process_pool(min(workers, len(tasks)), _watch_parent, tasks_a_process=1 if apart else None)
    if scheduler is not None:
        pool_of, function = _cluster(scheduler), functools.partial(own_process.call, function, environment=ONE_THREAD)
    with _environment(ONE_THREAD), pool_of as pool:
        futures = [pool.submit(function, task) for task in tasks]
        places = {future: place for place, future in enumerate(futures)}
        for future in as_completed(futures):
            result = future.result()
            if finished is not None:
                finished(places[future], result)
        return [future.result() for future in futures]


@contextlib.contextmanager
def _cluster(scheduler):
    """The workers of a Dask cluster as an executor; what an error in the `with` statement leaves is not begun any more."""
    try:
        from distributed import Client
    except ImportError as error:
        raise ImportError("a scheduler's address needs Dask: pip install 'neural-ode-repro[cluster]'") from error
    with Client(scheduler, timeout=CONNECTING) as client:
        pool = client.get_executor(pure=False)
        try:
            yield pool
        finally:
            # Futures that are let go are forgotten by the scheduler, done or not.
            pool.shutdown(wait=False)


@contextlib.contextmanager
def data_parallel(make, processes):
    """For a `with` statement: value_and_grad(params, *batch), each mini-batch shared among `processes` processes.

    make() -> a value_and_grad whose metrics and gradients are means over its batch. It is called once in each process, so it is
    at the top of its module, or a partial of such a function, and what it returns keeps its compiled graphs. The arrays of a
    batch are cut along their first axis into parts as equal as can be; metrics and gradients are the means of the parts', weighed
    by their examples. An ODE is thus solved for each part by itself, and error control sees parts, not the batch. The result does
    not depend on which process computes which part. Raises what a part raised, WorkerDied where a process ended by itself,
    ValueError for fewer than one process or for a batch with fewer examples than processes.
    """
    check_count("processes", processes)
    with _process_pool(processes, _make_value_and_grad, make) as pool:

        def value_and_grad(params, *batch):
            examples = len(batch[0])
            if examples < processes:
                raise ValueError(f"a batch must have an example for each of the {processes} processes, got {examples}")
            parts = list(zip(*(np.array_split(array, processes) for array in batch)))
            with _environment(ONE_THREAD):  # a pool starts its processes when they are first needed
                futures = [pool.submit(_compute_part, params, part) for part in parts]
            metrics, grads = zip(*(future.result() for future in futures))
            weights = [len(part[0]) / examples for part in parts]
            return (
                {name: sum(weight * part[name] for weight, part in zip(weights, metrics)) for name in metrics[0]},
                tree_map(lambda *of_parts: sum(g.dtype.type(weight) * g for weight, g in zip(weights, of_parts)), *grads),
            )

        yield value_and_grad


_value_and_grad = None  # of this process, where it is one of data_parallel's


def _make_value_and_grad(make):
    global _value_and_grad
    _watch_parent()
    _value_and_grad = make()


def _compute_part(params, part):
    return _value_and_grad(params, *part)


def check_count(name, count):
    """Raise ValueError, naming the argument, for anything but a whole number from 1."""
    if type(count) is not int or count < 1:
        raise ValueError(f"{name} must be a whole number from 1, got {count!r}")


@contextlib.contextmanager
def _process_pool(count, initializer, *initargs, tasks_a_process=None):
    """A pool of fresh processes; an error in the `with` statement, or an interrupt, stops them at once."""
    beginning, spawn = pickle.dumps((initializer, initargs)), multiprocessing.get_context("spawn")
    pool = ProcessPoolExecutor(count, spawn, process.begin_worker, (beginning,), max_tasks_per_child=tasks_a_process)
    processes = pool._processes  # a pool that is broken or shut down forgets them
    try:
        yield pool
    except BrokenProcessPool as error:
        # Its thread waits for the processes, too, and until it has noted a status nobody else finds one.
        pool.shutdown(wait=True, cancel_futures=True)
        raise WorkerDied(_how_it_died(list(processes.values()))) from error
    except BaseException:
        for worker in list(processes.values()):
            worker.terminate()
        raise
    finally:
        pool.shutdown(wait=True, cancel_futures=True)


def _how_it_died(processes):
    """What is known of a process that ended by itself; the pool ends the others by SIGTERM."""
    codes = [worker.exitcode for worker in processes if worker.exitcode not in (None, 0, -signal.SIGTERM)]
    how = "" if not codes else f", by {signal.Signals(-codes[0]).name}" if codes[0] < 0 else f", with status {codes[0]}"
    return (
        f"a worker process ended before its work{how}; most often the system had no memory left. What is done is in the "
        "checkpoints: the same command goes on, with less memory if it has fewer --workers or --processes"
    )


def _watch_parent():
    """Let this worker end with its parent also where the system does not see to it, or the parent ended before it could."""

    def watch():
        wait([multiprocessing.parent_process().sentinel])
        os._exit(1)

    threading.Thread(target=watch, daemon=True).start()


@contextlib.contextmanager
def _environment(variables):
    before = {name: os.environ.get(name) for name in variables}
    os.environ.update(variables)
    try:
        yield
    finally:
        for name, value in before.items():
            if value is None:
                del os.environ[name]
            else:
                os.environ[name] = value
