"""The kernels of convolutions as pictures, and how much of them a Gabor function explains.

k the side of a kernel, C its input channels, F filters.
"""

import dataclasses
from collections.abc import Sequence

import keras
import numpy as np

from tfcnn.backbones.graph import calls
from tfcnn.backbones.layers import Preprocess
from tfcnn.errors import InputError

_KINDS = (keras.layers.Conv2D, keras.layers.DepthwiseConv2D, keras.layers.SeparableConv2D)


def convolutions(model: keras.Model) -> list[str]:
    """Gives the names of a model's convolutions, from the picture on, but for those of 1 x 1, which have no picture."""
    found = [call.operation for call in calls(model) if isinstance(call.operation, _KINDS)]
    return [layer.name for layer in found if max(layer.kernel_size) > 1]


def kernels(model: keras.Model, layer: str) -> np.ndarray:
    """Gives the kernels of a convolution.

    Those of a layer that sees the picture itself, after preprocessing, are turned into RGB order.

    Args:
        model: a functional model.
        layer: its Conv2D, DepthwiseConv2D or SeparableConv2D (whose depthwise kernels are given).

    Returns:
        float32 [F, k, k, C]; of a depthwise layer C is 1.

    Raises:
        InputError: there is no such convolution, or its kernels are of 1 x 1.
    """
    found = {call.operation.name: call for call in calls(model)}
    call = found.get(layer)
    if call is None or not isinstance(call.operation, _KINDS) or max(call.operation.kernel_size) == 1:
        raise InputError(
            f"{layer} is no convolution with kernels above 1 x 1 of {model.name}: it has "
            f"{', '.join(convolutions(model)) or 'none'}"
        )
    operation = call.operation
    if isinstance(operation, keras.layers.Conv2D):
        values = np.moveaxis(np.array(operation.kernel, np.float32), -1, 0)
    else:
        depthwise = operation.depthwise_kernel if hasattr(operation, "depthwise_kernel") else operation.kernel
        values = np.array(depthwise, np.float32)  # [k, k, C, multiplier]
        values = np.moveaxis(values.reshape(*values.shape[:2], -1), -1, 0)[..., None]
    if values.shape[-1] == 3 and _order(call, found.values()) == "bgr":
        values = values[..., ::-1]
    return values


def _order(call, others):
    """The order of colours that a layer at the picture sees."""
    made = {id(tensor): other for other in others for tensor in other.outputs}
    before = made.get(id(call.inputs[0]))
    while before is not None and before.inputs and not isinstance(before.operation, Preprocess):
        before = made.get(id(before.inputs[0]))
    return (
        before.operation.order if before is not None and isinstance(before.operation, Preprocess) else "rgb"
    )


def pictures(kernels: np.ndarray, together: bool = False) -> np.ndarray:
    """Gives kernels as pictures: zero is middle grey, the largest weight black or white.

    Args:
        kernels: [F, k, k, 3], seen in colours, or [F, k, k], in grey.
        together: one scale for all of them, instead of each its own.

    Returns:
        uint8 [F, k, k, 3].
    """
    kernels = np.asarray(kernels, np.float32)
    size = np.abs(kernels).max(
        initial=0, axis=None if together else tuple(range(1, kernels.ndim)), keepdims=True
    )
    scaled = np.rint(127.5 + 127.5 * kernels / np.where(size > 0, size, 1)).astype(np.uint8)
    return scaled if kernels.ndim == 4 else np.repeat(scaled[..., None], 3, axis=-1)


# ------------------------------------------------------------------------------------------ Gabor functions


@dataclasses.dataclass(frozen=True)
class Gabor:
    """A Gabor function, a wave under a Gaussian, that was fitted to a kernel.

    Attributes:
        explained: share of the kernel's variance (of its values round their mean in each colour) that the function
            explains, 0..1; None for a kernel that is constant.
        picture: the kernel as the function gives it, [k, k, C].
        x, y: the middle, pixels from the kernel's.
        along, across: deviations of the Gaussian along the wave and across, pixels.
        angle: of the wave's direction, radians from x towards y, 0..pi.
        frequency: waves a pixel, 0..0.5.
    """

    explained: float | None
    picture: np.ndarray
    x: float
    y: float
    along: float
    across: float
    angle: float
    frequency: float


def fit_gabor(kernel: np.ndarray) -> Gabor:
    """Fits a Gabor function to a kernel by least squares.

    exp(-u^2 / 2 along^2 - v^2 / 2 across^2) (a cos 2 pi f u + b sin 2 pi f u) + c, with u, v the location turned by the
    angle and counted from the middle; a, b and c are solved for at each step. A kernel of colours is its mean colour
    and the strongest of its principal components over colours, to which the function is fitted: what the component
    leaves counts as not explained. The function has nine numbers, so that it says little of 3 x 3 values.

    Args:
        kernel: [k, k, C]; as pictures, C is 1 or 3.

    Returns:
        The best of several starts, from the peaks of the kernel's spectrum.

    Source: Daugman, Uncertainty relation for resolution ..., 1985; Jones and Palmer, J. Neurophysiol. 58, 1987.
    """
    from scipy import optimize

    height, width, channels = kernel.shape
    values = np.asarray(kernel, np.float64).reshape(-1, channels)
    mean = values.mean(0)
    left, sizes, right = np.linalg.svd(values - mean, full_matrices=False)
    total = float(np.square(sizes).sum())
    if total <= 1e-12 * max(1.0, float(np.square(values).sum())):
        return Gabor(None, np.array(kernel), 0.0, 0.0, 0.0, 0.0, 0.0, 0.0)
    plane = left[:, 0] * sizes[0]
    y, x = (axis.ravel() for axis in np.mgrid[:height, :width].astype(np.float64))
    x, y = x - (width - 1) / 2, y - (height - 1) / 2
    side = max(height, width)

    def fitted(parameters):
        basis = _basis(parameters, x, y)
        square = basis.T @ basis
        square.flat[::4] += 1e-9 * square.trace()  # a wave of frequency 0 has no sine
        return basis @ np.linalg.solve(square, basis.T @ plane)

    low = [-width / 2, -height / 2, 0.4, 0.4, -np.inf, 0.0]
    high = [width / 2, height / 2, 2.0 * side, 2.0 * side, np.inf, 0.5]
    best = min(
        (
            optimize.least_squares(
                lambda parameters: fitted(parameters) - plane,
                start,
                bounds=(low, high),
                max_nfev=40,
                xtol=1e-6,
            )
            for start in _starts(plane.reshape(height, width))
        ),
        key=lambda found: found.cost,
    )
    explained = (sizes[0] ** 2 - 2 * best.cost) / total
    shown = (mean + np.outer(fitted(best.x), right[0])).reshape(kernel.shape)
    place_x, place_y, along, across, angle, frequency = best.x
    return Gabor(
        float(np.clip(explained, 0, 1)), shown, place_x, place_y, along, across, angle % np.pi, frequency
    )


def _basis(parameters, x, y):
    """[k * k, 3]: the two waves under the Gaussian, and a constant."""
    place_x, place_y, along, across, angle, frequency = parameters
    u = (x - place_x) * np.cos(angle) + (y - place_y) * np.sin(angle)
    v = (y - place_y) * np.cos(angle) - (x - place_x) * np.sin(angle)
    envelope = np.exp(-np.square(u / along) / 2 - np.square(v / across) / 2)
    phase = 2 * np.pi * frequency * u
    return np.stack([envelope * np.cos(phase), envelope * np.sin(phase), np.ones_like(u)], axis=1)


def _starts(plane):
    """Where to begin: waves at the two highest peaks of the spectrum, and a blob, in the middle of the energy."""
    height, width = plane.shape
    energy = np.square(plane - plane.mean())
    y, x = np.mgrid[:height, :width]
    middle = [(axis * energy).sum() / energy.sum() for axis in (x, y)]
    middle = [middle[0] - (width - 1) / 2, middle[1] - (height - 1) / 2]
    size = 4 * max(plane.shape)
    spectrum = np.abs(np.fft.fft2(plane - plane.mean(), (size, size)))
    spectrum[:, size // 2 + 1 :] = 0  # the other half mirrors it
    deviation = max(plane.shape) / 4
    starts = [[*middle, deviation, deviation, 0.0, 0.05]]
    for _ in range(2):
        row, column = np.unravel_index(spectrum.argmax(), spectrum.shape)
        fy, fx = np.fft.fftfreq(size)[[row, column]]
        frequency = float(np.clip(np.hypot(fx, fy), 0.02, 0.48))
        starts.append([*middle, deviation, deviation, float(np.arctan2(fy, fx)), frequency])
        near = np.abs(np.arange(size) - row), np.abs(np.arange(size) - column)
        spectrum[np.ix_(np.minimum(near[0], size - near[0]) <= 3, near[1] <= 3)] = 0
    return starts


def explained_of_noise(shape: Sequence[int], count: int = 12, seed: int = 0) -> float:
    """Gives the median share that a Gabor function explains of white noise: a fit up to it says nothing.

    Args:
        shape: (k, k, C) of a kernel.
        count: kernels drawn.
        seed: of the draws.
    """
    random = np.random.default_rng(seed)
    return float(np.median([fit_gabor(random.normal(size=shape)).explained for _ in range(count)]))
