"""The net that --net, --weights, --model, --preprocessing and --labels name, and its classes."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import TYPE_CHECKING, Protocol

from absl import flags

from tfcnn import runtime
from tfcnn.cards import card_of
from tfcnn.cli.classes import Class, read_labels
from tfcnn.errors import InputError, unknown

if TYPE_CHECKING:
    import keras


class Running(Protocol):
    """What of a `Run` the choice of a net needs."""

    flags: flags.FlagValues
    trainer: bool
    runtime: runtime.Runtime
    net: str | None

    def say(self, line: str) -> None:
        """A line for the person."""


@dataclasses.dataclass
class Net:
    """A net that is ready.

    Attributes:
        name: for results.json.
        model: what `load_net` says of its outputs.
        size: the side of the square it sees, in pixels.
        classes: (synset, label) of each class; synset "" where there is none.
    """

    name: str
    model: keras.Model
    size: int
    classes: list[Class]


def load_net(
    run: Running,
    kind: str = "classifier",
    endpoints: Sequence[str] | None = None,
    at_own_size: bool = False,
) -> Net:
    """The net that the flags name.

    Args:
        run: the run; its TensorFlow is started.
        kind: "classifier", with outputs `logits` and `scores` (a --model that hides its logits: `scores` only);
            "backbone", with a dict of endpoints; or "any": a classifier, or a --model that is none (a detector, say)
            as it is, without classes.
        endpoints: of the backbone; None takes all.
        at_own_size: build a classifier for pictures of its own size, whatever --image_size says.

    Raises:
        InputError: no such net, file, weights or preprocessing.
    """
    size = None if at_own_size else run.flags.image_size
    net = _of_file(run, kind, size) if run.flags.model else _of_factory(run, kind, size, endpoints)
    run.net = net.name
    return net


def _of_factory(run, kind, size, endpoints):
    from tfcnn import backbones

    flags = run.flags
    if flags.preprocessing:
        raise InputError("--preprocessing belongs to a --model; a net of the factory has its own")
    if flags.net not in backbones.NETS:
        raise unknown("net", flags.net, backbones.NETS, "--list_nets lists all")
    own_size = backbones.NETS[flags.net].size
    weights = weights_of(run)
    backbones.locate(flags.net, weights, bare=kind == "backbone")  # weights that cannot be had are said first
    run.runtime  # noqa: B018  (starts TensorFlow, silently, before the net does)
    if kind == "backbone":
        return Net(flags.net, backbones.backbone(flags.net, weights, endpoints), size or own_size, [])
    model = backbones.classifier(flags.net, weights, size=size)
    return Net(flags.net, model, size or own_size, class_pairs(flags, model.output["logits"].shape[-1]))


def weights_of(run: Running) -> str | None:
    """What --weights asks for; a trainer that is told nothing takes ImageNet's only where they are here."""
    if run.flags.weights == "none":
        return None
    if run.trainer and run.flags["weights"].using_default_value:
        from tfcnn.backbones import offline

        here = offline(run.flags.net)
        run.say(f"{run.flags.net} starts from {'ImageNet weights' if here else 'random weights'} (--weights)")
        return "imagenet" if here else None
    return run.flags.weights


def _of_file(run, kind, wanted):
    flags = run.flags
    for other in ("net", "weights"):
        if not flags[other].using_default_value:
            raise InputError(f"--model and --{other} are two models; give one of them")
    run.runtime  # noqa: B018
    from tfcnn import load_model

    model = load_model(
        flags.model, preprocessing=flags.preprocessing, allow_custom_objects=flags.allow_custom_objects
    )
    shape = getattr(model, "input_shape", None)
    if not isinstance(shape, tuple) or len(shape) != 4 or shape[-1] not in (3, None):
        raise InputError(f"--model={flags.model} takes {shape}, not pictures [N, height, width, 3]")
    size = shape[1]
    if size != shape[2] or (wanted and size and wanted != size):
        asked = f", not the {wanted} of --image_size" if wanted else "; only squares are supported"
        raise InputError(f"--model={flags.model} takes pictures of {shape[1]} x {shape[2]} pixels{asked}")
    classes = []
    if kind != "backbone":
        from tfcnn.backbones.heads import with_logits

        try:
            model = with_logits(model, may_hide=True)
            classes = class_pairs(flags, model.output["scores"].shape[-1])
        except InputError as error:
            if kind == "classifier":
                hint = "; ask one of its layers by --layer" if "layer" in flags else ""
                raise InputError(f"{error}{hint}") from None
    return Net(flags.model, model, wanted or size or card_of(flags.model).get("image_size") or 224, classes)


def class_pairs(flags: flags.FlagValues, count: int) -> list[Class]:
    """The classes by --labels, else the release's card, else ImageNet's (1001: after the background), else numbers."""
    if flags.labels:
        return read_labels(flags.labels, count)
    names = _names_beside(flags.model) if flags.model else []
    if len(names) == count:
        return names
    if count == 1001:  # TF-Slim's
        return [("", "background"), *_imagenet()]
    return _imagenet() if count == 1000 else [("", str(index)) for index in range(count)]


def _imagenet():
    from tfcnn.backbones.imagenet import class_names

    return class_names()


def _names_beside(source):
    """A release's class names, from its card."""
    return [("", name) for name in card_of(source).get("classes", [])]
