import math
import subprocess
import sys

import matplotlib.colors
import pytest
import torch
from matplotlib.figure import Figure
from PIL import Image

from ls_lightning.functional.calibration import calibration_error, calibration_gap, reliability_bins
from ls_lightning.functional.classwise import classwise_calibration
from ls_lightning.metrics import AURC
from ls_lightning.plots import class_gap, reliability_diagram, risk_coverage_curve, save_figure

NAN = math.nan
ORANGE, BLUE = "#D55E00", "#0072B2"


def bars(axes, colour):
    """The bars of a colour as (left, bottom, top)."""
    rgb = matplotlib.colors.to_rgb(colour)
    found = [p for p in axes.patches if p.get_facecolor()[:3] == pytest.approx(rgb)]
    return [pytest.approx((p.get_x(), *sorted((p.get_y(), p.get_y() + p.get_height())))) for p in found]


def details(axes):
    return axes.texts[0].get_text()


def finding(axes):
    return axes.get_title(loc="left").strip()


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
    axes = reliability_diagram(reliability_bins(logits, target), title="test").axes[0]
    assert axes.get_title(loc="left").strip() == f"{verdict} {abs(gap):.1f} points".capitalize()
    assert details(axes).startswith(f"test   ECE {ece:.1f} %   accuracy ")
    assert details(axes).endswith("n = 2,000")


def test_a_calibrated_model_has_no_gap():
    figure = reliability_diagram(([4, 4], [0.25, 0.75], [0.25, 0.75]))
    assert finding(figure.axes[0]) == "No gap"
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
    assert details(diagram).startswith("breast cancer ")
    assert (diagram.get_ylabel(), histogram.get_xlabel()) == ("share of positives", "P(y = 1)")
    assert finding(diagram) == "Too high by 50.0 points"


def test_side_by_side():
    plain, scaled = ([5, 5], [0.4, 0.9], [0.6, 1.0]), ([0, 10], [NAN, 0.8], [NAN, 0.8])
    figure = reliability_diagram({"plain": plain, "T = 0.5": scaled})
    left, right, *histograms = figure.axes
    assert finding(left) == "plain: underconfident by 15.0 points"
    assert finding(right) == "T = 0.5: no gap"
    assert bars(left, BLUE) == [(0, 0.4, 0.6), (0.5, 0.9, 1.0)]
    assert bars(right, BLUE) == []
    assert left.get_ylim() == right.get_ylim()
    assert histograms[0].get_ylim() == histograms[1].get_ylim()
    with pytest.raises(ValueError, match="at least one diagram"):
        reliability_diagram({})


def test_no_samples_at_all():
    figure = reliability_diagram(([0, 0], [NAN, NAN], [NAN, NAN]))
    assert finding(figure.axes[0]) == "No samples"


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


def test_risk_coverage_is_that_of_sorted_samples():
    generator = torch.Generator().manual_seed(0)
    logits = torch.randn(200, 4, generator=generator)
    target = torch.multinomial((2 * logits).softmax(-1), 1, generator=generator).squeeze(1)
    metric = AURC(mode="exact")
    metric.update(logits, target)
    axes = risk_coverage_curve({"plain": metric.curve()}, title="test").axes[0]
    order = logits.double().softmax(-1).amax(-1).argsort(descending=True)
    wrong = (logits.argmax(-1) != target)[order].double()
    kept = torch.arange(1, 201)
    drawn = axes.lines[0].get_xydata()
    assert drawn[:, 0] == pytest.approx((kept / 200).numpy())
    assert drawn[:, 1] == pytest.approx(100 * (wrong.cumsum(0) / kept).numpy())
    errors, least_sure = 100 * wrong.mean().item(), 100 * wrong[:180].mean().item()
    assert finding(axes) == f"{errors:.1f} % errors; without the least sure tenth {least_sure:.1f} %"
    best = axes.lines[1].get_xydata()
    perfect = wrong.sort().values.cumsum(0) / kept
    for coverage in (0.6, 0.8, 1.0):
        assert float(best[abs(best[:, 0] - coverage).argmin(), 1]) == pytest.approx(
            100 * perfect[round(200 * coverage) - 1].item(), abs=1
        )
    assert [text.get_text() for text in axes.get_legend().get_texts()] == ["plain", "best possible"]


def test_risk_coverage_of_no_error_at_all():
    axes = risk_coverage_curve(([0.5, 1.0], [0.0, 0.0])).axes[0]
    assert finding(axes) == "0.0 % errors; without the least sure tenth 0.0 %"
    assert axes.get_ylim()[1] > 0


@pytest.mark.parametrize(
    ("curves", "words"),
    [
        ({}, "at least one curve"),
        (([0.5, 1.0], [0.1]), "of one length"),
        (([], []), "of one length"),
        (([1.0], [0.1], [0.0]), "of one length"),
        ({str(k): ([1.0], [0.1]) for k in range(4)}, "at most 3 curves"),
    ],
)
def test_wrong_curves(curves, words):
    with pytest.raises(ValueError, match=words):
        risk_coverage_curve(curves)


def test_class_gap_shows_each_class():
    figure = class_gap([400, 400, 400], [0.5, 0.3, 0.2], [0.3, 0.3, 0.4], names=["cat", "dog", "emu"], title="test")
    axes = figure.axes[0]
    assert finding(axes) == "2 of 3 classes are off, most cat by 20.0 points too much"
    assert details(axes) == "test   3 classes   lines: 95 % interval"
    widths = sorted(round(p.get_width(), 9) for p in axes.patches)
    assert widths == [-20, 0, 20]
    assert [label.get_text() for label in axes.get_yticklabels()] == ["cat", "dog", "emu"]


def test_class_gap_by_chance_is_called_so():
    generator = torch.Generator().manual_seed(0)
    probs = torch.rand(300, 5, generator=generator).softmax(-1)
    target = torch.multinomial(probs, 1, generator=generator).squeeze(1)
    found = classwise_calibration(probs, target, input="probs")
    axes = class_gap(found.counts, found.confidence, found.frequency).axes[0]
    assert finding(axes) == "No class is off by more than chance"


def test_of_many_classes_the_largest_gaps_are_shown():
    frequency = torch.full((100,), 0.01)
    confidence = frequency + torch.linspace(-0.009, 0.009, 100)
    axes = class_gap(torch.full((100,), 1000), confidence, frequency).axes[0]
    assert len(axes.get_yticklabels()) == 30
    assert details(axes).startswith("the 30 largest gaps of 100 classes")
    assert [label.get_text() for label in axes.get_yticklabels()][:2] == ["0", "1"]


def test_wrong_classes():
    with pytest.raises(ValueError, match="of one length"):
        class_gap([1, 2], [0.5], [0.5])
    with pytest.raises(ValueError, match="a name for each of 1 classes, got 2"):
        class_gap([1], [0.5], [0.5], names=["a", "b"])


def test_saving_makes_folders_and_a_picture(tmp_path):
    path = save_figure(reliability_diagram(([1], [0.5], [0.5])), tmp_path / "a" / "b.png", dpi=50)
    with Image.open(path) as picture:
        picture.load()
        assert picture.format == "PNG"
        assert picture.size == (260, 330)
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
