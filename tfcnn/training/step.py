"""One step of training, compiled once, the same for one device and for many.

Every replica takes its part of a batch, finds the sum of its losses and their gradients; the sums over
replicas are divided by the number of examples, clipped, and every replica makes the same move with its own
copy of the weights. A step whose losses, gradients or moving statistics are not finite is skipped: it changes
nothing at all, and what the forward pass has written by then (batch norm's statistics, seeds) is put back.
"""

import contextlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import NamedTuple, Protocol

import keras
import numpy as np
import tensorflow as tf

from tfcnn.backbones import all_layers as layers_of
from tfcnn.training.optimizers import KerasOptimizer, Ours
from tfcnn.training.team import Team

FIRST_LOSS_SCALE = 2.0**13
GOOD_STEPS = 1000  # after so many steps without an overflow the scale of a float16 loss is doubled


class Trainee(Protocol):
    """What can be trained. `pictures() -> list of uint8 [H, W, 3]` may be there too, for TensorBoard.

    networks: the nets by name; all of their variables are trained (if trainable) and kept in checkpoints, and
      so is the state of a keras.random.SeedGenerator that is an attribute of the trainee.
    """

    networks: dict[str, keras.Model]

    def losses(self, batch: dict) -> dict[str, tf.Tensor]:
        """Gives named scalars, each a SUM over the batch's examples: the loop alone divides by their number.

        The batch is one of the data set, without its strings, plus `seed` for stateless random draws (ops.draws):
        int64 [N, 2], another one for every example of every step, where the data set has `position`, int64 [N],
        another number for every example; else int32 [2], another one for every step, batch and replica. With the
        former any number of replicas draws the same. Nets are to be called with training=True.
        """

    def validate(self) -> dict[str, float | None]:
        """Gives named figures of the networks as they are (the loop has put the averaged weights in).

        None: there is nothing to measure it on; NaN and infinity: the networks are of no use.
        """


class Report(NamedTuple):
    """What a step tells, as tensors that nobody has waited for.

    Attributes:
        numbers: float32 [L + 3]: each loss summed over the step's examples, their number, the gradients' norm,
            and 1 or 0: whether the step counts (a float16 loss that overflowed counts: the batch is not at fault).
        squares: float32 [W], the squared norm of each weight's gradient.
        wishes: float32 [2], the sums of what the workers wished.
    """

    numbers: tf.Tensor
    squares: tf.Tensor
    wishes: tf.Tensor


class Step:
    """Weights, their slots and averages, and the compiled function that moves them.

    Make it inside the strategy's scope, after layers were frozen.

    Args:
        trainee: nets and losses.
        optimizer: one of `training.optimizers`.
        multiplier: function from a Keras variable to the factor of its learning rate; 0 leaves it alone.
        clip_norm: greatest norm of all gradients together, of the mean loss; None does not clip.
        average: decay of the weights' exponential moving average; None keeps no average.
        accumulate: number of batches whose gradients make one step.
        strategy: the tf.distribute strategy that holds the networks.

    Attributes:
        weights: {name: variable} of what is trained.
        loss_names: names of the losses, known once the step is traced.
        unreached: names of weights without a gradient, known once the step is traced.

    Raises:
        ValueError: every weight is frozen.
    """

    def __init__(
        self,
        trainee: Trainee,
        optimizer: Ours | KerasOptimizer,
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
        self._team = Team(self.strategy)
        variables = network_variables(trainee.networks)
        trained = {id(v) for net in trainee.networks.values() for v in net.trainable_variables}
        self.weights = {name: v for name, v in variables.items() if id(v) in trained}
        if not self.weights:
            raise ValueError("Every weight is frozen: there is nothing to train.")
        self.multipliers = {n: float(multiplier(v)) if multiplier else 1.0 for n, v in self.weights.items()}
        self.loss_names: list[str] = []
        self.unreached: list[str] = []

        self._variables = {f"weights/{name}": v.value for name, v in variables.items()}
        seeds = {
            f"seeds/{name}": value.state.value
            for name, value in vars(trainee).items()
            if isinstance(value, keras.random.SeedGenerator)
        }
        self._variables |= seeds
        statistics = moving_statistics(trainee.networks)
        self._statistics = [v.value for v in statistics.values()]
        self._own = [f"weights/{name}" for name in statistics]  # what differs from replica to replica
        # What a forward pass writes, and a skipped step takes back.
        self._written = [*self._statistics, *seeds.values(), *layer_seeds(trainee.networks)]
        self._slots = {
            name: [self._keep(f"optimizer/{slot}/{name}", tf.zeros(v.shape)) for slot in optimizer.slots]
            for name, v in self.weights.items()
        }
        if isinstance(optimizer, KerasOptimizer):
            for name, variable in optimizer.build(list(self.weights.values())).items():
                self._variables[f"optimizer/{name}"] = variable
        moving = self.weights | statistics
        self._averages = (
            {n: (v.value, self._keep(f"average/{n}", v.value)) for n, v in moving.items()} if average else {}
        )
        self._gather_own: Callable[[], list[list[np.ndarray]]] | None = None
        self._own += [f"average/{name}" for name in statistics] if average else []
        self._updates = self._keep("updates", tf.zeros((), tf.int64))
        self._half = any(layer.compute_dtype == "float16" for layer in all_layers(trainee.networks))
        self._scale = self._keep("loss_scale", tf.constant(FIRST_LOSS_SCALE if self._half else 1.0))
        self._good = self._keep("good_steps", tf.zeros((), tf.int32))
        self._sums, self._before = {}, []
        if accumulate > 1:
            self._sums = {name: _variable(tf.zeros(v.shape)) for name, v in self.weights.items()}
            self._examples, self._total = _variable(tf.zeros(())), _variable(tf.zeros(()))
            self._before = [_variable(v) for v in self._written]

    def compile(self, element_spec: Mapping) -> None:
        """Makes the compiled functions for batches with this `element_spec` of a distributed data set."""
        signature = [element_spec, tf.TensorSpec((), tf.float32), tf.TensorSpec((2,), tf.int32)]

        def compiled(function: Callable, signature: list = signature) -> Callable:
            def everywhere(*inputs: tf.Tensor) -> tf.Tensor | Report:
                result = self.strategy.run(function, args=inputs)
                return tf.nest.map_structure(lambda x: self.strategy.experimental_local_results(x)[0], result)

            # Python's own `if` and `for`: to rewrite every function for AutoGraph takes longer than to trace them.
            return tf.function(everywhere, input_signature=signature, autograph=False)

        self.move = compiled(self._move, [*signature, tf.TensorSpec((2,), tf.float32)])
        self.gather = compiled(self._gather)
        self.remember = compiled(self._remember, [])

    def __call__(
        self, batches: list, rate: float, seeds: Sequence[tuple[int, int]], wishes: tf.Tensor | None = None
    ) -> Report:
        """Makes one step with `accumulate` batches; it does not wait for a device.

        Args:
            batches: the batches, distributed.
            rate: learning rate of this step.
            seeds: a pair of integers for each batch.
            wishes: float32 [2] of this worker, summed over all on the way: `Team.wishes`; None: none.
        """
        rate = tf.constant(rate, tf.float32)
        seeds = [tf.constant(seed, tf.int32) for seed in seeds]
        if self._before:
            self.remember()
        gathered = [self.gather(b, rate, s) for b, s in zip(batches[:-1], seeds[:-1], strict=True)]
        report = self.move(batches[-1], rate, seeds[-1], tf.zeros(2) if wishes is None else wishes)
        if gathered:
            return report._replace(numbers=report.numbers + tf.pad(tf.add_n(gathered), [[0, 2]]))
        return report

    def _remember(self) -> tf.Tensor:
        """Keeps what the forward passes of a step are about to write."""
        for kept, variable in zip(self._before, self._written, strict=True):
            kept.assign(variable)
        return tf.zeros(())

    def _gradients(self, batch: dict, seed: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor, dict[str, tf.Tensor]]:
        """Gives a replica's losses and number of examples, the losses' sum, and the gradients of the scaled sum."""
        replica = tf.distribute.get_replica_context()
        examples = tf.cast(tf.shape(tf.nest.flatten(batch)[0])[0], tf.float32)
        if "position" in batch:
            seed = tf.stack(
                [tf.fill(tf.shape(batch["position"]), tf.cast(seed[0], tf.int64)), batch["position"]], 1
            )
        else:
            seed = seed + [0, replica.replica_id_in_sync_group]
        weights = {name: v.value for name, v in self.weights.items()}
        with tf.GradientTape(watch_accessed_variables=False) as tape:
            tape.watch(list(weights.values()))
            losses = self.trainee.losses({**batch, "seed": seed})
            self.loss_names = list(losses)
            losses = [tf.cast(value, tf.float32) for value in losses.values()]
            total = tf.add_n(losses)
            scaled = total * self._scale if self._half else total
        gradients = tape.gradient(scaled, weights)
        self.unreached = [name for name, g in gradients.items() if g is None]
        reached = {name: tf.convert_to_tensor(g) for name, g in gradients.items() if g is not None}
        return tf.stack([*losses, examples]), total, reached

    def _gather(self, batch: dict, rate: tf.Tensor, seed: tf.Tensor) -> tf.Tensor:
        """Adds the gradients of one batch to the sums, and gives its losses and number of examples."""
        numbers, total, gradients = self._gradients(batch, seed)
        for name, gradient in gradients.items():
            self._sums[name].assign_add(gradient)
        self._examples.assign_add(numbers[-1])
        self._total.assign_add(total)
        return _sum_over_replicas(numbers)

    def _move(self, batch: dict, rate: tf.Tensor, seed: tf.Tensor, wishes: tf.Tensor) -> Report:
        """Makes one step with a batch, and with what was gathered before it."""
        before = self._before or [tf.identity(variable) for variable in self._written]
        numbers, total, gradients = self._gradients(batch, seed)
        examples = numbers[-1]
        if self._sums:
            gradients = {name: self._sums[name] + g for name, g in gradients.items()}
            examples, total = self._examples + examples, self._total + total
        if self._statistics:  # where one replica's are not finite, all skip the step
            sums = tf.add_n([tf.reduce_sum(v) for v in self._statistics])
            total = tf.where(tf.math.is_finite(sums), total, np.nan)
        local = (numbers, total, examples, gradients, tf.identity(wishes))
        numbers, total, examples, gradients, wishes = _sum_over_replicas(local)
        # The one place where a sum over examples becomes a mean over the global batch.
        factor = 1.0 / (examples * self._scale)
        squares = tf.stack([2.0 * tf.nn.l2_loss(g) for g in gradients.values()])
        norm = tf.sqrt(tf.reduce_sum(squares)) * factor
        moves = tf.math.is_finite(norm) & tf.math.is_finite(total)
        if self.clip_norm:
            factor *= self.clip_norm / tf.maximum(norm, self.clip_norm)
        overflow = ~moves & tf.math.is_finite(total) & (self._scale > 1.0)
        tf.cond(moves, lambda: self._accept(gradients, factor, rate), lambda: self._skip(before))
        for variable in [*self._sums.values(), self._examples, self._total] if self._sums else []:
            variable.assign(tf.zeros_like(variable))
        counts = tf.cast(moves | overflow, tf.float32)
        return Report(tf.concat([numbers, [norm, counts]], 0), squares, wishes)

    def _accept(self, gradients: dict[str, tf.Tensor], factor: tf.Tensor, rate: tf.Tensor) -> None:
        t = tf.cast(self._updates.assign_add(1), tf.float32)
        moved = {name: gradient for name, gradient in gradients.items() if self.multipliers[name]}
        if isinstance(self.optimizer, KerasOptimizer):
            variables = [self.weights[name] for name in moved]
            self.optimizer.update_all(variables, [g * factor for g in moved.values()], rate)
        else:
            for name, gradient in moved.items():
                weight, own_rate = self.weights[name].value, rate * self.multipliers[name]
                self.optimizer.update(weight, gradient * factor, own_rate, t, *self._slots[name])
        if self._averages:
            # A young average would be the first, random weights: it starts as a plain mean of the last ones.
            decay = tf.minimum(self.average, (1.0 + t) / (10.0 + t))
            for variable, average in self._averages.values():
                tf.raw_ops.ResourceApplyGradientDescent(  # average -= (1 - decay) * (average - variable)
                    var=average.handle, alpha=1.0 - decay, delta=average - variable
                )
        if self._half:
            grow = self._good.assign_add(1) % GOOD_STEPS == 0
            self._scale.assign(tf.where(grow, 2.0 * self._scale, self._scale))

    def _skip(self, before: list) -> None:
        for variable, value in zip(self._written, before, strict=True):
            variable.assign(value)
        if self._half:
            self._scale.assign(tf.maximum(self._scale / 2.0, 1.0))
            self._good.assign(0)

    @contextlib.contextmanager
    def averaged(self) -> Iterator[None]:
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

    @property
    def state_bytes(self) -> int:
        """Size of `state` of one replica, in bytes."""
        return sum(v.shape.num_elements() * v.dtype.size for v in self._variables.values())

    def network_state(self) -> dict[str, np.ndarray]:
        """Gives the networks' variables as they are on this worker."""
        names = [name for name in self._variables if name.startswith("weights/")]
        return self._arrays({name: self._read(self._variables[name]) for name in names})

    def state(self) -> dict[str, np.ndarray]:
        """Gives everything that changes in training; NAME@1 is a second replica's copy where it differs.

        With several workers all must call it at the same step, since each knows its own replicas only.
        """
        copies = {name: self._read(variable) for name, variable in self._variables.items()}
        if self._team.size > 1 and self._own:
            if self._gather_own is None:
                self._gather_own = self._team.gatherer([self._variables[name] for name in self._own])
            copies |= zip(self._own, self._gather_own(), strict=True)
        return self._arrays(copies)

    def _arrays(self, copies: Mapping[str, list[np.ndarray]]) -> dict[str, np.ndarray]:
        arrays = {}
        for name, (first, *others) in copies.items():
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
            here = len(self.strategy.experimental_local_results(variable))
            mine = range(self._team.rank * here, (self._team.rank + 1) * here)
            self._write(variable, [arrays.get(f"{name}@{k}", arrays[name]) for k in mine])

    def _keep(self, name: str, value: tf.Tensor) -> tf.Variable:
        self._variables[name] = _variable(value)
        return self._variables[name]

    def _read(self, variable: tf.Variable) -> list[np.ndarray]:
        return [copy.numpy() for copy in self.strategy.experimental_local_results(variable)]

    def _write(self, variable: tf.Variable, values: Sequence) -> None:
        for copy, value in zip(self.strategy.experimental_local_results(variable), values, strict=True):
            copy.assign(value)


def all_layers(networks: Mapping[str, keras.Model]) -> list[keras.Layer]:
    """Gives all layers of all networks, inner ones too, each once."""
    layers = [layer for net in networks.values() for layer in layers_of(net)]
    return list({id(layer): layer for layer in layers}.values())


def network_variables(networks: Mapping[str, keras.Model]) -> dict[str, keras.Variable]:
    """Names all variables of all networks, Dropout layers' seeds too, each once: NET/LAYER/NAME."""
    seen, named = set(), {}
    for key, net in networks.items():
        for variable in net.variables:
            if id(variable) not in seen:
                seen.add(id(variable))
                name = f"{key}/{variable.path}"
                named[name if name not in named else f"{name}#{len(named)}"] = variable
    return named


def moving_statistics(networks: Mapping[str, keras.Model]) -> dict[str, keras.Variable]:
    """Names the numbers that a forward pass in training writes: batch norm's statistics, where it is live."""
    layers = all_layers(networks)
    still = {id(v) for layer in layers if not layer.trainable for v in layer.variables}
    moved = {id(v) for layer in layers if layer.trainable for v in layer.non_trainable_variables} - still
    named = network_variables(networks)
    return {n: v for n, v in named.items() if id(v) in moved and v.value.dtype.is_floating}


def layer_seeds(networks: Mapping[str, keras.Model]) -> list[tf.Variable]:
    """Gives the states of the layers' random draws, such as Dropout's: variables of whole numbers."""
    variables = network_variables(networks).values()
    return [v.value for v in variables if v.value.dtype.is_integer]


def _variable(value: tf.Tensor) -> tf.Variable:
    return tf.Variable(value, trainable=False, aggregation=tf.VariableAggregation.NONE)


def _sum_over_replicas(values: tuple | tf.Tensor) -> tuple | tf.Tensor:
    return tf.distribute.get_replica_context().all_reduce(tf.distribute.ReduceOp.SUM, values)
