import argparse
import os

import pytest

from kseq.training import cli
from kseq.training.cli import folder


@pytest.mark.parametrize("path", [".", "new", "new/and/deep"])
def test_accepts_an_existing_or_new_folder_without_creating_it(
    path, tmp_path, monkeypatch
):
    monkeypatch.chdir(tmp_path)
    assert str(folder(path)) == path
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("path", ["taken", "taken/in/it"])
def test_rejects_a_file_and_a_path_inside_a_file(path, tmp_path, capsys):
    (tmp_path / "taken").write_text("mine")
    parser = argparse.ArgumentParser()
    parser.add_argument("--output", type=folder)
    with pytest.raises(SystemExit) as error:
        parser.parse_args(["--output", str(tmp_path / path)])
    assert error.value.code == 2
    printed = capsys.readouterr().err
    assert "must be a folder" in printed and "taken is a file" in printed
    assert (tmp_path / "taken").read_text() == "mine"


def test_rejects_a_folder_without_write_permission(tmp_path, monkeypatch):
    def forbid(path, *_):
        raise PermissionError(13, "Permission denied", path)

    monkeypatch.setattr(os, "mkdir", forbid)  # root may write anywhere
    with pytest.raises(
        argparse.ArgumentTypeError, match="written to: Permission denied"
    ):
        folder(tmp_path / "new")


@pytest.mark.parametrize("name", ["/proc/new", "/proc", "n" * 300, "link", "link/new"])
def test_rejects_a_folder_that_cannot_be_written(name, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    os.symlink("nowhere", "link")
    with pytest.raises(argparse.ArgumentTypeError, match=f"Received: {name}, but "):
        folder(name)
    assert os.listdir() == ["link"]


def test_existing_folders_are_unchanged(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "old").mkdir()
    assert [str(folder(path)) for path in ("old", "old/new", ".")]
    assert os.listdir() == ["old"] and os.listdir("old") == []


@pytest.mark.parametrize(
    "kind, text, value",
    [
        (cli.count, "1", 1),
        (cli.positive, "2e-3", 0.002),
        (cli.share, "0", 0.0),
        (cli.share, ".99", 0.99),
        (cli.probability, "1", 1.0),
        (cli.seed, "0", 0),
        (cli.seed, "4294967295", 4294967295),
    ],
)
def test_accepts_valid_numbers(kind, text, value):
    assert kind(text) == value and type(kind(text)) is type(value)


@pytest.mark.parametrize(
    "kind, texts, message",
    [
        (cli.count, ["0", "-1", "1.5", "ten", "nan", ""], "of at least 1"),
        (cli.positive, ["0", "-1", "nan", "inf", "x"], "a number above 0"),
        (cli.share, ["1", "-.1", "nan", "1.5"], "from 0 to below 1"),
        (cli.probability, ["0", "1.1", "nan"], "above 0, up to 1"),
        (cli.seed, ["-1", "4294967296", "1.0"], "from 0 to 4294967295"),
    ],
)
def test_error_for_an_invalid_number_names_its_flag(kind, texts, message, capsys):
    parser = argparse.ArgumentParser()
    parser.add_argument("--flag", type=kind)
    for text in texts:
        with pytest.raises(SystemExit):
            parser.parse_args([f"--flag={text}"])
        printed = capsys.readouterr().err
        assert "argument --flag: must be a" in printed and message in printed
        assert f"Received: {text}." in printed
