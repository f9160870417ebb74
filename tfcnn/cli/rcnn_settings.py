"""What the steps of the app rcnn have in common with the fine-tuning in output_dir that they go on from."""

from __future__ import annotations

import pathlib
from typing import TYPE_CHECKING, Any

from tfcnn.cli import training_record, usage
from tfcnn.cli.run import Run
from tfcnn.datasets.example import Dataset
from tfcnn.errors import InputError

if TYPE_CHECKING:
    from tfcnn.datasets.proposals import Proposals

OF_THE_NET = ("net", "weights", "features", "side", "context", "head")  # flags that say what is fine-tuned
# flags that fine-tuning does not depend on; proposals are compared by their checksum
OF_LATER_STEPS = {"step", "runtime", "svm_c", "ridge", "nms_threshold", "score_threshold", "draw_threshold"}
OF_LATER_STEPS |= {"val_split", "validate_images", "proposals", "proposals_file"}


def check_features(run: Run) -> None:
    """Refuses before any work what one kind of features does not have.

    Raises:
        InputError: pooled regions by LiteRT, or warped ones with layers that stay up to a stride.
    """
    features, runtime = run.flags["features"].value, run.flags["runtime"].value
    if features == "spp" and runtime != "tf":
        raise InputError(f"--runtime={runtime} is for --features=warp: with spp take --runtime=tf")
    if (
        features == "warp"
        and run.flags["freeze_stride"].value
        and run.flags["step"].value in ("finetune", "all")
    ):
        raise InputError(
            "--freeze_stride is for --features=spp: a warped region has no stride in the picture"
        )


def kept(run: Run, training: Dataset, proposals: Proposals) -> dict[str, Any]:
    """What checkpoints of a fine-tuning keep for `check_finetuning`: its flags and its proposals' checksum.

    Args:
        run: the app's run.
        training: the pictures that it is trained on.
        proposals: of these pictures.
    """
    checksum = proposals.fingerprint(record.file for record in training.examples)
    return {"flags": training_record.flag_lines(run), "proposals": checksum}


def check_finetuning(run: Run, folder: pathlib.Path, training: Dataset, proposals: Proposals) -> None:
    """Sees before any work that a fine-tuning that is gone on with had the same flags and proposals.

    Args:
        run: the app's run; with --resume=false there is nothing to go on with.
        folder: of the fine-tuning.
        training, proposals: as of `kept`.

    Raises:
        InputError: they were others; what differs is said.
    """
    from tfcnn.training import checkpoints

    header = checkpoints.newest_header(folder / checkpoints.FOLDER) if run.flags.resume else None
    there = (header or {}).get("data")
    if not there:
        return
    if "flags" not in there:
        raise InputError(f"{folder} holds a run of another version of tfcnn; --resume=false starts anew")
    here = kept(run, training, proposals)
    differing = usage.differences(there["flags"], here["flags"], usage.OF_THE_MACHINE | OF_LATER_STEPS)
    if there["proposals"] != here["proposals"]:
        differing.append("other proposals")
    if differing:
        raise InputError(f"{folder} holds another run ({'; '.join(differing)}); --resume=false starts anew")


def check_net(run: Run, folder: pathlib.Path) -> None:
    """Sees that those flags of the net that a later step is given are those of the fine-tuned net.

    Args:
        run: the app's run.
        folder: of the fine-tuning.

    Raises:
        InputError: they are others; what differs is said.
    """
    there = folder / "release" / "flags.txt"
    if not there.exists():
        return
    given = {name for name in OF_THE_NET if run.flags[name].present}
    lines = there.read_text(errors="surrogateescape").splitlines()
    differing = usage.differences(lines, training_record.flag_lines(run), set(run.flag_names) - given)
    if differing:
        raise InputError(
            f"{folder} holds another net ({'; '.join(differing)}): leave the flag out, or run the step finetune with "
            "--resume=false"
        )
