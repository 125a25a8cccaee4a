"""Two tasks that need a long memory: add two marked numbers, or copy ten symbols.

    python benchmarks/long_memory.py --layer mingru --task adding
    python benchmarks/long_memory.py --layer conv --task copying --minutes 20

adding    A sequence has a random number in [0, 1) at each step, and two steps are
          marked, one in each half. The answer at the last step is the sum of the two
          numbers. Always answering 1 has a mean squared error of 1/6, the variance of
          the sum. Solved: below 0.01 on new sequences.
copying   Ten symbols of eight kinds, then blanks, then ten signs to answer, at which
          the ten symbols must come back in order. A guess is right once in eight times.
          Solved: all ten are right in 99 of 100 new sequences.

The data come from the rule and the seed, and no sequence is used twice. Every network
reads from left to right, except the Transformer, and answers from its last steps alone.
Training ends when the task is solved or the time is over.

References:
    - Hochreiter and Schmidhuber, 1997, https://doi.org/10.1162/neco.1997.9.8.1735, 5.4
    - Bai et al., 2018, https://arxiv.org/abs/1803.01271, 5.2 and A
"""

import argparse
import time

import keras
import machine
import numpy as np
from keras import ops

import kseq
from kseq.training.cli import Help, count, positive, seed

NUM_SYMBOLS = 8  # token ids 1 to 8; 0 is padding
BLANK = 9
ANSWER = 10
NUM_COPIED = 10
DEFAULTS = {  # layers; for each task the width of a layer and the learning rate
    "conv": (8, {"adding": (10, 2e-3), "copying": (10, 5e-4)}),  # reads 3,571 steps
    "mingru": (3, {"adding": (32, 4e-3), "copying": (128, 4e-3)}),
    "gru": (1, {"adding": (128, 2e-3), "copying": (128, 2e-3)}),
    "lstm": (1, {"adding": (128, 2e-3), "copying": (128, 2e-3)}),
    "transformer": (2, {"adding": (32, 1e-3), "copying": (32, 1e-3)}),
}


# Data ---------------------------------------------------------------------------------


def adding(random, rows, steps):
    """Return numbers and marks, `(rows, steps, 2)`, and sums, `(rows, 1)`."""
    numbers = random.random((rows, steps))
    marks = np.zeros((rows, steps))
    row = np.arange(rows)
    marks[row, random.integers(0, steps // 2, rows)] = 1
    marks[row, random.integers(steps // 2, steps, rows)] = 1
    sums = (numbers * marks).sum(axis=1, keepdims=True)
    return np.stack([numbers, marks], axis=-1).astype("float32"), sums


def copying(random, rows, steps):
    """Return token ids `(rows, steps + 20)`, and the symbols `(rows, 10)` from 0 on."""
    symbols = random.integers(0, NUM_SYMBOLS, (rows, NUM_COPIED))
    blanks = np.full((rows, steps), BLANK)
    answers = np.full((rows, NUM_COPIED), ANSWER)
    return np.concatenate([symbols + 1, blanks, answers], axis=1), symbols


TASKS = {"adding": adding, "copying": copying}


# Build --------------------------------------------------------------------------------


def build(options):
    """Build a model for the task, compiled."""
    encoder = build_encoder(options)
    positions = None
    if options.layer == "transformer":
        positions = "sinusoidal"
    if options.task == "adding":
        embedding = kseq.layers.FeatureEmbedding(2, options.width, positions=positions)
        model = kseq.many_to_one(embedding, 1, encoder, pooling="last")
        loss = "mse"
    else:
        embedding = kseq.layers.TokenEmbedding(
            ANSWER + 1, options.width, positions=positions
        )
        reader = kseq.many_to_many(embedding, 128, encoder)
        last = ops.relu(reader.output[:, -NUM_COPIED:])
        logits = keras.layers.Dense(NUM_SYMBOLS)(last)
        model = keras.Model(reader.input, logits)
        loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    optimizer = keras.optimizers.Adam(options.learning_rate, global_clipnorm=1.0)
    model.compile(optimizer, loss)
    return model


def build_encoder(options):
    """Build the encoder that `--layer` names."""
    if options.layer == "conv":
        return kseq.layers.ConvEncoder(
            options.width, options.layers, kernel_size=8, causal=True
        )
    if options.layer == "transformer":
        return kseq.layers.TransformerEncoder(
            options.layers, num_heads=4, width=options.width
        )
    is_deep = options.layers > 1
    return kseq.layers.RecurrentEncoder(
        options.layer,
        options.width,
        options.layers,
        residual=is_deep,
        layer_normalization=is_deep,
    )


# Train --------------------------------------------------------------------------------


class Report(keras.callbacks.Callback):
    """A line of figures after each epoch; stops if the task is solved or time is over.

    `solved` is the number of minutes, or None.
    """

    def __init__(self, options, inputs, answers):
        super().__init__()
        self.options = options
        self.inputs = inputs
        self.answers = answers
        self.began = time.perf_counter()
        self.solved = None

    def on_epoch_end(self, epoch, logs=None):
        minutes = (time.perf_counter() - self.began) / 60
        batches = (epoch + 1) * self.options.batches
        is_solved, figures = judge(
            self.options.task,
            self.model.predict(self.inputs, self.options.batch_size, verbose=0),
            self.answers,
        )
        print(
            f"{minutes:6.2f} min {batches:6,} batches   loss {logs['loss']:.4f}   "
            f"{figures}",
            flush=True,
        )
        if is_solved:
            self.solved = minutes
        if is_solved or minutes >= self.options.minutes:
            self.model.stop_training = True


def judge(task, outputs, answers):
    """Return whether the task is solved, and the figures that tell it."""
    if task == "adding":
        error = np.square(outputs - answers).mean()
        baseline = np.square(1 - answers).mean()
        figures = f"mean squared error {error:.4f} (answering 1: {baseline:.4f})"
        return error < 0.01, figures
    is_right = outputs.argmax(axis=-1) == answers
    all_right = is_right.all(axis=1).mean()
    figures = (
        f"symbols right {is_right.mean():.1%} (a guess: {1 / NUM_SYMBOLS:.1%}), "
        f"all ten {all_right:.1%}"
    )
    return all_right >= 0.99, figures


def batches(options):
    """Yield new batches for ever."""
    random = np.random.default_rng(options.seed)
    while True:
        yield TASKS[options.task](random, options.batch_size, options.steps)


def main(argv=None):
    options = parse_arguments(argv)
    keras.utils.set_random_seed(options.seed)
    machine.print_description(machine.describe())
    model = build(options)
    print(
        f"{options.layer}, {model.count_params():,} weights; {options.task} over "
        f"{options.steps:,} steps, batches of {options.batch_size}."
    )
    random = np.random.default_rng([options.seed, 1])
    inputs, answers = TASKS[options.task](random, options.test_rows, options.steps)
    report = Report(options, inputs, answers)
    model.fit(
        batches(options),
        steps_per_epoch=options.batches,
        epochs=10**6,
        callbacks=[report],
        shuffle=False,
        verbose=0,
    )
    if report.solved is None:
        print(f"Not solved in {options.minutes:g} minutes.")
    else:
        print(f"Solved after {report.solved:.1f} minutes.")
    return report.solved


def parse_arguments(argv):
    """Return the options of the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=Help)
    add = parser.add_argument
    add("--layer", choices=list(DEFAULTS), default="mingru", help="encoder")
    add("--task", choices=list(TASKS), default="adding", help="task to learn")
    add("--steps", type=count, default=1000, help="steps to remember")
    add("--minutes", type=positive, default=30, help="time to train at most")
    add(
        "--width",
        type=count,
        help="width of every layer (depends on --layer and --task)",
    )
    add("--layers", type=count, help="number of layers (depends on --layer)")
    add(
        "--learning-rate",
        type=positive,
        help="learning rate (depends on --layer and --task)",
    )
    add("--batch-size", type=count, default=32, help="sequences in a batch")
    add("--batches", type=count, default=50, help="batches between two lines")
    add("--test-rows", type=count, default=200, help="sequences to test with")
    add("--seed", type=seed, default=0, help="random seed (%(default)s)")
    add("--quick", action="store_true", help="smoke test on 20 steps for seconds")
    options = parser.parse_args(argv)
    num_layers, sizes = DEFAULTS[options.layer]
    width, learning_rate = sizes[options.task]
    options.width = options.width or width
    options.layers = options.layers or num_layers
    options.learning_rate = options.learning_rate or learning_rate
    if options.quick:
        options.steps = 20
        options.minutes = 0.01
        options.width = 8
        options.batches = 2
        options.test_rows = 20
    return options


if __name__ == "__main__":
    main()
