"""Serve a saved model over HTTP, with a page to try it.

It serves every file of the other recipes that reads texts: translators and chatbots,
classifiers and taggers, language models, and models that draw. Requests that arrive
within a few milliseconds of each other are processed as one batch. It is an example to
copy, together with `serve.html`, and uses only Starlette and uvicorn.

    python recipes/serve.py --load multi30k/model.keras
    curl localhost:8000/generate -d '{"texts": ["ein hund."], "search": "beam"}'
    curl -N localhost:8000/generate -d '{"texts": ["ein hund."], "stream": true}'
    curl localhost:8000/score -d '{"texts": ["ein hund."], "targets": ["a dog."]}'
    curl localhost:8000/label -d '{"texts": ["what a joy"]}'

A bad request is answered with a status of 400 or more, and a sentence that says what is
wrong. The first request with texts of a new length, or with a new number of texts, is
slow, for TensorFlow compiles the model for it.
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
    sys.exit(f"{error}. Install what the recipes need: pip install kseq[recipes]")

PAGE = pathlib.Path(__file__).with_name("serve.html")
console = Console(markup=False, emoji=False, highlight=False)
logging.getLogger("tensorflow").setLevel(logging.ERROR)


# The model ----------------------------------------------------------------------------


class Answers:
    """The answers of a pipeline, as lists and dictionaries that JSON has."""

    def __init__(self, pipeline, options):
        self.pipeline = pipeline
        self.kind = type(pipeline)
        self.max_length = options.max_length
        self.searches = {
            "greedy": kseq.decoding.GreedySearch(),
            "beam": kseq.decoding.BeamSearch(options.beams, length_penalty=1.0),
            "sampling": kseq.decoding.Sampling(options.temperature),
        }
        tasks_of_kinds = {
            kseq.text.TextToText: ["generate", "stream", "score"],
            kseq.text.TextWriter: ["generate", "stream", "score"],
            kseq.text.TextToLabels: ["label"],
            kseq.text.TextToImage: ["generate"],
        }
        self.tasks = tasks_of_kinds[self.kind]

    @property
    def vocabulary(self):
        """The vocabulary of the texts that are read."""
        if self.kind is kseq.text.TextToText:
            return self.pipeline.source_vocabulary
        return self.pipeline.vocabulary

    @property
    def target_vocabulary(self):
        """The vocabulary of the texts that are generated."""
        if self.kind is kseq.text.TextToText:
            return self.pipeline.target_vocabulary
        return self.pipeline.vocabulary

    def answer(self, task, search_name, with_attention, items):
        """Return an answer for each item: a text, or a text with its target."""
        if task == "label":
            return [label_answer(found) for found in self.pipeline.label(items)]
        if task == "score":
            return self.score_answers(items)
        search = self.searches[search_name]
        if self.kind is kseq.text.TextToImage:
            drawn = self.pipeline.draw(items, search)
            return [[{"image": to_png(image)} for image in images] for images in drawn]
        if self.kind is kseq.text.TextWriter:
            texts = self.pipeline.generate(items, search, self.max_length)
            return [[{"text": text}] for text in texts]
        results = self.pipeline.generate(
            items, search, self.max_length, return_attention_scores=with_attention
        )
        return [[hypothesis_answer(each) for each in best] for best in results]

    def score_answers(self, pairs):
        """Return the log-probability of each target after its text."""
        texts = [text for text, _ in pairs]
        targets = [target for _, target in pairs]
        if self.kind is kseq.text.TextWriter:  # it reads no other text
            log_probs = self.pipeline.score(targets)
        else:
            log_probs = self.pipeline.score(texts, targets)
        return [{"log_prob": to_number(log_prob)} for log_prob in log_probs]

    def stream(self, text, search_name):
        """Yield the pieces of an answer as they are generated."""
        search = self.searches[search_name]
        pieces = self.pipeline.generate_stream([text], search, self.max_length)
        for pieces_of_texts in pieces:
            yield pieces_of_texts[0]


def hypothesis_answer(hypothesis):
    """Return a generated text, with its attention if it was asked for."""
    answer = {"text": hypothesis.text, "log_prob": to_number(hypothesis.log_prob)}
    attention = hypothesis.attention
    if attention is None:
        return answer
    if attention.ndim == 4:  # layers heads T S, of a Transformer
        attention = attention[-1].mean(axis=0)  # T S
    answer["tokens"] = hypothesis.tokens
    answer["source_tokens"] = hypothesis.source_tokens
    answer["attention"] = attention.astype(float).round(4).tolist()
    return answer


def label_answer(found):
    """Return the label of a text, or the labels of its words."""
    if isinstance(found, list):  # of a tagger
        return [label_answer(label) for label in found]
    return {"label": found.name, "probability": to_number(found.probability)}


def to_png(image):
    """Return a picture as a data URL."""
    file = io.BytesIO()
    image.save(file, "PNG")
    return "data:image/png;base64," + base64.b64encode(file.getvalue()).decode()


def to_number(value):
    """Return a number for JSON, which has no infinity: None for it."""
    if math.isfinite(value):
        return float(value)
    return None


# Batches ------------------------------------------------------------------------------


class Busy(Exception):
    """Too many requests are waiting."""


class Batches:
    """One thread that runs the model, on batches of requests that arrive together.

    Args:
        answer: Function that takes the parts of a key and a list of items, and returns
            an answer for each item.
        options: The options of the command line.
    """

    def __init__(self, answer, options):
        self.answer = answer
        self.seconds = options.wait / 1000
        self.batch_size = options.batch_size
        self.waiting = asyncio.Queue(options.waiting)
        self.thread = ThreadPoolExecutor(1)

    async def run(self, function, *arguments):
        """Run a function in the thread of the model."""
        loop = asyncio.get_running_loop()
        return await loop.run_in_executor(self.thread, function, *arguments)

    async def ask(self, key, items):
        """Return the answers to the items of one request.

        Requests with the same key can be in the same batch.
        """
        future = asyncio.get_running_loop().create_future()
        try:
            self.waiting.put_nowait((key, items, future))
        except asyncio.QueueFull:
            raise Busy from None
        return await future

    async def work(self):
        """Answer waiting requests, as long as the server runs."""
        while True:
            requests = await self.next_requests()
            groups = {}
            for key, items, future in requests:
                if not future.done():  # it is done if the client has gone
                    groups.setdefault(key, []).append((items, future))
            for key, group in groups.items():
                await self.settle(key, group)

    async def next_requests(self):
        """Wait for a request, and for others until the batch is full or time is up."""
        requests = [await self.waiting.get()]
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(self.seconds):
                while sum(len(items) for _, items, _ in requests) < self.batch_size:
                    requests.append(await self.waiting.get())
        return requests

    async def settle(self, key, group):
        """Answer requests together; if that fails, each by itself."""
        all_items = []
        for items, _ in group:
            all_items.extend(items)
        try:
            all_answers = await self.run(self.answer, *key, all_items)
        except Exception as error:
            if len(group) > 1:
                for request in group:
                    await self.settle(key, [request])
                return
            _, future = group[0]
            if not future.done():
                future.set_exception(error)
            return
        start = 0
        for items, future in group:
            end = start + len(items)
            if not future.done():
                future.set_result(all_answers[start:end])
            start = end


# HTTP ---------------------------------------------------------------------------------


def build_application(pipeline, options):
    """Return the application, which any ASGI server can run."""
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
        """A response that makes room for another when it ends or its client goes."""

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
        description = {
            "kind": answers.kind.__name__,
            "tasks": answers.tasks,
            "searches": list(answers.searches),
            **limits,
        }
        return JSONResponse(description)

    async def ask(request):
        task = request.url.path.strip("/")
        if task not in answers.tasks:
            paths = [f"/{name}" for name in answers.tasks if name != "stream"]
            raise HTTPException(
                404,
                f"A {answers.kind.__name__} answers {', '.join(paths)}. "
                f"Received: /{task}.",
            )
        content = await read_body(request)
        asked = parse_request(content, task, answers, options)
        if asked["stream"]:
            return await stream(asked)
        key = (task, asked["search"], asked["attention"])
        results = await batches.ask(key, asked["items"])
        return JSONResponse({"results": results})

    async def read_body(request):
        """Return the content of a request, unless it is too large or too slow."""
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
            raise HTTPException(400, "The client has disconnected.") from None
        except TimeoutError:
            raise HTTPException(
                408, f"A request must arrive within {options.patience} seconds."
            ) from None
        return content

    async def stream(asked):
        if streams.locked():
            raise Busy
        text = asked["items"][0]
        pieces = answers.stream(text, asked["search"])
        await streams.acquire()
        try:
            first = await batches.run(next, pieces, None)  # an error is raised here
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

    async def on_http_error(request, error):
        return JSONResponse({"error": error.detail}, error.status_code)

    async def on_bad_request(request, error):
        return JSONResponse({"error": str(error)}, 400)

    async def on_failure(request, error):  # uvicorn prints the error
        message = "The model cannot answer this, perhaps for lack of memory."
        return JSONResponse({"error": message}, 500)

    async def on_busy(request, error):
        message = "Too many requests are waiting. Try again in a second."
        return JSONResponse({"error": message}, 503, {"Retry-After": "1"})

    return Starlette(
        routes=[
            Route("/", page),
            Route("/about", about),
            Route("/generate", ask, methods=["POST"]),
            Route("/label", ask, methods=["POST"]),
            Route("/score", ask, methods=["POST"]),
        ],
        exception_handlers={
            HTTPException: on_http_error,
            ValueError: on_bad_request,
            Busy: on_busy,
            Exception: on_failure,
        },
        lifespan=running,
    )


# Requests -----------------------------------------------------------------------------


def parse_request(content, task, answers, options):
    """Return what a request asks for; raise a ValueError if it cannot be answered."""
    asked = parse_json(content)
    known_names = {
        "generate": {"texts", "search", "attention", "stream"},
        "label": {"texts"},
        "score": {"texts", "targets"},
    }[task]
    unknown_names = sorted(set(asked) - known_names)
    if unknown_names:
        raise ValueError(
            f"/{task} takes {sorted(known_names)}. Received: {unknown_names}."
        )
    texts = asked.get("texts")
    check_texts("texts", texts, options)
    items = texts
    if task == "score":
        targets = asked.get("targets", texts)  # a language model scores its texts
        check_targets(texts, targets, answers, options)
        items = list(zip(texts, targets, strict=True))
    token_ids = answers.vocabulary.encode(texts)  # raises if a text is not valid
    may_be_empty = answers.kind is kseq.text.TextWriter
    if [] in token_ids and not may_be_empty:
        raise ValueError(
            "A text must have a word or a character. Received: "
            f"texts[{token_ids.index([])}], which has none."
        )
    search = asked.get("search", "greedy")
    if not isinstance(search, str) or search not in answers.searches:
        raise ValueError(
            f"`search` must be one of {list(answers.searches)}. Received: {search!r}."
        )
    attention = asked.get("attention", False)
    stream = asked.get("stream", False)
    for name, value in (("attention", attention), ("stream", stream)):
        if not isinstance(value, bool):
            raise ValueError(f"`{name}` must be true or false. Received: {value!r}.")
    if stream and ("stream" not in answers.tasks or len(texts) > 1):
        raise ValueError(
            "One text can be streamed, by a model that generates text. Received: "
            f"{len(texts)} texts for a {answers.kind.__name__}."
        )
    if stream and search == "beam":
        raise ValueError('A stream needs "search": "greedy" or "sampling".')
    return {"items": items, "search": search, "attention": attention, "stream": stream}


def parse_json(content):
    """Return the object of a request."""
    try:
        asked = json.loads(content)
    except (ValueError, RecursionError) as error:
        raise ValueError(
            f"A request must be JSON in UTF-8. Received: {error}."
        ) from None
    if not isinstance(asked, dict):
        raise ValueError('A request must be an object: {"texts": ["..."]}.')
    return asked


def check_texts(name, texts, options):
    """Raise unless texts are a list of strings, neither too many nor too long."""
    is_list = isinstance(texts, list) and all(isinstance(text, str) for text in texts)
    if not is_list or not 1 <= len(texts) <= options.texts:
        raise ValueError(
            f"`{name}` must be a list of 1 to {options.texts} strings. Received: "
            f"{repr(texts)[:60]}."
        )
    lengths = [len(text) for text in texts]
    longest = max(lengths)
    if longest > options.characters:
        raise ValueError(
            f"A text must have {options.characters} characters at most. Received: "
            f"{name}[{lengths.index(longest)}], of {longest}."
        )


def check_targets(texts, targets, answers, options):
    """Raise unless there is a valid target for each text."""
    check_texts("targets", targets, options)
    if len(targets) != len(texts):
        raise ValueError(
            f"There must be a target for each text. Received: {len(texts)} texts, "
            f"{len(targets)} targets."
        )
    answers.target_vocabulary.encode(targets)  # raises if a target is not valid


# Main ---------------------------------------------------------------------------------


def main(argv=None):
    """Load a model and serve it until Ctrl-C or SIGTERM."""
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
    # Without this the end of an answer waits 40 ms until the client has confirmed its
    # beginning.
    listener.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    config = uvicorn.Config(
        build_application(pipeline, options),
        log_level="warning",
        limit_concurrency=options.connections,
        timeout_graceful_shutdown=options.patience,
    )
    # At SIGTERM uvicorn shuts down in order, and then raises the signal again.
    signal.signal(signal.SIGTERM, lambda number, frame: None)
    host, port = listener.getsockname()[:2]
    console.print(f"Serving a {type(pipeline).__name__} at http://{host}:{port}/")
    server = uvicorn.Server(config)
    server.run(sockets=[listener])
    console.print("Ended, after answering every request.")


def check_one_source(pipeline):
    """Raise if a pipeline reads several sources, which a request cannot contain."""
    vocabulary = getattr(pipeline, "source_vocabulary", None)
    if isinstance(vocabulary, dict):
        raise ValueError(
            "--load must be a pipeline of one source. Received: one of "
            f"{', '.join(vocabulary)}."
        )


def parse_arguments(argv):
    """Return the options of the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=Help)
    parser.add_argument(
        "--load",
        type=pathlib.Path,
        metavar="FILE",
        required=True,
        help="saved model to serve",
    )
    parser.add_argument(
        "--host",
        default="127.0.0.1",
        help="address to listen on; 0.0.0.0 lets other machines connect",
    )
    parser.add_argument(
        "--port",
        type=int,
        default=8000,
        help="port to listen on; 0 for any free port",
    )
    parser.add_argument(
        "--max-length",
        type=count,
        default=80,
        help="maximum number of tokens in an answer",
    )
    parser.add_argument("--beams", type=count, default=5, help="number of beams")
    parser.add_argument(
        "--temperature",
        type=positive,
        default=0.8,
        help="temperature of sampling: lower is more cautious, higher more varied",
    )
    parser.add_argument(
        "--seed", type=seed, default=0, help="seed of sampling (%(default)s)"
    )
    parser.add_argument(
        "--wait",
        type=positive,
        default=5,
        help="milliseconds to wait for more requests for a batch",
    )
    parser.add_argument("--batch-size", type=count, default=64, help="texts in a batch")
    parser.add_argument(
        "--texts", type=count, default=64, help="maximum number of texts in a request"
    )
    parser.add_argument(
        "--characters",
        type=count,
        default=2000,
        help="maximum number of characters in a text",
    )
    parser.add_argument(
        "--bytes",
        type=count,
        default=262144,
        help="maximum size of a request in bytes",
    )
    parser.add_argument(
        "--waiting",
        type=count,
        default=256,
        help="maximum number of queued requests",
    )
    parser.add_argument(
        "--streams", type=count, default=16, help="maximum number of streams at a time"
    )
    parser.add_argument(
        "--stream-seconds",
        type=count,
        default=300,
        help="maximum duration of a stream, in seconds",
    )
    parser.add_argument(
        "--connections",
        type=count,
        default=512,
        help="maximum number of connections at a time",
    )
    parser.add_argument(
        "--patience",
        type=count,
        default=30,
        help="seconds to wait for a request to arrive completely",
    )
    return parser.parse_args(argv)


if __name__ == "__main__":
    try:
        main()
    except KeyboardInterrupt:
        sys.exit("Stopped by Ctrl-C.")
