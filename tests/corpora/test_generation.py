"""Generation from files, in one call or after interruptions."""

import concurrent.futures
import os
import signal
import sys
import threading

import keras
import pytest

import kseq
from kseq.corpora import generate_file, writing
from kseq.decoding import BeamSearch
from kseq.text import TextToText, Vocabulary
from tests.forking import forkserver
from tests.tuning.test_search import wait_until

LINES = ["hello", "", "he", "a hoe", "leah", "  ", "hell", "o", "he\u2028ho"]
LINES += ["all", "eel"]
SEARCH = BeamSearch(2)
OPTIONS = {"max_length": 7, "block_size": 3, "batch_size": 2, "verbose": False}


@pytest.fixture(scope="module")
def pipeline(tmp_path_factory):
    """Return the file of an untrained pipeline."""
    letters = Vocabulary("character").adapt(["".join(LINES)])
    keras.utils.set_random_seed(3)
    model = kseq.encoder_decoder(letters.size, letters.size, "rnn", "rnn", width=5)
    path = tmp_path_factory.mktemp("pipeline") / "writer.keras"
    TextToText(model, letters, letters).save(path)
    return path


@pytest.fixture(scope="module")
def expected(pipeline):
    """Return the texts of `generate`, one in each line."""
    whole = TextToText.load(pipeline)
    found = whole.generate(LINES, SEARCH, max_length=7, allow_blank=True)
    texts = [" ".join(best.text.splitlines()) for best, *_ in found]
    assert len(set(texts)) > 5
    return "".join(f"{text}\n" for text in texts)


@pytest.fixture
def source(tmp_path):
    path = tmp_path / "source.txt"
    path.write_text("\n".join(LINES), "utf-8", newline="\n")
    return path


def write(pipeline, source, **options):
    target = source.with_name("target.txt")
    result = generate_file(pipeline, source, target, SEARCH, **OPTIONS | options)
    return target.read_text("utf-8"), result


def blocks(source):
    return sorted(source.parent.glob("target.txt.blocks/[0-9]*.json"))


def test_lines_equal_those_of_generate_in_order(pipeline, source, expected, capsys):
    text, result = write(pipeline, source, verbose=True)
    assert text == expected
    assert (result.lines, result.bad) == (len(LINES), {})
    assert result.tokens > 0
    shown = capsys.readouterr().out.splitlines()[-1]
    assert shown.startswith("11 of 11 lines | ") and "tokens/s | 0:00:00 left" in shown
    left = {path.name for path in source.parent.iterdir()}
    assert left == {"source.txt", "target.txt", "target.txt.json"}
    target = source.with_name("target.txt")
    before = target.stat()
    assert write(pipeline, source) == (text, result)
    assert target.stat().st_mtime_ns == before.st_mtime_ns
    with pytest.raises(ValueError, match="`target` must be new.*overwrite=True"):
        write(pipeline, source, max_length=5)
    shorter, _ = write(pipeline, source, max_length=5, overwrite=True)
    assert shorter != text


class Flaky(concurrent.futures.ThreadPoolExecutor):
    """An executor that loses every other task, the first one after its work."""

    def __init__(self, workers):
        super().__init__(workers)
        self.tasks = 0

    def submit(self, task, *args):
        self.tasks += 1
        if self.tasks % 2:
            return super().submit(task, *args)
        if self.tasks == 2:
            super().submit(task, *args).result()
        lost = concurrent.futures.Future()
        lost.set_exception(MemoryError())
        return lost


@pytest.mark.parametrize("workers", [1, 2])
def test_an_executor_may_lose_tasks(pipeline, source, expected, workers):
    with Flaky(workers) as executor:
        text, _ = write(pipeline, source, executor=executor, workers=workers)
    assert text == expected


def test_a_call_with_a_closed_executor_raises_and_can_be_continued(
    pipeline, source, expected
):
    with concurrent.futures.ThreadPoolExecutor() as executor:
        pass
    with pytest.raises(RuntimeError, match="must accept tasks.*Make the same call"):
        write(pipeline, source, executor=executor)
    with concurrent.futures.ThreadPoolExecutor() as executor:
        assert write(pipeline, source, executor=executor)[0] == expected


def test_a_stopped_call_continues_where_it_stopped(
    pipeline, source, expected, monkeypatch
):
    begun, run = [], writing.run

    def run_two(packed):
        begun.append(packed)
        if len(begun) == 3:
            raise KeyboardInterrupt
        return run(packed)

    monkeypatch.setattr(writing, "run", run_two)
    with pytest.raises(KeyboardInterrupt):
        write(pipeline, source)
    assert len(blocks(source)) == 2 and not source.with_name("target.txt").exists()
    with pytest.raises(ValueError, match="`target` must be new"):
        write(pipeline, source, max_length=5)
    assert write(pipeline, source)[0] == expected
    assert len(begun) == 3 + 2


def test_a_bad_line_is_blank_and_reported(pipeline, source, expected, monkeypatch):
    generate = TextToText.generate

    def refusing(self, texts, *args, **options):
        if "leah" in texts:
            raise ValueError("no names")
        return generate(self, texts, *args, **options)

    monkeypatch.setattr(TextToText, "generate", refusing)
    lines = [line.encode() for line in LINES]
    lines[6] = b"h\xffll"
    source.write_bytes(b"\r\n".join(lines) + b"\r\n")
    text, result = write(pipeline, source)
    assert set(result.bad) == {5, 7}
    assert "no names" in result.bad[5] and "decode byte 0xff" in result.bad[7]
    rows = expected.splitlines()
    rows[4] = rows[6] = ""
    assert text.split("\n") == [*rows, ""]
    assert write(pipeline, source)[1] == result
    source.write_text("leah\nleah\n")
    with pytest.raises(ValueError, match="none of 2 lines from byte 0 .*no names"):
        write(pipeline, source, overwrite=True)


@pytest.mark.parametrize("name", ["batch_size", "block_size", "workers"])
def test_rejects_invalid_numbers(pipeline, source, name):
    for wrong in (0, 2.5, True):
        with pytest.raises(ValueError, match=f"`{name}` must be .* {name}={wrong}"):
            write(pipeline, source, **{name: wrong})
    assert not source.with_name("target.txt.blocks").exists()


def test_error_names_missing_files(pipeline, source, tmp_path):
    with pytest.raises(ValueError, match="`pipeline` must be a file. Received"):
        write(tmp_path / "no.keras", source)
    with pytest.raises(ValueError, match="`source` must be a file. Received"):
        write(pipeline, tmp_path / "no.txt")
    source.write_text("")
    assert write(pipeline, source)[0] == ""


@pytest.mark.thorough
@pytest.mark.skipif(sys.platform == "win32", reason="kills as POSIX does")
def test_a_kill_loses_and_repeats_no_line(pipeline, source, expected):
    process = forkserver().Process(target=write_two_blocks, args=(pipeline, source))
    process.start()
    wait_until(lambda: len(blocks(source)) == 2)
    process.kill()
    process.join()
    assert len(blocks(source)) == 2
    assert write(pipeline, source)[0] == expected


def write_two_blocks(pipeline, source):
    """Write two blocks, and wait to be killed."""
    update = writing.Progress.update

    def wait(self, number, tokens):
        update(self, number, tokens)
        if number == 1:
            signal.pause()

    writing.Progress.update = wait
    write(pipeline, source)


@pytest.mark.thorough
@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
def test_a_dask_worker_may_be_killed(pipeline, source, expected, tmp_path):
    pytest.importorskip("distributed")
    from tests.tuning.trials.test_dask import HAS_KERAS, Cluster

    source.write_text("\n".join(LINES * 20), "utf-8")
    cluster = Cluster(tmp_path)
    with cluster as client, client:

        def kill():
            wait_until(lambda: len(blocks(source)) > 2)
            os.kill(cluster.processes[-1].pid, signal.SIGKILL)

        killer = threading.Thread(target=kill)
        killer.start()
        text, _ = write(pipeline, source, executor=client, workers=2)
        killer.join()
        assert client.run_on_scheduler(eval, HAS_KERAS) is False
    assert text == expected * 20
