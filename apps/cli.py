"""The `tfcnn` command: lists the apps, or runs one. Names and summaries are read without importing them."""

from __future__ import annotations

import ast
import contextlib
import pathlib
import runpy
import sys

from tfcnn.version import __version__

GROUPS = ("start", "localization", "detection", "looking inside", "art", "fooling", "models")


def apps() -> dict[str, tuple[str, str]]:
    """Every app there is: {name: (group, summary)}, in the order of the groups."""
    found = {}
    for path in sorted(pathlib.Path(__file__).parent.glob("[a-z]*.py")):
        for statement in ast.parse(path.read_text(encoding="utf-8")).body:
            if isinstance(statement, ast.Assign) and ast.unparse(statement.targets[0]) == "(GROUP, SUMMARY)":
                found[path.stem] = ast.literal_eval(statement.value)
    return dict(sorted(found.items(), key=lambda item: GROUPS.index(item[1][0])))


def listing() -> str:
    """All apps in groups, a line each."""
    known = apps()
    width = max(map(len, known), default=0) + 2
    lines = ["tfcnn: the methods of a lecture on convolutional neural networks, a command each", ""]
    for group in GROUPS:
        members = [f"  {name:{width}}{summary}" for name, (its, summary) in known.items() if its == group]
        lines += [group, *members, ""] if members else []
    lines.append("tfcnn NAME --help shows an app's flags; tfcnn NAME runs it on packaged photographs.")
    return "\n".join(lines)


def main() -> None:
    """What the console command calls."""
    if len(sys.argv) < 2 or sys.argv[1] in ("--help", "-h", "help"):
        with contextlib.suppress(BrokenPipeError):  # the reader of our output went away
            print(listing(), flush=True)
        return
    name = sys.argv[1].replace("-", "_")
    if sys.argv[1] == "--version":
        print(f"tfcnn {__version__}")
        return
    if name not in apps():
        from tfcnn.errors import unknown

        print(f"tfcnn: {unknown('app', sys.argv[1], apps(), 'tfcnn lists all')}", file=sys.stderr)
        sys.exit(2)
    del sys.argv[1]
    runpy.run_module(f"{__package__}.{name}", run_name="__main__", alter_sys=True)


if __name__ == "__main__":
    main()
