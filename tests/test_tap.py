import pytest
import torch
from torch import nn

from ls_lightning.tap import find_losses


class Heads(nn.Module):
    def __init__(self):
        super().__init__()
        self.criterion = nn.CrossEntropyLoss(weight=torch.ones(3), ignore_index=2, reduction="sum")
        self.heads = nn.ModuleDict({"a": nn.BCEWithLogitsLoss(), "b": nn.NLLLoss()})
        self.shared = self.criterion
        self.other = nn.L1Loss()


def test_finds_every_place():
    net = Heads()
    sites = {site.path: site for site in find_losses(net)}
    assert sorted(sites) == ["criterion", "heads.a", "heads.b", "shared"]
    assert sites["heads.a"].kind == "binary"
    assert sites["heads.b"].input == "log_probs"
    assert sites["heads.b"].options() == {"input": "log_probs"}
    options = sites["criterion"].options()
    assert options.pop("weight") is net.criterion.weight
    assert options == {"ignore_index": 2, "reduction": "sum"}


def test_put_and_restore():
    net = Heads()
    before = list(net.named_modules())
    for site in find_losses(net):
        site.put(nn.Identity())
    assert isinstance(net.criterion, nn.Identity)
    assert isinstance(net.heads["a"], nn.Identity)
    for site in find_losses(Heads()):
        assert site.module is not nn.Identity
    sites = find_losses(net, "heads.a")
    assert [site.path for site in sites] == ["heads.a"]
    net = Heads()
    before = list(net.named_modules())
    sites = find_losses(net)
    for site in sites:
        site.put(nn.Identity())
    for site in sites:
        site.restore()
    assert list(net.named_modules()) == before


def test_subclasses_are_left_alone():
    class Own(nn.CrossEntropyLoss):
        pass

    net = nn.Module()
    net.criterion = Own()
    with pytest.raises(LookupError, match=r"holds no nn\.CrossEntropyLoss"):
        find_losses(net)
    assert find_losses(net, "criterion")[0].kind is None


@pytest.mark.parametrize(("name", "value"), [("label_smoothing", 0.1), ("smoothing", 0.2)])
def test_own_smoothing_is_seen(name, value):
    net = nn.Module()
    net.criterion = nn.CrossEntropyLoss()
    assert find_losses(net)[0].label_smoothing == 0
    setattr(net.criterion, name, value)
    assert find_losses(net)[0].label_smoothing == value


def test_unknown_target():
    with pytest.raises(LookupError, match="Heads has no submodule 'typo'"):
        find_losses(Heads(), "typo")
