"""``python -m ls_lightning.report`` as a user runs it: answers, files, figures, mistakes."""

import csv
import json
import os
import random
import re
import signal
import subprocess
import sys
import time
from importlib.util import find_spec

import pytest
from cli import QUICK
from cli import run as train
from job_folders import history, measured, write_job, write_sweep
from PIL import Image
from rich.cells import cell_len

from ls_lightning.report import __main__ as report
from ls_lightning.report.compare import shared_keys, why_not_comparable
from ls_lightning.report.compare_figure import overlay
from ls_lightning.report.pareto import front
from ls_lightning.sweep.curves import pooled_bins
from ls_lightning.sweep.find import find_jobs
from ls_lightning.sweep.groups import group_jobs
from ls_lightning.sweep.history import Curve, read_history, smooth, thin
from ls_lightning.sweep.jobs import read_job

GRID = (0, 0.05, 0.1, 0.2)


def valley(eps):
    return 0.5 + 20 * (eps - 0.1) ** 2


@pytest.fixture
def sweep(tmp_path, monkeypatch):
    monkeypatch.setenv("COLUMNS", "240")  # the folder of a test has a long name
    monkeypatch.chdir(tmp_path)
    return write_sweep(tmp_path / "sweep", valley, grid=GRID, seeds=range(3), noise=0.001)


def run(capsys, *words):
    code = report.main([str(word) for word in words])
    out, err = capsys.readouterr()
    return code, out, err


def test_table_answer_and_files(sweep, capsys):
    (sweep / "0" / "result.json").write_text("{")
    code, out, err = run(capsys, sweep, "figures=none")
    assert (code, err) == (0, "")
    assert re.search(r"ce +- +0 +2 +84\.0 ±0\.\d +(0\.80\d|0\.79\d) ±", out)
    assert re.search(r"scaled +T 1\.50 +", out)
    assert re.search(r"ce +constant +0\.1 +2 +\+4\.0 ±0\.\d +-0\.(199|20\d) ±", out)
    assert re.search(r"unreadable +.*sweep/0 +result\.json is not whole JSON", out)
    assert "12 jobs: 11 complete, 1 unreadable." in out
    assert "eps 0.1: ECE 8.0 -> 6.0 %, accuracy +4.0 ±0." in out
    assert sorted(path.name for path in (sweep / "report").iterdir()) == ["report.html", "report.md", "sweep.csv"]
    text = (sweep / "report" / "report.md").read_text()
    assert "**eps 0.1: ECE 8.0 -> 6.0 %" in text
    assert "| unreadable | `" in text
    widths = {line.count("|") - line.count("\\|") for line in text.splitlines() if line.startswith("| ce |")}
    assert len(widths) == 1
    rows = list(csv.DictReader((sweep / "report" / "sweep.csv").open()))
    assert (len(rows), sum(row["status"] == "complete" for row in rows)) == (12, 11)


@pytest.mark.parametrize("width", [40, 60, 100])
def test_narrow_terminals_lose_no_metric(sweep, capsys, monkeypatch, width):
    monkeypatch.setenv("COLUMNS", str(width))
    _, out, _ = run(capsys, sweep, "figures=none")
    for words in ("accuracy %", "NLL", "ECE %", "gap %", "overconf. %", "Brier"):
        assert words in out
    lines = [line for line in out.splitlines() if "ls_lightning.train" not in line]
    assert max(map(cell_len, (line.rstrip() for line in lines))) <= width


@pytest.mark.slow
def test_figures_are_drawn_in_every_format(sweep, capsys):
    code, out, _ = run(capsys, sweep, "figures=png,svg", f"out={sweep.parent / 'there'}")
    assert code == 0
    assert "5 figures" in out
    folder = sweep.parent / "there" / "figures"
    names = ("against_eps", "pareto", "reliability", "risk_coverage", "schedules")
    assert sorted(path.name for path in folder.iterdir()) == sorted(f"{n}.{s}" for n in names for s in ("png", "svg"))
    for name in names:
        with Image.open(folder / f"{name}.png") as picture:
            picture.load()
            assert len(picture.convert("RGB").getcolors(1_000_000)) > 10
        assert f"](figures/{name}.png)" in (sweep.parent / "there" / "report.md").read_text()


def test_without_matplotlib_one_line_says_how_to_install_it(sweep, capsys, monkeypatch):
    monkeypatch.setattr(report, "find_spec", lambda name: None if name == "matplotlib" else find_spec(name))
    code, out, _ = run(capsys, sweep)
    assert code == 0
    assert "pip install 'ls-lightning[plot]'" in out
    assert not (sweep / "report" / "figures").exists()


@pytest.mark.slow
def test_several_settings_get_an_answer_each(sweep, capsys):
    write_sweep(sweep / "noisy", lambda eps: 0.9 - eps, grid=(0, 0.1), seeds=range(3), noise=0.001, label_noise=0.4)
    _, out, _ = run(capsys, sweep, "figures=svg")
    for words in ("\ndata.label_noise=0.0\n", "\ndata.label_noise=0.4\n", "widen the grid"):
        assert words in out
    assert out.count("temperature scaling alone gives") == 2
    assert (sweep / "report" / "figures" / "against_eps_1.svg").exists()


def test_the_newest_sweep_is_the_default(sweep, capsys):
    (sweep / "multirun.yaml").write_text("hydra: {}\n")
    code, out, _ = run(capsys, "figures=none", "select=accuracy+0.5*ece")
    assert code == 0
    assert "Chosen on validation by error rate + 0.5 ECE" in out
    assert (sweep / "report" / "report.md").exists()
    assert run(capsys, f"hydra.sweep.dir={sweep}", "figures=none")[0] == 0


def test_without_validation_there_is_a_table_and_no_answer(tmp_path, capsys):
    for eps in (0, 0.1):
        write_job(tmp_path / str(eps), eps, test=measured(0.5))
    code, out, _ = run(capsys, tmp_path, "figures=svg")
    assert code == 0
    assert "No answer: nothing was measured on validation data" in out
    assert "accuracy %" in out
    assert "No answer" in (tmp_path / "report" / "report.md").read_text()


def test_nothing_finished_is_exit_code_1(tmp_path, capsys):
    write_job(tmp_path / "0", 0.1, val=measured(0.5), status="pruned")
    code, out, _ = run(capsys, tmp_path)
    assert code == 1
    assert "pruned" in out
    assert "None of 1 jobs is complete" in out


MISTAKES = [
    ("selct=nll", "selct is not a key of the report. Did you mean select?"),
    ("zzz=1", "Keys: select, columns, out,"),
    ("select=typo", "select must name a metric"),
    ("select=nl", "Did you mean nll?"),
    ("select=aurc", "select=aurc needs val/aurc"),
    ("select=nll select=ece", "select must be given once"),
    ("out=sweep/0/result.json", "out must be a folder"),
    ("figures=gif", "figures must be none, or formats out of png, svg, pdf, got 'gif'"),
    ("html=no", "html must be true or false, got 'no'"),
    ("level=95", "level must be a number in (0, 1), got '95'"),
    ("level=nan", "level must be"),
    ("absent", "absent must be a folder of jobs, or key=value"),
    ("--verbose", "unknown option --verbose"),
    ("empty", "no job was found in empty"),
    ("compare=sweep/0", "compare must name two or more jobs"),
    ("compare=sweep/0,sweep/0", "compare must name two or more jobs"),
    ("compare=sweep/0,absent", "absent must be a folder of jobs"),
    ("compare=sweep/0,sweep/1 select=ece", "so select would be ignored"),
    ("compare=sweep/0,sweep/1 html=false", "so html would be ignored"),
    ("compare=sweep/0,sweep/1 smooth=1", "smooth must be a number in [0, 1), got '1'"),
    ("compare=sweep/0,empty", "empty has no metrics.csv"),
    ("sweep smooth=0.5", "smooth is for the curves of compare"),
    ("watch=0", "watch must be a number of seconds above 0"),
]


@pytest.mark.parametrize(("words", "said"), MISTAKES, ids=[words for words, _ in MISTAKES])
def test_a_mistake_gets_one_line_and_exit_code_2(sweep, capsys, words, said):
    (sweep.parent / "empty").mkdir()
    (sweep / "multirun.yaml").write_text("hydra: {}\n")
    before = sorted(sweep.parent.rglob("*"))
    code, out, err = run(capsys, *words.split())
    assert (code, out) == (2, "")
    assert err.startswith("error: ")
    assert len(err.splitlines()) == 1
    assert said in err
    assert sorted(sweep.parent.rglob("*")) == before


def test_help_and_an_empty_folder_need_no_torch(tmp_path):
    for name in ("torch", "lightning", "hydra", "numpy", "matplotlib"):
        (tmp_path / "blocked" / name).mkdir(parents=True)
        (tmp_path / "blocked" / name / "__init__.py").write_text("raise SystemError('imported too early')")
    sweep = write_sweep(tmp_path / "sweep", valley, grid=GRID, seeds=range(2))
    env = {**os.environ, "PYTHONPATH": str(tmp_path / "blocked")}
    for words, code, said in ((["--help"], 0, "select=nll"), ([str(sweep), "figures=none"], 0, "eps 0.1: ECE")):
        command = [sys.executable, "-m", "ls_lightning.report", *words]
        done = subprocess.run(command, cwd=tmp_path, env=env, capture_output=True, text=True)
        assert (done.returncode, done.stderr) == (code, "")
        assert said in done.stdout


def test_compare_overlays_mini_batches(sweep, capsys):
    code, out, _ = run(capsys, f"compare={sweep / '0'},{sweep / '6'}", "out=there", "figures=svg")
    assert code == 0
    assert re.search(r"eps 0 +39 ", out)
    assert "Training losses are not comparable: ce at eps 0 (-) and ce at eps 0.1 (constant)" in out
    assert (sweep.parent / "there" / "compare.svg").read_text().startswith("<?xml")
    assert run(capsys, f"compare={sweep / '0'},{sweep / '1'}", "smooth=0", "figures=none")[1].count("comparable") == 0
    code, out, _ = run(capsys, f"compare={sweep}", "figures=none")  # all of its jobs
    assert (code, len(re.findall(r"^eps \S+, seed \d +39 ", out, re.MULTILINE))) == (0, 12)


@pytest.mark.parametrize(
    ("a", "b", "comparable"),
    [
        (("ce", 0.1), ("ce", 0.1), True),
        (("ce", 0.0), ("ce", 0.1), False),
        (("ce", 0.05), ("ce", 0.1), False),
        (("kl", 0.05), ("kl", 0.1), True),
        (("ce", 0.0), ("kl", 0.1), True),
        (("ce", 0.1), ("kl", 0.1), False),
        (("focal", 0.0), ("ce", 0.0), False),
    ],
)
def test_which_training_losses_may_be_compared(tmp_path, a, b, comparable):
    jobs = [
        read_job(write_job(tmp_path / str(k), eps, k, loss=loss, val=measured(0.5)))
        for k, (loss, eps) in enumerate((a, b))
    ]
    assert (why_not_comparable(jobs) == "") == comparable


def test_curves_of_a_file_that_is_still_written(tmp_path):
    job = write_job(tmp_path, 0.1, 3)
    curves = read_history(job)
    assert (len(curves["train/loss"].steps), curves["val/acc"].steps) == (40, [9, 19, 29, 39])
    rows = list(csv.DictReader(history(0.1, 3).splitlines()))
    assert curves["train/loss"].values == [float(row["train/loss"]) for row in rows]
    with (job / "metrics.csv").open("a") as file:
        file.write("40,0.1,4,1.5,0.9,nan,\n41,0.")
    assert read_history(job)["train/loss"].steps[-1] == 40
    assert read_history(job)["val/loss"].steps[-1] == 39
    assert read_history(tmp_path / "absent") == {}


def test_smoothing_and_thinning():
    values = [1.0, 5.0, 2.0, 8.0]
    weights = [0.5**k for k in range(4)]
    wanted = sum(w * v for w, v in zip(weights, reversed(values), strict=True)) / sum(weights)
    assert smooth(values, 0.5)[-1] == pytest.approx(wanted)
    assert smooth(values, 0) == values
    kept = thin(Curve(list(range(10_000)), [float(k) for k in range(10_000)]), 500)
    assert (kept.steps[0], kept.steps[-1]) == (0, 9_999)
    assert len(kept.steps) <= 502
    with pytest.raises(ValueError, match="0 turns smoothing off"):
        smooth(values, 1.0)


def test_the_front_against_its_definition():
    generator = random.Random(1)
    points = [(generator.randint(0, 9), generator.randint(0, 9)) for _ in range(40)]

    def beats(a, b):
        return a[0] <= b[0] and a[1] >= b[1] and a != b

    wanted = {point for point in points if not any(beats(other, point) for other in points)}
    assert {points[index] for index in front(points)} == wanted


def test_bins_of_all_seeds_are_pooled(tmp_path):
    first = {"counts": [2.0, 0.0, 8.0], "confidence": [0.3, None, 0.9], "accuracy": [0.5, None, 0.75]}
    second = {"counts": [6.0, 1.0, 0.0], "confidence": [0.1, 0.5, None], "accuracy": [0.0, 1.0, None]}
    for seed, bins in enumerate((first, second)):
        write_job(tmp_path / str(seed), 0.1, seed, val=measured(0.5), reliability={"test": bins})
    ((group,), _) = group_jobs(read_job(folder) for folder in find_jobs([tmp_path]))
    counts, confidence, accuracy = pooled_bins(group, "test")
    assert counts == [8, 1, 8]
    assert confidence == pytest.approx([0.15, 0.5, 0.9])
    assert accuracy == pytest.approx([0.125, 1, 0.75])


def test_watch_refreshes_until_interrupted(tmp_path):
    command = [sys.executable, "-m", "ls_lightning.report", str(tmp_path), "figures=none", "watch=0.2"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        lines = []
        for line in process.stdout:
            lines.append(line)
            if line.startswith("not yet: no job was found") and not (tmp_path / "0").exists():
                write_sweep(tmp_path, valley, grid=GRID, seeds=range(2))
            if line.startswith("8 jobs: 8 complete"):
                write_job(tmp_path / "new", 0.3, 0, val=measured(0.5), test=measured(0.5))
            if line.startswith("9 jobs: 9 complete"):
                break
        time.sleep(0.1)
        process.send_signal(signal.SIGINT)
        process.stdout.read()
    assert process.returncode == 0
    assert sum("refreshed every 0.2 s" in line for line in lines) >= 1


@pytest.mark.parametrize(("follows", "said"), [(True, "a split of its own"), (False, "share one split")])
def test_what_the_intervals_are_of(tmp_path, follows, said):
    for seed in range(2):
        for eps in (0, 0.1):
            write_job(
                tmp_path / f"{seed}-{eps}", eps, seed, split_seed=seed * follows, val=measured(0.5), test=measured(0.5)
            )
    assert report.main([str(tmp_path), "figures=none"]) == 0
    for name in ("report.md", "report.html"):
        assert said in (tmp_path / "report" / name).read_text()


class _LosesInterrupt:
    """Interrupted while it is collected, where Python prints an exception and goes on."""

    def __del__(self):
        signal.raise_signal(signal.SIGINT)


@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
def test_an_interrupt_is_heeded_wherever_it_comes(tmp_path, monkeypatch):
    refreshes = []

    def refresh(options, console):
        refreshes.append(len(refreshes))
        _LosesInterrupt()
        if len(refreshes) > 3:
            pytest.fail("Ctrl-C was lost")
        return 0

    monkeypatch.setattr(report, "_once", refresh)
    before = signal.getsignal(signal.SIGINT)
    assert report.main([str(tmp_path), "watch=0.01"]) == 0
    assert len(refreshes) == 1
    assert signal.getsignal(signal.SIGINT) is before


def test_loss_and_accuracy_of_every_mini_batch_are_overlaid(sweep):
    jobs = [sweep / "0", sweep / "6"]
    curves = [read_history(job) for job in jobs]
    keys = shared_keys(curves)
    assert keys == ["train/loss", "train/acc", "val/loss", "val/acc"]
    for weight in (0.9, 0.0):
        panels = overlay(["plain", "smoothed"], curves, keys, weight, incomparable=True).axes
        titles = [axes.get_title(loc="left").strip() for axes in panels]
        assert titles[:2] == ["Training loss: not comparable", "Training accuracy"]
        for axes, key in zip(panels[:2], keys, strict=False):
            raw, smoothed = axes.lines[:: 2 if weight else 1], axes.lines[1::2] if weight else []
            scale = 100 if key == "train/acc" else 1
            for line, found in zip(raw, curves, strict=True):
                assert list(line.get_xdata()) == found[key].steps == list(range(40))
                assert list(line.get_ydata()) == [scale * value for value in found[key].values]
            assert all(
                list(line.get_ydata()) != list(was.get_ydata()) for line, was in zip(smoothed, raw, strict=False)
            )


@pytest.mark.slow
def test_soft_against_plain_criterion_side_by_side(tmp_path):
    """Two runs from one start, every mini-batch recorded, plotted by one command."""
    options = ["trainer=cpu", *QUICK, "loss=soft_ce"]
    code, _, err = train(tmp_path, "-m", "eps=0,0.5", *options, "hydra.sweep.dir=sweep")
    assert code == 0, err
    command = [sys.executable, "-m", "ls_lightning.report", "compare=sweep/0,sweep/1"]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, env={**os.environ, "COLUMNS": "200"})
    assert (done.returncode, done.stderr) == (0, "")
    assert re.search(r"job +last step +train/loss +train/acc +val/loss +val/acc +val/ece", done.stdout)
    assert "soft_ce at eps 0 (-) and soft_ce at eps 0.5 (constant) have different minima" in done.stdout
    curves = [read_history(tmp_path / "sweep" / name) for name in "01"]
    steps = json.loads((tmp_path / "sweep" / "0" / "result.json").read_text())["steps"]
    for found in curves:
        assert found["train/loss"].steps == found["train/acc"].steps == list(range(steps))
    first = [found["train/acc"].values[0] for found in curves]
    assert first[0] == first[1]  # the same weights, the same mini-batch
    assert all((tmp_path / "report" / f"compare.{form}").stat().st_size > 10_000 for form in ("png", "svg"))


@pytest.mark.slow
def test_a_real_sweep(tmp_path):
    options = ["trainer=cpu", *QUICK, "metrics=full"]
    code, _, err = train(tmp_path, "-m", "eps=0,0.1", "seed=0,1", *options, "hydra.launcher.n_jobs=2")
    assert code == 0, err
    command = [sys.executable, "-m", "ls_lightning.report"]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, env={**os.environ, "COLUMNS": "200"})
    assert (done.returncode, done.stderr) == (0, "")
    (folder,) = (tmp_path / "multirun").glob("*/*")
    assert "4 jobs: 4 complete." in done.stdout
    assert "temperature scaling alone gives" in done.stdout
    stored = json.loads((folder / "0" / "result.json").read_text())
    rows = list(csv.DictReader((folder / "report" / "sweep.csv").open()))
    assert len(rows) == 4
    row = next(row for row in rows if row["folder"].endswith("/0"))
    assert float(row["test/ece"]) == stored["metrics"]["test"]["ece"]
    assert float(row["test_scaled/ece"]) == stored["temperature"]["metrics"]["test"]["ece"]
    assert len(list((folder / "report" / "figures").glob("*.png"))) == 5
    for found in (stored, stored["temperature"]):
        curve = found["risk_coverage"]["test"]
        assert curve["coverage"] == [k / 100 for k in range(1, 101)]
        assert curve["risk"][-1] == pytest.approx(1 - found["metrics"]["test"]["acc"], abs=1e-12)
        # the mean risk over coverages is the area, but for the steps between a hundred points
        assert sum(curve["risk"]) / 100 == pytest.approx(found["metrics"]["test"]["aurc"], abs=5e-3)


def test_columns(sweep, capsys):
    for folder in sweep.iterdir():
        found = json.loads((folder / "result.json").read_text())
        for values in found["metrics"].values():
            values["macro_f1"] = 0.75
        (folder / "result.json").write_text(json.dumps(found))
    _, out, _ = run(capsys, sweep, "figures=none", "columns=[val/macro_f1,accuracy]")
    assert re.search(r"n +macro f1 +accuracy %\n", out)
    assert "0.750 ±0.000" in out
    assert "| macro f1 | accuracy % |" in (sweep / "report" / "report.md").read_text()
    _, out, _ = run(capsys, sweep, "figures=none", "columns=all")
    assert "macro f1" in out
    _, out, _ = run(capsys, sweep, "figures=none", "select=macro_f1")
    assert "macro f1" in out  # what decided is shown
    code, _, err = run(capsys, sweep, "figures=none", "columns=macro_f2")
    assert (code, err) == (
        2, "error: columns=macro_f2 needs test/macro_f2, which no finished job has. Did you mean macro_f1?\n"
    )  # fmt: skip
