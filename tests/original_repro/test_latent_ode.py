import numpy as np
import pytest

from original_repro import latent_ode as lo
from original_repro import training
from solvers_bridge import record_solves


def as_float64(params):
    return training.tree_map(lambda leaf: np.asarray(leaf, np.float64), params)


def irregular_series(rng, lengths, end=1.5):
    """times, values, mask of two-dimensional series of the given lengths, padded at their ends with what is not to be read."""
    shape = len(lengths), max(lengths)
    mask = (np.arange(shape[1]) < np.array(lengths)[:, None]).astype(float)
    times = np.where(mask > 0, np.sort(rng.uniform(0.05, end, shape), axis=1), 99.0)
    return times, np.where(mask[..., None] > 0, rng.normal(size=(*shape, 2)), np.nan), mask


@pytest.fixture(scope="module")
def net():
    return lo.LatentOde(dtype="float64")


@pytest.fixture(scope="module")
def params():
    rng = np.random.default_rng(0)
    return training.tree_map(lambda leaf: leaf + 0.2 * rng.normal(size=leaf.shape), as_float64(lo.init_latent_ode(rng)))


@pytest.fixture(scope="module")
def series():
    return irregular_series(np.random.default_rng(1), [4, 6, 2])


@pytest.fixture(scope="module")
def draws():
    return np.random.default_rng(2).normal(size=(3, 4))


def directional_derivative(function, params, direction, step):
    moved = [training.tree_map(lambda p, d: p + sign * step * d, params, direction) for sign in (1, -1)]
    return (function(moved[0]) - function(moved[1])) / (2 * step)


def inner(tree, other):
    return sum(np.sum(a * b) for a, b in zip(training.tree_leaves(tree), training.tree_leaves(other), strict=True))


def test_parameters_have_the_sizes_of_the_paper():
    params = lo.init_latent_ode(np.random.default_rng(0))
    shapes = training.tree_map(np.shape, params)
    assert shapes["recognition"]["cell"]["weight"] == (2 + 1 + 25, 25) and shapes["recognition"]["output"]["weight"] == (25, 8)
    assert shapes["dynamics"] == {"hidden": {"weight": (4, 20), "bias": (20,)}, "output": {"weight": (20, 4), "bias": (4,)}}
    assert shapes["decoder"]["hidden"]["weight"] == (4, 20) and shapes["decoder"]["output"]["weight"] == (20, 2)
    assert {leaf.dtype for leaf in training.tree_leaves(params)} == {np.dtype(np.float32)}
    assert lo.init_rnn(np.random.default_rng(0), time_gaps=True)["cell"]["weight"].shape == (28, 25)


@pytest.mark.parametrize(
    "reverse, tolerance",
    [({}, 1e-6), ({"adjoint_method": "rk4", "adjoint_options": {"step_size": 0.05}}, 1e-6)],
    ids=["paper", "rk4"],
)
def test_gradient_of_the_elbo_agrees_with_finite_differences(net, params, series, draws, reverse, tolerance):
    net = net.with_solver(**reverse)
    # Finite differences want a function that is smoother than 1.5e-8.
    exact = net.with_solver(method="dop853", rtol=1e-12, atol=1e-12)
    rng = np.random.default_rng(3)
    metrics, gradient = net.value_and_grad(params, *series, draws)
    for part in params:
        direction = training.tree_map(np.zeros_like, params) | {
            part: training.tree_map(lambda leaf: rng.normal(size=leaf.shape), params[part])
        }
        expected = directional_derivative(lambda p: -np.mean(exact.elbo(p, *series, draws)[0]), params, direction, 1e-5)
        assert inner(gradient, direction) == pytest.approx(expected, rel=tolerance, abs=1e-6)
    assert metrics["loss"] == pytest.approx(metrics["kl"] - metrics["log_likelihood"])
    assert metrics["nfe_forward"] > 0 and metrics["nfe_backward"] > 0


def test_elbo_is_the_closed_form_of_its_parts(net, params, series, draws):
    times, values, mask = series
    elbo, parts = net.elbo(params, *series, draws)
    mean, deviation = net.posterior(params, *series)
    np.testing.assert_allclose(parts["kl"], np.sum((deviation**2 + mean**2 - 1) / 2 - np.log(deviation), axis=1))
    noise = np.exp(params["log_noise"])
    for i in range(3):
        seen = mask[i] > 0
        means = net.generate(params, (mean + deviation * draws)[i : i + 1], times[i, seen])[0]
        expected = np.sum(-(((values[i, seen] - means) / noise) ** 2) / 2 - np.log(noise) - np.log(2 * np.pi) / 2)
        assert parts["log_likelihood"][i] == pytest.approx(expected, rel=1e-6)
        assert elbo[i] == pytest.approx(expected - parts["kl"][i], rel=1e-6)


def test_a_batch_on_the_union_grid_is_each_series_alone(net, params, series, draws):
    times, values, mask = series
    together, _ = net.elbo(params, *series, draws)
    for i, length in enumerate(mask.sum(1).astype(int)):
        one = slice(i, i + 1)
        alone, _ = net.elbo(params, times[one, :length], values[one, :length], mask[one, :length], draws[one])
        assert together[i] == pytest.approx(alone[0], rel=1e-6)


def test_union_grid_finds_every_time_again():
    first, second = np.array([[0.5, 0.25], [1.0, 0.5]]), np.array([0.75])
    grid, (where_first, where_second) = lo.union_grid(0.0, first, second)
    np.testing.assert_array_equal(grid, [0.0, 0.25, 0.5, 0.75, 1.0])
    np.testing.assert_array_equal(grid[where_first], first)
    np.testing.assert_array_equal(grid[where_second], second)
    with pytest.raises(ValueError, match="times must not come before start = 0.3, got 0.25"):
        lo.union_grid(0.3, first)


def test_recognition_ignores_padding(net, params, series):
    times, values, mask = series
    mean, deviation = net.posterior(params, *series)
    other = np.where(mask > 0, times, -5.0), np.where(mask[..., None] > 0, values, 1e6), mask
    np.testing.assert_array_equal(net.posterior(params, *other)[0], mean)
    for i, length in enumerate(mask.sum(1).astype(int)):
        one = slice(i, i + 1)
        alone = net.posterior(params, times[one, :length], values[one, :length], mask[one, :length])
        np.testing.assert_allclose(np.stack([mean[i], deviation[i]]), np.concatenate(alone), rtol=1e-12)


def test_recognition_reads_backwards_with_the_time_since_the_observation_before(net, params):
    rng = np.random.default_rng(4)
    times, values = np.array([[0.3, 0.4, 0.9]]), rng.normal(size=(1, 3, 2))
    cell, output = params["recognition"]["cell"], params["recognition"]["output"]
    h = np.zeros(25)
    for gap, value in ((0.5, values[0, 2]), (0.1, values[0, 1]), (0.3, values[0, 0])):
        h = np.tanh(np.concatenate([value, [gap], h]) @ cell["weight"] + cell["bias"])
    mean, log_deviation = np.split(h @ output["weight"] + output["bias"], 2)
    found = net.posterior(params, times, values, np.ones((1, 3)))
    np.testing.assert_allclose(found, np.stack([mean, np.exp(log_deviation)])[:, None], rtol=1e-12)


def test_gaps_skip_what_is_missing():
    times, mask = np.array([[1.0, 2.0, 4.0, 7.0]]), np.array([[0.0, 1.0, 0.0, 1.0]])
    np.testing.assert_array_equal(lo.gaps_since(0.5, times, mask), [[0.5, 1.5, 2.0, 5.0]])


def test_weights_of_few_times_keep_the_expectation_and_save_restarts(net, params):
    rng = np.random.default_rng(5)
    grid = 0.1 * np.arange(1, 11)
    times, values, mask = np.tile(grid, (2, 1)), rng.normal(size=(2, 10, 2)), np.ones((2, 10))
    draws = rng.normal(size=(2, 4))
    whole = net.elbo(params, times, values, mask, draws)[0]
    weights = [lo.weights_of_few_times(times, mask, grid, 5, rng) for _ in range(60)]
    assert {tuple(np.unique(w)) for w in weights} == {(0.0, 2.0)} and {w.sum() for w in weights} == {20.0}
    bounds = [net.elbo(params, times, values, mask, draws, w)[0] for w in weights]
    error = np.std(bounds, axis=0) / np.sqrt(60)
    assert np.all(np.abs(np.mean(bounds, axis=0) - whole) < 5 * error)
    with record_solves() as solves:
        net.value_and_grad(params, times, values, mask, draws, weights[0])
    assert sum(solve.direction == "backward" for solve in solves) == 5


def test_imputation_keeps_what_was_seen_and_reconstructs_the_rest(net, params):
    rng = np.random.default_rng(6)
    times, values = np.tile(np.linspace(0.1, 1.0, 5), (2, 1)), rng.normal(size=(2, 5, 2))
    mask = np.array([[1, 0, 1, 1, 0], [0, 1, 1, 0, 1]], float)
    imputed = net.impute(params, times, np.where(mask[..., None] > 0, values, np.nan), mask)
    np.testing.assert_array_equal(imputed[mask > 0], values[mask > 0])
    mean, _ = net.posterior(params, times, values, mask)
    np.testing.assert_allclose(imputed[mask == 0], net.generate(params, mean, times[0])[mask == 0], rtol=1e-9)


def test_generation_at_arbitrary_times_is_one_trajectory(net, params):
    z0 = np.random.default_rng(7).normal(size=(3, 4))
    some = net.generate(params, z0, [0.2, 1.1])
    more = net.generate(params, z0, [0.0, 0.2, 0.7, 1.1, 1.9])
    np.testing.assert_allclose(some, more[:, [1, 3]], rtol=1e-6, atol=1e-7)
    np.testing.assert_allclose(more[:, 0], net.decode(params, z0), rtol=1e-12)


def test_bands_are_those_of_posterior_draws_with_the_noise(net, params, series):
    mean, deviation = net.predictive(params, *series, [0.0, 1.0], np.random.default_rng(8), samples=400)
    z_mean, z_deviation = net.posterior(params, *series)
    draws = z_mean + z_deviation * np.random.default_rng(9).normal(size=(400, 3, 4))
    decoded = net.decode(params, draws)
    np.testing.assert_allclose(mean[:, 0], decoded.mean(0), atol=5 * decoded.std() / 20)
    np.testing.assert_allclose(deviation[:, 0], np.sqrt(decoded.var(0) + np.exp(2 * params["log_noise"])), rtol=0.25)


# The encoder that attends


def test_attention_reads_a_set_of_observations_and_no_padding():
    rng = np.random.default_rng(20)
    params = as_float64(lo.init_latent_ode(rng, encoder="attention"))
    for norm in ("norm1", "norm2"):  # as after some training
        params["recognition"][norm] = {name: rng.uniform(0.5, 1.5, 25) for name in ("scale", "shift")}
    net = lo.LatentOde(dtype="float64", encoder="attention")
    times, values, mask = irregular_series(rng, [4, 6])
    found = net.posterior(params, times, values, mask)
    shuffled = rng.permutation(times.shape[1])
    for one, other in zip(found, net.posterior(params, times[:, shuffled], values[:, shuffled], mask[:, shuffled])):
        np.testing.assert_allclose(one, other, rtol=1e-9)
    # By hand, of the shorter series.
    output = attended_by_hand(params["recognition"], np.column_stack([values[0, :4], times[0, :4]]))
    np.testing.assert_allclose(found[0][0], output[:4], rtol=1e-9)
    np.testing.assert_allclose(found[1][0], np.exp(output[4:]), rtol=1e-9)


def attended_by_hand(layers, seen):
    """What a Transformer's encoder block, Vaswani et al. (2017), makes of observations (n, 3) with their times in the last place."""

    def dense(name, x):
        return x @ layers[name]["weight"] + layers[name]["bias"]

    def norm(name, x):
        x = (x - x.mean(1, keepdims=True)) / np.sqrt(x.var(1, keepdims=True) + 1e-5)
        return x * layers[name]["scale"] + layers[name]["shift"]

    angles = seen[:, 2:] * [0.5, 1.0, 2.0, 4.0]
    h = dense("embedding", np.column_stack([seen, np.sin(angles), np.cos(angles)]))
    q, k, v = np.split(dense("queries_keys_values", h), 3, axis=1)
    read = []
    for head in range(5):
        mine = slice(5 * head, 5 * head + 5)
        weights = np.exp(q[:, mine] @ k[:, mine].T / np.sqrt(5))
        read.append(weights / weights.sum(1, keepdims=True) @ v[:, mine])
    h = norm("norm1", h + dense("read", np.column_stack(read)))
    h = norm("norm2", h + dense("feed", np.maximum(dense("hidden", h), 0)))
    return dense("output", h.mean(0))


def test_heads_divide_the_units():
    with pytest.raises(ValueError, match="units must be a multiple of 5, the heads of the attention, got 24"):
        lo.init_latent_ode(np.random.default_rng(0), units=24, encoder="attention")


@pytest.mark.parametrize("make", [lambda name: lo.LatentOde(encoder=name), lambda name: lo.init_latent_ode(None, encoder=name)])
def test_an_unknown_encoder_is_named(make):
    with pytest.raises(ValueError, match="encoder must be one of rnn, attention, got 'cnn'"):
        make("cnn")


# The recurrent baselines


def by_hand(params, inputs):
    """Predictions (n, D) after each of inputs (n, features)."""
    h, predictions = np.zeros(25), []
    for x in inputs:
        h = np.tanh(np.concatenate([x, h]) @ params["cell"]["weight"] + params["cell"]["bias"])
        predictions.append(h @ params["output"]["weight"] + params["output"]["bias"])
    return np.array(predictions)


@pytest.mark.parametrize("time_gaps", [False, True])
def test_rnn_loss_is_the_likelihood_of_the_next_values_and_ignores_padding(time_gaps):
    rng = np.random.default_rng(10)
    params = as_float64(lo.init_rnn(rng, time_gaps=time_gaps))
    net = lo.Rnn(time_gaps=time_gaps, mean_gap=0.1, dtype="float64")
    times, values, mask = irregular_series(rng, [4, 6])
    values = np.nan_to_num(values, nan=7.0)
    expected = []
    for t, x, length in zip(times, values, (4, 6)):
        inputs = np.column_stack([x[: length - 1], np.diff(t[:length])]) if time_gaps else x[: length - 1]
        errors = (x[1:length] - by_hand(params, inputs)) / np.exp(params["log_noise"])
        expected.append(np.sum(errors**2 / 2 + params["log_noise"] + np.log(2 * np.pi) / 2))
    metrics, gradient = net.value_and_grad(params, times, values, mask)
    assert metrics["loss"] == pytest.approx(np.mean(expected))
    direction = training.tree_map(lambda leaf: rng.normal(size=leaf.shape), params)
    slope = directional_derivative(lambda p: net.value_and_grad(p, times, values, mask)[0]["loss"], params, direction, 1e-5)
    assert inner(gradient, direction) == pytest.approx(slope, rel=1e-6)


@pytest.mark.parametrize("time_gaps", [False, True])
def test_rnn_steps_by_the_mean_gap_and_interpolates(time_gaps):
    rng = np.random.default_rng(12)
    params = as_float64(lo.init_rnn(rng, time_gaps=time_gaps))
    times, values = np.array([[0.0, 1.0], [0.5, 2.0]]), rng.normal(size=(2, 2, 2))
    net = lo.Rnn(time_gaps=time_gaps, mean_gap=0.8, dtype="float64")
    predicted = net.predict(params, times, values, np.array([2.5, 3.25]))
    for i, last in enumerate((1.0, 2.0)):
        path, gaps = list(values[i]), [times[i, 1] - times[i, 0], *3 * [0.8]]
        for _ in range(3):
            inputs = [np.append(x, gap) for x, gap in zip(path, gaps)] if time_gaps else path
            path.append(by_hand(params, inputs)[-1])
        nodes = last + 0.8 * np.arange(4)
        expected = [np.interp([2.5, 3.25], nodes, np.array(path)[1:, k]) for k in range(2)]
        np.testing.assert_allclose(predicted[i], np.transpose(expected), rtol=1e-9)


def test_rnn_predicts_each_next_value():
    rng = np.random.default_rng(13)
    params = as_float64(lo.init_rnn(rng))
    values = rng.normal(size=(1, 5, 2))
    found = lo.Rnn(time_gaps=False, mean_gap=1.0, dtype="float64").predict_next(params, np.arange(5.0)[None], values)
    np.testing.assert_allclose(found[0], by_hand(params, values[0, :-1]), rtol=1e-9)
