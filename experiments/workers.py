"""Independent pieces of an experiment in processes of their own, one thread each."""

import contextlib
import multiprocessing
import os
import threading
from concurrent.futures import ProcessPoolExecutor, as_completed
from multiprocessing.connection import wait

# Read when NumPy's BLAS and TensorFlow are loaded, so they have to be there when a worker starts.
ONE_THREAD = {"OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1", "TF_NUM_INTRAOP_THREADS": "1", "TF_NUM_INTEROP_THREADS": "1"}


def available_cores():
    """How many cores this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()


def run_tasks(function, tasks, workers):
    """[function(task) for task in tasks], computed `workers` at a time, each in a fresh process with one thread.

    function is at the top of its module; tasks and results can be pickled. With one worker the work is done in processes too, so
    that a result does not depend on the number of workers. Tasks should keep checkpoints: the first error, or an interrupt,
    stops those that are running. Raises what a task raised, ValueError for fewer than one worker.
    """
    if type(workers) is not int or workers < 1:
        raise ValueError(f"workers must be a whole number from 1, got {workers!r}")
    tasks = list(tasks)
    if not tasks:
        return []
    context = multiprocessing.get_context("spawn")
    with _environment(ONE_THREAD):
        pool = ProcessPoolExecutor(min(workers, len(tasks)), mp_context=context, initializer=_end_with_parent)
        try:
            futures = [pool.submit(function, task) for task in tasks]
            for future in as_completed(futures):
                future.result()
            return [future.result() for future in futures]
        except BaseException:
            for process in list(pool._processes.values()):
                process.terminate()
            raise
        finally:
            pool.shutdown(wait=True, cancel_futures=True)


def _end_with_parent():
    """Let this worker end when the process that started it does, however that ends: another run may take up its checkpoints."""
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
