"""The names of ImageNet's 1000 classes. Imports no TensorFlow."""

import functools
import pathlib

FILE = pathlib.Path(__file__).with_name("imagenet_classes.tsv")


@functools.cache
def class_names() -> tuple[tuple[str, str], ...]:
    """Gives (synset, label) of each class in the order of the nets' outputs; two labels occur twice."""
    lines = FILE.read_text(encoding="utf-8").splitlines()
    return tuple(tuple(line.split("\t")) for line in lines if not line.startswith("#"))
