"""Readers of the user's own files, and errors that name the invalid line."""

import gzip
import pathlib
import re
import tempfile

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from kseq import datasets

GZIPPED = gzip.compress(b"good well made\nbad a bore\n", mtime=0)  # without a date


@pytest.mark.parametrize(
    "reader, content, complaint",
    [
        (datasets.read_labelled, b"good\n", "line 1 of .*own.txt: 'good'"),
        (datasets.read_labelled, b" \n\n", "must hold lines of `label TEXT`"),
        (datasets.read_labelled, "a 좋다".encode("utf-16"), "must be in UTF-8.*0xff"),
        (
            datasets.read_labelled,
            GZIPPED[:-9],
            "own.txt: Compressed file",
        ),
        (datasets.read_pairs, b"a\tb\nno tab here\n", "line 2 of .*own.txt"),
        (datasets.read_pairs, b"a\t \n", "line 1"),
        (datasets.read_pairs, b"", "must hold lines of `source TAB target`"),
        (datasets.read_inflections, b"a\tV\tb\na\tb\n", "line 2 of .*own.txt"),
        (datasets.read_inflections, b"a\tV\tb\tc\n", "line 1 of .*own.txt"),
        (datasets.read_inflections, b"a\t\tb\n", "line 1 of .*own.txt"),
        (datasets.read_inflections, b"\n", "lines of `lemma TAB features TAB form`"),
        (datasets.read_tagged, b"a O\n\nb\n", "line 3 of .*own.txt: 'b'"),
        (datasets.read_tagged, b'a O\n{"b": "O"}\n', "not JSON. Received: line 2 of"),
        (datasets.read_tagged, b"", "must hold words with their labels"),
        (datasets.read_tagged, b"caf\xe9 O\n", "0xe9 at position 3"),
        (datasets.read_series, b"up,1,2\ndown,1,x\n", "line 2 of .*own.txt: 'down,1,x"),
        (datasets.read_series, b"up,1,2\n\n1,,2\n", "line 3"),
        (datasets.read_series, b"up,1,2\ndown,1,nan\n", "line 2"),
        (datasets.read_series, b",1,2\n", "line 1"),
        (datasets.read_series, b"up\n", "line 1"),
        (datasets.read_series, b"\n \n", "must hold series"),
        (datasets.read_columns, b"a,b\n1,2\n3,x\n", "2 numbers, .*line 3 of"),
        (datasets.read_columns, b"a,b\n1,2\n3\n", "line 3"),
        (datasets.read_columns, b"a,b\n1,2\n3,inf\n", "line 3"),
        (datasets.read_columns, b"day\nMonday\n", "must name the columns"),
        (datasets.read_columns, b"a;b\n1;2\n", "must name the columns .*'a;b', '1;2'"),
        (datasets.read_columns, b"1,2\n3,4\n", "must name the columns .*'1,2', '3,4'"),
        (datasets.read_columns, b"a\n1\n1e300\n", "larger than 1e\\+18.*line 3"),
        (datasets.read_columns, b"a,b\n", "own.txt, with 1 lines"),
        (
            datasets.read_columns,
            b'a,b\n"1,234",5\n',
            "without commas.*line 2.*'\"1,234\",5'",
        ),
        (datasets.read_columns, b"a,b\nn/a,5\n3,6\n", "line 2 .*'n/a,5'"),
        (datasets.read_columns, b"a,b\n5%,5\n3%,6\n", "line 2 .*'5%,5'"),
        (datasets.read_columns, b"a,b\n,5\n3,6\n", "line 2 .*',5'"),
        (datasets.read_columns, b"a,,b\n1,2,3\n", "must name the columns"),
        (datasets.read_columns, b"a,b\n1,2\n1_0,3\n", "line 3"),
        (datasets.read_columns, b'a,b\n"x\ny",2\n"z",no\n', "line 4 .*'\"z\",no'"),
        (datasets.read_columns, b"a\n1\x00\r2\n", "a NUL .*line 2 of .*own.txt"),
        (datasets.read_text, b"a\r\nb\0\r\n", "a NUL .*line 2 of .*own.txt"),
        (datasets.read_text, "ab".encode("utf-16-le"), "UTF-16"),
        (datasets.read_pairs, b"a\tb\rc\td\re f\r", "line 3 of .*own.txt"),
        (datasets.read_labelled, b"a\tb c\nd e f\n", "a TAB, as other.*line 2 of"),
        (datasets.read_labelled, b"d e f\na b\tc\n", "a TAB, as other.*line 1 of"),
        (datasets.read_labelled, b"a\tb\n\tc d\n", "line 2 of"),
        (datasets.read_tagged, b"a\tO\nb O\n", "line 2 of .*own.txt: 'b O'"),
        (datasets.read_tagged, b"a b\tO\n\tO\tO\n", "line 2 of"),
        (datasets.read_series, b"#1,1,2\n@2,3,4\n3,x\n", "line 3 of"),
        (datasets.read_series, b'up,1\n"up,1', "line 2 of"),
        (datasets.read_series, b"up,1\nup," + b"1" * 200_000, "line 2 of"),
    ],
)
def test_error_names_the_invalid_line_of_a_file(tmp_path, reader, content, complaint):
    path = tmp_path / "own.txt"
    path.write_bytes(content)
    with pytest.raises(ValueError, match=complaint):
        reader(path)


@pytest.mark.parametrize(
    "content, complaint",
    [
        (b"@data\n1,2:up\n3,4", "line 3 of .*own.ts: '3,4'"),
        (b"1,2:3:up\n", "line 1"),
        (b"1,2,3:4,5,6\n", "line 1"),
        (b"# nothing\n", "must hold series"),
        (b"1,2:up\n1,2:3,4:up\n", "same number of features. Received: .* 1 and 2"),
    ],
)
def test_error_names_the_invalid_line_of_a_ts_file(tmp_path, content, complaint):
    path = tmp_path / "own.ts"
    path.write_bytes(content)
    with pytest.raises(ValueError, match=complaint):
        datasets.read_series(path)


def test_series_of_both_formats_are_read(tmp_path):
    path = tmp_path / "own.ts"
    path.write_text("#why\n@data\n1,2,3:4,5,6:left\n7,8:9,10:right\n")
    series, labels = datasets.read_series(path)
    assert labels == ["left", "right"]
    np.testing.assert_array_equal(series[0], [[1, 4], [2, 5], [3, 6]])
    np.testing.assert_array_equal(series[1], [[7, 9], [8, 10]])
    path = tmp_path / "own.csv"
    path.write_text("a:b,1.5,2\n?,-3\n")
    series, labels = datasets.read_series(path)
    assert labels == ["a:b", "?"]
    assert [steps.tolist() for steps in series] == [[[1.5], [2.0]], [[-3.0]]]


def test_one_separator_applies_to_the_whole_file(tmp_path):
    path = tmp_path / "own.txt"

    def read(reader, text):
        path.write_text(text, "utf-8")
        return reader(path)

    labelled, tagged = datasets.read_labelled, datasets.read_tagged
    assert read(labelled, "good\tI like it\n") == (["I like it"], ["good"])
    rows = ["I\tlike it", "so so"], ["very good", "bad"]
    assert read(labelled, "very good\tI\tlike it\n bad \tso so \n") == rows
    assert read(labelled, "good\u00a0x  so  so\t\n") == (["so  so"], ["good\u00a0x"])
    rows = [["New York", "12 000"], ["a"]], [["B city", "O"], ["O"]]
    assert read(tagged, "New York\tNNP\tB city\n12 000\tX\tO\n\na\tO\n") == rows
    assert read(tagged, "12\u00a0000  NUM \t\n") == ([["12\u00a0000"]], [["NUM"]])
    assert read(tagged, "{ -LRB-\n{ }\n") == ([["{", "{"]], [["-LRB-", "}"]])
    series, labels = read(datasets.read_series, '#1,1,2\n"a, b",3,4\n')
    assert labels == ["#1", "a, b"] and series[1].tolist() == [[3], [4]]


READERS = {
    datasets.read_text: "a b\n\nc d\n",
    datasets.read_labelled: "good I like\nbad I hate\n",
    datasets.read_pairs: "a\tb\n\nc\td\n",
    datasets.read_inflections: "a\tV\tb\n\nc\tV\td\n",
    datasets.read_tagged: "a O\nb O\n\nc O\n",
    datasets.read_series: "up,1,2\ndown,2,1\n",
    datasets.read_columns: "a,b\n1,2\n3,4\n",
}


@pytest.mark.parametrize("reader", READERS, ids=lambda reader: reader.__name__)
@pytest.mark.parametrize("end", ["\r", "\r\n"])
def test_every_reader_accepts_every_line_end(tmp_path, reader, end):
    path = tmp_path / "own.txt"
    path.write_bytes(READERS[reader].encode())
    expected = reader(path)
    path.write_bytes(b"\xef\xbb\xbf" + READERS[reader].replace("\n", end).encode())
    assert repr(reader(path)) == repr(expected)


SEPARATORS = st.sampled_from("\t ,:#@\n\r\0\"'1-") | st.characters(max_codepoint=0x3000)
FILES = st.text(SEPARATORS, max_size=60).map(str.encode) | st.binary(max_size=60)


@given(FILES, st.sampled_from([".txt", ".ts", ".conllu", ".txt.gz"]))
def test_every_reader_reads_a_file_or_raises_a_clear_error(content, ending):
    with tempfile.TemporaryDirectory() as folder:
        path = pathlib.Path(folder, f"own{ending}")
        path.write_bytes(content)
        for reader in READERS:
            try:
                rows = reader(path)
            except ValueError as error:
                message = str(error)
                assert str(path) in message and "must" in message
                assert "\n" not in message.replace(str(path), "")
            else:
                assert reader is datasets.read_text or len(rows[0])


WORDS = st.text(
    st.characters(exclude_categories=["Cs", "Cc", "Zs", "Zl", "Zp"]), min_size=1
)
CELLS = st.lists(WORDS, min_size=1).map(" ".join)


@given(st.lists(st.tuples(CELLS, CELLS), min_size=1))
def test_rows_written_with_tabs_are_read_back(rows):
    first, second = map(list, zip(*rows, strict=True))
    with tempfile.TemporaryDirectory() as folder:
        path = pathlib.Path(folder, "own.txt")
        path.write_text("".join(f"{a}\t{b}\n" for a, b in rows), "utf-8")
        assert datasets.read_pairs(path) == (first, second)
        assert datasets.read_labelled(path) == (second, first)
        assert datasets.read_tagged(path) == ([first], [second])


def test_a_first_column_without_a_name_or_a_number_is_left_out(tmp_path):
    path = tmp_path / "own.csv"
    path.write_text(",a,b\n0,1,2\n1,3,4\n")  # as pandas writes it
    values, names = datasets.read_columns(path)
    assert names == ["a", "b"] and values.tolist() == [[1, 2], [3, 4]]
    for dates in (["2016-07-01", "2016-07-02"], ["1.7.2016", "2.7.2016"], ["", ""]):
        rows = "".join(f"{date},{i}\n" for i, date in enumerate(dates))
        path.write_text(f"day,a\n{rows}")
        values, names = datasets.read_columns(path)
        assert names == ["a"] and values.tolist() == [[0], [1]]


def test_columns_are_read_without_the_dates(tmp_path):
    path = tmp_path / "own.csv"
    path.write_text('date,"wind, north",größer\r\n1 May,1,-2\r\n\r\n2 May,3,4e1\r\n')
    values, names = datasets.read_columns(path)
    assert names == ["wind, north", "größer"]
    np.testing.assert_array_equal(values, [[1, -2], [3, 40]])
    path.write_text("a,b\n1,2\n")
    assert datasets.read_columns(path)[0].tolist() == [[1, 2]]


def test_error_names_a_missing_file():
    with pytest.raises(ValueError, match="Received: nowhere.txt"):
        datasets.read_labelled("nowhere.txt")


def test_reads_windows_files_and_compressed_files(tmp_path):
    path = tmp_path / "reviews.txt.gz"
    path.write_bytes(
        gzip.compress("\ufeff좋음 잘 만든\r\n나쁨 지루한\r\n".encode(), mtime=0)
    )
    assert datasets.read_labelled(path) == (["잘 만든", "지루한"], ["좋음", "나쁨"])
    path = tmp_path / "pairs.tsv"
    path.write_bytes(b"a b\tc\tmore\r\n")
    assert datasets.read_pairs(path) == (["a b"], ["c"])


def test_words_of_conllu_are_read_without_contractions_and_empty_nodes(tmp_path):
    rows = ["1-2\tcannot", "1\tcan", "2\tnot", "2.1\tgo"]
    tags = {"can": "AUX", "not": "PART"}
    lines = []
    for row in rows:
        tag = tags.get(row.split("\t")[1], "_")
        lines.append("\t".join([row, "lemma", tag, *"______"]))
    path = tmp_path / "own.conllu"
    path.write_text("# text = cannot\n" + "\n".join(lines) + "\n\n", "utf-8")
    assert datasets.read_tagged(path) == ([["can", "not"]], [["AUX", "PART"]])
    row = "\t".join(["1", "can", "lemma", "AUX", *"______"])
    wrong = ["1\tcan\tAUX", row.replace("\t", " "), "one" + row[1:]]
    for line in [*wrong, row.replace("can", " "), row.replace("AUX", "")]:
        path.write_text(f"{row}\n{line}\n", "utf-8")
        with pytest.raises(ValueError, match="line 2 of .*own.conllu"):
            datasets.read_tagged(path)


@pytest.mark.parametrize(
    "cells",
    [
        ["₩1", "₩3"],
        ["(1)", "(3)"],
        ["\N{MINUS SIGN}1", "\N{MINUS SIGN}3"],
        ["NA", "-"],
        ["nan", "nan"],
        ["1e400", "2e400"],
        ["1\N{NARROW NO-BREAK SPACE}000", "2\N{NARROW NO-BREAK SPACE}000"],
    ],
)
def test_rejects_a_first_column_of_malformed_numbers(cells, tmp_path):
    path = tmp_path / "table.csv"
    path.write_text("a,b\n" + "".join(f"{cell},2\n" for cell in cells), "utf-8")
    with pytest.raises(ValueError, match=f"line 2 of .*: '{re.escape(cells[0][0])}"):
        datasets.read_columns(path)


@pytest.mark.parametrize("cells", [["Mon", "Tue"], ["2026-11-29", "x"], ["10:00", ""]])
def test_a_first_column_of_dates_is_left_out(cells, tmp_path):
    path = tmp_path / "table.csv"
    path.write_text("a,b\n" + "".join(f"{cell},2\n" for cell in cells), "utf-8")
    assert datasets.read_columns(path)[1] == ["b"]


def test_error_quotes_a_line_of_a_table_unchanged(tmp_path):
    path = tmp_path / "table.csv"
    path.write_text('a,b\n"1,000",2\n', "utf-8")
    with pytest.raises(ValueError, match="""line 2 of .*: '"1,000",2'"""):
        datasets.read_columns(path)


@pytest.mark.parametrize("mark", ["\ufeff", "\ufeff\ufeff"])
def test_byte_order_marks_of_joined_files_are_removed(mark, tmp_path):
    path = tmp_path / "joined.txt"
    path.write_text(f"{mark}good\tone\n{mark}bad\ttwo \ufeff\n", "utf-8")
    assert datasets.read_labelled(path) == (["one", "two \ufeff"], ["good", "bad"])
    assert datasets.read_pairs(path)[0] == ["good", "bad"]
    assert datasets.read_tagged(path)[0] == [["good", "bad"]]


@pytest.mark.parametrize("kind", "columns labelled pairs series tagged text".split())
@pytest.mark.parametrize("path", [None, 3, b"x", ["x"]])
def test_rejects_values_that_are_not_paths(kind, path):
    read = getattr(datasets, f"read_{kind}")
    with pytest.raises(ValueError, match="must be readable. Received"):
        read(path)


@pytest.mark.parametrize(
    ("name", "line", "form"),
    [("s.csv", "a;1;2", "CLASS,numbers"), ("s.ts", "1;2:a", "numbers:CLASS")],
)
def test_error_shows_the_format_of_a_series(name, line, form, tmp_path):
    (tmp_path / name).write_text(line)
    with pytest.raises(ValueError, match=f"`{form}`, with commas"):
        datasets.read_series(tmp_path / name)
