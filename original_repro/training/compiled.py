"""RMSprop by the thousand: many steps of a small model in one XLA graph; from Python a step would cost ten times its work."""

import tensorflow as tf

from .trees import tree_map

NUMBERS = 2**31  # of seeds and of steps: both are int32 in the graph


def rmsprop_chunk(loss, steps, *, decay=0.9, momentum=0.0, epsilon=1e-7):
    """A compiled function that takes `steps` steps of `training.rmsprop`, for `training.fit_in_chunks`.

    loss(params, seed) -> scalar tensor in TensorFlow operations that XLA compiles; seed (2,) int32 is the run's seed and
    the number of the step, for stateless random numbers. The function returned is
    advance(params, state, first_step, learning_rate, seed) -> (params, state, mean of the losses),
    with NumPy arrays in the nestings of params and of the optimiser's state, and the run's seed as a whole number; it raises
    ValueError for a seed or a step that int32 does not hold, which would draw as another does.
    """
    if type(steps) is not int or steps < 1:
        raise ValueError(f"steps must be a whole number from 1, got {steps!r}")

    @tf.function(jit_compile=True)
    def graph(params, square, step, first_step, learning_rate, seed):
        def body(i, total, params, square, step):
            leaves = tf.nest.flatten(params)
            with tf.GradientTape() as tape:
                tape.watch(leaves)
                value = loss(params, tf.stack([seed, first_step + i]))
            grads = tf.nest.pack_sequence_as(params, tape.gradient(value, leaves))
            square = tf.nest.map_structure(lambda s, g: decay * s + (1 - decay) * g * g, square, grads)
            step = tf.nest.map_structure(
                lambda m, g, s: momentum * m + learning_rate * g * tf.math.rsqrt(s + epsilon), step, grads, square
            )
            params = tf.nest.map_structure(tf.subtract, params, step)
            return i + 1, total + value, params, square, step

        _, total, params, square, step = tf.while_loop(
            lambda i, *_: i < steps, body, (tf.constant(0), tf.constant(0.0), params, square, step)
        )
        return total / steps, params, square, step

    def advance(params, state, first_step, learning_rate, seed):
        for name, number in (("seed", seed), ("first_step + steps", first_step + steps)):
            if not 0 <= number < NUMBERS:
                raise ValueError(f"{name} must be at least 0 and below 2**31 for compiled training; got {number}")
        tensors = [tree_map(tf.constant, tree) for tree in (params, state["square"], state["step"])]
        mean, params, square, step = graph(
            *tensors, tf.constant(first_step, tf.int32), tf.constant(learning_rate, tf.float32), tf.constant(seed, tf.int32)
        )
        params, square, step = (tf.nest.map_structure(lambda tensor: tensor.numpy(), tree) for tree in (params, square, step))
        return params, {"square": square, "step": step}, float(mean)

    return advance
