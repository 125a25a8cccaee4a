import argparse
import os

import pytest

from kseq.training import output_folder


@pytest.mark.parametrize("path", [".", "new", "new/and/deep"])
def test_a_folder_that_is_there_or_may_be_is_taken_and_not_made(
    path, tmp_path, monkeypatch
):
    monkeypatch.chdir(tmp_path)
    assert str(output_folder(path)) == path
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("path", ["taken", "taken/in/it"])
def test_what_is_a_file_is_refused_before_anything_is_done(path, tmp_path, capsys):
    (tmp_path / "taken").write_text("mine")
    parser = argparse.ArgumentParser()
    parser.add_argument("--output", type=output_folder)
    with pytest.raises(SystemExit) as error:
        parser.parse_args(["--output", str(tmp_path / path)])
    assert error.value.code == 2
    printed = capsys.readouterr().err
    assert "must be a folder" in printed and "taken is a file" in printed
    assert (tmp_path / "taken").read_text() == "mine"


def test_where_one_may_not_write_is_refused(tmp_path, monkeypatch):
    monkeypatch.setattr(os, "access", lambda *_: False)  # root may write anywhere
    with pytest.raises(argparse.ArgumentTypeError, match="you may not write in"):
        output_folder(tmp_path / "new")
