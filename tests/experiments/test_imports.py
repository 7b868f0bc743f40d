"""Imports go one way: papers, comparison and fidelity, then report, then harness; no circle, not even inside functions."""

import ast
from graphlib import TopologicalSorter

import pytest

from experiments.harness.records import REPOSITORY

FOLDER = REPOSITORY / "experiments"
MODULES = {
    ".".join(path.relative_to(REPOSITORY).with_suffix("").parts).removesuffix(".__init__"): path for path in FOLDER.rglob("*.py")
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
    """Modules of this package that a module imports anywhere."""
    path, found = MODULES[name], set()
    package = name.split(".") if path.name == "__init__.py" else name.split(".")[:-1]
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.ImportFrom) and node.level:
            base = package[: len(package) - node.level + 1] + (node.module.split(".") if node.module else [])
            for alias in node.names:
                module = ".".join([*base, alias.name])
                found.add(module if module in MODULES else ".".join(base))
    return found - {name}


def room(module):
    parts = module.split(".")
    return parts[1] if len(parts) > 1 and parts[1] in ROOMS else None


@pytest.mark.parametrize("name", [name for name in MODULES if room(name)])
def test_a_room_imports_only_those_below_it(name):
    rooms = {room(module) for module in imported(name) if module != "experiments"}
    assert rooms <= {room(name)} | ROOMS[room(name)]


def test_there_is_no_circle():
    TopologicalSorter({name: imported(name) for name in MODULES}).prepare()
