"""Copy sequences of repeated symbols, which attention by content alone confuses.

    python benchmarks/repeated_symbols.py --attention location
    python benchmarks/repeated_symbols.py --attention bahdanau --epochs 8

The source has 4 to 16 symbols of four kinds, and the target is the same. The encoder is
one convolution over three steps, so many steps have equal keys. To find the next step,
attention must know where it was. The decoder is a GRU.

It prints the share of new sequences that are copied without an error, for sequences of
16 symbols, and of 32, which are longer than any in training.

References:
    - Chorowski et al., 2015, https://arxiv.org/abs/1506.07503, 2 and 4.2
"""

import argparse

import keras
import machine
import numpy as np

import kseq
from kseq.training.cli import Help, count, seed

SYMBOLS = range(4, 8)  # 0 to 3 are padding, unknown, start and end
ATTENTIONS = ("bahdanau", "luong", "location", "coverage", "monotonic")


def sequences(random, rows, shortest, longest):
    """Return lists of random symbols."""
    lengths = random.integers(shortest, longest + 1, rows)
    return [random.choice(SYMBOLS, length).tolist() for length in lengths]


def build(attention, width):
    """Build the model that copies, compiled."""
    source, target = (kseq.layers.TokenEmbedding(SYMBOLS.stop, width) for _ in range(2))
    encoder = kseq.layers.ConvEncoder(width, num_layers=1, kernel_size=3)
    decoder = kseq.layers.RecurrentDecoder("gru", width, attention=attention)
    model = kseq.encoder_decoder(source, target, encoder, decoder)
    model.compile(keras.optimizers.Adam(5e-3), kseq.training.SequenceCrossentropy())
    return model


def share_of_copies(model, rows):
    """Return the share of rows that the model copies without an error."""
    longest = max(map(len, rows))
    written = model.generate(rows, max_length=longest + 8)
    expected = [[*row, model.end_token_id] for row in rows]
    lengths = written.lengths[:, 0]
    pairs = zip(written.token_ids[:, 0], lengths, expected, strict=True)
    return np.mean([ids[:length].tolist() == row for ids, length, row in pairs])


def main(argv=None):
    options = parse_arguments(argv)
    keras.utils.set_random_seed(options.seed)
    machine.print_description(machine.describe())
    random = np.random.default_rng(options.seed)
    source = sequences(random, options.rows, 4, 16)
    tests = {length: sequences(random, 100, length, length) for length in (16, 32)}
    model = build(options.attention, options.width)
    start, end = model.start_token_id, model.end_token_id
    target = [[start, *row, end] for row in source]
    data = kseq.training.teacher_forcing(source, target, batch_size=32)
    print(f"{options.attention}, {model.count_params():,} weights.")
    for epoch in range(1, options.epochs + 1):
        loss = model.fit(data, verbose=0).history["loss"][-1]
        shares = [
            f"{share_of_copies(model, rows):4.0%} of those of {length} symbols"
            for length, rows in tests.items()
        ]
        print(f"epoch {epoch:2}   loss {loss:.4f}   copied: {', '.join(shares)}")


def parse_arguments(argv):
    """Return the options of the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=Help)
    add = parser.add_argument
    add("--attention", choices=ATTENTIONS, default="location", help="of the decoder")
    add("--width", type=count, default=32, help="width of every layer")
    add("--rows", type=count, default=2000, help="sequences to train on")
    add("--epochs", type=count, default=4, help="epochs to train")
    add("--seed", type=seed, default=0, help="random seed (%(default)s)")
    add("--quick", action="store_true", help="smoke test on 64 sequences")
    options = parser.parse_args(argv)
    if options.quick:
        options.rows = 64
        options.epochs = 1
    return options


if __name__ == "__main__":
    main()
