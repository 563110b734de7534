import math

import pytest
import torch
from loss_family import draw
from torch._dynamo.testing import CompileCounter
from torch.testing import assert_close

from ls_lightning.functional.focal import focal_loss
from ls_lightning.losses import FocalLoss, MarginSmoothing

GAMMAS = torch.tensor([0.0, 1.0, 2.5, 5.0])


# focal


@pytest.mark.parametrize("rows", [4, 6])
def test_focal_gamma(rows):
    logits, index, _ = draw((rows, 4), dtype=torch.float32)
    assert_close(FocalLoss()(logits, index), focal_loss(logits, index, 3.0))
    assert_close(FocalLoss(gamma=2)(logits, index), focal_loss(logits, index, 2.0))
    for gamma in (GAMMAS, GAMMAS.tolist(), GAMMAS[None]):
        assert_close(FocalLoss(gamma=gamma)(logits, index), focal_loss(logits, index, GAMMAS[None]))
    each = torch.linspace(0, 4, rows)[:, None]
    assert_close(FocalLoss(gamma=each)(logits, index), focal_loss(logits, index, each))


def test_focal_gamma_keeps_its_dtype_and_stays_out_of_the_state_dict():
    loss = FocalLoss(gamma=torch.tensor([0.1, 0.2, 0.3])).half()
    assert_close(loss.gamma, torch.tensor([[0.1, 0.2, 0.3]]), rtol=0, atol=0)
    assert list(loss.state_dict()) == []
    assert "gamma=tensor(1, 3)" in repr(loss)
    assert repr(FocalLoss(gamma=2)).startswith("FocalLoss(eps=0, gamma=2.0, ")


def test_focal_refuses_eps():
    message = r"^loss=focal has gamma in the place of eps and takes eps=0, got 0.1. Use loss.gamma, e.g. 3.$"
    with pytest.raises(ValueError, match=message):
        FocalLoss(0.1)
    with pytest.raises(ValueError, match=message):
        FocalLoss().set_eps(0.1)
    FocalLoss().set_eps(0.0)


@pytest.mark.parametrize("gamma", [-1.0, math.nan, math.inf, [1.0, -0.5], torch.tensor([math.nan])])
def test_focal_refuses_a_bad_gamma(gamma):
    with pytest.raises(ValueError, match=r"gamma must be in \[0, inf\)"):
        FocalLoss(gamma=gamma)


@pytest.mark.parametrize("gamma", ["3", None, torch.tensor([1, 2])])
def test_focal_refuses_a_gamma_of_another_type(gamma):
    with pytest.raises(TypeError, match="gamma must be a number"):
        FocalLoss(gamma=gamma)


@pytest.mark.parametrize("options", [{}, {"gamma": GAMMAS}, {"gamma": 0.5, "reduction": "none", "weight": [1.0] * 4}])
def test_focal_compiles(options):
    torch._dynamo.reset()
    loss, counter = FocalLoss(**options), CompileCounter()
    compiled = torch.compile(loss, backend=counter, fullgraph=True)
    logits, index, _ = draw((6, 4), dtype=torch.float32)
    for _ in range(2):
        leaf, judge = logits.clone().requires_grad_(), logits.clone().requires_grad_()
        value, expected = compiled(leaf, index), loss(judge, index)
        assert_close(value, expected)
        value.sum().backward()
        expected.sum().backward()
        assert_close(leaf.grad, judge.grad)
    assert counter.frame_count == 1
    torch._dynamo.reset()


# margin


@pytest.mark.parametrize(("margin", "error"), [(-1.0, ValueError), (math.nan, ValueError), ("10", TypeError)])
def test_margin_refuses_a_bad_margin_at_once(margin, error):
    with pytest.raises(error, match="margin must be a number of at least 0"):
        MarginSmoothing(margin=margin)
