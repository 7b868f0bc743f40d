"""Record what the software of June 2018 does, for today's solvers_bridge to be compared with. Python 3.6 only; see README.md.

    python original_repro/stack_2018/record_traces.py [--out DIR] [--check] [NAME ...]

writes DIR/NAME.json (and NAME.npz) for each NAME of forward, adjoint, classics, odenet_layer, odenet_step; --check writes nothing
and compares with what DIR holds, bit by bit.
"""
import os

# The order of a sum and its instructions are part of the result: one thread, and the BLAS kernels of one processor whatever the
# machine, those without fused multiply-add. Before NumPy loads its BLAS.
os.environ.update(OMP_NUM_THREADS="1", OPENBLAS_NUM_THREADS="1", OPENBLAS_CORETYPE="Nehalem", TF_CPP_MIN_LOG_LEVEL="2")

import argparse  # noqa: E402
import platform  # noqa: E402
import shutil  # noqa: E402
import sys  # noqa: E402
import tempfile  # noqa: E402
import time  # noqa: E402
from collections import OrderedDict  # noqa: E402

import autograd.numpy as np  # noqa: E402
import pkg_resources  # noqa: E402
from autograd import grad  # noqa: E402
from autograd.extend import defvjp_argnums, primitive  # noqa: E402
from autograd.misc import flatten  # noqa: E402

import classics  # noqa: E402
from appendix_d import augmented_dynamics, reverse_sweep  # noqa: E402
from generator import projections, uniform  # noqa: E402
from networks import NETWORKS, inputs  # noqa: E402
from solvers import METHODS, solve  # noqa: E402
from trace_files import differences, read_json, write_arrays, write_json  # noqa: E402

HERE = os.path.dirname(os.path.abspath(__file__))
RESULTS = os.path.join(HERE, "..", "..", "results", "stack_2018")
SAMPLE = os.path.join(HERE, "..", "datasets", "mnist_sample.npz")

TOLERANCES = (1e-3, 1e-6, 1.5e-8)
TIMES = OrderedDict([
    ("one", [0.0, 4.0]),
    ("several", [0.0, 0.3, 1.0, 1.1, 2.5, 4.0]),
    ("decreasing", [4.0, 3.1, 3.0, 1.2, 0.0]),
])
ADJOINT_METHODS = ("vode-adams", "lsoda-odeint")
BATCH, CLASSIFICATION_TOLERANCE = 16, 1e-3
# VODE also with a first step of its caller's. The one it chooses comes from probing the dynamics at a distance of 1e-9, where
# float32 has nothing but rounding to show: the last bits of TensorFlow's sums then decide its course.
ODENET_VARIANTS = (("vode-adams", 0.0), ("vode-adams", 0.02), ("lsoda-odeint", 0.0))
FLOAT32_REASON = ("VODE chooses its first step by the difference of evaluations 1e-9 apart, which in float32 is rounding: "
                  "two TensorFlows, or one on two machines, send it on different courses")
STEM_SEED, DYNAMICS_SEED, HEAD_SEED = 1000, 2000, 3000
STATE_SEED, COTANGENT_SEED, COTANGENT_DIVISOR, SIGN_SEED = 4000, 4001, 512, 5000
# Arrays up to this size are stored whole, larger ones as projections and norm.
WHOLE = 1024


def record_forward():
    """(a) Every network, method, tolerance and set of output times: states and statistics."""
    solves = []
    for name in NETWORKS:
        func, y0, params = inputs(name)
        for kind, ts in TIMES.items():
            for method in METHODS:
                for tolerance in TOLERANCES:
                    states, statistics = solve(method, lambda y, t: func(y, t, params), y0, ts, tolerance)
                    solves.append(OrderedDict(
                        [("name", "%s %s %s %g" % (name, kind, method, tolerance)), ("network", name), ("method", method),
                         ("tolerance", tolerance), ("times", ts)]
                        + sorted(statistics.items()) + [("states", states[1:])]))
    return OrderedDict(networks=network_inputs(), solves=solves), {}


def network_inputs():
    """The inputs of every network, as data: y0 flat, params in the order of the arguments."""
    return OrderedDict((name, OrderedDict([("samples", NETWORKS[name][3]), ("y0", y0), ("params", params)]))
                       for name, (_, y0, params) in ((name, inputs(name)) for name in NETWORKS))


def record_adjoint():
    """(b) Gradients of sum(cotangents * states) by appendix D, with the statistics of each segment."""
    sweeps = []
    for number, name in enumerate(NETWORKS):
        func, y0, params = inputs(name)
        flat_params, _ = flatten(params)
        augmented = augmented_dynamics(func, len(y0), params)
        for kind, ts in TIMES.items():
            zs_bar = uniform(100 + number, (len(ts), len(y0)))
            for method in ADJOINT_METHODS:
                for tolerance in TOLERANCES if kind == "several" else TOLERANCES[:2]:
                    zs, forward = solve(method, lambda y, t: func(y, t, params), y0, ts, tolerance)
                    y0_bar, ts_bar, params_bar, backward = reverse_sweep(
                        method, lambda y, t: func(y, t, params), augmented, ts, zs, zs_bar, len(flat_params), tolerance)
                    sweeps.append(OrderedDict([
                        ("name", "%s %s %s %g" % (name, kind, method, tolerance)), ("network", name), ("method", method),
                        ("tolerance", tolerance), ("times", ts), ("cotangents", zs_bar), ("forward", forward),
                        ("backward", OrderedDict((key, [segment[key] for segment in backward]) for key in sorted(backward[0]))),
                        ("y0_bar", y0_bar), ("times_bar", ts_bar), ("params_bar", params_bar)]))
    return OrderedDict(networks=network_inputs(), sweeps=sweeps), {}


def record_classics():
    """(c) DETEST and Hairer's problems: states half-way and at the end."""
    problems, solves = OrderedDict(), []
    for name, (expressions, y0, end) in classics.PROBLEMS.items():
        rhs = classics.right_hand_side(expressions)
        problems[name] = OrderedDict([("y0", y0), ("rhs", expressions)])
        for method in METHODS:
            if name in classics.STIFF and not method.startswith("lsoda"):
                continue
            for tolerance in TOLERANCES:
                ts = [0.0, end / 2, end]
                states, statistics = solve(method, lambda y, t: np.array(rhs(t, y.tolist())), y0, ts, tolerance)
                solves.append(OrderedDict(
                    [("name", "%s %s %g" % (name, method, tolerance)), ("problem", name), ("method", method),
                     ("tolerance", tolerance), ("times", ts)] + sorted(statistics.items()) + [("states", states[1:])]))
    return OrderedDict(problems=problems, solves=solves), {}


def record_odenet_layer():
    """(d) The ODE layer of the ODE-Net, batch 16, t = 0, 0.5, 1: states, and gradients of sum(cotangents * states)."""
    import odenet
    graphs, theta = odenet.Graphs(BATCH), odenet.parameters("dynamics", DYNAMICS_SEED)
    f, augmented = graphs.flat_dynamics(theta)
    n, num_params = int(np.prod(graphs.state_shape)), sum(leaf.size for leaf in theta)
    ts = [0.0, 0.5, 1.0]
    # Cotangents of the size that averaging over pixels and digits gives them.
    z0, zs_bar = uniform(STATE_SEED, (n,)), uniform(COTANGENT_SEED, (len(ts), n)) / COTANGENT_DIVISOR
    solves, arrays = [], {}
    for method, first_step in ODENET_VARIANTS:
        record, options = variant(method, first_step)
        zs, forward = solve(method, f, z0, ts, CLASSIFICATION_TOLERANCE, **options)
        z0_bar, ts_bar, theta_bar, backward = reverse_sweep(method, f, augmented, ts, zs, zs_bar, num_params,
                                                            CLASSIFICATION_TOLERANCE, **options)
        leaves = split_like(theta_bar, theta)
        record.update([("forward", forward), ("backward", backward), ("times_bar", ts_bar)])
        solves.append(record)
        store(arrays, record["name"], zip(["states/1", "states/2", "y0_bar"] + odenet.parameter_names("dynamics"),
                                          [zs[1], zs[2], z0_bar] + leaves))
    return OrderedDict(batch=BATCH, shape=graphs.state_shape, tolerance=CLASSIFICATION_TOLERANCE, times=ts,
                       seeds=OrderedDict(params=DYNAMICS_SEED, y0=STATE_SEED, cotangents=COTANGENT_SEED, signs=SIGN_SEED),
                       cotangent_divisor=COTANGENT_DIVISOR, whole=WHOLE, solves=solves), arrays


def record_odenet_step():
    """(d) Loss and every gradient of one training step on 16 digits: Fortran called by autograd, calling TensorFlow."""
    import odenet
    graphs = odenet.Graphs(BATCH)
    with np.load(SAMPLE) as sample:
        images = sample["train_images"][:BATCH].astype(np.float32)[..., None] / np.float32(255)
        labels = sample["train_labels"][:BATCH].astype(np.int64)
    params = [odenet.parameters(part, seed) for part, seed in
              (("stem", STEM_SEED), ("dynamics", DYNAMICS_SEED), ("head", HEAD_SEED))]
    names = ["%s/%s" % (part, name) for part in odenet.LEAVES for name in odenet.parameter_names(part)]
    steps, arrays = [], {}
    for method, first_step in ODENET_VARIANTS:
        record, options = variant(method, first_step)
        loss = training_loss(graphs, method, options, images, labels, record)
        gradient = grad(lambda params: loss(*params))(params)
        steps.append(record)
        store(arrays, record["name"], zip(names, [leaf for part in gradient for leaf in part]))
    return OrderedDict(batch=BATCH, images=["train_images", 0, BATCH], labels=labels, tolerance=CLASSIFICATION_TOLERANCE,
                       seeds=OrderedDict(stem=STEM_SEED, dynamics=DYNAMICS_SEED, head=HEAD_SEED, signs=SIGN_SEED),
                       whole=WHOLE, steps=steps), arrays


def variant(method, first_step):
    """(the beginning of a record, options for solve) of one of ODENET_VARIANTS."""
    record = OrderedDict([("name", method + (" first_step %g" % first_step if first_step else "")), ("method", method),
                          ("first_step", first_step)])
    if method == "vode-adams" and not first_step:
        record["reason"] = FLOAT32_REASON
    return record, dict(diagonal=method.startswith("lsoda"), first_step=first_step)


def training_loss(graphs, method, options, images, labels, record):
    """loss(stem, dynamics, head parameters) as autograd sees it: three primitives; what the solves did goes into record."""
    @primitive
    def stem(*phi):
        return graphs.stem(images, *phi)

    def stem_vjp(argnums, z0, phi, kwargs):
        return lambda z0_bar: graphs.stem_vjp(z0_bar, images, *phi)

    @primitive
    def layer(z0, *theta):
        f, _ = graphs.flat_dynamics(theta)
        zs, record["forward"] = solve(method, f, z0.reshape(-1), (0.0, 1.0), CLASSIFICATION_TOLERANCE, **options)
        return zs[-1].reshape(z0.shape)

    def layer_vjp(argnums, z1, args, kwargs):
        z0, theta = args[0], args[1:]

        def vjp(z1_bar):
            f, augmented = graphs.flat_dynamics(theta)
            zs = np.stack([z0.reshape(-1).astype(np.float64), z1.reshape(-1)])
            zs_bar = np.stack([np.zeros(z0.size), z1_bar.reshape(-1).astype(np.float64)])
            z0_bar, _, theta_bar, record["backward"] = reverse_sweep(
                method, f, augmented, (0.0, 1.0), zs, zs_bar, sum(leaf.size for leaf in theta), CLASSIFICATION_TOLERANCE,
                **options)
            return [z0_bar.reshape(z0.shape).astype(np.float32)] + split_like(theta_bar.astype(np.float32), theta)

        return vjp

    @primitive
    def head_loss(z1, *psi):
        record["logits"], record["loss"] = graphs.head(z1, labels, *psi)
        return np.float64(record["loss"])

    def head_loss_vjp(argnums, loss, args, kwargs):
        return lambda loss_bar: [np.float32(loss_bar) * bar for bar in graphs.head_vjp(args[0], labels, *args[1:])]

    defvjp_argnums(stem, stem_vjp)
    defvjp_argnums(layer, layer_vjp)
    defvjp_argnums(head_loss, head_loss_vjp)
    return lambda phi, theta, psi: head_loss(layer(stem(*phi), *theta), *psi)


def split_like(flat, leaves):
    """Slices of flat with the shapes of leaves."""
    ends = np.cumsum([leaf.size for leaf in leaves])
    return [part.reshape(leaf.shape) for part, leaf in zip(np.split(flat, ends[:-1]), leaves)]


def store(arrays, prefix, named):
    """Put arrays into the dict: float32 where small, else 32 projections and the norm, all in float64."""
    for name, array in named:
        key = "%s/%s" % (prefix, name)
        if array.size <= WHOLE:
            arrays[key] = np.asarray(array, np.float32)
        else:
            arrays[key + "/projections"] = projections(SIGN_SEED, array)
            arrays[key + "/norm"] = np.sqrt(np.sum(np.asarray(array, np.float64)**2))


RECORDERS = OrderedDict([("forward", record_forward), ("adjoint", record_adjoint), ("classics", record_classics),
                         ("odenet_layer", record_odenet_layer), ("odenet_step", record_odenet_step)])


def stack():
    """The releases that recorded, as requirements.txt has them."""
    names = ["numpy", "scipy", "autograd"] + (["tensorflow"] if "tensorflow" in sys.modules else [])
    return OrderedDict([("python", platform.python_version())]
                       + [(name, pkg_resources.get_distribution(name).version) for name in names])


def write(folder, name, trace, arrays):
    write_json(os.path.join(folder, name + ".json"), trace)
    if arrays:
        write_arrays(os.path.join(folder, name + ".npz"), arrays)


def compare(old, new, name):
    """Where two folders differ in a trace."""
    lines = differences(name, *(read_json(os.path.join(folder, name + ".json")) for folder in (old, new)))
    path = os.path.join(new, name + ".npz")
    if os.path.exists(path):
        with np.load(os.path.join(old, name + ".npz")) as before, np.load(path) as after:
            lines += differences(name, *({key: file[key].tolist() for key in file.files} for file in (before, after)))
    return lines


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("names", nargs="*", metavar="NAME", help="traces to record (default: all)")
    parser.add_argument("--out", default=os.path.normpath(RESULTS), metavar="DIR", help="where they go (default: %(default)s)")
    parser.add_argument("--check", action="store_true", help="write nothing; compare with the traces in DIR")
    arguments = parser.parse_args()
    unknown = [name for name in arguments.names if name not in RECORDERS]
    if unknown:
        parser.error("unknown trace %s; known are %s" % (", ".join(unknown), ", ".join(RECORDERS)))
    if sys.version_info[:2] != (3, 6):
        parser.error("this is Python %s; the stack of 2018 needs 3.6 (README.md)" % platform.python_version())
    folder = tempfile.mkdtemp() if arguments.check else arguments.out
    os.makedirs(folder, exist_ok=True)
    differing = 0
    try:
        for name in arguments.names or RECORDERS:
            start = time.time()
            trace, arrays = RECORDERS[name]()
            write(folder, name, OrderedDict([("trace", name), ("stack", stack())] + list(trace.items())), arrays)
            lines = compare(arguments.out, folder, name) if arguments.check else []
            differing += len(lines)
            outcome = ("%d differences" % len(lines) if lines else "the same") if arguments.check else "written"
            print("%-13s %s (%.1f s)" % (name, outcome, time.time() - start), flush=True)
            for line in lines[:20]:
                print("    " + line[:200])
    finally:
        if arguments.check:
            shutil.rmtree(folder)
    return 1 if differing else 0


if __name__ == "__main__":
    sys.exit(main())
