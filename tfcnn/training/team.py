"""What the workers of a training agree on between two steps; one alone agrees with itself."""

import contextlib
import pathlib
import secrets
import time
from collections.abc import Callable, Iterator, Sequence

import numpy as np
import tensorflow as tf

from tfcnn.errors import InputError
from tfcnn.runtime import Interrupted

SECONDS = 10  # in which a file of the chief's must have come to the others' disks


class Team:
    """The workers of a strategy. Every method but the attributes is a call that all make at the same step.

    Args:
        strategy: of tf.distribute; MultiWorkerMirroredStrategy has several workers, others one.

    Attributes:
        rank, size: which worker this is, of how many.
        chief: whether it is the one that writes.
    """

    def __init__(self, strategy: tf.distribute.Strategy):
        self.strategy = strategy
        self.rank, self.size = 0, 1
        if isinstance(strategy, tf.distribute.MultiWorkerMirroredStrategy):
            self.rank = strategy.cluster_resolver.task_id
            self.size = strategy.cluster_resolver.cluster_spec().num_tasks("worker")
        self.chief = self.rank == 0
        self._waiting: list[tf.Tensor] = []
        here = strategy.num_replicas_in_sync // self.size

        def total(values: tf.Tensor) -> tf.Tensor:
            def one() -> tf.Tensor:
                replica = tf.distribute.get_replica_context()
                speaks = tf.equal(replica.replica_id_in_sync_group % here, 0)  # one replica of each worker
                own = tf.where(speaks, values, tf.zeros_like(values))
                return replica.all_reduce(tf.distribute.ReduceOp.SUM, own)

            return strategy.experimental_local_results(strategy.run(one))[0]

        self._total = tf.function(total, input_signature=[tf.TensorSpec([None], tf.float64)])

    def each(self, value: float) -> np.ndarray:
        """Gives every worker's value, float64 [size] by rank, once all have come here."""
        if self.size == 1:
            return np.array([value], np.float64)
        return self._total(tf.one_hot(self.rank, self.size, np.float64(value), 0.0, dtype=tf.float64)).numpy()

    @contextlib.contextmanager
    def chief_first(self) -> Iterator[None]:
        """A context in which the others come when the chief has left it: to read what it has written."""
        if not self.chief and self.size > 1:
            self.each(0.0)
        yield
        if self.chief and self.size > 1:
            self.each(0.0)

    def blind(self, folder: pathlib.Path) -> list[int]:
        """Gives the ranks of the workers that do not see in a folder what the chief writes there."""
        if self.size == 1:
            return []
        path, own = folder / "seen_by_all", secrets.randbits(48)
        if self.chief:
            folder.mkdir(parents=True, exist_ok=True)
            path.write_text(str(own))
        written, deadline = str(int(self.each(own)[0])), time.monotonic() + SECONDS
        while not (sees := path.exists() and path.read_text() == written) and time.monotonic() < deadline:
            time.sleep(0.1)
        blind = np.flatnonzero(self.each(sees) == 0).tolist()
        if self.chief:
            path.unlink()
        return blind

    def gatherer(self, variables: Sequence[tf.Variable]) -> Callable[[], list[list[np.ndarray]]]:
        """Gives a call that gives, of each of some float variables, the copies of all replicas of all workers."""
        count = self.strategy.num_replicas_in_sync
        ends = np.cumsum([variable.shape.num_elements() for variable in variables])

        @tf.function
        def everyones() -> tf.Tensor:
            def one() -> tf.Tensor:
                replica = tf.distribute.get_replica_context()
                here = tf.range(count) == replica.replica_id_in_sync_group
                own = tf.concat([tf.reshape(tf.cast(v, tf.float32), [-1]) for v in variables], 0)
                return replica.all_reduce(tf.distribute.ReduceOp.SUM, tf.where(here[:, None], own[None], 0.0))

            return self.strategy.experimental_local_results(self.strategy.run(one))[0]

        def copies() -> list[list[np.ndarray]]:
            parts = np.split(everyones().numpy(), ends[:-1], axis=1)
            return [
                [row.reshape(variable.shape).astype(variable.dtype.as_numpy_dtype) for row in part]
                for part, variable in zip(parts, variables, strict=True)
            ]

        return copies

    def wishes(self, stop: bool, save: bool) -> tf.Tensor:
        """Gives what this worker wishes, float32 [2], for the sums of the next step; only the chief's clock counts."""
        return tf.constant([float(stop), float(save and self.chief)], tf.float32)

    def granted(self, sums: tf.Tensor) -> tuple[bool, bool]:
        """Gives what is done, (stop, save), from a step's sums of all wishes: the same in all workers.

        It is what they wished a step ago, so that nobody waits for a device but for a step that is over.
        """
        self._waiting.append(sums)
        if len(self._waiting) < 2:
            return False, False
        stops, saves = self._waiting.pop(0).numpy()
        return bool(stops > 0), bool(saves > 0)


@contextlib.contextmanager
def explained(team: Team, folder: pathlib.Path) -> Iterator[None]:
    """Turns what TensorFlow says where a worker is gone into a sentence.

    Raises:
        Interrupted: one is; the run can be gone on with.
    """
    try:
        yield
    except (
        tf.errors.UnavailableError,
        tf.errors.AbortedError,
        tf.errors.CancelledError,
        tf.errors.DeadlineExceededError,
        tf.errors.InternalError,
    ) as error:
        if team.size == 1:
            raise
        raise Interrupted(
            f"A worker is gone, and the others cannot go on without it ({error.message.splitlines()[0]}): the last "
            f"checkpoint in {folder} is intact, and the same command goes on from it."
        ) from error


def check_alone(strategy: tf.distribute.Strategy | None, wish: object) -> bool:
    """Says whether one process trains; several, all of which would write, cannot keep features for other runs.

    Args:
        strategy: of tf.distribute; None is the one in force.
        wish: `cache_features` of a config.

    Raises:
        InputError: several processes are asked to keep features.
    """
    alone = Team(strategy or tf.distribute.get_strategy()).size == 1
    if wish and not alone:
        raise InputError(
            "cache_features is for one process: features are cheap to train on, and several would write"
        )
    return alone
