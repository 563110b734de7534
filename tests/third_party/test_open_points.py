"""What does not work yet with modules as people write them; each test says what should be."""

import lightning as L
import pytest
import torch
from theirs import EPS, Training
from torch import nn
from torch.nn import functional as F
from torch.utils.data import DataLoader, TensorDataset

import ls_lightning as ls

pytestmark = pytest.mark.third_party


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
    trainer = Training().trainer([*callbacks], max_epochs=1, **kwargs)
    trainer.fit(module, loader, loader)
    return trainer


@pytest.mark.xfail(strict=True, reason="the key of the module is overwritten, in callback_metrics and in the loggers")
def test_what_the_module_logs_under_our_key_is_kept():
    """As lightning-hydra-template does: self.log("val/acc", ...). An error or a prefix would do as well."""

    class Logs(Net):
        def validation_step(self, batch, batch_idx):
            super().validation_step(batch, batch_idx)
            self.log("val/acc", torch.tensor(-1.0))

    assert fit(Logs(), ls.CalibrationMonitor()).callback_metrics["val/acc"] == -1


@pytest.mark.xfail(strict=True, reason="a loss that trains nothing is smoothed")
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


@pytest.mark.xfail(strict=True, reason="the CalibrationMonitor that LS_EPS adds stops a script that nobody may edit")
def test_the_environment_smooths_where_nothing_can_be_measured(monkeypatch):
    """A warning would do, or LS_MONITOR=0. Met with pytorch-tabular and two targets, and deeptab's TabM."""

    class TwoHeads(Net):
        def validation_step(self, batch, batch_idx):
            super().validation_step(batch, batch_idx)
            super().validation_step(batch, batch_idx)

    monkeypatch.setenv("LS_EPS", str(EPS))
    fit(TwoHeads())


@pytest.mark.xfail(strict=True, reason="read is called outside of the precision's context")
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
