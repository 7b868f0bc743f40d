"""A function of one task in a process of its own that ends with the one that asked for it, where multiprocessing starts none.

As python -m experiments.harness.own_process it is that process: the function and its task come through standard input, which
stays open as long as the other process lives.
"""

import os
import pickle
import subprocess
import sys
import threading


def call(function, task, environment):
    """function(task) in a fresh process with these environment variables besides ours. Raises what it raised."""
    command = [sys.executable, "-m", __name__]
    paths = os.pathsep.join(path for path in sys.path if path)
    process = subprocess.Popen(
        command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, env={**os.environ, **environment, "PYTHONPATH": paths}
    )
    try:
        pickle.dump((function, task), process.stdin)
        process.stdin.flush()
        answer = process.stdout.read()
    except BaseException:
        process.kill()
        raise
    finally:
        process.stdin.close()
        process.stdout.close()
        status = process.wait()
    if not answer:
        raise RuntimeError(f"the process of a task ended with status {status} and no result")
    value, error = pickle.loads(answer)
    if error is not None:
        raise error
    return value


def main():
    """Do what standard input says."""
    answers = os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)  # what the function prints is no part of the answer
    function, task = pickle.load(sys.stdin.buffer)
    threading.Thread(target=_end_with_the_other, daemon=True).start()
    try:
        answer = function(task), None
    except Exception as error:
        answer = None, error
    pickle.dump(answer, answers)
    answers.flush()


def _end_with_the_other():
    # By the descriptor: the buffer's lock would be held while Python ends.
    while os.read(0, 1024):
        pass
    os._exit(1)


if __name__ == "__main__":
    main()
