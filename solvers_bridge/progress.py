"""A line on the terminal for a solve that takes longer than a moment."""

from __future__ import annotations

import sys
import time

from tqdm import tqdm

SILENT_SECONDS = 1.5
LINE = "{desc}: {percentage:3.0f}%|{bar}| {n:.4g} of {total:.4g} [{elapsed}<{remaining}{postfix}]"


class Progress:
    """watch(t) of the evaluations of one solve from t_start to t_end: after 1.5 seconds, how far the time has come."""

    def __init__(self, method, t_start, t_end):
        self.method, self.t_start, self.length = method, float(t_start), abs(float(t_end) - float(t_start))
        self.begun, self.bar, self.calls = time.monotonic(), None, 0

    def __call__(self, t):
        self.calls += 1
        if self.bar is None:
            if time.monotonic() - self.begun < SILENT_SECONDS:
                return
            self.bar = tqdm(
                total=self.length,
                desc=self.method,
                bar_format=LINE,
                leave=False,
                file=sys.stderr,
                disable=None,
                dynamic_ncols=True,
            )
        done = min(abs(t - self.t_start), self.length)
        if done > self.bar.n:
            self.bar.update(done - self.bar.n)
        self.bar.set_postfix(evaluations=self.calls, refresh=False)

    def close(self):
        """Take the line away."""
        if self.bar is not None:
            self.bar.close()
