"""A TensorFlow function as a shared library of plain machine code, by TensorFlow's ahead-of-time compiler and the C++ compiler.

What `saved_model_cli aot_compile_cpu` does, without its SavedModel, its session, and the XLA_FLAGS that it leaves behind in the
environment: its compiler writes an object file of kernels and a C++ header with their schedule and buffers. callbacks.cpp makes
of the two what Fortran can call.
"""

from __future__ import annotations

import functools
import hashlib
import json
import os
import platform
import re
import shlex
import shutil
import subprocess
import sys
from pathlib import Path
from typing import NamedTuple

import tensorflow as tf

from ..tensorflow_call import in_fresh_thread

SOURCES = Path(__file__).parent
# What header and stand-ins know; anything else is refused by name.
THUNKS = {"Kernel", "Dot", "Copy", "Conditional", "While", "Call"}
LOWEST_TENSORFLOW = (2, 21)
# saved_model_cli's: matrix products in one thread, and none of the fusions that only XLA's own runtime can call.
XLA_FLAGS = "--xla_cpu_multi_thread_eigen=false --xla_cpu_experimental_ynn_fusion_type= "


class NativeError(RuntimeError):
    """A graph cannot be compiled ahead of time here: no C++ compiler, or an operation, a TensorFlow or a machine it cannot do."""


class Program(NamedTuple):
    """A graph to be compiled, and all that its compilation depends on: plain values, which pickle.

    graph : bytes of a GraphDef; feeds : (node, dtype, shape) of its arguments; fetch : (node, output) of its result.
    """

    graph: bytes
    feeds: tuple
    fetch: tuple

    def key(self):
        """Name in the cache: a hash of the graph, its types and shapes, TensorFlow, the processor and this package's source."""
        digest = hashlib.sha256(self.graph)
        source = [
            (SOURCES / name).read_bytes() for name in ("callbacks.cpp", "drive.h", "stand_ins.h", "build.py", "tfcompile.py")
        ]
        for part in (repr((self.feeds, self.fetch, tf.__version__, _target())).encode(), *source):
            digest.update(hashlib.sha256(part).digest())
        return digest.hexdigest()[:40]


def program(function, specs):
    """The Program of function(*tensors) -> tensor, traced at TensorSpecs of fully known shapes.

    Raises NativeError for what would be another function once compiled (a Variable, whose value would be frozen; random
    numbers), and for convolutions, which are many times slower there than in oneDNN.
    """
    from tensorflow.python.framework.convert_to_constants import convert_variables_to_constants_v2

    concrete = in_fresh_thread(tf.function(function).get_concrete_function, *specs)
    if concrete.variables or any(value.dtype == tf.resource for value in concrete.captured_inputs):
        raise NativeError("func uses a tf.Variable, whose value would be frozen when compiled; pass it in params")
    frozen = convert_variables_to_constants_v2(concrete)
    if len(frozen.inputs) != len(specs):
        raise NativeError("func uses a tensor that cannot be made a constant when compiled; pass it in params")
    graph = frozen.graph.as_graph_def()
    _refuse_operations({node.op for node in _nodes(graph)})
    _remove_what_changes_between_traces(graph)
    feeds = tuple((tensor.op.name, tensor.dtype.as_datatype_enum, tuple(tensor.shape)) for tensor in frozen.inputs)
    (output,) = frozen.outputs
    return Program(graph.SerializeToString(deterministic=True), feeds, (output.op.name, output.value_index))


def _nodes(graph):
    return [*graph.node, *(node for function in graph.library.function for node in function.node_def)]


def _refuse_operations(operations):
    convolutions = sorted(op for op in operations if "Conv" in op)
    if convolutions:
        raise NativeError(f"func has convolutions ({', '.join(convolutions)}), which oneDNN does faster: use compiler='graph'")
    random = sorted(op for op in operations if op.startswith(("Random", "TruncatedNormal", "ParameterizedTruncated")))
    if random:
        raise NativeError(f"func draws random numbers ({', '.join(random)}), which are no function of (t, y, params)")


def _remove_what_changes_between_traces(graph):
    """Drop counters of TensorFlow's, and the order of nodes, which have no influence: the cache would not know a graph again."""
    graph.node.sort(key=lambda node: node.name)
    graph.library.function.sort(key=lambda function: function.signature.name)
    for node in _nodes(graph):
        node.ClearField("experimental_debug_info")
        for name in [name for name in node.attr if name.startswith("_")]:
            del node.attr[name]


def compile_library(program, folder):
    """Path of the shared library of a Program, made in folder. Raises NativeError."""
    check_tensorflow()
    compiler = cpp_compiler()
    _tfcompile(program, folder)
    _check_header(folder / "graph.h")
    library = folder / "graph.so"
    include = tf.sysconfig.get_include()
    command = [
        *compiler, "-std=c++17", "-O3", _own_instructions(), "-ffp-contract=off", "-fPIC", "-shared", "-fvisibility=hidden", "-w",
        "-Wl,-Bsymbolic", "-Wl,-z,defs",
        '-DGRAPH_HEADER="graph.h"', f"-I{folder}", f"-I{SOURCES}", f"-I{include}",
        str(SOURCES / "callbacks.cpp"), str(folder / "kernels.o"), str(folder / "constants.o"), "-o", str(library),
    ]  # fmt: skip
    try:
        subprocess.run(command, check=True, capture_output=True, encoding="utf-8", errors="replace")
    except OSError as error:
        raise NativeError(f"the C++ compiler {compiler[0]!r} does not run: {error}") from error
    except subprocess.CalledProcessError as error:
        what = f"the C++ compiler refused a graph compiled by TensorFlow {tf.__version__}"
        raise NativeError(f"{what}:\n{error.stderr[-2000:]}") from error
    return library


def _own_instructions():
    """The C++ compiler's option for this processor's vector instructions, for which the key in the cache stands."""
    return "-mcpu=native" if platform.machine().lower() in ("aarch64", "arm64") else "-march=native"


def check_tensorflow():
    """NativeError if this TensorFlow's compiler is older than the one that we were made for: 2.18's lacks options of it."""
    if tuple(map(int, tf.__version__.split(".")[:2])) < LOWEST_TENSORFLOW:
        needed = ".".join(map(str, LOWEST_TENSORFLOW))
        raise NativeError(f"compiler='native' needs TensorFlow {needed}, this is {tf.__version__}: use compiler='graph'")


def cpp_compiler():
    """The C++ compiler's command as a list: $CXX if set, else the first of c++, g++, clang++. NativeError if there is none."""
    command = shlex.split(os.environ.get("CXX", ""))
    if command and not shutil.which(command[0]):
        raise NativeError(f"the C++ compiler {command[0]!r}, of $CXX, does not run: there is no such program")
    if command:
        return command
    for name in ("c++", "g++", "clang++"):
        if shutil.which(name):
            return [name]
    raise NativeError("there is no C++ compiler (c++, g++ or clang++ in PATH, or $CXX), which compiler='native' needs")


def _tfcompile(program, folder):
    """Write graph.h, kernels.o and constants.o."""
    from tensorflow.compiler.tf2xla import tf2xla_pb2

    config = tf2xla_pb2.Config()
    for i, (node, dtype, shape) in enumerate(program.feeds):
        feed = config.feed.add(name=f"argument{i}", type=dtype, shape=tf.TensorShape(shape).as_proto())
        feed.id.node_name = node
    fetch = config.fetch.add(name="result")
    fetch.id.node_name, fetch.id.output_index = program.fetch
    (folder / "graph.pb").write_bytes(program.graph)
    (folder / "graph.config.pbtxt").write_text(str(config), encoding="utf-8")
    triple, cpu, _ = _target()
    options = dict(
        graph=str(folder / "graph.pb"),
        config=str(folder / "graph.config.pbtxt"),
        target_triple=triple,
        target_cpu=cpu,
        entry_point="solvers_bridge_graph",
        cpp_class="solvers_bridge::Graph",
        out_header=str(folder / "graph.h"),
        out_function_object=str(folder / "kernels.o"),
        out_metadata_object=str(folder / "metadata.o"),
        out_constant_buffers_object=str(folder / "constants.o"),
        gen_name_to_index=False,
        gen_program_shape=False,
    )
    answer = subprocess.run(
        [sys.executable, "-P", str(SOURCES / "tfcompile.py"), os.path.dirname(tf.__file__)],
        input=json.dumps(options),
        env={**os.environ, "XLA_FLAGS": XLA_FLAGS, "TF_CPP_MIN_LOG_LEVEL": "2"},
        capture_output=True,
        encoding="utf-8",
        errors="replace",
    )
    if answer.returncode != 0:
        raise NativeError(
            f"the ahead-of-time compiler of TensorFlow {tf.__version__} refuses the graph (status {answer.returncode}): "
            f"{answer.stderr[-2000:].strip()}"
        )


def _check_header(path):
    """Refuse what the stand-ins do not serve, and let the header include nothing by itself."""
    header = path.read_text(encoding="utf-8")
    unknown = sorted(set(re.findall(r"^ *// (\w+) Thunk$", header, re.MULTILINE)) - THUNKS)
    if unknown:
        raise NativeError(f"func needs {', '.join(unknown)} (sorting, say) of TensorFlow's runtime: use compiler='graph'")
    path.write_text(re.sub(r'^#include ".*"$', "", header, flags=re.MULTILINE), encoding="utf-8")


@functools.cache
def _target():
    """(LLVM's triple, its name of the processor's level, the processor's features) of this machine."""
    machine, features = platform.machine().lower(), _processor_features()
    if platform.system() != "Linux" or machine not in ("x86_64", "amd64", "aarch64"):
        raise NativeError(f"compiler='native' was made for Linux on x86-64 and aarch64, not {platform.system()} on {machine}")
    if machine == "aarch64":
        return "aarch64-pc-linux", "", features
    return "x86_64-pc-linux", next(name for name, needed in X86_LEVELS if needed <= set(features)), features


# Levels of the x86-64 psABI, by those of their features that no processor has without the rest.
X86_LEVELS: tuple[tuple[str, set[str]], ...] = (
    ("x86-64-v4", {"avx512f", "avx512bw", "avx512cd", "avx512dq", "avx512vl", "avx2", "fma", "bmi2"}),
    ("x86-64-v3", {"avx2", "fma", "bmi1", "bmi2", "f16c", "movbe"}),
    ("x86-64-v2", {"sse4_2", "popcnt", "ssse3"}),
    ("x86-64", set()),
)


def _processor_features():
    for line in Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines():
        name, _, value = line.partition(":")
        if name.strip() in ("flags", "Features"):
            return tuple(sorted(value.split()))
    return ()
