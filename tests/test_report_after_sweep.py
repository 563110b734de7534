"""``hydra/callbacks=report``: the report at the end of a sweep, in the same command."""

import pytest
from cli import QUICK, run

GRID = ["-m", "eps=0,0.1", *QUICK, "hydra/callbacks=report", "hydra.sweep.dir=sweep"]


@pytest.mark.slow
def test_a_sweep_ends_with_its_report(tmp_path):
    code, out, err = run(tmp_path, *GRID, "hydra.callbacks.report.figures=none", "hydra.callbacks.report.select=ece")
    assert (code, err) == (0, "")
    assert "2 jobs: 2 complete" in out
    written = {path.name for path in (tmp_path / "sweep" / "report").iterdir()}
    assert written == {"report.html", "report.md", "sweep.csv"}
    assert "ECE" in (tmp_path / "sweep" / "report" / "report.md").read_text()


@pytest.mark.parametrize(
    ("option", "line"),
    [
        ("hydra.callbacks.report.select=typo", "error: select must name a metric"),
        ("+hydra.callbacks.report.figure=none", "error: figure is not a key of the report. Did you mean figures?"),
        ("+hydra.callbacks.report.watch=2", "error: hydra.callbacks.report.watch would not be a report of this sweep"),
    ],
)
def test_a_wrong_option_is_refused_before_the_first_job(tmp_path, option, line):
    code, _, err = run(tmp_path, *GRID, option)
    assert code == 2
    assert err.startswith(line)
    assert err.count("\n") == 1
    assert not list(tmp_path.iterdir())
