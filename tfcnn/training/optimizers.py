"""SGD with momentum, Adam, AdamW and Adagrad, each on half a page beside its paper, and what brings one of Keras in.

They are our own because Keras' optimizers take no learning rate of a variable's own and cannot be run on several
replicas inside a step that may be skipped. An optimizer here has no state: it names its slots (variables of a
weight's shape that start at zero) and moves one weight. `training.step` holds the slots, sums and clips the
gradients, and decides whether the step counts. The formulas are TensorFlow's operations that go through a weight
once; written out they go through it ten times, which took 5 % of a step.

  w: a weight   g: its gradient   t: number of this update, from 1   rate: learning rate of this weight at
    this step
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import keras
import tensorflow as tf


@dataclass(frozen=True)
class SGD:
    """Stochastic gradient descent with momentum and weight decay.

    Args:
        momentum: share of the last move that is kept.
        nesterov: look ahead by the momentum before the gradient counts.
        weight_decay: L2 penalty's factor; biases and normalisation are left out.

    Source: Krizhevsky et al., AlexNet (2012), section 5; Sutskever et al. (2013) for Nesterov's form.
    """

    momentum: float = 0.9
    nesterov: bool = False
    weight_decay: float = 0.0

    slots = ("velocity",)

    def update(
        self, w: tf.Variable, g: tf.Tensor, rate: tf.Tensor, t: tf.Tensor, velocity: tf.Variable
    ) -> None:
        """Moves weight and velocity by one step: velocity = momentum * velocity - rate * g; w += velocity."""
        if self.weight_decay and decays(w):
            g += self.weight_decay * w
        tf.raw_ops.ResourceApplyKerasMomentum(
            var=w.handle,
            accum=velocity.handle,
            lr=rate,
            grad=g,
            momentum=self.momentum,
            use_nesterov=self.nesterov,
        )


@dataclass(frozen=True)
class AdamW:
    """Adam with weight decay beside the gradient, not in it; Adam itself where weight_decay is 0.

    Args:
        beta1: decay of the gradient's mean.
        beta2: decay of the squared gradient's mean.
        epsilon: keeps the division finite.
        weight_decay: share of a weight, times the rate, taken off at each step; biases and normalisation are
            left out.

    Source: Kingma and Ba, Adam (2015), algorithm 1; Loshchilov and Hutter, AdamW (2019), algorithm 2.
    """

    beta1: float = 0.9
    beta2: float = 0.999
    epsilon: float = 1e-8
    weight_decay: float = 0.0

    slots = ("m", "v")

    def update(
        self, w: tf.Variable, g: tf.Tensor, rate: tf.Tensor, t: tf.Tensor, m: tf.Variable, v: tf.Variable
    ) -> None:
        """Moves weight, mean and squared mean by one step.

        m = beta1 * m + (1 - beta1) * g; v = beta2 * v + (1 - beta2) * g^2, both corrected for their start at
        zero: w -= rate * (m / (1 - beta1^t)) / (sqrt(v / (1 - beta2^t)) + epsilon), after w -= rate *
          weight_decay * w.
        """
        if self.weight_decay and decays(w):
            w.assign(w * (1.0 - rate * self.weight_decay))
        # The operation has its epsilon beside sqrt(v), before the correction of v: the paper's is brought
        # there.
        beta2_power = self.beta2**t
        tf.raw_ops.ResourceApplyAdam(
            var=w.handle,
            m=m.handle,
            v=v.handle,
            beta1_power=self.beta1**t,
            beta2_power=beta2_power,
            lr=rate,
            beta1=self.beta1,
            beta2=self.beta2,
            epsilon=self.epsilon * tf.sqrt(1.0 - beta2_power),
            grad=g,
        )


@dataclass(frozen=True)
class Adagrad:
    """A rate for each number, which falls with the squares of all its gradients so far.

    Args:
        epsilon: keeps the division finite.
        weight_decay: L2 penalty's factor; biases and normalisation are left out.

    Source: Duchi, Hazan, Singer, Adaptive subgradient methods (2011), section 1.1, with a diagonal matrix.
    """

    epsilon: float = 1e-8
    weight_decay: float = 0.0

    slots = ("squares",)

    def update(
        self, w: tf.Variable, g: tf.Tensor, rate: tf.Tensor, t: tf.Tensor, squares: tf.Variable
    ) -> None:
        """Moves weight and sum by one step: squares += g^2; w -= rate * g / (sqrt(squares) + epsilon)."""
        if self.weight_decay and decays(w):
            g += self.weight_decay * w
        tf.raw_ops.ResourceApplyAdagradV2(
            var=w.handle, accum=squares.handle, lr=rate, epsilon=self.epsilon, grad=g
        )


Ours = SGD | AdamW | Adagrad


def decays(weight: tf.Variable) -> bool:
    """Says whether weight decay holds for a weight: kernels yes, vectors (biases, batch norm) no."""
    return len(weight.shape) > 1


class KerasOptimizer:
    """One of keras.optimizers in the place of ours; its state is kept in checkpoints, and a skipped step spares it.

    Args:
        optimizer: not built yet; its own clipping and averaging go on top of the step's.
        schedule: the learning rate as a function of the step, or None: the optimizer's own rate or schedule.

    Raises:
        ValueError: it is on several replicas, scales losses, or has a schedule beside `schedule`.
    """

    slots = ()

    def __init__(self, optimizer: keras.optimizers.Optimizer, schedule: Callable[[int], float] | None = None):
        self.optimizer, self.sets_rate = optimizer, schedule is not None
        name = type(optimizer).__name__
        if tf.distribute.get_strategy().num_replicas_in_sync > 1:
            raise ValueError(
                f"Keras' {name} trains on one device here; take tfcnn.training.optimizers on several"
            )
        if isinstance(optimizer, keras.optimizers.LossScaleOptimizer):
            raise ValueError("The step scales float16 losses itself; give the inner optimizer")
        if self.sets_rate and isinstance(optimizer.get_config()["learning_rate"], dict):
            raise ValueError(f"{name} has a learning-rate schedule of its own, and another was given")

    def build(self, weights: Sequence[keras.Variable]) -> dict[str, tf.Variable]:
        """Makes the slots of these weights, and gives all state by name."""
        if not self.optimizer.built:
            self.optimizer.build(weights)
        return {f"{k}/{v.path}": v.value for k, v in enumerate(self.optimizer.variables)}

    def rate(self) -> float:
        """Gives the learning rate of the next step."""
        return float(self.optimizer.learning_rate)

    def update_all(
        self, weights: Sequence[keras.Variable], gradients: Sequence[tf.Tensor], rate: tf.Tensor
    ) -> None:
        """Moves the weights by one step."""
        if self.sets_rate:
            self.optimizer.learning_rate.assign(rate)
        self.optimizer.apply(gradients, weights)

    def broken_promises(self, multipliers: Sequence[float]) -> str:
        """Says what holds for our optimizers and not for this one; "" where all holds."""
        name, lost = type(self.optimizer).__name__, []
        if {*multipliers} - {0.0, 1.0}:
            lost.append("every layer has the same learning rate")
        if self.optimizer.weight_decay:
            lost.append(
                "weight decay takes biases and normalisation, too, unless the optimizer excludes them"
            )
        return f"With Keras' {name} {', and '.join(lost)}." if lost else ""
