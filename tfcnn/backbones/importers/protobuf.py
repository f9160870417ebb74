"""Protocol buffers without their schema: the fields of a binary message, and messages written as text.

Nothing is executed, and nothing is copied out of the file until a field is asked for as an array.

Source: Google's documents "Encoding" (wire types) and "Text Format Language Specification".
"""

import array
import mmap
import os
import re
from collections.abc import Iterator

import numpy as np

VARINT, FIXED64, BYTES, FIXED32 = 0, 1, 2, 5  # wire types; 3 and 4 are groups, which proto2 gave up
DEEPEST = 32  # messages inside messages
TOKEN = re.compile(
    r"""(?P<blank>\s+|\#[^\n]*)
    |(?P<text>"(?:[^"\\\n]|\\.)*"|'(?:[^'\\\n]|\\.)*')
    |(?P<number>[-+]?(?:\d+\.?\d*|\.\d+)(?:[eE][-+]?\d+)?)f?(?![\w.])
    |(?P<word>[A-Za-z_][\w.]*)
    |(?P<mark>[{}<>\[\]:,;])""",
    re.VERBOSE,
)

Message = dict[str, list]  # field -> its values: numbers, words and strings as str, messages


class Malformed(ValueError):
    """Bytes or text that are no message; says where."""


def mapped(path: str | os.PathLike) -> memoryview:
    """Gives the bytes of a file, mapped and not read.

    Raises:
        Malformed: the file is empty.
        OSError: it is not there.
    """
    with open(path, "rb") as file:
        if not os.fstat(file.fileno()).st_size:
            raise Malformed("it is empty")
        return memoryview(mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ))


def fields(data: memoryview) -> Iterator[tuple[int, int | memoryview]]:
    """Lists the fields of a message.

    Args:
        data: the message's bytes.

    Yields:
        (field number, value): an int of a varint, the bytes of everything else.

    Raises:
        Malformed: it ends inside a field, or has a wire type that there is not.
    """
    place = 0
    while place < len(data):
        begin = place
        key, place = _varint(data, place)
        number, wire = key >> 3, key & 7
        if wire == VARINT:
            value, place = _varint(data, place)
            yield number, value
            continue
        if wire == BYTES:
            size, place = _varint(data, place)
        elif wire in (FIXED32, FIXED64):
            size = 4 if wire == FIXED32 else 8
        else:
            raise Malformed(f"field {number} at byte {begin} has the wire type {wire}, which there is not")
        if not number or place + size > len(data):
            raise Malformed(f"field {number} at byte {begin} reaches past the end: the file is cut short")
        yield number, data[place : place + size]
        place += size


def _varint(data, place):
    value = shift = 0
    while place < len(data) and shift < 70:
        byte = data[place]
        value |= (byte & 127) << shift
        place, shift = place + 1, shift + 7
        if byte < 128:
            return value, place
    raise Malformed(f"the number at byte {place} has no end: the file is cut short")


def varints(parts: list[int | memoryview]) -> list[int]:
    """Gives the numbers of a repeated integer field, packed or one by one."""
    numbers = []
    for part in parts:
        if isinstance(part, int):
            numbers.append(part)
            continue
        place = 0
        while place < len(part):
            value, place = _varint(part, place)
            numbers.append(value)
    return numbers


def floats(parts: list[memoryview], dtype: str = "<f4") -> np.ndarray:
    """Gives the numbers of a repeated floating-point field, packed (a view of the file) or one by one.

    Args:
        parts: the field's values.
        dtype: "<f4" of float, "<f8" of double.

    Raises:
        Malformed: bytes are left that make no whole number.
    """
    size = np.dtype(dtype).itemsize
    if any(isinstance(part, int) or len(part) % size for part in parts):
        raise Malformed(f"a list of {size}-byte numbers holds a part of one: the file is damaged")
    if len(parts) == 1:
        return np.frombuffer(parts[0], dtype)
    joined = array.array("B")
    for part in parts:
        joined.frombytes(part)
    return np.frombuffer(joined, dtype)


def parse_text(text: str) -> Message:
    """Reads a message that is written as text, such as a .prototxt.

    Args:
        text: `name: value` and `name { ... }`, with comments from # to the end of a line.

    Returns:
        {field: its values in order}; a number is an int or a float, everything else written plainly a str.

    Raises:
        Malformed: the text is no such message; the line is said.
    """
    tokens = _tokens(text)
    return _message(tokens, "", 0)


def _tokens(text):
    """(kind, text, line) of each token; at the end ("end", "", last line)."""
    place, line = 0, 1
    while place < len(text):
        found = TOKEN.match(text, place)
        if not found:
            raise Malformed(f"line {line}: {text[place : place + 20].splitlines()[0]!r} is not expected")
        if found.lastgroup != "blank":
            yield found.lastgroup, found[found.lastgroup], line
        line += text.count("\n", place, found.end())
        place = found.end()
    yield "end", "", line


def _message(tokens, closing, depth):
    if depth > DEEPEST:
        raise Malformed(f"messages lie more than {DEEPEST} deep")
    message: Message = {}
    for kind, word, line in tokens:
        if word == closing and kind in ("mark", "end"):
            return message
        if word in (",", ";") and kind == "mark":
            continue
        if kind != "word":
            ended = "the end of the text" if kind == "end" else repr(word)
            raise Malformed(f"line {line}: {ended} stands where a field's name is expected")
        message.setdefault(word, []).extend(_values(tokens, word, depth))
    return message


def _values(tokens, name, depth):
    """The values after a field's name: one, or those of a list."""
    kind, word, line = next(tokens)
    if (kind, word) == ("mark", ":"):
        kind, word, line = next(tokens)
    elif word not in ("{", "<") or kind != "mark":
        raise Malformed(f"line {line}: {name} has no value")
    if (kind, word) != ("mark", "["):
        return [_value(kind, word, line, tokens, depth)]
    values = []
    for kind, word, line in tokens:
        if (kind, word) == ("mark", "]"):
            break
        if kind == "end":
            raise Malformed(f"line {line}: the list of {name} has no end")
        if (kind, word) != ("mark", ","):
            values.append(_value(kind, word, line, tokens, depth))
    return values


def _value(kind, word, line, tokens, depth):
    if kind == "mark" and word in "{<":
        return _message(tokens, "}" if word == "{" else ">", depth + 1)
    if kind == "number":
        return int(word) if re.fullmatch(r"[-+]?\d{1,18}", word) else float(word)
    if kind == "text":
        return re.sub(r"\\(.)", r"\1", word[1:-1])
    if kind == "word":
        return word
    raise Malformed(f"line {line}: {word or 'the end of the text'!r} is no value")
