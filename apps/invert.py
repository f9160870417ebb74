"""Make the picture again from the code that a layer gives of it."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from absl import flags

from tfcnn import cli, draw, images
from tfcnn.errors import InputError

if TYPE_CHECKING:
    import keras

    from tfcnn.imageopt import Moment, Result
    from tfcnn.visualization.inversion import Inversion

GROUP, SUMMARY = "looking inside", "reconstruct a picture from a layer's activations"

LAYER = flags.DEFINE_list(
    "layer",
    [],
    "Layers whose code is kept, one reconstruction each; none takes all endpoints and the scores, "
    "e.g. --layer=stage3,logits",
)
METHOD = flags.DEFINE_enum(
    "method",
    "fourier",
    ["fourier", "momentum", "lbfgs"],
    "fourier: Adam on Fourier coefficients; momentum: the paper's update on pixels; lbfgs: on pixels",
)
STEPS = flags.DEFINE_integer("steps", 300, "Steps for each layer, e.g. --steps=100", lower_bound=1)
REPEATS = flags.DEFINE_integer(
    "repeats", 1, "Reconstructions of each code, from different starts, e.g. --repeats=4", lower_bound=1
)
NEIGH = flags.DEFINE_integer(
    "neigh", 0, "Keep only the central N x N locations of a code; 0 keeps all, e.g. --neigh=5", lower_bound=0
)
LAMBDA_TV = flags.DEFINE_float(
    "lambda_tv", None, "Weight of total variation; none goes by the layer's stride", lower_bound=0.0
)
TV_BETA = flags.DEFINE_float("tv_beta", 2.0, "Power of total variation; 1 makes spikes", lower_bound=0.5)
LAMBDA_ALPHA = flags.DEFINE_float(
    "lambda_alpha", 0.0, "Weight of the alpha-norm; the paper's is 8e-10", lower_bound=0.0
)
ALPHA = flags.DEFINE_float("alpha", 6.0, "Power of the alpha-norm", lower_bound=1.0)
JITTER = flags.DEFINE_integer(
    "jitter", None, "Pixels of random roll; none takes 8 for strides of 32 and more, else 0", lower_bound=0
)
NOISE = flags.DEFINE_float(
    "noise",
    None,
    "fourier: grey levels of noise to be borne; none takes 8 for strides of 32 and more, else 0",
    lower_bound=0.0,
)
STATISTICS = flags.DEFINE_float(
    "statistics",
    None,
    "fourier: weight of layer statistics like photographs'; none takes 0.05 for strides of 32 and more, else 0",
    lower_bound=0.0,
)


def main(run: cli.Run) -> None:
    check_command()
    net = run.load_net("backbone" if LAYER.value and run.flags.model else "classifier")
    layers = LAYER.value or usual_layers(net.model)
    from tfcnn.backbones import tap
    from tfcnn.visualization.inversion import psnr

    tap(net.model, layers, "--list_layers shows all")  # a wrong name is said before any work
    inversions = {layer: inversion(net, layer) for layer in layers}
    rows = []
    for picture in run.pictures():
        with picture:
            seen, _ = images.resize(picture.image, net.size, run.flags.resize)
            seen = np.asarray(seen, np.float32)
            picture.show(seen, "what the net sees")
            codes, shown, captions = [], [np.rint(seen).astype(np.uint8)], ["picture"]
            for layer, inverse in inversions.items():
                result = reconstruct(run, inverse, seen, f"{picture.name}: {layer}")
                for repeat in range(REPEATS.value):
                    kind = layer.replace("/", "_") + (f"_{repeat + 1}" if REPEATS.value > 1 else "")
                    path = picture.save(result.image[repeat], kind)
                    made = np.rint(np.clip(result.image[repeat], 0, 255)).astype(np.uint8)
                    distance = float(inverse.code_distance(made[None], seen)[0])
                    codes.append(
                        {
                            "layer": layer,
                            "repeat": repeat + 1,
                            **({"picture": path} if path else {}),  # "" with --save_images=false
                            "distance": distance,
                            "psnr": psnr(made, seen),
                            "final": result.final_entry(repeat),
                            "history": result.history(repeat),
                        }
                    )
                    shown.append(made)
                    captions.append(f"{layer} {distance:.2g}")
                    rows.append([picture.name, layer, f"{distance:.3g}", f"{codes[-1]['psnr']:.1f}"])
            columns = len(shown) if REPEATS.value == 1 and len(shown) < 7 else None
            picture.save(draw.grid(shown, columns, captions), "layers", "from every layer", main=True)
            last = codes[-1]
            picture.entry |= {"method": METHOD.value, "layers": codes}
            picture.entry |= {"final": last["final"], "history": last["history"]}
    run.table(["file", "layer", "code distance", "PSNR dB"], rows)


def check_command() -> None:
    """Refuse flags that the method does not use."""
    for flag in (NOISE, STATISTICS):
        if flag.value is not None and METHOD.value != "fourier":
            raise InputError(f"--{flag.name} belongs to --method=fourier, not to {METHOD.value}")
    if JITTER.value is not None and METHOD.value == "lbfgs":
        raise InputError(
            "--jitter belongs to --method=fourier and momentum: lbfgs needs a function that stays"
        )
    for flag, weight in ((TV_BETA, LAMBDA_TV), (ALPHA, LAMBDA_ALPHA)):
        if flag.present and weight.value == 0:
            raise InputError(f"--{flag.name} does nothing where --{weight.name} is 0")


def inversion(net: cli.Net, layer: str) -> Inversion:
    """The layer's inversion as the flags say."""
    from tfcnn.backbones import zero_rgb
    from tfcnn.imageopt.objectives import feature_statistics
    from tfcnn.visualization.inversion import Inversion, Prior

    if STATISTICS.value and feature_statistics(net.model) is None:
        raise InputError(f"--statistics needs batch norm behind convolutions, which {net.name} has not")
    prior = Prior(
        variation=LAMBDA_TV.value,
        beta=TV_BETA.value,
        alpha_weight=LAMBDA_ALPHA.value,
        alpha=ALPHA.value,
        jitter=JITTER.value,
        noise=NOISE.value,
        statistics=STATISTICS.value,
    )
    return Inversion(
        net.model,
        layer,
        net.size,
        zero_rgb(net.model),
        method=METHOD.value,
        prior=prior,
        iterations=STEPS.value,
        neigh=NEIGH.value,
    )


def reconstruct(run: cli.Run, inverse: Inversion, seen: np.ndarray, what: str) -> Result:
    """All reconstructions of one code, with progress."""
    seeds = [run.flags.seed + repeat for repeat in range(REPEATS.value)]
    with run.progress(STEPS.value, what, "steps") as progress:

        def advance(moment: Moment) -> None:
            progress.advance(1, value=float(moment.value.mean()))

        return inverse.invert(seen, seeds, advance)


def usual_layers(model: keras.Model) -> list[str]:
    """The net's endpoints and its scores; of a net outside the factory the last map of each size."""
    from tfcnn.backbones.table import NETS

    if model.name in NETS:
        maps = list(NETS[model.name].endpoints)
    else:
        last = {layer.output.shape[1:3]: layer.name for layer in model.layers if len(layer.output.shape) == 4}
        maps = list(last.values())[1:] or list(last.values())
    return maps if NEIGH.value else [*maps, *model.output]


if __name__ == "__main__":
    cli.start(main, limit=1, resize="crop")
