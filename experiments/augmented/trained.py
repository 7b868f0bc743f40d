"""Trained models of the synthetic problems, which the figures share: each task is trained, and judged, once and kept."""

import hashlib
import json
import time
from pathlib import Path
from typing import NamedTuple

from original_repro.training import load_checkpoint, save_checkpoint

from ..harness.progress import Progress
from ..harness.workers import run_tasks
from . import toy

FOLDER = "augmented_toy"


class Trained(NamedTuple):
    """A task of toy.py, what toy.train made of it, and toy.judge's answers where they were asked for."""

    task: dict
    result: dict
    judgement: dict | None

    def row(self):
        """What a record's history keeps: plain values."""
        return {
            **{name: self.task[name] for name in ("problem", "model", "extra", "weight_decay", "seed")},
            "failed": self.result["failed"],
            "seconds": self.result["seconds"],
            "epochs": {name: [epoch[name] for epoch in self.result["epochs"]] for name in self.metrics},
            **({} if self.judgement is None else {"judgement": self.judgement}),
        }

    @property
    def metrics(self):
        """Names of what was measured of each epoch."""
        return list(self.result["epochs"][0]) if self.result["epochs"] else []

    @property
    def ended(self):
        """Whether the training came to its end."""
        return self.result["failed"] is None


def tasks(models, problems, seeds, **settings):
    """Tasks of every model on every problem with every seed; models: {name of toy.MODELS: extra dimensions}."""
    return [
        toy.task(problem=problem, model=model, extra=extra, seed=seed, **settings)
        for problem in problems
        for model, extra in models.items()
        for seed in seeds
    ]


def seeds(settings, repetitions):
    """The seeds of so many repetitions of a run: apart for different seeds of the run."""
    return [100 * settings.seed + i for i in range(repetitions)]


def train_all(tasks, places, workers, *, judge=None):
    """[Trained] of tasks, `workers` at a time; what was made before is read, unless `places` asks to begin anew.

    Experiments that run at the same time share the folder: a file is replaced as a whole, and never removed.

    judge: settings of toy.judge, for models with an ODE; None: nothing is judged.
    """
    folder = places.checkpoints / FOLDER
    orders = [(task, str(folder / _name(task)), judge, places.fresh) for task in tasks]
    with Progress(len(orders), "trainings") as shown:
        made = run_tasks(_make, orders, workers, lambda place, _: shown.done(_name(tasks[place])))
    return [Trained(task, *parts) for task, parts in zip(tasks, made)]


def wall_seconds(begun, made, workers):
    """Seconds since time.perf_counter() was `begun`, or those of the trainings that were made before, if they are more."""
    return max(time.perf_counter() - begun, sum(one.result["seconds"] for one in made) / workers)


def checkpoints(tasks, places):
    """Paths at which trainings of tasks are kept, and what was judged of them."""
    paths = [places.checkpoints / FOLDER / _name(task) for task in tasks]
    return [*paths, *(path.with_suffix(".judged.npz") for path in paths)]


def _name(task):
    digest = hashlib.sha256(json.dumps(task, sort_keys=True).encode()).hexdigest()[:12]
    return f"{task['problem']}-{task['model']}{task['extra'] or ''}-seed{task['seed']}-{digest}.npz"


def _make(order):
    """(result, judgement or None) of a task, kept beside each other in files."""
    task, path, judge, fresh = order
    result = toy.train_or_load(task, path, fresh)
    if judge is None or task["model"] == "resnet":
        return result, None
    path = Path(path).with_suffix(".judged.npz")
    if path.exists() and not fresh:
        saved = load_checkpoint(path)
        if saved.get("judge") == judge:
            return result, saved["judgement"]
    judgement = toy.judge(task, result["params"], **judge)
    if not toy.PROBLEMS[task["problem"]].has_head:
        judgement["swaps"] = toy.swaps(task, result["kept"])
    save_checkpoint(path, {"judge": judge, "judgement": judgement})
    return result, judgement
