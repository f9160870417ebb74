"""The house stands as it is drawn: imports point one way, importing is cheap, every app answers --help."""

import ast
import importlib
import json
import os
import pathlib
import re
import shlex
import subprocess
import sys
import tomllib

import pytest

from apps import cli, demo

ROOT = pathlib.Path(__file__).resolve().parents[1]
CHAPTERS = {"localization", "detection", "visualization", "art", "fooling"}
NO_APPS = {"__init__.py", "cli.py", "__pycache__"}  # of apps/
PUBLIC_ALL_THE_SAME = {"_exit", "_replace"}  # of os and of named tuples, both documented
_FRAMEWORK = "tensorflow.python.framework"
PRIVATE = {
    # which call gave a tensor, and which layers lie inside a layer: Keras says neither in public
    "tfcnn/backbones/graph.py": {"_keras_history", "_inbound_nodes", "_flatten_layers"},
    # determinism can be switched on in public, but not asked for
    "tfcnn/ops/roi.py": {f"{_FRAMEWORK}.config.is_op_determinism_enabled"},
    # freezes a tf.function; the public one, tf.compat.v1.graph_util, freezes the graph of a session
    "tfcnn/export/litert.py": {
        f"{_FRAMEWORK}.convert_to_constants.convert_variables_to_constants_v2",
    },
    # the same, and the definition of an operation, by its name
    "tfcnn/export/tf1_graph.py": {
        f"{_FRAMEWORK}.convert_to_constants.convert_variables_to_constants_v2",
        f"{_FRAMEWORK}.op_def_registry",
    },
}
PARTS_OF_TRAINERS = {"detector_training", "fast_rcnn_training"}  # what several trainers of detectors share
HEAVY = ("tensorflow", "keras", "cv2", "sklearn", "matplotlib", "scipy", "skimage")


def python(code, *arguments, seconds=60):
    command = [sys.executable, "-X", "importtime", "-c", code, *arguments]
    return subprocess.run(command, cwd=ROOT, timeout=seconds, capture_output=True, text=True, check=False)


def loaded(done):
    """The top-level packages that a process imported."""
    names = re.findall(r"^import time: +\d+ \| +\d+ \| +(\S+)$", done.stderr, re.M)
    return {name.partition(".")[0] for name in names}


def test_imports_point_one_way():
    command = [str(pathlib.Path(sys.executable).with_name("lint-imports")), "--no-cache"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout


def layers_of_imports():
    """The modules of each layer that the contract on imports has, without their package."""
    (contract,) = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["importlinter"]["contracts"]
    return [
        [name.strip("() ").removeprefix("tfcnn.") for name in layer.split("|")]
        for layer in contract["layers"]
    ]


def test_every_module_has_a_layer_and_chapters_stand_side_by_side():
    layers = layers_of_imports()
    paths = (ROOT / "tfcnn").iterdir()
    there = {path.stem for path in paths if path.suffix == ".py" or (path / "__init__.py").exists()}
    assert sorted(name for layer in layers for name in layer) == sorted(there - {"__init__"})
    chapters = CHAPTERS & there
    assert [set(layer) for layer in layers if chapters & set(layer)] == [chapters]  # none may import another


def test_importing_tfcnn_costs_nothing():
    done = python("import tfcnn; print(tfcnn.__version__)")
    assert done.returncode == 0 and not loaded(done) & set(HEAVY)
    (own,) = re.findall(r"^import time: +\d+ \| +(\d+) \| tfcnn$", done.stderr, re.M)
    assert int(own) < 200_000  # microseconds; measured 10,000 to 20,000


def test_the_ground_imports_no_tensorflow():
    """What lies below data sets and nets; video needs OpenCV, ops TensorFlow. Apps read flags before either."""
    layers = layers_of_imports()
    ground = {name for layer in layers[layers.index(["datasets", "backbones"]) + 1 :] for name in layer}
    light = sorted(ground - {"ops", "video"} | {"backbones", "cli"})
    done = python("; ".join(f"import tfcnn.{name}" for name in light))
    assert done.returncode == 0, done.stderr
    assert {"cards", "files", "images", "runtime"} < set(light) and not loaded(done) & set(HEAVY)


def test_apps_have_a_group_a_line_and_a_module_each():
    apps = cli.apps()
    paths = [path for path in (ROOT / "apps").iterdir() if path.name not in NO_APPS]
    assert not [
        path.name for path in paths if path.suffix != ".py" or "\ndef main(run" not in path.read_text()
    ]
    files = {path.stem for path in paths}
    assert set(apps) == files and {"classify", "saliency", "demo", "download"} <= files
    for group, summary in apps.values():
        assert group in cli.GROUPS and 10 < len(summary) < 90 and not summary.endswith(".")
    listing = cli.listing()
    assert all(re.search(rf"^  {name} +\S", listing, re.M) for name in apps)
    assert all(len(line) <= 120 for line in listing.splitlines())


# Answers as `tfcnn` does, then prints every module that was imported.
ANSWER = """
import sys
sys.argv[0] = "tfcnn"
from apps import cli
try:
    cli.main()
finally:
    print(*sys.modules, file=sys.stderr)
"""


@pytest.fixture(scope="module")
def answer(tmp_path_factory):
    """A folder with the module `answer`."""
    folder = tmp_path_factory.mktemp("answer")
    (folder / "answer.py").write_text(ANSWER)
    return folder


@pytest.mark.parametrize("name", list(cli.apps()))
def test_help_needs_no_tensorflow_and_describes_every_flag(name, light, answer):
    done = light.run("answer", [name, "--help"], answer, {"PYTHONPATH": str(ROOT)}, 60)
    assert done.returncode == 0, done.stderr[-500:]
    modules = done.stderr.splitlines()[-1].split()
    assert "tfcnn.cli" in modules and not {each.partition(".")[0] for each in modules} & set(HEAVY)
    assert done.stdout.startswith(f"tfcnn {name}: {cli.apps()[name][1]}\n")
    common = done.stdout.index("Flags of every app\n")
    own = done.stdout.find(f"Flags of {name}\n")
    assert own < common
    flags = re.findall(r"^  --(\w+)  \[default: (.+)\]\n((?:      .+\n?)+)", done.stdout, re.M)
    assert len(flags) >= 20 and len(flags) == len(re.findall(r"^  --", done.stdout, re.M))
    for flag, _, text in flags:
        assert f"--{flag}=" in text and f"--{flag}=VALUE" not in text, f"{name} --{flag} shows no example"


def calls_in(path, pattern):
    """The calls in a file of functions whose name matches a pattern."""
    calls = [node for node in ast.walk(ast.parse(path.read_text())) if isinstance(node, ast.Call)]
    return [call for call in calls if re.search(pattern, ast.unparse(call.func))]


def test_the_part_of_a_data_set_is_one_flag_for_all_apps():
    paths = [*(ROOT / "tfcnn" / "cli").glob("*.py"), *(ROOT / "apps").glob("*.py")]
    defined = [path.name for path in paths for call in calls_in(path, r"\bDEFINE_") if _names(call, "split")]
    assert defined == ["data_flags.py"]
    apps = {path.stem for path in paths if calls_in(path, r"\bdefine_split$")}
    assert {"evaluate", "dataset_stats", "embed", "segment", "robustness", "propose", "export_model"} <= apps


def test_a_detector_that_is_not_there_is_said_before_tensorflow_starts(tmp_path):
    code = "import sys; sys.argv = ['tfcnn', *sys.argv[1:]]; from apps import cli; cli.main()"
    done = python(code, "detect", "--model=nonsense", f"--output_dir={tmp_path / 'out'}")
    assert done.returncode == 2 and "There is no model nonsense" in done.stderr
    assert not loaded(done) & {"tensorflow", "keras"} and not (tmp_path / "out").exists()


def _names(call, flag):
    return bool(call.args) and isinstance(call.args[0], ast.Constant) and call.args[0].value == flag


STANDIN = """
import os, stat
error = os.fstat(2)
silenced = stat.S_ISREG(error.st_mode) and not error.st_nlink  # tfcnn.runtime.quiet hides it in a file without a name
os.write(1, b"silenced" if silenced else b"loud")
os._exit(0)
"""
OTHER_COMMANDS = [
    "evaluate --dataset=voc --annotations={truth} --model=faster_rcnn_voc",
    "train_detector --dataset=shapes --init=faster_rcnn_voc",
    "train_classifier --dataset=digits --init=digits",
    "classify --model=digits",
    "saliency --list_layers",
    "detect --model=faster_rcnn_voc,faster_rcnn_voc",
]


def test_tensorflow_is_imported_in_silence_by_every_app(tmp_path, light):
    """With stand-ins that end the process and say whether their chatter would have been seen."""
    for package in ("tensorflow", "keras"):
        (tmp_path / package).mkdir()
        (tmp_path / package / "__init__.py").write_text(STANDIN)
    (tmp_path / "detections.json").write_text("[]")
    shard = {"app": "classify", "version": "", "flags": [], "shard": [1, 1], "pictures": 0, "sha256": ""}
    shard |= {"batch_size": 1, "batches": [0, 0], "facts": {"classes": []}}
    (tmp_path / "journal.jsonl").write_text(json.dumps(shard) + "\n")
    heard = {}
    for number, command in enumerate([*demo.EXAMPLES, *OTHER_COMMANDS]):
        command = re.sub(r"{(?!truth)\w+}", str(tmp_path), command.replace("{truth}", str(demo.TRUTH)))
        app, *arguments = shlex.split(command)
        arguments.append(f"--output_dir={tmp_path / str(number)}")
        done = light.run(f"apps.{app}", arguments, ROOT, {"PYTHONPATH": f"{tmp_path}{os.pathsep}{ROOT}"}, 60)
        assert done.returncode == 0 and "loud" not in done.stdout, command + done.stderr
        heard.setdefault(app, set()).add("silenced" in done.stdout)
    assert set(heard) == set(cli.apps()) - {"demo"}
    without = {app for app, silenced in heard.items() if silenced == {False}}
    assert without <= {"nets", "download", "dataset_stats", "propose", "merge"}


def test_an_unknown_app_is_answered_with_the_nearest():
    done = python("import sys; sys.argv = ['tfcnn', 'clasify']; from apps import cli; cli.main()")
    assert done.returncode == 2
    message = [line for line in done.stderr.splitlines() if not line.startswith("import time:")]
    assert len(message) == 1 and "classify" in message[0]


def test_no_file_of_the_package_grows_without_end_or_is_called_misc():
    for path in sources():
        most = 410 if path.name == "table.py" else 400  # the table of nets is one literal
        assert len(path.read_text().splitlines()) <= most, path
        if path.relative_to(ROOT).parts[0] == "tfcnn":
            assert path.stem not in ("utils", "helpers", "common", "misc"), path


def test_the_repository_stands_alone():
    """No app, module or command reads the folder that holds the tests' data, or a path of one machine."""
    for folder in ("apps", "tfcnn", "benchmarks"):
        for path in (ROOT / folder).rglob("*.py"):
            text = path.read_text()
            assert not re.search(r"[\"' =](/home|/root|/Users|/mnt|/opt)\b/?", text), path
            assert folder == "benchmarks" or "shared/" not in text, path


def test_public_functions_are_annotated():
    for path in sources():
        missing = {
            f"{function.name}: {name}"
            for function in public_functions(ast.parse(path.read_text()))
            for name in unannotated(function)
        }
        place = str(path.relative_to(ROOT))
        assert not missing, f"{place}: {', '.join(sorted(missing))}"


def sources():
    return [*(ROOT / "tfcnn").rglob("*.py"), *(ROOT / "apps").glob("*.py")]


def public_functions(node):
    """The functions and methods under a node, but those inside functions and those whose names begin with _."""
    for inner in ast.iter_child_nodes(node):
        if isinstance(inner, (ast.FunctionDef, ast.AsyncFunctionDef)):
            if not inner.name.startswith("_"):
                yield inner
        elif not (isinstance(inner, ast.ClassDef) and inner.name.startswith("_")):
            yield from public_functions(inner)


def unannotated(function):
    """The names of a function's arguments without a type, and "return"; self and cls need none."""
    its = function.args
    arguments = [*its.posonlyargs, *its.args, *its.kwonlyargs, *filter(None, [its.vararg, its.kwarg])]
    if arguments and arguments[0].arg in ("self", "cls"):
        del arguments[0]
    names = [argument.arg for argument in arguments if argument.annotation is None]
    return names + ["return"] * (function.returns is None)


def test_what_keras_and_tensorflow_keep_private_is_read_where_the_reason_stands():
    found = {}
    for path in sources():
        tree = ast.parse(path.read_text())
        foreign = {*private_attributes(tree), *private_modules(tree)} - PUBLIC_ALL_THE_SAME
        if foreign:
            found[str(path.relative_to(ROOT))] = foreign
    assert found == PRIVATE


def private_attributes(tree):
    """The attributes with one _ before their names that a module uses, but those that its own classes define."""
    nodes = list(ast.walk(tree))
    attributes = [node for node in nodes if isinstance(node, ast.Attribute)]
    own = {
        node.attr
        for node in attributes
        if isinstance(node.ctx, ast.Store) and ast.unparse(node.value) in ("self", "cls")
    }
    for statement in [each for node in nodes if isinstance(node, ast.ClassDef) for each in node.body]:
        if isinstance(statement, ast.FunctionDef):
            own.add(statement.name)
        elif isinstance(statement, (ast.Assign, ast.AnnAssign)):
            stored = [node for node in ast.walk(statement) if isinstance(node, ast.Name)]
            own |= {node.id for node in stored if isinstance(node.ctx, ast.Store)}
    named = [
        call.args[1].value
        for call in nodes
        if isinstance(call, ast.Call)
        and re.fullmatch("(get|set|has|del)attr", ast.unparse(call.func))
        and isinstance(call.args[1], ast.Constant)
    ]
    used = {node.attr for node in attributes} | set(named)
    return {name for name in used - own if re.match("_(?!_)", name)}


def private_modules(tree):
    """The modules that Keras and TensorFlow do not document, of which a module imports something."""
    for node in ast.walk(tree):
        names = [each.name for each in node.names] if isinstance(node, ast.Import) else []
        names += (
            [f"{node.module}.{each.name}" for each in node.names] if isinstance(node, ast.ImportFrom) else []
        )
        yield from (name for name in names if re.match(r"(tensorflow\.python|keras\.src)\b", name))


def test_the_library_names_arguments_and_only_apps_name_flags():
    for path in (ROOT / "tfcnn").rglob("*.py"):
        if "cli" not in path.relative_to(ROOT / "tfcnn").parts:
            tree = ast.parse(path.read_text())
            documented = {id(node.body[0].value) for node in ast.walk(tree) if _has_docstring(node)}
            for node in ast.walk(tree):
                if (
                    isinstance(node, ast.Constant)
                    and isinstance(node.value, str)
                    and id(node) not in documented
                ):
                    flags = set(re.findall(r"(?<!\S)--\w+(?![\w:])", node.value)) - {
                        "--file_format"
                    }  # of the program tfds
                    assert not flags, f"{path}:{node.lineno}"


def _has_docstring(node):
    kinds = (ast.Module, ast.ClassDef, ast.FunctionDef)
    return isinstance(node, kinds) and ast.get_docstring(node, clean=False) is not None


def test_the_text_speaks_of_the_program_only():
    words = re.compile(r"\b(chat" + r"bot|ass" + r"istant|language mo" + r"del|a" + r"gents?)\b", re.I)
    tracked = subprocess.run(["git", "ls-files"], cwd=ROOT, capture_output=True, text=True, check=False)
    for name in tracked.stdout.split():
        if name.endswith((".py", ".md", ".toml", ".txt", "Makefile")):
            assert not words.search((ROOT / name).read_text()), name


@pytest.mark.parametrize("chapter", ["detection", "localization"])
def test_a_chapter_exports_its_trainers_and_their_configs(chapter):
    package = importlib.import_module(f"tfcnn.{chapter}")  # lazy: without TensorFlow
    for path in (ROOT / "tfcnn" / chapter).glob("*_training.py"):
        trainers = {}
        for function in ast.parse(path.read_text()).body:
            if isinstance(function, ast.FunctionDef) and re.match("(train|finetune)(_|$)", function.name):
                types = {each.arg: each.annotation for each in function.args.args}
                trainers[function.name] = ast.unparse(types["config"])
        assert bool(trainers) == (path.stem not in PARTS_OF_TRAINERS), path
        assert {*trainers, *trainers.values()} <= set(package.__all__), path
    assert set(package._HOME) == set(package.__all__)
    for name, home in package._HOME.items():
        tree = ast.parse((ROOT / "tfcnn" / chapter / f"{home}.py").read_text())
        made = [node for each in tree.body for node in (each, *getattr(each, "names", []))]  # or imported
        assert name in [getattr(node, "name", None) for node in made], f"{home}.{name}"


def test_dir_lists_what_there_is():
    done = python("import tfcnn; print(*dir(tfcnn))")
    names = set(done.stdout.split())
    assert {"detector", "load_model", "backbones", "datasets", "detection", "images"} <= names
    assert not loaded(done) & set(HEAVY)
