"""How a trained model shall decode, searched without any training."""

from kseq.training import GenerationScores
from kseq.tuning.space import Space


class Decoding(Space):
    """Searches how a trained model decodes, and trains nothing.

    Each trial decodes the sources once and is scored, so any tuner works: give it to
    one with the objective `"exact_match"`, `"bleu"` or another of those scores
    (`kseq.tuning.objective` knows the direction), and call `search()` without
    data. Measure on data that the final figure is not measured on.

    Args:
        model: The trained model, with `generate`.
        search: A Space, or a Choice of Spaces, that make a search of `kseq.decoding`.
        source: As for `kseq.training.GenerationScores`, and so are the arguments after
            it.

    Raises:
        ValueError: `model` has no `generate`, or as for `GenerationScores`.

    Example:

    >>> import keras_tuner, kseq, tempfile
    >>> from kseq.decoding import BeamSearch
    >>> from kseq.tuning import Decoding, Int, Space, objective
    >>> model = kseq.one_to_many(7, condition=3, width=8)  # trained, let us say
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
        model,
        search,
        source,
        target,
        scores=("exact_match", "edit_distance_rate"),
        to_text=None,
        max_length=None,
        batch_size=128,
    ):
        if not hasattr(model, "generate"):
            raise ValueError(
                "`model` must be a trained model that writes, with `generate`. "
                f"Received: model={model!r}."
            )
        super().__init__(_search, search=search)
        self.search = search
        self.model = model
        self.scores = GenerationScores(
            source, target, scores, to_text, None, max_length, batch_size
        )

    @property
    def label(self):
        return "Decoding"

    def make(self, values):
        """The trained model, for a tuner wants a model."""
        return self.model

    def best_search(self, hp):
        """The search object of values by name, or of KerasTuner's hyperparameters."""
        values = hp.values if hasattr(hp, "space") else self.checked_values(hp)
        return self.builder(values)(self.search)

    def fit(self, hp, model, *args, **kwargs):
        """Decodes and returns the scores by name."""
        return self.scores.measure(model, self.best_search(hp))


def _search(search):
    return search
