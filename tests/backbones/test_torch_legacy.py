"""The reader of PyTorch's old files: made by hand here, opcode by opcode, so that no PyTorch is needed."""

import pickle
import struct

import numpy as np
import pytest

from tfcnn.backbones.importers import torch_legacy
from tfcnn.errors import InputError


def text(value):
    return b"X" + struct.pack("<I", len(value)) + value.encode()


def number(value):
    return b"J" + struct.pack("<i", value)


def numbers(values):
    return b"(" + b"".join(map(number, values)) + b"t"


def tensor(key, length, offset, shape, strides, kind="FloatStorage"):
    storage = (
        b"("
        + text("storage")
        + f"ctorch\n{kind}\n".encode()
        + text(key)
        + text("cpu")
        + number(length)
        + b"NtQ"
    )
    arguments = (
        storage + number(offset) + numbers(shape) + numbers(strides) + b"\x89ccollections\nOrderedDict\n)R"
    )
    return b"ctorch._utils\n_rebuild_tensor_v2\n(" + arguments + b"tR"


def file(tensors, storages, little_endian=True):
    """Puts a file together: {name: opcodes of a tensor}, {key: array}."""
    machine = {"protocol_version": 1001, "little_endian": little_endian, "type_sizes": {"int": 4}}
    head = [pickle.dumps(part, 2) for part in (torch_legacy.MAGIC_NUMBER, 1001, machine)]
    entries = b"".join(text(name) + opcodes for name, opcodes in tensors.items())
    described = b"\x80\x02ccollections\nOrderedDict\n)R(" + entries + b"u."
    values = [struct.pack("<q", array.size) + array.tobytes() for array in storages.values()]
    return b"".join([*head, described, pickle.dumps(list(storages), 2), *values])


@pytest.fixture
def read(tmp_path):
    def read(data):
        path = tmp_path / "state.pth"
        path.write_bytes(data)
        return torch_legacy.read(path)

    return read


VALUES = np.arange(12, dtype=np.float32)


def test_strides_offsets_and_shared_storages(read):
    data = file(
        {
            "plain": tensor("1", 12, 0, (3, 4), (4, 1)),
            "transposed": tensor("1", 12, 0, (4, 3), (1, 4)),
            "part": tensor("1", 12, 5, (2, 2), (4, 2)),
            "scalar": tensor("2", 1, 0, (), (), "LongStorage"),
        },
        {"1": VALUES, "2": np.array([7])},
    )
    tensors = read(data)
    assert list(tensors) == ["plain", "transposed", "part", "scalar"]
    np.testing.assert_array_equal(tensors["plain"], VALUES.reshape(3, 4))
    np.testing.assert_array_equal(tensors["transposed"], VALUES.reshape(3, 4).T)
    np.testing.assert_array_equal(tensors["part"], [[5, 7], [9, 11]])
    assert tensors["scalar"] == 7 and tensors["scalar"].dtype == np.int64


@pytest.mark.parametrize(
    "opcodes,reason",
    [
        (b"cos\nsystem\n(" + text("touch harm") + b"tR", "os.system"),
        (b"cbuiltins\neval\n(" + text("1") + b"tR", "builtins.eval"),
        (b"\x8c\x02os\x8c\x06system\x93)R", "SHORT_BINUNICODE"),
        (b"i" + b"os\nsystem\n", "INST"),
        (b"ctorch\nFloatStorage\n)R", "no state dict needs"),
        (b"ccollections\nOrderedDict\n(" + text("a") + b"tR", "no state dict needs"),
        (number(5) + text("y") + tensor("1", 12, 0, (2,), (1,)), "'x' is no tensor"),
        (tensor("1", 12, 0, (3, 5), (5, 1)), "beyond its storage"),
        (tensor("1", 12, 0, (2,), (-1,)), "cannot be"),
        (tensor("1", 12, 0, (13,), (0,)), "more values than their storage"),
        (tensor("1", 12, 0, (10**6, 10**6), (0, 0)), "more values than their storage"),
        (tensor("1", 12, -4, (2,), (1,)), "cannot be"),
        (tensor("1", 12, 0, (2, 2), (1,)), "cannot be"),
        (tensor("1", 13, 0, (2,), (1,)), "another length"),
        (tensor("1", 12, 0, (2,), (1,), "ComplexDoubleStorage"), "ComplexDoubleStorage"),
    ],
)
def test_whatever_is_no_tensor_is_refused(read, opcodes, reason):
    with pytest.raises(InputError, match=reason):
        read(file({"x": opcodes}, {"1": VALUES}))


def test_many_tensors_of_one_storage_are_refused(read):
    tensors = {str(k): tensor("1", 12, 0, (12,), (1,)) for k in range(8)}
    assert len(read(file(tensors, {"1": VALUES}))) == 8
    with pytest.raises(InputError, match="more values than their storage"):
        read(file(tensors | {"8": tensor("1", 12, 0, (1,), (1,))}, {"1": VALUES}))


def test_damaged_files_are_refused(read):
    whole = file({"x": tensor("1", 12, 0, (12,), (1,))}, {"1": VALUES})
    np.testing.assert_array_equal(read(whole)["x"], VALUES)
    for length in range(0, len(whole), 7):
        with pytest.raises(InputError):
            read(whole[:length])
    for data in (
        b"",
        b"PK\x03\x04" + whole,
        pickle.dumps({"x": 1}),
        whole.replace(b"FloatStorage", b"LongStorage"),
    ):
        with pytest.raises(InputError):
            read(data)
    with pytest.raises(InputError, match="big-endian"):
        read(file({"x": tensor("1", 12, 0, (12,), (1,))}, {"1": VALUES}, little_endian=False))
    with pytest.raises(InputError, match="do not agree"):
        read(file({}, {"1": VALUES}))


def test_a_file_that_is_not_there(tmp_path):
    with pytest.raises(InputError, match="No such file"):
        torch_legacy.read(tmp_path / "none.pth")
