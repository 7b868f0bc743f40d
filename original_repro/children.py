"""Commands as children of this process that do not outlive it, however it ends."""

import os
import subprocess
import sys

# Between fork and exec of a child there may be no Python of ours, and after exec the child knows nothing of us: so a small Python
# asks the kernel to be killed with its parent, which holds after exec, and then becomes the command.
_BECOME = (
    "import ctypes, os, sys; ctypes.CDLL(None).prctl(1, 9); parent, command = int(sys.argv[1]), sys.argv[2:]\n"
    "os.execvp(command[0], command) if os.getppid() == parent else sys.exit(1)\n"
)


def ending_with_us(command):
    """A command, as a list, for subprocess, that the system kills when this thread ends; as it was where there is no such way."""
    if sys.platform != "linux":
        return list(command)
    return [sys.executable, "-I", "-S", "-c", _BECOME, str(os.getpid()), *map(str, command)]


def run(command, **options):
    """subprocess.run of a command that does not outlive this thread, its output captured as text in UTF-8."""
    return subprocess.run(ending_with_us(command), capture_output=True, encoding="utf-8", errors="replace", **options)
