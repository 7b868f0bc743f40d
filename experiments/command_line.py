"""The command line: list | run NAME | evaluate NAME | bench | report."""

import argparse
import os
import shutil
import sys
from pathlib import Path

from tabulate import tabulate

from .fidelity import integrator_fidelity
from .harness.run_all import run_all
from .harness.workers import available_cores
from .neural_ode import (
    figure4_flows,
    figure5_flows,
    figure7_poisson,
    figures8to10_latent_ode,
    latent_restarts,
    table1_depth,
    table1_mnist,
    table2_latent_ode,
)
from .neural_ode.figure3 import laboratory as figure3_mnist
from .report import write as report

EXPERIMENTS = {
    module.NAME: module
    for module in (
        table1_mnist,
        table1_depth,
        figure3_mnist,
        figure4_flows,
        figure5_flows,
        table2_latent_ode,
        figures8to10_latent_ode,
        figure7_poisson,
        latent_restarts,
        integrator_fidelity,
    )
}


def main(argv=None):
    """Run the command in argv (default: sys.argv); returns the exit status."""
    # TensorFlow's notes about processors and missing GPUs would bury the progress lines.
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    # TensorFlow's default on processors with AVX-512 only; without them its convolutions gain from it no less.
    os.environ.setdefault("TF_ENABLE_ONEDNN_OPTS", "1")
    arguments = _parser().parse_args(argv)
    return arguments.handler(arguments) or 0


def _parser():
    parser = argparse.ArgumentParser(
        prog="python -m experiments", description="Tables and figures of Neural ODEs (2018), measured."
    )
    commands = parser.add_subparsers(required=True, metavar="COMMAND")
    commands.add_parser("list", help="the experiments").set_defaults(handler=_list)
    run = commands.add_parser("run", help="run an experiment, or all of them")
    names = run.add_subparsers(required=True, metavar="NAME")
    for name, module in EXPERIMENTS.items():
        one = names.add_parser(
            name, help=module.TITLE, description=module.__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
        )
        _add_common_arguments(one)
        module.add_arguments(one)
        one.set_defaults(handler=_run, name=name, parser=one)
    every = names.add_parser("all", help="every experiment with its own defaults, and in its variants where it has them")
    _add_common_arguments(every)
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
    for name, module in EXPERIMENTS.items():
        one = names.add_parser(name, help=module.TITLE)
        _add_preset_arguments(one)
        if hasattr(module, "evaluate"):
            module.add_evaluation_arguments(one)
        one.set_defaults(handler=_evaluate, name=name, parser=one)
    bench = commands.add_parser("bench", help="timings and memory of the bridge, beside other libraries where installed")
    bench.add_argument("--out", type=Path, default=Path("results"), help="folder for the record (default: results)")
    bench.set_defaults(handler=_bench)
    make_report = commands.add_parser("report", help="write OUT/README.md from the records in OUT/runs")
    make_report.add_argument("--out", type=Path, default=Path("results"), help="folder of the records (default: results)")
    make_report.set_defaults(handler=_report)
    return parser


def _add_common_arguments(parser):
    _add_preset_arguments(parser)
    parser.add_argument("--checkpoints", type=Path, default=Path("checkpoints"), help="folder from which a stopped run goes on")
    parser.add_argument("--fresh", action="store_true", help="begin anew, even if there is a checkpoint")


def _add_preset_arguments(parser):
    parser.add_argument(
        "--preset", choices=("quick", "paper"), default="quick", help="quick (default): minutes; paper: the paper's setting"
    )
    parser.add_argument("--seed", type=_seed, default=0, help="a whole number from 0 (default: 0)")
    parser.add_argument(
        "--out", type=Path, default=Path("results"), help="folder for records, figures and weights (default: results)"
    )


COMMON_ARGUMENTS = ("preset", "seed", "out", "checkpoints", "fresh", "handler", "name", "parser")


def _seed(text):
    if not text.isdigit():
        raise argparse.ArgumentTypeError(f"must be a whole number from 0, got {text!r}")
    return int(text)


def _list(arguments):
    for name, module in EXPERIMENTS.items():
        print(f"{name}\n    {module.TITLE}")


def _run(arguments):
    module = EXPERIMENTS[arguments.name]
    stem = run_name(arguments, arguments.parser, module.LOCATION_ARGUMENTS)
    if arguments.fresh:
        (arguments.checkpoints / arguments.name / f"{stem}.npz").unlink(missing_ok=True)
        shutil.rmtree(arguments.checkpoints / arguments.name / stem, ignore_errors=True)  # of an experiment of many fits
    path = _result(arguments.name, lambda: module.run(arguments, stem))
    if path is None:
        return 1
    print(f"record: {path}")
    print(report.summary(path))


def _evaluate(arguments):
    module = EXPERIMENTS[arguments.name]
    if not hasattr(module, "evaluate"):
        able = ", ".join(name for name, other in EXPERIMENTS.items() if hasattr(other, "evaluate"))
        print(f"{arguments.name}: keeps no weights to evaluate; {able} does", file=sys.stderr)
        return 1
    stem = run_name(arguments, arguments.parser, module.LOCATION_ARGUMENTS + module.EVALUATION_ARGUMENTS)
    metrics = _result(arguments.name, lambda: module.evaluate(arguments, stem))
    if metrics is None:
        return 1
    print(tabulate(metrics.items(), headers=["metric", "measured"], floatfmt=".5g"))


def _result(name, experiment):
    """What experiment() returns, or None where it raises an error of ours, which is printed in a line."""
    try:
        return experiment()
    except (ValueError, TypeError, RuntimeError, FloatingPointError, FileNotFoundError) as error:
        # Errors of ours name the argument and what would be right; anything else deserves its traceback.
        if not type(error).__module__.startswith(("builtins", "solvers_bridge", "original_repro")):
            raise
        print(f"{name}: {type(error).__name__}: {error}", file=sys.stderr)
        return None


def _run_all(arguments):
    if arguments.workers < 1:
        arguments.parser.error(f"--workers must be a whole number from 1, got {arguments.workers}")
    options = [
        "--preset",
        arguments.preset,
        "--seed",
        str(arguments.seed),
        "--out",
        str(arguments.out),
        "--checkpoints",
        str(arguments.checkpoints),
        *(["--fresh"] if arguments.fresh else []),
    ]
    return run_all(EXPERIMENTS, options, arguments.workers, arguments.checkpoints / "logs")


def run_name(arguments, parser, location_arguments):
    """<preset>-seed<N>, and every option that differs from its default, so that no record overwrites another's."""
    chosen = [
        f"{name}={value}"
        for name, value in sorted(vars(arguments).items())
        if name not in COMMON_ARGUMENTS + location_arguments and value != parser.get_default(name)
    ]
    return "-".join([arguments.preset, f"seed{arguments.seed}", *(text.replace("/", "_") for text in chosen)])


def _bench(arguments):
    from .comparison import bench

    bench.run(arguments.out)


def _report(arguments):
    for path in report.write(arguments.out):
        print(f"report: {path}")
