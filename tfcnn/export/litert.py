"""A model as a LiteRT program for a CPU: float32, kernels of float16, or int8 with ranges found on examples."""

from __future__ import annotations

import re
import warnings
from collections.abc import Sequence

import keras
import numpy as np
import tensorflow as tf
from tensorflow.lite.tools import flatbuffer_utils
from tensorflow.python.framework.convert_to_constants import convert_variables_to_constants_v2

from tfcnn import images
from tfcnn.errors import InputError
from tfcnn.export import suppression
from tfcnn.runtime import quiet

PRECISIONS = ("float32", "float16", "int8")
RUNTIMES = ("tf", "litert", "litert_int8")  # what computes a net


def converted(
    model: keras.Model,
    shape: Sequence[int],
    precision: str = "float32",
    calibration: Sequence[np.ndarray] | None = None,
) -> bytes:
    """Converts a model to what a .tflite file holds.

    Args:
        model: one tensor of rows, e.g. pictures [N, H, W, 3] -> a tensor or a dict of tensors; what LiteRT lacks
            of a detector is rebuilt (`suppression.program`).
        shape: the rows that are computed at once, e.g. [1, 224, 224, 3].
        precision: "float32"; "float16" stores kernels as halves; "int8" computes in whole numbers of 8 bits where there
            is such a kernel, and takes and gives float32; a detector's boxes, pooling and suppression stay float32.
        calibration: of int8, arrays float32 of this shape, such as the model will see: their activations say the
            ranges.

    Returns:
        The file. Its outputs are in the order of their names.

    Raises:
        InputError: the model has an operation that LiteRT lacks, or int8 has nothing to calibrate on.

    Source: Jacob et al., "Quantization and training of neural networks for efficient integer-arithmetic-only
    inference", 2018, section 2, for int8.
    """
    if precision not in PRECISIONS:
        raise InputError(f"precision={precision!r} is none of {', '.join(PRECISIONS)}")
    if precision == "int8" and not calibration:
        raise InputError("int8 needs calibration pictures")
    answer = suppression.program(model)

    @tf.autograph.experimental.do_not_convert
    def program(rows):
        outputs = answer(rows)
        return {name: tf.identity(outputs[name], name) for name in sorted(outputs)}

    spec = tf.TensorSpec(shape, model.inputs[0].dtype, "rows")
    function = tf.function(program, input_signature=[spec]).get_concrete_function()
    with quiet():  # TensorFlow 2.18 names devices here, and the converter asks for what it does not need
        # weights that are no constants stay outside the file, and nothing is quantised
        function = convert_variables_to_constants_v2(function)
        converter = tf.lite.TFLiteConverter.from_concrete_functions([function])
    if precision != "float32":
        converter.optimizations = [tf.lite.Optimize.DEFAULT]
    if precision == "float16":
        converter.target_spec.supported_types = [tf.float16]
    if precision == "int8":
        converter.representative_dataset = lambda: ([rows] for rows in calibration)
    convert = _int8_but_for_floats if precision == "int8" and suppression.is_detector(model) else _plain
    with quiet(), warnings.catch_warnings(action="ignore"):
        try:
            return convert(converter)
        except Exception as error:  # the converter's own error type is not public
            if "not supported" not in str(error) and "custom op" not in str(error).lower():
                raise
            halves = {getattr(layer, "compute_dtype", "") for layer in model.layers} & {"float16", "bfloat16"}
            instead = (
                f" in {' and '.join(sorted(halves))}: save it in float32, as import_model does"
                if halves
                else "; TensorFlow runs it"
            )
            raise InputError(f"LiteRT lacks {_lacking(str(error))} of {model.name}{instead}") from error


def _lacking(text: str) -> str:
    """What a program needs that LiteRT does not have, from what the converter says."""
    names = dict.fromkeys(re.findall(r"'tf\.(\w+)' op", text))
    return f"the operation {', '.join(names)}" if names else f"an operation ({text.strip().splitlines()[0]})"


def _plain(converter):
    return converter.convert()


def _int8_but_for_floats(converter):
    """Quantises what does not lie in the scope `suppression.FLOAT`: 256 steps are too few for coordinates of boxes."""
    tools = tf.lite.experimental
    debugger = tools.QuantizationDebugger(converter=converter, debug_dataset=converter.representative_dataset)
    calibrated = flatbuffer_utils.read_model_from_bytearray(debugger.calibrated_model)
    (graph,) = calibrated.subgraphs
    inside = [  # a name of several parts is that of operations made one
        tensor
        for tensor in graph.tensors
        if all(suppression.FLOAT in part for part in tensor.name.decode().split(";"))
    ]
    inside += [graph.tensors[index] for index in graph.outputs]
    for tensor in inside:
        tensor.quantization = None  # a tensor without a range is not rounded on its way into an operation
    kept = [tensor.name.decode() for tensor in inside]
    debugger.calibrated_model = bytes(flatbuffer_utils.convert_object_to_bytearray(calibrated))
    debugger.options = tools.QuantizationDebugOptions(denylisted_nodes=kept)
    return debugger.get_nondebug_quantized_model()


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

    def __call__(self, rows: np.ndarray) -> dict[str, np.ndarray]:
        """Gives {output: array} of the rows that the file was made for."""
        self._interpreter.set_tensor(self._input, np.asarray(rows))
        self._interpreter.invoke()
        return {name: self._interpreter.get_tensor(index) for name, index in self._outputs.items()}


class Program:
    """A model, converted to LiteRT and ready for any number of rows.

    Args:
        model: one tensor of rows -> a dict of tensors.
        shape: the rows that are computed at once, e.g. [1, 224, 224, 3].
        threads: for its work.
        calibration: as of `converted`: weights and activations become int8. None: all stays float32.

    Attributes:
        data: what `converted` gave.
        names: of the outputs.

    Raises:
        InputError: ai-edge-litert is not installed, or the model has an operation that LiteRT lacks.
    """

    def __init__(
        self,
        model: keras.Model,
        shape: Sequence[int],
        threads: int = 1,
        calibration: Sequence[np.ndarray] | None = None,
    ):
        self.rows, self.names = shape[0], sorted(model.output)
        self.data = converted(model, shape, "float32" if calibration is None else "int8", calibration)
        self._runner = Runner(self.data, self.names, threads)

    def __call__(self, batch: np.ndarray) -> dict[str, np.ndarray]:
        """Runs it on rows, so many at once as it was made for, one lot after the other.

        Args:
            batch: float32 [N, ...], N a multiple of the rows computed at once.

        Returns:
            {output's name: [N, ...]}.
        """
        parts = [self._runner(batch[first : first + self.rows]) for first in range(0, len(batch), self.rows)]
        if len(parts) == 1:
            return parts[0]
        return {name: np.concatenate([part[name] for part in parts]) for name in self.names}


def check(runtime: str, calibration: Sequence[np.ndarray]) -> None:
    """Sees that a runtime is known and has what it needs.

    Args:
        runtime: one of `RUNTIMES`.
        calibration: pictures for "litert_int8".

    Raises:
        InputError: it is unknown, or has no pictures to find ranges on.
    """
    if runtime not in RUNTIMES:
        raise InputError(f"runtime={runtime!r} is none of {', '.join(RUNTIMES)}.")
    if runtime == "litert_int8" and not len(calibration):
        raise InputError(
            "runtime='litert_int8' finds the ranges of its numbers on pictures: give calibration."
        )


def rows(pictures: Sequence[np.ndarray], height: int, width: int) -> list[np.ndarray]:
    """Pictures uint8 [H, W, 3] of any size as a program's rows, float32 [1, height, width, 3] each, stretched."""
    return [images.resize(p, (height, width))[0][None].astype(np.float32) for p in pictures]
