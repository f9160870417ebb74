"""Precision/recall curves."""

import numpy as np
import pytest
from evaluation_cases import random_case, tables

from tfcnn.draw import fonts_for
from tfcnn.errors import InputError
from tfcnn.evaluation import coco, curves, voc


def test_panels_of_voc_hold_the_curve_and_its_envelope():
    outcomes = [
        voc.Outcome(np.array([0, 1, -1, 1], np.int8), np.linspace(1, 0, 4), 4),
        voc.Outcome(np.array([0], np.int8), np.ones(1), 0),
    ]
    (panel,) = curves.voc_panels(outcomes, ["cat", "nothing to find"])
    assert panel.title == "cat  33.3"  # precision 2/3 up to recall 1/2
    (_, recall, precision), (_, _, envelope) = panel.lines
    assert recall.tolist() == [0.25, 0.5] and precision.tolist() == pytest.approx([1 / 2, 2 / 3])
    assert envelope.tolist() == pytest.approx([2 / 3, 2 / 3])


def test_panels_of_coco_leave_out_classes_without_objects():
    truth, found, classes = tables(*random_case(1))
    panels = curves.coco_panels(coco.accumulate(truth, found, len(classes)), classes)
    assert [panel.title.split()[0] for panel in panels] == classes[:-1]
    assert [name for name, _, _ in panels[0].lines] == ["IoU 0.5", "IoU 0.75", "IoU 0.9"]


def test_pages_of_twenty():
    line = np.array([0, 0.5]), np.array([1, 0.5])
    pages = curves.draw([curves.Panel(str(k), [("a", *line)]) for k in range(21)], "title")
    assert len(pages) == 2 and all(page.dtype == np.uint8 and page.shape[2] == 3 for page in pages)
    assert pages[0].shape[0] > pages[1].shape[0] > 200  # four rows, one row
    blue = (np.abs(pages[1].astype(int) - [31, 119, 180]).max(axis=2) < 40).sum()
    assert blue > 100  # a line is drawn
    with pytest.raises(InputError, match="nothing to find|no class has an object"):
        curves.draw([], "title")


@pytest.mark.parametrize("name", ["猫", "снег", "$a_$", "a\\b"])
def test_any_name_is_drawn_without_a_warning(recwarn, name):
    line = np.array([0, 0.5]), np.array([1, 0.5])
    curves.draw([curves.Panel(name, [("a", *line)])], "title")
    assert [str(each.message) for each in recwarn] == []


def test_a_letter_that_no_font_has_is_written_by_its_number():
    with fonts_for("猫\U0010fffe") as shown:
        assert shown("a\U0010fffe") == "a\\u10fffe"
