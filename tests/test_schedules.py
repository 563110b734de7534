import math
import pickle

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ls_lightning.schedules import (
    SCHEDULES,
    Constant,
    Cosine,
    Linear,
    Step,
    TwoStage,
    Warmup,
    build_schedule,
)

ALL = [
    Constant(0.1),
    Linear(0.1, 0.0),
    Linear(0.1, 0.2),
    Cosine(0.3, 0.1),
    TwoStage(0.1, drop_at=0.6),
    Step(0.2, milestones=(0.3, 0.6), gamma=0.1),
    Warmup(0.1, start_at=0.1, full_at=0.4),
    Warmup(0.1, full_at=0.4, then=Cosine(0.1, 0.0)),
]
progress = st.floats(0, 1)


@pytest.mark.parametrize(
    ("schedule", "points"),
    [
        (Constant(0.1), {0: 0.1, 0.5: 0.1, 1: 0.1}),
        (Linear(0.1, 0.2), {0: 0.1, 0.5: 0.15, 1: 0.2}),
        (Cosine(0.1, 0.0), {0: 0.1, 0.5: 0.05, 1: 0.0, 1 / 3: 0.075}),
        (TwoStage(0.1, 0.8), {0: 0.1, 0.8 - 1e-9: 0.1, 0.8: 0.0, 1: 0.0}),
        (TwoStage(0.1, 0.0), {0: 0.0}),
        (Step(0.2, (0.5, 0.75), 0.5), {0: 0.2, 0.5: 0.1, 0.74: 0.1, 0.75: 0.05, 1: 0.05}),
        (Step(0.2, (), 0.5), {0: 0.2, 1: 0.2}),
        (Warmup(0.1, 0.2, 0.4), {0: 0, 0.2: 0, 0.3: 0.05, 0.4: 0.1, 1: 0.1}),
        (Warmup(0.1, 0.5, 0.5), {0.49: 0, 0.5: 0.1}),
        (Warmup(0.1, 0.0, 1.0, Linear(0.1, 0.0)), {0: 0, 0.5: 0.05, 1: 0.0}),
        (Warmup(0.1, 0.0, 0.5, TwoStage(0.1, 0.5)), {0.25: 0.05, 0.74: 0.1, 0.75: 0.0}),
    ],
)
def test_values(schedule, points):
    for t, eps in points.items():
        assert math.isclose(schedule(t), eps, abs_tol=1e-12), (schedule, t)


@pytest.mark.parametrize("schedule", ALL, ids=repr)
def test_is_a_value(schedule):
    again = pickle.loads(pickle.dumps(schedule))
    assert again == schedule
    assert hash(again) == hash(schedule)
    assert eval(repr(schedule)) == schedule
    with pytest.raises(AttributeError):
        schedule.eps = 0.5


@pytest.mark.parametrize("schedule", ALL, ids=repr)
@given(t=progress)
def test_stays_a_valid_eps(schedule, t):
    assert 0 <= schedule(t) < 1


@given(start=st.floats(0, 0.99), end=st.floats(0, 0.99), t=progress)
def test_cosine_and_linear_agree_at_the_ends_and_mirror(start, end, t):
    for kind in (Linear, Cosine):
        there, back = kind(start, end), kind(end, start)
        assert math.isclose(there(0), start, abs_tol=1e-12)
        assert math.isclose(there(1), end, abs_tol=1e-12)
        assert math.isclose(there(t) + back(t), start + end, abs_tol=1e-12)


@pytest.mark.parametrize("schedule", ALL, ids=repr)
@pytest.mark.parametrize("t", [-0.01, 1.01, math.nan])
def test_refuses_progress_outside_of_the_run(schedule, t):
    with pytest.raises(ValueError, match="progress must be in"):
        schedule(t)


@pytest.mark.parametrize("eps", [-0.1, 1.0, 1.5, math.nan, math.inf])
@pytest.mark.parametrize("name", SCHEDULES)
def test_refuses_eps_out_of_range(name, eps):
    with pytest.raises(ValueError, match=r"must be in \[0, 1\)"):
        build_schedule(name, eps)


@pytest.mark.parametrize("name", SCHEDULES)
@pytest.mark.parametrize("eps", ["0.1", True, None])
def test_refuses_eps_of_another_type(name, eps):
    with pytest.raises(TypeError, match="must be a number"):
        build_schedule(name, eps)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: TwoStage(0.1, 1.2), "drop_at must be a share"),
        (lambda: Step(0.1, (0.5, 0.4)), "milestones must increase"),
        (lambda: Step(0.1, (0.5, 1.4)), "milestones must be a share"),
        (lambda: Step(0.1, gamma=2), "gamma must be a share"),
        (lambda: Warmup(0.1, 0.5, 0.2), "full_at must not come before start_at"),
        (lambda: Warmup(0.1, then=Linear(0.2)), "then must begin at eps=0.1"),
        (lambda: build_schedule("lineal", 0.1), "schedule must be one of constant, linear"),
    ],
)
def test_refuses_what_contradicts(make, message):
    with pytest.raises(ValueError, match=message):
        make()


@pytest.mark.parametrize(
    "make", [lambda: Step(0.1, "0.5"), lambda: Warmup(0.1, then="linear"), lambda: TwoStage(0.1, "0.5")]
)
def test_refuses_other_types(make):
    with pytest.raises(TypeError):
        make()
