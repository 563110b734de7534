"""wandb as a user without account and network has it: offline runs, read back from disk with wandb's own records."""

import csv
import json
import os
import shutil
import struct
import sys
import time
import zlib

import pytest
import yaml
from cli import QUICK, WITH_PICTURES, result, run, run_here
from PIL import Image
from wandb.proto.wandb_internal_pb2 import Record

from ls_lightning.report.__main__ import main
from ls_lightning.schedules import Linear
from ls_lightning.sweep.find import find_jobs
from ls_lightning.sweep.history import read_history
from ls_lightning.sweep.jobs import read_job

BLOCK = 2**15
pytestmark = pytest.mark.slow


def records(path):
    """The records of a ``.wandb`` file: LevelDB's log format, since wandb has no public reader."""
    content = path.read_bytes()
    assert content[:4] == b":W&B"
    at, whole = 7, b""
    while at + 7 <= len(content):
        if BLOCK - at % BLOCK < 7:  # a header does not fit: the rest of the block is empty
            at += BLOCK - at % BLOCK
            continue
        checksum, length, kind = struct.unpack_from("<IHB", content, at)
        piece = content[at + 7 : at + 7 + length]
        assert checksum == zlib.crc32(piece, zlib.crc32(bytes([kind])))
        at, whole = at + 7 + length, whole + piece
        if kind in (1, 4):  # the full record, or its last piece
            yield Record.FromString(whole)
            whole = b""
    assert not whole


class Run:
    """One offline run: its ``config``, ``history`` (a dict a row), ``summary``, exit codes and media files."""

    def __init__(self, folder):
        self.folder = folder
        self.config, self.history, self.summary, self.exit_codes, self.run = {}, [], {}, [], None
        (log,) = folder.glob("run-*.wandb")
        for record in records(log):
            kind = record.WhichOneof("record_type")
            if kind == "run":
                self.run = record.run
            elif kind == "config":
                self.config.update(values(record.config.update))
            elif kind == "history":
                self.history.append(values(record.history.item))
            elif kind == "summary":
                self.summary.update(values(record.summary.update))
            elif kind == "exit":
                self.exit_codes.append(record.exit.exit_code)

    def column(self, key):
        """``{step: value}`` of everything logged under ``key``."""
        return {row["trainer/global_step"]: row[key] for row in self.history if key in row}


def values(items):
    return {item.key or "/".join(item.nested_key): json.loads(item.value_json) for item in items}


def runs(folder):
    return [Run(path) for path in sorted(folder.glob("wandb/offline-run-*"))]


def files(folder):
    return {str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file()}


def without_account(monkeypatch, folder):
    """A working directory, an empty home, and neither a key nor a mode in the environment."""
    for name in [name for name in os.environ if name.startswith("WANDB_")]:
        monkeypatch.delenv(name)
    for name in ("home", "work"):
        (folder / name).mkdir()
    monkeypatch.setenv("HOME", str(folder / "home"))
    return folder / "work"


@pytest.fixture
def work(monkeypatch, tmp_path):
    return without_account(monkeypatch, tmp_path)


@pytest.fixture(scope="module")
def job(tmp_path_factory):
    overrides = ["logger=wandb", "loss=kl", "eps=0.2", "schedule=linear", "seed=3", *WITH_PICTURES]
    with pytest.MonkeyPatch.context() as monkeypatch:
        folder = without_account(monkeypatch, tmp_path_factory.mktemp("wandb"))
        code, _, err = run(folder, *overrides, "hydra.run.dir=job")
    assert code == 0, err
    assert "Traceback" not in err
    return folder / "job"


@pytest.fixture(scope="module")
def logged(job):
    (found,) = runs(job)
    return found


def test_the_job_is_complete_and_nothing_is_outside_its_folder(job):
    pictures = ["class_gap.png", "reliability.png", "risk_coverage.png"]
    names = ["checkpoints/last.ckpt", "config.yaml", "metrics.csv", *pictures, "result.json"]
    assert {name for name in files(job) if not name.startswith("wandb/")} == set(names)
    assert result(job)["status"] == "complete"
    assert [path.name for path in job.parent.iterdir()] == ["job"]
    assert {name.split("/")[0] for name in files(job.parent.parent / "home")} <= {".cache", ".config"}
    assert not (job.parent.parent / "home" / ".config" / "wandb").exists()


def test_the_run_has_the_configuration(job, logged):
    config = yaml.safe_load((job / "config.yaml").read_text())
    assert {key: logged.config[key] for key in config} == config
    assert (config["eps"], config["seed"], config["loss"]["eps"]) == (0.2, 3, 0.2)
    assert (logged.run.project, logged.run.display_name) == ("ls_lightning", "job")


def test_the_run_has_every_step(job, logged):
    with (job / "metrics.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    steps = result(job)["steps"]
    for key in ("train/loss", "ls/eps", "val/ece", "val/nll", "test/ece", "test/gap"):
        assert logged.column(key) == pytest.approx({int(row["step"]): float(row[key]) for row in rows if row[key]})
    assert list(logged.column("train/loss")) == list(logged.column("ls/eps")) == list(range(steps))
    schedule = Linear(0.2, 0.0)
    assert list(logged.column("ls/eps").values()) == [schedule(step / steps) for step in range(steps)]


def test_the_summary_is_the_result(job, logged):
    for stage, metrics in result(job)["metrics"].items():
        for name in metrics.keys() - {"n"}:
            assert logged.summary[f"{stage}/{name}"] == pytest.approx(metrics[name], abs=1e-6)


@pytest.mark.parametrize("stage", ["val", "test"])
def test_the_reliability_diagram_is_an_image(logged, stage):
    key = f"{stage}/reliability"
    assert logged.summary[f"{key}/_type"] == "images/separated"
    (name,) = logged.summary[f"{key}/filenames"]
    image = Image.open(logged.folder / "files" / name)
    assert image.format == "PNG"
    assert image.size == (logged.summary[f"{key}/width"], logged.summary[f"{key}/height"])
    assert len(image.convert("RGB").getcolors(maxcolors=10**6)) > 2


def test_the_run_is_closed(logged):
    assert logged.exit_codes == [0]


def test_each_job_of_a_process_has_its_own_run(monkeypatch, work):
    overrides = [
        "hydra/launcher=basic",
        "logger=wandb",
        "eps=0,0.1",
        "name=mine",
        *QUICK,
        "trainer.limit_train_batches=2",
    ]
    assert run_here(monkeypatch, work, "-m", *overrides, "hydra.sweep.dir=sweep") == 0
    found = [runs(work / "sweep" / str(number)) for number in range(2)]
    assert [[run.config["eps"] for run in each] for each in found] == [[0], [0.1]]
    assert [[run.exit_codes for run in each] for each in found] == [[[0]], [[0]]]
    assert [each[0].run.display_name for each in found] == ["mine", "mine"]
    assert found[0][0].run.run_id != found[1][0].run.run_id
    assert [list(each[0].column("ls/eps").values()) for each in found] == [[0] * 4, [0.1] * 4]
    assert [path.name for path in work.iterdir()] == ["sweep"]


BROKEN = """
from ls_lightning.zoo import MLP
class Net(MLP):
    def forward(self, x):
        raise {error}
"""


@pytest.mark.parametrize(
    ("error", "outcome"),
    [("ValueError('in my own code')", "ValueError: in my own code"), ("KeyboardInterrupt", "130")],
)
def test_a_job_that_fails_leaves_a_failed_run(monkeypatch, work, error, outcome):
    (work / "broken.py").write_text(BROKEN.format(error=error))
    monkeypatch.syspath_prepend(work)
    monkeypatch.delitem(sys.modules, "broken", raising=False)
    overrides = ["logger=wandb", "model._target_=broken.Net", *QUICK]
    try:
        found = str(run_here(monkeypatch, work, *overrides, "hydra.run.dir=job"))
    except ValueError as raised:
        found = f"ValueError: {raised}"
    assert found == outcome
    deadline = time.monotonic() + 30
    while not (run := runs(work / "job")[0]).exit_codes and time.monotonic() < deadline:
        time.sleep(0.2)  # wandb's own process writes the file
    assert run.exit_codes == [1]
    assert len(runs(work / "job")) == 1
    assert run.config["eps"] == 0.1
    assert not (work / "job" / "result.json").exists()


@pytest.mark.parametrize(
    ("override", "words"),
    [
        ("logger.wandb.offline=false", "No API key configured"),
        ("+logger.wandb.typo=1", "unexpected keyword argument 'typo'"),
    ],
)
def test_a_logger_that_cannot_start_is_one_line(work, override, words):
    code, out, err = run(work, "logger=wandb", override, *QUICK, "hydra.run.dir=job")
    errors = [line for line in err.splitlines() if not line.startswith("wandb: ")]
    assert (code, out, len(errors)) == (2, "", 1), err
    assert errors[0].startswith("error: logger: ")
    assert words in errors[0]
    assert list(work.iterdir()) == []


def test_a_report_can_be_made_of_the_run_alone(job, logged, tmp_path, capsys):
    """Moved away from its job, a run has all that the report reads."""
    run = shutil.copytree(logged.folder, tmp_path / "runs" / logged.folder.name)
    (found,) = [read_job(folder) for folder in find_jobs([tmp_path / "runs"])]
    assert found.folder == run / "files" / "job"
    original = read_job(job)
    assert (found.result, found.settings, found.status) == (original.result, original.settings, "complete")
    assert read_history(found.folder) == read_history(job)
    assert not any(path.is_symlink() for path in found.folder.iterdir())
    kept = [file.path for record in records(next(run.glob("*.wandb"))) for file in record.files.files]
    assert {"job/config.yaml", "job/metrics.csv", "job/result.json"} <= set(kept)  # `wandb sync` uploads these
    assert main([str(tmp_path / "runs"), "figures=none", "html=false"]) == 0
    assert "1 job: 1 complete." in capsys.readouterr().out
