"""README and docs from their own text: commands are run or parsed, Python blocks executed, links and tables checked."""

import functools
import json
import pathlib
import re
import shlex

import pytest
import skimage.data
from PIL import Image

from apps import cli

ROOT = pathlib.Path(__file__).resolve().parents[1]
PAGES = {
    str(path.relative_to(ROOT)): path.read_text()
    for path in [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]
}
README, LECTURE = PAGES["README.md"], PAGES["docs/lecture.md"]
# Their first command runs in `make test`, all of their commands in `make test-all`.
QUICK = ["classify", "saliency", "nets", "download"]
# Train for more than a minute, run by a test of their own, or need a network.
LONG = re.compile(r"train_|demo$|download --nets")
COMMAND = re.compile(r"python (-m apps\.|benchmarks/|docs/|tests/)|\btfcnn [a-z]|\bmake [a-z]|\bpytest ")
ROWS = [
    f"{letter}{i}"
    for letter, last in zip("ABCDEFG", (4, 5, 10, 9, 9, 4, 1), strict=True)
    for i in range(1, last + 1)
]

# Parses many commands of an app as the app would, without its work; prints its flags and what it refuses.
PARSE = """
import importlib, json, sys
_, app, commands = sys.argv
importlib.import_module(f"apps.{app}")
from absl import flags
from absl.testing import flagsaver
refused = []
for arguments in json.loads(commands):
    with flagsaver.flagsaver():
        try:
            rest = flags.FLAGS(["app", *arguments])
            assert not [each for each in rest[1:] if each.startswith("-")], rest
        except Exception as error:
            refused.append(" ".join(arguments) + f": {error}")
print(json.dumps({"flags": list(flags.FLAGS), "refused": refused}))
"""


@pytest.fixture(scope="module")
def parsed(light, tmp_path_factory):
    """{"flags": an app's, "refused": commands of the pages that it does not take, with the reason}, of its name."""
    folder = tmp_path_factory.mktemp("parse")
    (folder / "parse.py").write_text(PARSE)

    @functools.cache
    def parsed(app):
        arguments = [app, json.dumps(APPS.get(app, []))]
        done = light.run("parse", arguments, ROOT, {"PYTHONPATH": str(folder)}, 60)
        assert done.returncode == 0, done.stderr[-2000:]
        return json.loads(done.stdout)

    return parsed


def blocks(page, language):
    return re.findall(rf"^```{language}\n(.*?)^```", PAGES[page], re.M | re.S)


def inline_commands(page):
    """Commands in running text and tables: `python -m apps.NAME ...`."""
    text = re.sub(r"^```.*?^```", "", PAGES[page], flags=re.M | re.S).replace("\n", " ")
    return re.findall(r"`((?:[A-Z_]+=\S+ )?(?:python|tfcnn) [^`]+)`", text)


def commands(page):
    """Every command of a page's shell blocks and sentences, without comments and variables."""
    lines = [line for block in blocks(page, "sh") for line in block.replace("\\\n", " ").splitlines()]
    for line in lines + inline_commands(page):
        words = shlex.split(line, comments=True)
        while words and re.fullmatch(r"[A-Z_]+=.*", words[0]):
            words = words[1:]
        if words:
            yield words


def app_commands():
    """{app: the arguments of each of its commands, each once}."""
    found = {}
    for page in PAGES:
        for words in commands(page):
            if words[0] == "tfcnn" and len(words) > 1 and re.fullmatch("[a-z_]+", words[1]):
                app, arguments = words[1], words[2:]
            elif words[:2] == ["python", "-m"] and words[2].startswith("apps.") and words[2] != "apps.NAME":
                app, arguments = words[2].removeprefix("apps."), words[3:]
            else:
                continue
            if arguments not in found.setdefault(app, []):
                found[app].append(arguments)
    return found


def needs_the_readers_own(arguments):
    """Whether an argument names a file, folder, video, model or data that the repository does not have."""
    values = [value for each in arguments for value in each.rpartition("=")[2].split(",")]
    positional = [each for each in arguments if not each.startswith("-")]
    data = any(each.startswith("--data=") for each in arguments)
    return (
        bool(positional)
        or data
        or any(re.search(r"[/*]|\.\w{2,5}$", value) and not (ROOT / value).exists() for value in values)
    )


APPS = app_commands()
RUNNABLE = [
    (app, arguments)
    for app in APPS
    for arguments in APPS[app]
    if not LONG.match(" ".join([app, *arguments])) and not needs_the_readers_own(arguments)
]
QUICKLY = [next(pair for pair in RUNNABLE if pair[0] == app) for app in QUICK]
SLOWLY = [pair for pair in RUNNABLE if pair not in QUICKLY]


def test_readme_is_short():
    assert len(README.splitlines()) <= 250


def test_shell_blocks_name_targets_and_files_that_exist():
    targets = set(re.findall(r"^([\w-]+):", (ROOT / "Makefile").read_text(), re.M))
    for page in PAGES:
        for words in commands(page):
            if words[0] == "make":
                assert set(words[1:]) <= targets, words
            if words[0] == "python" and words[1] != "-m":
                assert (ROOT / words[1]).exists(), words


def test_readme_lists_every_app_and_no_other():
    named = re.findall(r"^\| `(\w+)` \|", README, re.M)
    assert sorted(named) == sorted(cli.apps())


@pytest.mark.parametrize("app", APPS)
def test_apps_flags_and_values_are_known(app, parsed):
    assert app in cli.apps()
    assert not parsed(app)["refused"]


def test_flags_that_sentences_name_exist(parsed):
    known = {flag for app in cli.apps() for flag in parsed(app)["flags"]}
    named = {flag for page in PAGES.values() for flag in re.findall(r"`--(\w+)", page)}
    assert len(named) > 30 and not named - known


@pytest.fixture
def run(run_app, tmp_path):
    """A function from an app and its arguments, which runs it and looks whether its files are there."""

    def run(app, arguments):
        done = run_app(app, *arguments, f"--output_dir={tmp_path}")
        if done.returncode == 1 and "pip install 'tfcnn[onnx]'" in done.stderr:
            pytest.skip("the extra onnx is not installed")
        assert done.returncode == 0, done.stderr[-2000:]
        assert (tmp_path / "index.html").exists() and (tmp_path / "results.json").exists()

    return run


@pytest.mark.parametrize(("app", "arguments"), QUICKLY, ids=[a for a, _ in QUICKLY])
def test_quick_commands_run(run, app, arguments):
    run(app, arguments)


@pytest.mark.slow
@pytest.mark.parametrize(("app", "arguments"), SLOWLY, ids=[a for a, _ in SLOWLY])
def test_the_other_commands_run(run, app, arguments):
    run(app, arguments)


@pytest.mark.parametrize("page", [page for page in PAGES if blocks(page, "python")])
def test_python_blocks_run(page, tmp_path, monkeypatch):
    """The blocks of a page one after the other, as a reader would type them, in a folder with a photograph."""
    monkeypatch.chdir(tmp_path)
    for name in ("cat.jpg", "street.jpg"):
        Image.fromarray(skimage.data.chelsea()).save(name)
    names = {"__name__": "page"}
    for number, block in enumerate(blocks(page, "python")):
        exec(compile(block, f"{page}, block {number}", "exec"), names)


@pytest.mark.parametrize("page", PAGES)
def test_links_and_pictures_are_there(page):
    for target, anchor in re.findall(r"\]\((?!https?:)([^)#]*)(#[^)]*)?\)", PAGES[page]):
        path = (ROOT / page).parent / target if target else ROOT / page
        assert path.exists(), target
        if anchor:
            headings = re.findall(r"^#+ (.*)$", path.read_text(), re.M)
            assert anchor[1:] in {re.sub(r"[^\w\- ]", "", h.lower()).replace(" ", "-") for h in headings}, (
                anchor
            )


@pytest.mark.parametrize("page", [page for page in PAGES if page not in ("README.md", "docs/lecture.md")])
def test_a_page_begins_with_the_method_its_picture_and_a_command(page):
    before_command = PAGES[page].split("```sh")[0]
    words = re.sub(r"!?\[[^]]*\]\([^)]*\)", "", before_command).split()
    assert "![" in before_command and len(words) > 40, "no method, no picture, or no command"
    assert PAGES[page].startswith("# ") and "](../README.md)" in PAGES[page].splitlines()[2]


@pytest.mark.parametrize("page", PAGES)
def test_tables_of_figures_have_a_command_in_their_section(page):
    for section in re.split(r"^(?=#+ )", PAGES[page], flags=re.M):
        rows = [line for line in section.splitlines() if line.startswith("|")]
        if any(
            re.search(r"\| [^|]*\d\.\d[^|]* \|", re.sub(r"`[^`]*`|\[[^]]*\]\([^)]*\)", "", row))
            for row in rows
        ):
            assert COMMAND.search(section), section.splitlines()[0]


def lecture_rows():
    """{row: its cells} of the tables of docs/lecture.md."""
    lines = re.findall(r"^\| ([A-G]\d+) \| (.*) \|$", LECTURE, re.M)
    return {row: [cell.strip() for cell in f"{cells} ".split(" |")] for row, cells in lines}


def test_the_lecture_has_every_row_in_order_and_says_its_state():
    rows = lecture_rows()
    assert list(rows) == ROWS
    for row, cells in rows.items():
        assert len(cells) == 5 and re.match("done|part|not yet", cells[4]), (row, cells)
        missing = cells[4] == "not yet"
        assert missing == (not cells[2]), f"{row}: a file stands there unless nothing exists"


def test_the_lecture_names_every_app_and_files_that_exist():
    named = {word for cells in lecture_rows().values() for word in re.findall(r"`(\w+)`", cells[1])}
    assert named == set(cli.apps())
    for cells in lecture_rows().values():
        for target in re.findall(r"\]\(([^)#]+)\)", cells[2]):
            assert (ROOT / "docs" / target).exists(), target
