import math
import subprocess
import sys

import matplotlib.colors
import pytest
import torch
from matplotlib.figure import Figure
from PIL import Image

from ls_lightning.functional.calibration import calibration_error, calibration_gap, reliability_bins
from ls_lightning.plots import reliability_diagram, save_figure

NAN = math.nan
ORANGE, BLUE = "#D55E00", "#0072B2"


def bars(axes, colour):
    """The bars of a colour as (left, bottom, top)."""
    rgb = matplotlib.colors.to_rgb(colour)
    found = [p for p in axes.patches if p.get_facecolor()[:3] == pytest.approx(rgb)]
    return [pytest.approx((p.get_x(), *sorted((p.get_y(), p.get_y() + p.get_height())))) for p in found]


def test_bars_show_accuracy_and_gaps():
    figure = reliability_diagram(([0, 10, 30, 60], [NAN, 0.4, 0.7, 0.9], [NAN, 0.5, 0.7, 0.6]))
    diagram, histogram = figure.axes
    assert bars(diagram, "#C9CED6") == [(0.25, 0, 0.5), (0.5, 0, 0.7), (0.75, 0, 0.6)]
    assert bars(diagram, ORANGE) == [(0.75, 0.6, 0.9)]
    assert bars(diagram, BLUE) == [(0.25, 0.4, 0.5)]
    assert bars(histogram, "#C9CED6") == [(0, 0, 0), (0.25, 0, 10), (0.5, 0, 30), (0.75, 0, 60)]


@pytest.mark.parametrize(("temperature", "verdict"), [(3.0, "overconfident by"), (0.3, "underconfident by")])
def test_the_box_says_what_the_metrics_say(temperature, verdict):
    generator = torch.Generator().manual_seed(0)
    logits = torch.randn(2000, 5, generator=generator)
    target = torch.multinomial(logits.softmax(-1), 1, generator=generator).squeeze(1)
    logits *= temperature
    ece, gap = (100 * f(logits, target).item() for f in (calibration_error, calibration_gap))
    text = reliability_diagram(reliability_bins(logits, target)).axes[0].get_title(loc="left")
    assert text.startswith("n = 2,000 ")
    assert f"ECE {ece:.1f} %" in text
    assert f"{verdict} {abs(gap):.1f} points" in text


def test_a_calibrated_model_has_no_gap():
    figure = reliability_diagram(([4, 4], [0.25, 0.75], [0.25, 0.75]))
    assert figure.axes[0].get_title(loc="left").endswith("no gap")
    assert not bars(figure.axes[0], ORANGE)
    assert not bars(figure.axes[0], BLUE)


def test_intervals_are_wilsons():
    from scipy.stats import binomtest

    figure = reliability_diagram(([7], [0.5], [3 / 7]))
    ((_, low), (_, high)) = figure.axes[0].collections[0].get_segments()[0]
    wanted = binomtest(3, 7).proportion_ci(method="wilson")
    assert (low, high) == pytest.approx((wanted.low, wanted.high), abs=1e-4)


def test_words_of_positive_class_diagrams():
    figure = reliability_diagram(([5], [0.9], [0.4]), confidence="positive", title="breast cancer")
    diagram, histogram = figure.axes
    assert figure.get_suptitle() == "breast cancer"
    assert (diagram.get_ylabel(), histogram.get_xlabel()) == ("share of positives", "P(y = 1)")
    assert "too high by 50.0 points" in diagram.get_title(loc="left")


def test_no_samples_at_all():
    figure = reliability_diagram(([0, 0], [NAN, NAN], [NAN, NAN]))
    assert figure.axes[0].get_title(loc="left") == "no samples"


@pytest.mark.parametrize(
    "bins",
    [([1, 2], [0.5], [0.5]), ([], [], []), ([[1]], [[0.5]], [[0.5]]), ([1], [0.5])],
    ids=["lengths", "empty", "2-d", "two"],
)
def test_wrong_bins(bins):
    with pytest.raises(ValueError, match=r"bins must be \(counts, confidence, accuracy\)"):
        reliability_diagram(bins)


def test_wrong_confidence():
    with pytest.raises(ValueError, match="confidence must be 'top' or 'positive', got 'max'"):
        reliability_diagram(([1], [0.5], [0.5]), confidence="max")


def test_saving_makes_folders_and_a_picture(tmp_path):
    path = save_figure(reliability_diagram(([1], [0.5], [0.5])), tmp_path / "a" / "b.png", dpi=50)
    with Image.open(path) as picture:
        picture.load()
        assert picture.format == "PNG"
        assert picture.size == (260, 360)
        assert len(picture.convert("RGB").getcolors(100_000)) > 10
    assert [p.name for p in path.parent.iterdir()] == ["b.png"]


@pytest.mark.parametrize(("suffix", "start"), [("pdf", b"%PDF"), ("svg", b"<?xml")])
def test_other_formats(tmp_path, suffix, start):
    path = save_figure(reliability_diagram(([1], [0.5], [0.5])), tmp_path / f"x.{suffix}")
    assert path.read_bytes().startswith(start)


def test_a_failed_save_leaves_the_old_file(tmp_path, monkeypatch):
    path = tmp_path / "x.png"
    path.write_bytes(b"old")

    def half(self, target, **options):
        target.write_bytes(b"half")
        raise OSError("disk full")

    monkeypatch.setattr(Figure, "savefig", half)
    with pytest.raises(OSError, match="disk full"):
        save_figure(reliability_diagram(([1], [0.5], [0.5])), path)
    assert path.read_bytes() == b"old"
    assert [p.name for p in tmp_path.iterdir()] == ["x.png"]


@pytest.mark.parametrize("name", ["x.xyz", "x"])
def test_unknown_formats(tmp_path, name):
    with pytest.raises(ValueError, match=rf"must end in one of .*\.png.*, got '{name}'"):
        save_figure(reliability_diagram(([1], [0.5], [0.5])), tmp_path / name)


def test_missing_matplotlib_names_the_command(monkeypatch):
    monkeypatch.setitem(sys.modules, "matplotlib.figure", None)
    with pytest.raises(ModuleNotFoundError, match=r"^plots need matplotlib: pip install 'ls-lightning\[plot\]'\.$"):
        reliability_diagram(([1], [0.5], [0.5]))


def test_global_state_of_matplotlib_is_left_alone():
    code = (
        "import sys, ls_lightning.plots as p; assert 'matplotlib' not in sys.modules; "
        "p.reliability_diagram(([1], [0.5], [0.5])); assert 'matplotlib.pyplot' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", code], check=True)
