"""Collections with several states, and how their sums meet over ranks."""

import json
import os
import subprocess
import sys
from pathlib import Path

import lightning as L
import pytest
import stage_script
import torch
from nets import Data, Net, trainer
from sklearn.metrics import f1_score
from torchmetrics import MetricCollection
from torchmetrics.classification import MulticlassF1Score

import ls_lightning as ls
from ls_lightning.callbacks.stage_metrics import StageMetrics, _decode, _encode, adder
from ls_lightning.callbacks.step_outputs import Outputs
from ls_lightning.metrics import AURC, Accuracy, CalibrationError, ClasswiseCalibrationError, default_metrics

HERE = Path(__file__).parent


def validated(tmp_path, metrics, net=None):
    monitor = ls.CalibrationMonitor(metrics=metrics)
    net, data = net or Net(), Data()
    trainer(tmp_path, monitor).validate(net, datamodule=data, verbose=False)
    x, y = data.set.tensors
    with torch.no_grad():
        return monitor, net(x), y


def test_several_states_and_foreign_metrics(tmp_path):
    def build(num_classes=None, **options):
        options = {"num_classes": num_classes, **options}
        found = default_metrics(**options)
        found.add_metrics({"classwise": ClasswiseCalibrationError(**options), "exact": AURC(mode="exact", **options)})
        found.add_metrics({"f1": MulticlassF1Score(num_classes, average="macro")})
        return found

    monitor, z, y = validated(tmp_path, build)
    values = monitor.results["val"]
    assert list(values)[-1] == "n"
    assert values["f1"] == pytest.approx(f1_score(y, z.argmax(1), average="macro"), abs=1e-6)
    classwise = ls.functional.classwise_calibration_error(z, y).item()
    assert values["classwise"] == pytest.approx(classwise, abs=1e-12)
    order = z.softmax(1).amax(1).argsort(descending=True)
    wrong = (z.argmax(1) != y)[order].double()
    assert values["exact"] == pytest.approx((wrong.cumsum(0) / torch.arange(1, 49)).mean().item(), abs=1e-9)
    assert values["ece"] == pytest.approx(ls.functional.calibration_error(z, y).item(), abs=1e-12)
    assert len(monitor.measured["val"].states) == 3


def test_a_collection_without_bins_has_no_diagram(tmp_path):
    monitor, _, _ = validated(tmp_path, lambda **options: MetricCollection({"aurc": AURC(**options)}))
    assert list(monitor.results["val"]) == ["aurc"]
    assert monitor.reliability == {}


def test_what_is_not_one_number_is_left_out_and_said(tmp_path):
    def build(num_classes=None, **options):
        return MetricCollection({"acc": Accuracy(**options), "f1": MulticlassF1Score(num_classes, average=None)})

    with pytest.warns(UserWarning, match="f1 is left out: it is not a single number"):
        monitor, _, _ = validated(tmp_path, build)
    assert list(monitor.results["val"]) == ["acc", "n"]


def test_the_same_state_read_twice(tmp_path):
    def build(**options):
        return MetricCollection({"ece": CalibrationError(**options), "rmsce": CalibrationError(norm="l2", **options)})

    monitor, z, y = validated(tmp_path, build)
    assert len(monitor.measured["val"].states) == 1
    wanted = ls.functional.calibration_error(z, y, norm="l2").item()
    assert monitor.results["val"]["rmsce"] == pytest.approx(wanted, abs=1e-12)


@pytest.mark.parametrize(
    "options",
    [
        None,
        {"task": "multiclass", "num_classes": 7, "ignore_index": -100},
        {"task": "multiclass", "num_classes": 2, "ignore_index": 255},
        {"task": "binary", "num_classes": None},
        {"task": "binary", "num_classes": None, "input": "probs"},
        {"task": "multilabel", "num_classes": 5, "input": "probs"},
    ],
)
def test_what_ranks_tell_each_other(options):
    """A rank that knows nothing says so with numbers below all others: the maximum is what the others know."""
    unknown = torch.tensor(_encode(None))
    assert _decode(torch.tensor(_encode(options)).maximum(unknown).tolist()) == options


@pytest.fixture(scope="module")
def ranks(tmp_path_factory):
    found = {}
    for devices in (1, 2, 3):
        folder = tmp_path_factory.mktemp(f"on_{devices}")
        if devices == 1:
            stage_script.main(folder, 1)
        else:
            done = subprocess.run(
                [sys.executable, str(HERE / "stage_script.py"), str(folder), str(devices)],
                env={**os.environ, "OMP_NUM_THREADS": "1"},
                capture_output=True,
                text=True,
                timeout=300,
            )
            assert done.returncode == 0, done.stderr[-3000:]
        found[devices] = [json.loads((folder / f"{rank}.json").read_text()) for rank in range(devices)]
    return found


@pytest.mark.slow
@pytest.mark.ddp
@pytest.mark.parametrize("case", ["some", "none_of_the_second"])
def test_a_rank_without_a_batch(ranks, case):
    (alone,) = ranks[1]
    for devices in (2, 3):
        for rank in ranks[devices]:
            for key in ("val", "test"):
                for stage, values in alone[case][key].items():
                    assert rank[case][key][stage] == pytest.approx(values, abs=1e-7), (devices, key, stage)
            assert rank[case]["T"] == pytest.approx(alone[case]["T"], rel=1e-10)
            assert rank[case] == ranks[devices][0][case]
            assert rank[case]["sums"] == 1  # all states in one


def test_one_member_is_updated_where_all_share_one_pass():
    given = torch.randn(30, 4), torch.arange(30) % 4
    together, wanted, mixed = (default_metrics(num_classes=4) for _ in range(3))
    mixed.add_metrics({"exact": AURC(mode="exact", num_classes=4)})
    for found in (together, mixed):
        adder(found)(*given)
    wanted.update(*given)
    for name, value in wanted.compute().items():
        assert torch.equal(together.compute()[name], value)
        assert torch.equal(mixed.compute()[name], value)
    assert mixed["exact"].num_samples == 30


def apart(**options):
    """Metrics of which none knows of the others."""
    found = {"acc": Accuracy(**options), "ece": CalibrationError(**options), "aurc": AURC(**options)}
    return MetricCollection({**found, "classwise": ClasswiseCalibrationError(**options)})


@pytest.mark.parametrize("build", [default_metrics, apart])
def test_sums_go_on_from_a_state(build):
    t, device = L.Trainer(accelerator="cpu", logger=False), torch.device("cpu")
    whole, before, after = (StageMetrics(build, 1) for _ in range(3))
    options = {"task": "multiclass", "ignore_index": -100}
    for part in range(4):
        outputs = Outputs(torch.randn(30, 4), torch.arange(30) % 4, options, 30)
        whole.update(0, outputs)
        if part == 2:
            after.resume(0, **before.state(0, t, device), device=device)
        (before if part < 2 else after).update(0, outputs)
    assert after.measure(t, device)[0].values == whole.measure(t, device)[0].values
    assert StageMetrics(build, 1).state(0, t, device) is None
