"""``LS_EPS=0.1 python their_train.py``: as a user does it, in both namespaces of Lightning."""

import os
import subprocess
import sys

import pytest

from ls_lightning.autoload import callbacks_from_environment
from ls_lightning.schedules import Constant, Linear

THEIRS = """
import sys
import torch
from torch.nn.functional import cross_entropy
if sys.argv[1] == "lightning":
    import lightning as L
else:
    import pytorch_lightning as L

class Net(L.LightningModule):
    def __init__(self):
        super().__init__()
        torch.manual_seed(0)
        self.layer = torch.nn.Linear(4, 3)
    def training_step(self, batch, batch_idx):
        loss = cross_entropy(self.layer(batch[0]), batch[1])
        print("loss", loss.item())
        return loss
    def validation_step(self, batch, batch_idx):
        self.log("theirs", cross_entropy(self.layer(batch[0]), batch[1]))
    def configure_optimizers(self):
        return torch.optim.SGD(self.parameters(), lr=0.1)

torch.manual_seed(1)
x, y = torch.randn(8, 4), torch.arange(8) % 3
loader = torch.utils.data.DataLoader(torch.utils.data.TensorDataset(x, y), 8)
quiet = dict(enable_progress_bar=False, enable_model_summary=False, logger=False, enable_checkpointing=False)
trainer = L.Trainer(max_epochs=2, accelerator="cpu", devices=1, **quiet)
net = Net()
print("judge", torch.nn.functional.cross_entropy(net.layer(x), y, label_smoothing=0.3).item())
trainer.fit(net, loader, loader)
print("keys", sorted(k for k in trainer.callback_metrics if k.startswith(("ls/", "val/"))))
"""


def run(tmp_path, namespace, **env):
    (tmp_path / "their_train.py").write_text(THEIRS)
    done = subprocess.run(
        [sys.executable, "their_train.py", namespace],
        cwd=tmp_path,
        env={**os.environ, **env},
        capture_output=True,
        text=True,
        timeout=200,
    )
    lines = [line.split(" ", 1) for line in done.stdout.splitlines() if " " in line]
    return done, lines


@pytest.mark.slow
@pytest.mark.parametrize("namespace", ["lightning", "pytorch_lightning"])
def test_smooths_a_script_that_nobody_edited(tmp_path, namespace):
    done, lines = run(tmp_path, namespace, LS_EPS="0.3")
    assert done.returncode == 0, done.stderr
    values = dict(reversed([line for line in lines if line[0] in ("loss", "judge", "keys")]))
    assert float(values["loss"]) == pytest.approx(float(values["judge"]), rel=1e-6)
    assert "'ls/eps'" in values["keys"]
    assert "'val/ece'" in values["keys"]
    assert done.stderr.count("ls_lightning: LS_EPS=0.3 adds LabelSmoothing") == 1


@pytest.mark.slow
def test_inert_without_a_variable(tmp_path):
    done, lines = run(tmp_path, "lightning")
    assert done.returncode == 0, done.stderr
    assert "ls_lightning" not in done.stderr
    assert ["keys", "[]"] in lines


def test_importing_the_entry_point_is_cheap():
    code = (
        "import sys; import ls_lightning.autoload as a; a.callbacks_from_environment({}); print('torch' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True).stdout.strip() == "False"


def test_what_the_variables_mean():
    smoothing, _ = callbacks_from_environment({"LS_LOSS": "kl", "LS_SCHEDULE": "linear:0.2:0.1"})
    assert (smoothing.loss, smoothing.schedule, smoothing.target) == ("kl", Linear(0.2, 0.1), "auto")
    smoothing, _ = callbacks_from_environment({"LS_EPS": "0.2", "LS_SCHEDULE": "linear", "LS_TARGET": "criterion"})
    assert (smoothing.schedule, smoothing.target) == (Linear(0.2, 0.0), "criterion")
    smoothing, _ = callbacks_from_environment({"LS_EPS": "0.2"})
    assert smoothing.schedule == Constant(0.2)
    assert callbacks_from_environment({"LS_EPS": ""}) == []


@pytest.mark.parametrize(
    ("environ", "message"),
    [
        ({"LS_EPS": "much"}, "LS_EPS must be a number"),
        ({"LS_EPS": "1.5"}, r"eps must be in \[0, 1\), got 1.5"),
        ({"LS_LOSS": "typo"}, "loss must be one of"),
        ({"LS_SCHEDULE": "typo"}, "schedule must be one of"),
        ({"LS_SCHEDULE": "linear:a:0"}, "LS_SCHEDULE must be a number"),
        ({"LS_EPS": "0.1", "LS_SCHEDULE": "linear:0.2:0"}, "give eps or a schedule"),
    ],
)
def test_bad_values(environ, message):
    with pytest.raises(ValueError, match=message):
        callbacks_from_environment(environ)
