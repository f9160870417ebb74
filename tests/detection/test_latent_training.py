"""Latent training on a toy: two parts that move independently, which no rigid template can tell from one alone."""

import dataclasses

import numpy as np
import pytest

from tfcnn import datasets
from tfcnn.detection import dpm, dpm_training
from tfcnn.detection.dpm_mixtures import DpmConfig, fit
from tfcnn.detection.hog_objects import HogSvmConfig
from tfcnn.detection.hog_templates import weight_of
from tfcnn.detection.rounds import Negatives

DEPTH, SIDE, RADIUS, ANCHORS = 6, 2, 2, np.array([[2, 2], [6, 6]])
RNG = np.random.default_rng(0)
PATTERNS = RNG.normal(size=(2, SIDE, SIDE, DEPTH)).astype(np.float32)
CONFIG = DpmConfig(c=0.1, objects=1, positive_weight=1.0)


def scene(*shown):
    """Both maps of one place of a root 5 x 5; the parts that are shown lie up to two cells from their anchors."""
    coarse, fine = (0.1 * RNG.normal(size=(n, n, DEPTH)).astype(np.float32) for n in (5, 10))
    for number in shown:
        y, x = ANCHORS[number] + RNG.integers(-RADIUS, RADIUS + 1, 2)
        fine[y : y + SIDE, x : x + SIDE] += PATTERNS[number]
    return coarse, fine


def best(component, maps):
    """The example at the best placement, and its score."""
    part_maps = dpm.responses(maps[1], component.parts).transpose(1, 2, 0)
    moves = dpm.placed(component, part_maps, 0, 0, RADIUS)
    vector = dpm.example_vector(component, *maps, 0, 0, moves)
    score = float(vector @ component.to_vector())
    assert score == pytest.approx(dpm.score_map(component, *maps, RADIUS)[0, 0], abs=1e-3)
    return vector, score


@dataclasses.dataclass
class Examples:
    component: dpm.Component
    positives: list
    negatives: list


def trained(component, objects, background, rounds=3):
    for _ in range(rounds):
        found = [[best(component, maps)[0] for maps in scenes] for scenes in (objects, background)]
        examples = Examples(component, *found)
        fit(examples, CONFIG)
        component = examples.component
    return component


def margin_between(component, objects, background):
    """The share of pairs of an object and a background in which the object scores higher."""
    ours, theirs = ([best(component, maps)[1] for maps in scenes] for scenes in (objects, background))
    return np.mean(np.array(ours)[:, None] > np.array(theirs))


def test_parts_that_move_are_found_and_a_rigid_model_is_worse():
    weak = 0.2 * PATTERNS + 0.05 * RNG.normal(size=PATTERNS.shape).astype(np.float32)
    costs = np.tile(np.float32(dpm.START), (2, 1))
    start = dpm.Component(0, np.zeros([5, 5, DEPTH], np.float32), weak, ANCHORS, costs, 0.0)
    learned_from = [scene(0, 1) for _ in range(40)], [scene(i % 2) for i in range(80)]
    others = [scene(0, 1) for _ in range(40)], [scene(i % 2) for i in range(80)]
    found = trained(start, *learned_from)
    assert margin_between(found, *others) > 0.97
    assert (found.deformation[:, [0, 2]] >= dpm.LEAST - 1e-6).all()
    rigid = dataclasses.replace(found, deformation=np.tile(np.float32([100, 0, 100, 0]), (2, 1)))
    assert margin_between(rigid, *others) < 0.8
    for part, pattern in zip(found.parts, PATTERNS, strict=True):  # what moves is what was planted
        alike = (part * pattern).sum() / np.linalg.norm(part) / np.linalg.norm(pattern)
        assert alike > 0.8


def test_placements_inside_a_crowd_are_no_background(monkeypatch):
    record = datasets.Record("a", "a", 100, 100, lambda: b"")
    record.boxes, record.labels = np.float32([[0, 0, 60, 60]]), np.array([0])
    record.difficult, record.crowd = np.zeros(1, bool), np.ones(1, bool)
    boxes = np.float32(
        [[5, 5, 25, 25], [5, 5, 25, 25], [70, 70, 90, 90]]
    )  # inside, inside of another class, outside
    labels, places = np.array([0, 1, 0]), np.zeros((3, 5), int)
    places[:, 1] = labels

    class Method:
        first_component = np.array([0, 2])

        def on_pyramid(self, image):
            return []

        def above(self, levels, least):
            return places, boxes, np.float32([3, 2, 1]), labels

    mixtures = [Examples(None, [], Negatives()), Examples(None, [], Negatives())]
    monkeypatch.setattr(dpm_training.hog_objects, "shown", lambda record, size: (None, record.boxes))
    monkeypatch.setattr(dpm_training, "example_at", lambda method, levels, place: place)
    assert dpm_training.mine(Method(), mixtures, record, CONFIG) == 2
    assert [len(mixture.negatives) for mixture in mixtures] == [1, 1]
    assert dpm_training.mine(Method(), mixtures, record, CONFIG) == 0  # known, in another round
    assert [len(mixture.negatives) for mixture in mixtures] == [1, 1]


def test_few_objects_weigh_as_much_as_many():
    config = HogSvmConfig(objects=400, positive_weight=2.0)
    assert weight_of(config, 400) == weight_of(config, 800) == 2.0
    assert 50 * weight_of(config, 50) == 800.0
