"""Pictures as functions of the location: compositional pattern-producing networks, which grow as they evolve.

H W height and width, P = H W pixels. Symmetry and repetition come from the functions in the nodes, so that an evolved
picture has the regularity of a drawing, not of noise.

Source: Stanley 2007, Compositional Pattern Producing Networks; Nguyen, Yosinski, Clune 2015, section 2.2;
Evolving-AI-Lab/fooling, exp/images.
"""

import dataclasses
import json
from collections.abc import Sequence

import numpy as np

from tfcnn.fooling.evolution import polynomial_mutation

INPUTS = 4  # x, y, distance to the centre, 1
LIMIT = 10.0  # of a weight's size
# Chances of each change of a network, as in the repository.
ADD_LINK, DELETE_LINK, MOVE_LINK, ADD_NODE, DELETE_NODE, CHANGE = 0.5, 0.3, 0.5, 0.5, 0.2, 0.1


def _sigmoid(p):
    return np.tanh(p / 2)  # 2 (sigma(p) - 1/2)


def _gaussian(p):
    return np.exp(-np.minimum(np.square(p), 80.0))


def _linear(p):
    return np.clip(p, -3, 3) / 3


FUNCTIONS = (np.sin, _sigmoid, _gaussian, _linear)


@dataclasses.dataclass(frozen=True)
class Network:
    """A network without cycles. Nodes are numbered: inputs, outputs, then hidden ones, whose numbers may have gaps.

    Args:
        functions: {node: index in FUNCTIONS} of outputs and hidden nodes.
        links: {(from, to): weight}, weights in -10..10.
    """

    functions: dict[int, int]
    links: dict[tuple[int, int], float]

    def order(self) -> list[int]:
        """Gives the nodes that have a function, each after all those that feed it."""
        waiting = {node: set() for node in self.functions}
        for source, target in self.links:
            if source >= INPUTS:
                waiting[target].add(source)
        done: list[int] = []
        while waiting:
            ready = [node for node, sources in waiting.items() if not sources]
            done += ready
            for node in ready:
                del waiting[node]
            for sources in waiting.values():
                sources.difference_update(ready)
        return done

    def reaches(self, start: int, end: int) -> bool:
        """Whether a path of links leads from one node to another."""
        stack, seen = [start], set()
        while stack:
            node = stack.pop()
            if node == end:
                return True
            if node not in seen:
                seen.add(node)
                stack += [target for source, target in self.links if source == node]
        return False


class CPPN:
    """Encodes pictures as networks from a pixel's location to its hue, lightness and saturation.

    The inputs are the pixel's numbers x and y, its distance to the centre (-1..1 along each side), and 1. Of an
    output o, min(|o|, 1) is the lightness, the saturation, and, times 510 degrees, the hue: the repository writes
    255 into a byte of hue that counts 2 degrees. Children of two parents are copies of them, each mutated.

    Args:
        height, width: of the picture, pixels.
        grey: one output, the lightness.
    """

    def __init__(self, height: int, width: int, grey: bool = False):
        self.shape, self.outputs = (height, width), 1 if grey else 3
        y, x = np.mgrid[:height, :width].astype(np.float32)
        across, down = (2 * axis / max(side - 1, 1) - 1 for axis, side in ((x, width), (y, height)))
        inputs = [x, y, np.hypot(across, down), np.ones_like(x)]
        self._inputs = np.stack([each.ravel() for each in inputs])  # [4, P]

    def random(self, random: np.random.Generator) -> Network:
        """Draws a network without hidden nodes: about half of the links from inputs to outputs."""
        nodes = range(INPUTS, INPUTS + self.outputs)
        functions = {node: int(random.integers(len(FUNCTIONS))) for node in nodes}
        links = {}
        for node in nodes:
            chosen = np.flatnonzero(random.random(INPUTS) < 0.5)
            for source in chosen if len(chosen) else [int(random.integers(INPUTS))]:
                links[int(source), node] = float(random.uniform(-LIMIT, LIMIT))
        return Network(functions, links)

    def cross(self, random: np.random.Generator, one: Network, other: Network) -> tuple[Network, Network]:
        """Gives the parents themselves: networks are not crossed."""
        return one, other

    def mutate(self, random: np.random.Generator, genome: Network, generation: int = 0) -> Network:
        """Gives a copy with weights moved, and with links and nodes added, deleted and changed by chance."""
        network = Network(dict(genome.functions), dict(genome.links))
        chances = random.random(5)
        if chances[0] < ADD_LINK:
            self._add_link(random, network)
        if chances[1] < DELETE_LINK and len(network.links) > 1:
            del network.links[_one_of(random, list(network.links))]
        if chances[2] < MOVE_LINK and network.links:
            self._move_link(random, network)
        if chances[3] < ADD_NODE and network.links:
            self._add_node(random, network)
        if chances[4] < DELETE_NODE:
            self._delete_node(random, network)
        weights = np.array(list(network.links.values()))
        moved = polynomial_mutation(random, weights / (2 * LIMIT) + 0.5, CHANGE)
        for link, weight in zip(list(network.links), 2 * LIMIT * (moved - 0.5), strict=True):
            network.links[link] = float(weight)
        for node in network.functions:
            if random.random() < CHANGE:
                network.functions[node] = int(random.integers(len(FUNCTIONS)))
        return network

    def values(self, genome: Network) -> np.ndarray:
        """Gives the outputs at each pixel, float32 [outputs, P]."""
        known = dict(enumerate(self._inputs))
        feeds: dict[int, list[int]] = {node: [] for node in genome.functions}
        for source, target in genome.links:
            feeds[target].append(source)
        for node in genome.order():
            sources = feeds[node]
            total = np.zeros(self._inputs.shape[1], np.float32)
            for source in sources:
                total += np.float32(genome.links[source, node]) * known[source]
            known[node] = FUNCTIONS[genome.functions[node]](total)
        return np.stack([known[node] for node in range(INPUTS, INPUTS + self.outputs)])

    def picture(self, genome: Network) -> np.ndarray:
        """Gives the picture: uint8 [H, W, 3]."""
        unit = np.minimum(np.abs(self.values(genome)), 1.0).reshape(self.outputs, *self.shape)
        rgb = (
            np.repeat(unit, 3, axis=0) if self.outputs == 1 else _from_hls(510.0 * unit[0], unit[1], unit[2])
        )
        return np.rint(255 * np.moveaxis(rgb, 0, -1)).astype(np.uint8)

    def pack(self, genomes: Sequence[Network]) -> np.ndarray:
        """Gives the networks as the bytes of a JSON text."""
        plain = [
            [list(each.functions.items()), [[*link, weight] for link, weight in each.links.items()]]
            for each in genomes
        ]
        return np.frombuffer(json.dumps(plain).encode(), np.uint8)

    def unpack(self, packed: np.ndarray) -> list[Network]:
        """Gives the networks of `pack`."""
        outputs = range(INPUTS, INPUTS + self.outputs)
        networks = [
            Network(dict(functions), {(source, target): weight for source, target, weight in links})
            for functions, links in json.loads(packed.tobytes())
        ]
        if not all(set(outputs) <= network.functions.keys() for network in networks):
            raise ValueError(f"networks of another number of outputs than {self.outputs}")
        return networks

    def _add_link(self, random, network, weight=None):
        """A new link between two nodes drawn at random, unless it is there or would close a cycle."""
        hidden = [node for node in network.functions if node >= INPUTS + self.outputs]
        source = _one_of(random, [*range(INPUTS), *hidden])
        target = _one_of(random, list(network.functions))
        if (source, target) in network.links or network.reaches(target, source):
            return False
        drawn = float(random.uniform(-LIMIT, LIMIT))
        network.links[source, target] = drawn if weight is None else weight
        return True

    def _move_link(self, random, network):
        """A link's weight goes to another pair of nodes."""
        old = _one_of(random, list(network.links))
        weight = network.links.pop(old)
        if not self._add_link(random, network, weight):
            network.links[old] = weight

    def _add_node(self, random, network):
        """A node in the middle of a link, which keeps its weight behind the node."""
        source, target = _one_of(random, list(network.links))
        node = max(network.functions) + 1
        network.functions[node] = int(random.integers(len(FUNCTIONS)))
        network.links[node, target] = network.links.pop((source, target))
        network.links[source, node] = 1.0

    def _delete_node(self, random, network):
        """A hidden node goes with its links."""
        hidden = [node for node in network.functions if node >= INPUTS + self.outputs]
        if hidden:
            node = _one_of(random, hidden)
            del network.functions[node]
            for link in [link for link in network.links if node in link]:
                del network.links[link]


def _one_of(random: np.random.Generator, things: list):
    return things[int(random.integers(len(things)))]


def _from_hls(hue: np.ndarray, lightness: np.ndarray, saturation: np.ndarray) -> np.ndarray:
    """RGB 0..1, [3, H, W], of a hue in degrees and lightness and saturation 0..1."""
    chroma = saturation * np.minimum(lightness, 1 - lightness)
    planes = []
    for offset in (0, 8, 4):
        k = (offset + hue / 30) % 12
        planes.append(lightness - chroma * np.clip(np.minimum(k - 3, 9 - k), -1, 1))
    return np.stack(planes)
