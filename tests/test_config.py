"""What is said of a key, or of a class, that is not there."""

import sys

import pytest
from cli import run
from hydra import compose, initialize_config_module
from hydra.errors import ConfigCompositionException
from omegaconf import OmegaConf

from ls_lightning.config import check_targets, explain, register_schema
from ls_lightning.config.targets import locate
from ls_lightning.errors import ConfigError

# overrides, what the line must say; every group
KEYS = [
    (
        "model.widht=64",
        "Did you mean model.width? It is of model=resnet, tagger, text_cnn. MLP has hidden, dropout, batch_norm.",
    ),
    ("model=resnet model.widht=64", "Did you mean model.width? ResNet has depth, width."),
    ("model.width=64", "model.width is not a key of the configuration. It is of model=resnet, tagger, text_cnn. MLP"),
    ("loss=focal loss.gama=2", "Did you mean loss.gamma?"),
    ("schedule=linear schedule.ende=0", "Did you mean schedule.end?"),
    ("schedule.end=0", "It is of schedule=cosine, linear. Constant has eps."),
    ("metrics.bins=9", "Did you mean metrics.num_bins?"),
    ("callbacks.label_smoothing.intervall=epoch", "Did you mean callbacks.label_smoothing.interval?"),
    ("callbacks.temprature_scaling.bounds=[1,2]", "Did you mean callbacks.temperature_scaling?"),
    ("optimizer.lrr=1", "Did you mean optimizer.lr?"),
    ("optimizer.momentum=0.9", "It is of optimizer=sgd."),
    ("data.paht=mine", "Did you mean data.path? It is of data=image_folder, npz, text_file."),
    ("trainer.gradient_clip=1", "Did you mean trainer.gradient_clip_val?"),
    ("logger.csv.dir=x", "CSVHistory has save_dir."),
    ("hydra.launcher.n_job=2", "Did you mean hydra.launcher.n_jobs?"),
    ("hydra.swep.dir=x", "Did you mean hydra.sweep?"),
    ("max_epochs=3", "Did you mean trainer.max_epochs?"),
    ("epochs=3", "Did you mean trainer.max_epochs?"),
    ("lr=1", "Did you mean optimizer.lr?"),
    ("experimnt=mnist", "Did you mean experiment?"),
]


@pytest.fixture
def said(monkeypatch):
    register_schema()

    def of(overrides):
        monkeypatch.setattr(sys, "argv", ["ls_lightning.train", *overrides.split()])
        with (
            initialize_config_module("ls_lightning.conf", version_base="1.3"),
            pytest.raises(ConfigCompositionException) as caught,
        ):
            compose("config", overrides=overrides.split())
        return explain(caught.value)

    return of


@pytest.mark.parametrize(("overrides", "words"), KEYS, ids=[overrides for overrides, _ in KEYS])
def test_the_key_that_was_meant(said, overrides, words):
    line = said(overrides)
    assert words in line
    assert ("added by" in line, len(line.splitlines())) == ("Did you mean" not in line and "It is of" not in line, 1)


def test_a_key_that_nothing_resembles_may_be_added(said):
    assert said("model.zzz=1").endswith("a key of your own is added by +model.zzz=<value>.")


def test_arguments_of_a_class_of_ones_own_are_added(said):
    assert "+model.width=<value>" in said("model._target_=mine.Net model.width=64")


def test_keys_of_a_file_of_ones_own_are_known(tmp_path, monkeypatch):
    register_schema()
    (tmp_path / "loss").mkdir()
    (tmp_path / "loss" / "mine.yaml").write_text("_target_: mine.Loss\neps: 0.1\ngamma: 2\n")
    with initialize_config_module("ls_lightning.conf", version_base="1.3"):
        for key, words in (("gama", "Did you mean loss.gamma?"), ("zebra", "+loss.zebra=<value>")):
            typed = [f"hydra.searchpath=[file://{tmp_path}]", "loss=mine", f"loss.{key}=1"]
            with pytest.raises(ConfigCompositionException) as caught:
                compose("config", overrides=typed)
            monkeypatch.setattr(sys, "argv", ["ls_lightning.train", *typed])
            assert words in explain(caught.value)


# the path, what the line must say; {folder} is where the files are
TARGETS = [
    ("mine_here.Ne", "the module mine_here has no 'Ne'. Did you mean mine_here.Net?"),
    ("mine_here.net", "Did you mean mine_here.Net?"),
    ("mine_here.Zebra", "the module mine_here ({folder}/mine_here.py) has no 'Zebra'. It has Net, make."),
    ("mine_here.Net.forwrd", "mine_here.Net has no 'forwrd'. Did you mean mine_here.Net.forward?"),
    ("mine_here.number", "must be a class or a function, got 3 (int)."),
    ("mine_here", "must be <module>.<name>, such as my_project.Net."),
    ("Net", "Did you mean mine_here.Net?"),
    ("mine_here:Net", "Did you mean mine_here.Net?"),
    ("mine_here.py:Net", "Did you mean mine_here.Net?"),
    ("./mine_here.Net", "Did you mean mine_here.Net?"),
    ("mine_heer.Net", "there is no module 'mine_heer'. Did you mean mine_here? A file of yours is found in the folder"),
    ("broken_here.Net", "importing broken_here failed, SyntaxError: invalid syntax (broken_here.py, line 2)."),
    ("raises_here.Net", "importing raises_here failed, NameError: name 'y' is not defined (raises_here.py, line 1)."),
    ("needs_here.Net", "importing needs_here failed, No module named 'not_there_at_all' (needs_here.py, line 1)."),
    ("ls_lightning.zoo.MPL", "the module ls_lightning.zoo has no 'MPL'. Did you mean ls_lightning.zoo.MLP?"),
    ("ls_lightning.losses.FocalLos", "Did you mean ls_lightning.losses.FocalLoss?"),
    ("torch.optim.Adamw", "Did you mean torch.optim.AdamW?"),
    ("torch.optm.Adam", "the module torch has no 'optm'. Did you mean torch.optim?"),
]
FILES = {
    "mine_here.py": "number = 3\nclass Net:\n    def forward(self): ...\ndef make(): ...\n",
    "broken_here.py": "x = 1\nx = 2 +\n",
    "raises_here.py": "x = y\n",
    "needs_here.py": "import not_there_at_all\n",
}


@pytest.fixture
def files(tmp_path, monkeypatch):
    for name, text in FILES.items():
        (tmp_path / name).write_text(text)
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(tmp_path)
    yield tmp_path
    for name in FILES:
        sys.modules.pop(name.removesuffix(".py"), None)


@pytest.mark.parametrize(("target", "words"), TARGETS, ids=[target for target, _ in TARGETS])
def test_the_class_that_was_meant(files, target, words):
    with pytest.raises(ConfigError) as caught:
        locate("model._target_", target)
    line = str(caught.value)
    assert line.startswith(f"model._target_={target}")
    assert words.format(folder=files) in line
    assert len(line.splitlines()) == 1
    assert len(line) < 400


def test_what_is_there_is_found(files):
    assert locate("model._target_", "mine_here.Net").__name__ == "Net"
    assert locate("loss._target_", "torch.nn.functional.cross_entropy")


@pytest.mark.parametrize(
    ("given", "words"),
    [
        ({"hiden_size": 3}, r"model\.hiden_size is no argument of Wide\. Did you mean hidden_size\?"),
        ({"zebra": 3}, r"model\.zebra is no argument of Wide\. It takes num_classes, hidden_size\."),
    ],
)
def test_the_argument_that_was_meant(files, given, words):
    (files / "wide_here.py").write_text("class Wide:\n    def __init__(self, num_classes, hidden_size=8): ...\n")
    check_targets(OmegaConf.create({"model": {"_target_": "wide_here.Wide", "_partial_": True, "hidden_size": 3}}))
    with pytest.raises(ConfigError, match=words):
        check_targets(OmegaConf.create({"model": {"_target_": "wide_here.Wide", **given}}))
    sys.modules.pop("wide_here")


@pytest.mark.parametrize(
    ("overrides", "words"),
    [
        (["data=npz", "data.path=no.npz"], "data.path must be an existing file or folder, got 'no.npz'"),
        (["experiment=mnist"], "data.path is needed, got nothing: data.path=<value>. MNIST: mnist.npz from https://"),
    ],
)
def test_a_sweep_without_its_data_starts_no_job(tmp_path, overrides, words):
    code, out, err = run(tmp_path, *overrides, "seed=0,1", "-m")  # -m behind, as people write it
    assert (code, out, len(err.splitlines())) == (2, "", 1)
    assert err.startswith(f"error: no job was started: {words}")
    assert list(tmp_path.iterdir()) == []


def test_help_shows_what_may_be_written(tmp_path):
    code, out, _ = run(tmp_path, "--help", "data=npz")
    assert code == 0
    assert "???" not in out
    assert "\neps: 0.1  # unless you give another\n" in out
    assert "\n  path: (required)\n" in out
