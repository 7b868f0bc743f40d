"""What the user sees of a run."""

import sys
import time

from tqdm import tqdm


class Progress:
    """A bar on a terminal, elsewhere a line every half-minute and at each epoch's end.

    wanted: a bool, or the run's name, which makes it one of several side by side: then lines alone, every half-minute, that begin
    with the name.
    """

    LINE_SECONDS = 30.0
    METRICS = ("loss", "accuracy", "nfe_forward", "nfe_backward")

    def __init__(self, wanted, epochs, total_steps):
        self.wanted, self.epochs, self.total_steps = wanted, epochs, total_steps
        self.bar = None

    def begin(self, step):
        """From now on show a run that has taken so many steps already."""
        self.first_step = step
        if self.wanted is True and sys.stderr.isatty():
            self.bar = tqdm(total=self.total_steps, initial=step, unit="step", dynamic_ncols=True)
        self.begun = self.written_at = time.monotonic()

    def __enter__(self):
        return self

    def __exit__(self, *exception):
        if self.bar is not None:
            self.bar.close()

    def step(self, epoch, step, metrics, count=1):
        """Show the metrics of one step, or the means of `count` steps."""
        if self.bar is not None:
            self.bar.set_postfix_str(f"epoch {epoch}/{self.epochs}, {self._text(metrics)}", refresh=False)
            self.bar.update(count)
        elif self.wanted and time.monotonic() - self.written_at >= self.LINE_SECONDS:
            name = "" if self.wanted is True else f"{self.wanted}: "
            self._write(
                f"{name}epoch {epoch}/{self.epochs}, step {step}/{self.total_steps}: {self._text(metrics)}{self._left(step)}"
            )

    def epoch(self, record):
        """Show an epoch's means and its evaluation."""
        if self.wanted is True:
            evaluation = ", ".join(f"{name} {value:.4g}" for name, value in record["evaluation"].items())
            self._write(
                f"epoch {record['epoch']}/{self.epochs} done in {tqdm.format_interval(record['wall_seconds'])}: "
                f"{self._text(record['train'])}{'; ' if evaluation else ''}{evaluation}{self._left(record['steps'])}"
            )

    def _text(self, metrics):
        return ", ".join(f"{name} {metrics[name]:.4g}" for name in self.METRICS if name in metrics)

    def _left(self, step):
        if step == self.first_step:
            return ""
        seconds = (time.monotonic() - self.begun) / (step - self.first_step) * (self.total_steps - step)
        return f", {tqdm.format_interval(seconds)} left"

    def _write(self, line):
        tqdm.write(line, file=sys.stderr)
        self.written_at = time.monotonic()
