"""The classes of a data set beside those of a model or a results file: a class is its id, names may repeat."""

import dataclasses
import posixpath
from collections import Counter
from collections.abc import Collection, Sequence

import numpy as np

from tfcnn.datasets.example import Dataset, Record, report
from tfcnn.errors import InputError, unknown


def distinct(names: Sequence[str], category_ids: Sequence[int] | None = None) -> list[str]:
    """The names of K classes, each once: where several share a name their ids tell them apart, "car (id 0)".

    Args:
        names: K names.
        category_ids: the data set's own id of each class; None takes 0..K-1.
    """
    ids = range(len(names)) if category_ids is None else category_ids
    count = Counter(names)
    return [name if count[name] == 1 else f"{name} (id {i})" for name, i in zip(names, ids, strict=True)]


def united(parts: Sequence[Dataset]) -> list[Dataset]:
    """Parts of one data set with the same classes: those that any of them has, by id.

    Args:
        parts: e.g. what is trained on and what is validated; a class that one lacks is added to its `broken`.

    Raises:
        InputError: an id is one class here and another there.
    """
    if all(part.classes == parts[0].classes for part in parts):
        return list(parts)
    names: dict[int, str] = {}
    for part in parts:
        for category_id, name in zip(part.category_ids, part.classes, strict=True):
            if names.setdefault(category_id, name) != name:
                raise InputError(
                    f"the parts of {part.name} have other classes: id {category_id} is {names[category_id]} in one "
                    f"and {name} in another"
                )
    ids = sorted(names)
    return [_relabelled(part, ids, [names[i] for i in ids]) for part in parts]


def joined(parts: Sequence[Dataset], name: str) -> Dataset:
    """Parts of one data set as one, one after the other, with the classes that any of them has.

    Args:
        parts: e.g. what is trained on and what is validated elsewhere.
        name: of the whole, for messages.

    Raises:
        InputError: an id is one class here and another there, a picture lies in two parts, or a number is the id of
            two pictures.
    """
    parts = united(parts)
    examples = _told_apart([record for part in parts for record in part.examples], name)
    broken = [entry for part in parts for entry in part.broken]
    broken = [entry for number, entry in enumerate(broken) if entry not in broken[:number]]
    return dataclasses.replace(parts[0], examples=examples, broken=broken)


def _told_apart(examples: list[Record], name: str) -> list[Record]:
    """The pictures with an id each: where a stem was that of several files, their paths without suffix."""
    count = Counter(record.image_id for record in examples)
    paths = [
        record.image_id if count[record.image_id] == 1 else posixpath.splitext(record.file)[0]
        for record in examples
    ]
    again = Counter(paths)
    for record, path in zip(examples, paths, strict=True):
        if again[path] > 1:
            raise InputError(f"{name}: the picture {record.image_id} lies in two of these parts")
        if count[record.image_id] > 1 and not isinstance(record.image_id, str):
            alike = [other.file for other in examples if other.image_id == record.image_id]
            raise InputError(
                f"{name}: {record.image_id} is the id of two pictures, {alike[0]} and {alike[1]}"
            )
    return [
        record if path == record.image_id else dataclasses.replace(record, image_id=path)
        for record, path in zip(examples, paths, strict=True)
    ]


def _relabelled(part: Dataset, ids: list[int], names: list[str]) -> Dataset:
    index = np.array([ids.index(i) for i in part.category_ids] + [-1], np.int32)  # label -1 stays
    broken = list(part.broken)
    for category_id, name in zip(ids, names, strict=True):
        if category_id not in part.category_ids:
            report(broken, part.name, f"no class {name} here, but in another part", "class kept")
    examples = []
    for record in part.examples:
        truth = record.truth and dataclasses.replace(record.truth, labels=index[record.truth.labels])
        labels = index[record.labels]
        examples.append(
            dataclasses.replace(record, labels=labels, label=int(index[record.label]), truth=truth)
        )
    return dataclasses.replace(part, classes=names, category_ids=ids, examples=examples, broken=broken)


def restricted(dataset: Dataset, names: Sequence[str]) -> Dataset:
    """The data set with some of its classes: objects of the others are gone, their pictures stay.

    Args:
        dataset: with boxes.
        names: of the classes to keep, in their new order; none keeps all.

    Raises:
        InputError: a name that no class has.
    """
    if not names:
        return dataset
    for name in names:
        if name not in dataset.classes:
            raise unknown("class", name, dataset.classes, f"one of {', '.join(dataset.classes)}")
    index = np.array(
        [names.index(name) if name in names else -1 for name in dataset.classes] + [-1], np.int32
    )
    examples = []
    for record in dataset.examples:
        labels = index[record.labels]
        kept = {
            name: getattr(record, name)[labels >= 0]
            for name in ("boxes", "difficult", "truncated", "crowd", "area")
        }
        truth = record.truth
        if truth is not None:
            own = index[truth.labels]
            arrays = ("boxes", "box_areas", "areas", "ignored")
            truth = dataclasses.replace(
                truth,
                masks=None,
                labels=own[own >= 0],
                **{name: getattr(truth, name)[own >= 0] for name in arrays},
            )
        examples.append(
            dataclasses.replace(record, labels=labels[labels >= 0], masks=None, truth=truth, **kept)
        )
    ids = [dataset.category_ids[dataset.classes.index(name)] for name in names]
    return dataclasses.replace(dataset, classes=list(names), category_ids=ids, examples=examples)


def match(
    names: Sequence[str],
    ids: Sequence[int],
    classes: Sequence[str],
    category_ids: Sequence[int],
    present: Collection[int],
) -> list[int]:
    """Which class of a data set each class of a model is.

    Args:
        names, ids: of the model's classes.
        classes, category_ids: names and ids of the data set's K classes.
        present: those of 0..K-1 that have an object.

    Returns:
        0..K-1 for each of `names`, -1 where the data set has no class of that name. Of several with one name it is
        the one with the same id, else the only one that has objects.

    Raises:
        InputError: neither says which.
    """
    own = list(zip(category_ids, classes, strict=True))
    return [_match(name, i, own, present) for name, i in zip(names, ids, strict=True)]


def _match(name: str, category_id: int, own: list[tuple[int, str]], present: Collection[int]) -> int:
    if (category_id, name) in own:
        return own.index((category_id, name))
    same = [label for label, (_, other) in enumerate(own) if other == name]
    if len(same) > 1:
        with_objects = [label for label in same if label in present]
        if len(with_objects) != 1:
            ids = ", ".join(str(own[label][0]) for label in same)
            raise InputError(
                f"the data set has several classes named {name!r} (ids {ids}): give them names of their own"
            )
        same = with_objects
    return same[0] if same else -1
