"""The server of the recipes: many clients at once, and one client alone.

    python benchmarks/serve.py --load multi30k/model.keras
    python benchmarks/serve.py --load multi30k/model.keras --clients 64 --texts 512

The texts are German captions of Multi30k, or the lines of `--lines FILE`. `calls` is
one client that sends one text after another; `clients` is many such clients at once.
`generate` is the pipeline in this process, one text per call, without HTTP. The
benchmark checks that all return the same texts, and stops if more than 1 % differ (two
words may be equally probable). Each system generates all texts `--warm` times before it
is timed, because each new batch size is compiled when it first occurs.
"""

import argparse
import concurrent.futures
import http.client
import json
import pathlib
import re
import signal
import statistics
import subprocess
import sys
import time

from machine import busy_beside, describe, print_description

SERVER = pathlib.Path(__file__).parents[1] / "recipes" / "serve.py"


def main():
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "--load", required=True, metavar="FILE", help="saved model to serve"
    )
    parser.add_argument("--lines", metavar="FILE", help="file with one text per line")
    parser.add_argument(
        "--texts", type=int, default=256, help="number of texts (%(default)s)"
    )
    parser.add_argument(
        "--clients", type=int, default=64, help="clients at once (%(default)s)"
    )
    parser.add_argument(
        "--max-length",
        type=int,
        default=80,
        help="maximum number of tokens in an answer (%(default)s)",
    )
    parser.add_argument(
        "--warm", type=int, default=3, help="rounds before timing (%(default)s)"
    )
    parser.add_argument("--json", metavar="FILE", help="also write the figures as JSON")
    options = parser.parse_args()
    machine = {**describe(), "busy_beside": busy_beside()}
    print_description(machine)
    texts = texts_of(options)
    print(f"{len(texts)} texts, {options.clients} clients")
    print(f"{'':<16}{'texts/s':>10}{'median ms':>12}{'95 % ms':>10}")
    rows, written = [], {}
    for name, ask in systems(options, texts):
        for _ in range(options.warm):
            ask(texts)
        began = time.perf_counter()
        written[name], milliseconds = ask(texts)
        seconds = time.perf_counter() - began
        pairs = zip(written[name], written["generate"], strict=True)
        others = sum(one != other for one, other in pairs)
        if others > len(texts) // 100:  # two words may be equally probable
            sys.exit(
                f"{others} of {len(texts)} texts of {name} differ from `generate`."
            )
        figures = {
            "texts_per_s": len(texts) / seconds,
            "median_ms": statistics.median(milliseconds),
            "95_ms": statistics.quantiles(milliseconds, n=20)[-1],
        }
        print(f"{name:<16}{''.join(f'{x:>11.1f}' for x in figures.values())}")
        for metric, value in figures.items():
            case = {"case": "serve", "system": name, "metric": metric}
            unit = "texts/s" if metric == "texts_per_s" else "ms"
            rows.append({**case, "value": round(value, 2), "unit": unit})
    if options.json:
        with open(options.json, "w", encoding="utf-8") as file:
            json.dump({"machine": machine, "rows": rows}, file, indent=1)


def texts_of(options):
    if options.lines:
        with open(options.lines, encoding="utf-8") as file:
            texts = [line.strip() for line in file if line.strip()]
    else:
        import kseq

        sources, _ = kseq.datasets.load("multi30k")["test"]
        texts = [" ".join(text.lower().split()) for text in sources]
    return texts[: options.texts]


def systems(options, texts):
    """Yield the name and the generating function of each system."""
    yield "generate", in_this_process(options)
    command = [sys.executable, SERVER, "--load", options.load, "--port", "0"]
    command += ["--max-length", str(options.max_length)]
    server = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    try:
        port = int(re.search(r":(\d+)/", server.stdout.readline())[1])
        yield "calls", lambda texts: clients(port, texts, 1)
        yield "clients", lambda texts: clients(port, texts, options.clients)
    finally:
        server.send_signal(signal.SIGTERM)
        server.wait()


def in_this_process(options):
    import kseq

    pipeline = kseq.text.load(options.load)

    def ask(texts):
        written, milliseconds = [], []
        for text in texts:
            began = time.perf_counter()
            [[best]] = pipeline.generate([text], max_length=options.max_length)
            milliseconds.append(1000 * (time.perf_counter() - began))
            written.append(best.text)
        return written, milliseconds

    return ask


def clients(port, texts, number):
    """Return the texts generated for several clients at once, and milliseconds."""

    def client(own):
        connection = http.client.HTTPConnection("127.0.0.1", port, timeout=600)
        found = []
        for text in own:
            began = time.perf_counter()
            connection.request("POST", "/generate", json.dumps({"texts": [text]}))
            response = connection.getresponse()
            answer = json.loads(response.read())
            if response.status != 200:
                sys.exit(f"{text!r} failed with status {response.status}: {answer}")
            milliseconds = 1000 * (time.perf_counter() - began)
            found.append((answer["results"][0][0]["text"], milliseconds))
        connection.close()
        return found

    shares = [texts[first::number] for first in range(number)]
    written, milliseconds = [None] * len(texts), [None] * len(texts)
    with concurrent.futures.ThreadPoolExecutor(number) as pool:
        for first, found in enumerate(pool.map(client, shares)):
            written[first::number] = [text for text, _ in found]
            milliseconds[first::number] = [each for _, each in found]
    return written, milliseconds


if __name__ == "__main__":
    main()
