"""All points of one problem: each library's methods at each tolerance, checked, judged, and timed in turn, twice."""

import contextlib
import tempfile
from pathlib import Path

import numpy as np

from ...harness import environments
from .client import Client, Ended, python_of
from .library import write_problem
from .names import LIBRARIES
from .operations import of_numpy
from .outcomes import LATE, NOT_TRIED, RAISED, RIGHT, judge
from .problems import PROBLEMS
from .references import error, reference

SAME_DYNAMICS = 1e-6
CHECKED_POINTS = 5


class DynamicsDiffer(RuntimeError):
    """A library does not solve the problem that the others do."""


@contextlib.contextmanager
def clients(make):
    """For a `with` statement: ({name: Client}, {name: why there is none}); make: environments are made where there is none."""
    found, gaps = {}, {}
    for name in LIBRARIES:
        try:
            found[name] = Client(name, python_of(name, make))
        except environments.Gap as gap:
            gaps[name] = str(gap)
    try:
        yield found, gaps
    finally:
        for client in found.values():
            client.close()


def measure(found, limits, name):
    """(rows, the reference's accuracy) of a problem: a row for each of its points and each measurement of memory.

    found: {name: Client}. limits: "tolerances", "seconds" and "compile_seconds" (of a first call), "rounds", "slow" (seconds from
    which a turn is taken once), "memory" ({problem: tolerance}). Raises DynamicsDiffer.
    """
    about = PROBLEMS[name]
    problem = about.make()
    right = reference(problem, about.kind, about.atol)
    problem = problem._replace(states_bar=problem.states_bar / right.scale)
    with tempfile.TemporaryDirectory() as folder:
        work = _Work(found, limits, name, about, problem, right, Path(folder))
        rows = work.points()
        rows += work.memory(rows)
    return rows, {"states": right.second_states, "gradient": right.second_gradient, "gradient_scale": right.scale}


class _Work:
    def __init__(self, found, limits, name, about, problem, right, folder):
        self.clients, self.limits, self.name, self.about, self.right, self.folder = found, limits, name, about, right, folder
        self.answer, self.opened, self.ready = str(folder / "answer.npz"), {}, {}
        self.path = str(folder / "problem.npz")
        write_problem(self.path, problem)
        self.check = self._points_to_check(problem)

    def points(self):
        """Rows of all points, first answers first, then the turns of both passes."""
        rows = []
        for tolerance in self.limits["tolerances"]:
            of_tolerance = [self._point(name, method, tolerance, rows) for name, method in self._methods()]
            self._take_turns(of_tolerance, "first_pass")
            rows += of_tolerance
        for tolerance in self.limits["tolerances"]:
            self._take_turns([row for row in rows if row["rtol"] == tolerance], "second_pass")
        return rows

    def memory(self, rows):
        """Peak memory of a gradient (of a forward solve, where there are none) in a fresh process, of those that gave one."""
        tolerance, measured = self.limits["memory"].get(self.name), []
        for row in rows:
            if row["rtol"] != tolerance or row["outcome"] != RIGHT:
                continue
            fresh = Client(row["library"], self.clients[row["library"]].python)
            with contextlib.closing(fresh), contextlib.suppress(Ended):
                fresh.ask("open", problem=self.path)
                before = fresh.ask("peak")["peak_mib"]
                if "seconds" in fresh.ask("first", self._seconds(fresh), **self._order(row["method"], tolerance)):
                    peak = fresh.ask("peak")["peak_mib"]
                    about = {name: row[name] for name in ("problem", "library", "method", "rtol")}
                    measured.append({"part": "memory", **about, "before_mib": before, "peak_mib": peak})
        return measured

    def _methods(self):
        return [
            (name, method)
            for name, client in self.clients.items()
            for method, kind in client.about()["methods"].items()
            if kind in ("any", self.about.kind)
        ]

    def _order(self, method, tolerance):
        return {"method": method, "rtol": tolerance, "atol": tolerance * self.about.atol, "answer": self.answer}

    def _seconds(self, client):
        return self.limits["compile_seconds" if client.about()["compiled"] else "seconds"]

    def _point(self, name, method, tolerance, before):
        row = {"part": "point", "problem": self.name, "library": name, "method": method, "rtol": tolerance}
        late = any((one["library"], one["method"], one["outcome"]) == (name, method, LATE) for one in before)
        if late:
            return {**row, "outcome": NOT_TRIED, "reason": "did not finish at a looser tolerance"}
        client = self.clients[name]
        try:
            found = self._open(client) or client.ask("first", self._seconds(client), **self._order(method, tolerance))
        except Ended as ended:
            late = "no answer" in str(ended)
            return {**row, "outcome": LATE if late else RAISED, "reason": str(ended)}
        if "late" in found:
            if client.about()["compiled"]:
                # What was begun goes on behind Python's back, as long as it likes, and the next questions would wait for it.
                client.close()
            return {**row, "outcome": LATE, "reason": f"not done after {self._seconds(client):g} s of processor time"}
        if "raised" in found:
            return {**row, "outcome": RAISED, "reason": found["raised"]}
        self.ready[name, method, tolerance] = client.number
        counts = {f"nfe_{way}": found["counts"].get(way) for way in ("forward", "backward")}
        return {**row, **self._judged(found), **counts, "first_seconds": found["seconds"], "warnings": found["warnings"]}

    def _open_again(self, row):
        """A point's solver, where its library's process is not the one that answered: solved again, and not timed."""
        place, client = (row["library"], row["method"], row["rtol"]), self.clients[row["library"]]
        if place in self.ready and (client.process is None or self.ready[place] != client.number):
            with contextlib.suppress(Ended):
                self._open(client)
                if "seconds" in client.ask("first", self._seconds(client), **self._order(row["method"], row["rtol"])):
                    self.ready[place] = client.number

    def _open(self, client):
        """Open the problem in a process that has not, and check its dynamics; an answer where it cannot be opened."""
        number, answer = self.opened.get(client.name, (None, None))
        if client.process is not None and number == client.number:
            return answer
        found = client.ask("open", problem=self.path)
        answer = found if "raised" in found else None
        if answer is None:
            self._check_dynamics(client)
        self.opened[client.name] = client.number, answer
        return answer

    def _points_to_check(self, problem):
        """dy/dt by NumPy at random points around the solution; writes the points."""
        rng, states = np.random.default_rng(0), self.right.states
        y = np.stack([states[rng.integers(len(states))] for _ in range(CHECKED_POINTS)])
        y = y + 0.01 * np.abs(states).max() * rng.normal(size=y.shape)
        t = problem.t[0] + (problem.t[-1] - problem.t[0]) * rng.uniform(size=CHECKED_POINTS)  # t may fall
        np.savez(self.folder / "points.npz", t=t, y=y)
        ops = of_numpy(np)
        return np.stack([problem.f(ops, one, state, *problem.params) for one, state in zip(t, y, strict=True)])

    def _check_dynamics(self, client):
        client.ask("derivative", points=str(self.folder / "points.npz"), answer=self.answer)
        with np.load(self.answer) as file:
            check_dynamics(client.name, self.name, file["dy"], self.check)

    def _judged(self, found):
        with np.load(self.answer) as file:
            states = error([file["states"]], [self.right.states])
            gradient = None
            if "y0_bar" in file:
                bars = [self.right.y0_bar, *self.right.params_bar]
                names = ["y0_bar", *(f"param{number}" for number in range(len(bars) - 1))]
                gradient = error([file[name] for name in names], bars)
        outcome = judge(states, gradient, found["warnings"])
        return {"solution_error": states, "gradient_error": gradient, "outcome": outcome}

    def _take_turns(self, rows, name):
        """Time the points that were answered, round by round, into row[name]: medians by function, of wall and processor time."""
        turns = {}
        for row in rows:
            self._open_again(row)
        for number in range(self.limits["rounds"]):
            for place, row in enumerate(rows):
                client = self.clients[row["library"]]
                began = self.ready.get((row["library"], row["method"], row["rtol"]))
                is_open = client.process is not None and began == client.number
                if is_open and not (number and turns[place][0]["cpu"] > self.limits["slow"]):
                    with contextlib.suppress(Ended):
                        found = client.ask("time", method=row["method"], rtol=row["rtol"])
                        walls, cpus = zip(*found.values(), strict=True)
                        turns.setdefault(place, []).append({"cpu": sum(cpus), **found, "wall": sum(walls)})
        for place, taken in turns.items():
            kept = [way for way in ("forward", "gradient") if way in taken[0]]
            rows[place][name] = {
                way: dict(zip(("wall", "cpu"), np.median([turn[way] for turn in taken], 0).tolist(), strict=True)) for way in kept
            }


def check_dynamics(library, problem, dy, right, most=SAME_DYNAMICS):
    """Raise DynamicsDiffer where a library's dy/dt differs from what is right by more than `most` of the greatest."""
    difference = error([dy], [right])
    if not difference <= most:
        raise DynamicsDiffer(f"{library} solves another problem than {problem}: its dy/dt differs by {difference:.1e}")
