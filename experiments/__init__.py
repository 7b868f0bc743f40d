"""The papers' tables and figures, measured. This module says what an experiment is; it imports nothing heavy.

An experiment is a module with a function run(settings, places), which measures, writes a record, and returns it, and a constant
EXPERIMENT, which says what it is called, what it shows, and what the report prints of it:

    from experiments import Places
    from experiments.neural_ode import table1_mnist

    settings = table1_mnist.RunSettings(model="mlp", epochs=2)
    record = table1_mnist.EXPERIMENT.run(settings, Places(out="elsewhere"))
    record["metrics"]["error_rate"]

The command line (`python -m experiments`) makes the same settings from its arguments.
"""

import dataclasses
import shutil
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType
from typing import Any, NamedTuple

from original_repro import locks


class Option(NamedTuple):
    """A setting as the command line shows it. named: whether the record's name tells it where it is not the default."""

    name: str
    default: Any
    help: str
    type: type
    choices: tuple | None
    metavar: str | None
    least: int | None
    named: bool

    @property
    def flag(self):
        """--name-of-it."""
        return f"--{self.name.replace('_', '-')}"


def option(default, help, *, type=str, choices=None, metavar=None, least=None, named=True):
    """A field of Settings.

    type: str, int, float or Path; choices: what it may be; least: of a whole number. named=False: it says where things are, or
    how many work at them, not what is measured, and has no place in a record's name.
    """
    about = {
        "help": help,
        "type": type,
        "choices": choices and tuple(choices),
        "metavar": metavar,
        "least": least,
        "named": named,
    }
    return dataclasses.field(default=default, metadata=about)


@dataclass(frozen=True, kw_only=True)
class Settings:
    """What an experiment is to measure; experiments add their own options. Raises ValueError for a value of no sense."""

    preset: str = option("quick", "quick (default): minutes; paper: the paper's setting", choices=("quick", "paper"))
    seed: int = option(0, "a whole number from 0 (default: 0)", type=int, least=0)

    def __post_init__(self):
        for about in self.options():
            object.__setattr__(self, about.name, _checked(about, getattr(self, about.name)))

    @classmethod
    def options(cls):
        """All settings as Options, the common ones first."""
        return [Option(field.name, field.default, **field.metadata) for field in dataclasses.fields(cls)]

    def chosen(self):
        """[(Option, value)] of what differs from its default."""
        return [(about, getattr(self, about.name)) for about in self.options() if getattr(self, about.name) != about.default]

    @property
    def stem(self):
        """<preset>-seed<N>, and every option that differs from its default, so that no record overwrites another's."""
        common = {about.name for about in Settings.options()}
        named = sorted((about.name, value) for about, value in self.chosen() if about.named and about.name not in common)
        return "-".join([self.preset, f"seed{self.seed}", *(f"{name}={value}".replace("/", "_") for name, value in named)])


def _checked(about, value):
    """A setting's value in the type of its option."""
    if value is None and about.default is None:
        return None
    if about.choices and value not in about.choices:
        raise ValueError(f"{about.flag} must be one of {', '.join(map(str, about.choices))}, got {value!r}")
    if about.type is int:
        if type(value) is not int or (about.least is not None and value < about.least):
            from_least = "" if about.least is None else f" from {about.least}"
            raise ValueError(f"{about.flag} must be a whole number{from_least}, got {value!r}")
        return value
    try:
        return about.type(value)
    except (TypeError, ValueError) as error:
        raise ValueError(f"{about.flag} must be a {about.type.__name__}, got {value!r}") from error


@dataclass(frozen=True)
class Places:
    """Where things lie: out has records, figures and weights; checkpoints has those from which a stopped run goes on.

    fresh: a run begins anew, even if there is a checkpoint.
    """

    out: Path = Path("results")
    checkpoints: Path = Path("checkpoints")
    fresh: bool = False

    def __post_init__(self):
        for name in ("out", "checkpoints"):
            object.__setattr__(self, name, Path(getattr(self, name)))

    def record(self, experiment, stem):
        """out/runs/<experiment>/<stem>.json."""
        return self.out / "runs" / experiment / f"{stem}.json"

    def figure(self, experiment, stem, ending=".png"):
        """out/figures/<experiment>-<stem>.png."""
        return self.out / "figures" / f"{experiment}-{stem}{ending}"

    def weights(self, experiment, stem):
        """out/weights/<experiment>-<stem>.npz."""
        return self.out / "weights" / f"{experiment}-{stem}.npz"

    def checkpoint(self, experiment, stem):
        """checkpoints/<experiment>/<stem>.npz, of an experiment of one fit."""
        path = self.checkpoints / experiment / f"{stem}.npz"
        if self.fresh:
            _remove(path, [path])
        return path

    def checkpoint_folder(self, experiment, stem):
        """checkpoints/<experiment>/<stem>/, of an experiment of many fits."""
        folder = self.checkpoints / experiment / stem
        if self.fresh:
            _remove(folder, [lock.with_suffix("") for lock in folder.rglob("*.lock")])
        return folder


def _remove(path, locked):
    """Remove a checkpoint or a folder of them. InUse where a run that is alive has one of `locked`, RuntimeError if it cannot."""
    for one in locked:
        process = locks.holder(one)
        if process is not None:
            raise locks.InUse(f"--fresh would remove {one}, which a run that is alive writes, of process {process}")
    try:
        if path.is_dir() and not path.suffix == ".npz":
            shutil.rmtree(path)
        else:
            path.unlink(missing_ok=True)
    except OSError as error:
        raise RuntimeError(f"--fresh cannot remove {path}: {error.strerror}") from error


class Section(NamedTuple):
    """What the report prints of an experiment: tables are functions of records, [(path, record)], and give Markdown.

    captions: sentences under figures, by the part of a figure's name between hyphens or dots that tells it from the experiment's
    others, in the order of the report; under "" that of figures without such a part.
    """

    heading: str
    table: Callable[[list], str] | None = None
    captions: Mapping[str, str] = MappingProxyType({})


@dataclass(frozen=True, kw_only=True)
class Experiment:
    """An experiment, as the command line, `run all` and the report know it.

    name: on the command line and in paths.  source: the paper's table, figure or section.  shows: what of it is measured.
    description: the module's docstring.  settings: its class of Settings.
    run(settings, places) -> record: measures, writes record and figures, returns the record; goes on from checkpoints.
    takes: {preset: about how long on two cores, in words}, of presets for which no committed record tells.
    preset_of(settings) -> a dict: what the preset, and options instead of it, put into a record's configuration, for `check`.
    evaluate(settings, places) -> metrics: measures again with the weights that a run left; evaluation_settings: its Settings.
    measure(settings, places) -> (metrics, history): the same, where rules ask for rows as well.
    redraw(settings, places) -> paths: draws a run's figures again from its record and weights, without training.
    kept: options of the runs of the paper preset whose weights come with the project.
    in_all: whether `run all` has it.  resumes: whether a run that was stopped goes on from checkpoints.
    needs: the experiment whose run without options has to come before.  variants: options of further runs of `run all`.
    section: what the report prints of it.  page: a file in docs/ that has the section's table as well, between markers.
    """

    name: str
    source: str
    shows: str
    run: Callable[[Any, Places], dict]
    description: str = ""
    settings: type[Settings] = Settings
    takes: dict[str, str] = dataclasses.field(default_factory=dict)
    preset_of: Callable[[Any], dict] | None = None
    evaluate: Callable[[Any, Places], dict] | None = None
    measure: Callable[[Any, Places], tuple[dict, list]] | None = None
    evaluation_settings: type[Settings] = Settings
    redraw: Callable[[Any, Places], Iterable[Path]] | None = None
    kept: tuple[dict, ...] = ()
    in_all: bool = True
    resumes: bool = True
    needs: str | None = None
    variants: tuple[dict, ...] = ()
    section: Section | None = None
    page: str | None = None

    @property
    def title(self):
        """In a line."""
        return f"{self.source}: {self.shows}"
