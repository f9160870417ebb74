"""One step of training, compiled once, the same for one device and for many.

Every replica takes its part of a batch, finds the sum of its losses and their gradients; the sums over
replicas are divided by the number of examples, clipped, and every replica makes the same move with its own
copy of the weights. A step whose losses or gradients are not finite moves nothing.
"""

import contextlib
from collections.abc import Callable

import keras
import numpy as np
import tensorflow as tf

FIRST_LOSS_SCALE = 2.0**13
GOOD_STEPS = 1000  # after so many steps without an overflow the scale of a float16 loss is doubled


class Step:
    """Weights, their slots and averages, and the compiled function that moves them.

    Make it inside the strategy's scope, after layers were frozen.

    Args:
      trainee: as `training.loop.Trainee`.
      optimizer: one of `training.optimizers`.
      multiplier: function from a Keras variable to the factor of its learning rate; 0 leaves it alone.
      clip_norm: greatest norm of all gradients together, of the mean loss; None does not clip.
      average: decay of the weights' exponential moving average; None keeps no average.
      accumulate: number of batches whose gradients make one step.
      strategy: the tf.distribute strategy that holds the networks.
    """

    def __init__(
        self,
        trainee,
        optimizer,
        *,
        multiplier: Callable[[keras.Variable], float] | None = None,
        clip_norm: float | None = None,
        average: float | None = None,
        accumulate: int = 1,
        strategy: tf.distribute.Strategy | None = None,
    ):
        self.trainee, self.optimizer = trainee, optimizer
        self.clip_norm, self.average, self.accumulate = clip_norm, average, accumulate
        self.strategy = strategy or tf.distribute.get_strategy()
        variables = network_variables(trainee.networks)
        trained = {id(v) for net in trainee.networks.values() for v in net.trainable_variables}
        self.weights = {name: v for name, v in variables.items() if id(v) in trained}
        if not self.weights:
            raise ValueError("Every weight is frozen: there is nothing to train.")
        self.multipliers = {n: float(multiplier(v)) if multiplier else 1.0 for n, v in self.weights.items()}
        self.unreached: list[str] = []  # weights without a gradient, known once the step is traced

        self._variables = {f"weights/{name}": v.value for name, v in variables.items()}
        for name, value in vars(trainee).items():
            if isinstance(value, keras.random.SeedGenerator):
                self._variables[f"seeds/{name}"] = value.state.value
        self._slots = {
            name: [self._keep(f"optimizer/{slot}/{name}", tf.zeros(v.shape)) for slot in optimizer.slots]
            for name, v in self.weights.items()
        }
        moving = self.weights | moving_statistics(trainee.networks)
        self._averages = (
            {n: (v.value, self._keep(f"average/{n}", v.value)) for n, v in moving.items()} if average else {}
        )
        self._updates = self._keep("updates", tf.zeros((), tf.int64))
        self._refused = self._keep("refused_in_a_row", tf.zeros((), tf.int32))
        self._half = any(layer.compute_dtype == "float16" for layer in all_layers(trainee.networks))
        self._scale = self._keep("loss_scale", tf.constant(FIRST_LOSS_SCALE if self._half else 1.0))
        self._good = self._keep("good_steps", tf.zeros((), tf.int32))
        self._sums = {}
        if accumulate > 1:
            self._sums = {name: _variable(tf.zeros(v.shape)) for name, v in self.weights.items()}
            self._examples, self._total = _variable(tf.zeros(())), _variable(tf.zeros(()))

    def compile(self, element_spec) -> None:
        """Makes the compiled functions for batches with this `element_spec` of a distributed data set."""
        signature = [element_spec, tf.TensorSpec((), tf.float32), tf.TensorSpec((2,), tf.int32)]

        def compiled(function):
            def everywhere(batch, rate, seed):
                result = self.strategy.run(function, args=(batch, rate, seed))
                return tf.nest.map_structure(lambda x: self.strategy.experimental_local_results(x)[0], result)

            return tf.function(everywhere, input_signature=signature)

        self.move = compiled(self._move)
        self.gather = compiled(self._gather)

    def __call__(self, batches: list, rate: float, seeds: list) -> list[dict]:
        """Makes one step with `accumulate` batches.

        Args:
          batches: the batches, distributed.
          rate: learning rate of this step.
          seeds: a pair of integers for each batch.

        Returns:
          A dict of tensors a batch: `losses` {name: sum over the batch}, `examples`, and in the last one
          `accepted`, `gradient_norm` and `squares` (of each weight's gradient), which hold for the step.
        """
        rate = tf.constant(rate, tf.float32)
        seeds = [tf.constant(seed, tf.int32) for seed in seeds]
        gathered = [self.gather(b, rate, s) for b, s in zip(batches[:-1], seeds[:-1], strict=True)]
        return [*gathered, self.move(batches[-1], rate, seeds[-1])]

    def _gradients(self, batch, seed):
        """Gives a replica's losses, their sum, its examples, and the gradients of the scaled sum."""
        replica = tf.distribute.get_replica_context()
        examples = tf.cast(tf.shape(tf.nest.flatten(batch)[0])[0], tf.float32)
        seed = seed + [0, replica.replica_id_in_sync_group]
        weights = {name: v.value for name, v in self.weights.items()}
        with tf.GradientTape(watch_accessed_variables=False) as tape:
            tape.watch(list(weights.values()))
            losses = {
                n: tf.cast(v, tf.float32) for n, v in self.trainee.losses({**batch, "seed": seed}).items()
            }
            total = tf.add_n(list(losses.values()))
            scaled = total * self._scale if self._half else total
        gradients = tape.gradient(scaled, weights)
        self.unreached = [name for name, g in gradients.items() if g is None]
        return (
            losses,
            total,
            examples,
            {n: tf.convert_to_tensor(g) for n, g in gradients.items() if g is not None},
        )

    def _gather(self, batch, rate, seed):
        """Adds the gradients of one batch to the sums."""
        losses, total, examples, gradients = self._gradients(batch, seed)
        for name, gradient in gradients.items():
            self._sums[name].assign_add(gradient)
        self._examples.assign_add(examples)
        self._total.assign_add(total)
        losses, examples = _sum_over_replicas((losses, examples))
        return {"losses": losses, "examples": examples}

    def _move(self, batch, rate, seed):
        """Makes one step with a batch, and with what was gathered before it."""
        losses, total, local_examples, gradients = self._gradients(batch, seed)
        step_examples = local_examples
        if self._sums:
            gradients = {name: self._sums[name] + g for name, g in gradients.items()}
            step_examples, total = self._examples + local_examples, self._total + total
        losses, total, examples, step_examples, gradients = _sum_over_replicas(
            (losses, total, local_examples, step_examples, gradients)
        )
        # The one place where a sum over examples becomes a mean over the global batch.
        factor = 1.0 / (step_examples * self._scale)
        squares = tf.stack([2.0 * tf.nn.l2_loss(g) for g in gradients.values()])
        norm = tf.sqrt(tf.reduce_sum(squares)) * factor
        accepted = tf.math.is_finite(norm) & tf.math.is_finite(total)
        if self.clip_norm:
            factor *= self.clip_norm / tf.maximum(norm, self.clip_norm)
        overflow = ~accepted & tf.math.is_finite(total) & (self._scale > 1.0)
        tf.cond(accepted, lambda: self._accept(gradients, factor, rate), lambda: self._refuse(overflow))
        for variable in [*self._sums.values(), self._examples, self._total] if self._sums else []:
            variable.assign(tf.zeros_like(variable))
        return {
            "losses": losses,
            "examples": examples,
            "accepted": accepted | overflow,
            "gradient_norm": norm,
            "squares": squares,
        }

    def _accept(self, gradients, factor, rate):
        t = tf.cast(self._updates.assign_add(1), tf.float32)
        for name, gradient in gradients.items():
            if self.multipliers[name]:
                rate_here = rate * self.multipliers[name]
                self.optimizer.update(
                    self.weights[name].value, gradient * factor, rate_here, t, *self._slots[name]
                )
        if self._averages:
            # A young average would be the first, random weights: it starts as a plain mean of the last ones.
            decay = tf.minimum(self.average, (1.0 + t) / (10.0 + t))
            for variable, average in self._averages.values():
                tf.raw_ops.ResourceApplyGradientDescent(  # average -= (1 - decay) * (average - variable)
                    var=average.handle, alpha=1.0 - decay, delta=average - variable
                )
        self._refused.assign(0)
        if self._half:
            grow = self._good.assign_add(1) % GOOD_STEPS == 0
            self._scale.assign(tf.where(grow, 2.0 * self._scale, self._scale))

    def _refuse(self, overflow):
        self._refused.assign_add(tf.where(overflow, 0, 1))
        if self._half:
            self._scale.assign(tf.maximum(self._scale / 2.0, 1.0))
            self._good.assign(0)

    @contextlib.contextmanager
    def averaged(self):
        """Puts the averaged weights in the networks' place, and the trained ones back at the end."""
        trained = [(v, self._read(v)) for v, _ in self._averages.values()]
        self.keep_averages()
        try:
            yield
        finally:
            for variable, values in trained:
                self._write(variable, values)

    def keep_averages(self) -> None:
        """Leaves the averaged weights in the networks."""
        for variable, average in self._averages.values():
            self._write(variable, self._read(average))

    def network_state(self) -> dict[str, np.ndarray]:
        """Gives the networks' variables as they are."""
        return {name: array for name, array in self.state().items() if name.startswith("weights/")}

    def state(self) -> dict[str, np.ndarray]:
        """Gives everything that changes in training; NAME@1 is a second replica's copy where it differs."""
        arrays = {}
        for name, variable in self._variables.items():
            first, *others = self._read(variable)
            arrays[name] = first
            for k, other in enumerate(others, 1):
                if not np.array_equal(first, other, equal_nan=first.dtype.kind == "f"):
                    arrays[f"{name}@{k}"] = other
        return arrays

    def load(self, arrays: dict[str, np.ndarray]) -> None:
        """Takes a state, or a part of one, back; names and shapes were compared by `checkpoints.compare`."""
        for name, variable in self._variables.items():
            if name not in arrays:
                continue
            copies = self.strategy.experimental_local_results(variable)
            self._write(variable, [arrays.get(f"{name}@{k}", arrays[name]) for k in range(len(copies))])

    def _keep(self, name, value):
        self._variables[name] = _variable(value)
        return self._variables[name]

    def _read(self, variable):
        return [copy.numpy() for copy in self.strategy.experimental_local_results(variable)]

    def _write(self, variable, values):
        for copy, value in zip(self.strategy.experimental_local_results(variable), values, strict=True):
            copy.assign(value)


def all_layers(networks: dict[str, keras.Model]) -> list[keras.Layer]:
    """Gives all layers of all networks, inner ones too, each once."""
    layers = [layer for net in networks.values() for layer in net._flatten_layers(include_self=False)]
    return list({id(layer): layer for layer in layers}.values())


def network_variables(networks: dict[str, keras.Model]) -> dict[str, keras.Variable]:
    """Names all variables of all networks, Dropout layers' seeds too, each once: NET/LAYER/NAME."""
    seen, named = set(), {}
    for key, net in networks.items():
        for variable in net.variables:
            if id(variable) not in seen:
                seen.add(id(variable))
                name = f"{key}/{variable.path}"
                named[name if name not in named else f"{name}#{len(named)}"] = variable
    return named


def moving_statistics(networks: dict[str, keras.Model]) -> dict[str, keras.Variable]:
    """Names the batch norm statistics that training moves."""
    moved = {
        id(v)
        for layer in all_layers(networks)
        if isinstance(layer, keras.layers.BatchNormalization) and layer.trainable
        for v in layer.non_trainable_variables
    }
    return {name: v for name, v in network_variables(networks).items() if id(v) in moved}


def _variable(value):
    return tf.Variable(value, trainable=False, aggregation=tf.VariableAggregation.NONE)


def _sum_over_replicas(values):
    return tf.distribute.get_replica_context().all_reduce(tf.distribute.ReduceOp.SUM, values)
