"""Print the factory's table: every net, what comes out of it, and where its weights are."""

from __future__ import annotations

from typing import TYPE_CHECKING

from tfcnn import cli

if TYPE_CHECKING:
    from tfcnn.backbones import Net as Row

GROUP, SUMMARY = "models", "list the nets of the factory, their endpoints, and which have weights here"


def main(run: cli.Run) -> None:
    from tfcnn.backbones import NETS

    run.results["nets"] = [described(name, row) for name, row in NETS.items()]
    run.table(
        ["net", "pixels", "parameters", "classes", "strides", "endpoints", "ImageNet weights"],
        [
            [
                net["name"],
                net["size"],
                f"{net['parameters']:,}",
                net["classes"],
                " ".join(map(str, sorted({place["stride"] for place in net["endpoints"].values()}))),
                len(net["endpoints"]),
                net["weights"]["imagenet"]["place"] if net["weights"] else "none",
            ]
            for net in run.results["nets"]
        ],
    )


def described(name: str, row: Row) -> dict:
    """A row of the table as results.json has it."""
    from tfcnn.backbones import offline

    weights = {}
    for kind, source in row.weights.items():
        at = f"package {source.package.replace('_', '-')}" if source.package else "download"
        place = "here" if offline(name, kind) else at
        weights[kind] = {"place": place, "package": source.package, "url": source.url, "file": source.file}
    return {
        "name": name,
        "size": row.size,
        "parameters": row.parameters,
        "classes": row.classes,
        "preprocessing": vars(row.preprocessing),
        "endpoints": {
            endpoint: {"stride": place.stride, "channels": place.channels}
            for endpoint, place in row.endpoints.items()
        },
        "weights": weights,
        "source": row.source,
    }


if __name__ == "__main__":
    cli.start(main, pictures=False, without=cli.NO_NET)
