"""Reads the tensors of a PyTorch file of before version 1.6 without PyTorch, and without ever unpickling.

Such a file is five pickles (magic number, protocol, machine, the tensors' descriptions, the storages' keys)
and then each storage's values. The pickles' opcodes are interpreted here: those that a state dict is made
of, and no other, so that a file can describe tensors and can do nothing else.

Source: torch/serialization.py (_legacy_save), Python's pickletools.
"""

import dataclasses
import math
import os
import pickletools
from typing import BinaryIO

import numpy as np

from tfcnn.errors import InputError

MAGIC_NUMBER = 0x1950A86A20F9469CFC6C
PROTOCOL_VERSION = 1001
STORAGES = {
    "torch FloatStorage": np.dtype("<f4"),
    "torch DoubleStorage": np.dtype("<f8"),
    "torch HalfStorage": np.dtype("<f2"),
    "torch LongStorage": np.dtype("<i8"),
    "torch IntStorage": np.dtype("<i4"),
}
FUNCTIONS = ("collections OrderedDict", "torch._utils _rebuild_tensor_v2")
MOST_VIEWS = 8  # times that all tensors of a storage may hold its values; tied weights hold them twice
LONGEST_PICKLE = 64 << 20  # bytes; descriptions only, the values come after


@dataclasses.dataclass
class _Storage:
    key: str
    dtype: np.dtype
    length: int
    values: np.ndarray | None = None
    taken: int = 0  # values of the tensors that were made of it


@dataclasses.dataclass
class _Tensor:
    """A view of a storage; offset and strides are counted in values."""

    storage: _Storage
    offset: int
    shape: tuple[int, ...]
    strides: tuple[int, ...]

    def array(self) -> np.ndarray:
        values = self.storage.values
        if (
            len(self.shape) != len(self.strides)
            or min((*self.shape, *self.strides, self.offset), default=0) < 0
        ):
            raise ValueError("a tensor with a shape that cannot be")
        if 0 in self.shape:
            return np.zeros(self.shape, values.dtype)
        last = self.offset + sum(
            (size - 1) * stride for size, stride in zip(self.shape, self.strides, strict=True)
        )
        if last >= len(values):
            raise ValueError("a tensor that reaches beyond its storage")
        self.storage.taken += math.prod(self.shape)
        if math.prod(self.shape) > len(values) or self.storage.taken > MOST_VIEWS * len(values):
            raise ValueError("tensors of more values than their storage holds")
        strides = [stride * values.itemsize for stride in self.strides]
        return np.lib.stride_tricks.as_strided(values[self.offset :], self.shape, strides).copy()


@dataclasses.dataclass(frozen=True)
class _Name:
    """One of the names that may stand in a file: a function or a type of storage."""

    name: str


_MARK = object()


def read(path: str | os.PathLike) -> dict[str, np.ndarray]:
    """Reads a state dict.

    Args:
        path: a file that torch.save wrote before PyTorch 1.6, or with its legacy format since.

    Returns:
        Name -> array, in the file's order.

    Raises:
        InputError: the file is something else, is cut short, or holds anything but tensors.
    """
    try:
        with open(path, "rb") as file:
            return _read(file)
    except InputError:
        raise
    except OSError as error:
        raise InputError(f"Cannot read {path}: {error.strerror}") from error
    except Exception as error:
        raise InputError(f"{path} is no state dict in PyTorch's legacy format: {error}") from error


def _read(file: BinaryIO) -> dict[str, np.ndarray]:
    storages: dict[str, _Storage] = {}
    if _interpret(file, storages) != MAGIC_NUMBER or _interpret(file, storages) != PROTOCOL_VERSION:
        raise ValueError("the magic number is another one")
    machine = _interpret(file, storages)
    if machine["little_endian"] is not True:
        raise ValueError("written on a big-endian machine")
    described = _interpret(file, storages)
    keys = _interpret(file, storages)
    if not isinstance(described, dict) or sorted(keys) != sorted(storages):
        raise ValueError("descriptions and storages do not agree")
    for key in keys:
        storage = storages[key]
        if int.from_bytes(file.read(8), "little") != storage.length:
            raise ValueError(f"storage {key} has another length than described")
        data = file.read(storage.length * storage.dtype.itemsize)
        if len(data) != storage.length * storage.dtype.itemsize:
            raise ValueError("the file is cut short")
        storage.values = np.frombuffer(data, storage.dtype)
    for name, tensor in described.items():
        if not isinstance(name, str) or not isinstance(tensor, _Tensor):
            raise ValueError(f"{name!r} is no tensor")
    return {name: tensor.array() for name, tensor in described.items()}


def _interpret(file: BinaryIO, storages: dict[str, _Storage]):
    """Runs one pickle on the whitelist of opcodes and gives what is left on the stack."""
    stack, memo, start = [], {}, file.tell()
    for opcode, argument, position in pickletools.genops(file):
        if position - start > LONGEST_PICKLE:
            raise ValueError("a pickle too long for descriptions")
        match opcode.name:
            case "PROTO":
                pass
            case "STOP":
                return stack.pop()
            case "MARK":
                stack.append(_MARK)
            case "EMPTY_DICT":
                stack.append({})
            case "EMPTY_LIST":
                stack.append([])
            case "EMPTY_TUPLE":
                stack.append(())
            case "NONE" | "NEWTRUE" | "NEWFALSE":
                stack.append({"NONE": None, "NEWTRUE": True, "NEWFALSE": False}[opcode.name])
            case "BININT" | "BININT1" | "BININT2" | "LONG1" | "BINUNICODE":
                stack.append(argument)
            case "TUPLE":
                stack.append(tuple(_pop_marked(stack)))
            case "TUPLE1" | "TUPLE2" | "TUPLE3":
                count = int(opcode.name[-1])
                stack[-count:] = [tuple(stack[-count:])]
            case "BINPUT" | "LONG_BINPUT":
                memo[argument] = stack[-1]
            case "BINGET" | "LONG_BINGET":
                stack.append(memo[argument])
            case "SETITEM":
                value, key = stack.pop(), stack.pop()
                stack[-1][key] = value
            case "SETITEMS":
                items = _pop_marked(stack)
                stack[-1].update(zip(items[::2], items[1::2], strict=True))
            case "APPEND":
                value = stack.pop()
                stack[-1].append(value)
            case "APPENDS":
                items = _pop_marked(stack)
                stack[-1].extend(items)
            case "GLOBAL":
                if argument not in STORAGES and argument not in FUNCTIONS:
                    raise ValueError(f"it asks for {argument.replace(' ', '.')}, which is no tensor")
                stack.append(_Name(argument))
            case "BINPERSID":
                stack.append(_storage(stack.pop(), storages))
            case "REDUCE":
                arguments, function = stack.pop(), stack.pop()
                stack.append(_call(function, arguments))
            case "BUILD":
                stack.pop()  # attributes of an ordered dict (its _metadata): no tensors
            case _:
                raise ValueError(f"it holds the opcode {opcode.name}, which no state dict needs")
    raise ValueError("the file is cut short")


def _pop_marked(stack: list) -> list:
    mark = next(i for i in reversed(range(len(stack))) if stack[i] is _MARK)
    items = stack[mark + 1 :]
    del stack[mark:]
    return items


def _storage(description, storages: dict[str, _Storage]) -> _Storage:
    word, kind, key, _, length, view = description
    if word != "storage" or kind.name not in STORAGES or not isinstance(length, int) or length < 0:
        raise ValueError("a storage of an unknown kind")
    if view is not None:
        raise ValueError("a storage that is a view of another")
    return storages.setdefault(key, _Storage(key, STORAGES[kind.name], length))


def _call(function, arguments):
    if function == _Name("collections OrderedDict") and arguments == ():
        return {}
    if function == _Name("torch._utils _rebuild_tensor_v2"):
        storage, offset, shape, strides = arguments[:4]
        if isinstance(storage, _Storage) and isinstance(offset, int):
            return _Tensor(storage, offset, tuple(shape), tuple(strides))
    raise ValueError("a call that no state dict needs")
