"""A library's process, asked from here: long-lived, one thread, one question at a time, killed where it does not answer."""

import contextlib
import json
import os
import select
import subprocess
import sys
import time

from original_repro.children import ending_with_us
from original_repro.computed import REPOSITORY

from ...harness import environments
from .names import LIBRARIES

ONE_THREAD = {
    **dict.fromkeys(("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS", "NUMEXPR_NUM_THREADS"), "1"),
    **dict.fromkeys(("TF_NUM_INTRAOP_THREADS", "TF_NUM_INTEROP_THREADS"), "1"),
    "XLA_FLAGS": "--xla_cpu_multi_thread_eigen=false intra_op_parallelism_threads=1",
    "JAX_PLATFORMS": "cpu",
    "CUDA_VISIBLE_DEVICES": "",
    "TF_CPP_MIN_LOG_LEVEL": "3",
}
GRACE = 20.0  # seconds of wall clock for what cannot be interrupted, beside three times the processor's
LONGEST = 600.0  # seconds of wall clock for a question without a limit of its own


class Ended(RuntimeError):
    """The library's process ended, or was killed for being late; the next question starts a new one."""


def python_of(name, make):
    """The interpreter for a library: this one, or with `make`, where it needs other packages, an environment's of its own.

    Raises environments.Gap, saying why, where there is none.
    """
    entry = LIBRARIES[name]
    if make and entry.pins is not None:
        return environments.environment(
            f"modern-{entry.module.removeprefix('of_')}-{_short(entry.pins)}", sys.executable, entry.pins
        )
    if absent := entry.absent():
        raise environments.Gap(f"not installed here: {', '.join(absent)}")
    return sys.executable


def _short(pins):
    """The pins as part of a folder's name, so that other versions get another folder."""
    return "-".join(pin.rpartition("==")[2] for pin in pins)


class Client:
    """One library's process. `ask` gives its answers; after Ended the process is a new one, with nothing open.

    number: of the process among those that this client began; what was opened in one is not in the next.
    """

    def __init__(self, name, python):
        self.name, self.python, self.process, self.number, self.known = name, str(python), None, 0, None

    def about(self):
        """The library's versions, methods, and whether it compiles."""
        if self.known is None:
            self.known = self.ask("versions")
        return self.known

    def ask(self, question, seconds=None, **order):
        """The answer to a question; seconds: of processor time, after which the answer is {"late": True}.

        Raises Ended where the process ended, by itself or because it did not answer within three times that and GRACE, or within
        LONGEST.
        """
        if self.process is None:
            self._begin()
        line = json.dumps({"ask": question, **({"seconds": seconds} if seconds else {}), **order}) + "\n"
        try:
            self.process.stdin.write(line.encode())
            self.process.stdin.flush()
        except BrokenPipeError:
            self._ended()
        answer = self._read(LONGEST if seconds is None else 3 * seconds + GRACE)
        if "broken" in answer:
            raise RuntimeError(f"{self.name}: {answer['broken']}")
        return answer

    def _begin(self):
        command = [self.python, "-m", "experiments.comparison.modern.worker", self.name]
        self.number += 1
        environment = {**os.environ, **ONE_THREAD, "PYTHONPATH": str(REPOSITORY)}
        self.process = subprocess.Popen(
            ending_with_us(command),
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            env=environment,
            cwd=REPOSITORY,
        )

    def _read(self, seconds):
        """The line that the process answers within so many seconds of wall clock."""
        content, last = b"", time.monotonic() + seconds
        while not content.endswith(b"\n"):
            if not select.select([self.process.stdout], [], [], max(last - time.monotonic(), 0.0))[0]:
                self._ended(f"no answer within {seconds:.0f} s")
            read = os.read(self.process.stdout.fileno(), 1 << 16)
            if not read:
                self._ended()
            content += read
        return json.loads(content)

    def _ended(self, why=None):
        status = self.close()
        raise Ended(why or f"its process ended with status {status}")

    def close(self):
        """End the process; returns its status."""
        process, self.process = self.process, None
        if process is None:
            return None
        for stream in (process.stdin, process.stdout):
            with contextlib.suppress(OSError):
                stream.close()
        process.kill()
        return process.wait()
