"""The shards of a run, found and seen to be all of one run, and their files brought together."""

from __future__ import annotations

import ast
import contextlib
import dataclasses
import os
import pathlib
import re
import shutil
from collections.abc import Sequence

from tfcnn import files
from tfcnn.cli import scale, usage
from tfcnn.cli.journal import JOURNAL, Journal, Shard
from tfcnn.cli.output import guarded
from tfcnn.errors import InputError

NAMES = 3  # shards that a message names


@dataclasses.dataclass
class Part:
    """A shard's folder.

    Attributes:
        folder: where it lies.
        journal: what it has done.
    """

    folder: pathlib.Path
    journal: Journal

    @property
    def shard(self) -> Shard:
        """Which part it is."""
        return Shard(*self.journal.header["shard"])


def find(roots: Sequence[pathlib.Path]) -> list[Part]:
    """The shards in folders.

    Args:
        roots: folders that are shards, or hold some.

    Raises:
        InputError: one is neither.
    """
    folders: dict[pathlib.Path, pathlib.Path] = {}
    for root in roots:
        if not root.is_dir():
            raise InputError(f"{root}: no such folder")
        inside = (
            [root] if (root / JOURNAL).exists() else sorted(path.parent for path in root.glob(f"*/{JOURNAL}"))
        )
        if not inside:
            raise InputError(f"{root} holds no shards: a run with --shard=1/2 makes one in its output_dir")
        folders |= {folder.resolve(): folder for folder in inside}
    return [Part(folder, Journal.read(folder)) for folder in folders.values()]


def belonging(parts: Sequence[Part]) -> list[Part]:
    """The shards in their order, where they are all of one run, each once and finished.

    Raises:
        InputError: they are not; what differs or is missing is named.
    """
    first = parts[0]
    of = first.shard.of
    for part in parts[1:]:
        _compare(first, part)
    there: dict[int, Part] = {}
    for part in parts:
        if part.shard.number in there:
            other = there[part.shard.number].folder
            raise InputError(
                f"shard {part.shard} is there twice, in {other} and {part.folder}; name one of them"
            )
        there[part.shard.number] = part
    missing = [f"{number}/{of}" for number in range(1, of + 1) if number not in there]
    if missing:
        raise InputError(
            f"{_named(missing)} missing; run the command of {first.folder} with --shard={missing[0]}"
        )
    unfinished = [str(part.shard) for part in parts if not part.journal.complete]
    if unfinished:
        raise InputError(
            f"{_named(unfinished)} not finished; the same command goes on, --shard={unfinished[0]}"
        )
    return [there[number] for number in sorted(there)]


def _named(shards):
    words = ", ".join(shards[:NAMES]) + (f" and {len(shards) - NAMES} more" if len(shards) > NAMES else "")
    return f"shard {words} is" if len(shards) == 1 else f"shards {words} are"


def _compare(first, part):
    ours, theirs = first.journal.header, part.journal.header
    names = {"app": "app", "version": "version of tfcnn", "batch_size": "batch size", "facts": "model"}
    how = [
        f"another {name}" + (f", {theirs[key]} and not {ours[key]}" if key != "facts" else "")
        for key, name in names.items()
        if ours[key] != theirs[key]
    ]
    how += scale.differences(theirs, ours)
    if ours["shard"][1] != theirs["shard"][1]:
        how.append(f"shard {part.shard} of another division than {first.shard}")
    elif (ours["pictures"], ours["sha256"]) != (theirs["pictures"], theirs["sha256"]):
        how.append(
            f"other pictures, {theirs['pictures']} and not {ours['pictures']}, or others of these names"
        )
    if how:
        raise InputError(f"{part.folder} is no shard of the run of {first.folder}: {'; '.join(how[:3])}")


def gather(parts: Sequence[Part], folder: pathlib.Path) -> None:
    """Bring the pictures of all shards into a folder, without a second copy where the disk allows it.

    Args:
        parts: of one run, in order.
        folder: made if missing; what lies there of an earlier merging is the same, or replaced.

    Raises:
        InputError: a journal names a file outside its shard.
        OutputError: the folder cannot be written to.
    """
    with guarded(folder):
        folder.mkdir(parents=True, exist_ok=True)
        for part in parts:
            for item in part.journal.items():
                for name in item.get("entry", {}).get("files", []):
                    _link(part.folder, folder, name)
        paths = [os.path.relpath(part.folder.resolve(), folder.resolve()) for part in parts]
        files.write_text(folder / scale.SHARDS, files.to_json({"shards": paths}) + "\n")


def _link(shard, folder, name):
    path = pathlib.PurePath(name)
    if path.is_absolute() or ".." in path.parts:
        raise InputError(f"{shard / JOURNAL} names a file outside its folder: {name}")
    source, target = shard / path, folder / path
    with contextlib.suppress(FileNotFoundError):
        if os.path.samefile(source, target):
            return
    if not source.exists():
        raise InputError(f"{source} is gone: delete {shard / JOURNAL} and run that shard again")
    target.parent.mkdir(parents=True, exist_ok=True)
    with files.written(target) as part:
        try:
            os.link(source, part)
        except OSError:  # another disk, or one without links
            shutil.copyfile(source, part)


def command(parts: Sequence[Part], folder: pathlib.Path, apps: pathlib.Path) -> list[str]:
    """The app that ends the shards' run in a folder, and its flags.

    A journal may be a stranger's: only an app that works in shards is accepted, and no flag that makes the app do
    other work (--list_layers) or run code of a model's file.

    Args:
        parts: of one run, in order.
        folder: of the merged results.
        apps: the folder of the apps' modules.

    Raises:
        InputError: no such app works in shards.
    """
    journal = parts[0].journal
    app, lines = journal.header["app"], journal.header["flags"]
    if not _works_in_shards(app, apps):
        raise InputError(f"{journal.name} is of {app!r}, and no app of this name works in shards")
    passed_over = usage.OF_ONE_CALL | {"output_dir", "shard", "overwrite", "quiet", "debug", "device"}
    passed_over |= {"allow_custom_objects"}
    named = [(re.fullmatch(r"--(\w+)=.*", line, re.DOTALL), line) for line in lines if isinstance(line, str)]
    kept = [line for match, line in named if match and match[1] not in passed_over]
    return [app, *kept, f"--output_dir={folder}", f"--shard={scale.MERGED}"]


def _works_in_shards(app, apps):
    """Whether a module's source says `at_scale=True`; it is not imported."""
    path = apps / f"{app}.py"
    if not app.isidentifier() or not path.is_file():
        return False
    said = [node for node in ast.walk(ast.parse(path.read_bytes())) if isinstance(node, ast.keyword)]
    return any(word.arg == "at_scale" and ast.unparse(word.value) == "True" for word in said)
