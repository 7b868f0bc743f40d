"""What the experiments on synthetic problems have as settings."""

from dataclasses import dataclass

from .. import Settings, option
from ..harness.workers import available_cores


@dataclass(frozen=True, kw_only=True)
class RunSettings(Settings):
    """Settings of a run of many trainings."""

    workers: int = option(
        available_cores(), "trainings at a time (default: number of cores)", type=int, least=1, metavar="N", named=False
    )
