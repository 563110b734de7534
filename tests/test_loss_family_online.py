import copy
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from lightning.pytorch.callbacks import Callback, ModelCheckpoint
from loss_family import draw
from nets import CLASSES, Data, Net, trainer
from torch._dynamo.testing import CompileCounter
from torch.nn import functional as F
from torch.testing import assert_close

import ls_lightning as ls
from ls_lightning.losses import OnlineLabelSmoothing

K = 4


def by_hand(batches, eps, smoothing, epochs, ignore=-100):
    """Losses of each batch and the matrix after the epochs, in float64, sample by sample."""
    matrix = (1 - smoothing) * torch.eye(K, dtype=torch.float64) + smoothing / K
    losses = []
    for _ in range(epochs):
        sums, counts = torch.zeros(K, K, dtype=torch.float64), [0] * K
        for logits, target in batches:
            total, n = 0.0, 0
            for z, y in zip(logits.double(), target.tolist(), strict=True):
                if y == ignore:
                    continue
                lp = z.log_softmax(0)
                total, n = total - (1 - eps) * lp[y] - eps * (matrix[y] * lp).sum(), n + 1
                if int(z.argmax()) == y:
                    sums[y] += lp.exp()
                    counts[y] += 1
            losses.append(total / n)
        matrix = torch.stack([sums[k] / counts[k] if counts[k] else matrix[k] for k in range(K)])
    return torch.stack(losses), matrix


def batches(seed=0):
    """The class 3 is never right in the first batch."""
    found = []
    for s in range(3):
        logits, index, _ = draw((6, K), seed=seed + s, dtype=torch.float32)
        found.append((logits, index))
    return found


def run(loss, data, epochs):
    losses = []
    for epoch in range(epochs):
        loss.start_epoch(epoch)
        losses += [loss(*batch) for batch in data]
    return torch.stack(losses)


@pytest.mark.parametrize("eps", [0.0, 0.5, 0.9])
@pytest.mark.parametrize("num_classes", [None, K])
def test_definition(eps, num_classes):
    data = batches()
    data[1][1][2] = -100
    expected, matrix = by_hand(data, eps, 0.2, 3)
    loss = OnlineLabelSmoothing(eps, num_classes=num_classes, smoothing=0.2)
    assert_close(run(loss, data, 3).double(), expected, rtol=1e-6, atol=1e-6)
    loss.start_epoch(3)
    assert_close(loss.matrix.double(), matrix, rtol=1e-6, atol=1e-7)
    assert_close(loss.matrix.sum(1), torch.ones(K))


def test_eps_0_is_cross_entropy_in_every_epoch():
    data = batches()
    expected = torch.stack([F.cross_entropy(*batch) for batch in data] * 2)
    assert_close(run(OnlineLabelSmoothing(0.0), data, 2), expected)


def test_a_class_without_a_right_sample_keeps_its_row():
    logits = torch.tensor([[2.0, 0.0, 0.0], [0.0, 0.0, 2.0]])
    loss = OnlineLabelSmoothing(smoothing=0.3)
    loss(logits, torch.tensor([0, 1]))
    before = loss.matrix.clone()
    loss.start_epoch(1)
    assert_close(loss.matrix[0], logits[0].softmax(0))
    assert_close(loss.matrix[1:], before[1:], rtol=0, atol=0)


def test_the_split_into_batches_changes_no_bit():
    (a, y), (b, w), _ = batches()
    one, two = OnlineLabelSmoothing(), OnlineLabelSmoothing()
    one(torch.cat([a, b]), torch.cat([y, w]))
    two(b, w)
    two(a, y)
    for loss in (one, two):
        loss.start_epoch(1)
    assert_close(one.matrix, two.matrix, rtol=0, atol=0)


def test_dense_distributions_and_log_probabilities():
    logits, index, _ = draw((3, K, 5), dtype=torch.float32)
    flat, dense, hot, logp = (OnlineLabelSmoothing() for _ in range(4))
    one_hot = F.one_hot(index, K).movedim(-1, 1).float()
    expected = flat(logits.movedim(1, -1).flatten(0, 1), index.flatten())
    assert_close(dense(logits, index), expected)
    assert_close(hot(logits, one_hot), expected)
    assert_close(logp(logits.log_softmax(1), index, input="log_probs"), expected)
    for loss in (flat, dense, hot, logp):
        loss.start_epoch(1)
        assert_close(loss.matrix, flat.matrix)


def test_what_is_not_counted():
    (logits, index), *_ = batches()
    loss = OnlineLabelSmoothing().eval()
    loss(logits, index)
    assert loss.counts.sum() == 0
    loss.train()
    loss(logits, torch.full_like(index, -100))
    assert loss.counts.sum() == 0
    assert loss.sums.sum() == 0


def test_masked_classes_stay_finite():
    logits = torch.tensor([[2.0, 0.0, -torch.inf], [0.0, 3.0, -torch.inf]], requires_grad=True)
    loss = OnlineLabelSmoothing()
    for epoch in range(2):
        loss.start_epoch(epoch)
        value = loss(logits, torch.tensor([0, 1]))
        value.backward()
        assert value.isfinite()
    assert logits.grad.isfinite().all()
    assert_close(loss.matrix[:2, 2], torch.zeros(2))


def test_state_dict_goes_into_a_new_module():
    data = batches()
    loss = OnlineLabelSmoothing(0.5)
    run(loss, data, 2)
    for fresh in (OnlineLabelSmoothing(0.5), OnlineLabelSmoothing(0.5, num_classes=K)):
        fresh.load_state_dict(copy.deepcopy(loss.state_dict()))
        fresh.start_epoch(1)
        assert_close(fresh.sums, loss.sums, rtol=0, atol=0)
        assert_close(run_on(fresh, data), run_on(copy.deepcopy(loss), data), rtol=0, atol=0)


def run_on(loss, data):
    loss.start_epoch(2)
    return torch.stack([loss(*batch) for batch in data])


def test_casting_leaves_the_matrix_alone():
    loss = OnlineLabelSmoothing(num_classes=K).half()
    assert loss.matrix.dtype == torch.float32
    assert loss.sums.dtype == torch.int64


@pytest.mark.parametrize("options", [{"smoothing": 1.1}, {"smoothing": -0.1}, {"num_classes": 1}])
def test_refuses(options):
    with pytest.raises(ValueError, match="must be"):
        OnlineLabelSmoothing(**options)


def test_two_heads_of_different_size():
    loss = OnlineLabelSmoothing()
    loss(torch.zeros(2, 3), torch.tensor([0, 1]))
    with pytest.raises(ValueError, match=r"prior must be \(K,\) or \(K, K\) for logits"):
        loss(torch.zeros(2, 4), torch.tensor([0, 1]))


def test_compiles_without_recompiling_as_the_epochs_go():
    torch._dynamo.reset()
    counter = CompileCounter()
    data = batches()
    loss, judge = OnlineLabelSmoothing(num_classes=K), OnlineLabelSmoothing(num_classes=K)
    compiled = torch.compile(loss, backend=counter, fullgraph=True)
    for epoch in range(3):
        loss.start_epoch(epoch)
        judge.start_epoch(epoch)
        for batch in data:
            assert_close(compiled(*batch), judge(*batch))
    assert counter.frame_count == 1
    torch._dynamo.reset()


# Through the tap


class Watch(Callback):
    """What the loss has learnt as each batch begins, by epoch and batch."""

    def __init__(self, smoothing):
        self.smoothing = smoothing
        self.seen = {}

    def on_train_batch_start(self, trainer, pl_module, batch, batch_idx):
        loss = self.smoothing._calls.loss
        if loss.matrix is not None:
            state = loss.matrix.clone(), loss.sums.clone(), loss.counts.clone()
            self.seen[trainer.current_epoch, batch_idx] = state


def fit(folder, net, ckpt_path=None, callbacks=(), **options):
    smoothing = ls.LabelSmoothing(loss="online", eps=0.5)
    watch = Watch(smoothing)
    t = trainer(folder, smoothing, watch, *callbacks, max_epochs=3, **options)
    t.fit(net, datamodule=Data(), ckpt_path=ckpt_path, weights_only=False)
    return net, smoothing, watch


def test_trains_an_unmodified_module(tmp_path):
    """As a loop that calls start_epoch itself."""
    net, smoothing, _ = fit(tmp_path, Net())
    judge, loss, data = Net(), OnlineLabelSmoothing(0.5), Data()
    optimizer = torch.optim.SGD(judge.parameters(), lr=0.5)
    losses = []
    for epoch in range(3):
        loss.start_epoch(epoch)
        for x, y in data.train_dataloader():
            optimizer.zero_grad()
            value = loss(judge(x), y)
            value.backward()
            optimizer.step()
            losses.append(value.item())
    assert net.seen == pytest.approx(losses, rel=1e-9)
    assert_close(smoothing._calls.loss.matrix, loss.matrix, rtol=0, atol=0)
    assert smoothing._calls.loss.matrix.shape == (CLASSES, CLASSES)


def test_resumes_exactly_from_the_end_of_an_epoch(tmp_path):
    keep = ModelCheckpoint(tmp_path, filename="{step}", save_top_k=-1)
    net, _, watch = fit(tmp_path, Net(), callbacks=[keep], enable_checkpointing=True)
    for step in (6, 12):
        again, _, seen = fit(tmp_path, Net(), ckpt_path=tmp_path / f"step={step}.ckpt")
        assert_close(list(again.parameters()), list(net.parameters()), rtol=0, atol=0)
        at = next(iter(seen.seen))
        assert_close(seen.seen[at], watch.seen[at], rtol=0, atol=0)


def test_goes_on_counting_in_the_middle_of_an_epoch(tmp_path):
    """The order of the data is not Lightning's to restore; what was counted is ours."""
    keep = ModelCheckpoint(tmp_path, filename="{step}", save_top_k=-1, every_n_train_steps=4)
    _, _, watch = fit(tmp_path, Net(), callbacks=[keep], enable_checkpointing=True)
    for step in (4, 8):
        _, _, seen = fit(tmp_path, Net(), ckpt_path=tmp_path / f"step={step}.ckpt")
        at = divmod(step, 6)
        matrix, sums, counts = seen.seen[at]
        assert next(iter(seen.seen)) == at
        assert counts.sum() > 0
        assert_close((matrix, sums, counts), watch.seen[at], rtol=0, atol=0)


def test_a_second_fit_begins_anew(tmp_path):
    smoothing = ls.LabelSmoothing(loss=OnlineLabelSmoothing(0.5))
    seen = []
    for _ in range(2):
        net = Net()
        trainer(tmp_path, smoothing).fit(net, datamodule=Data())
        seen.append(net.seen)
    assert seen[0] == seen[1]


@pytest.mark.slow
@pytest.mark.ddp
def test_a_checkpoint_of_an_exception_on_two_ranks_says_what_it_lacks(tmp_path):
    """The other rank cannot be asked then; what is lost are its counts of one epoch, and a resumed run says so."""
    script = Path(__file__).with_name("online_broken_ddp.py")
    for what in (["break"], ["resume", "whole"]):
        command = [sys.executable, str(script), str(tmp_path), *what]
        done = subprocess.run(command, capture_output=True, text=True, timeout=500)
        assert done.returncode == 0, done.stderr[-3000:]
    first, second = (torch.load(tmp_path / f"break{rank}.pt", weights_only=False) for rank in range(2))
    saved = torch.load(tmp_path / "break.ckpt", weights_only=False)["ls_lightning.loss"]
    assert second["counts"].sum() > 0
    assert saved["part"]
    assert_close(saved["counts"], first["counts"])
    resumed, other = (torch.load(tmp_path / f"resume{rank}.pt", weights_only=False) for rank in range(2))
    assert_close(resumed["matrix"], other["matrix"], rtol=0, atol=0)
    assert any("of epoch 1 loss=online has what rank 0 counted alone" in one for one in resumed["said"])
    whole = torch.load(tmp_path / "whole0.pt", weights_only=False)
    assert not any("rank 0 counted alone" in one for one in whole["said"])
    assert "part" not in torch.load(tmp_path / "whole.ckpt", weights_only=False)["ls_lightning.loss"]
