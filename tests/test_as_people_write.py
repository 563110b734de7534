"""Modules as people write them: what they log, what they only log, what cannot be measured."""

import lightning as L
import pytest
import torch
from nets import trainer as quiet_trainer
from torch import nn
from torch.nn import functional as F
from torch.utils.data import DataLoader, TensorDataset

import ls_lightning as ls

EPS = 0.2


class Net(L.LightningModule):
    def __init__(self):
        super().__init__()
        self.layer = nn.Linear(4, 3)

    def training_step(self, batch, batch_idx):
        return F.cross_entropy(self.layer(batch[0]), batch[1])

    def validation_step(self, batch, batch_idx):
        self.log("val_loss", F.cross_entropy(self.layer(batch[0]), batch[1]))

    def configure_optimizers(self):
        return torch.optim.SGD(self.parameters(), 0.1)


def fit(module, *callbacks, **kwargs):
    loader = DataLoader(TensorDataset(torch.randn(12, 4), torch.arange(12) % 3), 4)
    trainer = quiet_trainer(None, *callbacks, **{"max_epochs": 1, **kwargs})
    trainer.fit(module, loader, loader)
    return trainer


def test_what_the_module_logs_under_our_key_is_kept():
    class Logs(Net):
        def validation_step(self, batch, batch_idx):
            super().validation_step(batch, batch_idx)
            self.log("val/acc", torch.tensor(-1.0))

    monitor = ls.CalibrationMonitor()
    found = fit(Logs(), monitor).callback_metrics
    assert found["val/acc"] == -1
    assert 0 <= monitor.results["val"]["acc"] <= 1
    assert "val/ece" in found


def test_our_keys_are_those_of_the_last_epoch():
    monitor = ls.CalibrationMonitor()
    found = fit(Net(), monitor, max_epochs=3).callback_metrics
    assert found["val/nll"].item() == pytest.approx(monitor.results["val"]["nll"])
    assert found["val/nll"].item() == pytest.approx(found["val_loss"].item())


def test_a_cross_entropy_that_is_only_logged_is_kept():
    class Logs(Net):
        def training_step(self, batch, batch_idx):
            logits = self.layer(batch[0])
            with torch.no_grad():
                self.log("plain", F.cross_entropy(logits, batch[1]))
            self.right = -logits.detach().log_softmax(1).gather(1, batch[1][:, None]).mean().item()
            return F.cross_entropy(logits, batch[1])

    module, smoothing = Logs(), ls.LabelSmoothing(eps=EPS)
    found = fit(module, smoothing).callback_metrics
    assert smoothing.num_smoothed == 1
    assert found["plain"].item() == pytest.approx(module.right)


def test_the_environment_smooths_where_nothing_can_be_measured(monkeypatch):
    class TwoHeads(Net):
        def validation_step(self, batch, batch_idx):
            super().validation_step(batch, batch_idx)
            super().validation_step(batch, batch_idx)

    monkeypatch.setenv("LS_EPS", str(EPS))
    with pytest.warns(UserWarning, match="CalibrationMonitor measures nothing: .* calls 2 losses"):
        fit(TwoHeads())


def test_read_computes_in_the_precision_of_the_step():
    seen = []

    class Net16(Net):
        def validation_step(self, batch, batch_idx):
            seen.append(self.layer(batch[0]).dtype)

    def read(module, batch, outputs):
        logits = module.layer(batch[0])
        seen.append(logits.dtype)
        return logits, batch[1]

    fit(Net16(), ls.CalibrationMonitor(read=read), precision="bf16-mixed")
    assert set(seen) == {torch.bfloat16}
