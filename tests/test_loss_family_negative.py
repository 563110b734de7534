import math
import pickle

import pytest
import torch
from loss_family import draw
from nets import Data, Net, trainer
from torch.nn import functional as F
from torch.testing import assert_close

import ls_lightning as ls
from ls_lightning.functional.negative import negative_smoothing
from ls_lightning.losses import NegativeSmoothing
from ls_lightning.schedules import Constant, Delayed


def test_the_module_is_the_function():
    logits, index, _ = draw((6, 4), dtype=torch.float32)
    loss = NegativeSmoothing(-1.5)
    assert_close(loss(logits, index), negative_smoothing(logits, index, -1.5))
    loss.set_eps(0.0)
    assert_close(loss(logits, index), F.cross_entropy(logits, index))
    per_class = torch.tensor([0.0, -0.4, -1.0, -6.0])
    assert_close(NegativeSmoothing(per_class)(logits, index), negative_smoothing(logits, index, per_class[None]))


@pytest.mark.parametrize("eps", [0.1, math.nan, -math.inf, torch.tensor(0.1), [-0.1, 0.2]])
def test_refuses_other_eps(eps):
    with pytest.raises(ValueError, match=r"eps must be in \(-inf, 0\]"):
        NegativeSmoothing(eps)
    if not isinstance(eps, list):
        with pytest.raises(ValueError, match=r"eps must be in \(-inf, 0\]"):
            NegativeSmoothing(-0.4).set_eps(eps)


@pytest.mark.parametrize("warmup", [0.0, 1.0, -0.5, math.nan])
def test_refuses_a_warmup_that_is_none(warmup):
    with pytest.raises(ValueError, match=r"warmup must be a share of training in \(0, 1\)"):
        NegativeSmoothing(warmup=warmup)


@pytest.mark.parametrize(
    "options",
    [
        {"loss": "negative"},
        {"loss": "negative", "eps": -0.4},
        {"loss": "negative", "schedule": "linear"},
        {"loss": NegativeSmoothing(-0.4)},
        {"loss": NegativeSmoothing(-0.4), "schedule": lambda progress: -0.4},
        {"loss": NegativeSmoothing(-0.4), "schedule": Constant(0.1)},
    ],
)
def test_does_not_start_without_a_warm_up(options):
    with pytest.raises(ValueError, match="loss=negative needs a warm-up of plain cross-entropy") as caught:
        ls.LabelSmoothing(**options)
    assert "\n" not in str(caught.value)


def test_refuses_two_warm_ups_and_an_eps_that_no_schedule_can_write():
    with pytest.raises(ValueError, match=r"give warmup or a schedule, got warmup=0.5 and Delayed"):
        ls.LabelSmoothing(loss=NegativeSmoothing(-0.4, warmup=0.5), schedule=Delayed(-0.4, 0.3))
    with pytest.raises(ValueError, match=r"eps of NegativeSmoothing must be a number"):
        ls.LabelSmoothing(loss=NegativeSmoothing([-0.4, -0.5], warmup=0.5))


@pytest.mark.parametrize(
    "options",
    [
        {"loss": NegativeSmoothing(-0.4, warmup=0.5)},
        {"loss": NegativeSmoothing(-0.4, warmup=0.5), "schedule": Delayed(-0.4, 0.5)},
        {"loss": "negative", "schedule": Delayed(-0.4, 0.5)},
        {"loss": "negative", "schedule": lambda progress: -0.4 * (progress >= 0.5)},
    ],
)
def test_trains_plainly_first(tmp_path, options):
    net = Net()
    trainer(tmp_path, ls.LabelSmoothing(**options)).fit(net, datamodule=Data())
    judge, data = Net(), Data()
    optimizer = torch.optim.SGD(judge.parameters(), lr=0.5)
    losses = []
    for epoch in range(2):
        for x, y in data.train_dataloader():
            optimizer.zero_grad()
            z = judge(x)
            plain = F.cross_entropy(z, y)
            loss = 1.4 * plain - 0.4 * -z.log_softmax(1).mean() if epoch else plain
            loss.backward()
            optimizer.step()
            losses.append(loss.item())
    assert net.seen == pytest.approx(losses, rel=1e-6)


def test_delayed_is_a_value():
    schedule = Delayed(-0.4, 0.5)
    assert [schedule(t) for t in (0, 0.49, 0.5, 1)] == [0, 0, -0.4, -0.4]
    assert pickle.loads(pickle.dumps(schedule)) == schedule == eval(repr(schedule))
    with pytest.raises(ValueError, match="progress must be in"):
        schedule(1.1)
    for eps in (1.0, math.nan, -math.inf):
        with pytest.raises(ValueError, match="eps must be a number below 1"):
            Delayed(eps, 0.5)
    with pytest.raises(TypeError, match="eps must be a number below 1"):
        Delayed("0.1", 0.5)
    with pytest.raises(ValueError, match="start_at must be a share"):
        Delayed(-0.4, 1.5)
