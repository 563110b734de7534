import csv

import pytest
import torch
from lightning.pytorch.loggers import Logger

from ls_lightning import loggers
from ls_lightning.loggers import CSVHistory


def rows(folder):
    with (folder / "metrics.csv").open(newline="") as file:
        return list(csv.DictReader(file))


def test_values_of_one_step_share_a_row(tmp_path):
    history = CSVHistory(tmp_path)
    assert isinstance(history, Logger)
    for step in range(3):
        history.log_metrics({"ls/eps": 0.1 - 0.01 * step}, step=step)
        history.log_metrics({"train/loss": torch.tensor(1.0 / (step + 1))}, step=step)
    history.finalize("success")
    history.log_metrics({"val/acc": 0.5}, step=2)
    history.finalize("success")
    history.log_metrics({"test/acc": 0.25}, step=3)
    history.finalize("success")
    found = rows(tmp_path)
    assert [row["step"] for row in found] == ["0", "1", "2", "3"]
    assert [row["train/loss"] for row in found] == ["1.0", "0.5", str(torch.tensor(1 / 3).item()), ""]
    assert [row["val/acc"] for row in found] == ["", "", "0.5", ""]
    assert found[3]["test/acc"] == "0.25"


def test_blocks_and_new_columns_lose_nothing(tmp_path, monkeypatch):
    monkeypatch.setattr(loggers, "_BLOCK_ROWS", 7)
    history = CSVHistory(tmp_path)
    for step in range(100):
        history.log_metrics({"a": step}, step=step)
        if step % 10 == 3:
            history.log_metrics({f"b{step % 3}": torch.tensor(float(step))}, step=step)
        if step == 50:
            assert 43 <= len(rows(tmp_path)) <= 51
    history.finalize("success")
    found = rows(tmp_path)
    assert [row["a"] for row in found] == [str(step) for step in range(100)]
    for step, row in enumerate(found):
        for k in range(3):
            assert row[f"b{k}"] == (str(float(step)) if step % 10 == 3 and step % 3 == k else "")


@pytest.mark.parametrize("extra", [{}, {"extra": 1}])
def test_resume_replaces_the_rows_after_the_checkpoint(tmp_path, extra):
    first = CSVHistory(tmp_path)
    for step in range(10):
        first.log_metrics({"loss": step, "epoch": 0}, step=step)
    first.finalize("failed")
    with (tmp_path / "metrics.csv").open("a") as file:
        file.write("10,1")  # a line that a killed process did not finish
    second = CSVHistory(tmp_path)
    for step in range(6, 12):
        second.log_metrics({"loss": 100 + step, **extra}, step=step)
    second.finalize("success")
    found = rows(tmp_path)
    assert [int(row["step"]) for row in found] == list(range(12))
    assert [int(row["loss"]) for row in found] == [*range(6), *range(106, 112)]
    if extra:
        assert [row["extra"] for row in found] == [""] * 6 + ["1"] * 6


def test_a_resumed_run_adds_to_the_row_of_its_step(tmp_path):
    first = CSVHistory(tmp_path)
    for step in range(4):
        first.log_metrics({"train/loss": 0.5 + step}, step=step)
    first.finalize("failed")
    again = CSVHistory(tmp_path)  # from a checkpoint amid the validation after step 2
    again.log_metrics({"val/acc": 0.25}, step=2)
    again.log_metrics({"train/loss": 7.0}, step=3)
    again.finalize("success")
    assert [row["train/loss"] for row in rows(tmp_path)] == ["0.5", "1.5", "2.5", "7.0"]
    assert [row["val/acc"] for row in rows(tmp_path)] == ["", "", "0.25", ""]


def test_a_write_that_is_killed_loses_no_row(tmp_path, monkeypatch):
    history = CSVHistory(tmp_path)
    for step in range(4):
        history.log_metrics({"loss": step}, step=step)
    history.flush()
    history.log_metrics({"loss": 4}, step=4)

    def killed(*args):
        raise SystemExit

    monkeypatch.setattr(history, "_put", killed)
    with pytest.raises(SystemExit):
        history.flush()
    assert [row["loss"] for row in rows(tmp_path)] == ["0", "1", "2", "3"]


def test_nothing_logged_leaves_no_file(tmp_path):
    history = CSVHistory(tmp_path / "sub")
    history.finalize("success")
    assert not (tmp_path / "sub").exists()
