"""What is drawn after validation and test, and which loggers get it."""

import numpy as np
import pytest
import torch
from lightning.pytorch.loggers import CSVLogger, Logger
from nets import Data, Net, trainer
from PIL import Image

import ls_lightning as ls
from ls_lightning.callbacks import pictures
from ls_lightning.callbacks.pictures import Pictures

NAMES = ["class_gap.png", "reliability.png", "risk_coverage.png"]


def names(folder):
    return sorted(path.name for path in folder.iterdir())


@pytest.fixture
def drawn(monkeypatch):
    """The titles of the panels that are drawn, by picture."""
    found = {}

    def keep(figure, path):
        found[path.name] = [axes.get_title(loc="left").strip() for axes in figure.axes]

    monkeypatch.setattr(pictures, "save_figure", keep)
    return found


def test_three_files_after_a_test(tmp_path):
    folder = tmp_path / "new" / "folder"
    t = trainer(tmp_path, ls.CalibrationMonitor(), Pictures(folder))
    t.fit(Net(), datamodule=Data())
    assert not folder.exists()  # an epoch costs no picture
    t.test(Net(), datamodule=Data(), verbose=False)
    assert names(folder) == NAMES
    for name in NAMES:
        with Image.open(folder / name) as picture:
            assert min(picture.size) > 300


def test_plain_and_scaled_side_by_side(tmp_path, drawn):
    monitor, scaling = ls.CalibrationMonitor(), ls.TemperatureScaling()
    t = trainer(tmp_path, monitor, scaling, Pictures(tmp_path))
    t.validate(Net(), datamodule=Data(), verbose=False)
    assert len(drawn["reliability.png"]) == 2  # diagram and histogram
    t.test(Net(), datamodule=Data(), verbose=False)
    plain, scaled, *_ = drawn["reliability.png"]
    assert plain.startswith("plain: ")
    assert scaled.startswith(f"T = {scaling.temperature:.3g}: ")
    assert f"{abs(100 * scaling.results['test']['gap']):.1f} points" in scaled


@pytest.mark.parametrize("where", [0, 1])
def test_any_order_of_callbacks(tmp_path, where, drawn):
    callbacks = [ls.CalibrationMonitor()]
    callbacks.insert(where, Pictures(tmp_path))
    trainer(tmp_path, *callbacks).validate(Net(), datamodule=Data(), verbose=False)
    assert sorted(drawn) == NAMES


class Remembers(Logger):
    name, version = "remembers", "0"

    def __init__(self):
        super().__init__()
        self.images = {}

    def log_metrics(self, metrics, step=None):
        pass

    def log_hyperparams(self, params, *args, **kwargs):
        pass

    def log_image(self, key, images):
        self.images[key] = images


def test_any_logger_that_takes_images(tmp_path):
    logger = Remembers()
    t = trainer(tmp_path, ls.CalibrationMonitor(), Pictures(tmp_path), logger=[logger, CSVLogger(tmp_path)])
    t.validate(Net(), datamodule=Data(), verbose=False)
    t.test(Net(), datamodule=Data(), verbose=False)
    kinds = ("class_gap", "reliability", "risk_coverage")
    assert sorted(logger.images) == [f"{stage}/{kind}" for stage in ("test", "val") for kind in kinds]
    (image,) = logger.images["test/reliability"]
    assert image.dtype == np.uint8
    assert image.shape[2] == 3
    assert len(np.unique(image)) > 10


def test_without_matplotlib_one_line_says_how_to_get_it(tmp_path, monkeypatch):
    monkeypatch.setattr(pictures, "find_spec", lambda name: None)
    t = trainer(tmp_path, ls.CalibrationMonitor(), Pictures(tmp_path / "pictures"))
    with pytest.warns(UserWarning, match=r"pip install 'ls-lightning\[plot\]'"):
        t.test(Net(), datamodule=Data(), verbose=False)
    assert not (tmp_path / "pictures").exists()


def test_without_a_monitor_nothing_is_drawn(tmp_path, drawn):
    trainer(tmp_path, Pictures(tmp_path)).test(Net(), datamodule=Data(), verbose=False)
    assert drawn == {}


def test_a_diverged_model_is_not_drawn(tmp_path, drawn):
    class Diverged(Net):
        def forward(self, x):
            return super().forward(x) * torch.nan

    callbacks = ls.CalibrationMonitor(), ls.TemperatureScaling(), Pictures(tmp_path)
    with pytest.warns(UserWarning, match="cannot be measured"):
        trainer(tmp_path, *callbacks).validate(Diverged(), datamodule=Data(), verbose=False)
    assert drawn == {}


def test_too_many_classes_for_a_picture_of_each(tmp_path, drawn):
    callbacks = ls.CalibrationMonitor(), Pictures(tmp_path, num_bins=2**18)
    trainer(tmp_path, *callbacks).validate(Net(), datamodule=Data(), verbose=False)
    assert sorted(drawn) == ["reliability.png", "risk_coverage.png"]
