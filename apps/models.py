"""The net that --net, --weights, --model, --preprocessing and --labels name, and its classes."""

from __future__ import annotations

import dataclasses
import json
import pathlib

from tfcnn.errors import InputError

from . import usage


@dataclasses.dataclass
class Net:
    """A net that is ready.

    Attributes:
        name: for results.json. model: a keras.Model. size: the side of the square it sees, in pixels.
        classes: (synset, label) of each class; synset "" where there is none.
    """

    name: str
    model: object
    size: int
    classes: list[tuple[str, str]]


def load_net(run, kind: str = "classifier", endpoints: list[str] | None = None) -> Net:
    """The net that the flags name.

    Args:
        run: the run; its TensorFlow is started.
        kind: "classifier", with outputs `logits` and `scores`, or "backbone", with a dict of endpoints.
        endpoints: of the backbone; None takes all.

    Raises:
        InputError: no such net, file, weights or preprocessing.
    """
    flags = run.flags
    from tfcnn.backbones import table

    if not flags.model:
        row = table.net(flags.net)
    run.runtime  # noqa: B018  (starts TensorFlow before the net's module would)
    if flags.model:
        from tfcnn import load_model

        model = load_model(
            flags.model,
            preprocessing=flags.preprocessing,
            allow_custom_objects=flags.allow_custom_objects,
        )
        name, own_size = flags.model, model.input_shape[1]
        classes = _names_beside(flags.model)
        if kind == "classifier":
            from tfcnn.backbones.heads import with_logits

            model = with_logits(model)
    else:
        from tfcnn import backbones

        weights = None if flags.weights == "none" else flags.weights
        if kind == "classifier":
            model = backbones.classifier(flags.net, weights, size=flags.image_size)
        else:
            model = backbones.backbone(flags.net, weights, endpoints)
        name, own_size = flags.net, row.size
        classes = _imagenet() if row.classes == 1000 else []
    if kind == "classifier":
        count = model.output["logits"].shape[-1]
        classes = _labels(flags.labels, count) or classes or [("", str(index)) for index in range(count)]
    run.net = name
    return Net(name, model, flags.image_size or own_size or 224, classes)


def _imagenet():
    from tfcnn.backbones.imagenet import class_names

    return class_names()


def _names_beside(source):
    """A release's class names, from its card."""
    from tfcnn.loading import releases

    folder = releases().get(source, pathlib.Path(source))
    card = pathlib.Path(folder) / "card.json"
    if not card.is_file():
        return []
    return [("", name) for name in json.loads(card.read_text()).get("classes", [])]


def _labels(path, count):
    if not path:
        return []
    try:
        names = pathlib.Path(path).read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(f"--labels={path} cannot be read ({error})") from error
    if len(names) != count:
        raise InputError(f"--labels={path} has {len(names)} lines, and the net has {count} classes")
    return [("", name.strip()) for name in names]


def resolve_class(spec: str, classes: list[tuple[str, str]]) -> list[int]:
    """The indices that --class names: by 0-based index, synset or name, several by commas.

    Args:
        spec: what the person wrote.
        classes: (synset, label) of each class.

    Raises:
        InputError: a name that no class has (with the nearest three), or that several have (all listed).
    """
    found = []
    for part in filter(None, (p.strip() for p in spec.split(","))):
        if part.isdigit():
            if int(part) >= len(classes):
                raise InputError(f"class {part} is not there: the net has classes 0 to {len(classes) - 1}")
            found.append(int(part))
            continue
        wanted = _folded(part)
        exact = [i for i, (synset, label) in enumerate(classes) if wanted in (synset, _folded(label))]
        if len(exact) > 1:
            several = ", ".join(f"{i} ({classes[i][0] or classes[i][1]})" for i in exact)
            raise InputError(f"class {part!r} is several: {several}; give the index or the synset")
        if not exact:
            words = [i for i, (_, label) in enumerate(classes) if wanted in _folded(label).split()]
            if len(words) == 1:
                exact = words
            elif words:
                several = ", ".join(f"{i} {classes[i][1]}" for i in words)
                raise InputError(f"class {part!r} is several: {several}; give the index or the whole name")
            else:
                raise usage.unknown("class", part, [label for _, label in classes], "--list_classes")
        found += exact
    return found


def _folded(name):
    return " ".join(name.lower().replace("_", " ").replace("-", " ").split())
