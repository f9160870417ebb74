import pytest

from tfcnn.errors import InputError
from tfcnn.training import schedules


def test_warm_up_climbs_linearly_and_ends_at_the_rate():
    rate = schedules.constant(0.4, warmup=4)
    assert [rate(s) for s in range(6)] == pytest.approx([0.1, 0.2, 0.3, 0.4, 0.4, 0.4])


def test_a_warm_up_may_start_above_nothing():
    for name in ("constant", "cosine", "steps"):
        rate = schedules.named(name, 1.0, 1000, warmup=9, start=0.1)
        assert rate(0) == pytest.approx(0.2) and rate(4) == pytest.approx(0.6)
        assert rate(8) == pytest.approx(1.0)


def test_cosine_by_hand():
    rate = schedules.cosine(2.0, steps=8, warmup=4, final=1.0)
    # Without the climb: 2 until step 4, then half a cosine over the four steps that are left.
    assert rate(3) == pytest.approx(2.0)
    assert rate(4) == pytest.approx(2.0)
    assert rate(6) == pytest.approx(1.5)
    assert rate(5) == pytest.approx(1 + (1 + 2**-0.5) / 2)
    assert rate(8) == rate(100) == pytest.approx(1.0)


def test_steps_by_hand():
    rate = schedules.steps(1.0, (2, 4), factor=0.5)
    assert [rate(s) for s in range(5)] == [1.0, 1.0, 0.5, 0.5, 0.25]


def test_the_named_ones():
    assert schedules.named("constant", 0.1, 90)(80) == 0.1
    assert schedules.named("cosine", 0.1, 90)(90) == pytest.approx(0.0)
    assert [schedules.named("steps", 1.0, 90)(s) for s in (59, 60, 80)] == pytest.approx([1.0, 0.1, 0.01])
    assert [schedules.named("steps", 1.0, 90, drops=(50,))(s) for s in (49, 50, 89)] == pytest.approx(
        [1.0, 0.1, 0.1]
    )


def test_another_name_is_said():
    with pytest.raises(InputError, match="unknown schedule 'cosin'; the nearest are cosine"):
        schedules.named("cosin", 0.1, 90)
