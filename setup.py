"""What setup.cfg cannot say: a wheel holds what the commands need of results/, as experiments/results."""

import shutil
from pathlib import Path

from setuptools import find_packages, setup
from setuptools.command.build_py import build_py

RESULTS = ("reported.json", "runs/*/*.json", "weights/*.npz")


class BuildWithResults(build_py):
    """Packages and results, into a folder without modules of earlier builds; nothing more where the checkout itself is used."""

    def run(self):
        if not self.editable_mode:
            shutil.rmtree(self.build_lib, ignore_errors=True)
        super().run()
        if not self.editable_mode:
            for source in (path for pattern in RESULTS for path in sorted(Path("results").glob(pattern))):
                target = Path(self.build_lib, "experiments", source)
                self.mkpath(str(target.parent))
                self.copy_file(str(source), str(target))


setup(
    cmdclass={"build_py": BuildWithResults},
    packages=find_packages(include=["solvers_bridge*", "original_repro*", "experiments*"]),
    package_data={
        "solvers_bridge": ["py.typed"],
        "solvers_bridge.dynamics.native": ["*.cpp", "*.h"],
        "original_repro": ["stack_2018/*"],
        "original_repro.datasets": ["mnist_sample.npz", "mnist_test.npz"],
    },
)
