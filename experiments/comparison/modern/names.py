"""The libraries that are compared, each with its class and what its environment holds. Imports none of them."""

import importlib
import importlib.util
from typing import NamedTuple


class Entry(NamedTuple):
    """module and cls: its class. packages: what imports say that it is installed. pins: its environment, None for this one."""

    module: str
    cls: str
    packages: tuple
    pins: tuple | None = None

    def absent(self):
        """Those of `packages` that are not installed here."""
        return [package for package in self.packages if importlib.util.find_spec(package) is None]

    def load(self):
        """The class, whose module imports the library."""
        return getattr(importlib.import_module(f"{__package__}.{self.module}"), self.cls)


TORCH, JAX, NUMPY = "torch==2.13.0", ("jax==0.10.2", "jaxlib==0.10.2"), "numpy==2.4.6"
LIBRARIES = {
    "solvers_bridge, autograd": Entry("of_solvers_bridge", "OfAutograd", ("autograd",)),
    "solvers_bridge, graph": Entry("of_solvers_bridge", "OfGraph", ("tensorflow",)),
    "solvers_bridge, native": Entry("of_solvers_bridge", "OfNative", ("tensorflow",)),
    "autograd's odeint": Entry("of_autograd", "AutogradOwn", ("autograd",)),
    "torchdiffeq": Entry(
        "of_torchdiffeq", "Torchdiffeq", ("torch", "torchdiffeq"), (NUMPY, TORCH, "torchdiffeq==0.2.5", "scipy==1.16.3")
    ),
    "torchode": Entry("of_torchode", "Torchode", ("torch", "torchode"), (NUMPY, TORCH, "torchode==1.0.1")),
    "diffrax": Entry("of_diffrax", "Diffrax", ("jax", "diffrax"), (NUMPY, *JAX, "diffrax==0.7.2")),
    "jax.experimental.ode": Entry("of_jax", "JaxExperimental", ("jax",), (NUMPY, *JAX)),
    "TensorFlow Probability": Entry(
        "of_tfp",
        "TensorFlowProbability",
        ("tensorflow_probability", "tf_keras"),
        (NUMPY, "tensorflow==2.21.0", "tf-keras==2.21.0", "tensorflow-probability==0.25.0"),
    ),
    "SciPy": Entry("of_scipy", "SciPy", ("scipy",)),
}
