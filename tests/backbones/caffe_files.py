"""Writes .caffemodel files by the format's description: wire types and field numbers of caffe.proto."""

import struct

import numpy as np


def varint(value):
    out = bytearray()
    while value > 127:
        out.append(value & 127 | 128)
        value >>= 7
    return bytes([*out, value])


def field(number, data):
    """A field of bytes."""
    return varint(number << 3 | 2) + varint(len(data)) + data


def blob(values, old=False):
    """A BlobProto: shape = 7 {dim = 1}, or num .. width = 1 .. 4 of old; data = 5, packed."""
    values = np.asarray(values, "<f4")
    if old:
        sizes = [*[1] * (4 - values.ndim), *values.shape]
        head = b"".join(varint(i << 3) + varint(size) for i, size in enumerate(sizes, 1))
    else:
        head = field(7, field(1, b"".join(map(varint, values.shape))))
    return head + field(5, values.tobytes())


def caffemodel(weights, old=False):
    """A NetParameter {layer: arrays}: layer = 100 {name = 1, blobs = 7}; of old layers = 2 {name = 4, blobs = 6}."""
    name_at, blobs_at, layer_at = (4, 6, 2) if old else (1, 7, 100)
    layers = [
        field(name_at, name.encode()) + b"".join(field(blobs_at, blob(each, old)) for each in arrays)
        for name, arrays in weights.items()
    ]
    extra = field(1, b"net") + varint(99 << 3 | 5) + struct.pack("<f", 1.0)  # a field that nobody knows
    return extra + b"".join(field(layer_at, layer) for layer in layers)


def prototxt(size, *layers):
    """An Input layer of (C, H, W), and layers given as (type, name, bottoms, options)."""
    dims = " ".join(f"dim: {side}" for side in (1, *size))
    text = [
        f'name: "made"\nlayer {{ name: "data" type: "Input" top: "data" input_param {{ shape {{ {dims} }} }} }}'
    ]
    for kind, name, bottoms, options in layers:
        lines = " ".join(f'bottom: "{bottom}"' for bottom in bottoms.split())
        text.append(f'layer {{ name: "{name}" type: "{kind}" {lines} top: "{name}" {options} }}  # a comment')
    return "\n".join(text)
