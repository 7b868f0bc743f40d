"""What Augmented Neural ODEs proves of flows, as numerical checks: propositions 1 to 3 of Dupont, Doucet and Teh (2019).

1. A flow of the line keeps the order of points, so it cannot swap -1 and 1 (`smallest_gap`, `swap_errors`).
2. No flow of R^d followed by a linear map is g(x), a ball to -1 and a shell around it to 1. For a flow keeps the image of the
   origin inside that of each sphere around it (`winding_number` in the plane), and a linear map of what lies inside takes its
   least value on the boundary: so on every sphere the answer is somewhere below that at the origin (`tunnel_margins`), however
   well the training points are fitted. `wrong_answers` counts on dense samples.
3. A flow is a homeomorphism: solving back undoes it (`reconstruction_error`), its derivative has the determinant
   exp(integral of the trace) > 0 (`determinants`), and points do not collide (`smallest_stretch`).

They hold of the exact flow. A solver at a loose tolerance may break each of them, hence `tolerance_ladder`.
For an augmented model the flow is that of d + p dimensions; 1 and 2 then say nothing of the d that the data have.
"""

import copy
import math

import numpy as np
from scipy.spatial.distance import pdist

from original_repro.flows import ContinuousFlow, with_trace
from solvers_bridge import SolverError, TensorFlowDynamics, odeint, record_solves

TIGHT = 1e-9
LADDER = (1e-3, 1e-4, 1e-5, 1e-6, 1e-7, 1e-8, 1e-9)
MOST_STEPS = 20_000


class Flow:
    """The map phi of points z (points, D) at t = 0 to t = 1 along a field, as `NeuralOde` has it, in float64.

    Points are solved `at_once` together, so that one graph serves any number of them; SolverError where a solve does not end.
    compiler : of the graphs, as of a TensorFlowDynamics; "auto" pays where they serve thousands of evaluations of one shape.
    """

    def __init__(self, field, params, *, tolerance=TIGHT, method="dopri5", at_once=500, compiler="graph"):
        self.params, self.at_once = params, at_once
        self.solver = {"method": method, "rtol": tolerance, "atol": tolerance, "options": {"max_num_steps": MOST_STEPS}}
        self.dynamics = TensorFlowDynamics(field, "float64", compiler=compiler)
        self.with_log_det = ContinuousFlow(with_trace(field), dtype="float64", compiler=compiler, **self.solver)

    def but(self, *, params=None, tolerance=None):
        """This flow with other parameters or at another tolerance, by the same compiled graphs."""
        other = copy.copy(self)
        other.params = self.params if params is None else params
        if tolerance is not None:
            other.solver = {**self.solver, "rtol": tolerance, "atol": tolerance}
            other.with_log_det = copy.copy(self.with_log_det)
            other.with_log_det.solver = other.solver
        return other

    def __call__(self, z, together=1):
        """phi(z), float64 (points, D); of each `together` points that follow each other none is solved apart from the rest."""
        return self._in_parts(lambda part: odeint(self.dynamics, part, (0.0, 1.0), self.params, **self.solver)[-1], z, together)

    def inverse(self, z):
        """The points that the flow takes to z (points, D), by solving from t = 1 to t = 0."""
        return self._in_parts(lambda part: odeint(self.dynamics, part, (1.0, 0.0), self.params, **self.solver)[-1], z)

    def log_det(self, z):
        """Integral of tr df/dz along the ways of z (points, D): log of the determinant of the derivative of phi, (points,)."""
        return self._in_parts(lambda part: -self.with_log_det.solve(self.params, part, (0.0, 1.0))[1][-1], z)

    def _in_parts(self, solve, z, together=1):
        z = np.asarray(z, np.float64)
        if z.ndim != 2 or 0 in z.shape:
            raise ValueError(f"points must have shape (points, D), got {z.shape}")
        size = min(max(self.at_once // together, 1) * together, len(z))
        parts = []
        for start in range(0, len(z), size):
            part = z[start : start + size]
            padded = np.concatenate([part, np.repeat(part[-1:], size - len(part), 0)])
            parts.append(solve(padded)[: len(part)])
        return np.concatenate(parts)


# Proposition 1


def smallest_gap(flow, points=201, reach=1.0):
    """Least difference between the images of neighbours among equally spaced points of [-reach, reach]; D = 1.

    Above 0: the order is kept, nothing has crossed.
    """
    return float(np.diff(flow(np.linspace(-reach, reach, points)[:, None])[:, 0]).min())


def swap_errors(flow, extra=0):
    """How far a flow is from x -> -x on {-1, 1}: {"gap", "squared_error", "huber"}; the state is x and `extra` zeros.

    gap is phi(1) - phi(-1) in the first coordinate. A flow of the line has gap > 0, hence squared_error > 1 and huber > 1/2, the
    values at 0.
    """
    z = np.zeros((2, 1 + extra))
    z[:, 0] = -1.0, 1.0
    image = flow(z)[:, 0]
    error = np.abs(image - np.array([1.0, -1.0]))
    return {
        "gap": float(image[1] - image[0]),
        "squared_error": float(np.mean(error**2)),
        "huber": float(np.mean(np.where(error < 1, 0.5 * error**2, error - 0.5))),
    }


# Proposition 2


def winding_number(flow, radius=1.0, *, extra=0, points=400, most=20_000):
    """How often phi(circle of `radius` around 0) goes around phi(0) in the plane of its first two coordinates.

    The state is a point of the plane and `extra` zeros. 1 for a flow of the plane, which keeps the orientation. Points are added
    where the angle turns by more than an eighth of a circle from one to the next; RuntimeError if `most` are not enough.
    """

    def image(position):
        z = np.zeros((len(position), 2 + extra))
        z[:, 0], z[:, 1] = position.real, position.imag
        return flow(z)[:, :2] @ np.array([1.0, 1j])

    angles = np.linspace(0.0, 2 * math.pi, points + 1)[:-1]
    centre = image(np.zeros(1, complex))
    around = image(radius * np.exp(1j * angles)) - centre
    while True:
        turns = np.angle(np.roll(around, -1) / around)
        wide = np.flatnonzero(np.abs(turns) > math.pi / 4)
        if not len(wide):
            return round(float(turns.sum()) / (2 * math.pi))
        if len(angles) + len(wide) > most:
            raise RuntimeError(f"{most} points are too few to follow the image of the circle of radius {radius}")
        between = 0.5 * (angles[wide] + np.append(angles[1:], 2 * math.pi)[wide])
        angles = np.insert(angles, wide + 1, between)
        around = np.insert(around, wide + 1, image(radius * np.exp(1j * between)) - centre)


def tunnel_margins(outputs, radii=(1.0, 1.125, 1.25, 1.375, 1.5), points=720, zooms=4):
    """Least answer on each circle around 0 less the answer at 0: outputs(x (points, 2)) -> (points, 1).

    Below 0 on every circle for any flow of the plane with a linear head: a tunnel of the inner class through the outer. Above 0
    where g is represented. The least of `points` equally spaced angles is looked for again `zooms` times, between its neighbours.
    """
    centre = float(np.ravel(outputs(np.zeros((1, 2))))[0])
    margins = []
    for radius in radii:
        low, high, least = 0.0, 2 * math.pi, math.inf
        for _ in range(1 + zooms):
            angles = np.linspace(low, high, points + 1)
            answers = np.ravel(outputs(radius * np.stack([np.cos(angles), np.sin(angles)], -1)))
            best = int(answers.argmin())
            least, width = min(least, float(answers[best])), (high - low) / points
            low, high = angles[best] - width, angles[best] + width
        margins.append(least - centre)
    return margins


def wrong_answers(outputs, points):
    """{"wrong": share of points whose answer has the wrong sign, "huber", "largest_error"} of toy_functions.Points."""
    answers = np.asarray(outputs(points.x), np.float64)
    error = np.abs(answers - points.y)
    return {
        "wrong": float(np.mean(np.sign(answers) != np.sign(points.y))),
        "huber": float(np.mean(np.where(error < 1, 0.5 * error**2, error - 0.5))),
        "largest_error": float(error.max()),
    }


# Proposition 3


def reconstruction_error(flow, z):
    """{"rms", "max"} of what solving forwards and then backwards leaves of z (points, D), in its units."""
    error = flow.inverse(flow(z)) - np.asarray(z, np.float64)
    return {"rms": float(np.sqrt(np.mean(error**2))), "max": float(np.abs(error).max())}


def determinants(flow, z, step=1e-5):
    """(by the trace, by differences): determinants of the derivative of phi at z (points, D), both float64 (points,).

    exp of the integrated trace; and of central differences with `step`. What a difference is made of is solved together, by the
    same steps, so that at a loose tolerance the second are those of the map that the solver makes in place of phi.
    """
    z = np.asarray(z, np.float64)
    count, dim = z.shape
    moves = step * np.concatenate([np.eye(dim), -np.eye(dim)])
    images = flow((z[:, None] + moves).reshape(-1, dim), together=2 * dim).reshape(count, 2, dim, dim)
    return np.exp(flow.log_det(z)), np.linalg.det((images[:, 0] - images[:, 1]) / (2 * step))


def smallest_stretch(flow, z):
    """Least distance of two images in units of that of their points, over all pairs of z (points, D): 0 is a collision."""
    z = np.asarray(z, np.float64)
    return float((pdist(flow(z)) / pdist(z)).min())


def tolerance_ladder(field, params, z, tolerances=LADDER, *, method="dopri5", with_determinants=True):
    """The checks of proposition 3 at one tolerance after the other: a list of dicts.

    Each has "tolerance", "nfe" (evaluations of one solve of z (points, D) forwards), "reconstruction_rms", "reconstruction_max",
    "moved_since_last" (largest change of phi(z) against the tolerance before; None at the first), with determinants
    "det_min" (by differences), "det_trace_min", and "failed": None, or why the solve did not end, the rest being None then.
    """
    z = np.asarray(z, np.float64)
    rows, last = [], None
    any_tolerance = Flow(field, params, method=method, at_once=len(z), compiler="auto")
    for tolerance in tolerances:
        flow = any_tolerance.but(tolerance=tolerance)
        row = {
            **dict.fromkeys(("nfe", "reconstruction_rms", "reconstruction_max", "moved_since_last", "det_min", "det_trace_min")),
            "tolerance": tolerance,
            "failed": None,
        }
        try:
            with record_solves() as solves:
                image = flow(z)
            error = reconstruction_error(flow, z)
            row |= {
                "nfe": solves[0].nfe,
                "reconstruction_rms": error["rms"],
                "reconstruction_max": error["max"],
                "moved_since_last": None if last is None else float(np.abs(image - last).max()),
            }
            if with_determinants:
                by_trace, by_differences = determinants(flow, z)
                row |= {"det_min": float(by_differences.min()), "det_trace_min": float(by_trace.min())}
            last = image
        except SolverError as error:
            row["failed"] = error.reason
        rows.append(row)
    return rows
