"""Pictures with a class each."""

import io

import numpy as np

from kseq.datasets.files import File


def load_mnist(content):
    with np.load(io.BytesIO(content("mnist.npz")), allow_pickle=False) as arrays:
        return {
            part: (arrays[f"x_{part}"], arrays[f"y_{part}"].astype("int64"))
            for part in ("train", "test")
        }


MNIST_FILES = (
    File(
        "mnist.npz",
        (
            # As Keras serves it, and packed anew from rasbt/mnist-pngs, by digit.
            "731c5ac602752760c8e48fbffcf8c3b850d9dc2a2aedcf2cc48468fc17b673d1",
            "c3b4aadaefe08c5229d60a6d5e39187df38c4f0952536322357dcf401a6a3008",
        ),
        "https://storage.googleapis.com/tensorflow/tf-keras-datasets/mnist.npz",
    ),
)
