"""What answers to questions take their numbers from: records of which a number that is missing leaves the question open."""


class NotMeasured(LookupError):
    """There is no record of an experiment that an answer needs; the argument is the command that makes one."""


class Numbers(dict):
    """Metrics or configuration of a record; what is not there leaves the question open."""

    def __init__(self, numbers, command):
        super().__init__(numbers)
        self.command = command

    def __missing__(self, name):
        raise NotMeasured(self.command)


def record_of(found, experiment):
    """The first paper-preset record of an experiment, for bench its only one, with metrics and configuration as Numbers."""
    command = "python -m experiments " + ("bench" if experiment == "bench" else f"run {experiment} --preset paper")
    for _, record in found:
        if record["experiment"] == experiment and (record["preset"] == "paper" or experiment == "bench"):
            return {**record, **{part: Numbers(record[part], command) for part in ("metrics", "configuration")}}
    raise NotMeasured(command)
