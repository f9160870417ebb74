"""A model as a LiteRT program, for inference on a CPU: in float, or in int8 with ranges found on pictures."""

from __future__ import annotations

from collections.abc import Sequence

import keras
import numpy as np
import tensorflow as tf

from tfcnn import images
from tfcnn.errors import InputError
from tfcnn.runtime import quiet

RUNTIMES = ("tf", "litert", "litert_int8")  # what computes a net


class Program:
    """A model, converted to LiteRT.

    Args:
        model: one tensor of rows, e.g. pictures [N, H, W, 3] -> a dict of tensors.
        shape: the rows that are computed at once, e.g. [1, 224, 224, 3].
        threads: for its work.
        calibration: arrays float32 of this shape, such as the model will see: weights and activations become int8,
            the ranges of the activations being those that these rows have; inputs and outputs stay float32. None: all
            stays float.

    Raises:
        InputError: ai-edge-litert is not installed, or the model has an operation that LiteRT lacks.

    Source: Jacob et al., "Quantization and training of neural networks for efficient integer-arithmetic-only
    inference", 2018, section 2, for int8.
    """

    def __init__(
        self,
        model: keras.Model,
        shape: Sequence[int],
        threads: int = 1,
        calibration: Sequence[np.ndarray] | None = None,
    ):
        try:
            from ai_edge_litert.interpreter import Interpreter
        except ImportError as error:
            raise InputError("LiteRT is not installed: pip install 'tfcnn[litert]'") from error
        self.rows = shape[0]
        self.names = sorted(model.output)  # the order in which a function's dict of outputs is flattened
        with quiet():
            self.data = _converted(model, tf.TensorSpec(shape, tf.float32, "rows"), calibration)
            self._interpreter = Interpreter(model_content=self.data, num_threads=threads)
            self._interpreter.allocate_tensors()
        self._input = self._interpreter.get_input_details()[0]["index"]
        self._outputs = [detail["index"] for detail in self._interpreter.get_output_details()]

    def __call__(self, batch: np.ndarray) -> dict[str, np.ndarray]:
        """Run it on rows, so many at once as it was made for, one lot after the other.

        Args:
            batch: float32 [N, ...], N a multiple of the rows computed at once.

        Returns:
            {output's name: [N, ...]}.
        """
        answers = {name: [] for name in self.names}
        for first in range(0, len(batch), self.rows):
            self._interpreter.set_tensor(self._input, batch[first : first + self.rows])
            self._interpreter.invoke()
            for name, index in zip(self.names, self._outputs, strict=True):
                answers[name].append(self._interpreter.get_tensor(index))
        return {name: np.concatenate(parts) for name, parts in answers.items()}


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


def _converted(model, spec, calibration):
    @tf.autograph.experimental.do_not_convert
    def program(rows):
        outputs = model(rows, training=False)
        return {name: tf.identity(outputs[name], name) for name in sorted(outputs)}

    function = tf.function(program, input_signature=[spec]).get_concrete_function()
    if calibration is not None:  # weights outside of the graph would not be quantised
        from tensorflow.python.framework import convert_to_constants

        function = convert_to_constants.convert_variables_to_constants_v2(function)
    converter = tf.lite.TFLiteConverter.from_concrete_functions([function])
    if calibration is not None:
        converter.optimizations = [tf.lite.Optimize.DEFAULT]
        converter.representative_dataset = lambda: ([array] for array in calibration)
    try:
        return converter.convert()
    except Exception as error:  # the converter's own error type is not public
        if "not supported" not in str(error) and "custom op" not in str(error).lower():
            raise
        lines = str(error).splitlines()
        why = next((line.strip() for line in lines if "error:" in line), lines[0])
        raise InputError(f"LiteRT lacks an operation of {model.name}: {why}; TensorFlow runs it") from error
