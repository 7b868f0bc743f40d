"""What a record says of the repository it was made in, and where files are taken from that a folder lacks."""

import shutil
import subprocess
from pathlib import Path

import pytest

from experiments.harness import records
from original_repro import computed

GIT = ["git", "-c", "user.name=one", "-c", "user.email=one@example.org"]


@pytest.fixture
def repository(tmp_path, monkeypatch):
    """A repository with a commit, as the one in which our packages lie; returns (folder, commit)."""

    def git(*arguments):
        return subprocess.run([*GIT, *arguments], cwd=tmp_path, check=True, capture_output=True, text=True).stdout.strip()

    (tmp_path / "readme.txt").write_text("one\n")
    git("init", "--quiet")
    git("add", "readme.txt")
    git("commit", "--quiet", "--message", "one")
    monkeypatch.setattr(computed, "REPOSITORY", tmp_path.resolve())
    monkeypatch.setattr(computed, "PACKAGED", tmp_path / "experiments" / "results")
    return tmp_path, git("rev-parse", "HEAD")


def test_the_commit_of_a_checkout(repository):
    folder, commit = repository
    assert computed.git_commit() == commit
    (folder / "results").mkdir()
    (folder / "results" / "new.txt").write_text("a result\n")
    assert computed.git_commit() == commit
    (folder / "readme.txt").write_text("another\n")
    assert computed.git_commit() == f"{commit}+changes"


def test_the_commit_of_a_checkout_of_somebody_elses(repository, monkeypatch):
    """git has a variable by which its own tests pretend that."""
    _, commit = repository
    monkeypatch.setenv("GIT_TEST_ASSUME_DIFFERENT_OWNER", "1")
    assert subprocess.run(["git", "status"], cwd=repository[0], capture_output=True).returncode
    assert computed.git_commit() == commit


def test_the_repository_around_an_installed_copy_is_not_ours(repository):
    folder, _ = repository
    (folder / "experiments" / "results").mkdir(parents=True)
    assert computed.git_commit() is None


def test_a_repository_further_out_is_not_ours(repository, monkeypatch):
    folder, _ = repository
    (folder / "copy").mkdir()
    monkeypatch.setattr(computed, "REPOSITORY", folder.resolve() / "copy")
    assert computed.git_commit() is None


def test_outside_a_repository_there_is_no_commit(repository):
    folder, _ = repository
    shutil.rmtree(folder / ".git")
    assert computed.git_commit() is None


def test_a_file_that_the_default_folder_lacks_is_taken_from_what_we_ship(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    asked = Path("results/weights/table1_mnist-paper-seed0.npz")
    shipped = records.RESULTS / "weights" / "table1_mnist-paper-seed0.npz"
    assert records.kept(asked) == shipped and shipped.is_file()
    assert f"taking what comes with the project, {shipped}" in capsys.readouterr().err
    asked.parent.mkdir(parents=True)
    asked.touch()
    assert records.kept(asked) == asked


@pytest.mark.parametrize("asked", (Path("mine/weights/table1_mnist-paper-seed0.npz"), Path("results/weights/no_such.npz")))
def test_nothing_else_is(tmp_path, monkeypatch, capsys, asked):
    monkeypatch.chdir(tmp_path)
    assert records.kept(asked) == asked
    assert not capsys.readouterr().err
