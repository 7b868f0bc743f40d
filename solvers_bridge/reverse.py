"""Reverse sweeps on flat float64 arrays: the adjoint method with z(t) solved backwards, or known, or through the steps taken."""

from __future__ import annotations

import numpy as np

from .adjoint import Augmented, reverse_sweep, seminorm_without_state, without_state
from .balance import balance, tell_imbalance
from .compiled_sweep import compiled_sweep
from .dynamics.base import num_params
from .integrators.compiled import compiled_of
from .interpolant import Interpolant
from .jacobian import jacobian_of
from .lost_state import Watch, reconstruction
from .solve import Kept, Warm, adjoint_problem, are_close, inside_of, slope_time, solve
from .statistics import SolverError, warn_user

# Growth of z beyond both ends of a segment at which a reverse solve is given up: integrators would follow it to overflow.
BLOWN_UP = 1e6
# An attempt to solve z(t) backwards is given up after this many times the forward solve's evaluations, and so many more: what
# follows such a one is two solves of about the forward one's size.
MOST_EVALUATIONS = (4, 500)
# These iterate with a whole matrix where nothing is said of the Jacobian; VODE does not.
DENSE_BY_DEFAULT = ("lsoda", "radau")
# Unknowns that stay zero, to each one that does not, from where on they are worth a warning: a root mean square over all of them
# is then the tenth of what it would be. Networks with dead units or pruned weights stay far below.
DILUTION = 100


def gradient(problem, t, zs, zs_bar, leaves, wants_t):
    """Cotangents (z0_bar (n,), t_bar (T,), theta_bar (P,)) of the states zs (T, n) that forward found at t, given zs_bar (T, n).

    wants_t: whether anybody asks for t_bar; where nobody does, a df/dt that is not finite is none of their concern.
    """
    if not np.isfinite(zs_bar).all():
        rows = np.flatnonzero(~np.isfinite(zs_bar).all(axis=1))
        raise ValueError(
            f"the gradient that reached odeint from what was computed of its states is not finite, first at output {rows[0]} "
            f"(t = {float(t[rows[0]])!r}); look there, the solve itself is sound"
        )
    t = np.asarray(t, dtype=np.float64)
    reverse = _Reverse(problem, t, zs, leaves, wants_t)
    segment = reverse.through_steps if problem.discrete else reverse.segment
    # func is evaluated here at states that the caller never saw, and its derivatives by t where nobody wants them: results are
    # checked, and warnings of overflow on the way would help nobody.
    with np.errstate(all="ignore"):
        bars = compiled_sweep(reverse, zs_bar)
        if bars is None:
            from_slope = problem.discrete or bool(problem.solver.options.jump_t)
            bars = reverse_sweep(segment, reverse.slope, t, zs, zs_bar, reverse.augmented.p, _is_zero, t0_from_slope=from_slope)
        reverse.tell(bars, zs_bar)
    return bars


def _is_zero(a, theta_bar):
    return not (np.any(a) or np.any(theta_bar))


class _Reverse:
    """One reverse sweep: parameters sent and bound once, the step size kept if restarts are warm, and what went wrong."""

    def __init__(self, problem, t, zs, leaves, wants_t):
        self.problem, self.t, self.zs, self.wants_t = problem, t, zs, wants_t
        self.leaves, self.sent = leaves, problem.dynamics.send(leaves)
        self.augmented = Augmented(problem.layout.size, num_params(leaves))
        self.adjoint = adjoint_problem(problem, leaves)
        self.f = problem.dynamics.bind(problem.layout, problem.structure, self.sent)
        self.f_augmented = self._without_unwanted(
            self.adjoint.dynamics.bind(self.adjoint.layout, self.adjoint.structure, self.sent)
        )
        is_warm = problem.warm_restart and problem.adjoint_solver.integrator.adaptive
        self.warm = Warm(None if problem.warm is None else problem.warm.step) if is_warm else None
        self.blown_up = BLOWN_UP if problem.reconstruction == "auto" else 0.0
        self.watch = Watch(problem)
        self.has_solved = False
        # At t[0]: by how much a . f + a_t is not zero, and the size of the terms of a . f, once known.
        self.balance: tuple[float, float] | None = None
        self.allowance = self._allowance()

    def _allowance(self):
        """Evaluations that may go into attempts that fail; infinite where the forward solve's tell nothing of what one takes."""
        problem, (multiple, constant) = self.problem, MOST_EVALUATIONS
        ahead, back = problem.solver, problem.adjoint_solver
        tighter = np.any(back.rtol < np.min(ahead.rtol)) or np.any(back.atol < np.min(ahead.atol))
        if problem.keep is None or back.integrator is not ahead.integrator or tighter:
            return np.inf
        # A Jacobian by finite differences has a column for every unknown.
        takes_differences = back.options.jacobian == "finite_difference" or (
            back.options.jacobian is None and back.integrator.name in DENSE_BY_DEFAULT
        )
        columns = self.augmented.size / self.augmented.n if takes_differences else 1.0
        return multiple * columns * problem.keep.nfe + constant

    def spend(self, nfe):
        """Take the evaluations of an attempt that failed from what is left for such."""
        self.allowance = max(self.allowance - nfe, MOST_EVALUATIONS[1])

    def slope(self, t, z):
        """f at an output time, for t_bar; where func jumps there, on the side of slope_time."""
        dz = np.array(self.f(slope_time(t, self.t, self.problem.solver.options), z))
        return dz if self.wants_t else np.where(np.isfinite(dz), dz, 0.0)

    def _without_unwanted(self, f_augmented):
        compiled = compiled_of(f_augmented)
        if self.wants_t:
            return f_augmented

        def rhs(t, s):
            ds = f_augmented(t, s)
            if not np.isfinite(ds[-1]):
                ds = np.array(ds)
                ds[-1] = 0.0
            return ds

        rhs.compiled = compiled and compiled._replace(ignore_last=True)
        return rhs

    def segment(self, i, a, theta_bar, t0_bar):
        """[a, a_theta, a_t] at t[i - 1] from those at t[i]."""
        if are_close(self.t[i], self.t[i - 1]):
            return a, theta_bar, t0_bar
        way = self.problem.reconstruction
        if way == "interpolate":
            return self.with_known_state(i, a, theta_bar, t0_bar)
        s = self.augmented.join(self.zs[i], a, theta_bar, t0_bar)
        try:
            jacobian = jacobian_of(self.adjoint, self.leaves, self.sent)
            rhs = self._until_lost(i) if way == "auto" else self.f_augmented
            s = self._solve(self.adjoint.solver, rhs, s, i, jacobian)
        except Exception as error:
            # Not that of a solve inside func.
            if getattr(error, "layout", None) is self.adjoint.layout:
                error.statistics.reconstruction_gap = np.inf
                self.spend(error.statistics.nfe)
            if way == "solve":
                raise
            return self.with_known_state(i, a, theta_bar, t0_bar)
        z, *bars = self.augmented.split(s)
        found = reconstruction(self.problem.adjoint_solver, z, self.zs[i - 1], self.zs[i])
        self.statistics.reconstruction_gap = found.gap
        if self.watch.is_lost(found, self.t[i], self.t[i - 1]) and way == "auto":
            self.spend(self.statistics.nfe)
            return self.with_known_state(i, a, theta_bar, t0_bar)
        return bars

    def _until_lost(self, i):
        """f_augmented, which gives up where z is so great that there is no way back, or after too many evaluations."""
        n, evaluations = self.augmented.n, 0
        limit = BLOWN_UP * max(np.abs(self.zs[i]).max(), np.abs(self.zs[i - 1]).max(), np.finfo(float).tiny)

        def rhs(t, s):
            nonlocal evaluations
            evaluations += 1
            if evaluations > self.allowance:
                raise SolverError(f"not there after {evaluations - 1} evaluations", t_reached=float(t))
            if evaluations % 16 == 0 and np.abs(s[:n]).max() > limit:
                raise SolverError(f"the state has grown {BLOWN_UP:g} times on the way back", t_reached=float(t))
            return self.f_augmented(t, s)

        return rhs

    def _solve(self, solver, rhs, s, i, jacobian):
        """s at t[i - 1] from s at t[i], with the step size of the segment before if restarts are warm."""
        self.has_solved = solver.integrator.adaptive
        t, layout = self.t[[i, i - 1]], self.adjoint.layout
        states, self.statistics = solve(solver, rhs, s, t, "backward", jacobian, layout=layout, warm=self.warm)
        return states[-1]

    def with_known_state(self, i, a, theta_bar, t0_bar):
        """The segment as an equation of [a, a_theta, a_t] alone, with z(t) from the interpolant of the forward solve."""
        state = self._interpolant(i)
        augmented, n = self.augmented, self.augmented.n
        zero_z = np.zeros(n)

        def rhs(t, w):
            return self.f_augmented(t, np.concatenate([state(t), w]))[n:]

        def jacobian(t, w):
            # The right-hand side is linear in a, and depends on nothing else that is unknown.
            matrix = np.zeros((len(w), len(w)))
            s = np.concatenate([state(t), zero_z, np.zeros(augmented.p + 1)])
            for j in range(n):
                s[n + j] = 1.0
                matrix[:, j] = self.f_augmented(t, s)[n:]
                s[n + j] = 0.0
            return matrix

        solver, wants_jacobian = self._solver_without_state()
        w = np.concatenate([a, theta_bar, np.reshape(t0_bar, 1)])
        w = self._solve(solver, rhs, w, i, jacobian if wants_jacobian else None)
        return w[:n], w[n:-1], w[-1]

    def _solver_without_state(self):
        """The reverse solver for [a, a_theta, a_t], and whether it takes the Jacobian that is at hand."""
        means, augmented = self.adjoint.adjoint_solver, self.augmented
        rtol, atol = (value if np.ndim(value) == 0 else value[augmented.n :] for value in (means.rtol, means.atol))
        if self.problem.seminorm:
            rtol, atol = seminorm_without_state(augmented, rtol, atol, means.integrator.rms_norm)
        options = means.options._replace(stay_inside=True, bands=None)  # those of all unknowns
        dense_by_default = options.jacobian is None and means.integrator.name in DENSE_BY_DEFAULT
        dense_by_default = dense_by_default and without_state(augmented) <= 2_000
        wants_jacobian = options.jacobian in ("finite_difference", "autodiff") or dense_by_default
        if wants_jacobian:
            options = options._replace(jacobian="autodiff")
        return means._replace(rtol=rtol, atol=atol, options=options), wants_jacobian

    def _interpolant(self, i):
        """z(t) between t[i - 1] and t[i]: what the forward solve kept, or a forward solve made again."""
        kept = self.problem.keep
        if kept is not None and kept.interpolant:
            return kept.interpolant
        kept, solver = Kept(interpolant=Interpolant()), self.problem.solver
        jacobian = jacobian_of(self.problem, self.leaves, self.sent)
        t, layout = self.t[[i - 1, i]], self.problem.layout
        solve(solver, self.f, self.zs[i - 1], t, "recomputed", jacobian, layout=layout, kept=kept)
        return kept.interpolant

    def through_steps(self, i, a, theta_bar, t0_bar):
        """The segment by backpropagation through the steps that the forward solve took: the gradient of those steps, exactly.

        Of an explicit Runge-Kutta method: k_i = f(t + c_i h, Y_i), Y_i = z + h sum_j a_ij k_j, z_next = z + h sum_i b_i k_i.
        Step sizes count as given; dL/dt0 is that of the exact flow, see reverse_sweep.
        """
        tableau, n = self.problem.solver.integrator.tableau, self.augmented.n
        s = np.zeros(self.augmented.size)
        stage, k_bar = s[:n], s[n : 2 * n]
        inside, _ = inside_of(self.t[i - 1], self.t[i], self.problem.solver.options)
        theta_bar = np.array(theta_bar)
        for t, h, z, ks in reversed(self.problem.keep.tape[i - 1]):
            a_next, a = a, np.array(a)
            stage_bars = np.zeros_like(ks)
            for k in range(len(ks) - 1, -1, -1):
                np.multiply(-h, tableau.b[k] * a_next + tableau.a[k + 1 :, k] @ stage_bars[k + 1 :], out=k_bar)
                if not k_bar.any():
                    continue
                np.add(z, h * (tableau.a[k, :k] @ ks[:k]), out=stage)
                stage_t = t + tableau.c[k] * h
                if inside is not None:
                    stage_t = min(max(stage_t, min(inside)), max(inside))
                bars = self.f_augmented(stage_t, s)[n:]
                stage_bars[k] = bars[:n]
                theta_bar += bars[n:-1]
                t0_bar += bars[-1]
                a += bars[:n]
        if i == 1:
            # The first stage of the first step is the slope, too.
            slope = ks[0] if self.problem.keep.tape[0] else self.slope(self.t[0], self.zs[0])
            self.balance = balance(a, slope, t0_bar)
        return a, theta_bar, t0_bar

    def tell(self, bars, zs_bar):
        """Warn of what the gradient suffered from."""
        z0_bar, t_bar, theta_bar = bars
        integrator = self.adjoint.solver.integrator
        zeros = self.augmented.p - np.count_nonzero(theta_bar)
        rest = self.augmented.size - zeros
        if zeros >= DILUTION * rest and self.has_solved and integrator.rms_norm and not self.problem.seminorm:
            warn_user(
                f"{zeros} of {self.augmented.p} parameters have a gradient of exactly zero. As unknowns of the reverse solve "
                "they dilute its error norm, which holds all others to tolerances "
                f"{np.sqrt(1 + zeros / rest):.0f} times looser than those given: adjoint_options={{'norm': 'seminorm'}} leaves "
                "parameters out of it; or give odeint only what func uses.",
                kind="dilution",
            )
        has_balance = len(self.t) > 1 and self.problem.adjoint_solver.integrator.adaptive
        if not self.watch.tell() and has_balance and not self.problem.solver.options.jump_t:
            a = z0_bar - zs_bar[0]
            if self.balance is None:
                self.balance = balance(a, self.slope(self.t[0], self.zs[0]), t_bar[0])
            tell_imbalance(self, a, t_bar, zs_bar)
