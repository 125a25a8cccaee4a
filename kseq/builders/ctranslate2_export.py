"""Export to CTranslate2: the model, its vocabularies and the search options."""

import importlib.util
import json
import pathlib
from collections.abc import Mapping, Sequence
from typing import Any, NoReturn

from kseq.builders.ctranslate2_spec import check_model, transformer_spec
from kseq.builders.encoder_decoder_model import EncoderDecoder
from kseq.builders.exporting import checked_shape
from kseq.decoding import BeamSearch, GreedySearch, Search
from kseq.layers.saving import replaced_folder
from kseq.layers.validation import one_of
from kseq.typing import PathLike

QUANTIZATIONS = (
    "float16",
    "bfloat16",
    "int8",
    "int8_float16",
    "int8_bfloat16",
    "int16",
)
NUM_POSITIONS = 1024
OPTIONS_FILE = "generation.json"
WITHOUT_PENALTY = 1e-30  # no effect on a score, but CTranslate2 stops no sooner


def export_to_ctranslate2(
    model: EncoderDecoder,
    path: PathLike,
    search: Search,
    max_length: int,
    source_shape: Sequence[int | None] | None,
    quantization: str | None,
    vocabularies: Mapping[str, Sequence[str]] | None,
) -> None:
    """Write a folder for CTranslate2; the arguments are those of `export_generation`.

    The folder also holds `generation.json`, the options with which CTranslate2 searches
    as `generate` does.
    """
    if quantization is not None:
        one_of("quantization", quantization, QUANTIZATIONS)
    check_model(model)
    options = search_options(model, search, max_length)
    names = vocabularies_of(model, vocabularies)
    lengths = {"target": max(max_length, NUM_POSITIONS), "source": NUM_POSITIONS}
    if source_shape is not None:
        if model.source is None:
            raise ValueError(
                "A model without a source must have no `source_shape`. Received: "
                f"source_shape={source_shape!r}. Leave it out."
            )
        _, longest = checked_shape("source_shape", source_shape, (None, None))
        lengths["source"] = longest or NUM_POSITIONS
    if importlib.util.find_spec("ctranslate2") is None:
        raise ImportError(
            'format="ctranslate2" needs ctranslate2. Install it with '
            "`pip install kseq[export]`."
        )
    is_bfloat16 = "bfloat16" in (quantization or "")
    if is_bfloat16 and importlib.util.find_spec("torch") is None:
        raise ImportError(
            f'quantization="{quantization}" needs PyTorch, with which CTranslate2 '
            "converts weights. Install it with `pip install kseq[torch]`."
        )
    spec = transformer_spec(model, lengths)
    name_tokens(spec, model, names)
    spec.validate()
    spec.optimize(quantization)
    with replaced_folder(path, OPTIONS_FILE) as folder:
        spec.save(folder)
        text = json.dumps(options, indent=2) + "\n"
        pathlib.Path(folder, OPTIONS_FILE).write_text(text, encoding="utf-8")


def search_options(
    model: EncoderDecoder, search: Search, max_length: int
) -> dict[str, Any]:
    """Return arguments of `translate_batch` or `generate_batch` for a search."""
    if type(search) not in (GreedySearch, BeamSearch):
        refuse_search("`GreedySearch` or `BeamSearch`", search)
    for name in ("constraints", "guidance"):
        if getattr(search, name):
            refuse_search(f"a search without {name}", search)
    options = {"beam_size": 1, "num_hypotheses": 1, "length_penalty": 0.0}
    if type(search) is BeamSearch:
        options = beam_options(search, max_length, model.target_size)
    options |= {"return_scores": True, "return_end_token": True}
    if model.source is None:
        own = {"max_length": max_length, "min_length": 0}
        return {**options, **own, "include_prompt_in_result": False}
    own = {"max_decoding_length": max_length, "min_decoding_length": 0}
    return {**options, **own, "max_input_length": 0}


def beam_options(
    search: BeamSearch, max_length: int, vocabulary_size: int
) -> dict[str, Any]:
    """Return the options of a beam search, including when it ends."""
    if search.num_groups > 1:
        refuse_search("beams that are one group", search)
    if search.coverage_penalty:
        refuse_search("a search without a coverage penalty", search)
    if search.length_penalty and search.length_penalty_form != "power":
        refuse_search('`length_penalty_form="power"`', search)
    if 2 * search.num_beams > vocabulary_size:
        refuse_search("twice as many tokens as beams", search)
    num_results = search.num_results or search.num_beams
    # With this patience a search goes on until no hypothesis is open.
    penalty, patience = search.length_penalty, float(max_length)
    if search.early_stopping:
        if num_results < search.num_beams:
            refuse_search("`num_results=None` with `early_stopping`", search)
        penalty, patience = penalty or WITHOUT_PENALTY, 1.0
    elif num_results > 1:
        penalty = penalty or WITHOUT_PENALTY
    return {
        "beam_size": search.num_beams,
        "num_hypotheses": num_results,
        "length_penalty": float(penalty),
        "patience": patience,
    }


def refuse_search(needed: str, search: Search) -> NoReturn:
    """Raise the error of a search that CTranslate2 cannot run."""
    raise ValueError(
        f'format="ctranslate2" needs {needed}, to generate the same as `generate`. '
        f"Received: search={search}. Pass other options to CTranslate2 when you call "
        'it, or export as "onnx" or "tf_saved_model".'
    )


def vocabularies_of(
    model: EncoderDecoder, vocabularies: Mapping[str, Sequence[str]] | None
) -> dict[str, list[str]]:
    """Return the texts of the tokens of `"source"` and `"target"`, by name."""
    sizes: dict[str, int] = {"target": model.target_size}
    if model.source is not None:
        sizes["source"] = model.source_size
    if vocabularies is None:
        return {name: [str(i) for i in range(size)] for name, size in sizes.items()}
    if not isinstance(vocabularies, dict) or vocabularies.keys() != sizes.keys():
        keys = list(vocabularies) if isinstance(vocabularies, dict) else vocabularies
        raise ValueError(
            f"`vocabularies` must be a dictionary of the tokens of {list(sizes)}, or "
            f"None. Received: vocabularies={keys!r}."
        )
    for name, size in sizes.items():
        tokens = vocabularies[name]
        is_text = all(isinstance(token, str) and token for token in tokens)
        if not is_text or not len(tokens) == len(set(tokens)) == size:
            raise ValueError(
                f'`vocabularies["{name}"]` must be {size} different strings, one for '
                f"each token of the model. Received: {len(tokens)} tokens, "
                f"{len(set(tokens))} of them different."
            )
    unknown = vocabularies["target"][unknown_id(model)]
    if unknown not in vocabularies.get("source", [unknown]):
        raise ValueError(
            "Source and target must have the same text for the unknown token. "
            f"Received: {unknown!r} in the target, which is not a token of the source."
        )
    return {name: list(vocabularies[name]) for name in sizes}


def unknown_id(model: EncoderDecoder) -> int:
    """Return the unknown token: 1, as in a `Vocabulary`, or padding if 1 is taken."""
    taken = {model.start_token_id, model.end_token_id}
    return model.pad_token_id if 1 in taken else 1


def name_tokens(
    spec: Any, model: EncoderDecoder, names: Mapping[str, Sequence[str]]
) -> None:
    """Set the vocabularies of a specification, and its special tokens."""
    target = names["target"]
    spec.config.unk_token = target[unknown_id(model)]
    spec.config.bos_token = target[model.start_token_id]
    spec.config.eos_token = target[model.end_token_id]
    if model.source is None:
        spec.register_vocabulary(target)
        return
    spec.config.decoder_start_token = target[model.start_token_id]
    spec.register_source_vocabulary(names["source"])
    spec.register_target_vocabulary(target)
