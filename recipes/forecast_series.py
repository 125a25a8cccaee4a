"""Forecast series of numbers: the next steps, from the last weeks.

A network reads the last weeks of each series in patches of a day, and predicts how the
following steps differ from the last value. All series share the network. By default
they are the hourly loads and the oil temperature of a power transformer (ETTh1), split
as in the literature: 12 months for training, 4 for validation, 4 for testing.

    python recipes/forecast_series.py --output forecast
    python recipes/forecast_series.py --series my.csv --horizon 48 --output mine
    python recipes/forecast_series.py --series my.csv --load mine/model.keras
    python recipes/forecast_series.py --model seq2seq --output fans
    python recipes/forecast_series.py --series my.csv --load fans/model.keras

With `--model seq2seq` a decoder generates the steps patch by patch, as distributions,
and reads a sample of each patch to generate the next. A hundred samples show how
certain the forecast is. Each window is scaled as in DeepAR: by its mean distance from
its last value. For ETTh1 add `--width 128 --dropout 0.3 --epochs 5`: it needs half of
the time.

The first line of a CSV file has the names of the columns. Each column is a series,
except a first one of dates. Each other line is a step. With `--load` the forecast
starts where the file ends.
"""

import argparse
import pathlib
import sys
import zipfile

import keras
import numpy as np
from keras import ops

import kseq
from kseq.training.cli import Help, count, folder, positive, require, seed, share

try:
    from rich.console import Console
    from rich.table import Table
except ImportError as error:
    sys.exit(f"{error}. Install what the recipes need: pip install kseq[recipes]")

PAST_COLOR = "0.6"
TRUE_COLOR = "#51127c"
FORECAST_COLOR = "#f1605d"
MOST_SERIES = 8  # that a picture shows
console = Console(markup=False, emoji=False, highlight=False)

# Letters of shapes: B windows, L steps of a window or its past, H steps of the horizon,
# C series (columns), S patches, P steps of a patch, N samples.


# Load ---------------------------------------------------------------------------------


def load_splits(options):
    """Return the names of the series, and three arrays (steps, C).

    The arrays are the steps for training, validation and testing, one after another.
    """
    try:
        if options.series:
            values, names = kseq.datasets.read_columns(options.series)
            first_validation = len(values) * 6 // 10
            first_test = len(values) * 8 // 10
            splits = np.split(values, [first_validation, first_test])
        else:
            data = kseq.datasets.load("ett", options.data)
            splits = [values for values, _ in data.values()]
            _, names = data["train"]
    except (ValueError, OSError) as error:
        sys.exit(str(error))
    if options.quick:
        num_steps = 6 * (options.context + options.horizon)
        first_steps = np.concatenate(splits)[:num_steps]
        splits = np.array_split(first_steps, 3)
    return names, splits


def check_sizes(splits, options):
    """Exit unless each split has the steps of at least one window."""
    sizes = [len(split) for split in splits]
    num_train, num_validation, num_test = sizes
    length = options.context + options.horizon
    if num_train < length or min(num_validation, num_test) < options.horizon:
        sys.exit(
            f"--context and --horizon need {length} steps for training, and "
            f"{options.horizon} for validation and for testing. Received: {sizes}."
        )


def add_past(splits, context):
    """Return the splits, each with the past that its first forecast reads."""
    train, validation, test = splits
    validation = np.concatenate([train[-context:], validation])
    test = np.concatenate([validation[-context:], test])
    return train, validation, test


def make_windows(values, options, shuffle=False):
    """Return batches of all windows: the past (B, L, C), and the future (B, H, C)."""
    context = options.context
    seed = None
    if shuffle:
        seed = options.seed
    windows = keras.utils.timeseries_dataset_from_array(
        values.astype("float32"),
        targets=None,
        sequence_length=context + options.horizon,
        batch_size=options.batch_size,
        shuffle=shuffle,
        seed=seed,
    )
    return windows.map(lambda steps: (steps[:, :context], steps[:, context:]))


# A forecast of all steps at once ------------------------------------------------------


def build(options, num_series):
    """Build a model that reads each series by itself, with one network for all."""
    num_patches = options.context // options.patch
    if options.encoder == "transformer":
        embedding = kseq.layers.FeatureEmbedding(
            options.patch, options.width, positions="learned", max_length=num_patches
        )
    else:
        embedding = kseq.layers.FeatureEmbedding(options.patch, options.width)
    network = kseq.many_to_one(
        embedding,
        num_outputs=options.horizon,
        encoder=options.encoder,
        pooling="last",
        width=options.width,
        dropout=options.dropout,
    )
    past = keras.Input((options.context, num_series))  # B L C
    last = past[:, -1:]  # B 1 C
    series = ops.transpose(past - last, (0, 2, 1))  # B C L
    patches = ops.reshape(series, (-1, num_patches, options.patch))  # BC S P
    changes = network(patches)  # BC H
    changes = ops.reshape(changes, (-1, num_series, options.horizon))  # B C H
    forecast = last + ops.transpose(changes, (0, 2, 1))  # B H C
    return keras.Model(past, forecast)


def with_units(model, mean, deviation):
    """Return the model for values as they are measured: degrees, kilowatts, Euros."""
    mean = mean.tolist()
    variance = (deviation**2).tolist()
    normalize = keras.layers.Normalization(mean=mean, variance=variance)
    denormalize = keras.layers.Normalization(mean=mean, variance=variance, invert=True)
    measured_past = keras.Input(model.input_shape[1:])
    forecast = model(normalize(measured_past))
    return keras.Model(measured_past, denormalize(forecast))


def fit(model, saved_model, options, train, validation):
    """Train with `Model.fit` and save the best epoch."""
    train_batches = make_windows(train, options, shuffle=True)
    validation_batches = make_windows(validation, options)
    learning_rate = keras.optimizers.schedules.CosineDecay(
        options.learning_rate, decay_steps=len(train_batches) * options.epochs
    )
    model.compile(
        keras.optimizers.Adam(learning_rate, global_clipnorm=1.0),
        loss="mae",  # rare jumps, which cannot be predicted, weigh less than in "mse"
        metrics=["mse"],
    )
    callbacks = [
        kseq.training.SaveBest(
            options.output / "model.keras",
            monitor="val_mse",
            mode="min",
            saved=saved_model,
        ),
        kseq.training.StopOnInterrupt(),
    ]
    return model.fit(
        train_batches,
        validation_data=validation_batches,
        epochs=options.epochs,
        shuffle=False,  # the windows are shuffled already
        callbacks=callbacks,
    )


def evaluate(model, windows):
    """Print the errors over all test windows, beside the simplest forecast."""
    names = ["last value, repeated", "this model"]
    squared = {name: keras.metrics.MeanSquaredError() for name in names}
    absolute = {name: keras.metrics.MeanAbsoluteError() for name in names}
    for past, future in windows:
        last = past[:, -1:]  # B 1 C
        repeated = ops.broadcast_to(last, ops.shape(future))  # B H C
        forecasts = {"last value, repeated": repeated, "this model": model(past)}
        for name, forecast in forecasts.items():
            squared[name].update_state(future, forecast)
            absolute[name].update_state(future, forecast)
    table = Table("forecast", "mean squared error", "mean absolute error")
    for name in names:
        squared_error = float(squared[name].result())
        absolute_error = float(absolute[name].result())
        table.add_row(name, f"{squared_error:.4f}", f"{absolute_error:.4f}")
    console.print(table)


def draw_forecasts(saved_model, names, windows, path):
    """Draw the series of windows (B, L, C), a row each, and return the forecasts.

    A window may end with its past, or hold its true future, too.
    """
    from matplotlib.figure import Figure

    context = saved_model.input_shape[1]
    horizon = saved_model.output_shape[1]
    forecasts = saved_model.predict(windows[:, :context], verbose=0)  # B H C
    shown_names = names[:MOST_SERIES]
    num_rows = len(shown_names)
    num_columns = len(windows)
    figure = Figure(
        figsize=(1 + 3.2 * num_columns, 0.4 + 1.4 * num_rows),
        dpi=150,
        layout="constrained",
    )
    panels = figure.subplots(
        num_rows, num_columns, sharex=True, sharey="row", squeeze=False
    )
    first_step = max(context - 2 * horizon, 0)
    past_steps = np.arange(first_step, context)
    for row, name in enumerate(shown_names):
        panels[row, 0].set_ylabel(name, size=9)
        for column in range(num_columns):
            panel = panels[row, column]
            steps = windows[column, :, row]
            forecast = forecasts[column, :, row]
            panel.plot(
                past_steps - context,
                steps[past_steps],
                color=PAST_COLOR,
                lw=1,
                label="past",
            )
            if len(steps) > context:
                future = steps[context:]
                panel.plot(future, color=TRUE_COLOR, lw=1.2, label="true future")
            panel.plot(forecast, color=FORECAST_COLOR, lw=1.6, label="forecast")
            panel.spines[["top", "right"]].set_visible(False)
            panel.tick_params(labelsize=8, labelcolor="0.4", color="0.7")
    panels[0, 0].legend(
        loc="lower left",
        bbox_to_anchor=(0, 1),
        frameon=False,
        labelcolor="linecolor",
        fontsize=8,
        ncols=3,
    )
    panels[-1, 0].set_xlabel("steps from now", size=8, color="0.4")
    kseq.plots.legible(figure).savefig(path)
    return forecasts


# A forecast step by step, as distributions (seq2seq) ----------------------------------


def build_seq2seq(options):
    """Build a model that reads patches and generates distributions of the next."""
    if options.encoder == "transformer":
        positions = "sinusoidal"
        encoder = kseq.layers.TransformerEncoder(
            num_layers=2, num_heads=4, dropout=options.dropout
        )
        decoder = kseq.layers.TransformerDecoder(
            num_layers=2, num_heads=4, dropout=options.dropout
        )
    else:
        positions = None
        encoder = kseq.layers.RecurrentEncoder(
            options.encoder, options.width, dropout=options.dropout
        )
        decoder = kseq.layers.RecurrentDecoder(
            options.encoder,
            options.width,
            attention="bahdanau",
            dropout=options.dropout,
        )
    return kseq.encoder_decoder(
        source=kseq.layers.FeatureEmbedding(
            options.patch, options.width, positions=positions
        ),
        target=kseq.layers.FeatureEmbedding(
            options.patch, options.width, positions=positions
        ),
        encoder=encoder,
        decoder=decoder,
        head=options.head,
    )


def scale_of(past):
    """Return the last value of each series of windows (B, L, C), and its scale.

    Both are (B, 1, C). The scale is the mean distance from the last value.
    """
    last = past[:, -1:]
    scale = np.abs(past - last).mean(axis=1, keepdims=True)
    scale[scale == 0] = 1.0  # a constant series
    return last, scale


def to_patches(windows, patch):
    """Return each series of windows (B, L, C) by itself, in patches: (BC, S, P)."""
    series = np.transpose(windows, (0, 2, 1))  # B C L
    num_patches = windows.shape[1] // patch
    return series.reshape(-1, num_patches, patch)


def training_patches(values, options):
    """Return the past and the future of all windows, scaled and in patches."""
    length = options.context + options.horizon
    windows = np.lib.stride_tricks.sliding_window_view(values, length, axis=0)
    windows = np.transpose(windows, (0, 2, 1)).astype("float32")  # B L C
    last, scale = scale_of(windows[:, : options.context])
    patches = to_patches((windows - last) / scale, options.patch)  # BC S P
    num_past = options.context // options.patch
    return patches[:, :num_past], patches[:, num_past:]


def fit_seq2seq(model, options, train, validation):
    """Train with `Model.fit` and save the best epoch."""
    num_series = train.shape[1]
    batch_size = options.batch_size * num_series
    train_past, train_future = training_patches(train, options)
    train_batches = kseq.training.teacher_forcing(
        train_past, train_future, batch_size, seed=options.seed
    )
    validation_past, validation_future = training_patches(validation, options)
    validation_batches = kseq.training.teacher_forcing(
        validation_past, validation_future, batch_size, shuffle=False
    )
    learning_rate = keras.optimizers.schedules.CosineDecay(
        options.learning_rate, decay_steps=len(train_batches) * options.epochs
    )
    model.compile(
        keras.optimizers.Adam(learning_rate, global_clipnorm=1.0),
        loss=kseq.training.ForecastLoss(options.head),
    )
    callbacks = [
        kseq.training.SaveBest(
            options.output / "model.keras", monitor="val_loss", mode="min"
        ),
        kseq.training.StopOnInterrupt(),
    ]
    return model.fit(
        train_batches,
        validation_data=validation_batches,
        epochs=options.epochs,
        callbacks=callbacks,
    )


def sample_forecasts(model, past, options):
    """Return samples of the future of windows (B, L, C), as measured: (B, N, H, C)."""
    last, scale = scale_of(past)
    patches = to_patches((past - last) / scale, options.patch)  # BC S P
    forecast = model.generate(
        patches,
        num_steps=options.horizon // options.patch,
        num_draws=options.draws,
        seed=options.seed,
        batch_size=len(patches),
    )
    num_windows = len(past)
    samples = forecast.draws.reshape(
        num_windows, -1, options.draws, options.horizon
    )  # B C N H
    samples = np.transpose(samples, (0, 2, 3, 1))  # B N H C
    return samples * scale[:, None] + last[:, None]


def evaluate_seq2seq(model, windows, options):
    """Print the errors over all test windows, and how certain the forecasts were."""
    squared = keras.metrics.MeanSquaredError()
    absolute = keras.metrics.MeanAbsoluteError()
    crps = kseq.training.CRPS()
    coverage = kseq.training.IntervalCoverage(0.9)
    for past, future in windows:
        past = np.array(past)
        future = np.array(future)
        samples = sample_forecasts(model, past, options)  # B N H C
        mean = samples.mean(axis=1)
        squared.update_state(future, mean)
        absolute.update_state(future, mean)
        crps.update_state(future, samples)
        coverage.update_state(future, samples)
    table = Table("test windows", "this model")
    table.add_row("mean squared error of the mean", f"{float(squared.result()):.4f}")
    table.add_row("mean absolute error of the mean", f"{float(absolute.result()):.4f}")
    table.add_row("CRPS", f"{float(crps.result()):.4f}")
    table.add_row("in the interval of 90 %", f"{100 * float(coverage.result()):.1f} %")
    console.print(table)


def draw_fans(model, names, windows, path, options):
    """Draw samples of the future of windows (B, L, C) as fans, and return the samples.

    A window may end with its past, or hold its true future, too.
    """
    from matplotlib.figure import Figure

    context = options.context
    samples = sample_forecasts(model, windows[:, :context], options)  # B N H C
    shown_names = names[:MOST_SERIES]
    num_rows = len(shown_names)
    num_columns = len(windows)
    figure = Figure(
        figsize=(1 + 3.2 * num_columns, 0.4 + 1.4 * num_rows),
        dpi=150,
        layout="constrained",
    )
    panels = figure.subplots(
        num_rows, num_columns, sharex=True, sharey="row", squeeze=False
    )
    first_step = max(context - 2 * options.horizon, 0)
    for row, name in enumerate(shown_names):
        for column in range(num_columns):
            panel = panels[row, column]
            steps = windows[column, :, row]
            past = steps[first_step:context]
            future = None
            if len(steps) > context:
                future = steps[context:]
            kseq.plots.fan_chart(samples[column, :, :, row], past, future, ax=panel)
            panel.set_ylabel("")
        panels[row, 0].set_ylabel(name, size=9)
    handles, labels = panels[0, 0].get_legend_handles_labels()
    figure.legend(
        handles,
        labels,
        loc="outside upper left",
        frameon=False,
        fontsize=8,
        ncols=5,
    )
    panels[-1, 0].set_xlabel("steps from now", size=8, color="0.4")
    kseq.plots.legible(figure).savefig(path)
    return samples


# Forecast with a saved model ----------------------------------------------------------


def forecast_file(options):
    """Forecast the steps that follow the last one of the series, with a saved model."""
    try:
        model = keras.saving.load_model(options.load, compile=False)
        if isinstance(model, kseq.builders.Forecaster):
            forecast_file_seq2seq(model, options)
            return
        _, context, num_series = model.input_shape
        _, horizon, _ = model.output_shape
        context = int(context)
        num_series = int(num_series)
    except (ValueError, TypeError, AttributeError, OSError, zipfile.BadZipFile):
        sys.exit(f"--load must be a model of this recipe. Received: {options.load}")
    names, splits = load_splits(options)
    values = np.concatenate(splits)
    if len(names) != num_series or len(values) < context:
        sys.exit(
            f"The model needs {context} steps of {num_series} series. "
            f"Received: {len(values)} steps of {len(names)} series."
        )
    options.output.mkdir(parents=True, exist_ok=True)
    past = values[None, -context:]
    forecasts = draw_forecasts(model, names, past, options.output / "next.png")
    write_csv(options.output / "next.csv", names, forecasts[0])
    console.print(
        f"The next {horizon} steps are in {options.output / 'next.csv'} and next.png."
    )


def forecast_file_seq2seq(model, options):
    """Forecast the steps that follow, with an interval that has 90 % of the samples."""
    options.patch = model.source.num_features
    if options.context % options.patch != 0 or options.horizon % options.patch != 0:
        sys.exit(
            "--context and --horizon must be multiples of the model's patch. Received: "
            f"{options.context} and {options.horizon} with a patch of {options.patch}."
        )
    names, splits = load_splits(options)
    values = np.concatenate(splits)
    if len(values) < options.context:
        sys.exit(
            f"--context needs {options.context} steps. Received: {len(values)} steps."
        )
    options.output.mkdir(parents=True, exist_ok=True)
    past = values[None, -options.context :]
    path = options.output / "next.png"
    samples = draw_fans(model, names, past, path, options)[0]  # N H C
    mean = samples.mean(axis=0)  # H C
    low, high = np.quantile(samples, [0.05, 0.95], axis=0)  # H C each
    header = [f"{name} mean" for name in names]
    header += [f"{name} 5 %" for name in names]
    header += [f"{name} 95 %" for name in names]
    steps = np.concatenate([mean, low, high], axis=1)
    write_csv(options.output / "next.csv", header, steps)
    console.print(
        f"The next {options.horizon} steps are in {options.output / 'next.csv'} and "
        "next.png."
    )


def write_csv(path, header, steps):
    """Write a line of column names, and a line of numbers for each step."""
    lines = [",".join(header)]
    for step in steps:
        lines.append(",".join(f"{value:.6g}" for value in step))
    path.write_text("\n".join(lines) + "\n", "utf-8")


# Main ---------------------------------------------------------------------------------


def main(argv=None):
    """Train and evaluate a forecaster, or forecast with a saved one."""
    options = parse_arguments(argv)
    require("matplotlib")  # fail now, not after the training
    if options.load:
        forecast_file(options)
        return
    keras.utils.set_random_seed(options.seed)

    names, splits = load_splits(options)
    train, validation, test = splits
    console.print(
        f"{len(names)} series: {len(train):,} steps for training, "
        f"{len(validation):,} for validation, {len(test):,} for testing."
    )
    check_sizes(splits, options)

    # The network and all figures see series with mean 0 and variance 1 in training.
    mean = train.mean(axis=0)
    deviation = train.std(axis=0)
    deviation[deviation == 0] = 1.0  # a constant series
    scaled_splits = [(split - mean) / deviation for split in splits]
    train, validation, test = add_past(scaled_splits, options.context)
    test_windows = make_windows(test, options)

    # The pictures show three windows of the test, as measured.
    length = options.context + options.horizon
    starts = np.linspace(0, len(test) - length, 3).astype(int)
    shown = np.stack([test[start : start + length] for start in starts])
    shown = shown * deviation + mean
    forecast_picture = options.output / "forecasts.png"
    training_picture = options.output / "training.png"

    if options.model == "seq2seq":
        model = build_seq2seq(options)
        history = fit_seq2seq(model, options, train, validation)
        kseq.plots.training_curve(history).savefig(training_picture)
        evaluate_seq2seq(model, test_windows, options)
        draw_fans(model, names, shown, forecast_picture, options)
    else:
        model = build(options, len(names))
        saved_model = with_units(model, mean, deviation)
        history = fit(model, saved_model, options, train, validation)
        kseq.plots.training_curve(history).savefig(training_picture)
        evaluate(model, test_windows)
        draw_forecasts(saved_model, names, shown, forecast_picture)
    console.print(f"The best model and pictures are in {options.output}/.")
    if options.quick:
        console.print("This was a --quick smoke test: its results are meaningless.")


def parse_arguments(argv):
    """Return the options of the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=Help)
    parser.add_argument(
        "--data",
        type=pathlib.Path,
        metavar="FOLDER",
        help="folder of the data sets (default: $KSEQ_DATA_DIR)",
    )
    parser.add_argument(
        "--series",
        type=pathlib.Path,
        metavar="FILE",
        help="your own data: a CSV file with a series in each column",
    )
    parser.add_argument(
        "--load",
        type=pathlib.Path,
        metavar="FILE",
        help="forecast what follows the series with this saved model; do not train",
    )
    parser.add_argument(
        "--output",
        type=folder,
        default="forecast",
        help="folder for the model, the forecasts and pictures",
    )
    parser.add_argument(
        "--model",
        choices=["many_to_one", "seq2seq"],
        default="many_to_one",
        help="forecast all steps at once, or patch by patch as distributions (seq2seq)",
    )
    parser.add_argument(
        "--head",
        choices=["gaussian", "student_t", "quantiles"],
        default="gaussian",
        help="distribution of a step, for seq2seq",
    )
    parser.add_argument(
        "--draws",
        type=count,
        default=100,
        help="samples of the future of each series, for seq2seq",
    )
    parser.add_argument("--horizon", type=count, default=96, help="steps to forecast")
    parser.add_argument(
        "--context", type=count, default=336, help="past steps that a forecast reads"
    )
    parser.add_argument(
        "--patch", type=count, default=24, help="steps that are read as one vector"
    )
    parser.add_argument(
        "--encoder",
        choices=["gru", "lstm", "rnn", "transformer"],
        default="gru",
        help="network that reads the past, and the decoder of seq2seq",
    )
    parser.add_argument("--width", type=count, default=256, help="width of every layer")
    parser.add_argument(
        "--dropout",
        type=share,
        default=0.5,
        help="dropout rate",
    )
    parser.add_argument(
        "--epochs", type=count, default=8, help="passes over the training windows"
    )
    parser.add_argument(
        "--batch-size", type=count, default=64, help="windows in a batch"
    )
    parser.add_argument(
        "--learning-rate",
        type=positive,
        default=1e-3,
        help="learning rate at the start, from which it decays to 0",
    )
    parser.add_argument(
        "--seed", type=seed, default=0, help="random seed (%(default)s)"
    )
    parser.add_argument(
        "--quick",
        action="store_true",
        help="smoke test on little data with a small model for 1 epoch;"
        " its results are meaningless",
    )
    options = parser.parse_args(argv)

    if options.quick:
        options.epochs = 1
        options.width = 16
    if options.context % options.patch != 0:
        parser.error("--context must be a multiple of --patch")
    if options.model == "seq2seq" and options.horizon % options.patch != 0:
        parser.error("--horizon must be a multiple of --patch")
    return options


if __name__ == "__main__":
    try:
        main()
    except KeyboardInterrupt:
        sys.exit("Stopped by Ctrl-C.")
