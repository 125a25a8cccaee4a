"""Forecasts series of numbers: what comes next, after what was just seen?

A network reads the last weeks of each series in patches of a day and says how the
following steps differ from the last value seen. All series share it. Without `--series`
they are the hourly loads and the oil temperature of a power transformer (ETTh1), split
as in the literature: 12 months to learn from, 4 to choose by, 4 held out.

    python recipes/forecast_series.py --output forecast
    python recipes/forecast_series.py --series my.csv --horizon 48 --output mine
    python recipes/forecast_series.py --series my.csv --load mine/model.keras
    python recipes/forecast_series.py --model seq2seq --output fans
    python recipes/forecast_series.py --series my.csv --load fans/model.keras

With `--model seq2seq` a decoder writes the steps day by day, as distributions, and
reads what it has written. A hundred draws show how sure it is. Each stretch is read in
a unit of its own, as DeepAR does: how far it goes from its last value. For ETTh1 add
`--width 128 --dropout 0.3 --epochs 5`, for it learns in half of the time.

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
    if options.model == "seq2seq":
        writer = build_writer(options)
        history = fit_writer(writer, options, train, validation)
    else:
        model = build(options, len(names))
        whole = with_units(model, mean, deviation)
        history = fit(model, whole, options, train, validation)
    kseq.plots.training_curve(history).savefig(options.output / "training.png")
    starts = np.linspace(0, len(test) - length, 3).astype(int)
    stretches = np.stack([test[start : start + length] for start in starts])
    stretches = stretches * deviation + mean
    pictures = options.output / "forecasts.png"
    if options.model == "seq2seq":
        evaluate_draws(writer, windows(test, options), options)
        draw_fans(writer, names, stretches, pictures, options)
    else:
        evaluate(model, windows(test, options))
        draw(whole, names, stretches, pictures)
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


def build_writer(options):
    """Reads patches of a series, and writes distributions of those that follow."""
    order = {}
    if options.encoder == "transformer":
        order = {"positions": "sinusoidal"}
        size = {"num_layers": 2, "num_heads": 4, "dropout": options.dropout}
        encoder = kseq.layers.TransformerEncoder(**size)
        decoder = kseq.layers.TransformerDecoder(**size)
    else:
        size = {"units": options.width, "dropout": options.dropout}
        encoder = kseq.layers.RecurrentEncoder(options.encoder, **size)
        decoder = kseq.layers.RecurrentDecoder(
            options.encoder, attention="bahdanau", **size
        )
    return kseq.encoder_decoder(
        source=kseq.layers.FeatureEmbedding(options.patch, options.width, **order),
        target=kseq.layers.FeatureEmbedding(options.patch, options.width, **order),
        encoder=encoder,
        decoder=decoder,
        head=options.head,
    )


def units_of(seen):
    """For each series of windows `(B, L, C)` its last value and how far it goes."""
    last = seen[:, -1:]  # B 1 C
    size = np.abs(seen - last).mean(axis=1, keepdims=True)  # B 1 C
    size[size == 0] = 1.0  # a series that stands still
    return last, size


def patches_of(steps, patch):
    """Each series of windows `(B, L, C)` by itself, in patches: `(BC, L / P, P)`."""
    series = np.transpose(steps, (0, 2, 1))  # B C L
    return series.reshape(-1, steps.shape[1] // patch, patch)


def training_rows(values, options):
    """What is seen and what comes next, of all stretches, each in its own unit."""
    length = options.context + options.horizon
    stretches = np.lib.stride_tricks.sliding_window_view(values, length, axis=0)
    stretches = np.transpose(stretches, (0, 2, 1)).astype("float32")  # B L C
    last, size = units_of(stretches[:, : options.context])
    patches = patches_of((stretches - last) / size, options.patch)
    num_seen = options.context // options.patch
    return patches[:, :num_seen], patches[:, num_seen:]


def fit_writer(model, options, train, validation):
    """Trains with Keras' own loop, and keeps the epoch that validates best."""
    num_series = train.shape[1]
    batch_size = options.batch_size * num_series
    past, future = training_rows(train, options)
    batches = kseq.training.teacher_forcing(past, future, batch_size, seed=options.seed)
    past, future = training_rows(validation, options)
    watched = kseq.training.teacher_forcing(past, future, batch_size, shuffle=False)
    learning_rate = keras.optimizers.schedules.CosineDecay(
        options.learning_rate, decay_steps=len(batches) * options.epochs
    )
    model.compile(
        keras.optimizers.Adam(learning_rate, global_clipnorm=1.0),
        loss=kseq.training.ForecastLoss(options.head),
    )
    path = options.output / "model.keras"
    best = kseq.training.SaveBest(path, "val_loss", mode="min")
    return model.fit(
        batches,
        validation_data=watched,
        epochs=options.epochs,
        callbacks=[best, kseq.training.StopOnInterrupt()],
    )


def forecast_draws(model, seen, options):
    """Draws of what follows windows `(B, L, C)`, in their unit: `(B, N, H, C)`."""
    last, size = units_of(seen)
    past = patches_of((seen - last) / size, options.patch)
    forecast = model.generate(
        past,
        num_steps=options.horizon // options.patch,
        num_draws=options.draws,
        seed=options.seed,
        batch_size=len(past),
    )
    shape = (len(seen), -1, options.draws, options.horizon)
    draws = forecast.draws.reshape(shape)  # B C N H
    draws = np.transpose(draws, (0, 2, 3, 1))  # B N H C
    return draws * size[:, None] + last[:, None]


def evaluate_draws(model, batches, options):
    """Prints the errors over all held-out windows, and how sure the model was."""
    crps = kseq.training.CRPS()
    coverage = kseq.training.IntervalCoverage(0.9)
    squared = keras.metrics.MeanSquaredError()
    absolute = keras.metrics.MeanAbsoluteError()
    for seen, truth in batches:
        seen, truth = np.array(seen), np.array(truth)
        draws = forecast_draws(model, seen, options)
        crps.update_state(truth, draws)
        coverage.update_state(truth, draws)
        squared.update_state(truth, draws.mean(axis=1))
        absolute.update_state(truth, draws.mean(axis=1))
    table = Table("held-out windows", "this model")
    table.add_row("mean squared error of the mean", f"{float(squared.result()):.4f}")
    table.add_row("mean absolute error of the mean", f"{float(absolute.result()):.4f}")
    table.add_row("CRPS", f"{float(crps.result()):.4f}")
    table.add_row("in the interval of 90 %", f"{100 * float(coverage.result()):.1f} %")
    console.print(table)


def draw_fans(model, names, stretches, path, options):
    """Draws series, a row each: what was seen, what came if known, and the draws."""
    context = options.context
    draws = forecast_draws(model, stretches[:, :context], options)
    names, columns = names[:8], len(stretches)
    size = (1 + 3.2 * columns, 0.4 + 1.4 * len(names))
    from matplotlib.figure import Figure

    figure = Figure(figsize=size, dpi=150, layout="constrained")
    panels = figure.subplots(len(names), columns, sharex=True, sharey="row", squeeze=0)
    first = max(context - 2 * options.horizon, 0)
    for (row, column), ax in np.ndenumerate(panels):
        steps = stretches[column, :, row]
        truth = steps[context:] if len(steps) > context else None
        seen = steps[first:context]
        kseq.plots.fan_chart(draws[column, :, :, row], seen, truth, ax=ax)
        ax.set_ylabel("" if column else names[row], size=9)
    handles, labels = panels[0, 0].get_legend_handles_labels()
    style = {"frameon": False, "fontsize": 8, "ncols": 5}
    figure.legend(handles, labels, loc="outside upper left", **style)
    panels[-1, 0].set_xlabel("steps from now", size=8, color="0.4")
    kseq.plots.legible(figure).savefig(path)
    return draws


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
        if isinstance(whole, kseq.builders.Forecaster):
            return go_on_with_draws(whole, options)
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


def go_on_with_draws(model, options):
    """Forecasts what comes after the last step of the series, and how surely."""
    options.patch = model.source.num_features
    if options.context % options.patch or options.horizon % options.patch:
        sys.exit(f"--context, --horizon: must be multiples of {options.patch}.")
    names, parts = load_parts(options)
    values = np.concatenate(parts)
    if len(values) < options.context:
        sys.exit(f"Needs {options.context} steps. Received: {len(values)} steps.")
    options.output.mkdir(parents=True, exist_ok=True)
    file = options.output / "next.csv"
    seen = values[None, -options.context :]
    [draws] = draw_fans(model, names, seen, file.with_suffix(".png"), options)
    low, high = np.quantile(draws, [0.05, 0.95], axis=0)  # H C
    columns = {"mean": draws.mean(axis=0), "5 %": low, "95 %": high}
    head = [f"{name} {column}" for column in columns for name in names]
    steps = np.concatenate(list(columns.values()), axis=1)
    lines = [",".join(f"{value:.6g}" for value in step) for step in steps]
    file.write_text("\n".join([",".join(head), *lines, ""]), "utf-8")
    console.print(f"The next {options.horizon} steps lie in {file} and in next.png.")


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
    models = ["many_to_one", "seq2seq"]
    add("--model", choices=models, default="many_to_one", help="at once, or by day")
    heads = ["gaussian", "student_t", "quantiles"]
    add("--head", choices=heads, default="gaussian", help="what seq2seq says of a step")
    add("--draws", type=count, default=100, help="draws of seq2seq for each series")
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
    if options.model == "seq2seq" and options.horizon % options.patch:
        parser.error("--horizon must be a multiple of --patch")
    return options


if __name__ == "__main__":
    try:
        main()
    except KeyboardInterrupt:
        sys.exit("Stopped by Ctrl-C.")
