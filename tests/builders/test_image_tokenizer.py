"""The image tokenizer: images to ids and back.

Axes in shape comments: B batch, H height, W width, C channels, R rows, G columns.
"""

import keras
import numpy as np
import pytest

import kseq
from kseq.builders.image_tokenizer import CodePerplexity
from kseq.layers import FiniteScalarQuantizer, VectorQuantizer
from tests.helpers import array, assert_close, randomize

B, H, W, C = 3, 4, 8, 3
PICTURES = np.random.default_rng(5).random((B, H, W, C), "float32")


def make_tokenizer(quantizer=(3, 4), **options):
    tokenizer = kseq.image_tokenizer(
        (H, W, C), quantizer, patch_size=2, width=6, num_blocks=1, **options
    )
    randomize(tokenizer)
    return tokenizer


def vector_quantizer():
    return VectorQuantizer(7, 2, decay=0.9, seed=3)


@pytest.mark.parametrize("quantizer", [(3, 4), vector_quantizer])
def test_decode_returns_the_images_of_the_model(quantizer):
    tokenizer = make_tokenizer(quantizer() if callable(quantizer) else quantizer)
    outputs = tokenizer(PICTURES)
    ids = tokenizer.encode(PICTURES, batch_size=2)
    assert ids.shape == (B, 8) and tokenizer.grid == (2, 4)
    assert ids.dtype.kind == "i" and 0 <= ids.min() <= ids.max() < tokenizer.num_codes
    assert len(np.unique(ids)) > 2
    assert_close(tokenizer.decode(ids, batch_size=2), outputs["images"], atol=1e-4)
    some = tokenizer.decode(np.stack([ids, ids[::-1]], axis=1))  # B N H W C
    assert_close(some[:, 1], tokenizer.decode(ids)[::-1], atol=1e-4)


def test_empty_batches_are_encoded_and_decoded():
    tokenizer = make_tokenizer()
    ids = tokenizer.encode(PICTURES[:0])
    assert ids.shape == (0, 8) and ids.dtype == "int32"
    assert tokenizer.decode(ids).shape == (0, H, W, C)
    assert tokenizer.decode(np.zeros((2, 0, 8), int)).shape == (2, 0, H, W, C)


def test_ids_are_in_row_major_order():
    tokenizer = make_tokenizer()
    codes = array(tokenizer(PICTURES)["codes"])  # B R G D
    ids = array(tokenizer.quantizer.codes_to_ids(codes))
    assert (tokenizer.encode(PICTURES).reshape(B, 2, 4) == ids).all()


def test_uint8_images_are_divided_by_255():
    tokenizer, pictures = make_tokenizer(), (255 * PICTURES).astype("uint8")
    ids = tokenizer.encode(pictures)
    assert (ids == tokenizer.encode(pictures / np.float32(255))).all()


@pytest.mark.thorough(all_but=1)
@pytest.mark.parametrize("quantizer", [(5, 5, 5), vector_quantizer])
def test_fit_learns_images_and_reports_the_perplexity(quantizer):
    keras.utils.set_random_seed(0)
    quantizer = quantizer() if callable(quantizer) else quantizer
    tokenizer = kseq.image_tokenizer((H, W, C), quantizer, 2, width=16)
    tokenizer.compile(keras.optimizers.Adam(1e-2), "mse", metrics=["mae"])
    history = tokenizer.fit(PICTURES, PICTURES, epochs=60, verbose=0).history
    assert history["mae"][-1] < 0.7 * history["mae"][0]
    assert set(history) == {"loss", "mae", "perplexity"}
    results = tokenizer.evaluate(PICTURES, PICTURES, return_dict=True, verbose=0)
    counts = np.bincount(tokenizer.encode(PICTURES).ravel())
    shares = counts[counts > 0] / counts.sum()
    assert_close(results["perplexity"], np.exp(-(shares * np.log(shares)).sum()))
    reread = tokenizer.decode(tokenizer.encode(PICTURES))
    assert_close(results["mae"], abs(reread - PICTURES).mean(), atol=1e-4)


def test_the_loss_includes_the_commitment_loss():
    tokenizer = make_tokenizer(vector_quantizer())
    tokenizer.compile("adam", "mse")
    results = tokenizer.evaluate(PICTURES, PICTURES, return_dict=True, verbose=0)
    error = np.square(array(tokenizer(PICTURES)["images"]) - PICTURES).mean()
    assert results["loss"] > error + 1e-3


@pytest.mark.parametrize("quantizer", [(3, 4), vector_quantizer])
def test_loaded_and_cloned_tokenizers_give_the_same_ids_and_images(tmp_path, quantizer):
    tokenizer = make_tokenizer(
        quantizer() if callable(quantizer) else quantizer, name="own"
    )
    tokenizer.save(tmp_path / "tokenizer.keras")
    clone = keras.models.clone_model(tokenizer)
    clone.set_weights(tokenizer.get_weights())
    for copy in (keras.saving.load_model(tmp_path / "tokenizer.keras"), clone):
        assert type(copy) is type(tokenizer) and copy.name == "own"
        ids = tokenizer.encode(PICTURES)
        assert (copy.encode(PICTURES) == ids).all()
        assert_close(copy.decode(ids), tokenizer.decode(ids))


def test_changed_weights_are_used():
    tokenizer = make_tokenizer()
    ids = tokenizer.encode(PICTURES)
    pictures = tokenizer.decode(ids)
    randomize(tokenizer, seed=4)
    assert (tokenizer.encode(PICTURES) != ids).any()
    assert abs(tokenizer.decode(ids) - pictures).max() > 1e-3


def test_custom_components_replace_the_defaults():
    tokenizer = kseq.image_tokenizer(
        (H, W, C),
        FiniteScalarQuantizer((4, 4)),
        encoder=keras.layers.Conv2D(5, 4, 4),
        decoder=keras.layers.Conv2DTranspose(C, 4, 4),
    )
    assert tokenizer.encode(PICTURES).shape == (B, 2)
    assert tokenizer.decode([[3, 15]]).shape == (1, H, W, C)


def test_half_precision_returns_float32_images():
    previous_policy = keras.config.dtype_policy()
    keras.config.set_dtype_policy("mixed_bfloat16")
    try:
        tokenizer = make_tokenizer()
    finally:
        keras.config.set_dtype_policy(previous_policy)
    assert keras.backend.standardize_dtype(tokenizer(PICTURES)["images"].dtype) == (
        "float32"
    )
    ids = tokenizer.encode(PICTURES)
    assert np.isfinite(tokenizer.decode(ids)).all()


def test_perplexity_accumulates_over_batches():
    metric = CodePerplexity(5)
    metric.update_state(np.array([[0, 1], [1, 1]]))
    metric.update_state(np.array([[4, 4], [1, 1]]))
    shares = np.array([1, 5, 2]) / 8
    assert_close(metric.result(), np.exp(-(shares * np.log(shares)).sum()))
    metric.reset_state()
    assert_close(metric.result(), 1.0)
    assert CodePerplexity.from_config(metric.get_config()).num_codes == 5


@pytest.mark.parametrize(
    "call, message",
    [
        (lambda: kseq.image_tokenizer(28), r"image_shape=28.*\(28, 28, 1\)"),
        (lambda: kseq.image_tokenizer((28, 28)), "height, width, channels"),
        (lambda: kseq.image_tokenizer((None, None, 3)), r"image_shape=\(None, None"),
        (lambda: make_tokenizer(5), "quantizer=5"),
        (lambda: FiniteScalarQuantizer(5), "levels=5"),
        (lambda: FiniteScalarQuantizer((2.5, 3)), r"levels=\(2.5, 3\)"),
        (lambda: make_tokenizer().fit(PICTURES, 255 * PICTURES), "Divide them by 255"),
        (
            lambda: make_tokenizer().fit(
                PICTURES, PICTURES, validation_data=(-PICTURES,) * 2
            ),
            "Divide them by 255",
        ),
        (lambda: kseq.image_tokenizer((6, 6, 3)), "multiples of `patch_size`"),
        (lambda: make_tokenizer(quantizer="vq"), "quantizer='vq', without width"),
        (
            lambda: make_tokenizer(decoder=keras.layers.Conv2DTranspose(C, 4, 4)),
            r"\(8, 16, 3\).*image_shape=\(4, 8, 3\).*same `patch_size`",
        ),
        (lambda: make_tokenizer().encode(PICTURES[0]), r"\(B, 4, 8, 3\).*\(4, 8, 3\)"),
        (
            lambda: make_tokenizer().encode(255 * PICTURES),
            "from 0 to 1.*divide them by 255",
        ),
        (lambda: make_tokenizer().fit(255 * PICTURES), "Divide them by 255"),
        (lambda: make_tokenizer().decode([[1, 2]]), r"\(\.\.\., 8\).*shape \(1, 2\)"),
        (lambda: make_tokenizer().decode([[12] * 8]), "0 to 11.*from 12 to 12"),
        (
            lambda: make_tokenizer().decode([[0.5] * 8]),
            "integers from 0 to 11.*float64",
        ),
    ],
)
def test_rejects_invalid_arguments(call, message):
    with pytest.raises(ValueError, match=f"(?s){message}"):
        call()
