"""A model as a .tflite file: float32, kernels of float16, or int8 calibrated on pictures."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import keras
import numpy as np
import tensorflow as tf
from tensorflow.python.framework.convert_to_constants import convert_variables_to_constants_v2

from tfcnn.errors import InputError
from tfcnn.export import suppression
from tfcnn.runtime import quiet

PRECISIONS = ("float32", "float16", "int8")


def converted(
    model: keras.Model,
    shape: Sequence[int],
    precision: str = "float32",
    calibration: Iterable[np.ndarray] | None = None,
) -> bytes:
    """Converts a model.

    Args:
        model: one tensor of pictures [N, H, W, 3] -> a tensor or a dict of tensors.
        shape: of the pictures computed at once, such as [1, 224, 224, 3].
        precision: "float32"; "float16" stores kernels as halves; "int8" computes in whole numbers of 8 bits where there
            is such a kernel, and takes and gives float32.
        calibration: of int8, pictures float32 [H, W, 3] whose activations say the ranges.

    Returns:
        The file. Its outputs are in the order of their names.

    Raises:
        InputError: the model has an operation that LiteRT lacks, or int8 has no pictures to calibrate on.
    """
    if precision not in PRECISIONS:
        raise InputError(f"precision={precision!r} is none of {', '.join(PRECISIONS)}")

    answer = suppression.program(model)

    @tf.autograph.experimental.do_not_convert
    def program(image):
        outputs = answer(image)
        return {name: tf.identity(outputs[name], name) for name in sorted(outputs)}

    spec = tf.TensorSpec(shape, model.inputs[0].dtype, "image")
    function = tf.function(program, input_signature=[spec]).get_concrete_function()
    # weights that are no constants stay outside the file, and nothing is quantised
    function = convert_variables_to_constants_v2(function)
    converter = tf.lite.TFLiteConverter.from_concrete_functions([function])
    if precision != "float32":
        converter.optimizations = [tf.lite.Optimize.DEFAULT]
    if precision == "float16":
        converter.target_spec.supported_types = [tf.float16]
    if precision == "int8":
        pictures = [np.asarray(picture, np.float32)[None] for picture in calibration or ()]
        if not pictures:
            raise InputError("int8 needs calibration pictures")
        converter.representative_dataset = lambda: ([picture] for picture in pictures)
        kinds = tf.lite.OpsSet
        converter.target_spec.supported_ops = [kinds.TFLITE_BUILTINS_INT8, kinds.TFLITE_BUILTINS]
    try:
        with quiet():
            return converter.convert()
    except Exception as error:  # the converter's own error type is not public
        lines = [line.strip() for line in str(error).splitlines() if line.strip()]
        why = next((line for line in lines if "error:" in line or "custom op" in line.lower()), lines[0])
        raise InputError(f"LiteRT cannot be made of {model.name}: {why}") from error


class Runner:
    """A .tflite file at work.

    Args:
        content: of the file.
        names: of its outputs, sorted.
        threads: for its work.

    Raises:
        InputError: ai-edge-litert is not installed.
    """

    def __init__(self, content: bytes, names: Sequence[str], threads: int = 1):
        try:
            from ai_edge_litert.interpreter import Interpreter
        except ImportError as error:
            raise InputError("LiteRT is not installed: pip install 'tfcnn[litert]'") from error
        with quiet():
            self._interpreter = Interpreter(model_content=content, num_threads=threads)
            self._interpreter.allocate_tensors()
        self._input = self._interpreter.get_input_details()[0]["index"]
        indices = [detail["index"] for detail in self._interpreter.get_output_details()]
        self._outputs = dict(zip(names, indices, strict=True))

    def __call__(self, image: np.ndarray) -> dict[str, np.ndarray]:
        """Gives {output: array} of the pictures [N, H, W, 3] that the file was made for."""
        self._interpreter.set_tensor(self._input, np.asarray(image))
        self._interpreter.invoke()
        return {name: self._interpreter.get_tensor(index) for name, index in self._outputs.items()}
