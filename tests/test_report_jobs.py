"""Reading folders of jobs: none is dropped, whatever state it is in."""

import csv
import fcntl
import io
import json
import shutil
import time

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from job_folders import measured, write_job, write_sweep

from ls_lightning.report.content import make_report
from ls_lightning.sweep.criterion import parse_criterion
from ls_lightning.sweep.curves import mean_risk
from ls_lightning.sweep.find import find_jobs, newest_sweep
from ls_lightning.sweep.groups import baseline_of, group_jobs
from ls_lightning.sweep.jobs import read_job
from ls_lightning.sweep.settings import schedule_label
from ls_lightning.sweep.tidy import tidy_csv


def read(root):
    return group_jobs(read_job(folder) for folder in find_jobs([root]))


def test_values_of_a_finished_job(tmp_path):
    job = read_job(write_job(tmp_path, 0.1, 3, val=measured(0.5), test={"acc": 0.9, "nll": None}, scaled={"ece": 0.01}))
    assert (job.status, job.eps, job.seed, job.loss, job.schedule) == ("complete", 0.1, 3, "ce", "constant")
    assert job.values["val/nll"] == 0.5
    assert "test/nll" not in job.values
    assert job.values["test_scaled/ece"] == 0.01
    assert (job.values["temperature"], job.values["val_scaled/nll"]) == (1.5, 0.07)
    assert job.bins()["counts"] == job.bins(scaled=True)["counts"] == [0, 20, 80]


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("", "not whole JSON"),
        ('{"schema": 1, "eps": 0.1, "metr', "not whole JSON"),
        ("[1, 2]", "a list instead of keys and values"),
        ('{"accuracy": 0.9}', "no schema version"),
        ('{"schema": true, "eps": 0.1, "metrics": {}}', "no schema version"),
        ('{"schema": 1, "eps": "a tenth", "metrics": {}}', "eps must be a number, got 'a tenth'"),
        ('{"schema": 1, "eps": 0.1}', "no metrics"),
        ('{"schema": 1, "eps": 0.1, "metrics": {}}', "nothing was measured"),
        ('{"schema": 1, "eps": 0.1, "metrics": {"test": [1]}}', "nothing was measured"),
        (b"\xff\xfe\x00", "cannot be read"),
    ],
)
def test_truncated_and_foreign_files_are_listed(tmp_path, text, why):
    write_sweep(tmp_path, lambda eps: 0.5, grid=[0], seeds=range(2))
    (tmp_path / "0" / "result.json").write_bytes(text if isinstance(text, bytes) else text.encode())
    groups, left_out = read(tmp_path)
    assert [len(group.jobs) for group in groups] == [1]
    assert [(job.folder, job.status) for job in left_out] == [(tmp_path / "0", "unreadable")]
    assert why in left_out[0].note


def test_unfinished_failed_running_and_pruned_jobs_are_listed(tmp_path):
    for name in ("done", "unfinished", "failed", "started", "running", "pruned"):
        write_job(tmp_path / name, 0.1, val=measured(0.5), status="pruned" if name == "pruned" else "complete")
    for name in ("unfinished", "failed", "started", "running"):
        (tmp_path / name / "result.json").unlink()
    (tmp_path / "started" / "config.yaml").unlink()
    (tmp_path / "failed" / "job.log").write_text("Traceback\nRuntimeError: out of memory\n")
    with (tmp_path / "running" / "config.yaml").open("a") as claim:
        fcntl.flock(claim, fcntl.LOCK_EX)
        groups, left_out = read(tmp_path)
    assert [len(group.jobs) for group in groups] == [1]
    found = {job.folder.name: job.status for job in left_out}
    assert found == {
        "unfinished": "unfinished",
        "failed": "failed",
        "started": "unfinished",
        "running": "running",
        "pruned": "pruned",
    }
    assert next(job.note for job in left_out if job.status == "failed") == "RuntimeError: out of memory"
    assert (tmp_path / "unfinished" / "config.yaml").exists()


def test_of_two_equal_jobs_the_later_is_counted(tmp_path):
    for name, began, nll in (("a", "2026-01-02", 0.5), ("b", "2026-01-03", 0.7), ("c", "2026-01-01", 0.9)):
        write_job(tmp_path / name, 0.1, val=measured(nll), started=began)
    groups, left_out = read(tmp_path)
    assert [list(group.by_seed("val/nll").values()) for group in groups] == [[0.7]]
    assert {job.folder.name: job.status for job in left_out} == {"a": "duplicate", "c": "duplicate"}
    assert all(f"as {tmp_path / 'b'}, which began later" in job.note for job in left_out)
    assert all(job.note.startswith("the same digest") for job in left_out)


def test_other_schema_versions_are_read_as_far_as_they_go(tmp_path):
    write_job(tmp_path / "old", 0.1, 0, val=measured(0.5))
    write_job(tmp_path / "new", 0.1, 1, val=measured(0.6), schema=9, metrics={"val": {"nll": 0.6, "new": [1]}})
    ((group,), left_out) = read(tmp_path)
    assert left_out == []
    assert group.by_seed("val/nll") == {0: 0.5, 1: 0.6}
    assert group.jobs[1].note == "schema 9, read as far as schema 1 goes"


VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=6,
)
KEYS = ["schema", "status", "eps", "loss", "schedule", "seed", "model", "data", "digest", "metrics", "reliability"]
KEYS += ["temperature", "started", "devices", "risk_coverage"]


@settings(max_examples=80, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.dictionaries(st.sampled_from(KEYS), VALUES, min_size=1, max_size=4))
def test_whatever_is_in_a_result_the_job_is_counted_or_listed(tmp_path, odd):
    if not (tmp_path / "0").exists():
        write_sweep(tmp_path, lambda eps: 0.5 + eps, grid=(0, 0.1), seeds=range(2))
    path = write_job(tmp_path / "odd", 0.2, 5, val=measured(0.4), test=measured(0.4)) / "result.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | odd))
    report = make_report([read_job(folder) for folder in find_jobs([tmp_path])], parse_criterion("nll"))
    assert len(report.jobs) == 5
    assert report.answers
    assert tidy_csv(report.jobs).count("\n") >= 6
    for job in report.jobs:
        job.bins()
        job.bins(scaled=True)
        job.risk_coverage()
    for group in report.groups:
        mean_risk(group, "test")
        mean_risk(group, "test", scaled=True)


def test_a_setting_of_its_own_is_a_group_of_its_own(tmp_path):
    for number, more in enumerate(({}, {"lr": 0.1}, {"label_noise": 0.4}, {"loss": "kl"}, {"schedule": "linear"})):
        write_job(tmp_path / str(number), 0.1, val=measured(0.5), **more)
    groups, left_out = read(tmp_path)
    assert left_out == []
    assert sorted((group.setting, group.loss, group.schedule) for group in groups) == [
        ("optimizer.lr=0.002 data.label_noise=0.0", "ce", "constant"),
        ("optimizer.lr=0.002 data.label_noise=0.0", "ce", "linear decay"),
        ("optimizer.lr=0.002 data.label_noise=0.0", "kl", "constant"),
        ("optimizer.lr=0.002 data.label_noise=0.4", "ce", "constant"),
        ("optimizer.lr=0.1 data.label_noise=0.0", "ce", "constant"),
    ]


@pytest.mark.parametrize(
    ("splits", "settings"),
    [
        ({(0, 0), (1, 1), (2, 2)}, {""}),  # data.split_seed=${seed}
        ({(0, 0), (0, 1)}, {"data.split_seed=0", "data.split_seed=1"}),
        ({(0, 0), (0, 1), (1, 0), (1, 1)}, {"data.split_seed=0", "data.split_seed=1"}),
    ],
)
def test_a_split_that_follows_the_seed_is_no_setting(tmp_path, splits, settings):
    for seed, split in splits:
        write_job(tmp_path / f"{seed}-{split}", 0.1, seed, split_seed=split, val=measured(0.5))
    groups, left_out = read(tmp_path)
    assert left_out == []
    assert {group.setting for group in groups} == settings


def test_eps_0_is_plain_training_whatever_the_schedule(tmp_path):
    for name, eps, loss, schedule in (
        ("a", 0, "ce", "constant"),
        ("b", 0.0, "ce", "linear"),
        ("c", 0.1, "ce", "linear"),
        ("d", 0, "focal", "constant"),
        ("e", 0.1, "kl", "constant"),
    ):
        write_job(tmp_path / name, eps, loss=loss, schedule=schedule, val=measured(0.5))
    groups, left_out = read(tmp_path)
    assert [job.status for job in left_out] == ["duplicate"]
    assert left_out[0].folder.name in ("a", "b")
    assert {(group.loss, group.eps): group.smooths for group in groups} == {
        ("ce", 0.0): False,
        ("ce", 0.1): True,
        ("focal", 0.0): True,
        ("kl", 0.1): True,
    }
    assert {baseline_of(group, groups).loss for group in groups} == {"ce"}


@pytest.mark.parametrize(
    ("text", "eps", "label"),
    [
        ("Constant(eps=0.1)", 0.1, "constant"),
        ("Linear(start=0.1, end=0.0)", 0.1, "linear decay"),
        ("Linear(start=0.0, end=0.1)", 0.1, "linear(start=0.0, end=eps)"),
        ("TwoStage(eps=0.1, drop_at=0.8)", 0.1, "two-stage"),
        ("TwoStage(eps=0.1, drop_at=0.5)", 0.1, "two_stage(eps=eps, drop_at=0.5)"),
        ("Warmup(eps=0.2, start_at=0.0, full_at=0.1, then=Linear(start=0.2, end=0.0))", 0.2, "then=linear(start=eps"),
        ("Constant(eps=0.0)", 0.0, "-"),
        ("Constant(eps=-0.4)", -0.4, "constant"),
        ("Delayed(eps=-0.4, start_at=0.5)", -0.4, "delayed(eps=eps, start_at=0.5)"),
        ("Feedback(eps=0.0, gain=0.5)", 0.0, "feedback(eps=0.0, gain=0.5)"),
        ("<their.Schedule object>", 0.1, "<their.Schedule object>"),
        (None, 0.0, "-"),
    ],
)
def test_the_form_of_a_schedule(text, eps, label):
    assert label in schedule_label(text, eps)


def test_folders_of_configurations_are_no_jobs(tmp_path):
    write_job(tmp_path / "sweep" / "0", 0.1, val=measured(0.5))
    (tmp_path / "conf").mkdir()
    (tmp_path / "conf" / "config.yaml").write_text("defaults:\n- _self_\neps: ???\nseed: 0\nckpt_path: null\n")
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "config.yaml").write_text("lr: 1\n")
    assert find_jobs([tmp_path, tmp_path / "sweep", tmp_path / "sweep" / "0"]) == [tmp_path / "sweep" / "0"]
    with pytest.raises(FileNotFoundError, match="must be a folder of jobs"):
        find_jobs([tmp_path / "absent"])


def test_the_newest_sweep(tmp_path):
    assert newest_sweep(tmp_path) is None
    write_job(tmp_path / "outputs" / "day" / "time", 0.1, val=measured(0.5))
    assert newest_sweep(tmp_path) == tmp_path / "outputs" / "day"
    for sweep in ("multirun/2026/a", "multirun/2026/b", "mine"):
        write_job(tmp_path / sweep / "0", 0.1, val=measured(0.5))
        (tmp_path / sweep / "multirun.yaml").write_text("hydra: {}\n")
        time.sleep(0.02)
        assert newest_sweep(tmp_path) == tmp_path / sweep
    shutil.rmtree(tmp_path / "mine")
    assert newest_sweep(tmp_path) == tmp_path / "multirun" / "2026" / "b"


def test_the_csv_has_every_job_and_every_metric(tmp_path):
    write_sweep(tmp_path, lambda eps: 0.5 + eps, seeds=range(2))
    write_job(tmp_path / "odd", 0.3, test={"acc": 0.5, "their_metric": 2.5}, lr=0.1)
    (tmp_path / "0" / "result.json").write_text("{")
    groups, left_out = read(tmp_path)
    jobs = [*(job for group in groups for job in group.jobs), *left_out]
    rows = list(csv.DictReader(io.StringIO(tidy_csv(jobs))))
    assert len(rows) == len(jobs) == 7
    odd = next(row for row in rows if row["name"] == "odd")
    assert (odd["test/their_metric"], odd["optimizer.lr"], odd["val/nll"], odd["status"]) == (
        "2.5",
        "0.1",
        "",
        "complete",
    )
    for row in rows:
        if row["status"] == "complete":
            stored = json.loads((tmp_path / row["name"] / "result.json").read_text())
            for stage, values in stored["metrics"].items():
                assert {key: float(row[f"{stage}/{key}"]) for key in values} == values
    (lost,) = [row for row in rows if row["status"] == "unreadable"]
    assert lost["folder"] == str(tmp_path / "0")
    assert "not whole JSON" in lost["note"]


def test_settings_name_what_tells_jobs_apart_and_no_gaps(tmp_path):
    """Keys that only one kind of data has are not those of the other."""
    for number, (data, config) in enumerate((("digits", ""), ("npz", "  limit_train: 50\n"), ("npz", ""))):
        folder = write_job(tmp_path / str(number), 0.1, test={"acc": 0.5}, data=data)
        text = (folder / "config.yaml").read_text()
        if data == "npz":
            text = text.replace("  label_noise: 0.0\n", config or "  limit_train: 90\n").replace("40", "20")
        (folder / "config.yaml").write_text(text)
    groups, _ = read(tmp_path)
    assert sorted(group.setting for group in groups) == [
        "data=digits",
        "data=npz data.limit_train=50",
        "data=npz data.limit_train=90",
    ]
