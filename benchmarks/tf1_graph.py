"""Does TensorFlow 1.15 itself run an exported graph, and does it answer as Keras?

    python -m apps.export_model --model=faster_rcnn_voc --format=tf1_graph
    pip download --no-deps --only-binary=:all: --python-version=3.7 --abi=cp37m \\
        --platform=manylinux2010_x86_64 tensorflow-cpu==1.15.0
    unzip -q tensorflow_cpu-1.15.0-*.whl -d tensorflow_1_15
    python benchmarks/tf1_graph.py faster_rcnn_voc out/export_model/tf1_graph tensorflow_1_15

There is no TensorFlow 1 for today's Python. Its C library needs none: a process of its own opens it (with one number
that Python 3.7 had, made by the C compiler `cc`), and runs the graph on the packaged photographs.
"""

import ctypes
import json
import os
import pathlib
import subprocess
import sys
import tempfile

import numpy as np

TYPES = {1: np.float32, 3: np.int32, 4: np.uint8, 9: np.int64, 10: np.bool_}
FLOAT = 1


class Output(ctypes.Structure):
    """TF_Output: an output of an operation."""

    _fields_ = [("operation", ctypes.c_void_p), ("index", ctypes.c_int)]


def library(wheel):
    """TensorFlow 1.15's C functions, each giving a pointer but for those that give numbers."""
    with tempfile.TemporaryDirectory() as folder:
        source, made = pathlib.Path(folder, "limit.c"), pathlib.Path(folder, "limit.so")
        source.write_text("int _Py_CheckRecursionLimit = 1000;\n")
        subprocess.run(["cc", "-shared", "-fPIC", "-o", made, source], check=True)
        ctypes.CDLL(str(made), ctypes.RTLD_GLOBAL)
    core = pathlib.Path(wheel) / "tensorflow_core"
    ctypes.CDLL(str(core / "libtensorflow_framework.so.1"), ctypes.RTLD_GLOBAL)
    found = ctypes.CDLL(str(core / "python" / "_pywrap_tensorflow_internal.so"), os.RTLD_LAZY)
    for name in ("Version", "Message"):
        getattr(found, f"TF_{name}").restype = ctypes.c_char_p
    pointers = [
        "NewStatus",
        "NewGraph",
        "NewImportGraphDefOptions",
        "NewBufferFromString",
        "NewSessionOptions",
    ]
    for name in [*pointers, "NewSession", "AllocateTensor", "TensorData", "GraphOperationByName"]:
        getattr(found, f"TF_{name}").restype = ctypes.c_void_p
    found.TF_Dim.restype = ctypes.c_int64
    return found


def run(wheel, folder, source, target):
    """Answers of the graph for the pictures in an .npz, to another .npz."""
    tf, pointer = library(wheel), ctypes.c_void_p
    print(f"TensorFlow {tf.TF_Version().decode()}")
    status = pointer(tf.TF_NewStatus())

    def check():
        if tf.TF_GetCode(status):
            sys.exit(tf.TF_Message(status).decode())

    content = (pathlib.Path(folder) / "graph.pb").read_bytes()
    named = json.loads((pathlib.Path(folder) / "graph.json").read_text())
    graph = pointer(tf.TF_NewGraph())
    buffer = pointer(tf.TF_NewBufferFromString(content, ctypes.c_size_t(len(content))))
    tf.TF_GraphImportGraphDef(graph, buffer, pointer(tf.TF_NewImportGraphDefOptions()), status)
    check()
    session = pointer(tf.TF_NewSession(graph, pointer(tf.TF_NewSessionOptions()), status))
    check()

    def output(name):
        node, _, index = name.partition(":")
        return Output(tf.TF_GraphOperationByName(graph, node.encode()), int(index))

    names = list(named["outputs"])
    inputs = (Output * 1)(output(named["input"]))
    outputs = (Output * len(names))(*(output(named["outputs"][name]) for name in names))
    answers = {}
    for key, picture in np.load(source).items():
        shape = (ctypes.c_int64 * picture.ndim)(*picture.shape)
        taken = pointer(tf.TF_AllocateTensor(FLOAT, shape, picture.ndim, ctypes.c_size_t(picture.nbytes)))
        ctypes.memmove(tf.TF_TensorData(taken), picture.ctypes.data, picture.nbytes)
        given = (pointer * len(names))()
        tf.TF_SessionRun(
            session, None, inputs, (pointer * 1)(taken), 1, outputs, given, len(names), None, 0, None, status
        )
        check()
        for name, tensor in zip(names, map(pointer, given), strict=True):
            kind = TYPES[tf.TF_TensorType(tensor)]
            sides = [tf.TF_Dim(tensor, axis) for axis in range(tf.TF_NumDims(tensor))]
            size = int(np.prod(sides)) * np.dtype(kind).itemsize
            data = ctypes.string_at(tf.TF_TensorData(tensor), size)
            answers[f"{key}/{name}"] = np.frombuffer(data, kind).reshape(sides)
    np.savez(target, **answers)


def main(model_name, folder, wheel):
    """Compares Keras' answers with TensorFlow 1.15's."""
    import tfcnn
    from tfcnn import images
    from tfcnn.cards import card_of
    from tfcnn.export import exported

    model = tfcnn.load_model(model_name)
    size = model.input_shape[1] or card_of(model_name).get("image_size") or 224
    pictures = {
        source.name.replace("/", "_"): images.resize(images.read(source), size)[0][None].astype(np.float32)
        for source in images.packaged()
    }
    ours = exported.keras_answer(model)
    with tempfile.TemporaryDirectory() as scratch:
        source, target = os.path.join(scratch, "pictures.npz"), os.path.join(scratch, "answers.npz")
        np.savez(source, **pictures)
        subprocess.run([sys.executable, __file__, "run", wheel, folder, source, target], check=True)
        theirs = dict(np.load(target).items())
    wanted = [ours(picture) for picture in pictures.values()]
    found = [
        {name: theirs[f"{key}/{name}"] for name in answer}
        for key, answer in zip(pictures, wanted, strict=True)
    ]
    print(f"{model_name}, {len(pictures)} pictures: {exported.compare(wanted, found)}")


if __name__ == "__main__":
    if len(sys.argv) < 4:
        print(__doc__)
    elif sys.argv[1] == "run":
        run(*sys.argv[2:])
    else:
        sys.path.insert(0, str(pathlib.Path(__file__).parents[1]))
        main(*sys.argv[1:])
