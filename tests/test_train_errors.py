"""Bad input gets one clear line and exit code 2, and nothing is left behind."""

import numpy as np
import pytest
from cli import run, run_here

# overrides, what the line must say
MISTAKES = [
    ("eps=1.5", "eps must be in [0, 1), got 1.5"),
    ("eps=1", "eps must be in [0, 1)"),
    ("eps=-0.1", "eps must be in [0, 1)"),
    ("eps=nan", "eps must be in [0, 1)"),
    ("eps=abc", "eps must be a number in [0, 1), got abc"),
    ("eps=[0.1,0.2]", "eps must be a number in [0, 1), got [0.1,0.2]"),
    ("eps=0.1 loss.eps=0.2", "eps and loss.eps are one number"),
    ("eps=0.2 loss=none", "takes eps=0, got 0.2"),
    ("eps=0,0.1", "eps=0,0.1 has several values: -m sweeps over them"),
    ("sweep.resume=there", "sweep.resume=there goes on with a sweep and needs -m"),
    ("seed=-1", "seed must be"),
    ("seed=x", "seed=x"),
    ("evaluate=first", "evaluate must be one of last, best"),
    ("evaluate=best", "callbacks=best"),
    ("loss=typo", "loss must be one of bce, ce, confidence_penalty, focal, kl, margin, max_suppression, negative,"),
    ("loss=kll", "Did you mean kl?"),
    ("lss=kl", "lss is not a key of the configuration. Did you mean loss?"),
    ("loss.typo=3", "loss.typo is not a key"),
    ("loss.reduction=avg", "loss.reduction must be"),
    ("loss.reduction=none", "loss.reduction must be"),
    ("loss.spread=some", "loss.spread must be one of all, others"),
    ("loss.weight_mode=x", "loss.weight_mode must be"),
    ("loss.weight=[1,2]", "weight must be (10,)"),
    ("loss.weight=abc", "weight must be"),
    ("loss.ignore_index=a", "loss.ignore_index must be an integer"),
    ("loss.input=probs", "loss.input must be one of"),
    ("loss=bce", "Use loss=ce."),
    ("data=breast_cancer loss=ce", "Use loss=bce."),
    ("schedule=typo", "schedule must be one of constant, cosine"),
    ("schedule=linear schedule.end=2", "end must be in [0, 1), got 2"),
    ("schedule=linear schedule.start=0.3", "Set eps=0.3"),
    ("schedule=two_stage schedule.drop_at=80", "drop_at must be a share"),
    ("schedule=step schedule.milestones=[0.7,0.5]", "milestones must increase"),
    ("schedule=warmup schedule.full_at=-1", "full_at must be a share"),
    ("schedule=sequence schedule.switch_at=[0.2,0.5]", "one point between each two schedules"),
    ("schedule=scaled schedule.factor=9", "factor must keep eps below 1"),
    ("schedule=scaled eps=0.2", "Set eps=0.1"),
    ("schedule=feedback schedule.gain=-1", "gain must be above 0"),
    ("schedule=feedback schedule.every=5", "every=5 is for a held-out slice"),
    ("schedule=feedback eps=0.6", "eps_max must be above 0 and at least start=0.6"),
    ("schedule=feedback eps=0.2 schedule.start=0.1", "Set eps=0.1"),
    ("schedule._target_=math.sin", "eps=0.1 is not that of the schedule sin"),
    ("schedule._target_=math.exp", "a schedule must return eps in [0, 1), got 1.0 from exp"),
    ("schedule._target_=math.typo", "schedule._target_=math.typo: the module math"),
    ("callbacks.label_smoothing.interval=batch", "callbacks.label_smoothing.interval must be one of step, epoch"),
    ("data.input_noise=-1", "data.input_noise must be a number of at least 0"),
    ("data.val_label_noise=1", "data.val_label_noise must be a number in [0, 1)"),
    ("callbacks.label_smoothing.total_steps=0", "total_steps must be"),
    ("callbacks.label_smoothing.target=typo", "no submodule 'typo'"),
    ("metrics=typo", "metrics must be one of default, full"),
    ("metrics.num_bins=0", "metrics.num_bins must be an integer of at least 1"),
    ("metrics.num_bins=15.5", "metrics.num_bins must be"),
    ("metrics.closed=both", "metrics.closed must be"),
    ("model=typo", "model must be one of cnn, fcn, linear, mlp, resnet"),
    ("model.hidden=abc", "hidden must be"),
    ("model.dropout=1.5", "dropout must be"),
    ("+model.hiden=[3]", "model.hiden is no argument of MLP. Did you mean hidden?"),
    ("-m eps=0,0.1 hydra.launcher.n_jobs=1,2", "hydra.launcher.n_jobs=1,2 has several values, and a sweep has one"),
    ("+model.num_outputs=5", "model.num_outputs must be 10, as the data has it, got 5"),
    ("model=cnn data=breast_cancer", "Use model=mlp"),
    ("model._target_=no.such.Class", "no.such.Class"),
    ("model._target_=math.sqrt", "model._target_ must be a class, a LightningModule or nn.Module, got math.sqrt"),
    ("model._target_=torch.nn.Lstm", "the module torch.nn has no 'Lstm'. Did you mean torch.nn.LSTM?"),
    ("loss._target_=ls_lightning.losses.FocalLos", "loss._target_=ls_lightning.losses.FocalLos: the module"),
    ("metrics._target_=ls_lightning.metrics.default", "Did you mean ls_lightning.metrics.default_metrics?"),
    ("data=typo", "data must be one of breast_cancer, digits"),
    ("data=npz", "data.path is needed"),
    ("data=npz data.path=missing.npz", "data.path must be an existing file or folder, got 'missing.npz'"),
    ("data=image_folder data.path=missing", "data.path must be an existing file or folder"),
    ("data=npz data.path=mine.npz data.num_classes=2", "num_classes"),
    ("data.batch_size=0", "data.batch_size must be an integer of at least 1"),
    ("data.batch_size=lots", "data.batch_size must be"),
    ("data.label_noise=1.2", "data.label_noise must be a number in [0, 1)"),
    ("data.val_fraction=0", "data.val_fraction must be"),
    ("data.val_fraction=0.7 data.test_fraction=0.7", "fraction"),
    ("data.num_workers=-1", "data.num_workers must be"),
    ("data._target_=ls_lightning.zoo.DigitData", "Did you mean ls_lightning.zoo.DigitsData?"),
    ("optimizer.lr=-1", "optimizer.lr must be a number above 0"),
    ("optimizer=typo", "optimizer must be one of adamw, sgd"),
    ("trainer=typo", "trainer must be one of auto, cpu"),
    ("trainer.max_epochs=0", "trainer.max_epochs must be"),
    ("trainer.max_epchs=3", "Did you mean trainer.max_epochs?"),
    ("data.pth=mine.npz", "Did you mean data.path?"),
    ("+trainer.max_epoch=3", "trainer.max_epoch is no argument of Trainer. Did you mean max_epochs?"),
    ("trainer=gpu", "Use trainer=cpu"),
    ("trainer=cpu trainer.devices=99", "trainer.devices must be at most what this machine has"),
    ("trainer.accumulate_grad_batches=0", "trainer.accumulate_grad_batches must be"),
    ("trainer.check_val_every_n_epoch=0", "trainer.check_val_every_n_epoch must be"),
    ("eps=0.5 schedule=step schedule.eps=0.2", "Set eps=0.2"),
    ("eps=0.8 schedule=two_stage schedule.eps=0.1", "Set eps=0.1"),
    ("eps=0.1 schedule=linear schedule.start=0.3 schedule.end=0.1", "Set eps=0.3"),
    ("loss.input=log_probs", "with logits, got a loss with input='log_probs'"),
    ("schedule._target_=builtins.dict", "schedule._target_ must give a function of progress"),
    ("model._target_=torch.nn.Flatten", "Flatten has no parameters to train"),
    ("model._target_=torch.nn.Linear", "Linear needs in_features: give +model.in_features="),
    ("ckpt_path=mine.npz", "mine.npz does not fit this job"),
    ("hydra.run.dir=/proc/x", "hydra.run.dir must be a folder that can be written"),
    ("trainer.accelerator=abacus", "abacus"),
    ("trainer.devices=0", "devices"),
    ("+trainer.precision=7", "7"),
    ("logger=typo", "logger must be one of csv, tensorboard, wandb"),
    ("experiment=typo", "experiment must be one of"),
    ("ckpt_path=missing.ckpt", "ckpt_path must be 'last' or an existing checkpoint"),
    ("ckpt_path=last", "ckpt_path=last needs"),
    ("hydra/launcher=typo", "launcher"),
    ("eps=[0.1", "'[0.1'"),
    ("eps", "eps"),
    ("--eps 0.1", "A value is set by key=value"),
]


@pytest.fixture
def folder(tmp_path):
    x = np.zeros((40, 4), np.float32)
    y = np.arange(40) % 4
    np.savez(tmp_path / "mine.npz", x_train=x, y_train=y, x_test=x, y_test=y)
    return tmp_path


@pytest.mark.parametrize(("overrides", "words"), MISTAKES, ids=[overrides for overrides, _ in MISTAKES])
def test_one_line_and_exit_code_2(monkeypatch, folder, capfd, overrides, words):
    before = sorted(folder.rglob("*"))
    quick = [] if "max_ep" in overrides else ["trainer.max_epochs=1"]
    code = run_here(monkeypatch, folder, *overrides.split(), *quick, "trainer.enable_progress_bar=false")
    err = capfd.readouterr().err.strip()
    assert code == 2
    assert err.startswith("error: ")
    assert len(err.splitlines()) == 1, err
    assert words in err
    assert len(err) < 400
    assert "Traceback" not in err
    assert sorted(folder.rglob("*")) == before


@pytest.mark.parametrize(
    "overrides",
    ["--help", "eps=1.5", "eps=abc", "loss=typo", "lss=kl", "data=npz data.path=missing.npz", "--eps 0.1"],
)
def test_answers_before_torch_is_imported(tmp_path, overrides):
    blocked = tmp_path / "blocked"
    for name in ("torch", "lightning", "torchmetrics"):
        (blocked / name).mkdir(parents=True)
        (blocked / name / "__init__.py").write_text("raise SystemError('imported too early')")
    code, out, err = run(tmp_path, *overrides.split(), env={"PYTHONPATH": str(blocked)})
    assert "imported too early" not in err
    if overrides == "--help":
        assert code == 0
        for words in (
            "loss: bce, ce, confidence_penalty, focal, kl, margin, max_suppression, negative, none, online, prior",
            "trainer: auto",
            "python -m ls_lightning.train",
            "eps:",
        ):
            assert words in out
    else:
        assert (code, out) == (2, "")
        assert err.startswith("error: ")
        assert len(err.strip().splitlines()) == 1


def test_a_variable_for_other_scripts_is_refused(monkeypatch, folder, capfd):
    monkeypatch.setenv("LS_EPS", "0.2")
    assert run_here(monkeypatch, folder, "trainer.max_epochs=1") == 2
    assert "LS_EPS is for other people's scripts" in capfd.readouterr().err


def test_debug_shows_the_traceback(tmp_path):
    code, _, err = run(tmp_path, "eps=1.5", env={"LS_DEBUG": "1"})
    assert code == 2
    assert "Traceback" in err
    assert err.strip().splitlines()[-1].startswith("error: eps must be")


@pytest.mark.slow
def test_an_error_of_the_users_own_code_keeps_its_traceback(tmp_path):
    (tmp_path / "mine.py").write_text(
        "from ls_lightning.zoo import MLP\n"
        "class Net(MLP):\n"
        "    def forward(self, x):\n"
        "        raise ValueError('deep in my own code')\n"
    )
    code, _, err = run(tmp_path, "model._target_=mine.Net", "trainer=cpu", env={"PYTHONPATH": str(tmp_path)})
    assert code == 1
    assert "Traceback" in err
    assert "line 4, in forward" in err
