"""solvers_bridge.keras.ODEBlock: fit, evaluate, save and load; metrics, masks, summary; the gradients of solvers_bridge.odeint."""

import copy
import pickle

import autograd.numpy as anp
import keras
import numpy as np
import pytest
import tensorflow as tf
from autograd import grad

from solvers_bridge import odeint, record_solves
from solvers_bridge.keras import ODEBlock
from tests.helpers import run_script

rng = np.random.default_rng(0)
X = rng.normal(size=(48, 4)).astype("float32")
Y = (X[:, 0] * X[:, 1] > 0).astype(int)


@keras.saving.register_keras_serializable(package="test_keras_door")
class Field(keras.layers.Layer):
    """f(t, y) with weights of its own."""

    def __init__(self, units, **kwargs):
        super().__init__(**kwargs)
        self.units = units
        self.dense = keras.layers.Dense(units, activation="tanh", dtype=self.dtype_policy)

    def build(self, *shapes):
        self.dense.build((None, self.units))
        self.built = True

    def call(self, t, y):
        return self.dense(y) * keras.ops.cos(t)

    def get_config(self):
        return {**super().get_config(), "units": self.units}


@keras.saving.register_keras_serializable(package="test_keras_door")
def decay(t, y):
    return -y * (1 + t)


def classifier(block):
    inputs = keras.Input((4,))
    model = keras.Model(inputs, keras.layers.Dense(2)(block(keras.layers.Dense(8)(inputs))))
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    model.compile(keras.optimizers.Adam(0.05), loss, metrics=["accuracy"])
    return model


def test_a_model_is_trained_saved_loaded_and_the_same_to_the_last_bit(tmp_path):
    keras.utils.set_random_seed(0)
    block = ODEBlock(Field(8), t=(0.0, 0.5, 1.5), rtol=1e-4, atol=1e-4, options={"max_num_steps": 500}, name="flow")
    model = classifier(block)
    history = model.fit(X, Y, epochs=4, batch_size=24, verbose=0).history
    assert history["loss"][-1] < 0.8 * history["loss"][0]
    assert all(10 < nfe < 200 for way in ("forward", "backward") for nfe in history[f"flow_nfe_{way}"])
    before = model.evaluate(X, Y, batch_size=24, verbose=0, return_dict=True)
    assert before["flow_nfe_forward"] > 10 and before["flow_nfe_backward"] == 0
    model.save(tmp_path / "model.keras")
    loaded = keras.models.load_model(tmp_path / "model.keras")
    assert loaded.evaluate(X, Y, batch_size=24, verbose=0, return_dict=True) == before
    assert np.array_equal(loaded(X), model(X))
    assert loaded.get_layer("flow").get_config() == block.get_config()
    # And it goes on training as the other would.
    losses = [one.fit(X, Y, epochs=1, batch_size=24, shuffle=False, verbose=0).history["loss"] for one in (model, loaded)]
    assert losses[0] == losses[1]


def test_summary_counts_what_func_holds():
    lines = []
    model = classifier(ODEBlock(Field(8), name="flow"))
    model.summary(print_fn=lines.append)
    (line,) = [line for line in "\n".join(lines).splitlines() if "flow (ODEBlock)" in line]
    assert "(None, 8)" in line and " 72 " in line
    assert model.count_params() == 4 * 8 + 8 + 72 + 8 * 2 + 2


@pytest.mark.parametrize("method", ["adams", "dopri5"])
def test_states_gradients_and_evaluations_are_those_of_odeint(method):
    block = ODEBlock(Field(8, dtype="float64"), t=(0.0, 0.5, 1.5), return_sequences=True, method=method, dtype="float64")
    y0 = tf.constant(rng.normal(size=(3, 8)))
    block(y0)
    kernel, bias = (variable.numpy() for variable in block.trainable_variables)
    block.nfe_forward.reset_state()
    with record_solves() as solves, tf.GradientTape() as tape:
        ys = block(y0)
        loss = tf.reduce_sum(ys[:, -1] ** 2)
        bars = tape.gradient(loss, block.trainable_variables)
    expected = odeint(
        lambda t, y, p: np.tanh(y @ kernel + bias) * np.cos(t), y0.numpy(), [0.0, 0.5, 1.5], method=method, rtol=1e-3, atol=1e-3
    )
    assert ys.shape == (3, 3, 8)
    np.testing.assert_allclose(ys, np.swapaxes(expected, 0, 1), rtol=1e-10, atol=1e-12)

    def loss_of(params):
        ys = odeint(
            lambda t, y, p: anp.tanh(anp.dot(y, p[0]) + p[1]) * anp.cos(t), y0.numpy(), [0.0, 0.5, 1.5], params,
            method=method, rtol=1e-3, atol=1e-3,
        )  # fmt: skip
        return anp.sum(ys[-1] ** 2)

    for bar, of_autograd in zip(bars, grad(loss_of)((kernel, bias))):
        np.testing.assert_allclose(bar, of_autograd, rtol=1e-8, atol=1e-10)
    forward = [solve.nfe for solve in solves if solve.direction == "forward"]
    backward = [solve.nfe for solve in solves if solve.direction == "backward"]
    # Besides its solves, a reverse sweep evaluates f once an output time: of the first, to see whether the adjoint is in balance.
    assert float(block.nfe_backward.result()) == sum(backward) + 3 and forward[0] > 0


def test_a_function_without_variables_and_a_registered_one_is_saved(tmp_path):
    model = keras.Sequential(
        [keras.Input((2,)), ODEBlock(decay, t=[0.0, 1.0], rtol=1e-8, atol=1e-8, method="lsoda", dtype="float64")]
    )
    y = model.predict(np.array([[1.0, -2.0]]), verbose=0)
    np.testing.assert_allclose(y, np.array([[1.0, -2.0]]) * np.exp(-1.5), rtol=1e-6)
    model.save(tmp_path / "model.keras")
    assert np.array_equal(keras.models.load_model(tmp_path / "model.keras").predict(np.array([[1.0, -2.0]]), verbose=0), y)
    x = tf.constant([[1.0, -2.0]], tf.float64)
    with tf.GradientTape() as tape:
        tape.watch(x)
        total = tf.reduce_sum(model(x))
    np.testing.assert_allclose(tape.gradient(total, x), np.full((1, 2), np.exp(-1.5)), rtol=1e-6)
    assert float(model.layers[0].nfe_backward.result()) > 10


def test_an_autonomous_model_and_a_state_of_several_tensors():
    mlp = keras.Sequential([keras.Input((8,)), keras.layers.Dense(16, activation="tanh"), keras.layers.Dense(8)])
    block, y = ODEBlock(mlp, rtol=1e-5, atol=1e-5), tf.ones((2, 8))
    assert not np.array_equal(block(y), y) and len(block.trainable_variables) == 4
    means = {"t": (0.0, np.pi / 2), "rtol": 1e-6, "atol": 1e-6}
    inputs = {"x": keras.Input((3,), name="x"), "v": keras.Input((3,), name="v")}
    swing = keras.Model(inputs, ODEBlock(lambda t, y: {"x": y["v"], "v": -y["x"]}, **means)(inputs))
    outputs = swing({"x": np.ones((2, 3)), "v": np.zeros((2, 3))})
    np.testing.assert_allclose(outputs["x"], 0.0, atol=1e-4)
    np.testing.assert_allclose(outputs["v"], -1.0, atol=1e-4)


def test_a_mask_is_passed_on_and_given_to_func():
    class Masked(keras.layers.Layer):
        def __init__(self):
            super().__init__()
            self.supports_masking = True

        def call(self, y, mask=None):
            return -y if mask is None else -y * keras.ops.cast(mask, y.dtype)[..., None]

    ids = np.array([[3, 1, 0], [2, 0, 0]])
    block = ODEBlock(Masked(), rtol=1e-6, atol=1e-6)
    embedded = keras.layers.Embedding(5, 4, mask_zero=True)(ids)
    out = block(embedded)
    np.testing.assert_array_equal(keras.src.backend.get_keras_mask(out), ids != 0)
    ratio = np.asarray(out) / np.asarray(embedded)
    np.testing.assert_allclose(ratio[ids != 0], np.exp(-1), rtol=1e-3)
    np.testing.assert_allclose(ratio[ids == 0], 1.0)
    assert ODEBlock(Masked(), return_sequences=True).compute_mask(embedded, ids != 0) is None


@pytest.mark.parametrize("layer", [keras.layers.BatchNormalization(), keras.layers.Dropout(0.5)])
def test_a_func_that_updates_variables_is_refused(layer):
    with pytest.raises(TypeError, match="must not update variables"):
        ODEBlock(keras.Sequential([layer]))(tf.ones((2, 3)))


class Inside(keras.layers.Layer):
    """A layer whose call does not name `training`."""

    def __init__(self, layer):
        super().__init__()
        self.dense, self.layer = keras.layers.Dense(3), layer

    def build(self, shape):
        self.dense.build(shape)
        self.layer.build(shape)
        self.built = True

    def call(self, y):
        return self.layer(self.dense(y))


@pytest.mark.parametrize("layer", [keras.layers.BatchNormalization(), keras.layers.Dropout(0.5)])
def test_a_layer_inside_a_func_that_updates_variables_is_refused(layer):
    with pytest.raises(TypeError, match="must not update variables"):
        keras.Sequential([keras.Input((3,)), ODEBlock(Inside(Inside(layer)))])


def test_layers_behind_do_not_hear_that_func_was_tried_in_training():
    class Heard(keras.layers.Layer):
        def call(self, y, training=None):
            heard.append(training)
            return y

    class Around(keras.layers.Layer):
        def __init__(self):
            super().__init__()
            self.block, self.behind = ODEBlock(Inside(keras.layers.Activation("tanh"))), Heard()

        def build(self, shape):
            """Nothing: the block is built where it is called."""

        def call(self, y):
            return self.behind(self.block(y))

    heard = []
    Around()(np.ones((2, 3), "float32"), training=False)
    Around()(np.ones((2, 3), "float32"))
    assert len(heard) == 2 and True not in heard


@keras.saving.register_keras_serializable(package="test_keras_door")
def slope_of_decay(t, y, params):
    return -(1 + t) * np.eye(2)


@pytest.mark.parametrize(
    "means",
    [
        {"atol": np.array([1e-3, 1e-5])},
        {"options": {"jump_t": np.array([0.3])}, "adjoint_rtol": np.float32(1e-3)},
        {"method": "lsoda", "options": {"jacobian": "finite_difference", "bands": (1, 1)}},
        {"method": "bdf", "options": {"jacobian": slope_of_decay}},
    ],
    ids=str,
)
def test_settings_of_any_kind_are_saved_and_copied(means, tmp_path):
    model, x = keras.Sequential([keras.Input((2,)), ODEBlock(decay, dtype="float64", **means)]), np.array([[1.0, -2.0]])
    model.save(tmp_path / "model.keras")
    others = [keras.models.load_model(tmp_path / "model.keras"), copy.deepcopy(model), pickle.loads(pickle.dumps(model))]
    for other in (*others, keras.models.clone_model(model)):
        np.testing.assert_array_equal(other(x), model(x))


@pytest.mark.parametrize(
    "kind, match, arguments",
    [
        (TypeError, "func must be a Keras layer", {"func": 3}),
        (ValueError, "t must hold two or more times", {"t": [0.0]}),
        (ValueError, "dtype must be one of float32, float64", {"dtype": "mixed_float16"}),
        (ValueError, "t must be increasing or decreasing", {"t": [0, 1, 0.5]}),
        (ValueError, "t must be finite", {"t": [0, np.nan]}),
        (ValueError, "method must be one of", {"method": "foo"}),
        (ValueError, "rtol must be positive", {"rtol": {"a": 1e-3, "b": np.array([1e-3, -1.0])}}),
        (TypeError, "adjoint_atol must be a positive number", {"adjoint_atol": "small"}),
        (ValueError, "unknown 'step'", {"options": {"step": 1}}),
        (ValueError, "adjoint_options", {"adjoint_options": {"norm": "max"}}),
    ],
)
def test_what_makes_no_sense_is_refused(kind, match, arguments):
    with pytest.raises(kind, match=match):
        ODEBlock(**{"func": decay, **arguments})


def test_another_backend_is_refused():
    run_script(
        """
        import sys, types
        keras = types.ModuleType("keras")
        keras.backend = types.SimpleNamespace(backend=lambda: "jax")
        sys.modules["keras"] = keras
        try:
            import solvers_bridge.keras
        except ImportError as error:
            assert "KERAS_BACKEND=tensorflow" in str(error) and "jax" in str(error)
        else:
            raise AssertionError("imported")
        """
    )


def test_a_block_of_convolutions_is_trained_with_one_thread_for_graphs():
    """As on one core: the block's solve holds that thread, and a graph of its function for another would wait for ever."""
    run_script("""
        import keras
        import numpy as np
        import tensorflow as tf

        tf.config.threading.set_inter_op_parallelism_threads(1)
        from solvers_bridge.keras import ODEBlock

        block = ODEBlock(keras.layers.Conv2D(2, 3, padding="same", activation="tanh"))
        model = keras.Sequential([keras.Input((5, 5, 2)), block, keras.layers.Flatten(), keras.layers.Dense(1)])
        model.compile("adam", "mse")
        images = np.linspace(0.0, 1.0, 400).reshape(8, 5, 5, 2)
        model.fit(images, np.zeros((8, 1)), batch_size=4, epochs=2, verbose=0)
        assert np.all(np.isfinite(model.predict(images, verbose=0)))
    """)
