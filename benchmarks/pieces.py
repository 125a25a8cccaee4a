"""Subword vocabularies of many lines: time and peak memory to learn and to encode.

    python benchmarks/pieces.py --lines 1000000
    python benchmarks/pieces.py --lines 100000 --systems "kseq, unigram" sentencepiece

The lines are the captions of Multi30k in both languages. If more lines are needed,
halves of two captions are joined. Each system learns from the same file in its own
process, one system at a time. It then encodes all lines to ids, a chunk at a time.
`learn_s` and `encode_s` do not include imports; `peak_mb` is the whole memory of the
process. Needs the extra `pieces`; the comparison needs `pip install tokenizers`.
"""

import argparse
import json
import random
import resource
import subprocess
import sys
import tempfile
import time

CHUNK = 10_000
SYSTEMS = {}


def system(name):
    """Register a function as one of the systems.

    The function imports what it needs and returns two functions: `learn(lines, size)`,
    and `encode(lines)` for a list of lines.
    """

    def add(function):
        SYSTEMS[name] = function
        return function

    return add


def main():
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    add = parser.add_argument
    add("--lines", type=int, default=100_000, help="lines to learn from (%(default)s)")
    add("--pieces", type=int, default=8000, help="size of a vocabulary (%(default)s)")
    add(
        "--systems",
        nargs="+",
        choices=list(SYSTEMS),
        metavar="NAME",
        help=f"run only these systems, of: {'; '.join(SYSTEMS)}",
    )
    add("--json", metavar="FILE", help="also write the figures as JSON")
    add("--worker", nargs=2, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.worker:
        name, path = options.worker
        if name == "lines":
            return write_lines(path, options.lines)
        return print(json.dumps(measure(name, path, options.pieces)))
    import machine  # its NumPy must not count in the memory of a worker

    machine.print_description(machine.describe())
    rows = []
    print(f"{options.lines:,} lines, {options.pieces:,} pieces")
    print(f"{'':<24}{'learn_s':>10}{'encode_s':>10}{'peak_mb':>10}{'ids':>14}")
    with tempfile.NamedTemporaryFile(suffix=".txt") as file:
        # In a subprocess, because the peak of a child includes that of its parent.
        command = [sys.executable, *sys.argv, "--worker", "lines", file.name]
        subprocess.run(command, check=True, stderr=subprocess.DEVNULL)
        for name in options.systems or SYSTEMS:
            command = [sys.executable, *sys.argv, "--worker", name, file.name]
            done = subprocess.run(command, capture_output=True, text=True)
            if done.returncode:
                print(f"{name}: {done.stderr.strip().splitlines()[-1]}")
                continue
            figures = json.loads(done.stdout.splitlines()[-1])
            learn, encode, peak, ids = figures.values()
            print(f"{name:<24}{learn:>10.1f}{encode:>10.1f}{peak:>10.0f}{ids:>14,}")
            case = {"case": f"pieces_of_{options.lines}_lines", "system": name}
            for metric, value in figures.items():
                unit = {"peak_mb": "MB", "ids": "ids"}.get(metric, "s")
                rows.append({**case, "metric": metric, "value": value, "unit": unit})
    if options.json:
        with open(options.json, "w", encoding="utf-8") as file:
            json.dump(rows, file, indent=1)


def write_lines(path, number):
    with open(path, "w", encoding="utf-8") as file:
        file.writelines(line + "\n" for line in lines_of_captions(number))


def lines_of_captions(number):
    """Yield captions; if there are too few, join halves of two captions."""
    import kseq

    source, target = kseq.datasets.load("multi30k")["train"]
    captions = [*source, *target]
    draw = random.Random(0)
    draw.shuffle(captions)
    yield from captions[:number]
    for _ in range(number - len(captions)):
        first, second = draw.choice(captions).split(), draw.choice(captions).split()
        yield " ".join(first[: len(first) // 2] + second[len(second) // 2 :])


def measure(name, path, pieces):
    """Return the seconds of a system, and the memory of its process."""
    learn, encode = SYSTEMS[name]()
    began = time.perf_counter()
    learn(lines_of(path), int(pieces))
    learned = time.perf_counter()
    num_ids, chunk = 0, []
    for line in lines_of(path):
        chunk.append(line)
        if len(chunk) == CHUNK:
            num_ids += sum(map(len, encode(chunk)))
            chunk = []
    num_ids += sum(map(len, encode(chunk))) if chunk else 0
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    seconds = {"learn_s": learned - began, "encode_s": time.perf_counter() - learned}
    rounded = {metric: round(value, 2) for metric, value in seconds.items()}
    return {**rounded, "peak_mb": round(peak), "ids": num_ids}


def lines_of(path):
    with open(path, encoding="utf-8") as file:
        for line in file:
            yield line.rstrip("\n")


def by_kseq(split, **options):
    import kseq

    learned = []

    def learn(lines, size):
        vocabulary = kseq.text.Vocabulary(split, max_tokens=size, **options)
        learned.append(vocabulary.adapt(lines))

    return learn, lambda lines: learned[0].encode(lines)


def by_sentencepiece(model):
    import io

    import sentencepiece

    learned = []

    def learn(lines, size):
        writer = io.BytesIO()
        sentencepiece.SentencePieceTrainer.train(
            sentence_iterator=lines,
            model_writer=writer,
            vocab_size=size,
            model_type=model,
            byte_fallback=True,
            hard_vocab_limit=False,
            normalization_rule_name="identity",
            remove_extra_whitespaces=False,
            minloglevel=3,
        )
        proto = writer.getvalue()
        learned.append(sentencepiece.SentencePieceProcessor(model_proto=proto))

    return learn, lambda lines: learned[0].encode(lines)


def by_tokenizers(model, trainer, **options):
    import tokenizers

    tokenizer = tokenizers.Tokenizer(getattr(tokenizers.models, model)(**options))
    tokenizer.pre_tokenizer = tokenizers.pre_tokenizers.Metaspace()

    def learn(lines, size):
        kind = getattr(tokenizers.trainers, trainer)
        learner = kind(vocab_size=size, special_tokens=["<unk>"], show_progress=False)
        tokenizer.train_from_iterator(lines, learner)

    return learn, lambda lines: [e.ids for e in tokenizer.encode_batch(lines)]


@system("kseq, unigram")
def kseq_unigram():
    return by_kseq("sentence_piece")


@system("sentencepiece, unigram")
def sentencepiece_unigram():
    return by_sentencepiece("unigram")


@system("kseq, bpe")
def kseq_bpe():
    return by_kseq("sentence_piece", model="bpe")


@system("sentencepiece, bpe")
def sentencepiece_bpe():
    return by_sentencepiece("bpe")


@system("tokenizers, bpe")
def tokenizers_bpe():
    return by_tokenizers("BPE", "BpeTrainer", unk_token="<unk>")


@system("kseq, word_piece")
def kseq_word_piece():
    return by_kseq("word_piece")


if __name__ == "__main__":
    main()
