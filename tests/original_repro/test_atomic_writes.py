"""Files that are whole or not there, and what a killed process leaves of them."""

import subprocess
import sys
import time

import pytest

from original_repro import locks
from original_repro.atomic_writes import write_atomically
from tests.helpers import ROOT

WRITES = """
import sys, time
from pathlib import Path
from original_repro import atomic_writes
atomic_writes.os.fsync = lambda file: time.sleep(600)
atomic_writes.write_atomically(Path(sys.argv[1]), b"new")
"""


@pytest.mark.skipif(locks.fcntl is None, reason="no file locks on this system")
def test_what_a_killed_write_left_is_removed_by_the_next_and_a_live_one_is_left_alone(tmp_path):
    path = tmp_path / "a [file].json"
    writers = [subprocess.Popen([sys.executable, "-c", WRITES, path], cwd=ROOT) for _ in range(2)]
    deadline = time.monotonic() + 60
    while len(list(tmp_path.iterdir())) < 2:
        assert time.monotonic() < deadline
        time.sleep(0.02)
    time.sleep(0.2)  # the lock follows at once
    writers[0].kill()
    writers[0].wait()
    write_atomically(path, b"content")
    assert len(list(tmp_path.glob("*.tmp"))) == 1
    writers[1].kill()
    writers[1].wait()
    write_atomically(path, b"content")
    assert list(tmp_path.iterdir()) == [path] and path.read_bytes() == b"content"
