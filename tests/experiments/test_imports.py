"""Imports go one way: experiments, original_repro, solvers_bridge; in experiments papers, comparison and fidelity, then report, then
harness; no circle, not even inside functions."""

import ast
from graphlib import TopologicalSorter

import pytest

from experiments.harness.records import REPOSITORY

PACKAGES = ("experiments", "original_repro", "solvers_bridge")
MODULES = {
    ".".join(path.relative_to(REPOSITORY).with_suffix("").parts).removesuffix(".__init__"): path
    for package in PACKAGES
    for path in (REPOSITORY / package).rglob("*.py")
}
# What each room may import beside itself and the package's protocol.
ROOMS = {
    "neural_ode": {"report", "harness"},
    "augmented": {"neural_ode", "report", "harness"},
    "comparison": {"neural_ode", "augmented", "report", "harness"},
    "fidelity": {"report", "harness"},
    "report": {"harness"},
    "harness": set(),
}


def imported(name):
    """Modules of ours that a module imports anywhere."""
    path, found = MODULES[name], set()
    package = name.split(".") if path.name == "__init__.py" else name.split(".")[:-1]
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.ImportFrom):
            outer = package[: len(package) - node.level + 1] if node.level else []
            base = ".".join([*outer, *(node.module.split(".") if node.module else [])])
            found |= {f"{base}.{alias.name}" if f"{base}.{alias.name}" in MODULES else base for alias in node.names}
        elif isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
    return (found & MODULES.keys()) - {name}


def room(module):
    parts = module.split(".")
    return parts[1] if parts[0] == "experiments" and len(parts) > 1 and parts[1] in ROOMS else None


@pytest.mark.parametrize("name", [name for name in MODULES if room(name)])
def test_a_room_imports_only_those_below_it(name):
    rooms = {room(module) for module in imported(name) if module.startswith("experiments.")}
    assert rooms <= {room(name)} | ROOMS[room(name)]


@pytest.mark.parametrize("package", PACKAGES)
def test_a_package_imports_only_those_below_it(package):
    of_package = [name for name in MODULES if name.split(".")[0] == package]
    packages = {module.split(".")[0] for name in of_package for module in imported(name)}
    assert of_package and packages <= set(PACKAGES[PACKAGES.index(package) :])


def test_there_is_no_circle():
    TopologicalSorter({name: imported(name) for name in MODULES}).prepare()
