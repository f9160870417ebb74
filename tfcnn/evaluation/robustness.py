"""How an error grows with the size of a change: the worst that an attack finds, and noise of the same size.

N pictures of H x W, 0..255, of 8 bits. eps is the largest change of a value, in grey levels. A picture that is named
wrongly without any change counts as an error at every eps.
"""

from collections.abc import Callable, Mapping, Sequence

import numpy as np

from tfcnn.draw import fonts_for

Answers = Callable[[np.ndarray], np.ndarray]  # uint8 [N, H, W, 3] -> classes int [N]
Attack = Callable[[np.ndarray, np.ndarray, float], np.ndarray]  # pictures, labels, eps -> pictures
Curve = list[dict[str, float]]


def error(answers: np.ndarray, labels: np.ndarray) -> float:
    """Gives the share of pictures whose answer is not their label.

    Args:
        answers, labels: int [N], N at least 1.
    """
    return float((np.asarray(answers) != np.asarray(labels)).mean())


def noisy(images: np.ndarray, eps: float, seed: int = 0) -> np.ndarray:
    """Gives pictures with plus or minus eps added to each value at random: as large as an attack in every norm.

    Args:
        images: uint8 [N, H, W, 3].
        eps: grey levels, rounded down to whole ones, as an attack's are.
        seed: of the signs, which differ from picture to picture.

    Returns:
        uint8 [N, H, W, 3].
    """
    signs = np.random.default_rng(seed).integers(0, 2, images.shape, np.int8) * 2 - 1
    return np.clip(images + int(eps) * signs.astype(np.int16), 0, 255).astype(np.uint8)


def error_curve(
    answers: Answers,
    attack: Attack,
    images: np.ndarray,
    labels: np.ndarray,
    eps: Sequence[float],
    seed: int = 0,
    callback: Callable[[float, np.ndarray, np.ndarray], None] | None = None,
) -> Curve:
    """Measures a net under an attack and under noise, for each eps.

    Args:
        answers: the net.
        attack: gives the attacked pictures; eps 0 is not asked.
        images: uint8 [N, H, W, 3].
        labels: int [N].
        eps: grey levels, in the order wanted.
        seed: of the noise.
        callback: called for each eps with it, the attacked pictures, and the answers to them.

    Returns:
        An entry for each eps: {eps, error, noise_error}, shares.
    """
    curve = []
    for each in eps:
        made = attack(images, labels, each) if each else images
        found = answers(made)
        noise_error = error(answers(noisy(images, each, seed)), labels)
        curve.append({"eps": float(each), "error": error(found, labels), "noise_error": noise_error})
        if callback is not None:
            callback(each, made, found)
    return curve


def transferred(nets: Mapping[str, Answers], attacked: np.ndarray, labels: np.ndarray) -> dict[str, float]:
    """Gives the error of other nets on pictures that were made against one.

    Args:
        nets: {name: net}.
        attacked: uint8 [N, H, W, 3].
        labels: int [N].

    Returns:
        {name: error}.
    """
    return {name: error(answers(attacked), labels) for name, answers in nets.items()}


def plot(curve: Curve, title: str) -> np.ndarray:
    """Draws error against eps, under the attack and under noise: uint8 [H, W, 3].

    Args:
        curve: of `error_curve`.
        title: above it.
    """
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(5.2, 3.6), dpi=110, layout="constrained")
    axes = figure.subplots()
    eps = [entry["eps"] for entry in curve]
    for order, (name, field) in enumerate((("attack", "error"), ("noise", "noise_error"))):
        values = [100 * entry[field] for entry in curve]
        axes.plot(eps, values, marker="o", markersize=4, color=f"C{1 - order}", label=name)
    axes.set(xlabel="eps, grey levels of 255", ylabel="error, %", ylim=(-2, 102), xticks=eps)
    axes.grid(color="0.9")
    axes.legend(frameon=False)
    with fonts_for(title) as shown:
        axes.set_title(shown(title), fontsize=10, parse_math=False)
        canvas = FigureCanvasAgg(figure)
        canvas.draw()
        return np.array(canvas.buffer_rgba())[..., :3]
