"""Tolerances that are vectors, of the forward and of the reverse solve, and the norm that the reverse solve measures in."""

import autograd.numpy as anp
import numpy as np
import pytest
from autograd import grad

from solvers_bridge import odeint, record_solves
from tests.helpers import every_adaptive_family

Y0 = np.array([1.0, -0.5])
PARAMS = np.array([0.8, 1.7, 0.3])
END = 4.0


def driven(t, y, params):
    """A decay and an oscillation: the two components want different steps."""
    return anp.array([-params[0] * y[0] + anp.sin(y[1]), params[1] * anp.cos(params[1] * t) - params[2] * y[0] * y[1]])


def forward(method, **means):
    with record_solves() as solves:
        ys = odeint(driven, Y0, [0.0, 1.0, END], PARAMS, method=method, **means)
    return ys, solves[0].nfe


def backward(**means):
    """Gradients of sum(y(END)) with respect to y0 and params, and the record of the reverse solve, with its steps."""
    with record_solves(steps=True) as solves:
        bars = grad(lambda args: anp.sum(odeint(driven, args[0], [0.0, END], args[1], **means)[-1]))((Y0, PARAMS))
    return bars, solves[-1]


@pytest.mark.parametrize("rtol", ([1e-3, 1e-8], [1e-8, 1e-3]), ids=str)
def test_radau_takes_the_least_rtol_of_a_vector(rtol):
    """SciPy's Radau asks for a number, and no component may be less precise than was asked."""
    ys, nfe = forward("radau", rtol=rtol, atol=1e-9)
    tight, tight_nfe = forward("radau", rtol=1e-8, atol=1e-9)
    _, loose_nfe = forward("radau", rtol=1e-3, atol=1e-9)
    np.testing.assert_array_equal(ys, tight)
    assert nfe == tight_nfe > loose_nfe


def augmented(t, s, params):
    """driven and its adjoint, written out: s = [y (2), a (2), a_params (3), a_t]."""
    y, a = s[:2], s[2:4]
    df_dy = np.array([[-params[0], np.cos(y[1])], [-params[2] * y[1], -params[2] * y[0]]])
    phase = params[1] * t
    df_dparams = np.array([[-y[0], 0.0, 0.0], [0.0, np.cos(phase) - phase * np.sin(phase), -y[0] * y[1]]])
    df_dt = np.array([0.0, -(params[1] ** 2) * np.sin(phase)])
    return np.concatenate([np.array(driven(t, y, params)), -a @ df_dy, -a @ df_dparams, [-a @ df_dt]])


@every_adaptive_family
@pytest.mark.parametrize("tolerances", ("rtol", "atol", "both"))
def test_vector_tolerances_of_the_adjoint_are_those_of_z_and_a_and_their_least_of_the_rest(method, tolerances):
    """The reverse solve is that of the augmented system, written out here, with its tolerances written out, too."""
    rtol = np.array([1e-3, 1e-6]) if tolerances != "atol" else 1e-5
    atol = np.array([1e-4, 1e-7]) if tolerances != "rtol" else 1e-6
    (y0_bar, params_bar), record = backward(method=method, rtol=1e-9, atol=1e-9, adjoint_rtol=rtol, adjoint_atol=atol)

    def written_out(value):
        return value if np.ndim(value) == 0 else np.array([*value, *value, *[value[1]] * 4])

    end = odeint(driven, Y0, [0.0, END], PARAMS, method=method, rtol=1e-9, atol=1e-9)[-1]
    # a_t begins at what moving the output time gives, -sum(f).
    s = np.concatenate([end, np.ones(2), np.zeros(3), [-np.sum(driven(END, end, PARAMS))]])
    with record_solves(steps=True) as solves:
        s = odeint(augmented, s, [END, 0.0], PARAMS, method=method, rtol=written_out(rtol), atol=written_out(atol))[-1]
    # To rounding, which LSODA's and Radau's iterations amplify.
    np.testing.assert_allclose(record.step_sizes, solves[0].step_sizes, rtol=1e-3)
    np.testing.assert_allclose(y0_bar, s[2:4], rtol=1e-6)
    np.testing.assert_allclose(params_bar, s[4:7], rtol=1e-6)


@every_adaptive_family
def test_an_adjoint_tolerance_for_every_entry_of_a_matrix_state(method):
    """The same vector, whether it is written as a matrix or broadcast from a row or a number."""

    def costs(tolerance):
        with record_solves() as solves:
            grad(lambda y0: anp.sum(odeint(lambda t, y, p: -p * y, y0, [0.0, 1.0], 0.5, method=method, adjoint_rtol=tolerance)))(
                np.ones((2, 3))
            )
        return solves[-1].nfe

    assert costs(1e-5) == costs([1e-5] * 3) == costs([[1e-5] * 3] * 2)
    assert costs(1e-5) == costs([[1e-5], [1e-5]]) < costs([[1e-9], [1e-5]])


def switched_off(scale):
    """Fast forces, many and of any size, that are switched off: z and a are smooth, dL/doff is as large as they are."""
    phases = np.linspace(0, 2 * np.pi, 12)
    return lambda t, y, off: anp.tanh(y) * 0.2 - 0.5 * y + scale * anp.sum(off * anp.cos(40 * t + phases))


@every_adaptive_family
def test_the_seminorm_does_not_see_how_large_the_gradients_of_params_are(method):
    def reverse_solve(scale):
        with record_solves(steps=True) as solves:
            off_bar = grad(
                lambda off: anp.sum(
                    odeint(
                        switched_off(scale),
                        Y0,
                        [0.0, 2.0],
                        off,
                        method=method,
                        rtol=1e-6,
                        atol=1e-6,
                        # Hairer's and Radau's guesses of a first step are no error norms.
                        adjoint_options={"norm": "seminorm", "first_step": 0.01},
                    )[-1]
                )
            )(np.zeros(12))
        return np.abs(off_bar).max(), solves[-1].step_sizes

    small, steps = reverse_solve(1.0)
    large, steps_of_large = reverse_solve(1e6)
    assert large > 1e5 * small > 0
    np.testing.assert_allclose(steps_of_large, steps, rtol=1e-4)


def warm_segments(method, t):
    """Records of the reverse solves, from last to first, that warm restarts begin with a large known step."""
    means = {"method": method, "rtol": 1e-2, "atol": 1e-2, "adjoint_options": {"restart": "warm", "first_step": 0.01}}
    with record_solves(steps=True) as solves:
        grad(lambda y0: anp.sum(odeint(driven, y0, t, PARAMS, **means)))(Y0)
    return solves[1:]


@pytest.mark.parametrize("method", ("adams", "bdf", "lsoda"))
def test_a_warm_restart_begins_no_longer_than_its_segment(method):
    t = np.array([0.0, 1e-6, 2.0, 2.001, END]) - END
    segments = warm_segments(method, t)
    assert [solve.direction for solve in segments] == ["backward"] * 4
    # What the first segment began with is longer than two of the others are.
    assert abs(segments[0].first_step) > 2e-3
    for solve, length in zip(segments, np.diff(t)[::-1]):
        assert abs(solve.first_step) <= length * (1 + 1e-9)


@pytest.mark.parametrize("method", ("adams", "bdf"))
def test_a_warm_restart_whose_first_step_ends_exactly_at_an_output_time(method):
    assert len(warm_segments(method, np.array([0.0, 2.0, 2.001, END]))) == 3
