"""The recipe `serve.py`: a running server and its clients."""

import asyncio
import concurrent.futures
import contextlib
import http.client
import importlib.util
import json
import os
import pathlib
import re
import signal
import socket
import subprocess
import sys
import threading
import time

import keras
import pytest

import kseq
from kseq.text import TextToImage, TextToLabels, TextToText, TextWriter, Vocabulary
from tests.text.hostile import HOSTILE

ROOT = pathlib.Path(__file__).parents[2]
RECIPE = ROOT / "recipes" / "serve.py"
LETTERS = "abcdefgh"
LIMITS = ["--texts", "3", "--characters", "50", "--bytes", "4000"]
LIMITS += ["--max-length", "9", "--streams", "2", "--patience", "3", "--wait", "20"]


@pytest.fixture(scope="module")
def recipe():
    spec = importlib.util.spec_from_file_location("serve", RECIPE)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="module")
def translator():
    keras.utils.set_random_seed(5)
    letters = Vocabulary("character").adapt([LETTERS])
    model = kseq.encoder_decoder(letters.size, letters.size, "gru", "gru", width=8)
    return TextToText(model, letters, letters)


@contextlib.contextmanager
def running(pipeline, folder, *flags):
    """Run a server in a new process, and yield the process and its port."""
    pipeline.save(folder / "model.keras")
    command = [sys.executable, RECIPE, "--load", folder / "model.keras", "--port", "0"]
    env = {**os.environ, "PYTHONPATH": str(ROOT), "PYTHONUNBUFFERED": "1"}
    with subprocess.Popen(
        [*command, *LIMITS, *flags], stdout=subprocess.PIPE, env=env, text=True
    ) as process:
        try:
            port = int(re.search(r":(\d+)/", process.stdout.readline())[1])
            yield process, port
        finally:
            process.kill()


@pytest.fixture(scope="module")
def server(translator, tmp_path_factory):
    with running(translator, tmp_path_factory.mktemp("serve")) as (process, port):
        yield port
        process.send_signal(signal.SIGTERM)
        assert process.wait(timeout=60) == 0
        assert "Ended" in process.stdout.read()


def ask(port, path, content=None, method="POST"):
    """Send a request, and return the status and the content of the answer."""
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=120)
    body = content if isinstance(content, bytes) else json.dumps(content).encode()
    connection.request(method, path, body if method == "POST" else None)
    response = connection.getresponse()
    answer = response.read().decode()
    connection.close()
    is_json = response.headers["content-type"] == "application/json"
    return response.status, json.loads(answer) if is_json else answer


def plain(results):
    return [[each.text for each in row] for row in results]


def test_the_page_and_the_description_are_served(server):
    status, page = ask(server, "/", method="GET")
    assert status == 200 and page.startswith("<!doctype html>")
    status, about = ask(server, "/about", method="GET")
    assert status == 200 and about["kind"] == "TextToText"
    assert about["tasks"] == ["generate", "stream", "score"]


@pytest.mark.parametrize("search, found", [("greedy", 1), ("beam", 5)])
def test_generated_texts_equal_those_of_the_pipeline(server, translator, search, found):
    asked = {"texts": ["abc", "hello"], "search": search, "attention": True}
    status, answer = ask(server, "/generate", asked)
    number = None if search == "greedy" else kseq.decoding.BeamSearch(5)
    expected = translator.generate(
        asked["texts"], number, 9, return_attention_scores=True
    )
    assert status == 200 and len(answer["results"]) == 2
    for row, hypotheses in zip(answer["results"], expected, strict=True):
        assert len(row) == found
        if search == "greedy":
            assert row[0]["text"] == hypotheses[0].text
            assert row[0]["log_prob"] == pytest.approx(hypotheses[0].log_prob, rel=1e-4)
            assert row[0]["attention"] is not None
            assert row[0]["source_tokens"] == hypotheses[0].source_tokens


def test_scores_equal_those_of_the_model(server, translator):
    asked = {"texts": ["abc", "h"], "targets": ["ab", "hh"]}
    status, answer = ask(server, "/score", asked)
    letters = translator.source_vocabulary
    targets = letters.encode(asked["targets"], end=True)
    expected = translator.model.score(letters.encode(asked["texts"]), targets)
    found = [result["log_prob"] for result in answer["results"]]
    assert status == 200 and found == pytest.approx(expected.tolist(), rel=1e-4)


def events(port, text):
    """Yield the lines of a stream as they arrive."""
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=120)
    asked = {"texts": [text], "stream": True}
    connection.request("POST", "/generate", json.dumps(asked))
    response = connection.getresponse()
    with contextlib.closing(connection):
        if response.status != 200:
            yield response.status
            return
        assert response.headers["content-type"].startswith("text/event-stream")
        while line := response.readline():
            yield line.decode().rstrip("\n")


def pieces(lines):
    data = [line.removeprefix("data: ") for line in lines if line.startswith("data: ")]
    return "".join(json.loads(line).get("text", "") for line in data)


def test_streamed_pieces_join_to_the_text(server, translator):
    lines = list(events(server, "abc"))
    [[best]] = translator.generate(["abc"], max_length=9)
    assert pieces(lines) == best.text
    assert lines[-3:] == ["event: end", "data: {}", ""]


NOT_UTF8 = b'{"texts": ["\xff"]}'
INVALID = {
    "not JSON": (b"a dog", 400, "must be JSON in UTF-8"),
    "not UTF-8": (NOT_UTF8, 400, "must be JSON in UTF-8"),
    "deeply nested": (b"[" * 3000, 400, "must be"),
    "a list": (["a"], 400, "must be an object"),
    "no texts": ({}, 400, "a list of 1 to 3 strings"),
    "a single string": ({"texts": "abc"}, 400, "a list of 1 to 3 strings"),
    "not strings": ({"texts": ["a", None]}, 400, "a list of 1 to 3 strings"),
    "too many texts": ({"texts": ["a"] * 4}, 400, "a list of 1 to 3 strings"),
    "too long a text": (
        {"texts": ["a", "b" * 51]},
        400,
        "50 characters.*texts.1., of 51",
    ),
    "too large a request": ({"texts": ["a" * 9999]}, 413, "4000 bytes at most"),
    "an empty text": ({"texts": ["a", ""]}, 400, r"texts\[1\], which has none"),
    "NUL": ({"texts": ["a\0b"]}, 400, "without a NUL"),
    "a lone surrogate": (b'{"texts": ["\\ud83d"]}', 400, "UTF-8 without a NUL"),
    "an unknown option": ({"texts": ["a"], "beams": 5}, 400, "Received: .'beams'"),
    "an unknown search": ({"texts": ["a"], "search": "best"}, 400, "`search` must be"),
    "a list of searches": ({"texts": ["a"], "search": []}, 400, "`search` must be"),
    "a number as a flag": (
        {"texts": ["a"], "stream": 1},
        400,
        "`stream` must be true or false",
    ),
    "two streams": ({"texts": ["a", "b"], "stream": True}, 400, "One text.*2 texts"),
    "beams in a stream": (
        {"texts": ["a"], "stream": True, "search": "beam"},
        400,
        "greedy",
    ),
}


@pytest.mark.parametrize("kind", INVALID)
def test_rejects_invalid_requests_with_a_message(server, kind):
    content, status, words = INVALID[kind]
    found, answer = ask(server, "/generate", content)
    assert found == status and re.search(words, answer["error"])


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize("kind", HOSTILE)
def test_hostile_texts_are_answered_or_rejected_with_a_message(server, kind, stream):
    text = HOSTILE[kind]
    content = b'{"texts": ["%s"]}' % text if isinstance(text, bytes) else None
    asked = content or {"texts": [text], "stream": stream}
    status, answer = ask(server, "/generate", asked)
    assert status in (200, 400, 413)
    assert status == 200 or len(answer["error"]) > 20


def test_rejects_wrong_paths_methods_and_targets(server):
    status, answer = ask(server, "/label", {"texts": ["a"]})
    assert status == 404 and "answers /generate, /score" in answer["error"]
    assert ask(server, "/nothing", method="GET")[0] == 404
    assert ask(server, "/generate", method="GET")[0] == 405
    bad = {"texts": ["a"], "targets": ["a", "b"]}
    assert "1 texts, 2 targets" in ask(server, "/score", bad)[1]["error"]
    bad = {"texts": ["a"], "targets": ["\0"]}
    assert "without a NUL" in ask(server, "/score", bad)[1]["error"]


def test_64_clients_at_once_get_their_own_answers(server, translator):
    texts = [LETTERS[i % 8] + LETTERS[i // 8] * (1 + i % 5) for i in range(64)]
    expected = plain(translator.generate(texts, max_length=9))
    together = threading.Barrier(64)

    def client(text):
        together.wait()
        return ask(server, "/generate", {"texts": [text]})

    with concurrent.futures.ThreadPoolExecutor(64) as pool:
        answers = list(pool.map(client, texts))
    assert [status for status, _ in answers] == [200] * 64
    found = [answer["results"][0] for _, answer in answers]
    assert [[each["text"] for each in row] for row in found] == expected


def slow_client(port, content):
    """Return a client that has sent half of its request, and the other half."""
    half = len(content) // 2
    client = socket.create_connection(("127.0.0.1", port), timeout=60)
    client.sendall(
        b"POST /generate HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n"
        b"Content-Length: %d\r\n\r\n" % len(content) + content[:half]
    )
    return client, content[half:]


def test_a_slow_client_is_answered_and_delays_no_other(server):
    content = json.dumps({"texts": ["abc"]}).encode()
    client, rest = slow_client(server, content)
    with client, client.makefile("rb") as answer:
        assert ask(server, "/generate", {"texts": ["abc"]})[0] == 200
        client.sendall(rest)
        assert answer.readline().split()[1] == b"200"
    late, _ = slow_client(server, content)
    with late, late.makefile("rb") as answer:
        assert answer.readline().split()[1] == b"408"


def test_disconnected_clients_do_not_affect_others(server, translator):
    content = json.dumps({"texts": ["abcdef"]}).encode()
    for _ in range(9):
        client, rest = slow_client(server, content)
        client.sendall(rest)
        client.close()
        client, _ = slow_client(server, content)
        client.close()
    for _ in range(5):  # of 2 streams at a time
        deadline = time.monotonic() + 30
        while (first := next(stream := events(server, "abc"))) == 503:
            assert time.monotonic() < deadline
        stream.close()
        assert first.startswith(("data", "event"))
    [[best]] = translator.generate(["abc"], max_length=9)
    assert pieces(list(events(server, "abc"))) == best.text


def test_pending_requests_are_answered_before_the_server_ends(translator, tmp_path):
    with running(translator, tmp_path, "--wait", "2000", "--patience", "60") as (
        process,
        port,
    ):
        with concurrent.futures.ThreadPoolExecutor(3) as pool:
            found = [
                pool.submit(ask, port, "/generate", {"texts": ["abc"]})
                for _ in range(3)
            ]
            time.sleep(1)
            process.send_signal(signal.SIGTERM)
            assert [answer.result()[0] for answer in found] == [200] * 3
        assert process.wait(timeout=60) == 0
        with pytest.raises(ConnectionError):
            ask(port, "/generate", {"texts": ["abc"]})


def answers_of(recipe, requests, answer, **limits):
    """Return the answers of requests that arrive at once."""
    flags = [f"--{name.replace('_', '-')}={value}" for name, value in limits.items()]
    options = recipe.parse_arguments(["--load", "model.keras", *flags])

    async def run():
        batches = recipe.Batches(answer, options)
        work = asyncio.create_task(batches.work())
        asked = [batches.ask(("generate",), rows) for rows in requests]
        try:
            return await asyncio.gather(*asked, return_exceptions=True)
        finally:
            work.cancel()
            batches.thread.shutdown()

    return asyncio.run(run())


def test_a_failed_request_does_not_affect_others_of_its_batch(recipe):
    seen = []

    def answer(task, rows):
        seen.append(list(rows))
        if "bad" in rows:
            raise ValueError("bad")
        return [row.upper() for row in rows]

    first, bad, last = answers_of(recipe, [["a", "b"], ["c", "bad"], ["d"]], answer)
    assert (first, last) == (["A", "B"], ["D"])
    assert isinstance(bad, ValueError)
    assert seen[0] == ["a", "b", "c", "bad", "d"]


def test_rejects_requests_beyond_the_waiting_limit(recipe):
    found = answers_of(recipe, [["a"]] * 9, lambda task, rows: rows, waiting=3)
    refused = [each for each in found if isinstance(each, recipe.Busy)]
    assert len(refused) == 6 and found[:3] == [["a"]] * 3


def test_a_failing_model_gives_an_error_message(recipe, translator, monkeypatch):
    def fail(*arguments):
        raise MemoryError

    monkeypatch.setattr(recipe.Answers, "answer", fail)
    options = recipe.parse_arguments(["--load", "model.keras"])
    app = recipe.build_application(translator, options)
    scope = {"type": "http", "method": "POST", "path": "/generate", "headers": []}
    sent = []

    async def receive():
        return {"type": "http.request", "body": b'{"texts": ["a"]}'}

    async def send(message):
        sent.append(message)

    async def run():
        async with app.router.lifespan_context(app):
            with pytest.raises(MemoryError):  # which the server prints
                await app({**scope, "query_string": b""}, receive, send)

    asyncio.run(run())
    assert sent[0]["status"] == 500
    assert "cannot answer this" in json.loads(sent[1]["body"])["error"]


def words():
    return Vocabulary("word").adapt(["a small dog"])


def classifier():
    model = kseq.many_to_one(words().size, 2, "gru", width=4)
    return TextToLabels(model, words(), ["bad", "good"])


def tagger():
    model = kseq.many_to_many(words().size, 2, "gru", width=4)
    return TextToLabels(model, words(), ["noun", "verb"])


def writer():
    return TextWriter(kseq.one_to_many(words().size, decoder="gru", width=4), words())


def drawer():
    tokenizer = kseq.image_tokenizer((4, 4, 3), patch_size=2, width=4)
    return TextToImage(kseq.text_to_image(words().size, tokenizer, width=4), words())


@pytest.mark.parametrize(
    "make, task, keys",
    [
        (classifier, "label", {"label", "probability"}),
        (tagger, "label", {"label", "probability"}),
        (writer, "generate", {"text"}),
        (writer, "score", {"log_prob"}),
        (drawer, "generate", {"image"}),
    ],
)
def test_every_kind_of_pipeline_is_served(recipe, make, task, keys):
    options = recipe.parse_arguments(["--load", "model.keras", "--max-length", "7"])
    answers = recipe.Answers(make(), options)
    content = json.dumps({"texts": ["a dog", "small"]})
    asked = recipe.parse_request(content, task, answers, options)
    found = answers.answer(task, asked["search"], asked["attention"], asked["items"])
    assert len(found) == 2
    assert json.loads(json.dumps(found, allow_nan=False)) == found
    first = found[0][0] if isinstance(found[0], list) else found[0]
    assert set(first) == keys


def test_error_names_a_missing_model_and_a_used_port(recipe, tmp_path):
    with pytest.raises(SystemExit, match="cannot be read"):
        recipe.main(["--load", str(tmp_path / "nothing.keras")])
    classifier().save(tmp_path / "model.keras")
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = str(taken.getsockname()[1])
        with pytest.raises(SystemExit, match="in use"):
            recipe.main(["--load", str(tmp_path / "model.keras"), "--port", port])


def test_rejects_a_pipeline_of_several_sources(recipe, tmp_path):
    letters = Vocabulary("character").adapt([LETTERS])
    size = letters.size
    model = kseq.encoder_decoder({"a": size, "b": size}, size, "rnn", "rnn", width=4)
    several = TextToText(model, {"a": letters, "b": letters}, letters)
    several.save(tmp_path / "model.keras")
    with pytest.raises(SystemExit, match="one source. Received: one of a, b"):
        recipe.main(["--load", str(tmp_path / "model.keras"), "--port", "0"])
