"""The networks of the zoo: shapes, gradients, sizes, and one clear line for every wrong option."""

import re
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from hydra.utils import instantiate
from omegaconf import OmegaConf
from torch import nn

import ls_lightning
from ls_lightning.zoo.models import CNN, MLP, Linear, ResNet

CONF = Path(ls_lightning.__file__).parent.parent / "conf"
VECTORS = [(64,), (30,), (1, 8, 8), (3, 5, 7)]
IMAGES = [(1, 8, 8), (3, 8, 8), (3, 32, 32), (2, 9, 13)]
CASES = [(model, shape) for model in (Linear, MLP) for shape in VECTORS]
CASES += [(model, shape) for model in (CNN, ResNet) for shape in IMAGES]


@pytest.mark.parametrize("num_outputs", [1, 2, 10])
@pytest.mark.parametrize(("model", "shape"), CASES)
def test_maps_a_batch_to_logits(model, shape, num_outputs):
    network = model(shape, num_outputs)
    assert network(torch.randn(5, *shape)).shape == (5, num_outputs)


@pytest.mark.parametrize(("model", "shape"), CASES)
def test_gradient_reaches_every_parameter(model, shape):
    torch.manual_seed(0)
    network = model(shape, 4)
    nn.functional.cross_entropy(network(torch.randn(8, *shape)), torch.arange(8) % 4).backward()
    for name, parameter in network.named_parameters():
        assert parameter.grad is not None, name
        assert parameter.grad.abs().sum() > 0, name


@pytest.mark.parametrize("model", [CNN, ResNet])
def test_a_smallest_image_alone_trains(model):
    """Batch norm needs more than one value a channel: the last batch of an epoch may hold a single sample."""
    assert model((1, 8, 8), 3).train()(torch.randn(1, 1, 8, 8)).isfinite().all()


@pytest.mark.parametrize(("model", "shape"), CASES)
def test_evaluation_of_a_sample_does_not_depend_on_its_batch(model, shape):
    network, x = model(shape, 3).eval(), torch.randn(4, *shape)
    torch.testing.assert_close(network(x)[2:3], network(x[2:3]))


def test_linear_is_an_affine_map_of_the_flattened_input():
    network, x = Linear((2, 3), 4), torch.randn(5, 2, 3)
    weight, bias = network.parameters()
    torch.testing.assert_close(network(x), torch.einsum("nij,kij->nk", x, weight.view(4, 2, 3)) + bias)


@pytest.mark.parametrize("hidden", [[], [7], [128, 64], (3, 4, 5)])
def test_mlp_has_the_hidden_layers_asked_for(hidden):
    widths = [layer.out_features for layer in MLP((6,), 2, hidden=hidden).modules() if isinstance(layer, nn.Linear)]
    assert widths == [*hidden, 2]


@pytest.mark.parametrize("model", [MLP, CNN])
def test_dropout_acts_in_training_only(model):
    torch.manual_seed(0)
    network, x = model((1, 8, 8), 3, dropout=0.5), torch.randn(4, 1, 8, 8)
    assert not torch.equal(network(x), network(x))
    network.eval()
    assert torch.equal(network(x), network(x))


def test_batch_norm_of_the_mlp():
    torch.manual_seed(0)
    network, x = MLP((5,), 3, hidden=[8, 4], batch_norm=True).double(), torch.randn(6, 5).double()
    first, norm, _, second, other, _, last = list(network.net)[1:]
    hidden = first(x)
    unit = (hidden - hidden.mean(0)) / (hidden.var(0, correction=0) + norm.eps).sqrt()
    wanted = last(other(second(unit.relu())).relu())
    torch.testing.assert_close(network(x), wanted)
    torch.testing.assert_close(norm.running_mean, 0.1 * hidden.mean(0))
    assert not torch.equal(other.running_mean, torch.zeros(4))
    with pytest.raises(ValueError, match=r"at least 2 samples, got 1\. Change data\.batch_size\."):
        network(x[:1])
    network.eval()
    one_by_one = torch.cat([network(row) for row in x.split(1)])
    torch.testing.assert_close(network(x), one_by_one)


def test_each_stage_of_the_cnn_halves_the_image():
    network = CNN((3, 16, 24), 2, channels=[4, 6, 8])
    shapes = []
    for layer in network.modules():
        if isinstance(layer, nn.Conv2d):
            layer.register_forward_hook(lambda module, args, out: shapes.append(tuple(out.shape[1:])))
    network(torch.randn(2, 3, 16, 24))
    assert shapes == [(4, 16, 24), (4, 8, 12), (6, 8, 12), (6, 4, 6), (8, 4, 6), (8, 2, 3)]


@pytest.mark.parametrize("depth", [8, 14, 20, 32])
def test_depth_of_the_resnet_counts_its_weighted_layers(depth):
    layers = [
        module
        for module in ResNet((3, 32, 32), 10, depth=depth).modules()
        if isinstance(module, nn.Linear) or (isinstance(module, nn.Conv2d) and module.kernel_size == (3, 3))
    ]
    assert len(layers) == depth


def test_resnet_20_has_the_size_of_the_paper():
    """0.27 million (He et al. 2016, table 6); by hand: stem, three stages, head."""
    stages = 3 * (2 * 9 * 16 * 16 + 2 * 32)
    for narrow in (16, 32):
        wide = 2 * narrow
        first = 9 * narrow * wide + 9 * wide * wide + narrow * wide + 2 * narrow + 2 * wide
        stages += first + 2 * (2 * 9 * wide * wide + 4 * wide)
    by_hand = 9 * 3 * 16 + stages + 2 * 64 + 64 * 10 + 10
    assert sum(p.numel() for p in ResNet((3, 32, 32), 10, depth=20).parameters()) == by_hand == 272_282


@pytest.mark.parametrize("stride", [1, 2])
def test_residual_block_is_its_formula(stride):
    """A block written out with torch.nn.functional: shortcut + W2 relu(bn(W1 relu(bn(x))))."""
    from torch.nn import functional as F

    network = ResNet((1, 8, 8), 2, width=4).eval()
    block = list(network.net)[1 if stride == 1 else 2]
    for module in block.modules():
        if isinstance(module, nn.BatchNorm2d):
            nn.init.uniform_(module.weight, 0.5, 2)
            nn.init.normal_(module.bias)

    def norm_relu(bn, x):
        return F.relu(F.batch_norm(x, bn.running_mean, bn.running_var, bn.weight, bn.bias, eps=bn.eps))

    first, second = (m for m in block.modules() if isinstance(m, nn.BatchNorm2d))
    convs = {m.weight.shape[-1]: [] for m in block.modules() if isinstance(m, nn.Conv2d)}
    for module in block.modules():
        if isinstance(module, nn.Conv2d):
            convs[module.weight.shape[-1]].append(module.weight)
    x = torch.randn(2, 4, 8, 8)
    active = norm_relu(first, x)
    inner = F.conv2d(active, convs[3][0], stride=stride, padding=1)
    expected = F.conv2d(norm_relu(second, inner), convs[3][1], padding=1)
    expected = expected + (x if stride == 1 else F.conv2d(active, convs[1][0], stride=stride))
    torch.testing.assert_close(block(x), expected)


def test_same_seed_same_network():
    for model in (Linear, MLP, CNN, ResNet):
        states = []
        for _ in range(2):
            torch.manual_seed(3)
            states.append(model((1, 8, 8), 10).state_dict())
        assert all(torch.equal(states[0][key], states[1][key]) for key in states[0]), model


WRONG = {
    "cnn, vector": (
        lambda: CNN((30,), 2),
        "model=cnn needs images (C, H, W), data gives vectors of shape (30,). Use model=mlp.",
    ),
    "resnet, vector": (
        lambda: ResNet((30,), 2),
        "model=resnet needs images (C, H, W), data gives vectors of shape (30,). Use model=mlp.",
    ),
    "cnn, matrix": (
        lambda: CNN((8, 8), 2),
        "model=cnn needs images (C, H, W), data gives arrays of shape (8, 8). Use model=mlp.",
    ),
    "cnn, small": (
        lambda: CNN((3, 8, 7), 2),
        "model=cnn needs images of at least 8x8 pixels, data gives 8x7. Use fewer channels or model=mlp.",
    ),
    "cnn, small for its depth": (
        lambda: CNN((1, 8, 8), 2, channels=[4] * 4),
        "model=cnn needs images of at least 32x32 pixels, data gives 8x8. Use fewer channels or model=mlp.",
    ),
    "resnet, small": (
        lambda: ResNet((3, 7, 32), 2),
        "model=resnet needs images of at least 8x8 pixels, data gives 7x32. Use model=mlp.",
    ),
    "depth": (
        lambda: ResNet((3, 32, 32), 2, depth=18),
        "depth must be 6 n + 2, that is 8, 14, 20, 26, 32, ..., got 18.",
    ),
    "depth, small": (
        lambda: ResNet((3, 32, 32), 2, depth=2),
        "depth must be 6 n + 2, that is 8, 14, 20, 26, 32, ..., got 2.",
    ),
    "depth, text": (
        lambda: ResNet((3, 32, 32), 2, depth="20"),
        "depth must be 6 n + 2, that is 8, 14, 20, 26, 32, ..., got '20'.",
    ),
    "width": (lambda: ResNet((3, 32, 32), 2, width=0), "width must be an integer of at least 1, got 0."),
    "width, real": (
        lambda: ResNet((3, 32, 32), 2, width=16.0),
        "width must be an integer of at least 1, got 16.0.",
    ),
    "channels": (
        lambda: CNN((3, 32, 32), 2, channels=[]),
        "channels must be a list of integers of at least 1, got [].",
    ),
    "hidden": (
        lambda: MLP((3,), 2, hidden=[128, 0]),
        "hidden must be a list of integers of at least 1, got [128, 0].",
    ),
    "hidden, number": (
        lambda: MLP((3,), 2, hidden=128),
        "hidden must be a list of integers of at least 1, got 128.",
    ),
    "hidden, text": (
        lambda: MLP((3,), 2, hidden="128"),
        "hidden must be a list of integers of at least 1, got '128'.",
    ),
    "hidden, bool": (
        lambda: MLP((3,), 2, hidden=[True]),
        "hidden must be a list of integers of at least 1, got [True].",
    ),
    "dropout": (lambda: MLP((3,), 2, dropout=1.0), "dropout must be in [0, 1), got 1.0."),
    "dropout, nan": (lambda: CNN((3, 8, 8), 2, dropout=float("nan")), "dropout must be in [0, 1), got nan."),
    "dropout, text": (lambda: MLP((3,), 2, dropout="a"), "dropout must be in [0, 1), got 'a'."),
    "batch_norm": (lambda: MLP((3,), 2, batch_norm=1), "batch_norm must be true or false, got 1."),
    "outputs": (lambda: Linear((3,), 0), "num_outputs must be an integer of at least 1, got 0."),
    "input shape": (lambda: Linear((), 2), "input_shape must be a list of integers of at least 1, got []."),
}


@pytest.mark.parametrize("case", WRONG)
def test_a_wrong_option_gives_one_clear_line(case):
    build, message = WRONG[case]
    with pytest.raises(ValueError, match=f"^{re.escape(message)}$"):
        build()


@pytest.mark.parametrize("name", ["linear", "mlp", "cnn", "resnet"])
def test_config_builds_the_network_and_shows_its_defaults(name):
    config = OmegaConf.load(CONF / "model" / f"{name}.yaml")
    torch.manual_seed(0)
    network = instantiate(config)(input_shape=(1, 8, 8), num_outputs=10)
    torch.manual_seed(0)
    plain = type(network)((1, 8, 8), 10)
    assert str(network) == str(plain)
    x = torch.randn(2, 1, 8, 8)
    torch.testing.assert_close(network.eval()(x), plain.eval()(x), rtol=0, atol=0)


def test_importing_the_zoo_imports_no_torch():
    code = "import sys, ls_lightning.zoo as zoo; assert 'torch' not in sys.modules; print(*zoo.__all__)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    names = done.stdout.split()
    from ls_lightning import zoo

    assert all(isinstance(getattr(zoo, name), type) for name in names)
    assert set(names) <= set(dir(zoo))
    with pytest.raises(AttributeError, match="has no attribute 'Transformer'"):
        _ = zoo.Transformer
