"""Windows of one long text, to train and evaluate a language model."""

import keras
import numpy as np
import pytest

import kseq
from kseq.training import windows

TEXT = np.arange(10, 47)  # 37 tokens, each once


def test_window_is_predicted_from_a_start_token():
    data = windows(TEXT, length=5, batch_size=7, steps=3)
    assert len(data) == 3
    for inputs, labels in (data[i] for i in range(3)):
        assert labels.shape == inputs["target"].shape == (7, 5)
        assert (inputs["target"][:, 0] == 2).all()
        assert (inputs["target"][:, 1:] == labels[:, :-1]).all()
        assert (np.diff(labels) == 1).all()  # consecutive tokens


def test_windows_start_at_every_position():
    data = windows(TEXT, length=5, batch_size=997, steps=1)
    _, labels = data[0]
    assert set(labels[:, 0]) == set(range(10, 47 - 4))


def test_windows_depend_on_the_epoch_and_the_seed():
    first, same, other = (windows(TEXT, 5, 7, seed=seed) for seed in (3, 3, 4))
    before = first[0][1]
    assert (same[0][1] == before).all() and (other[0][1] != before).any()
    assert (first[1][1] != before).any()
    first.on_epoch_end()
    assert (first[0][1] != before).any()


def test_epoch_covers_the_length_of_the_text():
    assert len(windows(TEXT, length=5, batch_size=3)) == 3  # 37 / 15


def test_windows_in_order_predict_each_token_once():
    data = windows(TEXT, length=5, batch_size=3, shuffle=False)
    labels = np.concatenate([data[i][1] for i in range(len(data))])
    assert labels.shape == (8, 5)
    assert labels.ravel()[:37].tolist() == TEXT.tolist()
    assert labels.ravel()[37:].tolist() == [0, 0, 0]
    inputs, _ = data[2]
    assert inputs["target"][-1].tolist() == [2, 45, 0, 0, 0]


def test_loss_on_windows_matches_the_score_of_the_text():
    model = kseq.one_to_many(47, width=3)
    model.compile("sgd", loss=kseq.training.SequenceCrossentropy())
    loss = model.evaluate(windows(TEXT, 37, shuffle=False), verbose=0)
    assert loss == pytest.approx(-model.score(1, [TEXT])[0] / 37, rel=1e-5)


def test_a_model_learns_from_windows():
    model = kseq.one_to_many(13, width=7)
    model.compile(keras.optimizers.Adam(0.05), kseq.training.SequenceCrossentropy())
    text = np.tile([4, 9, 7, 11, 5], 11)
    history = model.fit(windows(text, 8, 5, steps=20), epochs=3, verbose=0)
    assert history.history["loss"][-1] < 0.5


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"token_ids": [[5, 6]]}, "shape \\(1, 2\\)"),
        ({"token_ids": [5.0, 6.0]}, "dtype=float64"),
        ({"token_ids": [5, 6]}, "at least one window"),
        ({"token_ids": [5, 6, 0, 7]}, "0 at 2"),
        ({"length": 0}, "`length`"),
        ({"batch_size": 0}, "`batch_size`"),
        ({"steps": 0}, "`steps`"),
        ({"steps": 3, "shuffle": False}, "Leave `steps` out"),
    ],
)
def test_rejects_invalid_arguments(arguments, message):
    with pytest.raises(ValueError, match=message):
        windows(**{"token_ids": TEXT, "length": 3, **arguments})
