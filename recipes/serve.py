"""Answers texts over HTTP with a saved model, and shows a page to try it in.

Any file of the other recipes that reads texts: translators and chatbots, classifiers
and taggers, writers, and what draws. What comes within some milliseconds is worked on
together. It is an example to copy, with `serve.html` beside it, and no framework.

    python recipes/serve.py --load multi30k/model.keras
    curl localhost:8000/generate -d '{"texts": ["ein hund."], "search": "beam"}'
    curl -N localhost:8000/generate -d '{"texts": ["ein hund."], "stream": true}'
    curl localhost:8000/score -d '{"texts": ["ein hund."], "targets": ["a dog."]}'
    curl localhost:8000/label -d '{"texts": ["what a joy"]}'

What is asked wrongly is answered by a status of 400 and more, and what is wrong in
words. The first texts of a length, and of a number of them, wait for a compiler.
"""

import argparse
import asyncio
import base64
import contextlib
import io
import json
import logging
import math
import pathlib
import signal
import socket
import sys
from concurrent.futures import ThreadPoolExecutor

import keras

import kseq
from kseq.training.cli import Help, count, positive, require, seed

try:
    from rich.console import Console
except ImportError as error:
    sys.exit(f"{error}. Get what recipes need: pip install kseq[recipes]")

PAGE = pathlib.Path(__file__).with_name("serve.html")
console = Console(markup=False, emoji=False, highlight=False)
logging.getLogger("tensorflow").setLevel(logging.ERROR)


def main(argv=None):
    options = parse_arguments(argv)
    require("starlette", "uvicorn")
    import uvicorn

    keras.utils.set_random_seed(options.seed)
    try:
        pipeline = kseq.text.load(options.load)
        check_one_source(pipeline)
        listener = socket.create_server((options.host, options.port))
    except (ValueError, OSError, OverflowError) as error:
        sys.exit(str(error))
    # Or the end of an answer waits 40 ms for the client to confirm its beginning.
    listener.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    settings = uvicorn.Config(
        application(pipeline, options),
        log_level="warning",
        limit_concurrency=options.connections,
        timeout_graceful_shutdown=options.patience,
    )
    # uvicorn ends in order at SIGTERM, and then raises it again.
    signal.signal(signal.SIGTERM, lambda number, frame: None)
    host, port = listener.getsockname()[:2]
    console.print(f"{type(pipeline).__name__} at http://{host}:{port}/")
    uvicorn.Server(settings).run(sockets=[listener])
    console.print("Ended, with every answer given.")


def check_one_source(pipeline):
    """Raises if a pipeline reads several sources, which no request can give."""
    vocabulary = getattr(pipeline, "source_vocabulary", None)
    if isinstance(vocabulary, dict):
        raise ValueError(
            "--load must be a pipeline of one source. Received: one of "
            f"{', '.join(vocabulary)}."
        )


# What the model does ------------------------------------------------------------------


class Answers:
    """What a pipeline answers, as plain lists and dictionaries."""

    def __init__(self, pipeline, options):
        self.pipeline = pipeline
        self.max_length = options.max_length
        self.searches = {
            "greedy": kseq.decoding.GreedySearch(),
            "beam": kseq.decoding.BeamSearch(options.beams, length_penalty=1.0),
            "sampling": kseq.decoding.Sampling(options.temperature),
        }
        self.kind = type(pipeline)
        tasks = {
            kseq.text.TextToText: ["generate", "stream", "score"],
            kseq.text.TextWriter: ["generate", "stream", "score"],
            kseq.text.TextToLabels: ["label"],
            kseq.text.TextToImage: ["generate"],
        }
        self.tasks = tasks[self.kind]

    @property
    def vocabulary(self):
        """The vocabulary of what is read."""
        is_pair = self.kind is kseq.text.TextToText
        return self.pipeline.source_vocabulary if is_pair else self.pipeline.vocabulary

    @property
    def target_vocabulary(self):
        """The vocabulary of what is written."""
        is_pair = self.kind is kseq.text.TextToText
        return self.pipeline.target_vocabulary if is_pair else self.pipeline.vocabulary

    def answer(self, task, search, with_attention, rows):
        """An answer for each row: a text, or a pair of a text and its target."""
        if task == "label":
            return [labels_of(found) for found in self.pipeline.label(rows)]
        if task == "score":
            return self.scores(rows)
        if self.kind is kseq.text.TextToImage:
            drawn = self.pipeline.draw(rows, self.searches[search])
            return [[{"image": as_png(picture)} for picture in row] for row in drawn]
        if self.kind is kseq.text.TextWriter:
            texts = self.pipeline.generate(rows, self.searches[search], self.max_length)
            return [[{"text": text}] for text in texts]
        found = self.pipeline.generate(
            rows,
            self.searches[search],
            self.max_length,
            return_attention_scores=with_attention,
        )
        return [[hypothesis_of(each) for each in row] for row in found]

    def scores(self, rows):
        """The log-probabilities of targets."""
        texts, targets = map(list, zip(*rows, strict=True))
        if self.kind is kseq.text.TextWriter:  # which reads nothing
            log_probs = self.pipeline.score(targets)
        else:
            log_probs = self.pipeline.score(texts, targets)
        return [{"log_prob": number(log_prob)} for log_prob in log_probs]

    def stream(self, text, search):
        """The pieces of an answer, as they come."""
        pieces = self.pipeline.generate_stream(
            [text], self.searches[search], self.max_length
        )
        for [piece] in pieces:
            yield piece


def hypothesis_of(hypothesis):
    found = {"text": hypothesis.text, "log_prob": number(hypothesis.log_prob)}
    if hypothesis.attention is None:
        return found
    attention = hypothesis.attention  # T S, of a Transformer layers heads T S
    if attention.ndim == 4:
        attention = attention[-1].mean(axis=0)
    return {
        **found,
        "tokens": hypothesis.tokens,
        "source_tokens": hypothesis.source_tokens,
        "attention": attention.astype(float).round(4).tolist(),
    }


def labels_of(found):
    if isinstance(found, list):  # of a tagger
        return [labels_of(label) for label in found]
    return {"label": found.name, "probability": number(found.probability)}


def as_png(picture):
    file = io.BytesIO()
    picture.save(file, "PNG")
    return "data:image/png;base64," + base64.b64encode(file.getvalue()).decode()


def number(value):
    """A number as JSON has it, which knows no infinity."""
    return float(value) if math.isfinite(value) else None


# Batches ------------------------------------------------------------------------------


class Busy(Exception):
    """There are more requests than can wait."""


class Batches:
    """One thread that runs the model, on all that comes within some milliseconds.

    Args:
        answer: Function of the parts of a key and of rows, which gives an answer for
            each row.
        options: The options of the command line.
    """

    def __init__(self, answer, options):
        self.answer = answer
        self.seconds = options.wait / 1000
        self.most = options.batch_size
        self.waiting = asyncio.Queue(options.waiting)
        self.thread = ThreadPoolExecutor(1)

    async def run(self, function, *arguments):
        """Runs a function in the thread of the model."""
        loop = asyncio.get_running_loop()
        return await loop.run_in_executor(self.thread, function, *arguments)

    async def ask(self, key, rows):
        """The answers to the rows of one request."""
        answers = asyncio.get_running_loop().create_future()
        try:
            self.waiting.put_nowait((key, rows, answers))
        except asyncio.QueueFull:
            raise Busy from None
        return await answers

    async def work(self):
        """Answers what waits, as long as the server runs."""
        while True:
            requests = [await self.waiting.get()]
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(self.seconds):
                    while sum(len(rows) for _, rows, _ in requests) < self.most:
                        requests.append(await self.waiting.get())
            together = {}
            for key, rows, answers in requests:
                if not answers.done():  # whose client has gone
                    together.setdefault(key, []).append((rows, answers))
            for key, group in together.items():
                await self.settle(key, group)

    async def settle(self, key, group):
        """Answers requests together, or each alone where one of them is wrong."""
        every_row = [row for rows, _ in group for row in rows]
        try:
            found = iter(await self.run(self.answer, *key, every_row))
        except Exception as error:
            if len(group) > 1:
                for request in group:
                    await self.settle(key, [request])
            elif not group[0][1].done():
                group[0][1].set_exception(error)
            return
        for rows, answers in group:
            own = [next(found) for _ in rows]
            if not answers.done():
                answers.set_result(own)


# HTTP ---------------------------------------------------------------------------------


def application(pipeline, options):
    """The application, which any server of ASGI runs."""
    from starlette.applications import Starlette
    from starlette.exceptions import HTTPException
    from starlette.requests import ClientDisconnect
    from starlette.responses import HTMLResponse, JSONResponse, StreamingResponse
    from starlette.routing import Route

    answers = Answers(pipeline, options)
    batches = Batches(answers.answer, options)
    limits = {
        "texts": options.texts,
        "characters": options.characters,
        "bytes": options.bytes,
        "max_length": options.max_length,
    }
    streams = asyncio.Semaphore(options.streams)

    class Stream(StreamingResponse):
        """Makes room for another stream when it has ended or its client has gone."""

        async def __call__(self, scope, receive, send):
            try:
                async with asyncio.timeout(options.stream_seconds):
                    await super().__call__(scope, receive, send)
            finally:
                streams.release()

    @contextlib.asynccontextmanager
    async def running(app):
        work = asyncio.create_task(batches.work())
        yield
        work.cancel()
        batches.thread.shutdown()

    async def page(request):
        return HTMLResponse(PAGE.read_text("utf-8"))

    async def about(request):
        searches = list(answers.searches)
        kind = answers.kind.__name__
        return JSONResponse(
            {"kind": kind, "tasks": answers.tasks, "searches": searches, **limits}
        )

    async def ask(request):
        task = request.url.path.strip("/")
        if task not in answers.tasks:
            can = ", ".join(f"/{name}" for name in answers.tasks if name != "stream")
            raise HTTPException(
                404, f"A {answers.kind.__name__} answers {can}. Received: /{task}."
            )
        asked = checked(await body(request), task, answers, options)
        if asked["stream"]:
            return await stream(asked)
        key = task, asked["search"], asked["attention"]
        return JSONResponse({"results": await batches.ask(key, asked["rows"])})

    async def body(request):
        """What came, if it comes in time and is not too much."""
        content = b""
        try:
            async with asyncio.timeout(options.patience):
                async for chunk in request.stream():
                    content += chunk
                    if len(content) > options.bytes:
                        raise HTTPException(
                            413, f"A request must have {options.bytes} bytes at most."
                        )
        except ClientDisconnect:
            raise HTTPException(400, "The client has gone.") from None
        except TimeoutError:
            raise HTTPException(
                408, f"A request must come within {options.patience} seconds."
            ) from None
        return content

    async def stream(asked):
        if streams.locked():
            raise Busy
        [text] = asked["rows"]
        pieces = answers.stream(text, asked["search"])
        await streams.acquire()
        try:
            first = await batches.run(next, pieces, None)  # where errors come
        except BaseException:
            streams.release()
            raise

        async def events():
            piece = first
            while piece is not None:
                if piece:
                    yield f"data: {json.dumps({'text': piece})}\n\n"
                piece = await batches.run(next, pieces, None)
            yield "event: end\ndata: {}\n\n"

        return Stream(events(), media_type="text/event-stream")

    async def refused(request, error):
        return JSONResponse({"error": error.detail}, error.status_code)

    async def wrong(request, error):
        return JSONResponse({"error": str(error)}, 400)

    async def failed(request, error):  # and uvicorn prints what
        words = "The model cannot answer this, for want of memory perhaps."
        return JSONResponse({"error": words}, 500)

    async def busy(request, error):
        words = "There are more requests than can wait. Try again in a second."
        return JSONResponse({"error": words}, 503, {"Retry-After": "1"})

    return Starlette(
        routes=[
            Route("/", page),
            Route("/about", about),
            *(Route(f"/{x}", ask, methods=["POST"]) for x in ("generate", "label")),
            Route("/score", ask, methods=["POST"]),
        ],
        exception_handlers={
            HTTPException: refused,
            ValueError: wrong,
            Busy: busy,
            Exception: failed,
        },
        lifespan=running,
    )


def checked(content, task, answers, options):
    """What a request asks for, if it can be answered; else a ValueError."""
    try:
        asked = json.loads(content)
    except (ValueError, RecursionError) as error:
        raise ValueError(
            f"A request must be JSON in UTF-8. Received: {error}."
        ) from None
    if not isinstance(asked, dict):
        raise ValueError('A request must be an object: {"texts": ["..."]}.')
    known = {
        "generate": {"texts", "search", "attention", "stream"},
        "label": {"texts"},
        "score": {"texts", "targets"},
    }[task]
    if others := sorted(set(asked) - known):
        raise ValueError(f"/{task} takes {sorted(known)}. Received: {others}.")
    texts = asked.get("texts")
    check_texts("texts", texts, options)
    rows = texts
    if task == "score":
        targets = asked.get("targets", texts)  # of a writer its texts
        check_texts("targets", targets, options)
        if len(targets) != len(texts):
            raise ValueError(
                f"There must be a target for each text. Received: {len(texts)} texts, "
                f"{len(targets)} targets."
            )
        answers.target_vocabulary.encode(targets)  # raises if one is no text
        rows = list(zip(texts, targets, strict=True))
    may_be_blank = answers.kind is kseq.text.TextWriter
    tokens = answers.vocabulary.encode(texts)  # raises if one is no text
    if not may_be_blank and not all(tokens):
        raise ValueError(
            "A text must have a word or a character. Received: "
            f"texts[{tokens.index([])}], which has none."
        )
    search = asked.get("search", "greedy")
    if not isinstance(search, str) or search not in answers.searches:
        raise ValueError(
            f"`search` must be one of {list(answers.searches)}. Received: {search!r}."
        )
    flags = {name: asked.get(name, False) for name in ("attention", "stream")}
    for name, value in flags.items():
        if not isinstance(value, bool):
            raise ValueError(f"`{name}` must be true or false. Received: {value!r}.")
    if flags["stream"] and ("stream" not in answers.tasks or len(texts) > 1):
        raise ValueError(
            f"One text of a model that writes can be streamed. Received: {len(texts)} "
            f"texts for a {answers.kind.__name__}."
        )
    if flags["stream"] and search == "beam":
        raise ValueError('A stream needs "search": "greedy" or "sampling".')
    return {"rows": rows, "search": search, **flags}


def check_texts(name, texts, options):
    """Raises if the texts are no list of strings, too many or too long."""
    is_list = isinstance(texts, list) and all(isinstance(x, str) for x in texts)
    if not is_list or not 1 <= len(texts) <= options.texts:
        raise ValueError(
            f"`{name}` must be a list of 1 to {options.texts} strings. Received: "
            f"{repr(texts)[:60]}."
        )
    longest = max(range(len(texts)), key=lambda i: len(texts[i]))
    if len(texts[longest]) > options.characters:
        raise ValueError(
            f"A text must have {options.characters} characters at most. Received: "
            f"{name}[{longest}], of {len(texts[longest])}."
        )


def parse_arguments(argv):
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=Help)
    add = parser.add_argument
    add("--load", type=pathlib.Path, metavar="FILE", required=True, help="the model")
    add("--host", default="127.0.0.1", help="0.0.0.0 to be seen by other machines")
    add("--port", type=int, default=8000, help="0 for any that is free")
    add("--max-length", type=count, default=80, help="tokens of an answer, at most")
    add("--beams", type=count, default=5)
    add("--temperature", type=positive, default=0.8)
    add("--seed", type=seed, default=0)
    add("--wait", type=positive, default=5, help="milliseconds for more to come")
    add("--batch-size", type=count, default=64, help="texts worked on together")
    add("--texts", type=count, default=64, help="texts of a request, at most")
    add("--characters", type=count, default=2000, help="of a text, at most")
    add("--bytes", type=count, default=262144, help="of a request, at most")
    add("--waiting", type=count, default=256, help="requests that wait, at most")
    add("--streams", type=count, default=16, help="streams at a time, at most")
    add("--stream-seconds", type=count, default=300, help="of a stream, at most")
    add("--connections", type=count, default=512, help="at a time, at most")
    add("--patience", type=count, default=30, help="seconds for a request to come")
    return parser.parse_args(argv)


if __name__ == "__main__":
    try:
        main()
    except KeyboardInterrupt:
        sys.exit("Stopped by Ctrl-C.")
