"""What setup.cfg cannot say: the packages are found, and results/ goes along with them as experiments/results."""

from setuptools import find_packages, setup

setup(
    packages=[*find_packages(include=["solvers_bridge*", "original_repro*", "experiments*"]), "experiments.results"],
    package_dir={"experiments.results": "results"},
    package_data={
        "solvers_bridge": ["py.typed"],
        "original_repro": ["stack_2018/*"],
        "original_repro.datasets": ["mnist_sample.npz"],
        "experiments.results": ["reported.json", "runs/*/*.json", "weights/*.npz"],
    },
)
