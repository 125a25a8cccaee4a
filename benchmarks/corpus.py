"""A large corpus of pairs: vocabularies, first batch, batches, and peak memory.

    python benchmarks/corpus.py                    # 5,000,000 pairs, about 1 GB of text
    python benchmarks/corpus.py --pairs 300000 --json corpus.json

Each line is one or two pairs of Multi30k, German and English, so lengths vary. Each
system runs in its own process and does everything from two files to the batches of an
epoch: it learns a vocabulary for each side, encodes, shuffles, and batches pairs of
similar length. A batch has 4,096 tokens on the longer side, padding included.

- `kseq` encodes to folders that are mapped into memory.
- `kseq, again` reuses these folders.
- `kseq, in memory` keeps texts and ids in memory.
- `sentencepiece, tf.data` is a handwritten pipeline that encodes again in every epoch.
- `step` trains a Transformer of 3 + 3 layers, width 256, on such batches.

`peak_mb` is the whole memory of the process. `above_mb` is the memory beyond that of a
process that has only imported kseq and TensorFlow. `padding` is the share of tokens
that are padding.
"""

import argparse
import json
import os
import random
import resource
import subprocess
import sys
import tempfile
import time

TOKENS, LONGEST, PIECES = 4096, 250, 8000
BUFFER = 100_000  # pairs in the shuffle buffer of `sentencepiece, tf.data`
STEPS = 24
SYSTEMS = {}


def system(name):
    def add(function):
        SYSTEMS[name] = function
        return function

    return add


def main():
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    add = parser.add_argument
    add("--pairs", type=int, default=5_000_000, help="pairs to write (%(default)s)")
    add("--batches", type=int, help="batches to read (all of an epoch)")
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
        name, folder = options.worker
        if name == "pairs":
            return write_pairs(folder, options.pairs)
        return print(json.dumps(measured(name, folder, options.batches)))
    import machine  # its NumPy must not count in the memory of a worker

    machine.print_description(machine.describe())
    rows = []
    with tempfile.TemporaryDirectory() as folder:
        # In a subprocess, because the peak of a child includes that of its parent.
        written = run("pairs", folder)
        if written.returncode:
            sys.exit(written.stderr.strip().splitlines()[-1])
        size = sum(os.path.getsize(f"{folder}/train.{x}") for x in ("de", "en"))
        print(f"{options.pairs:,} pairs, {size / 1e6:,.0f} MB of text", flush=True)
        for name in options.systems or SYSTEMS:
            done = run(name, folder)
            if done.returncode:
                print(f"{name}: {done.stderr.strip().splitlines()[-1]}")
                continue
            figures = json.loads(done.stdout.splitlines()[-1])
            shown = (f"{metric} {value:,}" for metric, value in figures.items())
            print(f"{name}: {', '.join(shown)}", flush=True)
            case = {"case": f"corpus_{options.pairs}", "system": name}
            rows += [
                {**case, "metric": metric, "value": value, "unit": unit_of(metric)}
                for metric, value in figures.items()
            ]
    if options.json:
        with open(options.json, "w", encoding="utf-8") as file:
            json.dump(rows, file, indent=1)


def run(name, folder):
    command = [sys.executable, *sys.argv, "--worker", name, folder]
    return subprocess.run(command, capture_output=True, text=True)


def unit_of(metric):
    return {"mb": "MB", "ms": "ms", "s": "s"}.get(metric.split("_")[-1], metric)


def write_pairs(folder, number):
    import kseq

    pairs = list(zip(*kseq.datasets.load("multi30k")["train"], strict=True))
    draw = random.Random(0)
    with open(f"{folder}/train.de", "w", encoding="utf-8") as german:
        with open(f"{folder}/train.en", "w", encoding="utf-8") as english:
            for _ in range(number):
                chosen = draw.choices(pairs, k=1 + (draw.random() < 0.6))
                for file, texts in zip(
                    (german, english), zip(*chosen, strict=True), strict=True
                ):
                    file.write(" ".join(texts) + "\n")


def measured(name, folder, most):
    """Return the figures of a system, or of a training step."""
    figures, began = {}, time.perf_counter()

    def note(metric):
        nonlocal began
        now = time.perf_counter()
        figures[metric] = round(now - began, 2)
        began = now

    import tensorflow as tf

    import kseq

    assert tf and kseq
    note("import_s")
    empty = peak()
    result = SYSTEMS[name](folder, note)
    if isinstance(result, dict):
        return figures | result
    count(result, most, note, figures)
    return {**figures, "peak_mb": peak(), "above_mb": peak() - empty}


def count(batches, most, note, figures):
    """Read the batches of an epoch one after another, in one thread."""
    number = real = padded = 0
    began = time.process_time()
    for number, (inputs, labels) in enumerate(batches, 1):
        if number == 1:
            note("first_batch_s")
            began = time.process_time()
        for ids in (inputs["source"], labels):
            ids = ids.numpy() if hasattr(ids, "numpy") else ids
            real, padded = real + (ids != 0).sum(), padded + ids.size
        if number == most:
            break
    note("batches_s")
    figures["batches"] = number
    figures["batch_ms"] = round(1e3 * figures["batches_s"] / number, 3)
    figures["processor_ms"] = round(1e3 * (time.process_time() - began) / number, 3)
    figures["padding"] = round(1 - float(real) / padded, 4)
    figures["tokens"] = int(real)


def peak():
    return round(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024)


def vocabulary(lines):
    import kseq

    return kseq.text.Vocabulary("sentence_piece", max_tokens=PIECES).adapt(lines)


def by_files(folder):
    from kseq.corpora import Lines

    return (Lines(f"{folder}/train.{language}") for language in ("de", "en"))


@system("kseq")
def kseq_files(folder, note):
    german, english = map(vocabulary, by_files(folder))
    german.save(f"{folder}/de.json"), english.save(f"{folder}/en.json")
    note("vocabularies_s")
    data = mapped(folder, german, english)
    note("encode_s")
    return batches_of(*data)


@system("kseq, again")
def kseq_again(folder, note):
    from kseq.text import Vocabulary

    words = (Vocabulary.load(f"{folder}/{language}.json") for language in ("de", "en"))
    return batches_of(*mapped(folder, *words))


def mapped(folder, german, english):
    from kseq.corpora import encode_file

    return (
        encode_file(german, f"{folder}/train.de", f"{folder}/de.ids"),
        encode_file(english, f"{folder}/train.en", f"{folder}/en.ids", True, True),
    )


def batches_of(source, target):
    import kseq

    return kseq.training.teacher_forcing(
        source, target, batch_tokens=TOKENS, max_length=LONGEST
    )


@system("kseq, in memory")
def kseq_in_memory(folder, note):
    texts = [list(lines) for lines in by_files(folder)]
    german, english = map(vocabulary, texts)
    note("vocabularies_s")
    rows = german.encode(texts[0]), english.encode(texts[1], start=True, end=True)
    note("encode_s")
    return batches_of(*rows)


@system("sentencepiece, tf.data")
def by_hand(folder, note):
    import io

    import numpy as np
    import sentencepiece
    import tensorflow as tf

    special = {"pad_id": 0, "unk_id": 1, "bos_id": 2, "eos_id": 3}
    processors = []
    for language in ("de", "en"):
        writer = io.BytesIO()
        sentencepiece.SentencePieceTrainer.train(
            input=f"{folder}/train.{language}",
            model_writer=writer,
            vocab_size=PIECES,
            input_sentence_size=1_000_000,
            shuffle_input_sentence=True,
            hard_vocab_limit=False,
            minloglevel=3,
            **special,
        )
        model = writer.getvalue()
        processors.append(sentencepiece.SentencePieceProcessor(model_proto=model))
    note("vocabularies_s")
    german, english = processors

    def encode(sources, targets):
        rows = [
            german.encode(sources.tolist()),
            english.encode(targets.tolist(), add_bos=True, add_eos=True),
        ]
        flat = [np.concatenate([np.array(r, "int32") for r in side]) for side in rows]
        lengths = [np.array([len(r) for r in side], "int64") for side in rows]
        return [*flat, *lengths]

    def pair(sources, targets):
        kinds = ["int32", "int32", "int64", "int64"]
        parts = tf.numpy_function(encode, [sources, targets], kinds)
        for part in parts:
            part.set_shape([None])
        rows = (
            tf.RaggedTensor.from_row_lengths(parts[side], parts[2 + side]).to_tensor()
            for side in (0, 1)
        )
        return *rows, *parts[2:]

    limits = list(range(4, LONGEST + 4, 4))
    sizes = [max(TOKENS // limit, 1) for limit in limits]
    files = [tf.data.TextLineDataset(f"{folder}/train.{x}") for x in ("de", "en")]
    data = tf.data.Dataset.zip(*files).batch(1000)
    data = data.map(pair, num_parallel_calls=tf.data.AUTOTUNE).unbatch()
    data = data.map(lambda s, t, s_length, t_length: (s[:s_length], t[:t_length]))
    data = data.filter(
        lambda s, t: tf.maximum(tf.shape(s)[0], tf.shape(t)[0]) < LONGEST
    )
    data = data.shuffle(BUFFER, seed=0).bucket_by_sequence_length(
        lambda s, t: tf.maximum(tf.shape(s)[0], tf.shape(t)[0] - 1),
        [limit + 1 for limit in limits],
        [*sizes, 1],
    )
    data = data.map(lambda s, t: ({"source": s, "target": t[:, :-1]}, t[:, 1:]))
    return data.prefetch(tf.data.AUTOTUNE)


@system("step")
def step(folder, note):
    """Return the median time of the later steps of a training."""
    import numpy as np

    import kseq
    from kseq.text import Vocabulary

    words = [Vocabulary.load(f"{folder}/{language}.json") for language in ("de", "en")]
    data = batches_of(*mapped(folder, *words))
    options = {"num_layers": 3, "num_heads": 4, "dropout": 0.1}
    model = kseq.encoder_decoder(
        words[0].size,
        words[1].size,
        encoder=kseq.layers.TransformerEncoder(**options),
        decoder=kseq.layers.TransformerDecoder(**options),
        width=256,
    )
    model.compile("adam", kseq.training.SequenceCrossentropy(), jit_compile=False)
    seconds, began = [], time.perf_counter()
    for index in range(len(data)):
        batch = data[index]
        clock = time.perf_counter()
        model.train_on_batch(*batch)
        seconds.append(time.perf_counter() - clock)
        if len(seconds) == STEPS or time.perf_counter() - began > 300:
            break
    return {"step_ms": round(1e3 * float(np.median(seconds[len(seconds) // 3 :])), 1)}


if __name__ == "__main__":
    main()
