import math
import pickle
from functools import partial

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ls_lightning.schedules import (
    SCHEDULES,
    Constant,
    Cosine,
    CosLog,
    Feedback,
    Linear,
    Scaled,
    Sequence,
    Step,
    TwoStage,
    Warmup,
    build_schedule,
    curve,
    eps_at,
    peak,
)
from ls_lightning.schedules.checks import name_of

ALL = [
    Constant(0.1),
    Linear(0.1, 0.0),
    Linear(0.1, 0.2),
    Cosine(0.3, 0.1),
    TwoStage(0.1, drop_at=0.6),
    Step(0.2, milestones=(0.3, 0.6), gamma=0.1),
    Warmup(0.1, start_at=0.1, full_at=0.4),
    Warmup(0.1, full_at=0.4, then=Cosine(0.1, 0.0)),
    CosLog(0.3),
    Sequence([Constant(0.1)], switch_at=[]),
    Sequence([Linear(0.1, 0.2), CosLog(0.3), Constant(0.0)], switch_at=[0.2, 0.7]),
    Scaled(CosLog(0.3), 2.5),
    Scaled(Sequence([Constant(0.1), Linear(0.4, 0.2)], switch_at=[0.5]), 0.5),
]
ALONE = [name for name, kind in SCHEDULES.items() if kind not in (Sequence, Scaled)]
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
        # log2(1 + 15 t) is a whole number at t = 0, 1/15, 3/15, 7/15, 1, and half of one in the middle of a wave
        (CosLog(0.2), {0: 0, 1 / 15: 0, 3 / 15: 0, 7 / 15: 0, 1: 0}),
        (CosLog(0.2), {(math.sqrt(2) * 2**k - 1) / 15: 0.2 for k in range(4)}),
        (CosLog(0.2), {(2 ** (k + 0.25) - 1) / 15: 0.1 for k in range(4)}),
        (Sequence([Constant(0.3), Linear(0.2, 0.0)], [0.6]), {0: 0.3, 0.59: 0.3, 0.6: 0.2, 0.8: 0.1, 1: 0.0}),
        (Sequence([TwoStage(0.3, 0.5), Constant(0.1)], [0.8]), {0.39: 0.3, 0.4: 0.0, 0.79: 0.0, 0.8: 0.1}),
        (Sequence([Constant(0.1), Constant(0.2)], [0.0]), {0: 0.2, 1: 0.2}),
        (Sequence([Constant(0.1), Linear(0.2, 0.3)], [1.0]), {0.99: 0.1, 1: 0.3}),
        (Scaled(Linear(0.2, 0.1), 0.5), {0: 0.1, 0.5: 0.075, 1: 0.05}),
        (Scaled(Linear(0.2, 0.1), 0), {0: 0, 1: 0}),
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
@pytest.mark.parametrize("name", ALONE)
def test_refuses_eps_out_of_range(name, eps):
    with pytest.raises(ValueError, match=r"must be in \[0, 1\)"):
        build_schedule(name, eps)


@pytest.mark.parametrize("name", ALONE)
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
        (lambda: build_schedule("sequence", 0.1), "is made of other schedules"),
        (lambda: Sequence([Constant(0.1)], [0.5]), "one point between each two schedules, got 1 for 1"),
        (lambda: Sequence([Constant(0.1)] * 3, [0.5, 0.2]), "switch_at must increase"),
        (lambda: Sequence([Constant(0.1), lambda t: 1 + t], [0.5]), "a schedule must return eps in"),
        (lambda: Scaled(Linear(0.2), 5), "factor must keep eps below 1"),
        (lambda: Scaled(Linear(0.2), -1), "factor must be at least 0"),
        (lambda: Scaled(Linear(0.2), math.nan), "factor must be at least 0"),
    ],
)
def test_refuses_what_contradicts(make, message):
    with pytest.raises(ValueError, match=message):
        make()


@pytest.mark.parametrize(
    "make",
    [
        lambda: Step(0.1, "0.5"),
        lambda: Warmup(0.1, then="linear"),
        lambda: TwoStage(0.1, "0.5"),
        lambda: Sequence(Linear(0.1)),
        lambda: Sequence([0.1, 0.2]),
        lambda: Sequence([Constant(0.1), Constant(0.2)], 0.5),
        lambda: Scaled(0.1, 2),
        lambda: Scaled(Linear(0.1), "2"),
    ],
)
def test_refuses_other_types(make):
    with pytest.raises(TypeError):
        make()


@pytest.mark.parametrize("schedule", ALL, ids=repr)
def test_the_peak_is_the_highest_eps(schedule):
    highest = max(schedule(k / 20000) for k in range(20001))
    assert highest <= peak(schedule) + 1e-12
    assert math.isclose(highest, peak(schedule), rel_tol=1e-5)


@given(switch=st.floats(0.01, 0.99), t=progress)
def test_a_sequence_of_parts_of_a_line_is_the_line(switch, t):
    whole = Linear(0.4, 0.1)
    parts = Sequence([Linear(0.4, whole(switch)), Linear(whole(switch), 0.1)], switch_at=[switch])
    assert math.isclose(parts(t), whole(t), abs_tol=1e-9)


def wave(t, height=0.2):
    return height * math.sin(math.pi * t)


def test_a_function_is_a_schedule_too():
    assert eps_at(wave, 0.5) == 0.2
    assert peak(wave) == 0.2
    assert curve(wave, points=2) == pytest.approx([0, 0.2, 0])
    assert Scaled(wave, 0.5)(0.5) == 0.1
    assert pickle.loads(pickle.dumps(Scaled(wave, 0.5))) == Scaled(wave, 0.5)


@pytest.mark.parametrize("answer", [1.0, -0.1, math.nan, math.inf, True, "0.1"])
def test_what_a_function_may_not_return(answer):
    with pytest.raises(ValueError, match=r"must return eps in \[0, 1\), got .* from <lambda> at progress 0.25"):
        eps_at(lambda t: answer, 0.25)


@pytest.mark.parametrize("answer", [None, [0.1, 0.2]])
def test_what_is_no_number_at_all(answer):
    with pytest.raises(TypeError, match="must return a number in"):
        eps_at(lambda t: answer, 0.25)


@pytest.mark.parametrize("feedback", [Feedback(), Feedback(0.0), Feedback(0.2, gain=0.1, per_class=True)], ids=repr)
def test_feedback_is_a_value_too(feedback):
    assert pickle.loads(pickle.dumps(feedback)) == feedback
    assert eval(repr(feedback)) == feedback
    assert hash(eval(repr(feedback))) == hash(feedback)


@given(eps=st.floats(0, 0.5), gap=st.floats(-1, 1), gain=st.floats(0.001, 100))
def test_feedback_turns_eps_the_way_of_the_gap_within_its_bounds(eps, gap, gain):
    after = Feedback(0.1, gain).next_eps(eps, gap)
    assert 0 <= after <= 0.5
    assert (after - eps) * gap >= 0


@pytest.mark.parametrize(("lag", "slope"), [(1.0, 0.9), (0.5, 0.9), (0.2, 0.9), (0.5, 4.0), (1.0, 3.9)])
@pytest.mark.parametrize("updates", [8, 16, 60, 500])
def test_the_usual_gain_settles_on_a_network_that_follows_slowly(lag, slope, updates):
    """The gap is slope (0.2 - eps) of an eps that the network has come to by a share ``lag`` of the way at a time."""
    feedback = Feedback(0.0)
    gain, eps, followed = feedback.gain_for(updates), 0.0, 0.0
    for _ in range(10 * updates):
        followed += lag * (eps - followed)
        eps = feedback.next_eps(eps, slope * (0.2 - followed), gain)
    assert eps == pytest.approx(0.2, abs=1e-3)


@pytest.mark.parametrize("lag", [0.1, 0.3, 0.7, 1.0])
@pytest.mark.parametrize(("share", "settles"), [(0.9, True), (1.1, False)])
def test_the_bound_of_stability(lag, share, settles):
    """As Feedback's docstring derives it, at slope 1."""
    gain, eps, followed = share * (4 / lag - 2), 0.21, 0.21
    for _ in range(300):
        followed += lag * (eps - followed)
        eps += gain * (0.2 - followed)
    assert (abs(eps - 0.2) < 1e-3) is settles


# What results call a schedule


class Ramp:
    """A schedule as a user writes one, without a repr."""

    def __init__(self, top, then=None):
        self.top, self.then = top, then

    def __call__(self, t):
        return self.top * t


def halved(t, top=0.2):
    return top * t / 2


@pytest.mark.parametrize(
    ("make", "name"),
    [
        (lambda: halved, "halved"),
        (lambda: partial(halved, top=0.4), "halved(top=0.4)"),
        (lambda: Ramp(0.3), "Ramp(top=0.3, then=None)"),
        (lambda: Ramp(0.3, halved), "Ramp(top=0.3, then=halved)"),
        (lambda: Ramp(0.3, Ramp(0.1)), "Ramp(top=0.3, then=Ramp(top=0.1, then=None))"),
        (lambda: Scaled(Ramp(0.3), 0.5), "Scaled(schedule=Ramp(top=0.3, then=None), factor=0.5)"),
        (
            lambda: Sequence([halved, Ramp(0.3)], [0.5]),
            "Sequence(schedules=(halved, Ramp(top=0.3, then=None)), switch_at=(0.5,))",
        ),
        (lambda: Warmup(0.1, then=Linear(0.1)), repr(Warmup(0.1, then=Linear(0.1)))),
        (lambda: Feedback(0.2, gain=0.1), "Feedback(start=0.2, gain=0.1)"),
    ],
)
def test_a_name_is_the_same_in_every_process_and_says_the_parameters(make, name):
    """Jobs of other seeds are found by it: an address in memory would set each apart."""
    assert name_of(make()) == name_of(make()) == name
