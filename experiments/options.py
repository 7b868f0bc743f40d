"""Options of the commands: the fields of an experiment's Settings, and Places, as arguments, and back from what was typed."""

import argparse
from dataclasses import fields

from . import Places
from .harness.workers import available_cores


def add_settings(parser, settings):
    """An argument for each option of a class of Settings, and --out."""
    for option in settings.options():
        parser.add_argument(
            option.flag,
            type=_seed if option.name == "seed" else option.type,
            default=option.default,
            choices=option.choices,
            metavar=option.metavar,
            help=option.help,
        )
    add_out(parser, "folder for records, figures and weights (default: results)")


def add_lists(parser, settings):
    """An argument for a list of values of each option of a class of Settings, and those of a sweep."""
    for option in settings.options():
        if option.name == "workers":  # the sweep's own; each run has one
            continue
        flags = [option.flag, "--seeds"] if option.name == "seed" else [option.flag]
        ranges = " or ranges" if option.type is int else ""
        parser.add_argument(*flags, metavar="LIST", dest=option.name, help=f"{option.help}; several, with commas{ranges}")
    parser.add_argument(
        "--workers",
        type=int,
        default=available_cores(),
        metavar="N",
        help="how many runs at a time, each in a process with one thread (default: number of cores)",
    )
    parser.add_argument(
        "--scheduler", metavar="ADDRESS", help="of a Dask cluster whose workers run instead; they share --out and --checkpoints"
    )
    add_out(parser, "folder for records, figures and weights (default: results)")


def add_out(parser, help):
    parser.add_argument("--out", default=Places.out, help=help)


def add_checkpoints(parser):
    parser.add_argument("--checkpoints", default=Places.checkpoints, help="folder from which a stopped run goes on")
    parser.add_argument("--fresh", action="store_true", help="begin anew, even if there is a checkpoint")


def _seed(text):
    if not text.isdigit():
        raise argparse.ArgumentTypeError(f"must be a whole number from 0, got {text!r}")
    return int(text)


def settings_and_places(arguments, settings):
    """The Settings and Places of parsed arguments. Raises ValueError for a value of no sense."""
    given = vars(arguments)
    return (
        settings(**{option.name: given[option.name] for option in settings.options()}),
        Places(**{field.name: given[field.name] for field in fields(Places) if field.name in given}),
    )


def settings_of(words, settings):
    """The Settings that the words of a `run` or `evaluate` behind its name give. Raises ValueError for words of no sense."""
    parser = _Parser(add_help=False)
    add_settings(parser, settings)
    add_checkpoints(parser)
    return settings_and_places(parser.parse_args(words), settings)[0]


class _Parser(argparse.ArgumentParser):
    """One of what somebody else has typed: errors are exceptions."""

    def error(self, message):
        raise ValueError(message)
