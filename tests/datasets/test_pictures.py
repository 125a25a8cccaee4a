"""Emoji, and folders of the user's own pictures."""

import collections
import os

import numpy as np
import pytest
from PIL import Image

from kseq import datasets
from kseq.datasets.emoji import TONES, base_of, held_out_tones

needs_emoji = pytest.mark.skipif(
    not os.path.isdir(os.path.join(os.environ.get("KSEQ_DATA_DIR", ""), "emoji")),
    reason="needs the data set emoji in KSEQ_DATA_DIR",
)


@needs_emoji
def test_each_held_out_emoji_is_seen_in_all_other_tones():
    parts = {lang: datasets.load("emoji", language=lang) for lang in ("en", "ko")}
    (train, _, bases, tones), test = parts["en"]["train"], parts["en"]["test"]
    assert train.shape == (3628, 32, 32, 3) and test[0].shape == (158, 32, 32, 3)
    assert train.dtype == "uint8"
    seen = set(zip(bases, tones, strict=True))
    counts = collections.Counter(test[3])
    assert set(counts) == set(TONES) and max(counts.values()) - min(counts.values()) < 2
    for base, tone in zip(test[2], test[3], strict=True):
        assert {t for t in TONES if (base, t) in seen} == {*TONES} - {tone}
    assert test[1][0].endswith("skin tone") and parts["ko"]["test"][1][0].endswith(
        "피부"
    )


def test_tones_are_held_out_in_turn():
    bases = ["a"] * 5 + ["b"] * 5 + ["c"] * 4 + ["d"] * 5 + ["e"]
    tones = [*TONES, *TONES, *TONES[:4], *TONES[::-1], ""]
    assert held_out_tones(bases, tones) == [0, 17]  # of a and d; c has not all five
    assert base_of("1F44B-1F3FB", "1F3FB") == "1F44B"
    assert base_of("270B-FE0F", "") == "270B"


def test_rejects_an_unknown_language():
    with pytest.raises(ValueError, match="en, ko, fr.*'de'"):
        datasets.load("emoji", language="de")


def test_error_says_where_files_without_an_address_go(tmp_path, monkeypatch):
    monkeypatch.setenv("KERAS_HOME", str(tmp_path))
    monkeypatch.delenv("KSEQ_DATA_DIR", raising=False)
    with pytest.raises(
        ValueError, match=r"no public address.*no file \$KSEQ_DATA_DIR/emoji"
    ):
        datasets.load("emoji")
    (tmp_path / "emoji").mkdir()
    with pytest.raises(ValueError, match="emoji.tsv.*into its subfolder emoji"):
        datasets.load("emoji", directory=tmp_path)


@pytest.fixture
def folder(tmp_path):
    Image.new("RGB", (20, 10), "red").save(tmp_path / "red.png")
    Image.new("RGBA", (8, 8), (0, 0, 255, 0)).save(tmp_path / "clear.png")
    Image.fromarray(np.full((6, 6), 65535, "uint16")).save(tmp_path / "deep.png")
    Image.new("L", (1, 1), 0).save(tmp_path / "dot.png")
    names = "red.png clear.png deep.png dot.png".split()
    lines = [f"{name}\ta {name} 그림" for name in names]
    (tmp_path / "captions.tsv").write_text("\n".join(lines) + "\n\n", "utf-8")
    return tmp_path


def test_pictures_of_any_kind_become_squares_on_white(folder):
    pictures, captions = datasets.read_pictures(folder, size=8)
    assert pictures.shape == (4, 8, 8, 3) and pictures.dtype == "uint8"
    assert captions[0] == "a red.png 그림"
    red, clear, deep, dot = pictures
    assert (red[0] == 255).all() and (red[4] == [255, 0, 0]).all()
    assert (clear == 255).all() and (deep == 255).all() and (dot == 0).all()


def test_file_names_match_in_composed_and_decomposed_form(tmp_path):
    name = "\u1112\u1161.png"  # 하, as two letters
    Image.new("RGB", (2, 2), "red").save(tmp_path / name)
    (tmp_path / "captions.tsv").write_text("하.png\t빨강\n하.png\tred\n", "utf-8")
    pictures, captions = datasets.read_pictures(tmp_path, size=2)
    assert captions == ["빨강", "red"] and (pictures == [255, 0, 0]).all()
    with pytest.raises(ValueError, match="at least 3 lines. Received: 2"):
        datasets.read_pictures(tmp_path, at_least=3)


def test_warns_of_pictures_without_a_caption(folder):
    (folder / "captions.tsv").write_text("red.png\tred\n", "utf-8")
    with pytest.warns(UserWarning, match="3 pictures of .* have no caption, such as"):
        pictures, _ = datasets.read_pictures(folder)
    assert len(pictures) == 1


def grey(numbers, kind):
    return Image.fromarray(np.resize(numbers, (4, 4)).astype(kind))


@pytest.mark.parametrize(
    "picture, message",
    [
        (Image.new("RGB", (1000, 1), "red"), "of 1000 x 1"),
        (grey([0, 4095], "uint16"), "black, with a maximum of 4095 of 65535"),
        (grey([0, np.nan], "float32"), "from nan to nan"),
        (grey([-1, 1], "float32"), "from -1 to 1"),
        (
            Image.fromarray(np.array([[[255] * 3 + [x] for x in (0, 255)]], "uint8")),
            "single colour",
        ),
    ],
)
@pytest.mark.filterwarnings("error")
def test_rejects_pictures_that_would_become_blank(tmp_path, picture, message):
    picture.save(tmp_path / "it.tif")
    (tmp_path / "captions.tsv").write_text("it.tif\tit\n", "utf-8")
    with pytest.raises(ValueError, match=rf"(?s)it\.tif.*{message}|{message}.*it\.tif"):
        datasets.read_pictures(tmp_path)


def test_floats_up_to_255_are_grey(tmp_path):
    grey([0, 200], "float32").save(tmp_path / "it.tif")
    (tmp_path / "captions.tsv").write_text("it.tif\tit\n", "utf-8")
    pictures, _ = datasets.read_pictures(tmp_path, size=4)
    assert set(np.unique(pictures)) == {0, 200}


@pytest.mark.parametrize(
    "name, content, message",
    [
        ("captions.tsv", b"", "must hold lines of `file TAB caption`"),
        ("captions.tsv", b"red.png a heart\n", "line 1 of .*red.png a heart"),
        ("captions.tsv", b"red.png\tred\nblue.png\t \n", "line 2"),
        ("captions.tsv", b"red.png\tred\nblue.png\tblue\n", "line 2 of.*blue.png"),
        ("captions.tsv", b"red.png\tred\n" * 2, "line 2 of.*same as line 1"),
        ("captions.tsv", b"red.png\t\xff\n", "UTF-8"),
        ("captions.tsv", "red.png\tred\n".encode("utf-16"), "iconv -f UTF-16"),
        ("red.png", b"no picture", "red.png.*cannot identify"),
        ("red.png", b"\x89PNG\r\n\x1a\n" + b"\0" * 9, "red.png"),
    ],
)
def test_error_names_unreadable_lines_and_files(folder, name, content, message):
    (folder / name).write_bytes(content)
    with pytest.raises(ValueError, match=f"(?s){message}"):
        datasets.read_pictures(folder)


def test_error_says_how_to_write_captions(tmp_path):
    with pytest.raises(ValueError, match=r"captions\.tsv.*heart\.png TAB a red heart"):
        datasets.read_pictures(tmp_path)
