"""Recurrent layers of kseq, Keras and PyTorch: a training step, and inference.

    python benchmarks/recurrent.py --case lstm_2x256
    python benchmarks/recurrent.py --threads 1 --json recurrent.json

The name of a case gives its cell, number of layers and width: `lstm_2x256`. A batch has
64 sequences of 100 steps, as wide as the layers. A training step uses the mean squared
error and plain gradient descent. All is in float32, with Keras' default settings except
in cases with `_xla`.

`mingru_1x128_length_1000` compares `kseq.layers.MinGRU` with GRUs and an LSTM, in
batches of 32.

Sequences are masked to different lengths, except in cases with `_unmasked`. PyTorch has
no masks. It packs the sequences of `_padded` cases; packing the others would make it
slower. Cells that Keras lacks, and its own `gru_cell`, run in `kseq.layers.RNN` and
`keras.layers.RNN`. PyTorch is not measured for these, nor with recurrent dropout.

`KERAS_BACKEND` selects the backend of Keras. If there is a GPU, all systems use it, but
"of peak" still refers to the CPU. Needs the extra `benchmarks`.
"""

import dataclasses
import functools
import os

import numpy as np
import side_by_side

LAYERS = {"lstm": "LSTM", "gru": "GRU", "rnn": "SimpleRNN", "mingru": "MinGRU"}
CELLS = {
    "layer_norm_lstm": "LayerNormLSTMCell",
    "layer_norm_gru": "LayerNormGRUCell",
    "peephole_lstm": "PeepholeLSTMCell",
    "gru_cell": "GRUCell",
}


@dataclasses.dataclass(frozen=True)
class Case:
    """The layers and the data of a measurement."""

    cell: str
    num_layers: int = 2
    width: int = 256
    length: int = 100
    bidirectional: bool = False
    masked: bool = True
    longest: int | None = None  # real steps, if all rows have padding after them
    recurrent_dropout: float = 0.0
    xla: bool = False  # whether XLA compiles the whole step
    rows: int = 64  # sequences in a batch

    def arrays(self):
        """Return sequences `(B, T, D)`, their mask `(B, T)`, and targets."""
        random = np.random.default_rng(0)
        shape = (self.rows, self.length, self.width)
        sequences, targets = random.normal(size=(2, *shape)).astype("float32")
        longest = self.longest or self.length
        lengths = random.integers(longest // 2, longest + 1, (self.rows, 1))
        lengths[0] = longest
        if self.bidirectional:
            targets = np.concatenate([targets, targets], axis=-1)
        return sequences, np.arange(self.length) < lengths, targets

    def gigaflops(self):
        """Return the GFLOP of the matrix products of a training step and inference."""
        gates = 3 if "gru" in self.cell else {"rnn": 1}.get(self.cell, 4)
        directions = 2 if self.bidirectional else 1
        total = 0
        for layer in range(self.num_layers):
            inputs = self.width * (directions if layer else 1)
            total += directions * (inputs + self.width) * gates * self.width
        total *= 2e-9 * self.rows * (self.longest or self.length)
        return {"train_ms": 3 * total, "inference_ms": total}


def keras_runs(case, layers):
    import keras

    x = sequences = keras.Input((None, case.width))
    mask = keras.Input((None,), dtype="bool")
    keywords = {"mask": mask} if case.masked else {}
    for _ in range(case.num_layers):
        x = recurrent_layer(case, layers)(x, **keywords)
    model = keras.Model([sequences, mask], x)
    model.compile(keras.optimizers.SGD(0.1), "mse", jit_compile=case.xla or "auto")
    sequences, mask, targets = case.arrays()
    return {
        "train_ms": lambda: model.train_on_batch([sequences, mask], targets),
        "inference_ms": lambda: model.predict_on_batch([sequences, mask]),
    }


def recurrent_layer(case, layers):
    """Return a layer of `kseq.layers` or of `keras.layers`."""
    import keras

    import kseq

    if case.cell in CELLS:
        cell_class = {**vars(keras.layers), **vars(kseq.layers)}[CELLS[case.cell]]
        layer = layers.RNN(cell_class(case.width), return_sequences=True)
    else:
        options = {}
        if case.recurrent_dropout:
            options["recurrent_dropout"] = case.recurrent_dropout
        layer = getattr(layers, LAYERS[case.cell])(
            case.width, return_sequences=True, **options
        )
    return layers.Bidirectional(layer) if case.bidirectional else layer


def kseq_runs(case):
    import kseq

    return keras_runs(case, kseq.layers)


def keras_own_runs(case):
    import keras

    return keras_runs(case, keras.layers)


def torch_runs(case):
    import torch
    from torch import nn

    torch.set_num_threads(len(os.sched_getaffinity(0)))
    device = "cuda" if torch.cuda.is_available() else "cpu"
    network = {"lstm": nn.LSTM, "gru": nn.GRU, "rnn": nn.RNN}[case.cell](
        case.width,
        case.width,
        num_layers=case.num_layers,
        bidirectional=case.bidirectional,
        batch_first=True,
        device=device,
    )
    optimizer = torch.optim.SGD(network.parameters(), 0.1)
    sequences, mask, targets = (torch.tensor(x) for x in case.arrays())

    def run():
        inputs = sequences.to(device)
        if not case.longest:
            return network(inputs)[0]
        packed = nn.utils.rnn.pack_padded_sequence(
            inputs, mask.sum(dim=1), batch_first=True, enforce_sorted=False
        )
        return nn.utils.rnn.pad_packed_sequence(
            network(packed)[0], batch_first=True, total_length=case.length
        )[0]

    def train():
        optimizer.zero_grad()
        loss = nn.functional.mse_loss(run(), targets.to(device))
        loss.backward()
        optimizer.step()
        return loss.item()

    def infer():
        with torch.no_grad():
            run().cpu()

    return {"train_ms": train, "inference_ms": infer}


SYSTEMS = {"kseq": kseq_runs, "keras": keras_own_runs, "torch": torch_runs}
MEASURED = {
    "lstm_2x256": Case("lstm"),
    "gru_2x256": Case("gru"),
    "rnn_2x256": Case("rnn"),
    "lstm_1x64": Case("lstm", num_layers=1, width=64),
    "lstm_4x256": Case("lstm", num_layers=4),
    "lstm_2x512": Case("lstm", width=512),
    "gru_2x256_length_20": Case("gru", length=20),
    "gru_2x256_length_400": Case("gru", length=400),
    "lstm_2x256_unmasked": Case("lstm", masked=False),
    "lstm_2x256_padded": Case("lstm", length=400, longest=100),
    "gru_2x256_bidirectional": Case("gru", bidirectional=True),
    "lstm_2x256_bidirectional": Case("lstm", bidirectional=True),
    "lstm_2x256_recurrent_dropout": Case("lstm", recurrent_dropout=0.2),
    "layer_norm_lstm_2x256": Case("layer_norm_lstm"),
    "layer_norm_gru_2x256": Case("layer_norm_gru"),
    "peephole_lstm_2x256": Case("peephole_lstm"),
    "gru_cell_2x256": Case("gru_cell"),
    "lstm_2x256_xla": Case("lstm", xla=True),
}
CASES = {
    name: {
        system: functools.partial(runs, case)
        for system, runs in SYSTEMS.items()
        if system != "torch" or (case.cell in LAYERS and not case.recurrent_dropout)
    }
    for name, case in MEASURED.items()
}
LONG = Case("mingru", 1, 128, 1000, masked=False, rows=32)
CASES["mingru_1x128_length_1000"] = {
    "kseq": functools.partial(kseq_runs, LONG),
    "kseq_gru": functools.partial(kseq_runs, dataclasses.replace(LONG, cell="gru")),
    "keras_gru": functools.partial(
        keras_own_runs, dataclasses.replace(LONG, cell="gru")
    ),
    "keras_lstm": functools.partial(
        keras_own_runs, dataclasses.replace(LONG, cell="lstm")
    ),
    "torch_gru": functools.partial(torch_runs, dataclasses.replace(LONG, cell="gru")),
}

if __name__ == "__main__":
    side_by_side.main(
        CASES,
        description=__doc__,
        gigaflops={name: case.gigaflops() for name, case in MEASURED.items()},
    )
