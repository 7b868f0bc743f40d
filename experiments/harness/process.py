"""This process: its standard streams, what it says unasked, and how it and its children end. Imports nothing heavy."""

import contextlib
import ctypes
import importlib.abc
import importlib.util
import logging
import os
import pickle
import re
import signal
import subprocess
import sys
import tempfile
import threading
import time

ENDING = tuple(getattr(signal, name) for name in ("SIGTERM", "SIGHUP") if hasattr(signal, name))
PATIENCE = 0.8  # seconds for tidying up that a process gives its children
OWN_PATIENCE = 1.5  # the same for itself: after that it ends, whatever it does
_PR_SET_PDEATHSIG = 1  # of linux/prctl.h


class Ended(SystemExit):
    """A signal of ENDING, as an exception: `with` and `finally` tidy up."""

    def __init__(self, number):
        super().__init__(128 + number)
        self.number = number


def open_streams():
    """Give a process started with `2>&-` and its like null devices, so that no file of its own becomes its standard error.

    What a stream cannot encode is written as an escape: no text is worth a run.
    """
    for number, name, mode in ((0, "stdin", "r"), (1, "stdout", "w"), (2, "stderr", "w")):
        try:
            os.fstat(number)
        except OSError:
            opened = os.open(os.devnull, os.O_RDWR)
            if opened != number:
                os.dup2(opened, number)
                os.close(opened)
            os.set_inheritable(number, True)
        if getattr(sys, name) is None:
            setattr(sys, name, open(number, mode, encoding="utf-8", closefd=False))
    for stream in (sys.stdout, sys.stderr):
        with contextlib.suppress(AttributeError):  # not a text file, in a notebook
            stream.reconfigure(errors="backslashreplace")


def end_on_signals():
    """From now on SIGTERM and SIGHUP raise Ended, or after OWN_PATIENCE end the process in the middle of whatever it does."""
    for number in ENDING:
        if signal.getsignal(number) is signal.SIG_DFL:  # nohup ignores SIGHUP, and means it
            signal.signal(number, _raise_ended)
    # Python's handlers wait for the main thread to come out of a library's code; the C level writes to a pipe at once.
    reading, writing = os.pipe()
    os.set_blocking(writing, False)
    signal.set_wakeup_fd(writing, warn_on_full_buffer=False)
    threading.Thread(target=_end_late, args=(reading,), daemon=True).start()


def _raise_ended(number, frame):
    for other in ENDING:
        signal.signal(other, signal.SIG_IGN)  # once is enough: tidying up is not to be broken off
    raise Ended(number)


def _end_late(reading):
    while (told := os.read(reading, 1)) and told[0] not in ENDING:
        pass
    threading.Event().wait(OWN_PATIENCE)
    say_what_ended(told[0])
    os._exit(128 + told[0])


_said = []


def say_what_ended(number):
    """A line on standard error, once, of the signal that ends this process."""
    if not _said:
        _said.append(number)
        os.write(2, f"ended by {signal.Signals(number).name}; the same command goes on from its checkpoints\n".encode())


def end_with_parent():
    """Let this process end when the one that started it does, however that ends."""
    _at_parents_death(signal.SIGKILL if hasattr(signal, "SIGKILL") else signal.SIGTERM)


def _at_parents_death(number):
    if sys.platform == "linux":
        with contextlib.suppress(OSError, AttributeError):
            ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, number)


def begin_worker(content):
    """The first thing that a process of a pool does: see that it ends with its parent, keep quiet, then do what else there is.

    content: (function, arguments), pickled by itself, since unpickling may import for seconds. Ctrl-C, which a terminal sends to
    every process, is left to the parent, and so is tidying up.
    """
    end_with_parent()
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    open_streams()
    quiet_tensorflow()
    function, arguments = pickle.loads(content)
    function(*arguments)


def end(processes):
    """Ask all of some Popen to end, and after PATIENCE kill those that have not."""
    for process in processes:
        process.terminate()
    last = time.monotonic() + PATIENCE
    for process in processes:
        try:
            process.wait(max(0.0, last - time.monotonic()))
        except subprocess.TimeoutExpired:
            process.kill()


# The last: TensorFlow 2.18 registers its plugins twice, GPU or none.
NOTE = re.compile(rb"I0000 |WARNING: All log messages|E0000 .* Unable to register cu\w+ factory")


def quiet_tensorflow():
    """Keep what TensorFlow says of processors, missing GPUs and retracing off standard error: it would bury the progress."""
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    logging.getLogger("tensorflow").setLevel(logging.ERROR)
    if "tensorflow" not in sys.modules and not any(isinstance(finder, _QuietFinder) for finder in sys.meta_path):
        sys.meta_path.insert(0, _QuietFinder())


class _QuietFinder(importlib.abc.MetaPathFinder):
    """Lets TensorFlow be imported without a word: its libraries log before they read TF_CPP_MIN_LOG_LEVEL."""

    def find_spec(self, name, path, target=None):
        if name != "tensorflow":
            return None
        sys.meta_path.remove(self)
        spec = importlib.util.find_spec(name)
        if spec is not None and spec.loader is not None:
            execute = spec.loader.exec_module
            spec.loader.exec_module = lambda module: _without_notes(lambda: execute(module))
        return spec


def _without_notes(work):
    """work(), after which lines of standard error that are no notes of TensorFlow's libraries are written."""
    sys.stderr.flush()
    original = os.dup(2)
    try:
        with tempfile.TemporaryFile() as caught:
            os.dup2(caught.fileno(), 2)
            try:
                return work()
            finally:
                os.dup2(original, 2)
                caught.seek(0)
                os.write(2, b"".join(line for line in caught if not NOTE.match(line)))
    finally:
        os.close(original)
