"""The fits of Figure 5: a continuous and a planar flow by maximum likelihood, the best look at validation data kept."""

import numpy as np

from original_repro import training

from .figure5_figures import LABELS


class Best:
    """Keeps the parameters with the highest validation log-likelihood, in a file beside the checkpoint that outlives a kill."""

    def __init__(self, checkpoint, log_likelihood):
        self.path, self.log_likelihood = checkpoint.with_name(f"{checkpoint.stem}-best.npz"), log_likelihood
        if not checkpoint.exists():
            self.path.unlink(missing_ok=True)  # of a run that is to begin anew

    def evaluate(self, params):
        """{"log_likelihood"} on validation data, for training.fit."""
        value = float(self.log_likelihood(params))
        if not self.path.exists() or value > training.load_checkpoint(self.path)["log_likelihood"]:
            training.save_checkpoint(self.path, {"log_likelihood": value, "params": params})
        return {"log_likelihood": value}

    def params(self):
        return training.load_checkpoint(self.path)["params"]

    def steps(self, history):
        """How many iterations the best parameters had."""
        return max(history, key=lambda row: row["validation_log_likelihood"])["steps"]


def flow_of(kind, preset, flows):
    return continuous_flow(preset[kind], flows) if kind == "cnf" else flows.PlanarFlow("data_to_base")


def continuous_flow(settings, flows, **changes):
    settings = {"dtype": "float32", "compiler": "graph", **settings, **changes}
    return flows.ContinuousFlow(
        flows.planar_dynamics,
        settings["times"],
        method=settings["method"],
        rtol=settings["tolerance"],
        atol=settings["tolerance"],
        dtype=settings["dtype"],
        compiler=settings["compiler"],
    )


def fit_cnf(task, _, train, best):
    settings, looks = task["settings"]["cnf"], task["settings"]["looks"]
    from original_repro import flows

    # Evaluation, with other numbers of points, keeps to graphs, whose steps are the same.
    flow = continuous_flow(settings, flows, compiler=task["compiler"])

    def draw_batch(rng):
        return (train[rng.integers(0, len(train), settings["batch_size"])],)

    _, history = training.fit(
        flow.nll_and_grad,
        flows.init_planar_dynamics(np.random.default_rng(task["seed"]), settings["size"]),
        batches=training.drawn_batches(draw_batch, settings["iterations"] // looks),
        optimiser=training.adam(),
        schedule=_schedule(settings),
        epochs=looks,
        seed=task["seed"],
        evaluate=best.evaluate,
        checkpoint=task["checkpoint"],
        checkpoint_every=settings["iterations"],
        checkpoint_seconds=5.0,
        configuration=_identity(task),
        progress=_name(task),
    )
    return [_row(epoch) for epoch in history]


def fit_nf(task, flow, train, best):
    import tensorflow as tf

    from original_repro import flows
    from original_repro.training.compiled import rmsprop_chunk

    settings, looks = task["settings"]["nf"], task["settings"]["looks"]

    def loss(params, seed):
        batch = tf.random.stateless_uniform((settings["batch_size"],), seed, 0, len(train), tf.int32)
        return flows.planar_nll_loss(params, tf.gather(tf.constant(train), batch))

    _, history = training.fit_in_chunks(
        rmsprop_chunk(loss, settings["chunk"], decay=settings["decay"]),
        flows.init_planar_flow(np.random.default_rng(task["seed"]), settings["size"]),
        optimiser=training.rmsprop(settings["decay"]),
        schedule=_schedule(settings),
        epochs=looks,
        chunks=settings["iterations"] // (looks * settings["chunk"]),
        chunk_steps=settings["chunk"],
        seed=task["seed"],
        evaluate=best.evaluate,
        checkpoint=task["checkpoint"],
        configuration=_identity(task),
        progress=_name(task),
    )
    return [_row(epoch) for epoch in history]


def _name(task):
    return f"{LABELS[task['data']]}, {LABELS[task['flow']]}"


def _schedule(settings):
    return training.warmup_cosine(settings["peak_rate"], settings["iterations"])


def _identity(task):
    return {"data": task["data"], "flow": task["flow"], "points": task["settings"]["data"], **task["settings"][task["flow"]]}


def _row(epoch):
    return {
        "steps": epoch["steps"],
        "seconds": epoch["wall_seconds"],
        **epoch["train"],
        "validation_log_likelihood": epoch["evaluation"]["log_likelihood"],
    }
