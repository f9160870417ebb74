"""A model in another format, and how much it differs from the Keras model on pictures."""

from __future__ import annotations

import dataclasses
import importlib.util
import os
import pathlib
import re
import time
from collections.abc import Callable, Iterable, Sequence

import keras
import numpy as np
import tensorflow as tf

from tfcnn import files
from tfcnn.errors import InputError
from tfcnn.export import litert, suppression, tf1_graph
from tfcnn.ops import boxes as box_ops
from tfcnn.runtime import quiet

FORMATS = ("saved_model", "litert", "litert_float16", "litert_int8", "onnx", "tf1_graph")
DETECTIONS = {"boxes", "scores", "labels", "count"}  # the outputs of a detector
CONFIDENT, SAME_BOX = 0.3, 0.5  # score and IoU at which detections are compared

Answer = Callable[[np.ndarray], dict[str, np.ndarray]]  # pictures [N, H, W, 3] -> outputs


@dataclasses.dataclass(frozen=True)
class Exported:
    """What was written.

    Attributes:
        files: paths relative to the folder that it was written to.
        bytes: of all of them.
        answer: the written model at work, pictures float32 [1, H, W, 3] -> {output: array}.
    """

    files: list[str]
    bytes: int
    answer: Answer


def export(
    model: keras.Model,
    folder: str | os.PathLike,
    kind: str,
    *,
    size: int = 224,
    calibration: Iterable[np.ndarray] | None = None,
    threads: int = 1,
) -> Exported:
    """Writes a model in another format, and opens what was written.

    Args:
        model: one tensor of pictures [N, H, W, 3] -> a tensor or a dict of tensors; a detector with its suppression.
        folder: to write to; it must be there.
        kind: one of FORMATS.
        size: side in pixels of the pictures of a format that needs one (LiteRT, and ONNX of a detector with boxes of
            each class, which takes one picture at a time there), where the model is open to any.
        calibration: pictures float32 [H, W, 3] of that size, for litert_int8.
        threads: of LiteRT and onnxruntime.

    Raises:
        InputError: an unknown format, packages that are not installed, or the format lacks an operation of the model.
    """
    if kind not in FORMATS:
        raise InputError(f"format {kind!r} is none of {', '.join(FORMATS)}")
    folder = pathlib.Path(folder)
    if kind == "saved_model":
        return _saved_model(model, folder)
    if kind == "onnx":
        return _onnx(model, folder, size, threads)
    if kind == "tf1_graph":
        names = tf1_graph.write(model, folder / "graph.pb")
        described = {
            "input": f"{tf1_graph.INPUT}:0",
            "outputs": {name: f"{node}:0" for name, node in names.items()},
        }
        files.write_text(folder / "graph.json", files.to_json(described) + "\n")
        runner = tf1_graph.Runner(folder / "graph.pb", names)
        return _exported(folder, ["graph.pb", "graph.json"], lambda image: _arrays(runner(image)))
    precision = {"litert": "float32"}.get(kind, kind.removeprefix("litert_"))
    _, height, width, depth = model.input_shape
    shape = [1, height or size, width or size, depth]
    examples = [np.asarray(picture, np.float32)[None] for picture in calibration or ()]
    content = litert.converted(model, shape, precision, examples)
    files.write_bytes(folder / "model.tflite", content)
    names = sorted(model.output) if isinstance(model.output, dict) else ["output"]
    return _exported(folder, ["model.tflite"], litert.Runner(content, names, threads))


def keras_answer(model: keras.Model) -> Answer:
    """Gives the Keras model at work, compiled once a shape."""

    @tf.function(reduce_retracing=True)
    def run(image):
        outputs = model(image, training=False)
        return outputs if isinstance(outputs, dict) else {"output": outputs}

    return lambda image: _arrays(run(tf.convert_to_tensor(image)))


def compare(ours: Sequence[dict[str, np.ndarray]], theirs: Sequence[dict[str, np.ndarray]]) -> dict:
    """Compares the answers of two models for the same pictures.

    Args:
        ours: {output: array [1, ...]} of each picture, the Keras model's.
        theirs: the same of the other.

    Returns:
        {"difference": the largest of any number, "agreement": share in 0..1}; None where nothing could be compared.
        Of a classifier the agreement is that of the best class; a picture's scores, not its logits, are compared, and
        of a localizer its unit boxes as well. Of a
        detector it is the share of its detections with a score of at least 0.3 for which the other has one of the same
        class with an IoU of at least 0.5; the difference is that of their scores, and "pixels" the largest of any side
        of their boxes. Else the agreement is None.
    """
    differences, agreements, pixels = [], [], []
    for own, other in zip(ours, theirs, strict=True):
        if set(own) >= DETECTIONS:
            found = _detections_compared(own, other)
            agreements += [gap is not None for gap in found]
            differences += [gap[0] for gap in found if gap]
            pixels += [gap[1] for gap in found if gap]
            continue
        names = [name for name in own if name != "logits"]
        differences += [
            float(np.abs(own[name] - np.asarray(other[name], np.float64)).max()) for name in names
        ]
        best = "scores" if "scores" in own else names[0]
        if (best == "scores" or len(names) == 1) and own[best].ndim == 2:
            agreements.append(bool(np.argmax(own[best]) == np.argmax(other[best])))
    agreement = float(np.mean(agreements)) if agreements else None
    compared = {"difference": max(differences, default=None), "agreement": agreement}
    detects = any(set(own) >= DETECTIONS for own in ours)
    return compared | ({"pixels": max(pixels, default=None)} if detects else {})


class Detecting:
    """An answer as what a `tfcnn.predictor.Predictor` computes with, one picture after the other.

    Args:
        answer: the detector, localizer or pose net at work.
        classes: K, of a pose net J.
        zero_rgb: the colour that its network sees as zero.
        decode: makes of the answers, {output: array [N, ...]}, and of the pictures' height and width what the
            predictor's own method gives; None leaves a detector's as they are.
    """

    needs_proposals = False

    def __init__(
        self,
        answer: Answer,
        classes: int,
        zero_rgb: Sequence[float],
        decode: Callable[[dict[str, np.ndarray], tuple[int, int]], dict[str, np.ndarray]] | None = None,
    ):
        self._answer, self.classes, self.zero_rgb, self._decode = answer, classes, zero_rgb, decode

    def __call__(
        self,
        pictures: list[np.ndarray],
        sizes: list[np.ndarray],
        shapes: np.ndarray,
        proposals: np.ndarray | None = None,
    ) -> dict[str, np.ndarray]:
        """A batch, as `tfcnn.predictor.Method` says."""
        answers = [self._answer(picture[None].astype(np.float32)) for picture in pictures[0]]
        found = {name: np.concatenate([each[name] for each in answers]) for name in answers[0]}
        return self._decode(found, pictures[0].shape[1:3]) if self._decode else found


def paired_milliseconds(
    answers: dict[str, Answer], picture: np.ndarray, rounds: int = 10
) -> dict[str, float]:
    """Times several models on one picture, in turn, so that a noisy machine is noisy for all of them.

    Args:
        answers: {name: model}.
        picture: float32 [1, H, W, 3].
        rounds: of which the median is taken, after one that is not counted.
    """
    taken: dict[str, list[float]] = {name: [] for name in answers}
    for number in range(rounds + 1):
        for name, answer in answers.items():
            begun = time.perf_counter()
            answer(picture)
            if number:
                taken[name].append(1000 * (time.perf_counter() - begun))
    return {name: float(np.median(each)) for name, each in taken.items()}


def _saved_model(model, folder):
    with quiet():
        model.export(folder / "saved_model", verbose=False)
    loaded = tf.saved_model.load(str(folder / "saved_model"))
    signature = loaded.signatures["serving_default"]
    (name,) = signature.structured_input_signature[1]

    def answer(image):
        assert loaded is not None  # its variables live as long as it does
        outputs = _arrays(signature(**{name: tf.convert_to_tensor(image)}))
        return outputs if isinstance(model.output, dict) else {"output": next(iter(outputs.values()))}

    written = sorted(
        path.relative_to(folder) for path in (folder / "saved_model").rglob("*") if path.is_file()
    )
    return _exported(folder, [path.as_posix() for path in written], answer)


def _onnx(model, folder, size, threads):
    if not all(importlib.util.find_spec(name) for name in ("tf2onnx", "onnx", "onnxruntime")):
        raise InputError("ONNX needs packages that are not installed: pip install 'tfcnn[onnx]'")
    path = folder / "model.onnx"
    own = model
    if suppression.is_detector(model, suppression.IN_ONNX):
        own = suppression.instead(model, suppression.IN_ONNX)
    session, lacking = _in_onnx(own, path, threads)
    if lacking and suppression.is_detector(
        model
    ):  # boxes of each class have a form in LiteRT's operations alone
        _, height, width, depth = model.input_shape
        shape = [1, height or size, width or size, depth]
        both = suppression.IN_ONNX, suppression.METHOD
        session, _ = _in_onnx(suppression.instead(model, *both, shape=shape), path, threads)
    if session is None:
        raise InputError(f"ONNX lacks the operation {', '.join(lacking)} of {model.name}; TensorFlow runs it")
    (taken,) = session.get_inputs()
    names = [each.name for each in session.get_outputs()] if isinstance(model.output, dict) else ["output"]

    def answer(image):
        return dict(zip(names, session.run(None, {taken.name: np.asarray(image)}), strict=True))

    return _exported(folder, ["model.onnx"], answer)


def _why(error):
    """What went wrong, in a line: Keras' own first line says only where."""
    lines = [line for line in re.sub(r"\x1b\[\d*m", "", str(error)).splitlines() if line.strip()]
    wrapped = len(lines) > 1 and lines[0].startswith("Exception encountered when calling")
    return lines[wrapped] if lines else type(error).__name__


def _in_onnx(model, path, threads):
    """(a session of the file that was written, the operations that ONNX lacks); if there are any, neither is there."""
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    # said here, since Keras finds it out only of models that were called
    spec = tf.TensorSpec(model.input_shape, model.inputs[0].dtype, model.inputs[0].name)
    lacking = []
    try:
        with files.written(path) as part, quiet():
            try:
                model.export(part, format="onnx", verbose=False, input_signature=[spec])
                session = onnxruntime.InferenceSession(str(part), options)
            except Exception as error:  # of tf2onnx' and onnxruntime's own kinds
                lacking = _not_in_onnx(part)  # tf2onnx writes them as they are
                raise InputError(f"ONNX cannot be made of {model.name}: {_why(error)}") from error
    except InputError:
        if not lacking:
            raise
        return None, lacking
    return session, []


def _not_in_onnx(path):
    """The operations in a file that no version of ONNX has, each once."""
    import onnx

    if not path.exists():
        return []
    found: dict[str, None] = {}
    graphs = [onnx.load(path, load_external_data=False).graph]
    for graph in graphs:  # grows by the graphs of loops and branches
        for node in graph.node:
            if not node.domain and not onnx.defs.has(node.op_type):
                found[node.op_type] = None
            graphs += [attribute.g for attribute in node.attribute if attribute.HasField("g")]
    return list(found)


def _exported(folder, names, answer):
    return Exported(names, sum((folder / name).stat().st_size for name in names), answer)


def _arrays(outputs):
    return {name: np.asarray(value) for name, value in outputs.items()}


def _detections_compared(own, other):
    """(difference of scores, of sides) of each confident detection, None where the other has none like it."""
    gaps: list[tuple[float, float] | None] = []
    count, others = int(own["count"][0]), int(other["count"][0])
    theirs = np.asarray(other["boxes"][0][:others])
    overlaps = np.asarray(box_ops.iou(own["boxes"][0][:count], theirs))
    for index in range(count):
        if own["scores"][0][index] < CONFIDENT:
            continue
        same = np.asarray(other["labels"][0][:others]) == own["labels"][0][index]
        overlap = np.where(same, overlaps[index], 0.0)
        if not others or overlap.max() < SAME_BOX:
            gaps.append(None)
            continue
        best = int(overlap.argmax())
        score = float(abs(own["scores"][0][index] - other["scores"][0][best]))
        gaps.append((score, float(np.abs(own["boxes"][0][index] - theirs[best]).max())))
    return gaps
