"""Search over the decoding of a trained model, without training."""

from collections.abc import Callable, Iterable
from typing import Any

from kseq.training import GenerationScores
from kseq.training.row_kinds import Rows
from kseq.tuning.choice import Choice
from kseq.tuning.space import Space


class Decoding(Space):
    """A space of decoding options for a trained model, which is not trained further.

    Each trial decodes the sources once and scores the result, so any tuner works. Pass
    this to a tuner with the objective `"exact_match"`, `"bleu"` or another of the
    scores (`kseq.tuning.objective` knows their direction), and call `search()` without
    data. Use other data than for the final evaluation.

    Args:
        model: The trained model, with a `generate` method.
        search: A Space, or a Choice of Spaces, of searches of `kseq.decoding`.
        source: See `kseq.training.GenerationScores` for this and the following
            arguments.

    Raises:
        ValueError: `model` has no `generate`; otherwise as for `GenerationScores`.

    Example:

    >>> import keras_tuner, kseq, tempfile
    >>> from kseq.decoding import BeamSearch
    >>> from kseq.tuning import Decoding, Int, Space, objective
    >>> model = kseq.one_to_many(7, condition=3, width=8)  # assume that it is trained
    >>> space = Decoding(
    ...     model,
    ...     Space(BeamSearch, num_beams=Int(1, 2), length_penalty=0.6),
    ...     source=[0, 1, 2], target=[[5, 3], [4, 3], [6, 3]])
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     tuner = keras_tuner.GridSearch(
    ...         space, objective("edit_distance_rate"), directory=folder)
    ...     tuner.search(verbose=0)
    >>> best = tuner.get_best_hyperparameters()[0]
    >>> type(space.best_search(best)).__name__, len(tuner.oracle.trials)
    ('BeamSearch', 2)

    References:
        - [Wu et al., 2016](https://arxiv.org/abs/1609.08144), 7, tables 2 and 3 (length
          penalties are chosen on development data)
    """

    def __init__(
        self,
        model: Any,
        search: Space | Choice,
        source: Any,
        target: Rows,
        scores: str | Iterable[str] = ("exact_match", "edit_distance_rate"),
        to_text: Callable[[list[list[int]]], Iterable[str]] | None = None,
        max_length: int | None = None,
        batch_size: int = 128,
    ) -> None:
        if not hasattr(model, "generate"):
            raise ValueError(
                "`model` must be a trained model with a `generate` method. Received: "
                f"model={model!r}."
            )
        super().__init__(_search, search=search)
        self.search = search
        self.model = model
        self.scores = GenerationScores(
            source, target, scores, to_text, None, max_length, batch_size
        )

    @property
    def label(self) -> str:
        return "Decoding"

    def make(self, values: dict[str, Any]) -> Any:
        """Return the trained model, because tuners need a model."""
        return self.model

    def best_search(self, hp: Any) -> Any:
        """Build the search from values by name or KerasTuner's hyperparameters."""
        values = hp.values if hasattr(hp, "space") else self.checked_values(hp)
        return self.builder(values)(self.search)

    def fit(self, hp: Any, model: Any, *args: Any, **kwargs: Any) -> dict[str, float]:
        """Decode and return the scores by name."""
        return self.scores.measure(model, self.best_search(hp))


def _search(search: Any) -> Any:
    return search
