"""Classes as a person names them, and lists in flags."""

import pytest

from tfcnn import cli, images
from tfcnn.backbones.imagenet import class_names
from tfcnn.cli import classes, lists
from tfcnn.errors import InputError

IMAGENET = class_names()
NUMBERED = [("", name) for name in sorted(map(str, range(1, 13)))]  # 1, 10, 11, 12, 2 ...


def test_classes_are_given_by_index_synset_or_name():
    assert cli.resolve_class("281, n02123159,Egyptian_cat", IMAGENET) == [281, 282, 285]
    assert cli.resolve_class("goldfish", IMAGENET) == [1]
    with pytest.raises(InputError, match=r"134.*517"):
        cli.resolve_class("crane", IMAGENET)
    with pytest.raises(InputError, match=r"goldfish.*list_classes"):
        cli.resolve_class("goldfisch", IMAGENET)
    with pytest.raises(InputError, match="0 to 999"):
        cli.resolve_class("1000", IMAGENET)
    with pytest.raises(InputError, match="several"):
        cli.resolve_class("bear", IMAGENET)


def test_a_class_whose_name_is_a_number_wins_over_the_index_and_this_is_said():
    said = []
    assert cli.resolve_class("10,2", NUMBERED, said.append) == [1, 4]
    assert said[0] == "class 10 is the one of that name, of index 1; not the one of index 10"
    assert len(said) == 2
    assert cli.resolve_class("0", NUMBERED, said.append) == [0]  # no class is called 0
    assert cli.resolve_class("2", [("", str(i)) for i in range(3)], said.append) == [2]
    assert len(said) == 2


def test_a_comma_in_a_class_name_does_not_divide_it():
    found = [("", "cat, domestic"), ("", "cat"), ("", "domestic"), ("", "dog")]
    assert cli.resolve_class("cat, domestic", found) == [0]
    assert cli.resolve_class("dog,cat, domestic,cat", found) == [3, 0, 1]
    assert cli.resolve_class("domestic,cat", found) == [2, 1]


def test_a_comma_in_a_file_name_does_not_divide_it(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "a,b.jpg").touch()
    assert lists.paths("a,b.jpg") == ["a,b.jpg"]
    assert lists.paths("c.jpg, a,b.jpg,,d.jpg") == ["c.jpg", "a,b.jpg", "d.jpg"]
    assert lists.paths("") == []


def test_a_truth_that_is_not_there_is_one_line(tmp_path):
    with pytest.raises(InputError, match=r"^--truth=.*missing\.csv: No such file[^(]*$"):
        cli.read_truth(tmp_path / "missing.csv", [], IMAGENET)


def test_labels_of_the_flag_name_the_flag(tmp_path):
    (tmp_path / "names.txt").write_bytes("\ufeffcat\ndog\n\n".encode())
    assert classes.read_labels(str(tmp_path / "names.txt"), 2) == [("", "cat"), ("", "dog")]
    with pytest.raises(InputError, match=r"^--labels=.*missing\.txt: No such file"):
        classes.read_labels(str(tmp_path / "missing.txt"))


def truth(tmp_path, text, named=IMAGENET):
    (tmp_path / "truth.csv").write_text(text, encoding="utf-8")
    found = cli.read_truth(tmp_path / "truth.csv", images.find([tmp_path / "p"]), named)
    return {source.name: index for source, index in found.items()}


@pytest.fixture
def listed(tmp_path):
    """A folder p with a.jpg, b.jpg and deep/a.jpg, in tmp_path."""
    (tmp_path / "p" / "deep").mkdir(parents=True)
    for name in ("a.jpg", "b.jpg", "deep/a.jpg"):
        (tmp_path / "p" / name).write_bytes(b"x")
    return tmp_path


def test_truth_is_found_by_path_or_name(listed):
    assert truth(listed, "file,class_index\na.jpg,3\ndeep/a.jpg,4\n") == {"a.jpg": 3, "deep/a.jpg": 4}
    assert truth(listed, "b.jpg,7\n") == {"b.jpg": 7}  # no header
    assert truth(listed, "\ufefffile, class_index\nb.jpg,n01443537\n") == {"b.jpg": 1}
    assert truth(listed, f"file,class_index\n{listed}/p/deep/a.jpg,5\n") == {"deep/a.jpg": 5, "a.jpg": 5}
    assert truth(listed, "file;class_index\nb.jpg;285\n") == {"b.jpg": 285}  # as spreadsheets save it


def test_a_class_of_the_truth_is_an_index_or_a_whole_name(listed):
    named = [("", "dog"), ("", "Egyptian cat, tabby")]
    assert truth(listed, 'file,class_index\nb.jpg,"Egyptian cat, tabby"\n', named) == {"b.jpg": 1}
    assert truth(listed, "file,class_index\nb.jpg,10\n", NUMBERED) == {"b.jpg": 10}  # as the column says


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("picture,label\na.jpg,3\n", "columns file and class_index"),
        ("file,class_index\na.jpg\n", "too short"),
        ("file,class_index\na.jpg,1000\n", "0 to 999"),
        ("file,class_index\na.jpg,-1\n", "unknown class '-1'"),
        ("file,class_index\na.jpg,tenhc\n", "tench"),
        ('file,class_index\na.jpg,"Egyptian cat, tabby"\n', "unknown class 'Egyptian cat, tabby'"),
        ("file,class_index\nz.jpg,3\n", "none of the 3"),
        ("", "columns"),
    ],
)
def test_mistakes_of_the_truth_are_named(listed, text, words):
    with pytest.raises(InputError, match=words):
        truth(listed, text)
