"""Training on several devices: batches that divide among them, and weights that do.

Axes in shape comments: B batch, T target steps.
"""

import keras
import numpy as np

from kseq.layers import backends
from kseq.layers.validation import integer, positive_integer
from kseq.training.batch_dataset import BatchDataset


class EvenBatches(BatchDataset):
    """The batches of a data set, each filled up so that it divides among devices.

    JAX refuses a batch that does not divide by the devices of a
    `keras.distribution.DataParallel`, which the last one of an epoch rarely does, and
    TensorFlow may fail on parts of unequal size. The rows that are added weigh nothing.
    Where inputs and labels are rows of token ids, as `kseq.training.teacher_forcing`
    makes them, they are padding. Elsewhere each batch has weights `(B,)` besides, which
    are 0 there, and a loss of Keras must divide by them:
    `reduction="mean_with_sample_weight"`.

    Args:
        data: The data set, such as `kseq.training.batches` makes.
        multiple: What the rows of a batch are a multiple of. Defaults to the number of
            parts into which a batch is divided: that of the distribution of Keras, or
            of the strategy of TensorFlow, in whose scope this is made.
        pad_token_id: The id of padding.
        **kwargs: `workers` and the other arguments of `keras.utils.PyDataset`.

    Returns:
        A `keras.utils.PyDataset` of as many batches.

    Raises:
        ValueError: The data set is none of kseq, or `multiple` is no positive integer.

    Example:

    >>> from kseq.training import EvenBatches, batches
    >>> data = batches([[5, 6], [7], [8]], [1, 0, 1], shuffle=False, length_multiple=1)
    >>> [(inputs, labels, weights)] = EvenBatches(data, multiple=2)
    >>> inputs.tolist()
    [[5, 6], [7, 0], [8, 0], [0, 0]]
    >>> weights.tolist()
    [1.0, 1.0, 1.0, 0.0]
    """

    def __init__(self, data, multiple=None, pad_token_id=0, **kwargs):
        super().__init__(**kwargs)
        if not isinstance(data, BatchDataset):
            raise ValueError(
                "`data` must be a data set of kseq, such as `kseq.training.batches` "
                f"makes. Received: data={data!r}."
            )
        self.data, self.pad_token_id = data, integer("pad_token_id", pad_token_id)
        multiple = backends.num_replicas() if multiple is None else multiple
        self.multiple = positive_integer("multiple", multiple)

    def count(self):
        return self.data.count()

    def batch(self, index):
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

    def position(self):
        return self.data.position()

    def start_at(self, position, first=0):
        self._first = first
        self.data.start_at(position)

    def on_epoch_end(self):
        self._first = 0
        self.data.on_epoch_end()


def layout_map(device_mesh, axis="model"):
    """Say which weights of a model are cut, and how, among the devices of an axis.

    For `keras.distribution.ModelParallel`, which Keras has on JAX, and models that one
    device cannot hold. Of a Transformer each device has some heads, some of the hidden
    features of each feed-forward network, and of each token some features; sums of what
    the devices have are taken once for each attention and network. The axis must divide
    the width, the heads and `intermediate_dim`. All other weights, recurrent ones too,
    are whole on each device.

    Args:
        device_mesh: A `keras.distribution.DeviceMesh`.
        axis: The name of its axis along which weights are cut.

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
            f"`axis` must be one of the mesh: {list(device_mesh.axis_names)}. "
            f"Received: axis={axis!r}. Make the mesh with it: "
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


def is_integer(array):
    return np.issubdtype(array.dtype, np.integer)


def is_ids(array):
    """Tell whether an array is rows of token ids, `(B, T)`."""
    return array.ndim == 2 and is_integer(array)
