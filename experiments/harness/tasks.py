"""Many measurements one after another or shared among processes, kept in a checkpoint after each."""

import functools
import time

from original_repro import training

from . import workers
from .progress import Progress


def measure_all(tasks, measure, checkpoint, identity, count=1, alone=()):
    """(rows, seconds): each task with what `measure(task, rows before it)` returns; goes on from `checkpoint`, if there is one.

    tasks: dicts with a "part". With a count above 1, what is not of a part that is to be measured alone comes from so many
    processes, whose `measure` is given no rows. Raises CheckpointError where the checkpoint is of another `identity`, ValueError
    for a count below 1.
    """
    workers.check_count("workers", count)
    saved, before = {"identity": identity, "rows": {}, "seconds": 0.0}, []
    if checkpoint.exists():
        saved, before = training.load_checkpoint(checkpoint), training.sessions_of(checkpoint)
        if saved.get("identity") != identity:
            raise training.CheckpointError(f"{checkpoint} is of other weights or another configuration; --fresh begins anew")
    checkpoint.parent.mkdir(parents=True, exist_ok=True)
    rows, begun = saved["rows"], time.monotonic() - saved["seconds"]
    left = [place for place in range(len(tasks)) if place not in rows]
    shared = [place for place in left if count > 1 and tasks[place]["part"] not in alone]
    with Progress(len(tasks), "measurements", len(rows)) as shown:

        def finished(place, result):
            rows[place] = {**tasks[place], **result}
            state = {"identity": identity, "rows": rows, "seconds": time.monotonic() - begun}
            training.save_checkpoint(checkpoint, state, before)
            shown.done(f"{rows[place]['part']} {rows[place].get('method', '')}")

        for place in left:
            if place not in shared:
                finished(place, measure(tasks[place], [rows[before] for before in sorted(rows) if before < place]))
        workers.run_tasks(
            functools.partial(measure, rows=()),
            [tasks[place] for place in shared],
            count,
            lambda number, result: finished(shared[number], result),
        )
    return [rows[place] for place in sorted(rows)], time.monotonic() - begun
