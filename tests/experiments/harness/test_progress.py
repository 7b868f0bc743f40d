"""The lines that a list of measurements writes where there is no terminal."""

from experiments.harness.progress import Progress


def test_lines_tell_how_long_the_rest_will_take(monkeypatch, capsys):
    clock = iter([0.0, 40.0, 40.0, 40.0, 60.0, 80.0, 80.0, 80.0])
    monkeypatch.setattr("experiments.harness.progress.time.monotonic", lambda: next(clock))
    with Progress(6, "parts", done=2) as shown:
        for name in ("a", "b", "c"):
            shown.done(name)
    assert capsys.readouterr().err.splitlines() == [
        "3 of 6 parts, 02:00 left, the last: a",
        "5 of 6 parts, 00:26 left, the last: c",
    ]
