"""python -m experiments: the command line as a program; what it does is in command_line."""

import os
import select
import signal
import sys

from .harness import process


def program():
    """Run the command of sys.argv and return the exit status; a signal, Ctrl-C or `| head` ends it without a traceback."""
    process.open_streams()
    process.end_on_signals()
    process.quiet_tensorflow()
    # Figures are written to files; what a notebook sets here may be a module that this environment lacks.
    os.environ["MPLBACKEND"] = "agg"
    try:
        # Not above: processes of a pool import this module too, and have to begin at once.
        from .command_line import main

        status = main()
        sys.stdout.flush()
        return status
    except process.Ended as ended:
        process.say_what_ended(ended.number)
        return ended.code
    except KeyboardInterrupt:
        print("interrupted; the same command goes on from its checkpoints", file=sys.stderr)
        return 128 + signal.SIGINT
    except BrokenPipeError:
        if not _nobody_reads(sys.stdout):
            raise
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # or Python would complain at its end
        return 128 + signal.SIGPIPE


def _nobody_reads(stream):
    """Whether a stream is a pipe whose other end is closed, as `| head` leaves it."""
    poll = select.poll()
    poll.register(stream.fileno(), 0)
    return any(events & select.POLLERR for _, events in poll.poll(0))


if __name__ == "__main__":
    raise SystemExit(program())
