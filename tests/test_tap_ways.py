"""However a module calls its loss: it trains as torch smooths, validates as its author wrote it, and is measured."""

import functools
import itertools

import losses_elsewhere
import numpy as np
import pytest
import torch
from nets import Data, Net, blobs, trainer
from torch import nn
from torch.nn import functional as F
from torch.nn.functional import cross_entropy
from torch.nn.functional import cross_entropy as renamed
from torch.utils.data import TensorDataset

import ls_lightning as ls
from ls_lightning.functional import smoothed_binary_cross_entropy_with_logits, smoothed_cross_entropy

EPS = 0.2
WEIGHT = torch.tensor([1, 2, 0.5, 4, 1], dtype=torch.float64)
CLOSE = {"rtol": 1e-6, "atol": 1e-7}  # eps is held in float32


def weights(net):
    return torch.cat([p.detach().flatten() for p in net.parameters()])


def fit(net, tmp_path, *callbacks, data=None, **kwargs):
    t = trainer(tmp_path, *callbacks, **kwargs)
    t.fit(net, datamodule=data or Data())
    return t


def measured(logits, target):
    """Accuracy, negative log-likelihood and ECE of 15 bins, of ``(N, K)`` logits."""
    p = logits.double().softmax(1).numpy()
    target = target.numpy()
    confidence, hit = p.max(1), p.argmax(1) == target
    index = np.ceil(confidence * 15).astype(int)
    gaps = [(index == b).mean() * abs(confidence[index == b].mean() - hit[index == b].mean()) for b in set(index)]
    nll = -np.log(p[np.arange(len(p)), target]).mean()
    return {"n": len(p), "acc": hit.mean(), "nll": nll, "ece": sum(gaps)}


def check(tmp_path, net, judge, rows, data=None, loss="ce", **options):
    """``judge`` is the same module, smoothed by itself; ``rows(net, x, y)`` are the logits and targets measured."""
    data = data or Data()
    select = options.pop("monitor", "auto")
    smoothing, monitor = ls.LabelSmoothing(loss=loss, eps=EPS, **options), ls.CalibrationMonitor(target=select)
    t = fit(net, tmp_path, smoothing, monitor, data=data)
    fit(judge, tmp_path, data=data)
    torch.testing.assert_close(weights(net), weights(judge), **CLOSE)
    torch.testing.assert_close(net.seen, judge.seen, **CLOSE)
    bare = trainer(tmp_path)
    bare.validate(net, datamodule=data, verbose=False)
    assert t.callback_metrics["author_loss"].item() == bare.callback_metrics["author_loss"].item()
    with torch.no_grad():
        expected = measured(*rows(net, *data.set.tensors))
    values = monitor.results["val"]
    assert {key: values[key] for key in expected} == pytest.approx(expected, abs=1e-8)
    return smoothing


class Judge(Net):
    def __init__(self, function, **kwargs):
        super().__init__(**kwargs)
        self.function = function

    def loss(self, batch):
        return self.function(self, *batch) if self.training else torch.zeros(())


def torch_smooths(**options):
    return Judge(lambda net, x, y: F.cross_entropy(net(x), y, label_smoothing=EPS, **options))


def plain_rows(net, x, y):
    return net(x), y


class Function(Net):
    """The way is a function of the logits and the target."""

    def __init__(self, way):
        super().__init__(nn.Identity())
        self.way = way

    def loss(self, batch):
        x, y = batch
        return self.way(self, self(x), y)


class OwnClass(nn.CrossEntropyLoss):
    def forward(self, input, target):
        return super().forward(input, target)


WAYS = {
    "F": lambda net, logits, y: F.cross_entropy(logits, y),
    "dotted": lambda net, logits, y: torch.nn.functional.cross_entropy(logits, y),
    "import": lambda net, logits, y: cross_entropy(logits, y),
    "import_as": lambda net, logits, y: renamed(logits, y),
    "elsewhere": lambda net, logits, y: losses_elsewhere.imported(logits, y),
    "elsewhere_as": lambda net, logits, y: losses_elsewhere.renamed(logits, y),
    "elsewhere_default": lambda net, logits, y: losses_elsewhere.by_default(logits, y),
    "elsewhere_closure": lambda net, logits, y: losses_elsewhere.closure()(logits, y),
    "elsewhere_partial": lambda net, logits, y: losses_elsewhere.partial(logits, y),
    "elsewhere_table": lambda net, logits, y: losses_elsewhere.table["loss"](logits, y),
    "created_in_step": lambda net, logits, y: nn.CrossEntropyLoss()(logits, y),
    "default_argument": lambda net, logits, y, function=F.cross_entropy: function(logits, y),
    "keywords": lambda net, logits, y: F.cross_entropy(target=y, input=logits, reduction="mean"),
    "positions": lambda net, logits, y: F.cross_entropy(logits, y, None, None, -100, None, "mean", 0.0),
    "nll_loss": lambda net, logits, y: F.nll_loss(F.log_softmax(logits, 1), y),
    "NLLLoss": lambda net, logits, y: nn.NLLLoss()(logits.log_softmax(1), y),
    "split_sum": lambda net, logits, y: F.cross_entropy(logits, y, reduction="none").mean(),
    "flattened": lambda net, logits, y: F.cross_entropy(logits.view(-1, 5), y.view(-1)),
    "soft": lambda net, logits, y: F.cross_entropy(logits, F.one_hot(y, 5).double()),
}


@pytest.mark.parametrize("way", WAYS)
def test_calls(tmp_path, way):
    check(tmp_path, Function(WAYS[way]), torch_smooths(), plain_rows)


def test_samples_one_by_one(tmp_path):
    def one_by_one(net, logits, y):
        return torch.stack([F.cross_entropy(a, b) for a, b in zip(logits, y, strict=True)]).mean()

    net, smoothing = Function(one_by_one), ls.LabelSmoothing(eps=EPS)
    fit(net, tmp_path, smoothing)
    assert smoothing.num_smoothed == 8
    torch.testing.assert_close(weights(net), weights_of(torch_smooths(), tmp_path), **CLOSE)


def weights_of(judge, tmp_path, data=None):
    fit(judge, tmp_path, data=data)
    return weights(judge)


class Static(Net):
    function = staticmethod(F.cross_entropy)

    def loss(self, batch):
        return self.function(self(batch[0]), batch[1])


def holding(make):
    """A module that holds its loss where ``make`` puts it."""

    class Holding(Net):
        def __init__(self):
            super().__init__(nn.Identity())
            self.held = make()

        def loss(self, batch):
            held = self.held
            if isinstance(held, dict | nn.ModuleDict):
                held = held["loss"]
            if isinstance(held, list | nn.ModuleList):
                held = held[0]
            return held(self(batch[0]), batch[1])

    return Holding


HELD = {
    "module": nn.CrossEntropyLoss,
    "dict": lambda: {"loss": nn.CrossEntropyLoss()},
    "list": lambda: [nn.CrossEntropyLoss()],
    "ModuleDict": lambda: nn.ModuleDict({"loss": nn.CrossEntropyLoss()}),
    "ModuleList": lambda: nn.ModuleList([nn.CrossEntropyLoss()]),
    "subclass": OwnClass,
    "function": lambda: F.cross_entropy,
    "function_in_dict": lambda: {"loss": F.cross_entropy},
    "partial": lambda: functools.partial(F.cross_entropy, reduction="mean"),
    "closure": losses_elsewhere.closure,
    "bound": lambda: nn.CrossEntropyLoss().forward,
}


@pytest.mark.parametrize("held", HELD)
def test_held(tmp_path, held):
    check(tmp_path, holding(HELD[held])(), torch_smooths(), plain_rows)


def test_static_class_attribute(tmp_path):
    check(tmp_path, Static(), torch_smooths(), plain_rows)


@pytest.mark.parametrize(
    "options",
    [
        {"weight": WEIGHT},
        {"ignore_index": 2},
        {"ignore_index": 2, "weight": WEIGHT},
        {"reduction": "sum"},
        {"size_average": False},
        {"size_average": True, "reduce": True},
    ],
    ids=str,
)
@pytest.mark.filterwarnings("ignore:size_average and reduce args")
@pytest.mark.parametrize("way", ["function", "module", "nll"])
def test_options(tmp_path, way, options):
    def call(net, logits, y):
        if way == "nll":
            return F.nll_loss(logits.log_softmax(1), y, **options) / 8
        if way == "module":
            return nn.CrossEntropyLoss(**options)(logits, y) / 8
        return F.cross_entropy(logits, y, **options) / 8

    ours = {key: value for key, value in options.items() if key not in ("size_average", "reduce")}
    if options.get("size_average") is False:
        ours["reduction"] = "sum"
    judge = Judge(lambda net, x, y: smoothed_cross_entropy(net(x), y, EPS, **ours) / 8)

    def rows(net, x, y):
        kept = y != options.get("ignore_index", -100)
        return net(x)[kept], y[kept]

    check(tmp_path, Function(call), judge, rows)


@pytest.mark.filterwarnings("ignore:size_average and reduce args")
@pytest.mark.parametrize("options", [{"reduction": "none"}, {"reduce": False}], ids=str)
def test_no_reduction(tmp_path, options):
    def call(net, logits, y):
        loss = F.cross_entropy(logits, y, **options)
        assert loss.shape == y.shape
        return (loss * torch.arange(8)).mean()

    def smooth(net, x, y):
        return (F.cross_entropy(net(x), y, label_smoothing=EPS, reduction="none") * torch.arange(8)).mean()

    check(tmp_path, Function(call), Judge(smooth), plain_rows)


class Hot(Data):
    """One 0 or 1 for each of the five classes."""

    def __init__(self, **kwargs):
        super().__init__(target=lambda y: F.one_hot(y, 5).double(), **kwargs)


POS_WEIGHT = torch.tensor([1.0, 2, 3, 4, 5], dtype=torch.float64)
BINARY = {
    "logits": (lambda net, z, y: F.binary_cross_entropy_with_logits(z, y), {}),
    "BCEWithLogitsLoss": (lambda net, z, y: nn.BCEWithLogitsLoss(reduction="sum")(z, y), {"reduction": "sum"}),
    "pos_weight": (lambda net, z, y: nn.BCEWithLogitsLoss(pos_weight=POS_WEIGHT)(z, y), {"pos_weight": POS_WEIGHT}),
    "weight": (lambda net, z, y: F.binary_cross_entropy_with_logits(z, y, WEIGHT), {"weight": WEIGHT}),
    "torch": (lambda net, z, y: torch.binary_cross_entropy_with_logits(z, y).mean(), {}),
    "probs": (lambda net, z, y: F.binary_cross_entropy(torch.sigmoid(z), y), {}),
    "BCELoss": (lambda net, z, y: nn.BCELoss(weight=WEIGHT)(torch.sigmoid(z), y), {"weight": WEIGHT}),
}


@pytest.mark.parametrize("way", BINARY)
def test_binary(tmp_path, way):
    call, options = BINARY[way]
    judge = Judge(lambda net, x, y: smoothed_binary_cross_entropy_with_logits(net(x), y, EPS, **options))

    def rows(net, x, y):
        z = net(x).flatten()
        return torch.stack([torch.zeros_like(z), z], 1), y.flatten().long()

    check(tmp_path, Function(call), judge, rows, data=Hot(), loss="bce")


def test_binary_of_one_squeezed_sample(tmp_path):
    """As left by ``squeeze()`` of a last batch of one: no dimension at all."""

    class Squeezed(Net):
        def __init__(self):
            super().__init__(nn.BCEWithLogitsLoss(), classes=1)

        def loss(self, batch):
            return self.criterion(self(batch[0]).squeeze(), batch[1].squeeze())

    def target(y):
        return (y > 2).double().unsqueeze(1)

    data = Data(n=9, target=target)
    judge = Judge(lambda net, x, y: smoothed_binary_cross_entropy_with_logits(net(x), y, EPS), classes=1)

    def rows(net, x, y):
        z = net(x).squeeze(1)
        return torch.stack([torch.zeros_like(z), z], 1), y.squeeze(1).long()

    check(tmp_path, Squeezed(), judge, rows, data=data, loss="bce")


@pytest.mark.parametrize("way", ["logits", "probs"])
@pytest.mark.parametrize(("logit", "label"), [(-30, 1.0), (20, 0.0)])
def test_a_certain_and_wrong_probability_still_learns(tmp_path, way, logit, label):
    class Certain(Net):
        def __init__(self):
            super().__init__(classes=1)
            with torch.no_grad():
                self.layer.weight.zero_()
                self.layer.bias.fill_(logit)

        def loss(self, batch):
            z = self(batch[0]).squeeze(1)
            y = torch.full_like(z, label)
            if way == "logits":
                return F.binary_cross_entropy_with_logits(z, y)
            return F.binary_cross_entropy(torch.sigmoid(z), y)

    net = Certain()
    fit(net, tmp_path, ls.LabelSmoothing(loss="bce", eps=EPS), max_epochs=1, limit_train_batches=1, limit_val_batches=0)
    gradient = float(logit > 0) - (label * (1 - EPS) + EPS / 2)
    torch.testing.assert_close(net.layer.bias.item(), logit - 0.5 * gradient, **CLOSE)


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.bfloat16, torch.float16])
def test_probabilities_rounded_to_0_and_1_have_a_finite_loss(tmp_path, dtype):
    class Rounded(Net):
        def loss(self, batch):
            p = torch.sigmoid(1000 * self(batch[0])).to(dtype)
            return F.binary_cross_entropy(p, 1 - p.detach().round())

    net = Rounded()
    fit(net, tmp_path, ls.LabelSmoothing(loss="bce", eps=EPS), limit_val_batches=0)
    assert all(0 < loss < 1000 for loss in net.seen)
    assert torch.isfinite(weights(net)).all()


class Grid(Data):
    """``shape`` targets a sample, some of them to be ignored."""

    def __init__(self, *shape, ignored=255):
        super().__init__()
        generator = torch.Generator().manual_seed(1)
        x = torch.randn(48, 6, *shape, dtype=torch.float64, generator=generator)
        y = torch.randint(5, (48, *shape), generator=generator)
        y[torch.rand(y.shape, generator=generator) < 0.2] = ignored
        self.set = TensorDataset(x, y)


class Channels(Net):
    def forward(self, x):
        return self.layer(x.movedim(1, -1)).movedim(-1, 1)


@pytest.mark.parametrize("shape", [(3,), (2, 3)])
@pytest.mark.parametrize("flat", [False, True])
def test_dense_and_sequence(tmp_path, shape, flat):
    class Dense(Channels):
        def loss(self, batch):
            logits, y = self(batch[0]), batch[1]
            if flat:
                logits, y = logits.movedim(1, -1).reshape(-1, 5), y.flatten()
            return F.cross_entropy(logits, y, ignore_index=255)

    class Smooth(Channels):
        def loss(self, batch):
            return F.cross_entropy(self(batch[0]), batch[1], ignore_index=255, label_smoothing=EPS * self.training)

    def rows(net, x, y):
        kept = y.flatten() != 255
        return net(x).movedim(1, -1).reshape(-1, 5)[kept], y.flatten()[kept]

    check(tmp_path, Dense(), Smooth(), rows, data=Grid(*shape))


def test_soft_targets(tmp_path):
    def mix(y):
        other = torch.randint(5, y.shape, generator=torch.Generator().manual_seed(7))
        return 0.7 * F.one_hot(y, 5).double() + 0.3 * F.one_hot(other, 5).double()

    def rows(net, x, y):
        return net(x), y.argmax(1)

    check(tmp_path, Function(WAYS["F"]), torch_smooths(), rows, data=Data(target=mix))


class Heads(Net):
    def __init__(self, ways=("main", "auxiliary")):
        super().__init__()
        self.losses = nn.ModuleDict({"main": nn.CrossEntropyLoss(), "auxiliary": nn.CrossEntropyLoss()})
        self.smooth = dict.fromkeys(self.losses, 0.0)
        self.ways = ways

    def loss(self, batch):
        logits, y = self(batch[0]), batch[1]
        return self.losses["main"](logits, y) + 0.5 * self.losses["auxiliary"](2 * logits, y)


class SmoothHeads(Net):
    def __init__(self, main, auxiliary):
        super().__init__()
        self.eps = main, auxiliary

    def loss(self, batch):
        logits, y = self(batch[0]), batch[1]
        main, auxiliary = self.eps
        first = F.cross_entropy(logits, y, label_smoothing=main)
        return first + 0.5 * F.cross_entropy(2 * logits, y, label_smoothing=auxiliary)


def first(call):
    return call.position == 0


@pytest.mark.parametrize(
    ("target", "eps", "count"),
    [("auto", (EPS, EPS), 2), (first, (EPS, 0.0), 1), ("losses.auxiliary", (0.0, EPS), 1)],
)
def test_heads(tmp_path, target, eps, count):
    smoothing = check(tmp_path, Heads(), SmoothHeads(*eps), plain_rows, target=target, monitor="losses.main")
    assert smoothing.num_smoothed == count


class Another(ls.LabelSmoothing):
    """Lightning wants stateful callbacks of one Trainer to be of different classes."""


@pytest.mark.parametrize("order", [(0, 1), (1, 0)])
def test_two_callbacks_share_the_heads(tmp_path, order):
    def second(call):
        return call.position == 1

    callbacks = ls.LabelSmoothing(eps=0.1, target=first), Another(eps=0.3, target=second)
    net = Heads()
    t = fit(net, tmp_path, *(callbacks[index] for index in order))
    torch.testing.assert_close(weights(net), weights_of(SmoothHeads(0.1, 0.3), tmp_path), **CLOSE)
    assert "train_step_context" not in vars(t.precision_plugin)


def test_two_callbacks_may_not_smooth_one_call(tmp_path):
    with pytest.raises(ValueError, match="2 callbacks answer the same call of cross_entropy"):
        fit(Net(), tmp_path, ls.LabelSmoothing(), Another())


class OwnLoss(nn.Module):
    """In the manner of timm: computed by hand, with an attribute and a parameter that the step reads."""

    def __init__(self):
        super().__init__()
        self.scale = 2.0
        self.margin = nn.Parameter(torch.ones((), dtype=torch.float64))

    def forward(self, prediction, label):
        return -prediction.log_softmax(1).gather(1, label.unsqueeze(1)).mean()


class UsesOwnLoss(Net):
    def __init__(self, call):
        super().__init__(OwnLoss())
        self.call = call

    def loss(self, batch):
        loss = self.call(self.criterion, self(batch[0]), batch[1])
        return self.criterion.scale * loss + 0.01 * sum(p.square().sum() for p in self.parameters())


OWN = {
    "positions": lambda loss, logits, y: loss(logits, y),
    "keywords": lambda loss, logits, y: loss(label=y, prediction=logits),
    "mixed": lambda loss, logits, y: loss(logits, label=y),
    "forward": lambda loss, logits, y: loss.forward(logits, y),
}


@pytest.mark.parametrize("way", OWN)
def test_own_loss_module_by_name(tmp_path, way):
    class Smooth(UsesOwnLoss):
        def loss(self, batch):
            self.call = lambda loss, logits, y: F.cross_entropy(logits, y, label_smoothing=EPS * self.training)
            return super().loss(batch)

    net = UsesOwnLoss(OWN[way])
    check(tmp_path, net, Smooth(None), plain_rows, target="criterion", monitor="criterion")
    assert isinstance(net.criterion, OwnLoss)
    assert "forward" not in vars(net.criterion)


def own_function(logits, label):
    return -logits.log_softmax(1).gather(1, label.unsqueeze(1)).mean()


@pytest.mark.parametrize("function", [own_function, functools.partial(own_function)])
def test_own_function_by_name(tmp_path, function):
    class Uses(Net):
        def __init__(self):
            super().__init__(nn.Identity())
            self.loss_function = function

        def loss(self, batch):
            return self.loss_function(self(batch[0]), batch[1])

    net = Uses()
    check(tmp_path, net, torch_smooths(), plain_rows, target="loss_function", monitor="loss_function")
    assert net.loss_function is function


def test_own_loss_with_more_arguments_is_refused(tmp_path):
    class Weighted(OwnLoss):
        def forward(self, prediction, label, sample_weight=None):
            return (super().forward(prediction, label) * sample_weight).mean()

    net = UsesOwnLoss(lambda loss, logits, y: loss(logits, y, sample_weight=torch.ones(8)))
    net.criterion = Weighted()
    with pytest.raises(ValueError, match=r"sample_weight=a tensor of shape \(8,\), which the loss Smoothed"):
        fit(net, tmp_path, ls.LabelSmoothing(target="criterion"))
    assert "forward" not in vars(net.criterion)


def test_own_callable_as_loss_gets_the_options_of_the_call(tmp_path):
    def loss(logits, target, eps, **options):
        return F.cross_entropy(logits, target, label_smoothing=float(eps), **options)

    options = {"weight": WEIGHT, "ignore_index": 1}
    net = Function(lambda net, logits, y: F.cross_entropy(logits, y, **options))
    fit(net, tmp_path, ls.LabelSmoothing(loss=loss, eps=EPS))
    torch.testing.assert_close(weights(net), weights_of(torch_smooths(**options), tmp_path), **CLOSE)


@pytest.mark.parametrize("optimizers", [1, 2])
def test_manual_optimisation(tmp_path, optimizers):
    class Manual(Net):
        automatic_optimization = False

        def training_step(self, batch, batch_idx):
            loss = self.loss(batch)
            self.seen.append(loss.item())
            self.manual_backward(loss)
            found = self.optimizers()
            for optimizer in found if optimizers == 2 else [found]:
                optimizer.step()
                optimizer.zero_grad()

        def configure_optimizers(self):
            made = [torch.optim.SGD([p], lr=0.1) for p in self.layer.parameters()]
            return made if optimizers == 2 else torch.optim.SGD(self.parameters(), lr=0.1)

    class Smooth(Manual):
        def loss(self, batch):
            return F.cross_entropy(self(batch[0]), batch[1], label_smoothing=EPS * self.training)

    check(tmp_path, Manual(), Smooth(), plain_rows)


def test_a_step_that_returns_a_dict(tmp_path):
    class Returns(Net):
        def training_step(self, batch, batch_idx):
            loss = super().training_step(batch, batch_idx)
            self.log_dict({"training_loss": loss, "twice": 2 * loss}, prog_bar=True)
            return {"loss": loss, "more": "text"}

        def validation_step(self, batch, batch_idx):
            super().validation_step(batch, batch_idx)
            return {"logits": self(batch[0])}

    check(tmp_path, Returns(), torch_smooths(), plain_rows)


@pytest.mark.skipif(not hasattr(F, "linear_cross_entropy"), reason="needs torch 2.13")
def test_linear_cross_entropy(tmp_path):
    def call(net, x, y, **options):
        return F.linear_cross_entropy(x, net.layer.weight, y, linear_bias=net.layer.bias, **options)

    class Fused(Net):
        def loss(self, batch):
            return call(self, *batch)

    check(tmp_path, Fused(), torch_smooths(), plain_rows)

    class Chunked(Net):
        def loss(self, batch):
            return call(self, *batch, options=nn.LinearCrossEntropyOptions())

    for callback in ls.LabelSmoothing(), ls.CalibrationMonitor():
        with pytest.raises(NotImplementedError, match="linear_cross_entropy"):
            fit(Chunked(), tmp_path, callback, max_epochs=1)


@pytest.mark.parametrize("reentrant", [True, False])
def test_a_loss_inside_activation_checkpointing_is_refused(tmp_path, reentrant):
    class Checkpointed(Net):
        def loss(self, batch):
            def inner(x):
                return self.criterion(self(x), batch[1])

            x = batch[0].clone().requires_grad_()
            return torch.utils.checkpoint.checkpoint(inner, x, use_reentrant=reentrant)

    net = Checkpointed()
    before = weights(net).clone()
    with pytest.raises(RuntimeError, match="cross_entropy is called inside of activation checkpointing"):
        fit(net, tmp_path, ls.LabelSmoothing())
    assert torch.equal(weights(net), before)
    monitor = ls.CalibrationMonitor()
    fit(net, tmp_path, monitor)
    assert monitor.results["val"]["n"] == 48


def test_the_number_of_calls_may_change(tmp_path):
    def call(net, logits, y):
        parts = 1 + (net.global_step % 3) * net.training
        return sum(F.cross_entropy(logits, y) for _ in range(parts)) / parts

    smoothing, counts = ls.LabelSmoothing(eps=EPS), []

    class Counted(Function):
        def on_train_batch_end(self, *args):
            counts.append(smoothing.num_smoothed)

    net = Counted(call)
    fit(net, tmp_path, smoothing)
    torch.testing.assert_close(weights(net), weights_of(torch_smooths(), tmp_path), **CLOSE)
    # LightningModule hooks come after those of callbacks.
    assert counts == [1, 2, 3] * 4


NEW_PATHS = [
    *itertools.product(["replaces", "joins"], ["partial", "table", "closure", "by_default"]),
    ("replaces", "imported"),
]


@pytest.mark.parametrize(("kind", "path"), NEW_PATHS)
def test_a_path_that_is_first_taken_in_the_second_epoch(tmp_path, kind, path):
    later = {
        "partial": losses_elsewhere.partial,
        "table": losses_elsewhere.table["loss"],
        "closure": losses_elsewhere.closure(),
        "by_default": losses_elsewhere.by_default,
        "imported": losses_elsewhere.imported,
    }[path]

    def call(net, logits, y):
        usual = F.cross_entropy(logits, y) if kind == "joins" or not net.current_epoch else 0
        return usual + (later(logits, y) if net.current_epoch else 0)

    def smoothed(net, x, y):
        times = 2 if kind == "joins" and net.current_epoch else 1
        return times * F.cross_entropy(net(x), y, label_smoothing=EPS)

    net = Function(call)
    fit(net, tmp_path, ls.LabelSmoothing(eps=EPS))
    torch.testing.assert_close(weights(net), weights_of(Judge(smoothed), tmp_path), **CLOSE)


def test_what_a_step_keeps_of_torch_is_torch_s_own_afterwards(tmp_path):
    """A function stored, or a file first imported, in the middle of a smoothed step."""

    class Keeps(Net):
        def loss(self, batch):
            if not hasattr(self, "kept"):
                self.kept = F.cross_entropy
            return self.kept(self(batch[0]), batch[1])

    net = Keeps()
    fit(net, tmp_path, ls.LabelSmoothing(eps=EPS))
    torch.testing.assert_close(weights(net), weights_of(torch_smooths(), tmp_path), **CLOSE)
    x, y = blobs()
    assert torch.equal(net.kept(net(x), y), F.cross_entropy(net(x), y))
    monitor = ls.CalibrationMonitor()
    t = fit(net, tmp_path, ls.LabelSmoothing(eps=EPS), monitor)
    bare = trainer(tmp_path)
    bare.validate(net, datamodule=Data(), verbose=False)
    assert t.callback_metrics["author_loss"].item() == bare.callback_metrics["author_loss"].item()
    assert monitor.results["val"]["n"] == 48


def test_what_a_step_assigns_stays(tmp_path):
    class Assigns(Net):
        def __init__(self):
            super().__init__(nn.Identity())
            self.function = F.cross_entropy

        def training_step(self, batch, batch_idx):
            loss = self.function(self(batch[0]), batch[1])
            self.function = own_function
            return loss

        def validation_step(self, batch, batch_idx):
            assert self.function is own_function

    net = Assigns()
    fit(net, tmp_path, ls.LabelSmoothing(), limit_train_batches=1, max_epochs=1)
    assert net.function is own_function


@pytest.mark.parametrize("way", ["function", "module"])
def test_override_takes_the_place_of_the_author_s_smoothing(tmp_path, way):
    def call(net, logits, y):
        options = {"label_smoothing": 0.4 * net.training}
        return nn.CrossEntropyLoss(**options)(logits, y) if way == "module" else F.cross_entropy(logits, y, **options)

    check(tmp_path, Function(call), torch_smooths(), plain_rows, override=True)
    with pytest.raises(ValueError, match=r"cross_entropy already smooths \(label_smoothing=0.4\)"):
        fit(Function(call), tmp_path, ls.LabelSmoothing())


def test_smoothing_of_the_author_in_a_loss_for_another_task_is_left_alone(tmp_path):
    class Both(Net):
        def __init__(self):
            super().__init__(nn.CrossEntropyLoss(label_smoothing=0.4))

        def loss(self, batch):
            z, y = self(batch[0]), F.one_hot(batch[1], 5).double()
            target = y * (1 - EPS) + EPS / 2 if self.training and self.smooth else y
            return self.criterion(z, batch[1]) + F.binary_cross_entropy_with_logits(z, target)

        smooth = False

    net, judge = Both(), Both()
    judge.smooth = True
    fit(net, tmp_path, ls.LabelSmoothing("bce", eps=EPS))
    torch.testing.assert_close(weights(net), weights_of(judge, tmp_path), **CLOSE)


@pytest.mark.parametrize("callback", [ls.LabelSmoothing, ls.CalibrationMonitor])
def test_a_predicate_that_selects_nothing(tmp_path, callback):
    with pytest.raises(LookupError, match=r"target selects none of the 2 losses that Heads\.\w+_step calls"):
        fit(Heads(), tmp_path, callback(target=lambda call: call.position == 2))


def test_losses_without_a_gradient(tmp_path):
    class Detached(Net):
        def loss(self, batch):
            logits = self(batch[0])
            plain = F.cross_entropy(logits.detach(), batch[1])
            return plain + (logits.sum() - logits.sum().detach())

    with pytest.raises(LookupError, match=r"no gradient comes from any of the 1 losses that Detached\.training_step"):
        fit(Detached(), tmp_path, ls.LabelSmoothing())


@pytest.mark.parametrize("skipped", [1, 12])
def test_a_step_that_skips_its_batch(tmp_path, skipped):
    class Skips(Net):
        def training_step(self, batch, batch_idx):
            self.steps = getattr(self, "steps", 0) + 1
            return None if self.steps <= skipped else super().training_step(batch, batch_idx)

    net, judge = Skips(), Skips(nn.CrossEntropyLoss(label_smoothing=EPS))
    smoothing = ls.LabelSmoothing(eps=EPS)
    fit(net, tmp_path, smoothing)
    torch.testing.assert_close(weights(net), weights_of(judge, tmp_path), **CLOSE)
    assert smoothing.num_smoothed == (skipped == 1)


@pytest.mark.parametrize("callback", [ls.LabelSmoothing, ls.CalibrationMonitor])
def test_a_named_loss_of_something_else_than_logits(tmp_path, callback):
    class Tuple(Net):
        def loss(self, batch):
            return self.criterion((self(batch[0]), 1), batch[1])

    class Takes(nn.Module):
        def forward(self, outputs, y):
            return F.cross_entropy(outputs[0], y)

    with pytest.raises(TypeError, match=r"Takes is called with a tuple and a Tensor, needed logits and target"):
        fit(Tuple(Takes()), tmp_path, callback(target="criterion"))
