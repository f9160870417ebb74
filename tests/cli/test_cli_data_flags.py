"""The flags that name a data set and its parts."""

import pytest
from absl import flags

from tfcnn.cli import data_flags


@pytest.fixture
def without_split():
    yield
    delattr(flags.FLAGS, "split")


@pytest.mark.usefixtures("without_split")
@pytest.mark.parametrize(
    "wording, default, text",
    [
        ({}, None, "Part of --dataset; none takes the layout's first, e.g. --split=val"),
        (
            {"what": "Part of the data set", "none": "val", "example": "test"},
            None,
            "Part of the data set; none takes val, e.g. --split=test",
        ),
        ({"what": "Its part", "default": "val", "example": "test"}, "val", "Its part, e.g. --split=test"),
    ],
)
def test_split_says_what_no_value_means_where_it_has_no_default(wording, default, text):
    holder = data_flags.define_split(**wording)
    assert holder.name == "split" and holder.default == default
    assert flags.FLAGS["split"].help == text
