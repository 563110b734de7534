"""How sure a model is of input that belongs to none of its classes; scikit-learn and a softmax in float64 judge."""

import json
import math
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from nets import Data, LogProbNet, Net, trainer
from sklearn.metrics import roc_auc_score, roc_curve
from torch import nn
from torch.utils.data import DataLoader, DistributedSampler, TensorDataset

import ls_lightning as ls
from ls_lightning.functional.detection import detection_auroc, detection_fpr

CLOSE = {"abs": 1e-12}


def judged(known, unknown):
    """AUROC, and the false positive rate at the first threshold that 95 % of the known pass."""
    scores, labels = np.concatenate([known, unknown]), np.repeat([1, 0], [len(known), len(unknown)])
    fpr, tpr, _ = roc_curve(labels, scores, drop_intermediate=False)
    return roc_auc_score(labels, scores), fpr[np.argmax(tpr >= 0.95 - 1e-12)]


several = st.lists(st.integers(-3, 3), min_size=1, max_size=60)  # with ties


@settings(deadline=None)
@given(several, several)
def test_the_functions_are_those_of_sklearn(known, unknown):
    auroc, fpr = judged(known, unknown)
    known, unknown = torch.tensor(known).double(), torch.tensor(unknown).double()
    assert detection_auroc(known, unknown) == pytest.approx(auroc, **CLOSE)
    assert detection_fpr(known, unknown) == pytest.approx(fpr, **CLOSE)
    assert detection_auroc(unknown, known) == pytest.approx(1 - auroc, **CLOSE)


def test_what_cannot_be_compared():
    some, none = torch.ones(3), torch.ones(0)
    for known, unknown in ((some, none), (none, some), (some, torch.tensor([1.0, math.nan]))):
        assert math.isnan(detection_auroc(known, unknown))
        assert math.isnan(detection_fpr(known, unknown))
    for tpr in (0.0, 1.1, math.nan):
        with pytest.raises(ValueError, match=r"tpr must be in \(0, 1\], got"):
            detection_fpr(some, some, tpr)


class WithUnknown(Data):
    """And 30 inputs that belong to no class, in batches of 7."""

    def __init__(self, n=53, target=None):
        super().__init__(n, target=target)
        x = torch.randn(30, 6, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
        self.unknown_set = TensorDataset(x, target(torch.zeros(30)) if target else torch.zeros(30, dtype=torch.int64))

    def ood_dataloader(self):
        return DataLoader(self.unknown_set, 7)


def knowing(net):
    """The module with weights that tell the classes of the data, too surely."""
    with torch.no_grad():
        net.layer.weight.copy_(3 * torch.eye(*net.layer.weight.shape))
        net.layer.bias.zero_()
    return net


def logits(net, dataset):
    with torch.no_grad():
        return net.layer(dataset.tensors[0]).numpy()


def wanted(z_known, z_unknown, temperature=1.0):
    """The values of maximum softmax probability and largest logit."""
    known, unknown = (torch.tensor(z / temperature).softmax(1).amax(1).numpy() for z in (z_known, z_unknown))
    (auroc, fpr), (auroc_max, fpr_max) = judged(known, unknown), judged(z_known.max(1), z_unknown.max(1))
    found = {"oos_confidence": unknown.mean(), "oos_n": len(unknown), "oos_auroc": auroc, "oos_fpr95": fpr}
    return found if temperature != 1 else {**found, "oos_auroc_max_logit": auroc_max, "oos_fpr95_max_logit": fpr_max}


def test_the_values_plain_and_with_a_temperature(tmp_path):
    data, net = WithUnknown(), knowing(Net())
    unknown, scaling = ls.OutOfScope(), ls.TemperatureScaling()
    t = trainer(tmp_path, ls.CalibrationMonitor(), scaling, unknown)
    t.validate(net, datamodule=data, verbose=False)
    t.test(net, datamodule=data, verbose=False)
    both = logits(net, data.set), logits(net, data.unknown_set)
    assert unknown.results["test"] == pytest.approx(wanted(*both), **CLOSE)
    temperature = float(torch.tensor(scaling.temperature))  # divided by in float32
    assert unknown.results["test_scaled"] == pytest.approx(wanted(*both, temperature), abs=1e-7)
    assert unknown.results["test"]["oos_auroc"] != unknown.results["test"]["oos_auroc_max_logit"]
    assert t.callback_metrics["test_scaled/oos_fpr95"] == unknown.results["test_scaled"]["oos_fpr95"]
    alone = ls.OutOfScope(data.ood_dataloader())
    trainer(tmp_path, alone).test(net, DataLoader(data.set, 8), verbose=False)
    assert alone.results == {"test": unknown.results["test"]}


def test_the_rest_of_the_test_is_left_as_it_was(tmp_path):
    """The same metrics, and the module's own log without the unknown input."""
    found = []
    for data in (Data(53), WithUnknown()):
        monitor, unknown, t = ls.CalibrationMonitor(), ls.OutOfScope(), None
        t = trainer(tmp_path, monitor, unknown)
        t.test(Net(), datamodule=data, verbose=False)
        found.append({**monitor.results["test"], "own": t.callback_metrics["author_loss"].item()})
        assert bool(unknown.results) == isinstance(data, WithUnknown)
    assert found[0] == found[1]


def test_a_sure_model_has_an_order_still(tmp_path):
    """Where float32 rounds every confidence to 1."""
    net = knowing(Net(dtype=torch.float32))
    x = 20 + torch.arange(40.0)
    inputs = torch.cat([x[:, None], torch.zeros(40, 5)], 1)
    known, unknown = (TensorDataset(rows, torch.zeros(len(rows)).long()) for rows in (inputs[20:], inputs[:20]))
    assert torch.equal(inputs.softmax(1).amax(1), torch.ones(40))
    callback = ls.OutOfScope(DataLoader(unknown, 8))
    trainer(tmp_path, callback).test(net, DataLoader(known, 8), verbose=False)
    assert callback.results["test"]["oos_auroc"] == 1
    assert callback.results["test"]["oos_fpr95"] == 0


def test_one_logit_and_log_probabilities(tmp_path):
    data = WithUnknown(target=lambda y: (y > 2).double()[:, None])
    net, unknown = Net(nn.BCEWithLogitsLoss(), classes=1), ls.OutOfScope()
    trainer(tmp_path, unknown).test(net, datamodule=data, verbose=False)
    both = (torch.tensor(logits(net, one)).sigmoid().numpy()[:, 0] for one in (data.set, data.unknown_set))
    known, strange = (np.maximum(p, 1 - p) for p in both)
    auroc, fpr = judged(known, strange)
    values = {"oos_confidence": strange.mean(), "oos_n": 30, "oos_auroc": auroc, "oos_fpr95": fpr}
    assert unknown.results["test"] == pytest.approx(values, **CLOSE)

    data, net, unknown = WithUnknown(), LogProbNet(), ls.OutOfScope()
    trainer(tmp_path, unknown).test(net, datamodule=data, verbose=False)
    expected = wanted(logits(net, data.set), logits(net, data.unknown_set))
    for name in ("oos_confidence", "oos_auroc", "oos_fpr95"):
        assert unknown.results["test"][name] == pytest.approx(expected[name], **CLOSE)


def test_what_it_cannot_measure(tmp_path):
    data = WithUnknown(target=lambda y: torch.zeros(len(y), 5).double())
    with pytest.raises(ValueError, match="one class each, got a multi-label loss"):
        trainer(tmp_path, ls.OutOfScope()).test(Net(nn.BCEWithLogitsLoss()), datamodule=data, verbose=False)
    data = WithUnknown()
    spread = DataLoader(data.unknown_set, 7, sampler=DistributedSampler(data.unknown_set, 2, 0))
    with pytest.raises(ValueError, match="got a loader with a DistributedSampler"):
        trainer(tmp_path, ls.OutOfScope(spread)).test(Net(), datamodule=data, verbose=False)


def on_ranks(folder, devices):
    """What this file does as a script: each rank writes down what it found."""
    unknown, scaling = ls.OutOfScope(), ls.TemperatureScaling()
    options = {"devices": devices, "strategy": "ddp"} if devices > 1 else {}
    t = trainer(folder, scaling, unknown, **options)
    t.validate(Net(), datamodule=WithUnknown(), verbose=False)
    t.test(Net(), datamodule=WithUnknown(), verbose=False)
    values = {stage: {name: value.hex() for name, value in one.items()} for stage, one in unknown.results.items()}
    Path(folder, f"{os.environ.get('LOCAL_RANK', 0)}.json").write_text(json.dumps(values))


@pytest.mark.slow
@pytest.mark.ddp
def test_ranks_find_the_same_to_the_last_bit(tmp_path):
    """53 samples on 2 ranks: the sampler repeats one."""
    done = subprocess.run(
        [sys.executable, __file__, str(tmp_path)],
        env={**os.environ, "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    found = [json.loads((tmp_path / f"{rank}.json").read_text()) for rank in range(2)]
    on_ranks(tmp_path, 1)
    assert found == [json.loads((tmp_path / "0.json").read_text())] * 2


if __name__ == "__main__":
    on_ranks(sys.argv[1], 2)
