"""Feedback drives every loss whose eps a schedule can move, and says which it cannot."""

import pytest
import torch
from nets import CLASSES, Data, Net, trainer

import ls_lightning as ls
from ls_lightning.losses import FocalLoss, MarginSmoothing, NegativeSmoothing, OnlineLabelSmoothing, PriorSmoothing
from ls_lightning.schedules import Feedback

DRIVEN = {
    "prior": lambda: "prior",
    "prior of a matrix": lambda: PriorSmoothing(prior=torch.full((CLASSES, CLASSES), 1 / CLASSES)),
    "online": lambda: "online",
    "online of a size": lambda: OnlineLabelSmoothing(num_classes=CLASSES),
    "margin": lambda: MarginSmoothing(margin=0.5),
    "confidence_penalty": lambda: "confidence_penalty",
    "max_suppression": lambda: "max_suppression",
    "relaxation": lambda: "relaxation",
}


class Seen(ls.CalibrationMonitor):
    """The gap of each validation of a fit, as the monitor has it."""

    def __init__(self):
        super().__init__()
        self.gaps = []

    def on_validation_epoch_end(self, trainer, pl_module):
        super().on_validation_epoch_end(trainer, pl_module)
        self.gaps.append(self.results["val"]["gap"])


def expected(gaps, schedule):
    """eps of each epoch after the first, by the formula."""
    found, eps = [], schedule.start
    for gap in gaps:
        eps = min(max(eps + schedule.gain * gap, 0.0), schedule.eps_max)
        found.append(eps)
    return found


@pytest.mark.parametrize("per_class", [False, True])
@pytest.mark.parametrize("name", DRIVEN)
def test_the_gap_moves_the_eps_of_the_loss(tmp_path, name, per_class):
    schedule = Feedback(start=0.2, gain=0.5, per_class=per_class)
    smoothing, seen, net = ls.LabelSmoothing(DRIVEN[name](), schedule=schedule), Seen(), Net()
    trainer(tmp_path, smoothing, seen, max_epochs=3).fit(net, datamodule=Data())
    loop, loss = smoothing.feedback, smoothing._calls.loss
    assert loop.updates == 3
    assert torch.tensor(net.seen).isfinite().all()
    if per_class:
        assert loss.eps.shape == (CLASSES,)
        assert len(set(loop.eps)) > 1
        return
    curve = expected(seen.gaps, schedule)
    assert loop.eps == pytest.approx(curve[-1:], abs=1e-9)
    assert float(loss.eps) == pytest.approx(curve[-2], abs=1e-6)  # of the last epoch that was trained
    assert abs(curve[-2] - schedule.start) > 1e-3


@pytest.mark.parametrize("name", ["prior", "online", "margin"])
def test_eps_of_feedback_is_that_of_the_training_loss(tmp_path, name):
    """Two runs whose eps differs from the second epoch on have the same losses before, and others after."""
    seen = {}
    for gain in (1e-9, 0.5):
        net, smoothing = Net(), ls.LabelSmoothing(DRIVEN[name](), schedule=Feedback(start=0.2, gain=gain))
        trainer(tmp_path, smoothing).fit(net, datamodule=Data())
        seen[gain] = net.seen
    held, moved = seen.values()
    assert held[:6] == moved[:6]
    assert held[6] != pytest.approx(moved[6], rel=1e-4)


@pytest.mark.parametrize(
    ("loss", "message"),
    [
        ("focal", "loss='focal' takes no eps, so there is nothing for schedule='feedback' to move."),
        ("none", "loss='none' takes no eps, so there is nothing for schedule='feedback' to move."),
        (FocalLoss(), "loss=focal has gamma in the place of eps and takes eps=0, got 0.5. Use loss.gamma, e.g. 3."),
        (NegativeSmoothing(-0.4), "loss=negative needs a warm-up of plain cross-entropy"),
        (NegativeSmoothing(-0.4, warmup=0.5), "loss=negative needs a warm-up of plain cross-entropy"),
    ],
)
def test_a_loss_that_it_cannot_drive_is_refused_with_one_line(loss, message):
    with pytest.raises(ValueError) as caught:
        ls.LabelSmoothing(loss, schedule="feedback")
    assert str(caught.value).startswith(message)
    assert "\n" not in str(caught.value)
