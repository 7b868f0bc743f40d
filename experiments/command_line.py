"""The command line: list | run NAME | evaluate NAME | redraw NAME | bench | report. All of argparse is here."""

import argparse
import difflib
import os
import sys
import time
from dataclasses import fields
from pathlib import Path

from tabulate import tabulate

from . import Places, Settings
from .augmented import (
    figure3_swap,
    figure5_losses,
    figure6_features,
    figure9_slice,
    figure13_overfitting,
    propositions,
    table1_images,
    weight_decay,
)
from .comparison import bench
from .fidelity import integrator_fidelity
from .harness import records
from .harness.kept import measure_again
from .harness.run_all import run_all
from .harness.workers import available_cores
from .neural_ode import (
    figure3,
    figure3c_reverse,
    figure4_flows,
    figure5_flows,
    figure7_poisson,
    figure10_observations,
    figures8to10_latent_ode,
    flow_scores,
    harder_inputs,
    inference_speed,
    latent_checks,
    latent_restarts,
    section4_checks,
    solver_choice,
    table1_depth,
    table1_mnist,
    table2_latent_ode,
    table2_tuning,
)
from .report import registry, verdict_tables, write

# In the paper's order, and the report's.
REPORTED = tuple(
    module.EXPERIMENT
    for module in (
        table1_mnist,
        table1_depth,
        inference_speed,
        figure3,
        figure3c_reverse,
        harder_inputs,
        solver_choice,
        figure4_flows,
        figure5_flows,
        flow_scores,
        section4_checks,
        figure7_poisson,
        table2_latent_ode,
        table2_tuning,
        figures8to10_latent_ode,
        figure10_observations,
        latent_checks,
        latent_restarts,
        figure3_swap,
        figure5_losses,
        figure6_features,
        figure9_slice,
        propositions,
        weight_decay,
        table1_images,
        figure13_overfitting,
        bench,
        integrator_fidelity,
    )
)
# `bench` is a command of its own.
EXPERIMENTS = {experiment.name: experiment for experiment in REPORTED if experiment is not bench.EXPERIMENT}


def main(argv=None):
    """Run the command in argv (default: sys.argv); returns the exit status."""
    # TensorFlow's notes about processors and missing GPUs would bury the progress lines.
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    # TensorFlow's default on processors with AVX-512 only; without them its convolutions gain from it no less.
    os.environ.setdefault("TF_ENABLE_ONEDNN_OPTS", "1")
    words = sys.argv[1:] if argv is None else argv
    parser = _parser()
    if words[:1] in (["run"], ["evaluate"], ["redraw"]) and len(words) > 1 and not words[1].startswith("-"):
        _check_name(parser, words[1], [*EXPERIMENTS, "all"])
    arguments = parser.parse_args(words)
    return arguments.handler(arguments) or 0


def _check_name(parser, name, names):
    """End with status 2 and the nearest names where there is none such."""
    if name not in names:
        near = [one for one in names if one.startswith(name)] or difflib.get_close_matches(name, names, n=2, cutoff=0.5)
        hint = f"did you mean {' or '.join(near)}?" if near else "`python -m experiments list` shows them all"
        parser.error(f"no experiment is called {name!r}; {hint}")


def _parser():
    parser = argparse.ArgumentParser(
        prog="python -m experiments", description="Tables and figures of Neural ODEs (2018), measured."
    )
    commands = parser.add_subparsers(required=True, metavar="COMMAND")
    commands.add_parser("list", help="the experiments").set_defaults(handler=_list)
    run = commands.add_parser("run", help="run an experiment, or all of them; without a name: list")
    run.set_defaults(handler=_list)
    names = run.add_subparsers(metavar="NAME")
    for name, experiment in EXPERIMENTS.items():
        one = names.add_parser(
            name,
            help=experiment.title,
            description=experiment.description,
            formatter_class=argparse.RawDescriptionHelpFormatter,
        )
        _add_settings(one, experiment.settings)
        _add_checkpoints(one)
        one.set_defaults(handler=_run, name=name)
    every = names.add_parser(
        "all", help="every experiment but those of many trainings, with its own defaults, and in its variants where it has them"
    )
    _add_settings(every, Settings)
    _add_checkpoints(every)
    every.add_argument(
        "--workers",
        type=int,
        default=available_cores(),
        metavar="N",
        help="how many to run at a time, with one thread each if several (default: number of cores)",
    )
    every.set_defaults(handler=_run_all, parser=every)
    evaluate = commands.add_parser("evaluate", help="measure again with the weights that a run left")
    names = evaluate.add_subparsers(required=True, metavar="NAME")
    for name, experiment in EXPERIMENTS.items():
        one = names.add_parser(name, help=experiment.title)
        _add_settings(one, experiment.evaluation_settings)
        one.set_defaults(handler=_evaluate, name=name)
    every = names.add_parser("all", help="everything again whose weights come with the project, as records of the paper preset")
    every.add_argument("--out", required=True, help="folder for the records")
    every.set_defaults(handler=_evaluate_all, parser=every)
    redraw = commands.add_parser("redraw", help="draw a run's figures again from its record and weights, without training")
    names = redraw.add_subparsers(required=True, metavar="NAME")
    for name, experiment in EXPERIMENTS.items():
        if experiment.redraw is not None:
            one = names.add_parser(name, help=experiment.title)
            _add_settings(one, experiment.settings)
            one.set_defaults(handler=_redraw, name=name)
    timings = commands.add_parser("bench", help="timings and memory of the bridge, beside other libraries where installed")
    _add_out(timings, "folder for the record (default: results)")
    timings.set_defaults(handler=_bench)
    make_report = commands.add_parser("report", help="write OUT/README.md from the records in OUT/runs")
    _add_out(make_report, "folder of the records (default: results)")
    make_report.set_defaults(handler=_report)
    return parser


def _add_settings(parser, settings):
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
    _add_out(parser, "folder for records, figures and weights (default: results)")


def _add_out(parser, help):
    parser.add_argument("--out", default=Places.out, help=help)


def _add_checkpoints(parser):
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


def _list(arguments):
    rows = [
        [
            experiment.name,
            experiment.source,
            experiment.shows,
            *(
                records.how_long(experiment.name, Settings(preset=preset)) or experiment.takes.get(preset, "")
                for preset in ("quick", "paper")
            ),
        ]
        for experiment in EXPERIMENTS.values()
    ]
    headers = ["name", "of the paper", "shows", "quick", "paper"]
    print(tabulate(rows, headers, maxcolwidths=[None, None, 52, None, None], disable_numparse=True))
    print("\nquick, paper: about how long each preset takes on two cores. `python -m experiments run NAME --help` tells more.")


def _run(arguments):
    experiment, begun = EXPERIMENTS[arguments.name], time.time()
    record = _result(arguments, experiment.settings, experiment.run)
    if record is None:
        return 1
    settings, places = settings_and_places(arguments, experiment.settings)
    path = places.record(experiment.name, settings.stem)
    print(tabulate(sorted(record["metrics"].items()), headers=["metric", "measured"], floatfmt=".4g"))
    print(f"\n{verdict_tables.lines_of(registry.judge_all(places.out), path, record)}\n")
    print(f"record: {path}")
    for figure in sorted(places.figure(experiment.name, "").parent.glob(f"{experiment.name}-*")):
        if figure.stat().st_mtime >= begun:
            print(f"figure: {figure}")


def _evaluate(arguments):
    experiment = EXPERIMENTS[arguments.name]
    if experiment.evaluate is None:
        able = ", ".join(name for name, other in EXPERIMENTS.items() if other.evaluate)
        print(f"{arguments.name}: keeps no weights to evaluate; {able} does", file=sys.stderr)
        return 1
    metrics = _result(arguments, experiment.evaluation_settings, experiment.evaluate)
    if metrics is None:
        return 1
    print(tabulate(metrics.items(), headers=["metric", "measured"], floatfmt=".5g"))


def _redraw(arguments):
    experiment = EXPERIMENTS[arguments.name]
    paths = _result(arguments, experiment.settings, experiment.redraw)
    if paths is None:
        return 1
    for path in paths:
        print(f"figure: {path}")


def _evaluate_all(arguments):
    if Path(arguments.out).resolve() == records.RESULTS.resolve():
        arguments.parser.error("--out must be another folder than results, whose records are of whole runs")
    for path in measure_again(EXPERIMENTS.values(), arguments.out):
        print(f"record: {path}")


def _result(arguments, settings, measure):
    """What measure(settings, places) returns, or None where it raises an error of ours, which is printed in a line."""
    try:
        return measure(*settings_and_places(arguments, settings))
    except (ValueError, TypeError, RuntimeError, FloatingPointError, FileNotFoundError) as error:
        # Errors of ours name the argument and what would be right; anything else deserves its traceback.
        if not type(error).__module__.startswith(("builtins", "solvers_bridge", "original_repro")):
            raise
        print(f"{arguments.name}: {type(error).__name__}: {error}", file=sys.stderr)
        return None


def _run_all(arguments):
    if arguments.workers < 1:
        arguments.parser.error(f"--workers must be a whole number from 1, got {arguments.workers}")
    settings, places = settings_and_places(arguments, Settings)
    options = [
        "--preset",
        settings.preset,
        "--seed",
        str(settings.seed),
        "--out",
        str(places.out),
        "--checkpoints",
        str(places.checkpoints),
        *(["--fresh"] if places.fresh else []),
    ]
    chosen = {name: experiment for name, experiment in EXPERIMENTS.items() if experiment.in_all}
    return run_all(chosen, options, arguments.workers, places.checkpoints / "logs")


def _bench(arguments):
    places = Places(out=arguments.out)
    bench.run(Settings(), places)
    print(f"\nrecord: {places.record(bench.NAME, Settings().stem)}")


def _report(arguments):
    for path in write.write(arguments.out, REPORTED):
        print(f"report: {path}")
