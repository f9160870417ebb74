"""InputError, and the names that a misspelt one may stand for."""

import pytest

from tfcnn.errors import InputError, nearest, unknown


def test_an_input_error_is_a_value_error():
    with pytest.raises(ValueError, match="no such file"):
        raise InputError("cat.jpg: no such file")


def test_nearest_names_are_three_and_ignore_case():
    assert nearest("RESNET5", ["resnet50", "vgg16", "resnet101", "alexnet"])[0] == "resnet50"
    assert len(nearest("x", ["aa", "bb", "cc", "dd"])) == 3
    assert len(nearest("x", ["aa", "bb", "cc", "dd"], count=1)) == 1
    assert nearest("x", []) == []


def test_a_part_of_a_name_is_nearer_than_a_likeness():
    assert nearest("relu", ["block1_relu_long_name_indeed", "rule"])[0] == "block1_relu_long_name_indeed"


def test_an_unknown_name_is_answered_with_the_nearest_and_a_hint():
    error = unknown("net", "vgg61", ["resnet50", "vgg16", "vgg19"], "tfcnn nets lists all")
    assert str(error) == "unknown net 'vgg61'; the nearest are vgg19, vgg16, resnet50 (tfcnn nets lists all)"
    assert str(unknown("class", "cat", [])) == "unknown class 'cat'; there is none at all"
