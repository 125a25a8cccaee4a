"""Directions of metrics: whether lower or higher is better."""

from typing import Literal

Direction = Literal["min", "max"]

DIRECTIONS: dict[str, Direction] = {
    "loss": "min",
    "error": "min",
    "perplexity": "min",
    "crps": "min",
    "edit_distance_rate": "min",
    "accuracy": "max",
    "f1": "max",
    "exact_match": "max",
    "bleu": "max",
    "chrf": "max",
    "ter": "min",
    "wer": "min",
    "cer": "min",
}


def known_direction(name: str) -> Direction | None:
    """Return the direction of a metric, known from the end of its name.

    Args:
        name: A name as `fit` reports it, such as `"val_token_accuracy"`.

    Returns:
        `"min"`, `"max"`, or None for an unknown name.

    Example:

    >>> from kseq.training.directions import known_direction
    >>> known_direction("val_edit_distance_rate"), known_direction("val_glossy")
    ('min', None)
    """
    for ending, direction in DIRECTIONS.items():
        if f"_{name}".endswith(f"_{ending}"):
            return direction
    return None
