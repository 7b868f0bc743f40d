"""TensorFlow's ahead-of-time compiler, run as a process of its own by build.py: python tfcompile.py TENSORFLOW < options.

A process, because XLA reads its flags once: the user's process has them as they were when it first used XLA. TENSORFLOW is the
directory of the package; options are the compiler's own, in JSON.
"""

import json
import sys
import types


def load(directory):
    """The compiler's module without the rest of TensorFlow, which would take several seconds to import."""
    packages = {"tensorflow": directory, "tensorflow.python": f"{directory}/python"}
    try:
        for name, path in packages.items():
            sys.modules[name] = types.ModuleType(name)
            sys.modules[name].__path__ = [path]
        from tensorflow.python import _pywrap_tfcompile
    except ImportError:
        for name in packages:
            del sys.modules[name]
        sys.path.insert(0, directory.rpartition("/")[0])
        from tensorflow.python import _pywrap_tfcompile
    return _pywrap_tfcompile


if __name__ == "__main__":
    try:
        load(sys.argv[1]).Compile(**json.load(sys.stdin))
    except Exception as error:  # whatever it is, the parent raises it as one of its own
        print(error, file=sys.stderr)
        sys.exit(1)
