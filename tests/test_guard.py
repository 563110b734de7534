"""Ranks that were given different settings never train: the sweep that is silently wrong elsewhere."""

import os
import re
import subprocess
import sys

import pytest
from sweeps import Sweep

pytestmark = [pytest.mark.slow, pytest.mark.ddp]

APP = """
import hydra, sys
sys.path.insert(0, {tests!r})
import ls_lightning as ls
from nets import Data, Net, trainer

@hydra.main(config_path=None, config_name=None, version_base="1.3")
def main(cfg):
    trainer(".", ls.LabelSmoothing(eps=cfg.eps), devices=2, strategy="ddp").fit(Net(), datamodule=Data())
    print("trained", cfg.eps)

main()
"""
MANY = ",".join(str(k / 100) for k in range(12))  # 12! orders: two ranks do not find the same by chance


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="looks into /proc")
def test_a_shuffled_sweep_of_a_users_own_app(tmp_path):
    """Hydra's own launcher: rank 1 starts the sweep again, in another order. The callback alone finds out."""
    (tmp_path / "app.py").write_text(APP.format(tests=os.path.dirname(__file__)))
    sweep = Sweep(tmp_path, "app.py", "-m", f"+eps=shuffle({MANY})", "hydra/launcher=basic", "hydra.sweep.dir=sweep")
    code, out, err = sweep.end()
    assert code != 0
    named = re.search(r"RuntimeError: ranks disagree: eps=(\S+) on rank 0, eps=(\S+) on rank 1\.", err)
    assert named, err
    assert named[1] != named[2]
    # Where both ranks come to the same eps by chance, both train it.
    trained = re.findall(r"^trained (\S+)$", out, re.M)
    assert all(trained.count(eps) == 2 for eps in trained)
    assert sweep.gone()


SCRIPT = """
import os, sys
sys.path.insert(0, {tests!r})
import ls_lightning as ls
from nets import Data, Net, trainer
from ls_lightning.callbacks.agreement import RanksAgree
from ls_lightning.losses import SmoothedKLDiv
from ls_lightning.schedules import Linear

def on(rank):  # the arguments that differ on the second rank
    other = rank == 1
    return {{
        "eps": dict(eps=0.2 if other else 0.1),
        "loss": dict(eps=0.1, loss="kl" if other else "ce"),
        "module": dict(eps=0.1, loss=SmoothedKLDiv() if other else "kl"),
        "schedule": dict(eps=0.1, schedule="linear" if other else "constant"),
        "curve": dict(schedule=Linear(0.1, 0.05 if other else 0.0)),
        "nothing": dict(eps=0.1),
    }}

for name in on(0):
    trained = trainer(".", RanksAgree({{"seed": 0}}), devices=2, strategy="ddp")
    trained.callbacks.append(ls.LabelSmoothing(**on(int(os.environ.get("LOCAL_RANK", 0)))[name]))
    try:
        trained.fit(Net(), datamodule=Data())
        said = "trained"
    except RuntimeError as error:
        said = error
    if trained.is_global_zero:
        print(name, said, flush=True)
"""


def test_what_the_callback_compares(tmp_path):
    (tmp_path / "script.py").write_text(SCRIPT.format(tests=os.path.dirname(__file__)))
    done = subprocess.run(
        [sys.executable, "script.py"], cwd=tmp_path, capture_output=True, text=True, timeout=300, env={**os.environ}
    )
    assert done.returncode == 0, done.stderr
    found = {line.partition(" ")[0]: line for line in done.stdout.splitlines() if "disagree" in line}
    assert [line for line in done.stdout.splitlines() if "trained" in line] == ["nothing trained"]
    assert found["eps"] == "eps ranks disagree: eps=0.1 on rank 0, eps=0.2 on rank 1."
    assert found["loss"] == "loss ranks disagree: loss=ce on rank 0, loss=kl on rank 1."
    assert "loss=kl on rank 0, loss=SmoothedKLDiv on rank 1" in found["module"]
    assert "schedule=[0.1, 0.1, 0.1, 0.1, 0.1] on rank 0, schedule=[0.1, 0.07" in found["schedule"]
    assert "curve ranks disagree: schedule=" in found["curve"]
