"""Files that a trial leaves: its best weights and, for Hyperband, its final state."""

import contextlib
import shutil
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from kseq.tuning.trials.checkpoints import load_checkpoint
from kseq.tuning.trials.execution import Execution
from kseq.tuning.trials.files import replacing, write_json, write_text
from kseq.tuning.trials.layout import TrialDirectory
from kseq.typing import PathLike


def keep_weights(
    directory: TrialDirectory,
    executions: Sequence[Execution],
    objective: Any,
    keeps_state: bool,
) -> Execution:
    """Save the best weights of all executions, and return the execution they are of."""
    sign = 1 if objective.direction == "min" else -1

    def rank(execution):
        score = execution.score if execution.call is None else execution.call.best[0]
        return sign * score

    best = min(executions, key=rank)
    if not keeps_state:
        remove(directory.checkpoints())
    config = None
    if best.call is not None:
        copy(best.call.weights, directory.weights)
        config = best.call.build_config
    elif best.model is not None:
        best.model.save_weights(directory.weights)
        config = best.model.get_build_config() if best.model.built else None
    else:
        directory.weights.unlink(missing_ok=True)
    if config is not None:
        # Needed to rebuild a model that is built by its first batch.
        with contextlib.suppress(TypeError):
            write_json(directory.build_config, config)
    if best.config is not None:
        write_text(directory.model, best.config)
    if not keeps_state:
        remove(directory.weights_of_calls())
    return best


def forget_failure(directory: TrialDirectory, seed: int) -> None:
    """Remove the state of an earlier attempt, which had another seed."""
    for path in directory.checkpoints():
        state = load_checkpoint(path)
        meta = state and state["meta"]
        if meta and meta["trial"] == directory.path.name and meta["seed"] != seed:
            path.unlink()


def go_on_from(past: TrialDirectory, directory: TrialDirectory) -> None:
    """Copy the state of the trial that a round of Hyperband promotes."""
    if directory.checkpoints():
        return
    for source in (*past.weights_of_calls(), *past.checkpoints()):
        copy(source, directory.path / source.name)


def copy(source: PathLike, target: PathLike) -> None:
    with replacing(target) as path:
        shutil.copyfile(source, path)


def remove(paths: Iterable[Path]) -> None:
    for path in paths:
        path.unlink()
