"""Fooling images by evolution: MAP-Elites with a cell for each class, and pictures encoded value by value.

B children of a generation, K classes, H W height and width. A picture of noise or of a regular pattern, which no one
would take for anything, comes to have nearly all of the network's probability.

Source: Nguyen, Yosinski, Clune 2015, Deep Neural Networks are Easily Fooled; Evolving-AI-Lab/fooling,
modules/map_elite/map_elite.hpp and exp/images.
"""

import io
import json
import zipfile
from collections.abc import Callable, Sequence
from typing import Generic, Protocol, TypeVar

import numpy as np

from tfcnn.errors import InputError

Genome = TypeVar("Genome")
Answers = Callable[[np.ndarray], np.ndarray]  # uint8 [B, H, W, 3] -> probabilities [B, K]


class Encoding(Protocol[Genome]):
    """How a genome stands for a picture."""

    def random(self, random: np.random.Generator) -> Genome:
        """Draws a genome of the first generation."""

    def cross(self, random: np.random.Generator, one: Genome, other: Genome) -> tuple[Genome, Genome]:
        """Gives two children of two parents."""

    def mutate(self, random: np.random.Generator, genome: Genome, generation: int) -> Genome:
        """Gives a changed copy."""

    def picture(self, genome: Genome) -> np.ndarray:
        """Gives the picture: uint8 [H, W, 3]."""

    def pack(self, genomes: Sequence[Genome]) -> np.ndarray:
        """Gives genomes as one array for a file."""

    def unpack(self, packed: np.ndarray) -> list[Genome]:
        """Gives the genomes of `pack`."""


class MapElites(Generic[Genome]):
    """An elite for each class: the picture of which the net was surest so far.

    A child is compared with the elite of every class and may become that of several. Parents are drawn uniformly from
    all cells. The draws of a generation depend on the seed and the generation's number alone, so that a run goes on
    from `state` as if it had not stopped.

    Args:
        encoding: of the pictures.
        answers: the net: uint8 [B, H, W, 3] -> probabilities [B, K].
        cells: K.
        children: B; the paper's 200 (direct) and 400 (CPPN).
        seed: of all draws.

    Attributes:
        generation: how many are done.
        scores: float64 [K], each elite's probability of its class; -1 before the first generation.
        genomes: K elites.
        history: for each class an entry for each new elite: {step (the generation, from 1), value}.
    """

    def __init__(
        self, encoding: Encoding[Genome], answers: Answers, cells: int, children: int = 200, seed: int = 0
    ):
        if children < 2 or children % 2:
            raise InputError(f"children is {children}: a generation has pairs of them, at least one")
        self.encoding, self.answers = encoding, answers
        self.children, self.seed, self.generation = children, seed, 0
        self.scores = np.full(cells, -1.0)
        self.genomes: list[Genome | None] = [None] * cells
        self.history: list[list[dict[str, float]]] = [[] for _ in range(cells)]

    def step(self) -> np.ndarray:
        """Breeds one generation.

        Returns:
            Indices of the classes that have a new elite.
        """
        children = self._children()
        pictures = np.stack([self.encoding.picture(child) for child in children])
        answers = np.nan_to_num(np.asarray(self.answers(pictures), np.float64), nan=0.0)  # [B, K]
        best = answers.argmax(axis=0)
        found = answers[best, np.arange(len(best))]
        improved = np.flatnonzero(found > self.scores)
        genomes, scores = list(self.genomes), self.scores.copy()
        for index in improved:
            genomes[index], scores[index] = children[best[index]], found[index]
        self.genomes, self.scores, self.generation = genomes, scores, self.generation + 1
        for index in improved:
            self.history[index].append({"step": self.generation, "value": float(found[index])})
        return improved

    def _children(self) -> list[Genome]:
        random = np.random.default_rng([self.seed, self.generation])
        if self.generation == 0:
            return [self.encoding.random(random) for _ in range(self.children)]
        children = []
        for _ in range(self.children // 2):
            one, other = (self.genomes[index] for index in random.integers(len(self.genomes), size=2))
            for child in self.encoding.cross(random, one, other):
                children.append(self.encoding.mutate(random, child, self.generation))
        return children

    def picture(self, index: int) -> np.ndarray:
        """Gives the elite of a class: uint8 [H, W, 3]."""
        return self.encoding.picture(self.genomes[index])

    def state(self) -> bytes:
        """Gives all that a later run needs to go on, as a NumPy archive; an elite of several classes is kept once."""
        places = {id(genome): genome for genome in self.genomes}
        order = {key: place for place, key in enumerate(places)}
        buffer = io.BytesIO()
        np.savez(
            buffer,
            generation=self.generation,
            scores=self.scores,
            owner=np.array([order[id(genome)] for genome in self.genomes]),
            genomes=self.encoding.pack(list(places.values())),
            history=np.frombuffer(json.dumps(self.history).encode(), np.uint8),
        )
        return buffer.getvalue()

    def restore(self, state: bytes) -> None:
        """Goes back to a `state`.

        Args:
            state: of a run with the same encoding and number of classes.

        Raises:
            InputError: it is damaged, or of another run.
        """
        try:
            with np.load(io.BytesIO(state), allow_pickle=False) as kept:
                elites = self.encoding.unpack(kept["genomes"])
                genomes = [elites[place] for place in kept["owner"]]
                scores, generation = kept["scores"], int(kept["generation"])
                history = json.loads(kept["history"].tobytes())
        except (OSError, ValueError, KeyError, IndexError, TypeError, zipfile.BadZipFile) as error:
            raise InputError(f"the checkpoint cannot be read ({error}): start anew") from error
        if scores.shape != self.scores.shape:
            raise InputError(
                f"the checkpoint is of {len(scores)} classes, not of {len(self.scores)}: start anew"
            )
        self.genomes, self.scores, self.generation, self.history = genomes, scores, generation, history


def polynomial_mutation(
    random: np.random.Generator, values: np.ndarray, chance: float, eta: float = 15.0
) -> np.ndarray:
    """Moves some of the values 0..1, mostly a little.

    With u uniform the move is (2u)^(1 / (eta + 1)) - 1 for u below 1/2, else 1 - (2 (1 - u))^(1 / (eta + 1)).

    Args:
        random: of the draws.
        values: float [...], 0..1.
        chance: with which each value is moved.
        eta: the larger, the smaller the moves.

    Returns:
        float [...], clipped to 0..1.

    Source: Deb 2001, Multi-objective Optimization Using Evolutionary Algorithms; eta 15 as in Evolving-AI-Lab/fooling.
    """
    moved = np.array(values)
    places = np.flatnonzero(random.random(moved.size, np.float32) < chance)
    u = random.random(len(places), np.float32)
    power = 1.0 / (eta + 1.0)
    move = np.where(u < 0.5, (2 * u) ** power - 1, 1 - (2 * (1 - u)) ** power)
    moved.reshape(-1)[places] = np.clip(moved.reshape(-1)[places] + move, 0, 1)
    return moved


def simulated_binary_crossover(
    random: np.random.Generator, one: np.ndarray, other: np.ndarray, eta: float = 10.0
) -> tuple[np.ndarray, np.ndarray]:
    """Gives two children whose mean is that of their parents, nearer together or further apart.

    With u uniform the parents' distance is multiplied by (2u)^(1 / (eta + 1)) for u below 1/2, else by
    (1 / (2 (1 - u)))^(1 / (eta + 1)).

    Args:
        random: of the draws, one for each value.
        one, other: float [...], 0..1.
        eta: the larger, the nearer to the parents.

    Returns:
        Two arrays [...], clipped to 0..1.

    Source: Deb & Agrawal 1995, Simulated Binary Crossover; eta 10 as in Evolving-AI-Lab/fooling.
    """
    u = random.random(one.shape, np.float32)
    power = 1.0 / (eta + 1.0)
    spread = np.where(u < 0.5, (2 * u) ** power, (2 * (1 - u)) ** -power)
    middle, half = (one + other) / 2, spread * (other - one) / 2
    return np.clip(middle - half, 0, 1), np.clip(middle + half, 0, 1)


class Direct:
    """A genome of one number for each value of the picture, kept as the 8 bits that its file has.

    Args:
        height, width: of the picture, pixels.
        grey: one number for a pixel's three values.
        chance: with which a value is mutated in the first generations.
        halved_each: generations after which this chance is halved, again and again; the repository halves nothing.
        crossed: chance with which a pair's values are crossed; else the children are copies.

    Source: Nguyen 2015, section 2.2 and the repository's exp/images: polynomial mutation with chance 0.1, crossover
    with chance 0.5.
    """

    def __init__(
        self,
        height: int,
        width: int,
        grey: bool = False,
        chance: float = 0.1,
        halved_each: int = 1000,
        crossed: float = 0.5,
    ):
        self.shape = (height, width, 1 if grey else 3)
        self.chance, self.halved_each, self.crossed = chance, halved_each, crossed

    def random(self, random: np.random.Generator) -> np.ndarray:
        """Draws uniform noise, uint8 [H, W, 1 or 3]."""
        return random.integers(0, 256, self.shape, np.uint8)

    def cross(
        self, random: np.random.Generator, one: np.ndarray, other: np.ndarray
    ) -> tuple[np.ndarray, np.ndarray]:
        """Gives two children, crossed or copied."""
        if random.random() >= self.crossed:
            return one, other
        children = simulated_binary_crossover(
            random, one.astype(np.float32) / 255, other.astype(np.float32) / 255
        )
        return tuple(_bytes(child) for child in children)

    def mutate(self, random: np.random.Generator, genome: np.ndarray, generation: int) -> np.ndarray:
        """Moves each value with the generation's chance."""
        chance = self.chance / 2 ** (generation // self.halved_each)
        return _bytes(polynomial_mutation(random, genome.astype(np.float32) / 255, chance))

    def picture(self, genome: np.ndarray) -> np.ndarray:
        """Gives the picture: uint8 [H, W, 3]."""
        return np.repeat(genome, 3, axis=2) if genome.shape[2] == 1 else genome

    def pack(self, genomes: Sequence[np.ndarray]) -> np.ndarray:
        """Gives uint8 [n, H, W, 1 or 3]."""
        return np.stack(genomes)

    def unpack(self, packed: np.ndarray) -> list[np.ndarray]:
        """Gives the genomes of `pack`."""
        if packed.shape[1:] != self.shape:
            raise ValueError(f"pictures of {packed.shape[1:]}, not {self.shape}")
        return list(packed)


def _bytes(values: np.ndarray) -> np.ndarray:
    return np.rint(255 * values).astype(np.uint8)
