"""What every app promises: its flags, its exit status, and the files that a run leaves.

An app is
    GROUP, SUMMARY = "detection", "find objects in pictures"
    TOP = flags.DEFINE_integer("top", 5, "How many objects to name", lower_bound=1)
    def main(run: cli.Run) -> None: ...
    if __name__ == "__main__":
        cli.start(main, batch_size=32)
"""

from tfcnn.cli.classes import read_truth, resolve_class
from tfcnn.cli.flags import NO_FACTORY, NO_NET
from tfcnn.cli.items import Item, Picture
from tfcnn.cli.models import Net
from tfcnn.cli.run import TABLE_ROWS, Run
from tfcnn.cli.scale import Work
from tfcnn.cli.start import start

__all__ = [
    "Item",
    "NO_FACTORY",
    "NO_NET",
    "Net",
    "Picture",
    "Run",
    "TABLE_ROWS",
    "Work",
    "read_truth",
    "resolve_class",
    "start",
]
