"""What a person reads of flags: --help, the nearest names, and the flagfile that repeats a run."""

from __future__ import annotations

import textwrap
from collections.abc import Set

from absl import flags

# Flags of one call only: they are no part of the command that flags.txt repeats.
OF_ONE_CALL = {"flagfile", "undefok", "help", "version", "list_nets", "list_layers", "list_classes"}
# Flags that change how a run is made, not what it makes: a trainer resumes whatever they say.
OF_THE_MACHINE = {"output_dir", "device", "threads", "quiet", "verbosity", "debug", "overwrite", "resume"}
OF_THE_MACHINE |= {"checkpoint_minutes", "save_images", "shard", "engine"}
OF_THE_MACHINE |= {"workers", "worker", "worker_seconds"}


def names(values: flags.FlagValues) -> list[str]:
    """The flags that are ours; absl and TensorFlow define flags of their own."""
    found = []
    for module, defined in values.flags_by_module_dict().items():
        if module.partition(".")[0] in ("absl", "tensorflow"):
            defined = [flag for flag in defined if flag.name == "verbosity"]
        found += [flag.name for flag in defined if flag.name in values]
    return found


def help_text(name: str, summary: str, values: flags.FlagValues, groups: dict[str, str]) -> str:
    """All flags of an app: its own first, then those of the groups.

    Args:
        name: the app's.
        summary: a clause on what it does.
        values: the flags.
        groups: {flag's name: title of its group}, the groups in their order; other flags are the app's own.
    """
    own = [flag for flag in names(values) if flag not in groups]
    lines = [f"tfcnn {name}: {summary}", "", f"usage: tfcnn {name} [flags]", ""]
    titles = {f"Flags of {name}": own}
    for flag, title in groups.items():
        if flag in values:
            titles.setdefault(title, []).append(flag)
    for title, members in titles.items():
        lines += [title, *(_describe(values[flag]) for flag in members), ""] if members else []
    return "\n".join(lines).rstrip()


def _describe(flag):
    kind = {"int": "a whole number", "float": "a number"}.get(flag.flag_type(), "")
    if flag.boolean:
        kind = "true or false"
    elif flag.flag_type() in ("string enum", "enum"):
        kind = "one of " + ", ".join(flag.parser.enum_values)
    default = "none" if flag.default in (None, []) else flag.default_as_str.strip("'") or "empty"
    own = flag.help.replace(";\n    repeat this option to specify a list of values", "")
    own = own.split(">: ", 1)[-1] if own.startswith("<") else own
    text = " ".join(filter(None, [own.strip().rstrip(".") + ".", f"({kind})" if kind else ""]))
    if f"--{flag.name}=" not in text:
        text += f" e.g. --{flag.name}={_example(flag, default)}"
    head = f"  --{flag.name}  [default: {default}]"
    return head + "\n" + textwrap.fill(text, 110, initial_indent="      ", subsequent_indent="      ")


def _example(flag, default):
    if flag.boolean:
        return "false" if flag.default else "true"
    if flag.flag_type() in ("string enum", "enum"):
        return [value for value in flag.parser.enum_values if value != flag.default or default == value][-1]
    return {"int": "1", "float": "0.5"}.get(flag.flag_type(), "VALUE") if default == "none" else default


def as_lines(values: flags.FlagValues, names: list[str]) -> list[str]:
    """The flags of these names that differ from their defaults, as lines of a flagfile."""
    lines = []
    for name in names:
        flag = values[name]
        if name not in OF_ONE_CALL and flag.value != flag.default:
            bare = flag.boolean  # absl would write --flag or --noflag
            lines += [f"--{name}={str(flag.value).lower()}"] if bare else flag.serialize().split("\n")
    return lines


def as_values(values: flags.FlagValues, names: list[str]) -> dict:
    """The flags of these names and their values, for results.json."""
    return {name: values[name].value for name in sorted(names) if name not in OF_ONE_CALL}


def differences(there: list[str], here: list[str], passed_over: Set[str] = OF_THE_MACHINE) -> list[str]:
    """Where two flagfiles ask for different work: "--seed=1 there, its default here" a flag."""
    pairs = [_by_name(there), _by_name(here)]
    found = []
    for name in sorted((pairs[0].keys() | pairs[1].keys()) - passed_over):
        old, new = (" ".join(side.get(name, [])) or f"--{name} as its default" for side in pairs)
        if old != new:
            found.append(f"{old} there, {new} here")
    return found


def _by_name(lines):
    found = {}
    for line in lines:
        if line.startswith("--"):
            found.setdefault(line[2:].partition("=")[0], []).append(line)
    return found
