"""What is asked of a net: classes by --class, or channels of a layer by --layer and --channel."""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING, Any

from absl import flags

from tfcnn.cli import layers
from tfcnn.cli.models import Net
from tfcnn.errors import InputError
from tfcnn.visualization import BEST

if TYPE_CHECKING:
    import numpy as np

    from tfcnn.cli.run import Run

CLASS = flags.DEFINE_string(
    "class",
    None,
    "Classes by index, synset or name; none takes each picture's best, e.g. --class=tabby,n02123159",
)
LAYER = flags.DEFINE_string(
    "layer", None, "Ask a channel of this layer instead of a class, e.g. --layer=stage5"
)
CHANNEL = flags.DEFINE_integer(
    "channel", None, "Which channel of --layer; none takes the most active, e.g. --channel=7", lower_bound=0
)


@dataclasses.dataclass
class Asked:
    """What the flags ask of a net.

    Attributes:
        net: the net, a classifier; with `layer` any model.
        layer: whose channels are asked; None asks classes.
        indices: the classes or channels; BEST stands for each picture's best.
    """

    net: Net
    layer: str | None
    indices: list[int]

    def describe(self, index: int, scores: np.ndarray, logits: np.ndarray | None = None) -> dict[str, Any]:
        """A class (or channel) for results.json, and its answer: a probability, or a mean over locations."""
        if self.layer:
            label = f"{self.layer}, channel {index}"
            return {"index": index, "label": label, "score": float(scores[index])}
        synset, label = self.net.classes[index]
        described = {"index": index, "synset": synset, "label": label, "score": float(scores[index])}
        return described if logits is None else {**described, "logit": float(logits[index])}


def check_flags() -> None:
    """Refuse flags that ask two things, before a net is loaded."""
    if CHANNEL.value is not None and LAYER.value is None:
        raise InputError("--channel needs --layer, the layer it belongs to")
    if CLASS.value and LAYER.value:
        raise InputError("--class and --layer ask for different things; give one of them")


def load(run: Run) -> Asked:
    """The net of the run, and what the flags ask of it.

    Args:
        run: the app's run; its TensorFlow is started.

    Raises:
        InputError: no such net, class, layer or channel, or flags that ask two things. A --model need be no
            classifier where a layer is asked.
    """
    check_flags()
    net = open_net(run, bool(LAYER.value))
    if not LAYER.value:
        return Asked(net, None, run.classes(net) or [BEST])
    count = layers.count(
        net.model, LAYER.value, ranks=(2, 3, 4)
    )  # asked is a mean over whatever locations there are
    if CHANNEL.value is not None and CHANNEL.value >= count:
        raise InputError(f"--channel={CHANNEL.value}: {LAYER.value} has channels 0 to {count - 1}")
    return Asked(net, LAYER.value, [BEST if CHANNEL.value is None else CHANNEL.value])


def open_net(run: Run, by_layer: bool) -> Net:
    """The net of the run; a --model that is asked by a layer may be any, a detector for one."""
    return run.load_net("backbone" if by_layer and run.flags.model else "classifier")
