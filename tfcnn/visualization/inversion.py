"""A picture from its code: the picture whose layer answers like that of a given one.

minimise over x  |Phi(x) - Phi0|^2 / |Phi0|^2 + lambda_TV / 2 TV_beta(x) / r^2 + lambda / 2 mean|x|^alpha / r^2,

x counted from the net's zero, r the size of an ordinary value: the objective of the paper's program, its sums over
values and its sigma_x^2 = n r^2 divided by their number n. Letters: N reconstructions, of one picture.
"""

import dataclasses
from collections.abc import Sequence

import keras
import numpy as np
import tensorflow as tf

from tfcnn.backbones import separate_activations, tap
from tfcnn.backbones.graph import INPUT, made_by
from tfcnn.errors import InputError
from tfcnn.imageopt import (
    Objective,
    Phase,
    Problem,
    Result,
    constraints,
    lbfgs,
    minimize,
    objectives,
    optimizers,
    through,
    transforms,
)
from tfcnn.imageopt.objectives import feature_statistics
from tfcnn.imageopt.optimize import Callback
from tfcnn.imageopt.parameters import Fourier, normal_noise

# r: the root mean square of a value about the mean. The program's sigma_x is 27098 for 227 x 227 x 3 values.
ORDINARY = 68.9


@dataclasses.dataclass(frozen=True)
class Prior:
    """What is asked of a picture beyond its code; None leaves it to how much the layer has forgotten.

    Args:
        variation: lambda_TV.
        beta: of the total variation; 1 makes spikes.
        alpha_weight, alpha: lambda and power of the alpha-norm. The program's lambda is 8e-10; here pixels stay in
            0..255 by themselves, and the norm only takes contrast away.
        jitter, noise: pixels of roll and grey levels of noise that the code must bear.
        statistics: weight of the distance from photographs' layer statistics, where the net has batch norm.
    """

    variation: float | None = None
    beta: float = 2.0
    alpha_weight: float = 0.0
    alpha: float = 6.0
    jitter: int | None = None
    noise: float | None = None
    statistics: float | None = None

    def settled(self, stride: float) -> "Prior":
        """Give the prior with nothing left open.

        Args:
            stride: of the layer, pixels; a layer without locations has the picture's side.
        """
        deep = stride >= 32
        usual = {
            "variation": 0.03 if stride <= 2 else 1.0,
            "jitter": 8 if deep else 0,
            "noise": 8.0 if deep else 0.0,
            "statistics": 0.05 if deep else 0.0,
        }
        return dataclasses.replace(self, **{k: v for k, v in usual.items() if getattr(self, k) is None})


class Inversion:
    """Reconstructions from one layer; compiled once, for any picture of one size.

    Three ways: "fourier" (Adam on decorrelated Fourier coefficients; jitter, noise and statistics in the first two
    thirds of the steps), "momentum" (the paper's program: pixels, momentum that begins anew at each change of the
    rate) and "lbfgs" (pixels within 0..255).

    Args:
        net: a flat model from pixels.
        layer: whose code is kept: [N, h, w, C] or [N, K].
        size: side of the pictures, pixels.
        zero_rgb: the colour that the net sees as zero.
        method: "fourier", "momentum" or "lbfgs".
        prior: what else is asked.
        iterations: steps, or evaluations of L-BFGS.
        neigh: keep only the central neigh x neigh locations of the code; 0 keeps all.

    Raises:
        InputError: no such layer, or one with fewer than neigh x neigh locations.

    Source: Mahendran & Vedaldi 2015, sections 2 and 3; aravindhm/deep-goggle core/invert_nn.m. Jitter is of their
    later paper (1512.02017), the coefficients of Olah, Mordvintsev, Schubert 2017.
    """

    def __init__(
        self,
        net: keras.Model,
        layer: str,
        size: int,
        zero_rgb: Sequence[float],
        *,
        method: str = "fourier",
        prior: Prior = Prior(),  # noqa: B008  (frozen)
        iterations: int = 300,
        neigh: int = 0,
    ):
        self.layer, self.size, self.zero_rgb = layer, size, zero_rgb
        self.method, self.iterations, self.neigh = method, iterations, neigh
        net = separate_activations(net)  # so that what goes into a ReLU can be read
        self._tapped = tap(net, [layer])
        whole = self._tapped(np.zeros([1, size, size, 3], np.float32), training=False)[layer]
        if neigh and (whole.shape.rank != 4 or neigh > min(whole.shape[1:3])):
            there = " x ".join(map(str, whole.shape[1:-1])) or "no"
            raise InputError(
                f"{layer} has {there} locations, and neigh asks for the central {neigh} x {neigh}"
            )
        self._wanted = tf.Variable(self._central(tf.cast(whole, tf.float32)))
        self.stride = size / whole.shape[1] if whole.shape.rank == 4 else size
        self.prior = prior.settled(self.stride)
        objective = self._distance(net) + self._regularizer()
        natural = feature_statistics(net) if self.prior.statistics and method == "fourier" else None
        if natural is not None:
            objective = objective + self.prior.statistics * natural
        self._phases = self._make_phases(net, objective)

    def _distance(self, net: keras.Model) -> Objective:
        """The code's distance; before a ReLU where the layer is one, zero for the same pictures.

        Through a ReLU a unit that should fire and does not gets no gradient, and late layers are mostly silent.
        """
        rectifier = made_by(self._tapped.output[self.layer]).operation
        if not isinstance(rectifier, keras.layers.ReLU) or rectifier.negative_slope or rectifier.threshold:

            def distance(features):
                return objectives.squared_distance(self._central(features), self._wanted, relative=True)

            return objectives.of("code", self.layer, distance)

        ceiling = np.inf if rectifier.max_value is None else float(rectifier.max_value)

        def distance_before(features):
            features, wanted = self._central(features), self._wanted
            goal = tf.where(wanted <= 0.0, tf.minimum(features, 0.0), wanted)
            goal = tf.where(wanted >= ceiling, tf.maximum(features, ceiling), goal)
            return objectives.squared_distance(features, goal) / tf.reduce_mean(tf.square(wanted))

        return objectives.of("code", rectifier.name + INPUT, distance_before)

    def _regularizer(self) -> Objective:
        prior, scale = self.prior, 0.5 / ORDINARY**2
        objective = prior.variation * scale * objectives.total_variation(prior.beta)
        if prior.alpha_weight:
            norm = objectives.alpha_norm(prior.alpha, self.zero_rgb)
            objective = objective + prior.alpha_weight * scale * norm
        return objective

    def _make_phases(self, net: keras.Model, objective: Objective) -> list[Phase]:
        total, prior = self.iterations, self.prior
        if self.method != "fourier":
            # The program's rates of an objective times sigma_x^2, for a quarter, a half and a quarter of the steps.
            lengths = [total // 4, total // 2, total - total // 4 - total // 2]
            rates = [factor * 3 * self.size**2 * ORDINARY**2 for factor in (0.004, 0.0004, 0.00004)]
            momentum = optimizers.Momentum(
                optimizers.piecewise(rates, lengths), 0.9, (lengths[0], lengths[0] + lengths[1])
            )
            moves = transforms.jitter(prior.jitter) if prior.jitter and self.method == "momentum" else None
            problem = Problem(
                net, objective, optimizer=momentum, transform=moves, constraint=constraints.in_range()
            )
            return [Phase(problem, total, self.size)]
        waves = Fourier(self.size, self.size)
        third = total // 3
        moves = None
        if prior.jitter or prior.noise:
            moves = transforms.compose(transforms.jitter(prior.jitter), transforms.noise(prior.noise))
        rough = optimizers.Adam(optimizers.piecewise([0.05, 0.025], [third, third]))
        first = Problem(
            net,
            objective,
            parameters=waves,
            optimizer=rough,
            transform=moves,
        )
        if self.stride <= 4:  # the code holds single pixels, and these are reached by pixels
            ending = optimizers.Adam(optimizers.piecewise([2.0, 0.7], [third // 2, third]))
            last = Problem(net, objective, optimizer=ending, constraint=constraints.in_range())
        else:
            last = Problem(net, objective, parameters=waves, optimizer=optimizers.Adam(0.0125))
        return [Phase(first, 2 * third, self.size), Phase(last, total - 2 * third, self.size)]

    def _central(self, features: tf.Tensor) -> tf.Tensor:
        if not self.neigh:
            return features
        top, left = ((tf.shape(features)[axis] - self.neigh) // 2 for axis in (1, 2))
        return features[:, top : top + self.neigh, left : left + self.neigh]

    def code(self, image: tf.Tensor | np.ndarray) -> tf.Tensor:
        """Give the layer's answer to pictures [N, H, W, 3], 0..255: Phi0 of one to invert."""
        features = self._tapped(tf.cast(image, tf.float32), training=False)[self.layer]
        return self._central(tf.cast(features, tf.float32))

    def code_distance(self, image: tf.Tensor | np.ndarray, reference: np.ndarray) -> np.ndarray:
        """|Phi(x) - Phi0|^2 / |Phi0|^2 of pictures [N, H, W, 3] from one reference [H, W, 3]: [N]."""
        return objectives.squared_distance(
            self.code(image), self.code(reference[None]), relative=True
        ).numpy()

    def invert(self, image: np.ndarray, seeds: Sequence[int], callback: Callback | None = None) -> Result:
        """Reconstruct a picture from its code, from as many starts as there are seeds.

        Args:
            image: pixels [H, W, 3], 0..255.
            seeds: a number for each reconstruction, from which its start is drawn.
            callback: called after each step with a Moment, counted through.

        Returns:
            A Result; its term "code" is the relative distance of codes.
        """
        self._wanted.assign(self.code(image[None]))
        if self.method == "fourier":
            x = self._phases[0].problem.parameters.noise(seeds, 0.05 if self.stride >= 32 else 0.01)
        else:
            noise = normal_noise(seeds, self.size, self.size, self.zero_rgb, ORDINARY)
            x = tf.clip_by_value(noise, 0.0, 255.0)
        if self.method == "lbfgs":
            return lbfgs(self._phases[0].problem, x, self.iterations, bounds=(0.0, 255.0), callback=callback)
        return through(self._phases, x, minimize, seed=int(seeds[0]), callback=callback)


def psnr(image: np.ndarray, reference: np.ndarray) -> float:
    """Peak signal to noise ratio of a picture against another, dB; both 0..255."""
    error = np.mean((np.asarray(image, np.float64) - np.asarray(reference, np.float64)) ** 2)
    return float(10.0 * np.log10(255.0**2 / max(error, 1e-12)))
