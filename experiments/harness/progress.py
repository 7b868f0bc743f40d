"""How far a list of measurements has come, and how long the rest will take."""

import sys
import time

from tqdm import tqdm


class Progress:
    """For a `with` statement: a bar on a terminal, elsewhere a line every half-minute, on standard error.

    total: how many there are; what: their name; done: how many there are already.
    """

    LINE_SECONDS = 30.0

    def __init__(self, total, what, done=0):
        self.bar = tqdm(total=total, initial=done, desc=what, disable=None)
        self.count, self.total, self.what, self.before = done, total, what, done
        self.begun = self.written_at = time.monotonic()

    def __enter__(self):
        return self

    def __exit__(self, *exception):
        self.bar.close()

    def done(self, last, always=False):
        """Count one, which `last` describes; always: with a line of its own."""
        self.count += 1
        self.bar.update()
        if always:
            self.bar.write(last, file=sys.stderr)
        elif self.bar.disable and time.monotonic() - self.written_at >= self.LINE_SECONDS:
            print(f"{self.count} of {self.total} {self.what}, {self._left()} left, the last: {last}", file=sys.stderr, flush=True)
            self.written_at = time.monotonic()

    def _left(self):
        """As if what is left took as long, piece by piece, as what was done here."""
        seconds = time.monotonic() - self.begun
        return tqdm.format_interval(seconds / (self.count - self.before) * (self.total - self.count))
