"""Checked arguments of `generate` for numbers.

Axes in shape comments: B rows, P steps of a prefix, T steps, F features, C covariates.
"""

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import keras
import numpy as np
from keras import ops

from kseq.builders.requests import Request, check_jit_compile
from kseq.builders.source_rows import rows_of_batches, source_rows, source_symbol
from kseq.decoding import randomness
from kseq.layers.validation import integer, positive_integer

if TYPE_CHECKING:
    from kseq.builders.forecaster import Forecaster


class ForecastRequest(Request):
    """Checked arguments of `generate` of a `Forecaster`."""

    def __init__(
        self,
        model: "Forecaster",
        source: Any,
        num_steps: Any,
        num_draws: Any,
        seed: Any,
        covariates: Any,
        prefix: Any,
        jit_compile: bool | None,
    ) -> None:
        if num_steps is None:
            raise ValueError(
                "`num_steps` must be the number of steps to generate. Received: None. "
                "A series has no end token: `model.generate(past, num_steps=24)`."
            )
        self.num_steps = positive_integer("num_steps", num_steps)
        check_jit_compile(jit_compile)
        if num_draws is not None:
            positive_integer("num_draws", num_draws)
            check_draws(model)
        if seed is not None:
            integer("seed", seed)
        features = model.target.num_features
        prefix = None if prefix is None else series("prefix", prefix, features)
        source = rows_of_batches(source, source_symbol(model))
        rows = {
            "source": source_rows(
                model, source, None if prefix is None else len(prefix)
            )
        }
        check_no_gaps("source", rows["source"], model.source_padding)
        num_rows, self.num_known = len(rows["source"]), 0
        if prefix is not None:
            check_rows("prefix", prefix, num_rows)
            rows["prefix"], self.num_known = prefix, prefix.shape[1]
        length = self.num_known + self.num_steps
        check_positions(model, length)
        if (covariates is None) != (model.covariates is None):
            raise ValueError(
                "`covariates` must be passed if, and only if, the model was built with "
                f"them. Received: covariates={type(covariates).__name__} for "
                f"{model.name}, built with covariates={model.covariates}. Build it "
                "with `covariates=kseq.layers.FeatureEmbedding(num_covariates, width)`."
            )
        if covariates is not None and model.covariates is not None:
            given = series("covariates", covariates, model.covariates.num_features)
            check_rows("covariates", given, num_rows)
            check_covariates(given, length, self.num_steps)
            rows["covariates"] = given
        if num_draws is not None:
            seeds = randomness.row_seeds(seed, num_rows)
            rows["row_seeds"] = ops.convert_to_numpy(seeds)
        super().__init__(model, source, rows)


def series(name: str, values: Any, num_features: int) -> np.ndarray:
    """Return features of steps as an array `(B, T, F)`."""
    try:
        values = np.asarray(ops.convert_to_numpy(values), keras.backend.floatx())
    except (TypeError, ValueError):
        values = np.empty(0)  # rows of different lengths
    if values.ndim != 3 or values.shape[-1] != num_features:
        raise ValueError(
            f"`{name}` must be an array of shape (B, steps, {num_features}). Received: "
            f"{name} of shape {values.shape}. A single feature also needs an axis: "
            f"`{name}[..., None]`."
        )
    return values


def check_rows(name: str, values: np.ndarray, num_rows: int) -> None:
    """Raise unless there is a row for each source."""
    if len(values) != num_rows:
        raise ValueError(
            f"`{name}` must have a row for each source. Received: {num_rows} rows of "
            f"source, {len(values)} of {name}."
        )


def check_draws(model: "Forecaster") -> None:
    """Raise unless the head of a model has a distribution."""
    if not model.head.num_uniforms:
        raise ValueError(
            "Draws need a distribution. Received: `num_draws` for a model with "
            'head="mean", which predicts one number. Build it with head="gaussian", or '
            "leave `num_draws` out."
        )


def check_positions(model: "Forecaster", length: int) -> None:
    """Raise if there are more steps than learned positions."""
    longest = model.target.num_positions
    if longest is not None and length > longest:
        raise ValueError(
            "A target with learned positions must not have more steps than "
            f"positions. Received: {length} steps with a target of "
            f"max_length={longest}. Generate less, or train with more positions."
        )


def check_covariates(covariates: np.ndarray, length: int, num_steps: int) -> None:
    """Raise unless there are finite covariates for every step."""
    if covariates.shape[1] != length:
        raise ValueError(
            "`covariates` must cover the steps of the prefix, if any, and those to be "
            f"generated. Received: covariates of {covariates.shape[1]} steps, with "
            f"num_steps={num_steps} and a prefix of {length - num_steps} steps. Pass "
            f"{length} steps of each series."
        )
    if not np.isfinite(covariates).all():
        raise ValueError(
            "`covariates` must be known for every step. Received: covariates with "
            f"{covariates[~np.isfinite(covariates)][0]}. Leave out covariates that are "
            "unknown for the future, or fill the gaps."
        )


def check_no_gaps(name: str, rows: Sequence[Any], padding: Any) -> None:
    """Raise if a source has NaN, except in whole steps of padding."""
    if isinstance(rows[0], dict):
        for key in rows[0]:
            own = [row[key] for row in rows]
            check_no_gaps(f'{name}["{key}"]', own, padding[key])
        return
    takes_nan = padding is not None and padding != padding
    for index, row in enumerate(rows):
        row = np.asarray(row)
        if row.dtype.kind != "f" or not row.size:
            continue
        is_missing = np.isnan(row)
        if takes_nan and row.ndim == 2:
            is_missing = is_missing & ~is_missing.all(axis=-1, keepdims=True)
        if is_missing.any():
            raise ValueError(
                f"`{name}` must hold numbers; with `mask_value=float('nan')` a whole "
                f"step may be missing. Received: NaN in {name}[{index}]. Fill the "
                f"gaps, `numpy.nan_to_num({name})`, and mark them by additional "
                "features."
            )
