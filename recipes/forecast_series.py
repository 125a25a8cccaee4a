"""Forecasts series of numbers: what comes next, after what was just seen?

A network reads the last weeks of each series in patches of a day and says how the
following steps differ from the last value seen. All series share it. Without `--series`
they are the hourly loads and the oil temperature of a power transformer (ETTh1), split
as in the literature: 12 months to learn from, 4 to choose by, 4 held out.

    python recipes/forecast_series.py --output forecast
    python recipes/forecast_series.py --series my.csv --horizon 48 --output mine
    python recipes/forecast_series.py --series my.csv --load mine/model.keras

The first line of a CSV file names its columns: each is a series, but for a first one of
dates. The other lines are the steps. With `--load` the forecast begins where they end.
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
    sys.exit(f"{error}. Get what recipes need: pip install kseq[recipes]")

SEEN, TRUTH, FORECAST = "0.6", "#51127c", "#f1605d"
console = Console(markup=False, emoji=False, highlight=False)


def main(argv=None):
    options = parse_arguments(argv)
    require("matplotlib")  # not only when the training has ended
    if options.load:
        return go_on(options)
    keras.utils.set_random_seed(options.seed)
    names, parts = load_parts(options)
    train, validation, test = parts
    length = options.context + options.horizon
    sizes = "{} series: {:,} steps to learn from, {:,} to watch, {:,} held out"
    console.print(sizes.format(len(names), *map(len, parts)))
    if len(train) < length or min(len(validation), len(test)) < options.horizon:
        needs = f"{length} steps to learn from, {options.horizon} in each other part"
        sys.exit(f"--context, --horizon: need {needs}. Received: {[*map(len, parts)]}.")
    # The network and all figures see series with mean 0 and variance 1 in training.
    mean, deviation = train.mean(axis=0), train.std(axis=0)
    deviation[deviation == 0] = 1.0  # a series that stands still
    train, validation, test = looking_back(
        [(part - mean) / deviation for part in parts], options.context
    )
    model = build(options, len(names))
    whole = with_units(model, mean, deviation)
    history = fit(model, whole, options, train, validation)
    kseq.plots.training_curve(history).savefig(options.output / "training.png")
    evaluate(model, windows(test, options))
    starts = np.linspace(0, len(test) - length, 3).astype(int)
    stretches = np.stack([test[start : start + length] for start in starts])
    draw(whole, names, stretches * deviation + mean, options.output / "forecasts.png")
    console.print(f"The best model and pictures lie in {options.output}/.")
    if options.quick:
        console.print("This was --quick, a look at the way: the figures mean nothing.")


def looking_back(parts, context):
    """The parts, each with the steps before it that its first forecast reads."""
    train, validation, test = parts
    validation = np.concatenate([train[-context:], validation])
    return train, validation, np.concatenate([validation[-context:], test])


def build(options, num_series):
    """Reads each series by itself, with one network for all of them."""
    num_patches, order = options.context // options.patch, {}
    if options.encoder == "transformer":
        order = {"positions": "learned", "max_length": num_patches}
    reader = kseq.many_to_one(
        kseq.layers.FeatureEmbedding(options.patch, options.width, **order),
        num_outputs=options.horizon,
        encoder=options.encoder,
        pooling="last",
        width=options.width,
        dropout=options.dropout,
    )
    # B windows, L steps of context, C series, S patches of P steps, H steps of horizon.
    values = keras.Input((options.context, num_series))
    last = values[:, -1:]  # B 1 C
    series = ops.transpose(values - last, (0, 2, 1))  # B C L
    patches = ops.reshape(series, (-1, num_patches, options.patch))  # BC S P
    changes = ops.reshape(reader(patches), (-1, num_series, options.horizon))  # B C H
    return keras.Model(values, last + ops.transpose(changes, (0, 2, 1)))  # B H C


def with_units(model, mean, deviation):
    """The model for values as they are measured: degrees, kilowatts, Euros."""
    moments = {"mean": mean.tolist(), "variance": (deviation**2).tolist()}
    values = keras.Input(model.input_shape[1:])
    forecast = model(keras.layers.Normalization(**moments)(values))
    measured = keras.layers.Normalization(**moments, invert=True)(forecast)
    return keras.Model(values, measured)


def windows(values, options, shuffle=False):
    """Batches of all stretches of steps: what is seen, and what comes next."""
    stretches = keras.utils.timeseries_dataset_from_array(
        values.astype("float32"),
        None,
        options.context + options.horizon,
        batch_size=options.batch_size,
        shuffle=shuffle,
        seed=options.seed if shuffle else None,
    )
    context = options.context
    return stretches.map(lambda steps: (steps[:, :context], steps[:, context:]))


def fit(model, whole, options, train, validation):
    """Trains with Keras' own loop, and keeps the epoch that validates best."""
    batches = windows(train, options, shuffle=True)
    learning_rate = keras.optimizers.schedules.CosineDecay(
        options.learning_rate, decay_steps=len(batches) * options.epochs
    )
    model.compile(
        keras.optimizers.Adam(learning_rate, global_clipnorm=1.0),
        loss="mae",  # rare leaps, which nobody can foresee, sway it less than "mse"
        metrics=["mse"],
    )
    path = options.output / "model.keras"
    best = kseq.training.SaveBest(path, "val_mse", mode="min", saved=whole)
    return model.fit(
        batches,
        validation_data=windows(validation, options),
        epochs=options.epochs,
        shuffle=False,  # `windows` has done it
        callbacks=[best, kseq.training.StopOnInterrupt()],
    )


def evaluate(model, batches):
    """Prints the errors over all held-out windows, beside the simplest forecast."""
    errors = {"the last value, repeated": [], "this model": []}
    for seen, truth in batches:
        for name, forecast in zip(errors, (seen[:, -1:], model(seen)), strict=True):
            error = ops.convert_to_numpy(forecast - truth)  # B H C
            errors[name].append((len(error), np.mean(error**2), np.mean(np.abs(error))))
    table = Table("forecast", "mean squared error", "mean absolute error")
    for name, rows in errors.items():
        sizes, squared, absolute = np.transpose(rows)
        means = [np.average(values, weights=sizes) for values in (squared, absolute)]
        table.add_row(name, *(f"{mean:.4f}" for mean in means))
    console.print(table)


def draw(whole, names, stretches, path):
    """Draws series, a row each: what was seen, what came if known, the forecast."""
    (_, context, _), (_, horizon, _) = whole.input_shape, whole.output_shape
    forecasts = whole.predict(stretches[:, :context], verbose=0)
    names, columns = names[:8], len(stretches)
    size = (1 + 3.2 * columns, 0.4 + 1.4 * len(names))
    from matplotlib.figure import Figure

    figure = Figure(figsize=size, dpi=150, layout="constrained")
    panels = figure.subplots(len(names), columns, sharex=True, sharey="row", squeeze=0)
    seen = np.arange(max(context - 2 * horizon, 0), context)
    for (row, column), ax in np.ndenumerate(panels):
        steps, forecast = stretches[column, :, row], forecasts[column, :, row]
        ax.plot(seen - context, steps[seen], color=SEEN, lw=1, label="seen")
        if len(steps) > context:
            ax.plot(steps[context:], color=TRUTH, lw=1.2, label="what came")
        ax.plot(forecast, color=FORECAST, lw=1.6, label="forecast")
        ax.set_ylabel("" if column else names[row], size=9)
        ax.spines[["top", "right"]].set_visible(False)
        ax.tick_params(labelsize=8, labelcolor="0.4", color="0.7")
    style = {"frameon": False, "labelcolor": "linecolor", "fontsize": 8, "ncols": 3}
    panels[0, 0].legend(loc="lower left", bbox_to_anchor=(0, 1), **style)
    panels[-1, 0].set_xlabel("steps from now", size=8, color="0.4")
    kseq.plots.legible(figure).savefig(path)
    return forecasts


def go_on(options):
    """Forecasts with a saved model what comes after the last step of the series."""
    try:
        whole = keras.saving.load_model(options.load, compile=False)
        _, context, num_series = map(int, (1, *whole.input_shape[1:]))
        _, horizon, _ = whole.output_shape
    except (ValueError, TypeError, AttributeError, OSError, zipfile.BadZipFile):
        sys.exit(f"--load must name a model of this recipe. Received: {options.load}")
    names, parts = load_parts(options)
    values = np.concatenate(parts)
    if len(names) != num_series or len(values) < context:
        received = f"{len(values)} steps of {len(names)} series."
        sys.exit(f"Needs {context} steps of {num_series} series. Received: {received}")
    options.output.mkdir(parents=True, exist_ok=True)
    file = options.output / "next.csv"
    seen = values[None, -context:]
    [forecast] = draw(whole, names, seen, file.with_suffix(".png"))
    lines = [",".join(f"{value:.6g}" for value in step) for step in forecast]
    file.write_text("\n".join([",".join(names), *lines, ""]), "utf-8")
    console.print(f"The next {horizon} steps lie in {file} and in next.png.")


def load_parts(options):
    """The names of the series, and their steps in three parts, one after another."""
    try:
        if options.series:
            values, names = kseq.datasets.read_columns(options.series)
            parts = np.split(values, [len(values) * 6 // 10, len(values) * 8 // 10])
        else:
            parts, (names, *_) = zip(
                *kseq.datasets.load("ett", options.data).values(), strict=True
            )
    except (ValueError, OSError) as error:
        sys.exit(str(error))
    if options.quick:
        some = np.concatenate(parts)[: 6 * (options.context + options.horizon)]
        parts = np.array_split(some, 3)
    return names, parts


def parse_arguments(argv):
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=Help)
    add, path = parser.add_argument, pathlib.Path
    add("--data", type=path, help="folder of the data sets ($KSEQ_DATA_DIR)")
    add("--series", type=path, metavar="FILE", help="a CSV file of your own")
    add("--load", type=path, metavar="FILE", help="a saved model: say what comes next")
    add("--output", type=folder, default="forecast", help="directory for results")
    add("--horizon", type=count, default=96, help="steps to forecast")
    add("--context", type=count, default=336, help="steps to look back")
    add("--patch", type=count, default=24, help="steps read as one")
    add("--encoder", choices=["gru", "lstm", "rnn", "transformer"], default="gru")
    add("--width", type=count, default=256, help="width of every layer")
    add("--dropout", type=share, default=0.5)
    add("--epochs", type=count, default=8)
    add("--batch-size", type=count, default=64)
    add("--learning-rate", type=positive, default=1e-3)
    add("--seed", type=seed, default=0)
    add("--quick", action="store_true", help="try it out: little data, no good figures")
    options = parser.parse_args(argv)
    if options.quick:
        options.epochs, options.width = 1, 16
    if options.context % options.patch:
        parser.error("--context must be a multiple of --patch")
    return options


if __name__ == "__main__":
    try:
        main()
    except KeyboardInterrupt:
        sys.exit("Stopped by Ctrl-C.")
