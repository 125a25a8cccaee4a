"""Models that match texts with images."""

import keras
import numpy as np
import pytest

import kseq
from kseq.training import ContrastiveLoss
from tests.helpers import array, assert_close, dtype_policy, random_array, randomize

B, N, SHAPE = 3, 5, (4, 6, 1)
TEXTS = np.array([[4, 5, 6], [7, 8, 0], [9, 0, 0]], "int32")
PICTURES = random_array(B, *SHAPE)
PAIRS = {"text": TEXTS, "image": PICTURES}


def image_tower(size=5, **options):
    return kseq.vision_transformer(SHAPE, 2, size, width=6, num_layers=1, **options)


def matcher(text=11):
    return kseq.text_image_matcher(text, image_tower(), width=8)


def cosines(x, y):
    x, y = (array(v).astype("float64") for v in (x, y))
    return np.array([[a @ b / np.sqrt(a @ a * (b @ b)) for b in y] for a in x])


def test_the_logits_are_the_scaled_cosines_of_the_towers():
    model = matcher()
    randomize(model)
    expected = cosines(model.text_tower(TEXTS), model.image_tower(PICTURES))
    scale = np.exp(array(model.similarity.log_scale))
    assert_close(model(PAIRS), scale * expected, atol=1e-4)


def test_the_score_is_the_cosine_of_a_text_with_its_images():
    model = matcher()
    randomize(model)
    expected = cosines(model.text_tower(TEXTS), model.image_tower(PICTURES))
    assert_close(model.score(TEXTS, PICTURES), np.diag(expected), atol=1e-5)
    several = random_array(B, N, *SHAPE, seed=3)
    scores = model.score(TEXTS, several, batch_size=2)
    assert scores.shape == (B, N) and isinstance(scores, np.ndarray)
    for b in range(B):
        row = cosines(model.text_tower(TEXTS), model.image_tower(several[b]))[b]
        assert_close(scores[b], row, atol=1e-5)
        alone = model.score(TEXTS[b : b + 1], several[b : b + 1])
        assert_close(alone[0], scores[b], atol=1e-5)


def test_texts_may_be_lists_and_padding_changes_nothing():
    model = matcher()
    randomize(model)
    expected = model.score(TEXTS, PICTURES)
    rows = [[4, 5, 6], [7, 8], [9]]
    assert_close(model.score(rows, PICTURES), expected, atol=1e-5)
    padded = np.pad(TEXTS, ((0, 0), (2, 4)))
    assert_close(model.score(padded, PICTURES), expected, atol=1e-5)


@pytest.mark.thorough
def test_it_learns_to_match_pairs(tmp_path):
    random = np.random.default_rng(0)
    colours = random.integers(0, 8, 64)
    texts = np.stack([colours % 2 + 4, colours // 2 + 6], axis=1)
    shades = np.stack([colours % 2 - 0.5, colours // 2 - 1.5], axis=1)  # 64 2
    pictures = np.ones((64, *SHAPE)) * np.repeat(shades, 3, axis=1)[:, None, :, None]
    pictures = (pictures + 0.05 * random.normal(size=pictures.shape)).astype("float32")
    model = kseq.text_image_matcher(11, image_tower(8), width=8)
    jit_compile = keras.backend.backend() == "jax"
    model.compile(
        keras.optimizers.Adam(0.02), ContrastiveLoss(), jit_compile=jit_compile
    )
    inputs = {"text": texts, "image": pictures}
    model.fit(inputs, y=texts, batch_size=32, epochs=40, verbose=0)
    _, first = np.unique(colours, return_index=True)  # one of each colour
    one_each = np.repeat(pictures[first][None], 8, axis=0)  # 8 8 H W C
    scores = model.score(texts[first], one_each)
    assert (scores.argmax(axis=1) == np.arange(8)).mean() > 0.6  # chance is 0.125
    model.save(tmp_path / "model.keras")
    loaded = keras.saving.load_model(tmp_path / "model.keras")
    assert_close(loaded.score(texts[first], one_each), scores, atol=1e-5)


def test_towers_may_be_any_models_of_one_width():
    text = kseq.many_to_one(11, 5, "gru", "last", width=4)
    model = matcher(text)
    assert model.text_tower is text
    copy = keras.models.clone_model(model)
    copy.set_weights(model.get_weights())
    assert_close(copy(PAIRS), model(PAIRS))
    assert_close(copy.score(TEXTS, PICTURES), model.score(TEXTS, PICTURES), atol=1e-5)
    assert copy.text_tower is not text and copy.text_tower.name == text.name


@pytest.mark.thorough(all_but=1)
@pytest.mark.parametrize("policy", ["mixed_float16", "mixed_bfloat16"])
def test_half_precision_gives_float32_logits(policy):
    model = matcher()
    randomize(model)
    with dtype_policy(policy):
        half = matcher()
    half.set_weights(model.get_weights())
    logits = half(PAIRS)
    assert keras.backend.standardize_dtype(logits.dtype) == "float32"
    scale = np.exp(array(model.similarity.log_scale))
    assert_close(logits, model(PAIRS), atol=0.15 * scale)
    assert_close(half.score(TEXTS, PICTURES), model.score(TEXTS, PICTURES), atol=0.15)


def test_best_of_chooses_hypotheses_by_matcher_scores():
    sampled = kseq.decoding.Generation(
        token_ids=np.arange(B * N * 2).reshape(B, N, 2),
        log_probs=np.zeros((B, N)),
        token_log_probs=np.zeros((B, N, 2)),
        lengths=np.full((B, N), 2),
    )
    scores = matcher().score(TEXTS, random_array(B, N, *SHAPE))
    best = kseq.decoding.best_of(sampled, scores)
    expected = [sampled.token_ids[b, scores[b].argmax()].tolist() for b in range(B)]
    assert best.token_ids[:, 0].tolist() == expected


# Errors -----------------------------------------------------------------------------


def two_inputs():
    inputs = keras.Input((4,)), keras.Input((4,))
    return keras.Model(inputs, keras.layers.Add()(inputs))


@pytest.mark.parametrize(
    "make", [two_inputs, lambda: None, lambda: kseq.many_to_many(11, 5, width=4)]
)
def test_rejects_a_value_that_is_not_a_tower(make):
    with pytest.raises(ValueError, match="`image` must be a functional model"):
        kseq.text_image_matcher(11, make())


def test_rejects_towers_with_different_widths_or_equal_names():
    for text in (
        kseq.many_to_one(11, 4, "gru", width=4),
        kseq.many_to_one(11, 5, "gru", width=4, name="vision_transformer"),
    ):
        with pytest.raises(ValueError, match="of one width, and have different names"):
            matcher(text)


@pytest.mark.parametrize("shape", [(B - 1, *SHAPE), (B, 2, N, *SHAPE), SHAPE])
def test_rejects_another_number_of_images(shape):
    with pytest.raises(ValueError, match="`images` must be an image for each text"):
        matcher().score(TEXTS, np.ones(shape))


def test_rejects_a_graph_with_other_operations():
    def twice(layer, *args, **kwargs):
        outputs = layer(*args, **kwargs)
        return 2 * outputs if layer.name == "similarity" else outputs

    with pytest.raises(ValueError, match="graph of two towers"):
        keras.models.clone_model(matcher(), call_function=twice)
