"""A picture of what a class is to a net: the picture, from nothing, that raises its score.

Three methods in the order of their papers: Simonyan's L2, Yosinski's four regularisers, and Fourier
coefficients under random transforms. Each takes what to raise as an objective (a class' score before softmax,
or a channel).
Letters: N pictures, one a class, H W height and width in pixels.
"""

import dataclasses
from collections.abc import Callable, Sequence

import keras
import numpy as np
import tensorflow as tf

from tfcnn.backbones import any_size
from tfcnn.imageopt import (
    Objective,
    Phase,
    Problem,
    Result,
    constraints,
    maximize,
    objectives,
    optimizers,
    through,
    transforms,
)
from tfcnn.imageopt.objectives import feature_statistics
from tfcnn.imageopt.optimize import Callback
from tfcnn.imageopt.optimizers import State
from tfcnn.imageopt.parameters import Enlarged, Fourier, normal_noise
from tfcnn.imageopt.transforms import gaussian_blur


@dataclasses.dataclass(frozen=True)
class Ascent:
    """A gradient ascent: a start and the phases from it, compiled once and used for any number of pictures.

    Args:
        start: takes a number for each picture, gives pixels [N, H, W, 3] at the first phase's size.
        phases: in order; between two the picture is resized.
    """

    start: Callable[[Sequence[int]], tf.Tensor]
    phases: tuple[Phase, ...]

    @property
    def steps(self) -> int:
        """Steps of all phases together."""
        return sum(phase.steps for phase in self.phases)

    def run(self, seeds: Sequence[int], *, seed: int = 0, callback: Callback | None = None) -> Result:
        """Raises the objective.

        Args:
            seeds: a number for each picture, from which its start is drawn.
            seed: of the transforms' draws.
            callback: called after each step with a Moment, counted through all phases.

        Returns:
            The pictures, and a history through all phases.
        """
        return through(self.phases, self.start(seeds), maximize, seed=seed, callback=callback)


def simonyan(
    net: keras.Model,
    objective: Objective,
    size: int,
    zero_rgb: np.ndarray,
    *,
    iterations: int = 200,
    l2: float = 0.1,
    rate: float = 1.0,
) -> Ascent:
    """argmax over I of S_c(I) - lambda |I|^2, from the zero picture.

    The paper prints neither lambda nor the steps: here the square is a mean over values in grey levels, and a
    step is `rate` grey levels on average (the gradient divided by its mean size).

    Args:
        net: a flat model from pixels.
        objective: what to raise.
        size: side of the picture, pixels.
        zero_rgb: the colour that the net sees as zero, added after the papers' training mean.
        iterations: steps.
        l2: lambda.
        rate: grey levels a step.

    Source: Simonyan, Vedaldi, Zisserman 2013, section 2.
    """
    problem = Problem(
        net,
        objective - l2 * objectives.l2(zero_rgb),
        constraint=constraints.in_range(),
        optimizer=optimizers.Normalized(rate),
    )

    def start(seeds):
        return tf.zeros([len(seeds), size, size, 3]) + tf.constant(zero_rgb, tf.float32)

    return Ascent(start, (Phase(problem, iterations, size),))


@dataclasses.dataclass(frozen=True)
class Regularized:
    """Yosinski's step on pixels: along the gradient, then the regularisers in his order.

    Args:
        zero_rgb: the colour that counts as zero: what decays, decays towards it.
        last: number of the last step, which only looks.
        rate: of the gradient (his 100 is for CaffeNet, whose gradients are larger); with `progress` its bound.
        progress: None, or by how much a step should raise the score: the rate is progress / |g|^2 then.
        decay: x *= 1 - decay.
        blur_radius, blur_every: every so many steps a Gaussian of so many pixels.
        small_val_percentile: values of smaller size than this percentile become zero.
        small_norm_percentile: pixels whose colour is shorter than this percentile become zero.
        px_benefit_percentile: pixels whose setting to zero would raise the score less than this percentile
            become zero.
        px_abs_benefit_percentile: the same by the size of the change, up or down.

    Source: yosinski/deep-visualization-toolbox optimize/gradient_optimizer.py; names are its flags'.
    """

    zero_rgb: tuple[float, float, float]
    last: int
    rate: float = 30000.0
    progress: float | None = None
    decay: float = 0.0
    blur_radius: float = 0.0
    blur_every: int = 0
    small_val_percentile: float = 0.0
    small_norm_percentile: float = 0.0
    px_benefit_percentile: float = 0.0
    px_abs_benefit_percentile: float = 0.0

    def init(self, x: tf.Tensor) -> State:
        return ()

    def update(self, x: tf.Tensor, g: tf.Tensor, state: State, t: tf.Tensor) -> tuple[tf.Tensor, State]:
        return tf.where(
            t < self.last, self._regularized(x - tf.constant(self.zero_rgb, tf.float32), g, t), x
        ), state

    def _regularized(self, x, g, t):
        rate = self.rate
        if self.progress is not None:
            rate = tf.minimum(
                rate, self.progress / tf.reduce_sum(tf.square(g), axis=[1, 2, 3], keepdims=True)
            )
        x = (x - rate * g) * (1.0 - self.decay)
        if self.blur_every and self.blur_radius:
            x = tf.where(t % self.blur_every == 0, gaussian_blur(x, self.blur_radius), x)
        if self.small_val_percentile:
            x = _zero_below(x, tf.abs(x), self.small_val_percentile)
        if self.small_norm_percentile:
            x = _zero_below(x, tf.norm(x, axis=-1, keepdims=True), self.small_norm_percentile)
        # Setting a pixel to zero changes the score by about its gradient times -x; g is down the score.
        if self.px_benefit_percentile:
            x = _zero_below(x, tf.reduce_sum(g * x, axis=-1, keepdims=True), self.px_benefit_percentile)
        if self.px_abs_benefit_percentile:
            benefit = tf.abs(tf.reduce_sum(g * x, axis=-1, keepdims=True))
            x = _zero_below(x, benefit, self.px_abs_benefit_percentile)
        return x + tf.constant(self.zero_rgb, tf.float32)


def _zero_below(x: tf.Tensor, size: tf.Tensor, percentile: float) -> tf.Tensor:
    """Set x to zero where `size` lies below its own percentile, each picture by itself."""
    ranked = tf.sort(tf.reshape(size, [tf.shape(size)[0], -1]), axis=1)
    position = percentile / 100.0 * tf.cast(tf.shape(ranked)[1] - 1, tf.float32)
    low, part = tf.cast(position, tf.int32), position % 1.0
    high = tf.minimum(low + 1, tf.shape(ranked)[1] - 1)
    limit = (1.0 - part) * ranked[:, low] + part * ranked[:, high]
    return tf.where(size < limit[:, None, None, None], 0.0, x)


def yosinski(
    net: keras.Model,
    objective: Objective,
    size: int,
    zero_rgb: np.ndarray,
    *,
    iterations: int = 500,
    start_at: str = "mean_plus_rand",
    **regularizers: float,
) -> Ascent:
    """Gradient ascent with decay, blur, and small pixels set to zero.

    Args:
        net: a flat model from pixels.
        objective: what to raise.
        size: side of the picture, pixels.
        zero_rgb: the colour that the net sees as zero.
        iterations: steps.
        start_at: "mean" (zero), "mean_plus_rand" (noise of 10 grey levels round it) or "randu" (noise over
            0..255).
        regularizers: keywords of Regularized.

    Source: Yosinski et al. 2015, section 3 and table 1.
    """
    zero = tuple(float(value) for value in zero_rgb)
    step = Regularized(zero, iterations - 1, **regularizers)
    problem = Problem(net, objective, constraint=constraints.in_range(), optimizer=step)

    def start(seeds):
        if start_at == "randu":
            draws = [tf.random.stateless_uniform([size, size, 3], [seed, 2], 0.0, 255.0) for seed in seeds]
            return tf.stack(draws)
        noise = normal_noise(seeds, size, size, zero, 10.0 if start_at == "mean_plus_rand" else 0.0)
        return tf.clip_by_value(noise, 0.0, 255.0)

    return Ascent(start, (Phase(problem, iterations, size),))


# Part of the side, part of the steps, Adam's rate, weight of total variation, part of the noise, framed or not.
# Without noise the picture also lies still.
_STAGES = (
    (3 / 7, 0.62, 0.05, 0.01, 1.0, True),
    (5 / 7, 0.23, 0.03, 0.02, 0.8, True),
    (1.0, 0.12, 0.02, 0.04, 0.6, False),
    (1.0, 0.03, 0.01, 0.04, 0.0, False),
)


def _side(part: float, size: int) -> int:
    """Pixels of a phase's side; below 8 there is nothing to see."""
    return min(size, max(8, round(part * size)))


def fourier(
    net: keras.Model,
    objective: Objective,
    size: int,
    *,
    iterations: int = 350,
    statistics: float = 60.0,
    noise: float = 20.0,
    smooth: float = 1.0,
    decay: float = 1.0,
) -> Ascent:
    """Adam on decorrelated Fourier coefficients, under jitter, scale, rotation and noise, from small to
    large.

    The picture begins at three sevenths of its size, where one object fills what the net sees, and is enlarged
    twice, so that detail grows on a shape that stays. A grey frame round the smaller ones draws the object into the
    middle; without it the border, where a net sees zeros, collects fragments. The last steps see the picture as it
    will be looked at. Where the net has batch norm, its layers' statistics are held near those of photographs.

    Args:
        net: a flat model from pixels; one that reads one size sees the small phases enlarged.
        objective: what to raise.
        size: side of the finished picture, pixels.
        iterations: steps of all phases together.
        statistics: weight of the distance from natural statistics.
        noise: grey levels of white noise that the score must bear, at the smallest size.
        smooth: factor of the total variation's weights.
        decay: power of the frequency by which coefficients are scaled.

    Source: Olah, Mordvintsev, Schubert 2017; sizes, noise and statistics are ours and Yin et al. 2020's.
    """
    open_net = any_size(net)
    natural = feature_statistics(open_net or net)
    if natural is not None and statistics:
        objective = objective - statistics * natural
    phases = []
    for part, share, rate, variation, noisy, framed in _STAGES:
        side = _side(part, size)
        changes = []
        if noisy:
            changes = [
                transforms.jitter(max(1, side // 12)),
                transforms.scale([0.9, 0.95, 1.0, 1.05, 1.1]),
                transforms.rotate(list(range(-5, 6))),
                transforms.noise(noisy * noise),
            ]
        if framed and open_net is not None:
            changes.insert(0, transforms.pad(side // 12))
        waves, shown = Fourier(side, side, decay), side
        if open_net is None:
            waves, shown = Enlarged(waves, (side, side), (size, size)), size
        problem = Problem(
            open_net or net,
            objective - smooth * variation * objectives.total_variation(),
            parameters=waves,
            transform=transforms.compose(*changes),
            optimizer=optimizers.Adam(rate),
        )
        phases.append(Phase(problem, max(1, round(share * iterations)), shown))

    def start(seeds):
        side = _side(_STAGES[0][0], size)
        small = Fourier(side, side, decay).noise(seeds)
        return small if open_net is not None else tf.image.resize(small, [size, size])

    return Ascent(start, tuple(phases))
