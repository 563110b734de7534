import functools
from contextlib import nullcontext

import pytest
import torch
from torch import nn
from torch.nn import functional as F
from torch.overrides import TorchFunctionMode

from ls_lightning.tap import Tap, smoothing_modules
from ls_lightning.tap.call import KINDS, own_options, own_smoothing
from ls_lightning.tap.seam import GATES

X = torch.randn(4, 3, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
Y = torch.tensor([0, 2, 1, 0])
HOT = F.one_hot(Y, 3).double()
W = torch.tensor([1.0, 2.0, 3.0], dtype=torch.float64)
ANSWER = torch.tensor(7.0)
NATIVES = [(namespace, name, namespace[name]) for namespace, name, _ in GATES]
FUNCTIONS = {name: getattr(F, name) for name in KINDS}


class Net(nn.Module):
    def __init__(self):
        super().__init__()
        self.criterion = nn.CrossEntropyLoss(weight=W, ignore_index=2, reduction="sum")


def see(net, function, target="auto", answer=None):
    """What a tap saw of a function of the module, and what the function returned."""
    seen = []

    def handle(call):
        seen.append(call)
        return answer

    with Tap(net, handle, target).step():
        result = function(net)
    return seen, result


CALLS = {
    "cross_entropy": (lambda: F.cross_entropy(X, Y), "cross_entropy", "multiclass", "logits", Y, {}),
    "ce_options": (
        lambda: F.cross_entropy(X, Y, W, ignore_index=2, reduction="sum"),
        "cross_entropy",
        "multiclass",
        "logits",
        Y,
        {"weight": W, "ignore_index": 2, "reduction": "sum"},
    ),
    "ce_defaults": (
        lambda: nn.CrossEntropyLoss(ignore_index=-100, reduction="mean")(X, Y),
        "cross_entropy",
        "multiclass",
        "logits",
        Y,
        {},
    ),
    "nll_loss": (
        lambda: F.nll_loss(X.log_softmax(1), Y, W, reduction="none"),
        "nll_loss",
        "multiclass",
        "log_probs",
        Y,
        {"weight": W, "reduction": "none"},
    ),
    "bce_with_logits": (
        lambda: nn.BCEWithLogitsLoss(weight=W, pos_weight=2 * W)(X, HOT),
        "binary_cross_entropy_with_logits",
        "binary",
        "logits",
        HOT,
        {"weight": W, "pos_weight": 2 * W},
    ),
    "bce": (
        lambda: F.binary_cross_entropy(X.sigmoid(), HOT, reduction="sum"),
        "binary_cross_entropy",
        "binary",
        "probs",
        HOT,
        {"reduction": "sum"},
    ),
}


@pytest.mark.parametrize("name", CALLS)
def test_what_is_seen_of_a_call(name):
    function, called, kind, given, target, options = CALLS[name]
    plain = function()
    (call,), result = see(Net(), lambda _: function())
    assert torch.equal(result, plain)
    assert (call.function, call.kind, call.input, call.label_smoothing, call.position) == (called, kind, given, 0.0, 0)
    expected = {"logits": X, "log_probs": X.log_softmax(1), "probs": X.sigmoid()}[given]
    assert torch.equal(call.logits, expected)
    assert torch.equal(call.target, target)
    assert call.options.keys() == options.keys()
    for key, option in options.items():
        if isinstance(option, str):
            assert call.options[key] == option
            continue
        torch.testing.assert_close(torch.as_tensor(call.options[key]), torch.as_tensor(option))
    assert see(Net(), lambda _: function(), answer=ANSWER)[1] is ANSWER


def test_label_smoothing_of_the_author_and_positions():
    def calls(net):
        return F.cross_entropy(X, Y, label_smoothing=0.3) + F.binary_cross_entropy(X.sigmoid(), HOT)

    seen, result = see(Net(), calls)
    assert [(call.label_smoothing, call.position) for call in seen] == [(0.3, 0), (0.0, 1)]
    assert torch.equal(result, calls(None))


def test_positions_start_again_in_each_step():
    seen = []
    tap = Tap(Net(), seen.append)
    for _ in range(2):
        with tap.step():
            F.cross_entropy(X, Y)
            F.nll_loss(X, Y)
        assert tap.calls == 2
    assert [call.position for call in seen] == [0, 1, 0, 1]


class Quick:
    """Answers usual calls with ``Y`` quickly."""

    def __init__(self):
        self.asked, self.seen = [], []

    def quick(self, logits, target):
        self.asked.append(target)
        F.cross_entropy(logits, target)  # its own business
        return ANSWER if target is Y else None

    def __call__(self, call):
        self.seen.append(call)


def test_a_usual_call_is_answered_before_it_is_described():
    handler = Quick()
    tap = Tap(Net(), handler)
    with tap.step():
        found = [F.cross_entropy(X, Y), F.cross_entropy(X, HOT), F.cross_entropy(X, Y, reduction="sum")]
        found += [nn.CrossEntropyLoss()(X, Y), F.nll_loss(X, Y)]
    assert [value is ANSWER for value in found] == [True, False, False, True, False]
    assert [target is Y for target in handler.asked] == [True, False, True]
    assert [(call.function, call.position) for call in handler.seen] == [
        ("cross_entropy", 1),
        ("cross_entropy", 2),
        ("nll_loss", 4),
    ]
    assert tap.calls == 5


def test_a_call_is_described_where_others_look_at_it():
    handler, seen = Quick(), []
    tap, other, selects = Tap(Net(), handler), Tap(Net(), seen.append), Tap(Net(), handler, lambda call: True)
    with tap.step(), other.step():
        F.cross_entropy(X, Y)
    with selects.step():
        F.cross_entropy(X, Y)
    assert not handler.asked
    assert len(handler.seen) == 2
    assert len(seen) == 1


def test_a_mode_sees_a_call_before_it_is_answered():
    class Function(torch.overrides.TorchFunctionMode):
        def __torch_function__(self, function, types, args=(), kwargs=None):
            functions.append(function.__name__)
            return function(*args, **(kwargs or {}))

    functions, tap = [], Tap(Net(), Quick())
    with tap.step(), Function():
        assert F.cross_entropy(X, Y) is ANSWER
    assert "cross_entropy" in functions


def test_a_predicate_selects():
    def calls(net):
        return [F.cross_entropy(X, Y), F.nll_loss(X, Y), F.cross_entropy(X, Y)]

    seen, results = see(Net(), calls, lambda call: call.position == 1, ANSWER)
    assert [call.function for call in seen] == ["nll_loss"]
    assert [result is ANSWER for result in results] == [False, True, False]


def test_a_handler_may_call_losses_itself():
    def handle(call):
        return F.cross_entropy(call.logits, call.target, label_smoothing=0.3)

    tap = Tap(Net(), handle)
    with tap.step():
        result = F.cross_entropy(X, Y)
    assert tap.calls == 1
    assert torch.equal(result, F.cross_entropy(X, Y, label_smoothing=0.3))


@pytest.mark.parametrize("error", [RuntimeError, KeyboardInterrupt, GeneratorExit])
@pytest.mark.parametrize("where", ["step", "handler"])
@pytest.mark.parametrize("target", ["auto", "criterion"])
def test_an_exception_leaves_nothing_behind(error, where, target):
    def handle(call):
        if where == "handler":
            raise error
        return ANSWER

    net = Net()
    tap = Tap(net, handle, target)

    def step():
        with tap.step():
            net.criterion(X, Y)
            raise error

    with pytest.raises(error):
        step()
    assert all(namespace[name] is own for namespace, name, own in NATIVES)
    assert {name: getattr(F, name) for name in FUNCTIONS} == FUNCTIONS
    assert "forward" not in vars(net.criterion)
    with tap.step(), pytest.raises(error) if where == "handler" else nullcontext():
        assert net.criterion(X, Y) is ANSWER


def test_what_is_handed_on_after_a_step_is_torch_s():
    kept = []
    with Tap(Net(), lambda call: ANSWER).step():
        kept += [F.cross_entropy, functools.partial(F.nll_loss, reduction="sum")]
        assert kept[0](X, Y) is ANSWER
    assert torch.equal(kept[0](X, Y), F.cross_entropy(X, Y))
    assert torch.equal(kept[1](X, Y), F.nll_loss(X, Y, reduction="sum"))
    with Tap(Net(), lambda call: ANSWER).step():
        assert kept[0](X, Y) is ANSWER


class Own(nn.Module):
    def __init__(self, smoothing=0.0):
        super().__init__()
        self.smoothing = smoothing
        self.ignore_index = 2

    def forward(self, prediction, label, weight=None, *rest):
        return (prediction.sum() + label.sum()) * (1 if weight is None else weight)


def test_a_loss_that_a_path_names():
    net = Net()
    net.heads = nn.ModuleDict({"a": Own(), "b": nn.ModuleList([Own(0.1)])})
    before = dict(vars(net.heads["a"]))
    seen, results = see(net, lambda net: [net.heads["a"](X, Y), net.heads["b"][0](X, label=Y)], "heads.b.0", ANSWER)
    ((function, logits, target, options, smoothing, _),) = seen
    assert (function, logits is X, target is Y, options, smoothing) == ("Own", True, True, {"ignore_index": 2}, 0.1)
    assert seen[0].kind is None
    assert [result is ANSWER for result in results] == [False, True]
    assert vars(net.heads["a"]) == before
    seen, _ = see(net, lambda net: net.heads["a"](Y, X, 3, 4, 5), "heads.a")
    assert seen[0].options == {"ignore_index": 2, "weight": 3, "argument 4": 4, "argument 5": 5}


def test_a_torch_loss_that_a_path_names():
    (call,), result = see(Net(), lambda net: net.criterion(X, Y), "criterion")
    assert (call.function, call.kind) == ("cross_entropy", "multiclass")
    assert call.options.pop("weight") is not None
    assert call.options == {"ignore_index": 2, "reduction": "sum"}
    assert torch.equal(result, F.cross_entropy(X, Y, W, ignore_index=2, reduction="sum"))


class Scaled:
    scale = 3.0

    def __call__(self, logits, target):
        return self.scale * logits.sum()


@pytest.mark.parametrize("function", [Scaled(), F.cross_entropy, functools.partial(F.cross_entropy, weight=W)])
def test_a_function_that_a_path_names(function):
    net = Net()
    net.function = function
    plain = function(X, Y)
    (call,), result = see(net, lambda net: net.function(X, Y), "function")
    assert torch.equal(result, plain)
    assert call.options.keys() == ({"weight"} if isinstance(function, functools.partial) else set())
    assert net.function is function
    if isinstance(function, Scaled):
        assert see(net, lambda net: net.function.scale, "function") == ([], 3.0)


def test_a_method_and_a_static_function_that_a_path_names():
    class Methods(nn.Module):
        def own(self, logits, target):
            return logits.sum()

        static = staticmethod(F.cross_entropy)

    net = Methods()
    for name in ("own", "static"):
        (call,), result = see(net, lambda net, name=name: getattr(net, name)(X, target=Y), name, ANSWER)
        assert call.target is Y
        assert result is ANSWER
        assert name not in vars(net)


@pytest.mark.parametrize("path", ["typo", "criterion.typo", "typo.criterion", "criterion.reduction", "training"])
def test_a_path_that_leads_nowhere(path):
    with pytest.raises(LookupError, match=f"Net has no submodule '{path}'"):
        Tap(Net(), print, path)


def test_what_the_step_assigns_instead_stays():
    net = Net()
    net.function = F.cross_entropy
    for target in ("auto", "function", "criterion"):
        own = F.nll_loss
        with Tap(net, lambda call: None, target).step():
            net.function = net.criterion.forward = own
        assert net.function is own
        assert net.criterion.forward is own
        net.function = F.cross_entropy
        del net.criterion.forward


def test_beside_a_torch_function_mode_and_a_tensor_subclass():
    class Counts(TorchFunctionMode):
        seen = ()

        def __torch_function__(self, func, types, args=(), kwargs=None):
            self.seen = (*self.seen, func.__name__)
            return func(*args, **(kwargs or {}))

    class Sub(torch.Tensor):
        pass

    mode = Counts()
    with mode, torch.device("cpu"):
        seen, result = see(Net(), lambda net: F.cross_entropy(X, Y))
        assert len(seen) == 1
        assert see(Net(), lambda net: F.cross_entropy(X, Y), answer=ANSWER)[1] is ANSWER
    assert "cross_entropy" in mode.seen
    assert torch.equal(result, F.cross_entropy(X, Y))
    seen, result = see(Net(), lambda net: F.cross_entropy(X.as_subclass(Sub), Y))
    assert len(seen) == 1
    assert torch.equal(result, F.cross_entropy(X.as_subclass(Sub), Y))
    assert type(result) is Sub


def test_under_vmap_and_grad():
    def loss(x, y):
        return F.cross_entropy(x.unsqueeze(0), y.unsqueeze(0))

    def handle(call):
        return 2 * F.cross_entropy(call.logits, call.target)

    per_sample = torch.func.vmap(torch.func.grad(loss))
    expected = per_sample(X, Y)
    with Tap(Net(), handle).step():
        result = per_sample(X, Y)
    torch.testing.assert_close(result, 2 * expected)


@pytest.mark.filterwarnings("ignore:size_average and reduce args")
@pytest.mark.parametrize(
    ("legacy", "reduction"),
    [
        ({"size_average": False}, "sum"),
        ({"size_average": True}, "mean"),
        ({"reduce": False}, "none"),
        ({"size_average": False, "reduce": True}, "sum"),
    ],
    ids=str,
)
@pytest.mark.parametrize(
    "name", ["cross_entropy", "nll_loss", "binary_cross_entropy", "binary_cross_entropy_with_logits"]
)
def test_legacy_arguments(name, legacy, reduction):
    function = getattr(F, name)
    arguments = (X.sigmoid(), HOT) if "binary" in name else (X, Y)
    (call,), result = see(Net(), lambda net: function(*arguments, **legacy))
    assert call.options == ({} if reduction == "mean" else {"reduction": reduction})
    assert torch.equal(result, function(*arguments, reduction=reduction))


def test_own_options_and_smoothing():
    assert own_options(nn.BCEWithLogitsLoss(pos_weight=W)).keys() == {"pos_weight"}
    assert own_options(nn.L1Loss()) == {}
    assert own_options(nn.Linear(2, 2)) == {}  # its weight is a parameter, not one of classes
    assert own_smoothing(nn.CrossEntropyLoss()) == 0
    assert own_smoothing(nn.CrossEntropyLoss(label_smoothing=0.1)) == 0.1
    assert own_smoothing(Own(0.2)) == 0.2
    net = nn.ModuleDict({"a": nn.CrossEntropyLoss(label_smoothing=0.1), "b": nn.CrossEntropyLoss(), "c": Own(0.2)})
    assert smoothing_modules(net) == {"a": 0.1}


def test_a_named_loss_that_is_replaced_between_steps():
    net, seen = Net(), []
    tap = Tap(net, seen.append, "criterion")
    for criterion in (net.criterion, Own(), Own()):
        net.criterion = criterion
        with tap.step():
            net.criterion(X, Y)
        assert "forward" not in vars(criterion)
    assert [call.function for call in seen] == ["cross_entropy", "Own", "Own"]
    del net.criterion
    with pytest.raises(LookupError, match="no submodule 'criterion'"), tap.step():
        pass
