"""A report logged to wandb, and a report of runs whose job folders are gone; offline, without an account."""

import json
import os
import shutil
import subprocess
import sys
import time
from contextlib import suppress

import pytest
from job_folders import write_sweep
from PIL import Image
from test_wandb import Run, values, without_account

from ls_lightning.report import __main__ as report
from ls_lightning.sweep.find import find_jobs
from ls_lightning.sweep.groups import group_jobs
from ls_lightning.sweep.jobs import read_job


def valley(eps):
    return 0.5 + 20 * (eps - 0.1) ** 2


@pytest.fixture
def sweep(tmp_path, monkeypatch):
    work = without_account(monkeypatch, tmp_path)
    monkeypatch.setenv("COLUMNS", "240")
    monkeypatch.chdir(work)
    return write_sweep(work / "sweep", valley, grid=(0, 0.1, 0.2), seeds=range(3), noise=0.001)


def call(capsys, *words):
    code = report.main([str(word) for word in words])
    out, err = capsys.readouterr()
    return code, out, err


def as_run(job, folder, *, downloaded):
    """The layout in which wandb keeps a run, or in which the files of one are downloaded."""
    files = folder if downloaded else folder / "files"
    shutil.copytree(job, files / "job")
    if downloaded:
        (files / "wandb-summary.json").write_text("{}")
        (files / "config.yaml").write_text("_wandb:\n  value: {}\neps:\n  value: 0.1\nseed:\n  value: 0\nckpt_path:\n")
    else:
        (folder / f"run-{folder.name[-8:]}.wandb").write_bytes(b":W&B\xe1\xbe\x00")


@pytest.mark.parametrize("downloaded", [False, True])
@pytest.mark.parametrize("parent", ["wandb", "backup/wandb", "backup"])
def test_a_report_of_runs_is_that_of_their_jobs(sweep, capsys, monkeypatch, downloaded, parent):
    code, wanted, _ = call(capsys, sweep, "figures=none", "html=false")
    assert code == 0
    jobs = find_jobs([sweep])
    for number, job in enumerate(jobs):
        folder = sweep.parent / parent / f"offline-run-20260101_0000{number:02}-abcdefg{number}"
        as_run(job, folder, downloaded=downloaded)
    shutil.rmtree(sweep)
    root = parent.split("/")[0]
    code, found, _ = call(capsys, root, "figures=none", "html=false", "out=there")
    assert code == 0
    assert found.split("\n\n")[:-1] == wanted.split("\n\n")[:-1]  # but for where the files are
    assert len(find_jobs([sweep.parent / root])) == len(jobs) == 9


def test_while_the_jobs_are_there_their_runs_are_not_counted_twice(sweep):
    for job in find_jobs([sweep]):
        as_run(job, job / "wandb" / "offline-run-20260101_000000-abcdefgh", downloaded=False)
        as_run(job, sweep / "wandb" / f"offline-run-20260101_000000-abcdefg{job.name}", downloaded=False)
    groups, left_out = group_jobs(read_job(folder) for folder in find_jobs([sweep]))
    assert (sum(len(group.jobs) for group in groups), left_out) == (9, [])


def test_a_run_without_its_job_is_listed(sweep, capsys):
    as_run(sweep / "0", sweep.parent / "runs" / "offline-run-20260101_000000-abcdefgh", downloaded=False)
    for name, files in (("offline-run-x", ["run-x.wandb"]), ("download-x", ["wandb-summary.json", "config.yaml"])):
        (sweep.parent / "runs" / name).mkdir()
        for file in files:
            (sweep.parent / "runs" / name / file).write_text("_wandb:\neps:\nseed:\nckpt_path:\n")
    code, out, _ = call(capsys, sweep.parent / "runs", "figures=none", "html=false")
    assert code == 0
    assert "3 jobs: 1 complete, 2 unfinished." in out
    assert " ".join(out.split()).count("a run of wandb without the files of its job") == 2


MISTAKES = [
    ("upload=yes", "upload must be true or false, got 'yes'"),
    ("upload=true watch=5", "upload logs one finished report, got watch too"),
    ("report.upload=true compare=sweep/0,sweep/1", "upload logs one finished report, got compare too"),
]


@pytest.mark.parametrize(("words", "said"), MISTAKES, ids=[words for words, _ in MISTAKES])
def test_mistakes(sweep, capsys, words, said):
    code, out, err = call(capsys, *words.split())
    assert (code, out, err.count("\n")) == (2, "", 1)
    assert said in err


@pytest.mark.slow
@pytest.mark.parametrize("word", ["upload=true", "report.upload=true"])
def test_table_answer_figures_and_files_are_logged(sweep, capsys, word):
    (sweep / "8" / "result.json").write_text("{")
    figures = "figures=png,svg" if word.startswith("report") else "figures=none"
    code, out, _ = call(capsys, sweep, word, figures, "html=false")
    assert code == 0
    assert "wandb sync" in out.splitlines()[-1]
    (folder,) = (sweep / "report" / "wandb").glob("offline-run-*")
    run = closed(folder)
    assert (run.run.project, run.run.job_type, run.exit_codes) == ("ls_lightning", "report", [0])
    assert values(run.run.config.update)["select"] == "nll"
    assert run.summary["answer"].startswith("eps 0.1: ECE")
    assert run.summary["jobs"] == "9 jobs: 8 complete, 1 unreadable."
    assert recommended(run) == {"loss": "ce", "schedule": "constant", "eps": 0.1}
    table = read_table(run, "report/table")
    assert [(row["eps"], row["seeds"], row["temperature"]) for row in table] == [
        (eps, seeds, t) for eps, seeds in ((0, 3), (0.1, 3), (0.2, 2)) for t in (None, 1.5)
    ]
    groups, _ = group_jobs(read_job(job) for job in find_jobs([sweep]))
    for row, group in zip(table[::2], groups, strict=True):
        found = group.estimate("test/ece")
        assert (row["ECE %"], row["ECE % ±"]) == pytest.approx((100 * found.mean, 100 * found.half))
    rows = read_table(run, "report/jobs")
    assert sorted(row["status"] for row in rows) == ["complete"] * 8 + ["unreadable"]
    assert rows[0]["test/nll"] == read_job(sweep / rows[0]["name"]).values["test/nll"]
    kept = {path.name for path in (folder / "files").rglob("*")}
    assert {"report.md", "sweep.csv"} <= kept
    pictures = {key.removesuffix("/_type") for key, value in run.summary.items() if "image-file" in json.dumps(value)}
    assert len({path for path in kept if path.endswith(".svg")}) == (5 if "svg" in figures else 0)
    names = list((folder / "files" / "media").rglob("*.png"))
    assert len(names) == len(pictures) == (5 if "svg" in figures else 0)
    for name in names:
        with Image.open(name) as picture:
            assert len(picture.convert("RGB").getcolors(1_000_000)) > 10


def closed(folder):
    """The run, as soon as wandb's own process has written all of it."""
    deadline = time.monotonic() + 60
    while time.monotonic() < deadline:
        with suppress(AssertionError):
            if (run := Run(folder)).exit_codes:
                return run
        time.sleep(0.1)
    raise TimeoutError(f"{folder} was not closed")


def recommended(run):
    found = run.summary.get("recommended")
    return found or {key: run.summary[f"recommended/{key}"] for key in ("loss", "schedule", "eps")}


def read_table(run, key):
    path = run.summary[key]["path"] if key in run.summary else run.summary[f"{key}/path"]
    stored = json.loads((run.folder / "files" / path).read_text())
    return [dict(zip(stored["columns"], row, strict=True)) for row in stored["data"]]


@pytest.mark.slow
def test_it_never_asks(sweep):
    """Without a key in online mode: one line, also at a terminal."""
    pty = pytest.importorskip("pty")
    end, terminal = pty.openpty()
    command = [sys.executable, "-m", "ls_lightning.report", "sweep", "upload=true", "figures=none", "html=false"]
    env = {**os.environ, "WANDB_MODE": "online"}
    process = subprocess.Popen(
        command, cwd=sweep.parent, stdin=terminal, stderr=terminal, stdout=subprocess.PIPE, env=env
    )
    out, _ = process.communicate(timeout=120)
    os.close(terminal)
    said = ""
    with suppress(OSError):  # the end of what was written to a terminal that is closed
        while part := os.read(end, 4096).decode():
            said += part
    os.close(end)
    assert process.returncode == 2
    assert b"9 jobs: 9 complete." in out
    assert said.endswith("error: upload: No API key configured. Use `wandb login` to log in.\r\n")


@pytest.mark.slow
def test_nothing_is_logged_where_wandb_is_disabled(sweep, capsys, monkeypatch):
    monkeypatch.setenv("WANDB_MODE", "disabled")
    code, out, _ = call(capsys, sweep, "upload=true", "figures=none", "html=false")
    assert code == 0
    assert "WANDB_MODE=disabled: nothing was logged to wandb." in out
    assert not (sweep / "report" / "wandb").exists()
