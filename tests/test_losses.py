import copy
import inspect
import math
import pickle
from pathlib import Path

import pytest
import torch
from hydra import compose, initialize_config_dir
from hydra.core.global_hydra import GlobalHydra
from hydra.utils import instantiate
from no_sync import NoSync
from omegaconf import OmegaConf
from reference_values import GRADIENTS, VALUES, case
from torch import nn
from torch.nn import functional as F
from torch.testing import assert_close

from ls_lightning.functional.penalties import confidence_penalty, margin_smoothing, max_suppression
from ls_lightning.functional.relaxation import label_relaxation
from ls_lightning.functional.smoothing import (
    smoothed_binary_cross_entropy_with_logits,
    smoothed_cross_entropy,
    smoothed_kl_div,
    soft_cross_entropy,
)
from ls_lightning.losses import (
    LOSSES,
    CrossEntropy,
    FunctionLoss,
    SmoothedBCEWithLogits,
    SmoothedCrossEntropy,
    SmoothedKLDiv,
    SoftCrossEntropy,
    build_loss,
    usual_eps,
)

CONF = Path(__file__).parents[1] / "conf" / "loss"
SMOOTHING = ["ce", "kl", "bce", "soft_ce", "max_suppression", "confidence_penalty", "margin", "relaxation"]
FUNCTIONS = {
    "ce": smoothed_cross_entropy,
    "kl": smoothed_kl_div,
    "bce": smoothed_binary_cross_entropy_with_logits,
    "soft_ce": soft_cross_entropy,
    "max_suppression": max_suppression,
    "confidence_penalty": confidence_penalty,
    "margin": margin_smoothing,
    "relaxation": label_relaxation,
}


def batch(name, dtype=torch.float32, rows=6):
    """Logits and a target that fit the loss."""
    generator = torch.Generator().manual_seed(3)
    logits = torch.randn(rows, 4, generator=generator, dtype=torch.float64).to(dtype)
    index = torch.randint(4, (rows,), generator=generator)
    return logits, F.one_hot(index, 4).to(dtype) if name == "bce" else index


def as_float64(options):
    return {k: torch.tensor(v, dtype=torch.float64) if k == "weight" else v for k, v in options.items()}


# Values


@pytest.mark.parametrize(("name", "options", "data", "values"), VALUES)
@pytest.mark.parametrize("input", ["logits", "log_probs"])
def test_reference_values(name, options, data, values, input):
    logits, target = case(data)
    if input == "log_probs":
        logits = F.logsigmoid(logits) if name == "bce" else logits.log_softmax(1)
    for reduction, expected in values.items():
        loss = build_loss(name, reduction=reduction, input=input, **as_float64(options))
        assert_close(loss(logits, target), torch.tensor(expected, dtype=torch.float64), rtol=0, atol=1e-10)
        if name != "none":
            loss = build_loss(name, reduction=reduction, input=input, **as_float64({**options, "eps": 0.77}))
            loss.set_eps(options["eps"])
            expected = torch.tensor(expected, dtype=torch.float64)
            assert_close(loss(logits, target), expected, rtol=0, atol=1e-10)


@pytest.mark.parametrize(("name", "options", "data", "reduction", "expected"), GRADIENTS)
def test_reference_gradients(name, options, data, reduction, expected):
    logits, target = case(data, requires_grad=True)
    build_loss(name, reduction=reduction, **options)(logits, target).backward()
    assert_close(logits.grad, torch.tensor(expected, dtype=torch.float64), rtol=0, atol=1e-10)


OPTIONS = {
    "weight": [None, [0.5, 1.0, 2.0, 3.0]],
    "pos_weight": [None, [0.5, 1.0, 2.0, 3.0]],
    "weight_mode": ["sample", "torch"],
    "ignore_index": [-100, 1],
    "reduction": ["mean", "sum", "none", "batchmean"],
    "spread": ["all", "others"],
    "input": ["logits", "log_probs"],
    "normalized": [False, True],
    "margin": [10.0, 0.5],
}


@pytest.mark.parametrize("name", SMOOTHING)
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16])
def test_every_option_reaches_the_function(name, dtype):
    logits, target = batch(name, dtype)
    logits = -logits.abs()  # log-probabilities as well
    tolerance = {"rtol": 1e-13 if dtype == torch.float64 else 1e-6, "atol": 0}
    fixed = {"weight": [0.5, 1.0, 2.0, 3.0], "reduction": "mean", **({"margin": 0.2} if name == "margin" else {})}
    usual = FUNCTIONS[name](logits, target, 0.1, **{**fixed, "weight": torch.tensor(fixed["weight"])})
    for option in inspect.signature(LOSSES[name]).parameters:
        for choice in OPTIONS.get(option, []):
            given = {**fixed, option: choice}
            tensors = {k: torch.tensor(v) if isinstance(v, list) else v for k, v in given.items()}
            expected = FUNCTIONS[name](logits, target, 0.1, **tensors)
            assert_close(LOSSES[name](0.1, **given)(logits, target), expected, **tolerance)
            if choice not in (fixed.get(option), inspect.signature(LOSSES[name]).parameters[option].default):
                assert expected.shape != usual.shape or not torch.allclose(expected, usual, atol=1e-4)


def test_module_and_function_have_the_same_options_and_defaults():
    for name, function in FUNCTIONS.items():
        ours = inspect.signature(LOSSES[name]).parameters
        theirs = list(inspect.signature(function).parameters.values())[2:]
        of_a_call = {"statistics"}  # a place to write to, which is another in each
        expected = {p.name: p.default for p in theirs if p.name not in of_a_call}
        assert {p.name: p.default for p in ours.values()} == expected


@pytest.mark.parametrize("weight", [None, [0.5, 1.0, 2.0, 3.0]])
@pytest.mark.parametrize("reduction", ["mean", "sum", "none"])
def test_cross_entropy_is_torchs(weight, reduction):
    logits, target = batch("none")
    target[0] = -100
    judge = nn.CrossEntropyLoss(None if weight is None else torch.tensor(weight), reduction=reduction)
    assert_close(CrossEntropy(weight=weight, reduction=reduction)(logits, target), judge(logits, target))


# eps


@pytest.mark.parametrize("name", SMOOTHING)
def test_eps_is_a_float32_buffer_outside_the_state_dict(name):
    loss = LOSSES[name](0.1)
    assert dict(loss.named_buffers())["eps"] is loss.eps
    assert loss.eps.shape == ()
    assert loss.eps.dtype == torch.float32
    assert not loss.eps.requires_grad
    assert list(loss.state_dict()) == []
    assert list(loss.parameters()) == []


CASTS = {
    "half": lambda m: m.half(),
    "bfloat16": lambda m: m.bfloat16(),
    "to bfloat16": lambda m: m.to(torch.bfloat16),
    "to cpu half": lambda m: m.to("cpu", torch.float16),
    "double": lambda m: m.double(),
    "half and back": lambda m: m.half().float(),
    "type": lambda m: m.type(torch.bfloat16),
}


@pytest.mark.parametrize("name", SMOOTHING)
@pytest.mark.parametrize("cast", CASTS)
def test_casting_a_model_leaves_eps_alone(name, cast):
    for eps in (0.1, torch.tensor([0.1, 0.2, 0.3, 0.7])):
        model = nn.Sequential(nn.Linear(2, 4), LOSSES[name](eps, weight=[0.5, 1.0, 2.0, 3.0]))
        before = model[1].eps
        CASTS[cast](model)
        assert_close(model[1].eps, before, rtol=0, atol=0)  # checks the dtype as well
        assert model[1].weight.dtype == model[0].weight.dtype
        logits, target = batch(name, torch.float64)
        if cast == "double":
            weight = torch.tensor([0.5, 1.0, 2.0, 3.0], dtype=torch.float64)
            level = eps[None] if isinstance(eps, torch.Tensor) else eps
            expected = FUNCTIONS[name](logits, target, level, weight=weight)
            assert_close(model[1](logits, target), expected, rtol=0, atol=1e-14)


def test_default_dtype_does_not_round_eps():
    torch.set_default_dtype(torch.bfloat16)
    try:
        loss = SmoothedCrossEntropy(0.1)
        loss.set_eps(0.3)
    finally:
        torch.set_default_dtype(torch.float32)
    assert_close(loss.eps, torch.tensor(0.3), rtol=0, atol=0)


def test_module_moves_to_another_device_with_its_dtype():
    loss = SmoothedCrossEntropy(0.1, weight=[1.0, 2.0]).to("meta", torch.float16)
    assert loss.eps.device.type == "meta"
    assert loss.eps.dtype == torch.float32
    assert "eps=tensor()" in repr(loss)


@pytest.mark.parametrize("name", SMOOTHING)
def test_set_eps(name):
    logits, target = batch(name)
    loss = LOSSES[name](0.1)
    buffer = loss.eps
    for eps in (0.0, 0.25, torch.tensor(0.4), torch.tensor(0.3, dtype=torch.float64), 0):
        loss.set_eps(eps)
        assert loss.eps is buffer
        assert_close(loss(logits, target), FUNCTIONS[name](logits, target, float(eps)))


@pytest.mark.parametrize("name", SMOOTHING)
def test_eps_per_class(name):
    eps = torch.tensor([0.0, 0.1, 0.2, 0.5])
    # As many samples as classes: a module means classes.
    for rows in (4, 6):
        logits, target = batch(name, rows=rows)
        expected = FUNCTIONS[name](logits, target, eps[None])
        for form in (eps, eps[None], eps.tolist(), eps.double()):
            assert_close(LOSSES[name](form)(logits, target), expected)
        loss = LOSSES[name](torch.zeros(4))
        loss.set_eps(eps)
        assert_close(loss(logits, target), expected)
        loss.set_eps(0.3)
        assert_close(loss(logits, target), FUNCTIONS[name](logits, target, 0.3))
    eps.fill_(0.9)
    assert not (loss.eps == 0.9).any()


def test_eps_given_as_a_tensor_is_not_shared():
    given = torch.tensor(0.1)
    loss = SmoothedCrossEntropy(given)
    loss.set_eps(0.5)
    assert given == torch.tensor(0.1)


def test_eps_per_sample():
    logits, target = batch("ce")
    eps = torch.linspace(0, 0.5, 6)[:, None]
    assert_close(SmoothedCrossEntropy(eps)(logits, target), smoothed_cross_entropy(logits, target, eps))


@pytest.mark.parametrize("name", SMOOTHING)
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_set_eps_between_forward_and_backward(name, dtype):
    logits, target = batch(name, dtype)
    leaf = logits.clone().requires_grad_()
    loss = LOSSES[name](0.1)
    value = loss(leaf, target)
    loss.set_eps(0.6)
    value.backward()
    judge = logits.clone().requires_grad_()
    FUNCTIONS[name](judge, target, 0.1).backward()
    assert_close(leaf.grad, judge.grad)


@pytest.mark.parametrize("name", SMOOTHING)
def test_a_number_is_set_and_used_without_a_host_sync(name):
    logits, target = batch(name)
    loss = LOSSES[name](0.1, weight=[0.5, 1.0, 2.0, 3.0])
    with NoSync():
        loss.set_eps(0.2)
        value = loss(logits.requires_grad_(), target)
        value.backward()
    expected = FUNCTIONS[name](logits, target, 0.2, weight=torch.tensor([0.5, 1.0, 2.0, 3.0]))
    assert_close(value, expected)


BAD_EPS = [
    (-0.1, ValueError, r"eps must be in \[0, 1\), got -0.1"),
    (1.0, ValueError, r"eps must be in \[0, 1\), got 1.0"),
    (1 - 1e-12, ValueError, r"eps must be in \[0, 1\), got 1.0"),
    (math.nan, ValueError, "got nan"),
    (torch.tensor(1.5), ValueError, "a tensor from 1.5 to 1.5"),
    (torch.tensor(math.nan), ValueError, "a tensor from nan to nan"),
    (torch.tensor(1), TypeError, "got a tensor of torch.int64"),
    ("0.1", TypeError, "got str '0.1'"),
    (None, TypeError, "got NoneType None"),
]


@pytest.mark.parametrize(("eps", "error", "message"), BAD_EPS)
@pytest.mark.parametrize("name", SMOOTHING)
def test_bad_eps(name, eps, error, message):
    with pytest.raises(error, match=message):
        LOSSES[name](eps)
    loss = LOSSES[name](0.1)
    with pytest.raises(error, match=message):
        loss.set_eps(eps)
    assert loss.eps == torch.tensor(0.1)


def test_more_bad_eps():
    with pytest.raises(ValueError, match=r"a tensor from -0\.1 to 0\.2"):
        SmoothedCrossEntropy([0.2, -0.1])
    with pytest.raises(ValueError, match="requires grad"):
        SmoothedCrossEntropy(torch.tensor(0.1, requires_grad=True))
    with pytest.raises(ValueError, match=r"a number or of shape \(\), got shape \(3,\)"):
        SmoothedCrossEntropy(0.1).set_eps(torch.zeros(3))


def test_plain_cross_entropy_refuses_to_smooth():
    message = r"^loss=none is plain cross-entropy and takes eps=0, got 0.1. Use loss=ce to smooth.$"
    with pytest.raises(ValueError, match=message):
        CrossEntropy(0.1)
    loss = CrossEntropy(0)
    loss.set_eps(0.0)
    with pytest.raises(ValueError, match=message):
        loss.set_eps(0.1)
    for eps in (math.nan, None, torch.tensor(0.1), [0.0, 0.1], "0.1"):
        with pytest.raises(ValueError, match="takes eps=0"):
            CrossEntropy(eps)
    assert loss.eps == 0


# Options


@pytest.mark.parametrize(
    ("name", "options", "error", "message"),
    [
        ("ce", {"reduction": "avg"}, ValueError, "reduction must be one of 'mean', .* got 'avg'"),
        ("kl", {"spread": "some"}, ValueError, "spread must be one of 'all', 'others', got 'some'"),
        ("ce", {"input": "probs"}, ValueError, "input must be one of"),
        ("none", {"weight_mode": "class"}, ValueError, "weight_mode must be one of"),
        ("bce", {"reduction": None}, ValueError, "reduction must be one of .* got None"),
        ("ce", {"weight": [1.0, -1.0]}, ValueError, r"weight must not be negative or nan, got \[1.0, -1.0\]"),
        ("bce", {"pos_weight": [math.nan]}, ValueError, "pos_weight must not be negative or nan"),
        ("ce", {"weight": torch.ones(2, 2)}, ValueError, r"one number per class, \(K,\), got shape \(2, 2\)"),
        ("ce", {"weight": torch.ones(2).int()}, TypeError, "weight must be floating point, got torch.int32"),
        ("ce", {"weight": 2.0}, TypeError, "weight must be a tensor or a list of numbers, got 2.0"),
        ("ce", {"weight": "balanced"}, TypeError, "a list of numbers, got 'balanced'"),
        ("ce", {"ignore_index": None}, TypeError, "ignore_index must be an integer, got None"),
        ("soft_ce", {"normalized": "yes"}, TypeError, "normalized must be True or False, got 'yes'"),
        ("bce", {"spread": "all"}, TypeError, "unexpected keyword argument 'spread'"),
    ],
)
def test_bad_options_are_refused_at_once(name, options, error, message):
    with pytest.raises(error, match=message) as caught:
        build_loss(name, **options)
    assert "\n" not in str(caught.value)


def test_unknown_loss():
    for call in (build_loss, usual_eps):
        message = "^loss must be one of 'ce', 'kl', .*, 'none', got 'cee'.$"
        with pytest.raises(ValueError, match=message):
            call("cee")


def test_usual_eps():
    assert {name: usual_eps(name) for name in LOSSES} == {
        "ce": 0.1,
        "kl": 0.1,
        "bce": 0.1,
        "soft_ce": 0.5,
        "prior": 0.1,
        "confidence_penalty": 0.1,
        "max_suppression": 0.1,
        "focal": 0.0,
        "margin": 0.1,
        "relaxation": 0.1,
        "negative": -0.4,
        "online": 0.5,
        "none": 0.0,
    }


def test_repr():
    assert repr(SmoothedCrossEntropy(0.1, weight=[1.0, 2.0], spread="others")) == (
        "SmoothedCrossEntropy(eps=0.1, weight=tensor(2,), weight_mode=sample, ignore_index=-100, "
        "reduction=mean, spread=others, input=logits, consume_logits=False)"
    )
    assert "eps=tensor(4,)" in repr(SmoothedKLDiv(torch.zeros(4)))
    assert "normalized=True" in repr(SoftCrossEntropy(normalized=True))


# Living with torch


@pytest.mark.parametrize("name", [name for name in LOSSES if name not in ("bce", "online")])
def test_state_dict_is_that_of_cross_entropy(name):
    weight = torch.tensor([1.0, 2.0, 3.0])
    theirs, ours = nn.CrossEntropyLoss(weight=weight), build_loss(name, weight=torch.zeros(3))
    ours.load_state_dict(theirs.state_dict())
    assert_close(ours.weight, weight)
    nn.CrossEntropyLoss(weight=torch.zeros(3)).load_state_dict(ours.state_dict())
    nn.CrossEntropyLoss().load_state_dict(build_loss(name).state_dict())


def test_state_dict_is_that_of_bce_with_logits():
    theirs = nn.BCEWithLogitsLoss(weight=torch.tensor([1.0, 2.0]), pos_weight=torch.tensor([3.0, 4.0]))
    ours = SmoothedBCEWithLogits(weight=[0.0, 0.0], pos_weight=[0.0, 0.0])
    ours.load_state_dict(theirs.state_dict())
    assert_close(ours.pos_weight, theirs.pos_weight)
    assert_close(ours.weight, theirs.weight)
    assert list(ours.state_dict()) == list(theirs.state_dict())
    logits, target = torch.randn(5, 2), torch.rand(5, 2)
    ours.set_eps(0.0)
    assert_close(ours(logits, target), theirs(logits, target))


@pytest.mark.parametrize("name", SMOOTHING)
@pytest.mark.parametrize("duplicate", [copy.deepcopy, lambda m: pickle.loads(pickle.dumps(m))])
def test_copies_are_independent(name, duplicate):
    logits, target = batch(name)
    loss = LOSSES[name](0.1, weight=[0.5, 1.0, 2.0, 3.0], reduction="sum")
    loss.set_eps(0.3)
    twin = duplicate(loss)
    assert repr(twin) == repr(loss)
    loss.set_eps(0.0)
    weight = torch.tensor([0.5, 1.0, 2.0, 3.0])
    expected = FUNCTIONS[name](logits, target, 0.3, weight=weight, reduction="sum")
    assert_close(twin(logits, target), expected)


@pytest.mark.parametrize("name", SMOOTHING)
def test_attributes_may_be_set_later(name):
    logits, target = batch(name)
    loss = LOSSES[name](0.1)
    loss.weight = torch.tensor([0.5, 1.0, 2.0, 3.0])
    loss.reduction = "sum"
    assert list(loss.state_dict()) == ["weight"]
    expected = FUNCTIONS[name](logits, target, 0.1, weight=loss.weight, reduction="sum")
    assert_close(loss(logits, target), expected)


# A function as a loss


def test_function_loss():
    logits, target = batch("ce")
    weight = torch.tensor([0.5, 1.0, 2.0, 3.0])
    loss = FunctionLoss(smoothed_cross_entropy, eps=0.2, weight=weight.tolist(), reduction="sum")
    assert_close(loss(logits, target), smoothed_cross_entropy(logits, target, 0.2, weight=weight, reduction="sum"))
    loss.set_eps(0.4)
    assert_close(loss(logits, target), smoothed_cross_entropy(logits, target, 0.4, weight=weight, reduction="sum"))
    assert loss.to("meta").weight.is_meta
    seen = []
    FunctionLoss(lambda z, y, eps: seen.append(eps) or z.sum(), 0.1)(logits, target)
    assert_close(seen, [torch.tensor(0.1)])


def test_function_loss_refuses_what_the_function_cannot_take():
    def mine(logits, target, eps):
        return logits.sum()

    with pytest.raises(TypeError, match=r"mine must take \(logits, target, eps, weight\): .*'weight'"):
        FunctionLoss(mine, weight=torch.ones(2))
    with pytest.raises(TypeError, match=r"relu must take \(logits, target, eps\)"):
        FunctionLoss(torch.nn.functional.relu)


# Configuration


@pytest.mark.parametrize("name", LOSSES)
def test_config_lists_every_option_with_its_default(name):
    config = OmegaConf.create({"loss": OmegaConf.load(CONF / f"{name}.yaml")}).loss
    parameters = inspect.signature(LOSSES[name]).parameters
    assert set(config) == {"_target_", *parameters}
    for option, parameter in parameters.items():
        assert config[option] == parameter.default, option  # without a top-level eps
    loss = instantiate(config)
    assert type(loss) is LOSSES[name]
    assert_close(loss.eps, torch.tensor(usual_eps(name)))


def test_every_loss_has_a_config():
    assert {path.stem for path in CONF.glob("*.yaml")} == set(LOSSES)


@pytest.mark.parametrize("name", SMOOTHING)
def test_config_takes_the_top_level_eps(name):
    config = OmegaConf.create({"eps": 0.3, "loss": OmegaConf.load(CONF / f"{name}.yaml")})
    assert_close(instantiate(config).loss.eps, torch.tensor(0.3))
    config.eps = "???"
    assert_close(instantiate(config.loss).eps, torch.tensor(usual_eps(name)))


@pytest.mark.parametrize("name", LOSSES)
@pytest.mark.parametrize("has_eps", [False, True])
def test_config_in_an_app_of_the_users_own(tmp_path, name, has_eps):
    lines = ["hydra: {searchpath: [pkg://ls_lightning.conf]}", "defaults:", f"  - loss: {name}", "  - _self_"]
    lines += ["eps: 0.0"] if has_eps else []
    (tmp_path / "config.yaml").write_text("\n".join(lines))
    GlobalHydra.instance().clear()
    with initialize_config_dir(str(tmp_path), version_base=None):
        config = compose("config", overrides=["+loss.weight=[1,2.5]", "loss.ignore_index=7"])
    loss = instantiate(config.loss)
    assert type(loss) is LOSSES[name]
    assert_close(loss.eps, torch.tensor(0.0 if has_eps else usual_eps(name)))
    assert_close(loss.weight, torch.tensor([1.0, 2.5]))
    assert loss.ignore_index == 7
