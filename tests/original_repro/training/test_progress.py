import io
import sys

from original_repro.training.progress import Progress
from tests.training_runs import small_run


class Terminal(io.StringIO):
    def isatty(self):
        return True


def test_plain_lines_where_there_is_no_terminal(monkeypatch, capsys):
    monkeypatch.setattr(Progress, "LINE_SECONDS", 0.0)
    small_run(progress=True)
    shown = capsys.readouterr()
    assert shown.out == ""
    lines = shown.err.splitlines()
    assert len(lines) == 24 + 4 and "\r" not in shown.err
    assert lines[0].startswith("epoch 1/4, step 1/24: loss ") and "nfe_forward 3" in lines[0] and lines[0].endswith(" left")
    assert lines[-1].startswith("epoch 4/4 done in ") and "norm 2." in lines[-1] and lines[-1].endswith("00:00 left")


def test_one_of_several_runs_has_lines_that_begin_with_its_name_and_no_bar(monkeypatch):
    terminal = Terminal()
    monkeypatch.setattr(Progress, "LINE_SECONDS", 0.0)
    monkeypatch.setattr(sys, "stderr", terminal)
    small_run(progress="the third")
    lines = terminal.getvalue().splitlines()
    assert len(lines) == 24 and all(line.startswith("the third: epoch ") and line.endswith(" left") for line in lines)


def test_a_bar_on_a_terminal(monkeypatch):
    terminal = Terminal()
    monkeypatch.setattr(sys, "stderr", terminal)
    small_run(progress=True)
    assert "24/24" in terminal.getvalue() and "epoch 4/4" in terminal.getvalue() and "accuracy" in terminal.getvalue()


def test_silence_where_it_is_wanted(capsys):
    small_run()
    assert capsys.readouterr() == ("", "")
