"""Pictures with a label each, in NumPy's `.npz` archives."""

import io

import numpy as np

from kseq.datasets.files import File, Source


def read_mnist(content):
    with np.load(io.BytesIO(content("mnist.npz")), allow_pickle=False) as arrays:
        return {
            part: (arrays[f"x_{part}"], arrays[f"y_{part}"].astype("int32"))
            for part in ("train", "test")
        }


SOURCES = (
    Source(
        name="mnist",
        summary="handwritten digits, 28x28 grey values, 60,000 to train and 10,000",
        licence="CC BY-SA 3.0 (as Keras states)",
        citation=(
            "LeCun et al., 1998, Gradient-Based Learning Applied to Document "
            "Recognition"
        ),
        files=(
            File(
                "mnist.npz",
                "https://storage.googleapis.com/tensorflow/tf-keras-datasets/mnist.npz",
                (
                    # The file that Keras ships.
                    "731c5ac602752760c8e48fbffcf8c3b850d9dc2a2aedcf2cc48468fc17b673d1",
                    # The same, written anew from the PNGs of rasbt/mnist-pngs.
                    "c3b4aadaefe08c5229d60a6d5e39187df38c4f0952536322357dcf401a6a3008",
                ),
            ),
        ),
        read=read_mnist,
        labels=tuple("0123456789"),
    ),
)
