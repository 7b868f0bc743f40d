"""The command line: list | run | sweep | evaluate | redraw NAME | bench | check | report. Their options are in options.py."""

import argparse
import difflib
import os
import shlex
import sys
import time
from pathlib import Path

from tabulate import tabulate

from original_repro.folders import check_file, check_folder

from . import Places, Settings, options
from .augmented import (
    figure3_swap,
    figure5_losses,
    figure6_features,
    figure9_slice,
    figure13_overfitting,
    parameters,
    propositions,
    table1_images,
    weight_decay,
)
from .comparison import bench, modern_comparison
from .fidelity import integrator_fidelity
from .harness import records
from .harness.alone import alone
from .harness.kept import measure_again
from .harness.run_all import run_all
from .harness.sweep import plan, sweep, values_of
from .harness.workers import available_cores, check_count
from .neural_ode import (
    figure3,
    figure3c_reverse,
    figure4_flows,
    figure5_flows,
    figure7_poisson,
    figure10_observations,
    figures8to10_latent_ode,
    flow_scores,
    gradient_warnings,
    harder_inputs,
    inference_speed,
    latent_checks,
    latent_encoders,
    latent_restarts,
    reverse_instability,
    section4_checks,
    solver_choice,
    table1_depth,
    table1_mnist,
    table2_latent_ode,
    table2_tuning,
)
from .report import check, registry, verdict_tables, write

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
        latent_encoders,
        latent_restarts,
        reverse_instability,
        gradient_warnings,
        figure3_swap,
        figure5_losses,
        figure6_features,
        figure9_slice,
        propositions,
        weight_decay,
        table1_images,
        parameters,
        figure13_overfitting,
        bench,
        modern_comparison,
        integrator_fidelity,
    )
)
# `bench` is a command of its own.
EXPERIMENTS = {experiment.name: experiment for experiment in REPORTED if experiment is not bench.EXPERIMENT}
OURS = ("builtins", "solvers_bridge", "original_repro", "experiments")
BAD_RECORDS = 3  # the exit status of a command that left out files among the records that are none


def main(argv=None):
    """Run the command in argv (default: sys.argv); returns the exit status."""
    # TensorFlow's default on processors with AVX-512 only; without them its convolutions gain from it no less.
    os.environ.setdefault("TF_ENABLE_ONEDNN_OPTS", "1")
    words = sys.argv[1:] if argv is None else argv
    parser = _parser()
    if words[:1] in (["run"], ["sweep"], ["evaluate"], ["redraw"]) and len(words) > 1 and not words[1].startswith("-"):
        _check_name(parser, words[1], [*EXPERIMENTS, "all"])
    arguments = parser.parse_args(words)
    try:
        return arguments.handler(arguments) or 0
    except (ValueError, TypeError, RuntimeError, FloatingPointError, OSError) as error:
        # Errors of ours name the argument and what would be right, the system's a file; anything else deserves its traceback.
        # So does a reader of our output that has gone, with which __main__ deals.
        if isinstance(error, BrokenPipeError) or not type(error).__module__.startswith(OURS):
            raise
        print(f"{getattr(arguments, 'name', words[0])}: {type(error).__name__}: {error}", file=sys.stderr)
        return 1


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
        options.add_settings(one, experiment.settings)
        options.add_checkpoints(one)
        one.set_defaults(handler=_run, name=name)
    every = names.add_parser(
        "all", help="every experiment but long ones and those of the paper preset's weights, in its variants where it has them"
    )
    options.add_settings(every, Settings)
    options.add_checkpoints(every)
    every.add_argument(
        "--workers",
        type=int,
        default=available_cores(),
        metavar="N",
        help="how many to run at a time, with one thread each if several (default: number of cores)",
    )
    every.set_defaults(handler=_run_all, parser=every)
    sweeps = commands.add_parser(
        "sweep", help="run an experiment with every combination of options, as lists: --seeds 0-19 --model odenet,resnet"
    )
    names = sweeps.add_subparsers(required=True, metavar="NAME")
    for name, experiment in EXPERIMENTS.items():
        one = names.add_parser(name, help=experiment.title)
        options.add_lists(one, experiment.settings)
        options.add_checkpoints(one)
        one.set_defaults(handler=_sweep, name=name, parser=one)
    evaluate = commands.add_parser("evaluate", help="measure again with the weights that a run left")
    names = evaluate.add_subparsers(required=True, metavar="NAME")
    for name, experiment in EXPERIMENTS.items():
        one = names.add_parser(name, help=experiment.title)
        options.add_settings(one, experiment.evaluation_settings)
        one.set_defaults(handler=_evaluate, name=name)
    every = names.add_parser("all", help="everything again whose weights come with the project, as records of the paper preset")
    every.add_argument("--out", required=True, help="folder for the records")
    every.set_defaults(handler=_evaluate_all, parser=every)
    redraw = commands.add_parser("redraw", help="draw a run's figures again from its record and weights, without training")
    names = redraw.add_subparsers(required=True, metavar="NAME")
    for name, experiment in EXPERIMENTS.items():
        if experiment.redraw is not None:
            one = names.add_parser(name, help=experiment.title)
            options.add_settings(one, experiment.settings)
            one.set_defaults(handler=_redraw, name=name)
    timings = commands.add_parser("bench", help="timings and memory of the bridge, beside other libraries where installed")
    options.add_out(timings, "folder for the record (default: results)")
    timings.set_defaults(handler=_bench)
    checks = commands.add_parser("check", help="check records in seconds: names, commits, presets, digests, figures, verdicts")
    options.add_out(checks, "folder of the records (default: results)")
    checks.set_defaults(handler=_check)
    make_report = commands.add_parser("report", help="write OUT/README.md from the records in OUT/runs")
    options.add_out(make_report, "folder of the records (default: results)")
    make_report.set_defaults(handler=_report)
    return parser


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
    print(
        "\nquick, paper: about how long each preset takes, or took where there is a record, on one core or two. "
        "`python -m experiments run NAME --help` tells more."
    )


def _run(arguments):
    experiment, begun = EXPERIMENTS[arguments.name], time.time()
    settings, places = options.settings_and_places(arguments, experiment.settings)
    with alone(experiment, settings, places):
        record = experiment.run(settings, places)
    path = places.record(experiment.name, settings.stem)
    print(tabulate(sorted(record["metrics"].items()), headers=["metric", "measured"], floatfmt=".4g"))
    print(f"\n{verdict_tables.lines_of(registry.judge_all(places.out), path, record)}\n")
    print(f"record: {path}")
    for figure in sorted(places.figure(experiment.name, "").parent.glob(f"{experiment.name}-*")):
        if figure.stat().st_mtime >= begun:
            print(f"figure: {figure}")
    return _tell_bad_records(places.out)


def _tell_bad_records(out, further=()):
    """Name what is no record among those that were read; returns the exit status. further: sentences on what else is wrong."""
    bad = [*records.unreadable(out), *further]
    for sentence in bad:
        print(f"left out: {sentence}", file=sys.stderr)
    return BAD_RECORDS if bad else 0


def _evaluate(arguments):
    experiment = EXPERIMENTS[arguments.name]
    if experiment.evaluate is None:
        able = ", ".join(name for name, other in EXPERIMENTS.items() if other.evaluate)
        print(f"{arguments.name}: keeps no weights to evaluate; {able} does", file=sys.stderr)
        return 1
    metrics = experiment.evaluate(*options.settings_and_places(arguments, experiment.evaluation_settings))
    print(tabulate(metrics.items(), headers=["metric", "measured"], floatfmt=".5g"))


def _redraw(arguments):
    experiment = EXPERIMENTS[arguments.name]
    settings, places = options.settings_and_places(arguments, experiment.settings)
    check_file(places.figure(experiment.name, settings.stem), f"--out {places.out}")
    for path in experiment.redraw(settings, places):
        print(f"figure: {path}")


def _evaluate_all(arguments):
    if Path(arguments.out).resolve() == records.RESULTS.resolve():
        arguments.parser.error("--out must be another folder than results, whose records are of whole runs")
    check_folder(Path(arguments.out) / "runs", f"--out {arguments.out}")
    for path in measure_again(EXPERIMENTS.values(), arguments.out, available_cores()):
        print(f"record: {path}")


def _run_all(arguments):
    if arguments.workers < 1:
        arguments.parser.error(f"--workers must be a whole number from 1, got {arguments.workers}")
    settings, places = options.settings_and_places(arguments, Settings)
    logs = places.checkpoints / "logs"
    check_folder(places.out, f"--out {places.out}")
    check_folder(logs, f"--checkpoints {places.checkpoints}")
    words = [
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
    return run_all(chosen, words, arguments.workers, logs)


def _sweep(arguments):
    experiment, given = EXPERIMENTS[arguments.name], vars(arguments)
    try:
        lists = {
            option.name: values_of(option, given[option.name])
            for option in experiment.settings.options()
            if given.get(option.name) is not None and option.name != "workers"
        }
        every = plan(experiment.settings, lists)
        check_count("workers", arguments.workers)
    except ValueError as error:
        arguments.parser.error(str(error))
    places = Places(out=arguments.out, checkpoints=arguments.checkpoints, fresh=arguments.fresh)
    check_folder(places.out, f"--out {places.out}")
    check_folder(places.checkpoints / "logs", f"--checkpoints {places.checkpoints}")
    try:
        return sweep(experiment, every, places, main, arguments.workers, arguments.scheduler)
    except ImportError as error:
        arguments.parser.error(str(error))


def _bench(arguments):
    places = Places(out=arguments.out)
    with alone(bench.EXPERIMENT, Settings(), places):
        bench.run(Settings(), places)
    print(f"\nrecord: {places.record(bench.NAME, Settings().stem)}")


def _report(arguments):
    if not (Path(arguments.out) / "runs").is_dir():
        raise FileNotFoundError(f"--out {arguments.out} has no folder runs with records to report on")
    for path in ("README.md", "report.html"):
        check_file(Path(arguments.out) / path, f"--out {arguments.out}")
    for path in write.write(arguments.out, REPORTED):
        print(f"report: {path}")
    return _tell_bad_records(arguments.out, write.troubles(arguments.out, REPORTED))


def _check(arguments):
    out = records.kept(Path(arguments.out) / "runs").parent
    if not (out / "runs").is_dir():
        raise FileNotFoundError(f"--out {out} has no folder runs with records to check")
    found = check.check(out, {one.name: one for one in REPORTED}, settings_of)
    for fault in found.faults:
        print(fault)
    for what, paths in found.untold.items():
        print(f"not told by {len(paths)} of {found.checked} records: {what}")
    print(f"{found.checked} records checked, {len(found.faults)} faults")
    return 1 if found.faults else 0


def settings_of(command):
    """(experiment's name, its Settings) of a record's command. Raises ValueError where it is no command that writes a record."""
    words = shlex.split(command)
    if words[:3] != ["python", "-m", "experiments"] or words[3:4] not in (["run"], ["evaluate"], ["bench"]):
        raise ValueError(f"python -m experiments run, evaluate or bench is to begin {command!r}")
    if words[3] == "bench":
        return bench.NAME, Settings()
    if words[4:5] == ["all"] or words[4] not in EXPERIMENTS:
        raise ValueError(f"no experiment is called {words[4]!r}")
    experiment = EXPERIMENTS[words[4]]
    settings = experiment.settings if words[3] == "run" else experiment.evaluation_settings
    return words[4], options.settings_of(words[5:], settings)
