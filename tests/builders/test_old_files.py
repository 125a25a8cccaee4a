"""Models saved before `kseq.decoding.Search`, which must load and generate the same.

For each `tests/data/NAME.keras`, `NAME.json` holds the output of the model when it was
saved. Both were made at commit 5b30986, with Keras 3.15 on TensorFlow, by

    python -m tests.builders.test_old_files

Do not run this again: it would replace the old files by files of the current version.
"""

import json
from pathlib import Path

import keras
import numpy as np
import pytest

import kseq
from kseq.decoding import BeamSearch
from tests.helpers import randomize

DATA = Path(__file__).parents[1] / "data"
SOURCE = [[4, 5, 6, 7, 3], [8], [9, 10, 4]]
SEARCHES = {"greedy": None, "beams": BeamSearch(2)}


def recurrent():
    attention = kseq.layers.BahdanauAttention(7)
    return kseq.encoder_decoder(
        source=kseq.layers.TokenEmbedding(11, 6),
        encoder=kseq.layers.RecurrentEncoder("gru", 8, bidirectional=True),
        target=kseq.layers.TokenEmbedding(13, 6),
        decoder=kseq.layers.RecurrentDecoder("gru", 8, attention=attention),
    )


def transformer():
    return kseq.encoder_decoder(
        source=kseq.layers.TokenEmbedding(11, 8, positions="sinusoidal", scale=True),
        encoder=kseq.layers.TransformerEncoder(1, num_heads=2),
        target=kseq.layers.TokenEmbedding(13, 8, positions="sinusoidal", scale=True),
        decoder=kseq.layers.TransformerDecoder(1, num_heads=2),
    )


MODELS = {"recurrent": recurrent, "transformer": transformer}
END_BIAS = {"recurrent": 2.0, "transformer": -0.8}  # some sequences end, some do not


def outputs_of(model):
    """Return tokens, log-probabilities and scores by name, for each search."""
    found = {}
    for name, search in SEARCHES.items():
        result = model.generate(SOURCE, search, max_length=6)
        values = {"token_ids": result.token_ids, "lengths": result.lengths}
        found[name] = {
            **{name: value.tolist() for name, value in values.items()},
            "log_probs": result.log_probs.tolist(),
            "scores": model.score(SOURCE, result).tolist(),
        }
    return found


@pytest.mark.parametrize("name", MODELS)
def test_old_files_load_and_generate_the_same(name):
    model = keras.saving.load_model(DATA / f"{name}.keras")
    expected = json.loads((DATA / f"{name}.json").read_text())
    for search, values in outputs_of(model).items():
        for kind, value in values.items():
            old = expected[search][kind]
            is_exact = kind in ("token_ids", "lengths")
            np.testing.assert_allclose(value, old, rtol=0 if is_exact else 1e-4)


def save_all():
    DATA.mkdir(exist_ok=True)
    for seed, (name, make) in enumerate(MODELS.items()):
        keras.utils.set_random_seed(seed)
        model = make()
        randomize(model)
        for weight in model.weights:  # far from ties
            weight.assign(2.5 * weight)
        model.head.bias.assign(END_BIAS[name] * (np.arange(13) == model.end_token_id))
        model.save(DATA / f"{name}.keras")
        text = json.dumps(outputs_of(model), indent=1)
        (DATA / f"{name}.json").write_text(text)


if __name__ == "__main__":
    save_all()
