"""Training on several devices: batches of even size, and layouts of weights.

Axes in shape comments: B batch, T target steps.
"""

from typing import Any

import keras
import numpy as np

from kseq.layers import backends
from kseq.layers.validation import integer, positive_integer
from kseq.training.batch_dataset import BatchDataset


class EvenBatches(BatchDataset):
    """The batches of a data set, filled up to a multiple of the number of devices.

    With `keras.distribution.DataParallel`, JAX rejects a batch that is not divisible by
    the number of devices, as the last one of an epoch rarely is. TensorFlow may fail on
    parts of unequal size. The added rows have no weight. If inputs and labels are rows
    of token ids, such as from `kseq.training.teacher_forcing`, the added rows are
    padding. Otherwise each batch also gets weights `(B,)`, which are 0 for added rows.
    A Keras loss must then divide by the weights:
    `reduction="mean_with_sample_weight"`.

    Args:
        data: A data set such as `kseq.training.batches` returns.
        multiple: Multiple to which the rows of a batch are filled up. Defaults to the
            number of parts into which a batch is divided: by Keras' distribution, or by
            the TensorFlow strategy in whose scope this object is created.
        pad_token_id: The id of padding.
        **kwargs: `workers` and the other arguments of `keras.utils.PyDataset`.

    Returns:
        A `keras.utils.PyDataset` with the same number of batches.

    Raises:
        ValueError: `data` is not a data set of kseq, or `multiple` is not a positive
            integer.

    Example:

    >>> from kseq.training import EvenBatches, batches
    >>> data = batches([[5, 6], [7], [8]], [1, 0, 1], shuffle=False, length_multiple=1)
    >>> [(inputs, labels, weights)] = EvenBatches(data, multiple=2)
    >>> inputs.tolist()
    [[5, 6], [7, 0], [8, 0], [0, 0]]
    >>> weights.tolist()
    [1.0, 1.0, 1.0, 0.0]
    """

    def __init__(
        self,
        data: BatchDataset,
        multiple: int | None = None,
        pad_token_id: int = 0,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        if not isinstance(data, BatchDataset):
            raise ValueError(
                "`data` must be a data set of kseq, such as `kseq.training.batches` "
                f"returns. Received: data={data!r}."
            )
        self.data, self.pad_token_id = data, integer("pad_token_id", pad_token_id)
        multiple = backends.num_replicas() if multiple is None else multiple
        self.multiple = positive_integer("multiple", multiple)

    def count(self) -> int:
        return self.data.count()

    def batch(self, index: int) -> tuple[Any, ...]:
        inputs, labels, *weights = self.data.batch(index)
        rows = len(keras.tree.flatten(labels)[0])
        more = -rows % self.multiple

        def filled(array):
            padding = self.pad_token_id if is_integer(array) else 0
            width = [(0, more), *[(0, 0)] * (array.ndim - 1)]
            return np.pad(array, width, constant_values=padding)

        is_padded = all(is_ids(x) for x in keras.tree.flatten((inputs, labels)))
        if not weights and not is_padded:
            weights = [np.ones(rows, "float32")]
        return keras.tree.map_structure(filled, (inputs, labels, *weights))

    def position(self) -> Any:
        return self.data.position()

    def start_at(self, position: Any, first: int = 0) -> None:
        self._first = first
        self.data.start_at(position)

    def on_epoch_end(self) -> None:
        self._first = 0
        self.data.on_epoch_end()


def layout_map(
    device_mesh: keras.distribution.DeviceMesh, axis: str = "model"
) -> keras.distribution.LayoutMap:
    """Make the layout that splits the weights of a model among devices.

    It is for `keras.distribution.ModelParallel`, which Keras supports on JAX, and for
    models that do not fit on one device. Each device has some heads of a Transformer's
    attention, some hidden features of each feed-forward network, and some features of
    each token embedding. The devices sum their results once per attention and per
    network. The size of the axis must divide the width, the heads and
    `intermediate_dim`. All other weights, including recurrent ones, are replicated.

    Args:
        device_mesh: A `keras.distribution.DeviceMesh`.
        axis: Name of the axis of the mesh along which weights are split.

    Returns:
        A `keras.distribution.LayoutMap`, to which further rules can be added.

    Raises:
        ValueError: The mesh has no such axis.

    Example:

    >>> import keras
    >>> from kseq.training import layout_map
    >>> devices = keras.distribution.list_devices()[:1]
    >>> mesh = keras.distribution.DeviceMesh((1, 1), ["batch", "model"], devices)
    >>> layouts = layout_map(mesh)
    >>> layouts["transformer_encoder/block_0/attention/query/kernel"].axes
    (None, 'model')
    >>> layouts["transformer_encoder/block_0/attention/output/kernel"].axes
    ('model', None)

    References:
        - [Shoeybi et al., 2019](https://arxiv.org/abs/1909.08053), 3
    """
    if axis not in device_mesh.axis_names:
        raise ValueError(
            f"`axis` must be an axis of the mesh: {list(device_mesh.axis_names)}. "
            f"Received: axis={axis!r}. Create the mesh with it: "
            '`keras.distribution.DeviceMesh((1, 2), ["batch", "model"])`.'
        )
    layouts = keras.distribution.LayoutMap(device_mesh)
    widening = ".*attention/(query|key|value)", ".*feed_forward/widen"
    narrowing = ".*attention/output", ".*feed_forward/narrow", ".*head"
    for path in widening:
        layouts[f"{path}/kernel"] = (None, axis)
        layouts[f"{path}/bias"] = (axis,)
    for path in narrowing:
        layouts[f"{path}/kernel"] = (axis, None)
    layouts[".*embedding/embeddings"] = (None, axis)
    return layouts


def is_integer(array: np.ndarray) -> bool:
    return np.issubdtype(array.dtype, np.integer)


def is_ids(array: np.ndarray) -> bool:
    """Return whether an array is rows of token ids, `(B, T)`."""
    return array.ndim == 2 and is_integer(array)
