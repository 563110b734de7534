"""Networks of timm and torchvision, without their weights."""

import sys
from importlib.util import find_spec

import pytest
import torch
from cli import run_here
from torch import nn

from ls_lightning.config import files
from ls_lightning.zoo.models_elsewhere import TimmModel, TorchvisionModel, replace_head

CLASSES = {"timm": TimmModel, "torchvision": TorchvisionModel}


@pytest.fixture(params=CLASSES)
def library(request):
    return request.param


@pytest.fixture
def installed(library, monkeypatch):
    """The class, where its package is there; any download fails."""
    pytest.importorskip(library)
    monkeypatch.setattr(torch.hub, "download_url_to_file", lambda *_, **__: pytest.fail("downloads weights"))
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    return CLASSES[library]


def test_a_network_takes_the_shape_of_the_data(installed):
    net = installed((3, 32, 32), 7, name="resnet18")
    assert net(torch.randn(2, 3, 32, 32)).shape == (2, 7)


def test_timm_takes_other_channels_and_options_of_the_network():
    timm = pytest.importorskip("timm")
    net = TimmModel((1, 32, 32), 3, name="vit_tiny_patch16_224", img_size=32)
    assert net(torch.randn(2, 1, 32, 32)).shape == (2, 3)
    plain = timm.create_model("vit_tiny_patch16_224", num_classes=3, in_chans=1, img_size=32)
    assert [tuple(p.shape) for p in net.parameters()] == [tuple(p.shape) for p in plain.parameters()]


def test_another_number_of_channels_is_refused(installed):
    options = {"in_chans": 3} if installed is TimmModel else {}
    with pytest.raises(
        ValueError, match=r"in_chans must be 1, as the data has it|needs images of 3 channels, data gives 1"
    ):
        installed((1, 32, 32), 3, **options)


def test_an_unknown_network_gets_the_nearest_name(installed):
    with pytest.raises(
        ValueError, match=r"name must be one of the \d+ networks of \w+, got 'resnet81'\. Did you mean r"
    ):
        installed((3, 32, 32), 3, name="resnet81")


def test_vectors_are_refused(library):
    with pytest.raises(ValueError, match=f"model={library} needs images"):
        CLASSES[library]((30,), 3)


def test_a_missing_package_is_named_with_the_command(library, monkeypatch, tmp_path, capsys):
    monkeypatch.setitem(sys.modules, library, None)
    with pytest.raises(ModuleNotFoundError) as caught:
        CLASSES[library]((3, 32, 32), 3)
    said = f"model={library} needs {library}: pip install 'ls-lightning[{library}]'"
    assert str(caught.value) == said
    monkeypatch.setattr(files, "find_spec", lambda name: None if name == library else find_spec(name))
    assert run_here(monkeypatch, tmp_path, f"model={library}", "hydra.run.dir=job") == 2
    assert capsys.readouterr().err == f"error: {said}.\n"


def test_a_new_head_keeps_everything_else():
    net = nn.Sequential(nn.Linear(4, 6), nn.ReLU(), nn.Sequential(nn.Linear(6, 1000, bias=False)))
    before = net[0].weight.clone()
    replace_head(net, 5)
    assert net(torch.randn(2, 4)).shape == (2, 5)
    assert net[2][0].bias is None
    assert torch.equal(net[0].weight, before)
    with pytest.raises(ValueError, match="Sequential has no linear last layer to replace"):
        replace_head(net, 5)
