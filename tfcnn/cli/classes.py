"""The classes that a person names: in a flag, in a file of labels, in a table of ground truth."""

from __future__ import annotations

import collections
import csv
import os
from collections.abc import Callable, Sequence

from tfcnn import cards, files
from tfcnn.cli import lists
from tfcnn.errors import InputError, unknown
from tfcnn.sources import Source

Class = tuple[str, str]  # (synset, label), synset "" where there is none


def resolve_class(
    spec: str, classes: Sequence[Class], say: Callable[[str], None] = lambda line: None
) -> list[int]:
    """The indices of the classes that a person names, several by commas.

    Args:
        spec: names, synsets or 0-based indices. A name that a class has wins over an index, and a class whose
            name has a comma over two names.
        classes: (synset, label) of each class.
        say: is told where a number was taken for a name, since it would have been another class's index.

    Raises:
        InputError: a name that no class has (with the nearest three), or that several have (all listed).
    """
    known = _by_name(classes)
    found = []
    for part in lists.names(spec, lambda name: _folded(name) in known):
        index = _index(part, classes, known)
        if part.isdecimal() and index != int(part):
            say(f"class {part} is the one of that name, of index {index}; not the one of index {part}")
        found.append(index)
    return found


def _by_name(classes):
    """The indices of each synset and each label."""
    known: dict[str, list[int]] = collections.defaultdict(list)
    for index, (synset, label) in enumerate(classes):
        for name in {synset, _folded(label)} - {""}:
            known[name].append(index)
    return known


def _index(name, classes, known):
    exact = known.get(_folded(name), [])
    if len(exact) == 1:
        return exact[0]
    if name.isdecimal():
        if int(name) < len(classes):
            return int(name)
        raise InputError(f"class {name} is not there: the net has classes 0 to {len(classes) - 1}")
    if exact:
        several = ", ".join(f"{i} ({classes[i][0] or classes[i][1]})" for i in exact)
        raise InputError(f"class {name!r} is several: {several}; give the index or the synset")
    words = [i for i, (_, label) in enumerate(classes) if _folded(name) in _folded(label).split()]
    if len(words) > 1:
        several = ", ".join(f"{i} {classes[i][1]}" for i in words)
        raise InputError(f"class {name!r} is several: {several}; give the index or the whole name")
    if not words:
        raise unknown("class", name, [label for _, label in classes], "--list_classes lists all")
    return words[0]


def _folded(name):
    return " ".join(name.lower().replace("_", " ").replace("-", " ").split())


def read_labels(path: str, count: int | None = None) -> list[Class]:
    """The classes of --labels; see `files.read_labels`.

    Raises:
        InputError: the file cannot be used.
    """
    try:
        return [("", name) for name in files.read_labels(path, count)]
    except InputError as error:
        raise InputError(f"--labels={error}") from error


def labels_for(path: str | None, model: str) -> list[str] | None:
    """The names of --labels for a model, compared with its card before it is opened; None without --labels.

    Raises:
        InputError: the file cannot be used, or has another number of names than the card has classes.
    """
    if not path:
        return None
    known = cards.card_of(model).get("classes")
    return [name for _, name in read_labels(path, len(known) if isinstance(known, list) else None)]


def read_truth(path: str, sources: Sequence[Source], classes: Sequence[Class]) -> dict[Source, int]:
    """The class of each picture that a CSV of ground truth names.

    Args:
        path: a CSV in UTF-8 with the columns file and class_index (an index, a synset or a name), separated by
            commas or semicolons; without a header the file comes first.
        sources: the pictures; each is looked up by its path, by its path in the folder, then by its name.
        classes: (synset, label) of each class.

    Returns:
        {source: index} of the pictures that are in the CSV.

    Raises:
        InputError: it cannot be read, lacks a column, names a class that is not there, or none of the pictures.
    """
    try:
        rows = files.read_lines(path)
        separator = ";" if rows and ";" in rows[0] and "," not in rows[0] else ","
        lines = [line for line in csv.reader(rows, delimiter=separator) if line]
    except InputError as error:
        raise InputError(f"--truth={error}") from error
    except csv.Error as error:
        raise InputError(f"--truth={path} is no CSV ({error})") from error
    header = [cell.strip() for cell in lines[0]] if lines else []
    if {"file", "class_index"} <= set(header):
        columns, lines = (header.index("file"), header.index("class_index")), lines[1:]
    elif len(header) == 2 and header[1].isdecimal():
        columns = (0, 1)
    else:
        raise InputError(f"--truth={path} needs the columns file and class_index; it has {', '.join(header)}")
    by_name, known = _by_name(classes), {}
    for line in lines:
        if len(line) <= max(columns):
            raise InputError(f"--truth={path}: the line {','.join(line)!r} is too short")
        file, name = (line[column].strip() for column in columns)
        # The column is of indices: a number is one, whatever the classes are called.
        index = _index(name, classes, {} if name.isdecimal() else by_name)
        known[os.path.normpath(file)] = index
    counts = collections.Counter(os.path.basename(name) for name in known)
    known |= {os.path.basename(name): i for name, i in known.items() if counts[os.path.basename(name)] == 1}
    found = {}
    for source in sources:
        places = (source.file, source.name, os.path.basename(source.name))
        index = next((known[name] for name in map(os.path.normpath, places) if name in known), None)
        if index is not None:
            found[source] = index
    if not found:
        raise InputError(f"--truth={path} names none of the {len(sources)} pictures")
    return found
