"""Tables and numbers in Markdown."""

from tabulate import tabulate

from .statistics import mean_and_deviation


def markdown_table(headers, rows):
    """A Markdown table; nothing where there are no rows."""
    return tabulate(rows, headers=headers, tablefmt="github", disable_numparse=True) if rows else ""


def over_seeds(records, metric):
    """A metric's mean over records in words, ± its standard deviation where there are several; nothing where one lacks it."""
    values = [record["metrics"].get(metric) for record in records]
    if None in values:
        return ""
    mean, deviation = mean_and_deviation(values)
    return f"{mean:.4f}" + ("" if deviation is None else f" ± {deviation:.4f}")


def with_standard_error(metrics, name, form="{:.4f}"):
    """A metric with its standard error, <name>_se, where there is one; nothing where there is no such metric."""
    if metrics.get(name) is None:
        return ""
    error = metrics.get(f"{name}_se")
    return form.format(metrics[name]) + ("" if error is None else f" ± {form.format(error)}")
