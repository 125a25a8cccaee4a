"""Data sets from folders and from a server on loopback, with files of our own."""

import gzip
import hashlib
import http.server
import io
import threading
import zipfile

import pytest

import kseq
from kseq.datasets import catalogue
from kseq.datasets.files import File, Source

TEXT = "eins\nzwei\ndrei süß\n".encode()
OTHER_ORDER = b"b 1\nb 2\n\na 1\n\n"


def sha256(data):
    return hashlib.sha256(data).hexdigest()


def zipped(name, data):
    packed = io.BytesIO()
    with zipfile.ZipFile(packed, "w") as archive:
        archive.writestr(name, data)
    return packed.getvalue()


class Handler(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        self.server.requests.append(self.path)
        body, length = self.server.answers.get(self.path, (None, 0))
        if body is None:
            self.send_error(404)
            return
        self.send_response(200)
        self.send_header("Content-Length", str(length))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_):
        pass


@pytest.fixture
def server():
    """A server whose `answers` are bodies and the lengths it claims, by path."""
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.requests, server.answers = [], {}
    thread = threading.Thread(target=server.serve_forever, args=(0.01,))
    thread.start()
    yield server
    server.shutdown()
    server.server_close()
    thread.join()


@pytest.fixture
def home(tmp_path, monkeypatch):
    """Where Keras keeps its files, and no other place to look for data."""
    monkeypatch.delenv("KSEQ_DATA_DIR", raising=False)
    monkeypatch.setenv("KERAS_HOME", str(tmp_path / "home"))
    return tmp_path / "home"


@pytest.fixture
def toy(server, home, monkeypatch):
    """Adds a data set `toy` of one file to those that are known."""

    def add(served="words.txt", accepted=None, **fields):
        file = File(
            path=fields.pop("path", "words.txt"),
            address=f"http://127.0.0.1:{server.server_port}/{served}",
            sha256=accepted or sha256(TEXT),
            **fields,
        )
        source = Source(
            name="toy",
            summary="numbers",
            licence="public domain",
            citation="nobody",
            files=(file,),
            read=lambda content: {"train": (content(file.path),)},
        )
        monkeypatch.setitem(catalogue.SOURCES, "toy", source)
        return file

    return add


def serve(server, body, length=None, path="/words.txt"):
    server.answers[path] = (body, len(body) if length is None else length)


def kept(home):
    return [path.name for path in home.rglob("*") if path.is_file()]


def test_a_file_is_downloaded_to_the_cache_once(server, home, toy):
    toy()
    serve(server, TEXT)
    assert kseq.datasets.load("toy") == {"train": (TEXT,)}
    assert (home / "datasets/kseq/toy/words.txt").read_bytes() == TEXT
    assert kept(home) == ["words.txt"]
    assert kseq.datasets.load("toy") == {"train": (TEXT,)}
    assert server.requests == ["/words.txt"]


def test_a_packed_file_is_kept_packed_and_checked_unpacked(server, home, toy):
    toy("words.txt.gz")
    serve(server, gzip.compress(TEXT), path="/words.txt.gz")
    assert kseq.datasets.load("toy") == {"train": (TEXT,)}
    assert kept(home) == ["words.txt.gz"]
    assert kseq.datasets.load("toy") == {"train": (TEXT,)}
    assert server.requests == ["/words.txt.gz"]


def test_one_member_of_a_zip_file_is_read(server, home, toy):
    toy("words.zip", path="words.zip", member="words.txt")
    serve(server, zipped("words.txt", TEXT), path="/words.zip")
    for _ in range(2):
        assert kseq.datasets.load("toy") == {"train": (TEXT,)}
    assert server.requests == ["/words.zip"] and kept(home) == ["words.zip"]


def test_any_of_the_known_checksums_will_do(server, toy, home):
    toy(accepted=(sha256(b"another"), sha256(TEXT)))
    serve(server, TEXT)
    assert kseq.datasets.load("toy") == {"train": (TEXT,)}


def test_blocks_may_come_in_any_order_but_none_may_be_altered(server, toy, home):
    in_order = b"\n\n".join([b"", b"a 1", b"b 1\nb 2"])
    toy(any_order=True, accepted=sha256(in_order))
    for data in (OTHER_ORDER, b"a 1\n\nb 1\nb 2\n\n"):
        serve(server, data)
        assert kseq.datasets.load("toy") == {"train": (data,)}
        (home / "datasets/kseq/toy/words.txt").unlink()
    serve(server, OTHER_ORDER.replace(b"2", b"3"))
    with pytest.raises(ValueError, match="must have the content with SHA-256"):
        kseq.datasets.load("toy")


@pytest.mark.parametrize(
    "body, complaint",
    [
        (TEXT[:-1], "must have the content with SHA-256 {expected}"),
        (TEXT + b"!", "must have the content with SHA-256 {expected}"),
        (b"", "must have the content with SHA-256 {expected}"),
    ],
)
def test_a_download_with_a_wrong_checksum_is_refused(
    server, home, toy, body, complaint
):
    toy()
    serve(server, body)
    with pytest.raises(ValueError) as caught:
        kseq.datasets.load("toy")
    message = str(caught.value)
    assert complaint.format(expected=sha256(TEXT)) in message
    assert "/words.txt must" in message and "try again" in message
    assert f"{len(body)} bytes with SHA-256 {sha256(body)}" in message
    assert kept(home) == []


def test_a_connection_that_breaks_off_leaves_nothing_and_is_not_resumed(
    server, home, toy
):
    toy()
    serve(server, TEXT[:7], length=len(TEXT))
    with pytest.raises(ValueError, match="7 bytes, 14 short of the end.* try again"):
        kseq.datasets.load("toy")
    assert len(TEXT) == 7 + 14 and kept(home) == []
    serve(server, TEXT)
    assert kseq.datasets.load("toy") == {"train": (TEXT,)}
    assert kept(home) == ["words.txt"]


def test_a_packed_download_that_is_damaged_is_refused(server, home, toy):
    toy("words.txt.gz")
    serve(server, gzip.compress(TEXT)[:-9], path="/words.txt.gz")
    with pytest.raises(ValueError, match=r"must be a whole .gz file.*try again"):
        kseq.datasets.load("toy")
    toy("words.zip", path="words.zip", member="words.txt")
    for damaged in (zipped("words.txt", TEXT)[:-5], zipped("other.txt", TEXT)):
        serve(server, damaged, path="/words.zip")
        with pytest.raises(ValueError, match=r"must be a whole .zip file"):
            kseq.datasets.load("toy")
    assert kept(home) == []


def test_a_file_that_the_server_does_not_have_is_a_clear_error(server, home, toy):
    toy()
    with pytest.raises(ValueError, match="within reach.* HTTP Error 404.*`directory`"):
        kseq.datasets.load("toy")
    assert kept(home) == []


def test_a_server_that_does_not_answer_is_a_clear_error(server, home, toy):
    file = toy()
    server.shutdown()
    server.server_close()
    with pytest.raises(ValueError, match="within reach.* refused"):
        kseq.datasets.load("toy")
    assert file.address and kept(home) == []


def test_a_download_that_cannot_be_written_leaves_nothing(server, home, toy):
    toy()
    serve(server, TEXT)
    home.parent.joinpath("home").write_text("a file, not a folder")
    with pytest.raises(ValueError, match="must be writable.*KERAS_HOME"):
        kseq.datasets.load("toy")


def test_a_cached_file_that_was_altered_is_refused(server, home, toy):
    toy()
    serve(server, TEXT)
    kseq.datasets.load("toy")
    cached = home / "datasets/kseq/toy/words.txt"
    cached.write_bytes(TEXT[:-3])
    with pytest.raises(ValueError, match="cut short or altered. Delete it") as caught:
        kseq.datasets.load("toy")
    assert str(caught.value).startswith(f"{cached} must")
    cached.unlink()
    assert kseq.datasets.load("toy") == {"train": (TEXT,)}


def plant(root, files):
    for path, data in files.items():
        (root / path).parent.mkdir(parents=True, exist_ok=True)
        (root / path).write_bytes(data)
    return root


def test_directory_comes_first_then_the_environment_then_the_download(
    server, tmp_path, toy, monkeypatch
):
    toy(accepted=tuple(sha256(data) for data in (b"one", b"two", b"three")))
    serve(server, b"three")
    first = plant(tmp_path / "first", {"toy/words.txt": b"one"})
    second = plant(tmp_path / "second", {"toy/words.txt.gz": gzip.compress(b"two")})
    monkeypatch.setenv("KSEQ_DATA_DIR", str(second))
    assert kseq.datasets.load("toy", first) == {"train": (b"one",)}
    assert kseq.datasets.load("toy", str(first)) == {"train": (b"one",)}
    assert kseq.datasets.load("toy") == {"train": (b"two",)}
    assert server.requests == []
    (second / "toy").rename(second / "other")  # the environment may lack a set
    assert kseq.datasets.load("toy") == {"train": (b"three",)}


@pytest.mark.parametrize("data", [TEXT[:-1], b"", TEXT.replace(b"z", b"Z")])
def test_a_local_file_that_is_cut_short_or_altered_is_refused(
    server, tmp_path, toy, data
):
    toy()
    plant(tmp_path, {"toy/words.txt": data})
    with pytest.raises(ValueError, match="altered. Delete it and get it") as caught:
        kseq.datasets.load("toy", tmp_path)
    assert str(tmp_path / "toy" / "words.txt") in str(caught.value)
    assert server.requests == []


def test_a_folder_that_lacks_the_file_is_a_clear_error(server, tmp_path, toy):
    file = toy()
    plant(tmp_path, {"toy/other.txt": TEXT})
    with pytest.raises(ValueError, match="must hold words.txt.* holds other") as caught:
        kseq.datasets.load("toy", tmp_path)
    assert file.address in str(caught.value) and server.requests == []


@pytest.mark.parametrize(
    "directory, received",
    [(".", "holds a, b"), ("a", "is empty"), ("nowhere", "does not exist")],
)
def test_a_wrong_directory_is_refused_with_what_it_holds(
    tmp_path, home, directory, received
):
    (tmp_path / "a").mkdir()
    (tmp_path / "b").write_bytes(b"")
    with pytest.raises(ValueError, match=f"holds the data set as trec/.*{received}"):
        kseq.datasets.load("trec", tmp_path / directory)


def test_a_wrong_environment_is_refused(tmp_path, home, monkeypatch):
    monkeypatch.setenv("KSEQ_DATA_DIR", str(tmp_path / "nowhere"))
    with pytest.raises(ValueError, match="KSEQ_DATA_DIR must name .*does not exist"):
        kseq.datasets.load("trec")


@pytest.mark.parametrize("function", [kseq.datasets.load, kseq.datasets.describe])
def test_an_unknown_name_is_refused_with_the_known_ones(function):
    with pytest.raises(ValueError, match="atis, ett, .* Received: name='sst3'"):
        function("sst3")


def test_an_unknown_option_is_refused(home):
    with pytest.raises(ValueError, match=r"has the options \[\]. Received: \['seed'\]"):
        kseq.datasets.load("trec", seed=3)
    with pytest.raises(ValueError, match="`language` must be one of .*'ice'"):
        kseq.datasets.load("sigmorphon2021_g2p", language="eng")
