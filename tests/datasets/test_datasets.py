"""Named data sets: downloads, checksums, folders and published sizes."""

import gzip
import hashlib
import http.server
import os
import pathlib
import re
import socket
import threading
import zipfile

import numpy as np
import pytest

from kseq import datasets
from kseq.datasets import catalogue, files

GOOD = b"good well made\nbad a bore\n"
GZIPPED = gzip.compress(GOOD, mtime=0)  # a date would change the ids of tests


def sha256(content):
    return hashlib.sha256(content).hexdigest()


@pytest.fixture
def server():
    """Yield a local server with `answers` by path and a list of `requests`."""

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self):
            self.server.requests.append(self.path)
            content, length = self.server.answers.get(self.path, (None, None))
            if content is None:
                return self.send_error(404)
            self.send_response(200)
            self.send_header("Content-Length", str(length))
            self.end_headers()
            self.wfile.write(content)

        def log_message(self, *args):
            pass

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        server.answers, server.requests = {}, []
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield server
        server.shutdown()


@pytest.fixture
def toy(server, tmp_path, monkeypatch):
    """Register a data set of one file on the server, and return its cache folder."""
    monkeypatch.setenv("KERAS_HOME", str(tmp_path / "home"))
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    monkeypatch.delenv("KSEQ_DATA_DIR", raising=False)
    url = f"http://127.0.0.1:{server.server_port}/reviews.txt"
    file = files.File("reviews.txt", (sha256(GOOD),), url)

    def reader(content):
        return {"train": content("reviews.txt").decode().splitlines()}

    toy = catalogue.DataSet("toy", "", "", "", "", (file,), reader)
    monkeypatch.setitem(catalogue.DATA_SETS, "toy", toy)
    server.answers["/reviews.txt"] = GOOD, len(GOOD)
    return tmp_path / "home" / "datasets" / "kseq" / "toy"


def file_names_in(folder):
    return sorted(path.name for path in folder.rglob("*") if path.is_file())


LINES = {"train": ["good well made", "bad a bore"]}


def test_a_file_is_downloaded_once(toy, server):
    assert datasets.load("toy") == LINES
    assert file_names_in(toy.parents[2]) == ["reviews.txt"]
    assert datasets.load("toy") == LINES
    assert server.requests == ["/reviews.txt"]


@pytest.mark.parametrize("content", [GOOD[:-1], b"", GZIPPED[:-5]])
def test_rejects_a_download_with_another_checksum(toy, server, content):
    server.answers["/reviews.txt"] = content, len(content)
    with pytest.raises(ValueError, match="must have the SHA-256") as error:
        datasets.load("toy")
    message = str(error.value)
    assert "/reviews.txt" in message and sha256(GOOD) in message
    assert "Nothing was kept" in message and f"{len(content):,} bytes" in message
    assert content[:2] == b"\x1f\x8b" or sha256(content) in message
    assert file_names_in(toy.parents[2]) == []


def test_a_broken_connection_leaves_nothing_and_the_next_load_restarts(toy, server):
    server.answers["/reviews.txt"] = GOOD[:7], len(GOOD)
    with pytest.raises(OSError, match="7 of 26 bytes received"):
        datasets.load("toy")
    assert file_names_in(toy.parents[2]) == []
    server.answers["/reviews.txt"] = GOOD, len(GOOD)
    assert datasets.load("toy") == LINES


def test_an_interrupted_download_leaves_nothing(toy, monkeypatch):
    def interrupt(self, current, finalize=False):
        raise KeyboardInterrupt

    monkeypatch.setattr("keras.utils.Progbar.update", interrupt)
    with pytest.raises(KeyboardInterrupt):
        datasets.load("toy")
    assert file_names_in(toy.parents[2]) == []


def test_an_interrupted_write_leaves_nothing(toy, monkeypatch):
    def interrupt(source, target):
        raise KeyboardInterrupt

    monkeypatch.setattr("os.replace", interrupt)
    with pytest.raises(KeyboardInterrupt):
        datasets.load("toy")
    assert file_names_in(toy.parents[2]) == []


def test_error_names_an_address_without_a_file(toy, server):
    server.answers.clear()
    with pytest.raises(OSError, match="/reviews.txt could not be downloaded.*404"):
        datasets.load("toy")
    assert file_names_in(toy.parents[2]) == []


@pytest.mark.parametrize("problem", ["missing", "damaged", "truncated"])
@pytest.mark.parametrize("has_folder", [True, False])
def test_a_file_at_the_advised_path_is_read(
    toy, server, tmp_path, monkeypatch, problem, has_folder
):
    if has_folder:
        monkeypatch.setenv("KSEQ_DATA_DIR", str(tmp_path))
    answers = {"damaged": (b"x", 1), "truncated": (GOOD[:7], len(GOOD))}
    server.answers["/reviews.txt"] = answers.get(problem, (None, None))
    with pytest.raises((OSError, ValueError)) as error:
        datasets.load("toy")
    [place] = re.findall(r"put the file in (\S+)\.$", str(error.value))
    monkeypatch.setenv("KSEQ_DATA_DIR", str(tmp_path))
    path = pathlib.Path(os.path.expandvars(place))
    path.parent.mkdir()
    path.write_bytes(GOOD)
    assert datasets.load("toy") == LINES


def test_raises_if_the_server_does_not_answer(toy, monkeypatch):
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        port = unused.getsockname()[1]
    [file] = datasets.describe("toy").files
    object.__setattr__(file, "url", f"http://127.0.0.1:{port}/reviews.txt")
    with pytest.raises(OSError, match="could not be downloaded"):
        datasets.load("toy")


def test_rejects_a_damaged_file_in_the_cache(toy, server):
    datasets.load("toy")
    (toy / "reviews.txt").write_bytes(GOOD[:5])
    with pytest.raises(ValueError, match=r"toy/reviews.txt must .* Delete it"):
        datasets.load("toy")
    assert server.requests == ["/reviews.txt"]
    (toy / "reviews.txt").unlink()
    assert datasets.load("toy") == LINES


def test_a_folder_replaces_a_download(toy, server, tmp_path, monkeypatch):
    mine = tmp_path / "mine" / "toy"
    mine.mkdir(parents=True)
    (mine / "reviews.txt").write_bytes(GOOD)
    assert datasets.load("toy", mine.parent) == LINES
    monkeypatch.setenv("KSEQ_DATA_DIR", str(mine.parent))
    assert datasets.load("toy") == LINES
    (mine / "reviews.txt").rename(mine / "reviews")
    (mine / "reviews.txt.gz").write_bytes(GZIPPED)
    assert datasets.load("toy", str(mine.parent)) == LINES
    assert server.requests == []


@pytest.mark.parametrize("end, content", [("", GOOD[:-1]), (".gz", b"\x1f\x8bno")])
def test_error_names_a_truncated_file_in_a_folder(toy, tmp_path, end, content):
    mine = tmp_path / "toy"
    mine.mkdir()
    (mine / f"reviews.txt{end}").write_bytes(content)
    with pytest.raises(ValueError, match=f"toy/reviews.txt{end} must have the SHA"):
        datasets.load("toy", tmp_path)


def test_error_names_a_folder_without_the_data_set(toy, server, tmp_path, monkeypatch):
    with pytest.raises(ValueError, match="Received: nowhere, which is not a folder"):
        datasets.load("toy", "nowhere")
    with pytest.raises(ValueError, match="'toy' must be in .*without reviews.txt"):
        datasets.load("toy", tmp_path)
    monkeypatch.setenv("KSEQ_DATA_DIR", str(tmp_path))  # it may have other sets
    assert datasets.load("toy") == LINES
    (tmp_path / "toy").mkdir()
    with pytest.raises(ValueError, match="from .*/reviews.txt, or use no folder"):
        datasets.load("toy")
    (tmp_path / "toy" / "reviews.txt").write_bytes(GOOD)
    assert datasets.load("toy") == datasets.load("toy", tmp_path) == LINES
    (tmp_path / "toy" / "reviews.txt").unlink()
    (tmp_path / "toy").rmdir()
    assert datasets.load("toy") == LINES


def test_an_unordered_checksum_ignores_the_order_of_sentences():
    one = b"# text = a b\n1\ta\n2\tb\n\n# newdoc\n1\tc\n\n"
    other = b"1\tc\n\n# from elsewhere\n1\ta\n2\tb\n\n"
    damaged = other.replace(b"c", b"d")
    first, second, third = map(files.unordered_content, (one, other, damaged))
    assert first == second != third
    assert files.unordered_content(b"1\ta\n\n2\tb\n\n") != first


def test_rejects_unknown_names_and_languages():
    with pytest.raises(ValueError, match="one of sst2, trec, .*name='sst3'"):
        datasets.load("sst3")
    with pytest.raises(ValueError, match="one of eng_us, fre, ice.*'german'"):
        datasets.load("sigmorphon2021_g2p", language="german")
    with pytest.raises(ValueError, match=r"`trec` takes the options \[\].*language"):
        datasets.load("trec", language="fre")
    with pytest.raises(ValueError, match="one of sst2.*name=\\['trec'\\]"):
        datasets.load(["trec"])


@pytest.mark.parametrize("name", datasets.names())
def test_every_file_has_an_address_and_a_checksum(name):
    about = datasets.describe(name)
    assert about.about and about.parts and about.licence and about.citation
    assert about.files
    for file in about.files:
        assert file.url is None or file.url.startswith("https://")
        for checksum in file.sha256:
            assert len(checksum) == 64 and set(checksum) <= set("0123456789abcdef")


# Real data sets -----------------------------------------------------------------------

ROWS = {
    "sst2": (6_920, 872, 1_821),
    "trec": (5_452, None, 500),
    "atis": (4_478, 500, 893),
    "ud_english_ewt": (12_544, 2_001, 2_077),
    "mnist": (60_000, None, 10_000),
    "emoji": (3_628, None, 158),
    "multi30k": (29_000, 1_014, 1_000),
    "tatoeba_fra_eng": (142_787, None, None),
    "korean_chatbot": (11_823, None, None),
    "italy_power_demand": (67, None, 1_029),
    "ett": (8_640, 2_880, 2_880),
}


def loaded(name, data_set, **options):
    return datasets.load(name, data_set(name).parent, **options)


@pytest.mark.parametrize("name", ROWS)
def test_real_data_sets_have_the_published_numbers_of_rows(name, data_set):
    splits = loaded(name, data_set)
    expected = dict(zip(("train", "validation", "test"), ROWS[name], strict=True))
    assert {p: len(x[0]) for p, x in splits.items()} == {
        part: rows for part, rows in expected.items() if rows
    }
    if name != "ett":
        assert all(len(x) == len(part[0]) for part in splits.values() for x in part)


@pytest.mark.parametrize(
    "language, rows", {"eng_us": 33_344, "fre": 8_000, "ice": 800}.items()
)
def test_real_pronunciations_are_loaded_by_language(language, rows, data_set):
    splits = loaded("sigmorphon2021_g2p", data_set, language=language)
    assert [len(words) for words, _ in splits.values()] == [
        rows,
        rows // 8,
        rows // 8,
    ]
    assert all(sound for _, sounds in splits.values() for sound in sounds)


def test_real_labels_are_names_and_texts_are_complete(data_set):
    texts, labels = loaded("trec", data_set)["train"]
    assert len(set(labels)) == 6 and labels[0] == "description"
    assert any("sister\u00f0city" in text for text in texts)  # the one Latin-1 line
    texts, labels = loaded("sst2", data_set)["train"]
    assert texts[0].startswith("a stirring") and labels[:2] == ["positive", "negative"]
    assert any("béart" in text for text in texts)


@pytest.mark.parametrize("name", ["atis", "ud_english_ewt"])
def test_each_real_word_has_a_label(name, data_set):
    for words, labels, *_ in loaded(name, data_set).values():
        assert [len(row) for row in words] == [len(row) for row in labels]
        assert all(words) and all(word for row in words for word in row)


def test_real_series_have_the_published_columns_and_values(data_set):
    splits = loaded("ett", data_set)
    values, columns = splits["train"]
    assert columns == ["HUFL", "HULL", "MUFL", "MULL", "LUFL", "LULL", "OT"]
    assert values.dtype == "float64" and values[0, -1] == 30.5310001373291
    series, labels = loaded("italy_power_demand", data_set)["train"]
    assert series.shape == (67, 24) and set(labels) == {0, 1}
    assert np.allclose(series.mean(axis=1), 0, atol=1e-4)


def test_real_shakespeare_is_split_at_nine_tenths(data_set):
    splits = loaded("tiny_shakespeare", data_set)
    assert [len(text) for text in splits.values()] == [1_003_854, 111_540]
    assert splits["train"].startswith("First Citizen:")


def test_real_pairs_are_aligned(data_set):
    english, french = loaded("tatoeba_fra_eng", data_set)["train"]
    assert (english[0], french[0]) == ("Go.", "Va !")
    german, english = loaded("multi30k", data_set)["test"]
    assert german[0].startswith("Ein Mann") and english[0].startswith("A man")
    questions, answers = loaded("korean_chatbot", data_set)["train"]
    assert (questions[0], answers[0]) == ("12시 땡!", "하루가 또 가네요.")
    assert any("," in answer for answer in answers)


def test_error_names_a_truncated_real_file(data_set, tmp_path):
    whole = (data_set("tatoeba_fra_eng") / "fra-eng.zip").read_bytes()
    (tmp_path / "tatoeba_fra_eng").mkdir()
    path = tmp_path / "tatoeba_fra_eng" / "fra-eng.zip"
    path.write_bytes(whole[: len(whole) // 2])
    assert not zipfile.is_zipfile(path)
    with pytest.raises(ValueError, match="fra-eng.zip must have the SHA-256"):
        datasets.load("tatoeba_fra_eng", tmp_path)


@pytest.mark.parametrize("language", ["eng", "spa", "tur"])
def test_real_inflections_are_loaded_by_language_and_share_no_lemma(language, data_set):
    splits = loaded("sigmorphon2023_inflection", data_set, language=language)
    rows = {part: len(forms) for part, (_, _, forms) in splits.items()}
    assert rows == {"train": 10_000, "validation": 1_000, "test": 1_000}
    lemmas = [set(lemmas) for lemmas, _, _ in splits.values()]
    assert not lemmas[0] & lemmas[1] and not lemmas[0] & lemmas[2]
    with pytest.raises(ValueError, match="one of eng, spa, tur.*'fin'"):
        datasets.load("sigmorphon2023_inflection", language="fin")
