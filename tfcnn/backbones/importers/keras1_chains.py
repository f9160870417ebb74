"""Chains of layers as Keras 1 and early versions of Keras 2 described them, which Keras 3 does not take."""

from collections.abc import Iterator

Json = dict | list | str | float | bool | None


def with_inputs(config: Json) -> Json:
    """A model's description whose chains have what Keras 3 asks for: a name, and an InputLayer before all others.

    Keras 1 and early versions of Keras 2 describe a chain by a list of its layers, and any Keras before tf.keras
    says the picture's size in the first of them.

    Args:
        config: a description, or a part of one; it stays as it is.
    """
    if isinstance(config, list):
        return [with_inputs(each) for each in config]
    if not isinstance(config, dict):
        return config
    config = {name: with_inputs(value) for name, value in config.items()}
    if config.get("class_name") != "Sequential" or not isinstance(config.get("config"), list | dict):
        return config
    chain = config["config"]
    if isinstance(chain, list):
        chain = {"name": config.get("name"), "layers": chain}  # without a name Keras gives one
    if chain.get("layers"):
        chain = {**chain, "layers": [_of_one_output(layer) for layer in _after_an_input(chain["layers"])]}
    return {**config, "config": chain}


def with_hard_sigmoid(config: Json) -> Iterator[str]:
    """Names the layers whose activation is hard_sigmoid: 0.2 x + 0.5 before Keras 3, x / 6 + 0.5 in it.

    Args:
        config: a description, or a part of one.
    """
    if isinstance(config, list):
        for each in config:
            yield from with_hard_sigmoid(each)
    if isinstance(config, dict):
        if "hard_sigmoid" in (config.get("activation"), config.get("recurrent_activation")):
            yield str(config.get("name", "a layer"))
        yield from with_hard_sigmoid(list(config.values()))


def _after_an_input(layers: list[dict]) -> list[dict]:
    first = layers[0]
    if (
        not isinstance(first.get("config"), dict)
        or first.get("class_name") == "InputLayer"
        or "module" in first
    ):
        return layers
    size = _input(first)
    if size is None:
        return layers
    own = {name: value for name, value in first["config"].items() if name != "batch_input_shape"}
    name = f"{own.get('name') or 'chain'}_input"
    described = {"batch_input_shape": size, "dtype": "float32", "sparse": False, "name": name}
    return [{"class_name": "InputLayer", "config": described}, {**first, "config": own}, *layers[1:]]


def _of_one_output(layer: dict) -> dict:
    """A model inside a chain with its only output alone; from a list Keras 3 makes a list for the next layer."""
    inner = layer.get("config")
    ends = inner.get("output_layers") if isinstance(inner, dict) else None
    if isinstance(ends, list) and len(ends) == 1 and isinstance(ends[0], list):
        return {**layer, "config": {**inner, "output_layers": ends[0]}}
    return layer


def _input(layer: dict) -> list | None:
    """The size of the pictures that the first layer of a chain reads, a layer or a model."""
    config = layer["config"]
    if "batch_input_shape" in config:
        return config["batch_input_shape"]
    inner = {each.get("name") or each["config"].get("name"): each for each in config.get("layers") or ()}
    if layer["class_name"] == "Sequential" and inner:
        return _input(next(iter(inner.values())))
    starts = places(config.get("input_layers") or [])
    return _input(inner[starts[0][0]]) if len(starts) == 1 else None


def places(described: list) -> list[list]:
    """The (layer, call, output) of each input or output of a model, of which one alone can be in no list."""
    return [described] if described and isinstance(described[0], str) else described
