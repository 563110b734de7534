"""hydra/launcher=stacked as a user starts it."""

import os
import signal

import pytest
from cli import result, run
from hydra import initialize_config_module
from hydra.conf import HydraConf
from hydra.core.global_hydra import GlobalHydra
from hydra.errors import HydraException
from hydra.types import RunMode
from omegaconf import OmegaConf
from stacks import jobs
from sweeps import Sweep, wait_for

from hydra_plugins.ls_process_launcher._jobs import Job, State
from hydra_plugins.ls_stacked_launcher._alike import ComposedAlike
from hydra_plugins.ls_stacked_launcher._once import ComposedOnce
from hydra_plugins.ls_stacked_launcher._plan import _divide, plan_stacks
from ls_lightning.config import register_schema

pytestmark = pytest.mark.skipif(os.name != "posix", reason="process groups")
SWEEP = ["-m", "hydra/launcher=stacked", "hydra.sweep.dir=sweep", "trainer=cpu", "trainer.enable_progress_bar=false"]
KILLS = ["-m", "ls_lightning.train", *SWEEP, "eps=0,0.1", "trainer.max_epochs=60", "model=linear"]


@pytest.mark.slow
def test_a_sweep_leaves_what_processes_leave(tmp_path):
    """Float64 and float32 in one sweep are two stacks; what does not fit is a process, and the rest is the same."""
    options = ["trainer.max_epochs=2", "~callbacks.pictures", "trainer.precision=64-true", "eps=0,0.2", "seed=0,1"]
    for launcher, folder in (("stacked", "stacked"), ("process", "processes")):
        choice = ["-m", f"hydra/launcher={launcher}", f"hydra.sweep.dir={folder}", *SWEEP[3:], *options]
        code, out, err = run(tmp_path, *choice, "model=mlp,cnn" if launcher == "stacked" else "model=mlp")
        assert code == 0, err
        if launcher == "stacked":
            assert "4 jobs are trained as one model" in out
            assert "4 jobs are processes, since model CNN: convolutions gain nothing from it on a CPU" in out
            assert "[8/8]" in out
    found = {
        (r["eps"], r["seed"]): r
        for r in map(result, sorted((tmp_path / "stacked").glob("[0-9]*")))
        if r["model"] == "mlp"
    }
    for folder in (tmp_path / "processes").glob("[0-9]*"):
        if folder.is_dir():
            wanted = result(folder)
            member = found[wanted["eps"], wanted["seed"]]
            assert member["digest"] == wanted["digest"]
            for split in ("val", "test"):
                assert member["metrics"][split] == pytest.approx(wanted["metrics"][split], rel=1e-9, abs=1e-9)


@pytest.mark.slow
def test_interrupted_it_begins_anew_and_skips_what_is_done(tmp_path):
    sweep = Sweep(tmp_path, *KILLS)
    assert wait_for(lambda: (tmp_path / "sweep" / "1" / "metrics.csv").exists())
    sweep.process.send_signal(signal.SIGINT)
    code, out, err = sweep.end()
    assert code == 130, err
    assert "hydra.launcher.resume=sweep" in err
    assert sweep.gone()
    assert not list((tmp_path / "sweep").glob("*/result.json"))
    short = [word for word in KILLS[2:] if not word.startswith("trainer.max_epochs")]
    (tmp_path / "sweep").rename(tmp_path / "broken")
    for attempt in ("2 jobs are trained as one model", "skipped, it is done"):
        code, out, err = run(tmp_path, *short, "trainer.max_epochs=2")
        assert code == 0, err
        assert attempt in out
    code, out, err = run(tmp_path, *KILLS[2:], "hydra.launcher.resume=broken")
    assert code == 0, err
    assert len(list((tmp_path / "broken").glob("*/result.json"))) == 2


@pytest.mark.slow
def test_a_stack_that_dies_becomes_processes(tmp_path):
    sweep = Sweep(tmp_path, *KILLS)
    assert wait_for(lambda: (tmp_path / "sweep" / "0" / "metrics.csv").exists())
    workers = [pid for pid, command in sweep.members().items() if "_worker" in command and "_supervise" not in command]
    for pid in workers:
        os.kill(pid, signal.SIGKILL)
    code, out, err = sweep.end(timeout=600)
    assert code == 0, err
    assert out.count("not finished by its stack, so it becomes a process") == 2
    assert "2 jobs were not finished (exit code 137)" in err
    assert sorted(result(tmp_path / "sweep" / str(k))["eps"] for k in range(2)) == [0.0, 0.1]


def test_a_mac_has_no_option_for_its_gpu(tmp_path, monkeypatch):
    monkeypatch.setattr("sys.platform", "darwin")
    job = Job(0, [], OmegaConf.create({"trainer": {"accelerator": "auto"}}), OmegaConf.create(), tmp_path)
    stacks, alone = plan_stacks([job], 1, gpu=True)
    assert stacks == []
    assert list(alone) == ["it would be trained on a GPU, where this has not been tried (trainer=cpu)"]


@pytest.mark.parametrize("trainer", ["auto", "gpu"])
@pytest.mark.parametrize("gpu", [False, True])
def test_a_gpu_is_left_to_processes_unless_asked_for(tmp_path, monkeypatch, gpu, trainer):
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "0")
    monkeypatch.setattr("hydra_plugins.ls_stacked_launcher._plan._settled", lambda job: OmegaConf.to_container(job.cfg))
    hydra = OmegaConf.create({"hydra": OmegaConf.structured(HydraConf)})
    found = jobs(tmp_path, [f"eps={eps} model=cnn trainer={trainer}" for eps in (0, 0.1)])
    cfgs = [OmegaConf.create(job.config) for job in found]
    queued = [Job(k, [], cfg, hydra, tmp_path / str(k)) for k, cfg in enumerate(cfgs)]
    stacks, alone = plan_stacks(queued, 1, gpu)
    if gpu:
        assert ([[job.num for job, _ in stack] for stack in stacks], alone) == ([[0, 1]], {})
    else:
        assert stacks == []
        assert next(iter(alone)).endswith("not been tried (trainer=cpu, or hydra.launcher.gpu=true)")
    if trainer == "auto":  # without one it is a CPU, where the option makes no difference
        monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")
        assert next(iter(plan_stacks(queued, 1, gpu)[1])).startswith("model CNN: convolutions gain nothing")


def test_a_configuration_is_composed_once():
    """The sweeper's is given to the launcher, which writes into it; without a sweeper's, or again, a new one."""
    loaded, begun = [], []

    def load(master_config, sweep_overrides):
        loaded.append(sweep_overrides)
        return OmegaConf.create({"num": len(loaded)})

    once = ComposedOnce(load, lambda: begun.append(len(loaded)))
    for overrides in (["eps=0"], ["eps=1"]):
        once(None, sweep_overrides=overrides)
    once.launching = True
    assert [once(None, [word]).num for word in ("eps=0", "eps=1", "eps=1", "eps=2", "eps=2")] == [1, 2, 3, 4, 5]
    assert begun == [1]


ALIKE = [
    ["eps=0", "seed=1", "optimizer.lr=0.1", "name=a"],
    ["eps=0.1", "seed=2", "optimizer.lr=1e-3", "name=null"],
    ["eps=0.2", "seed=0", "optimizer.lr=1", "name='b,c=1'"],
    ["eps=0.1", "loss=kl", "hydra.job.chdir=true", "+model.width=1"],
    ["eps=0", "loss=kl", "hydra.job.chdir=true", "+model.width=2"],
    ["eps=0.3", "loss=kl", "hydra.job.chdir=true", "+model.width=2"],
    ["eps=${optimizer.lr}", "loss=focal", "callbacks.pictures=null"],
    ["eps=0", "loss=focal", "callbacks.pictures=null"],
    ["eps=0", "model.hidden=[1,2]", "~callbacks.pictures"],
    ["eps=1e-1", "model.hidden=[1,2]", "~callbacks.pictures"],
]


def test_jobs_that_are_alike_are_composed_as_hydra_does():
    """All of it, Hydra's own part with it; what is wrong is said as Hydra says it."""
    register_schema()
    with initialize_config_module(version_base="1.3", config_module="ls_lightning.conf"):
        loader = GlobalHydra.instance().config_loader()
        master = loader.load_configuration("config", ["trainer=cpu"], RunMode.MULTIRUN)
        asked = []

        def load(master_config, sweep_overrides):
            asked.append(sweep_overrides)
            return loader.load_sweep_config(master_config, sweep_overrides)

        alike = ComposedAlike(load)
        for overrides in ALIKE:
            found, wanted = alike(master, overrides), loader.load_sweep_config(master, overrides)
            assert OmegaConf.to_yaml(found) == OmegaConf.to_yaml(wanted)
            found.eps, found.hydra.job.num = 0.7, 3  # nobody else's
        assert asked == [ALIKE[k] for k in (0, 3, 4, 6, 7, 8)]  # each the first of its kind
        for wrong in (["eps=a lot", *ALIKE[0][1:]], ["optimizers.lr=1"]):
            with pytest.raises(HydraException, match=r"a lot|optimizers"):
                alike(master, wrong)


@pytest.mark.parametrize(
    ("members", "n_jobs", "sizes"), [(25, 1, [25]), (25, 2, [13, 12]), (5, 4, [3, 2]), (2, 8, [2])]
)
def test_a_stack_is_divided_between_processes(members, n_jobs, sizes):
    assert [len(part) for part in _divide(list(range(members)), n_jobs)] == sizes


def test_another_program_and_a_checkpoint_are_left_to_processes(tmp_path):
    (tmp_path / "1" / "checkpoints").mkdir(parents=True)
    (tmp_path / "1" / "checkpoints" / "last.ckpt").touch()
    hydra = OmegaConf.create({"hydra": {"runtime": {"output_dir": "", "choices": {}}, "job": {"name": "app"}}})
    jobs = [Job(k, [], OmegaConf.create({"x": k}), hydra, tmp_path / str(k)) for k in range(3)]
    jobs[2].state = State.SKIPPED
    stacks, alone = plan_stacks(jobs, 1)
    assert stacks == []
    assert [[job.num for job in group] for group in alone.values()] == [[0], [1]]
    unreadable, resumed = alone
    assert unreadable.startswith("its configuration cannot be read")
    assert resumed == "it goes on from its checkpoint"
