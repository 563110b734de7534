"""The callback that fits a temperature on validation and measures the test data with it."""

import copy
import io
import math
import pickle
import warnings

import pytest
import torch
from lightning.pytorch.callbacks import ModelCheckpoint
from nets import Data, LogProbNet, Net, Silent, trainer
from scipy.optimize import minimize_scalar
from torch import nn
from torch.nn import functional as F
from torch.utils.data import DataLoader, TensorDataset

import ls_lightning as ls
from ls_lightning.callbacks.logit_store import LogitStore
from ls_lightning.callbacks.scaled_logits import ScaledLogits
from ls_lightning.functional.outputs import Spec


def temperature_of(z, y):
    """scipy's answer."""
    nll = lambda u: F.cross_entropy(z * math.exp(u), y).item()  # noqa: E731
    return math.exp(-minimize_scalar(nll, bounds=(-4.5, 4.5), method="bounded", options={"xatol": 1e-11}).x)


class Split(Data):
    """Validation and test samples that differ."""

    def __init__(self, n_val=40, n_test=60, **kwargs):
        super().__init__(n=n_val + n_test, **kwargs)
        x, y = self.set.tensors
        self.val_set, self.test_set = TensorDataset(x[:n_val], y[:n_val]), TensorDataset(x[n_val:], y[n_val:])

    def val_dataloader(self):
        return DataLoader(self.val_set, self.batch_size)

    def test_dataloader(self):
        return DataLoader(self.test_set, self.batch_size)


def logits(net, tensors):
    with torch.no_grad():
        return net(tensors[0]), tensors[1]


def knowing(net, scale=3.0):
    """The module with weights that tell the classes of the data, too surely."""
    with torch.no_grad():
        net.layer.weight.copy_(scale * torch.eye(*net.layer.weight.shape))
        net.layer.bias.fill_(-0.75 * scale if net.layer.out_features == 1 else 0)
    return net


def plain_values(z, y):
    """The same metrics of these logits, by a collection of its own."""
    metrics = ls.metrics.default_metrics()
    metrics.update(z, y)
    return {name: value.item() for name, value in metrics.compute().items()}


@pytest.mark.parametrize("make", [Net, LogProbNet])
@pytest.mark.parametrize("batch_size", [8, 7, 100])
@pytest.mark.parametrize("first", ["monitor", "scaling"])
def test_fit_validate_test(tmp_path, make, batch_size, first):
    monitor, scaling = ls.CalibrationMonitor(), ls.TemperatureScaling()
    callbacks = [monitor, scaling] if first == "monitor" else [scaling, monitor]
    net, data = make(), Split(batch_size=batch_size)
    t = trainer(tmp_path, ls.LabelSmoothing(eps=0.1), *callbacks)
    t.fit(net, datamodule=data)
    z, y = logits(net, data.val_set.tensors)
    assert scaling.temperature == pytest.approx(temperature_of(z, y), rel=1e-6)
    assert t.callback_metrics["ls/temperature"].item() == pytest.approx(scaling.temperature, rel=1e-6)
    wanted = F.cross_entropy(z / scaling.temperature, y).item()
    assert t.callback_metrics["val_scaled/nll"].item() == pytest.approx(wanted, rel=1e-6)
    fitted = scaling.fit
    t.test(net, datamodule=data, verbose=False)
    plain, scaled = monitor.results["test"], scaling.results["test"]
    z, y = logits(net, data.test_set.tensors)
    module = scaling.module()
    assert scaled == {**pytest.approx(plain_values(module(z), y), abs=1e-12).expected, "n": 60}
    assert plain == {**pytest.approx(plain_values(z, y), abs=1e-12).expected, "n": 60}
    assert scaled["acc"] == plain["acc"]
    assert scaled["ece"] != plain["ece"]
    assert t.callback_metrics["test_scaled/ece"].item() == pytest.approx(scaled["ece"], rel=1e-6)
    assert t.callback_metrics["test/ece"].item() == pytest.approx(plain["ece"], rel=1e-6)
    t.validate(net, datamodule=data, verbose=False)
    assert scaling.fit == fitted


def test_on_its_own(tmp_path):
    scaling, net, data = ls.TemperatureScaling(), Net(), Split()
    t = trainer(tmp_path, scaling)
    t.validate(net, datamodule=data, verbose=False)
    t.test(net, datamodule=data, verbose=False)
    assert scaling.temperature == pytest.approx(temperature_of(*logits(net, data.val_set.tensors)), rel=1e-6)
    assert scaling.results["test"]["n"] == 60


def test_any_batch_size(tmp_path):
    found = []
    for batch_size in (1, 7, 40):
        scaling = ls.TemperatureScaling()
        trainer(tmp_path, scaling).validate(Net(), datamodule=Split(batch_size=batch_size), verbose=False)
        found.append(scaling.fit)
    for fit in found:  # the logits themselves differ in the last bits
        assert fit.temperature == pytest.approx(found[0].temperature, rel=1e-10)


@pytest.mark.parametrize("labels", [1, 5])
@pytest.mark.parametrize("loss", [nn.BCEWithLogitsLoss, nn.BCELoss])
def test_binary_and_multilabel(tmp_path, labels, loss):
    def target(y):
        hot = F.one_hot(y, 5).double()
        return hot[:, 0] if labels == 1 else hot

    class Binary(Net):
        def forward(self, x):
            z = self.layer(x).squeeze(-1)
            return z.sigmoid() if loss is nn.BCELoss else z

    scaling, data = ls.TemperatureScaling(), Split(target=target)
    net = knowing(Binary(loss(), classes=labels))
    t = trainer(tmp_path, scaling)
    t.validate(net, datamodule=data, verbose=False)
    t.test(net, datamodule=data, verbose=False)
    with torch.no_grad():
        x, y = data.val_set.tensors
        z = net.layer(x).squeeze(-1).flatten()
        pairs, y = torch.stack([torch.zeros_like(z), z], 1), y.flatten().long()
        assert scaling.temperature == pytest.approx(temperature_of(pairs, y), rel=1e-6)
        x, y = data.test_set.tensors
        z = net.layer(x).squeeze(-1) / scaling.temperature
    wanted = F.binary_cross_entropy_with_logits(z, y).item()
    assert scaling.results["test"]["nll"] == pytest.approx(wanted, abs=1e-6)


class Dense(Net):
    def __init__(self):
        super().__init__(nn.CrossEntropyLoss(ignore_index=255))

    def forward(self, x):
        return self.layer(x.movedim(1, -1)).movedim(-1, 1)


def dense_data(n=30):
    generator = torch.Generator().manual_seed(1)
    y = torch.randint(5, (n, 4, 3), generator=generator)
    y[torch.rand(y.shape, generator=generator) < 0.3] = 255
    x = torch.randn(n, 6, 4, 3, dtype=torch.float64, generator=generator)
    return TensorDataset(x + 1.5 * F.one_hot(y % 50, 6).movedim(-1, 1), y)


def test_dense_with_ignored_pixels(tmp_path):
    scaling, net, data = ls.TemperatureScaling(), knowing(Dense()), dense_data()
    t = trainer(tmp_path, scaling)
    t.validate(net, DataLoader(data, 4), verbose=False)
    t.test(net, DataLoader(data, 4), verbose=False)
    z, y = logits(net, data.tensors)
    kept = (y != 255).flatten()
    z, y = z.movedim(1, -1).reshape(-1, 5)[kept], y.flatten()[kept]
    assert scaling.fit.n == len(y)
    assert scaling.temperature == pytest.approx(temperature_of(z, y), rel=1e-6)
    assert scaling.results["test"]["n"] == len(y)


def test_too_many_pixels_are_sampled_and_said(tmp_path):
    found = []
    for batch_size, seed, offload in ((4, 0, False), (30, 0, True), (7, 1, False)):
        scaling = ls.TemperatureScaling(max_values=600, seed=seed, offload=offload)
        with pytest.warns(UserWarning, match=r"fits to 0\.25 of the validation rows"):
            trainer(tmp_path, scaling).validate(knowing(Dense()), DataLoader(dense_data(), batch_size), verbose=False)
        found.append(scaling.summary())
    assert found[0] == found[1] != found[2]
    assert found[0]["share"] == 0.25
    assert 30 < found[0]["n"] <= 120 * 0.9


def test_masked_classes(tmp_path):
    class Masked(Net):
        def forward(self, x):
            return torch.cat([self.layer(x), torch.full((len(x), 2), -torch.inf, dtype=x.dtype)], 1)

    scaling, net, data = ls.TemperatureScaling(), Masked(), Split()
    t = trainer(tmp_path, scaling)
    t.validate(net, datamodule=data, verbose=False)
    t.test(net, datamodule=data, verbose=False)
    z, y = logits(net, data.val_set.tensors)
    assert scaling.temperature == pytest.approx(temperature_of(z[:, :5], y), rel=1e-6)
    assert math.isfinite(scaling.results["test"]["nll"])


def test_a_module_that_calls_no_loss_in_validation(tmp_path):
    def read(module, batch, outputs):
        return module(batch[0]), batch[1]

    wanted = temperature_of(*logits(Silent(), Split().val_set.tensors))
    alone = ls.TemperatureScaling(read=read)
    beside = ls.TemperatureScaling()
    for callbacks in ([alone], [ls.CalibrationMonitor(read=read), beside]):
        trainer(tmp_path, *callbacks).validate(Silent(), datamodule=Split(), verbose=False)
    assert alone.temperature == beside.temperature == pytest.approx(wanted, rel=1e-6)
    with pytest.raises(LookupError, match=r"TemperatureScaling\(read=lambda"):
        trainer(tmp_path, ls.TemperatureScaling()).validate(Silent(), datamodule=Split(), verbose=False)
    lenient = ls.TemperatureScaling(strict=False)
    with pytest.warns(UserWarning, match="TemperatureScaling measures nothing"):
        trainer(tmp_path, lenient).validate(Silent(), datamodule=Split(), verbose=False)
    assert lenient.temperature is None


def test_what_is_read_twice_is_read_once(tmp_path):
    seen = []

    def read(module, batch, outputs):
        seen.append(len(batch[1]))
        return module(batch[0]), batch[1]

    callbacks = ls.CalibrationMonitor(read=read), ls.TemperatureScaling()
    trainer(tmp_path, *callbacks).validate(Silent(), datamodule=Split(), verbose=False)
    assert sum(seen) == 40


def test_several_loaders(tmp_path):
    class Two(Net):
        def validation_step(self, batch, batch_idx, dataloader_idx):
            self.loss(batch)

        test_step = validation_step

    sets = [Data(20).set, Data(30).set]
    for index in (0, 1):
        scaling, net = ls.TemperatureScaling(dataloader_idx=index), Two()
        t = trainer(tmp_path, scaling)
        t.validate(net, [DataLoader(data, 8) for data in sets], verbose=False)
        t.test(net, [DataLoader(data, 8) for data in sets], verbose=False)
        assert scaling.temperature == pytest.approx(temperature_of(*logits(net, sets[index].tensors)), rel=1e-6)
        assert {key: values["n"] for key, values in scaling.results.items()} == {
            "test/dataloader_idx_0": 20,
            "test/dataloader_idx_1": 30,
        }
        assert "test_scaled/ece/dataloader_idx_1" in t.callback_metrics


def test_every_checkpoint_has_the_temperature_of_its_weights(tmp_path):
    scaling, data = ls.TemperatureScaling(), Split()
    checkpoint = ModelCheckpoint(tmp_path, filename="{epoch}", save_top_k=-1)
    t = trainer(tmp_path, scaling, checkpoint, max_epochs=3, enable_checkpointing=True)
    t.fit(Net(), datamodule=data)
    found = {}
    for path in sorted(tmp_path.glob("*.ckpt")):
        state = torch.load(path, weights_only=True)
        net = Net()
        net.load_state_dict(state["state_dict"])
        found[path] = state["callbacks"]["TemperatureScaling"]["T"]
        assert found[path] == pytest.approx(temperature_of(*logits(net, data.val_set.tensors)), rel=1e-6)
    assert len(set(found.values())) == 3
    for path, temperature in found.items():  # in a new process, as it were
        fresh = ls.TemperatureScaling()
        trainer(tmp_path, fresh).test(Net(), datamodule=data, ckpt_path=path, verbose=False)
        assert fresh.temperature == temperature
        assert fresh.results["test"]["n"] == 60
    t.test(Net(), datamodule=data, ckpt_path=min(found), verbose=False)
    assert scaling.temperature == found[min(found)]


def test_checkpoints_by_the_nll_that_is_left(tmp_path):
    checkpoint = ModelCheckpoint(tmp_path, monitor="val_scaled/nll")
    t = trainer(tmp_path, ls.TemperatureScaling(), checkpoint, enable_checkpointing=True)
    t.fit(Net(), datamodule=Split())
    assert torch.isfinite(checkpoint.best_model_score)


def test_resuming(tmp_path):
    data, kwargs = Split(), {"enable_checkpointing": True}
    t = trainer(tmp_path, ls.TemperatureScaling(), ModelCheckpoint(tmp_path, filename="last"), max_epochs=1, **kwargs)
    t.fit(Net(), datamodule=data)
    resumed, whole = ls.TemperatureScaling(), ls.TemperatureScaling()
    trainer(tmp_path, resumed, max_epochs=3).fit(Net(), datamodule=data, ckpt_path=tmp_path / "last.ckpt")
    trainer(tmp_path, whole, max_epochs=3).fit(Net(), datamodule=data)
    assert resumed.fit == whole.fit


def test_a_test_without_a_temperature_says_so(tmp_path):
    scaling = ls.TemperatureScaling()
    with pytest.warns(UserWarning, match="has no temperature, so nothing is scaled. Validate before testing"):
        trainer(tmp_path, ls.CalibrationMonitor(), scaling).test(Net(), datamodule=Split(), verbose=False)
    assert scaling.results == {}
    assert scaling.summary() is None
    with pytest.raises(RuntimeError, match="no temperature was fitted yet"):
        scaling.module()


def test_a_checkpoint_without_a_temperature_has_none(tmp_path):
    t = trainer(tmp_path, ModelCheckpoint(tmp_path, filename="theirs"), enable_checkpointing=True)
    t.fit(Net(), datamodule=Split())
    scaling = ls.TemperatureScaling()
    t = trainer(tmp_path, scaling)
    t.validate(Net(), datamodule=Split(), verbose=False)
    with pytest.warns(UserWarning, match="has no temperature"):
        t.test(Net(), datamodule=Split(), ckpt_path=tmp_path / "theirs.ckpt", verbose=False)


def test_a_checkpoint_of_before_that_was_validated_has_one(tmp_path):
    """Saved without this callback, validated and then tested."""
    t = trainer(tmp_path, ModelCheckpoint(tmp_path, filename="theirs"), enable_checkpointing=True)
    t.fit(Net(), datamodule=Split())
    net, scaling, path = Net(), ls.TemperatureScaling(), tmp_path / "theirs.ckpt"
    t = trainer(tmp_path, scaling)
    for ckpt_path in (path, None):
        t.validate(net, datamodule=Split(), ckpt_path=path, verbose=False)
        with warnings.catch_warnings():
            warnings.filterwarnings("error", message=".*temperature|.*fitted at")
            t.test(net, datamodule=Split(), ckpt_path=ckpt_path, verbose=False)
        assert scaling.temperature == pytest.approx(temperature_of(*logits(net, Split().val_set.tensors)), rel=1e-6)
        assert scaling.results["test"]["n"] == 60


def test_it_travels_to_other_processes():
    monitor, scaling = pickle.loads(pickle.dumps([ls.CalibrationMonitor(), ls.TemperatureScaling(bounds=(0.1, 2))]))
    assert scaling.temperature is None
    assert monitor.results == {}


def test_a_temperature_of_earlier_weights_says_so(tmp_path):
    scaling = ls.TemperatureScaling()
    t = trainer(tmp_path, scaling, max_epochs=3, check_val_every_n_epoch=2)
    t.fit(Net(), datamodule=Split())
    with pytest.warns(UserWarning, match=r"was fitted at step 26, and the weights are of step 39"):
        t.test(Net(), datamodule=Split(), verbose=False)


def test_boundaries(tmp_path):
    class Sure(Net):
        def forward(self, x):
            return 0.3 * F.one_hot(x[:, 0].long(), 5).double()

    y = torch.arange(20) % 5
    right = TensorDataset(y[:, None].double(), y)
    wrong = TensorDataset(((y + 1) % 5)[:, None].double(), y)
    for data, words in ((right, "every validation sample is classified right"), (wrong, "do not tell the labels")):
        scaling = ls.TemperatureScaling()
        with pytest.warns(UserWarning, match=words):
            trainer(tmp_path, scaling).validate(Sure(), DataLoader(data, 8), verbose=False)
        assert scaling.summary()["at_boundary"]
    with warnings.catch_warnings(record=True) as shown:  # by Python's usual filter, which shows equal words once
        warnings.resetwarnings()
        warnings.simplefilter("default")
        for _ in range(2):  # the jobs of a sweep in one process
            trainer(tmp_path, ls.TemperatureScaling()).validate(Sure(), DataLoader(wrong, 8), verbose=False)
    assert len([one for one in shown if "Do not trust it" in str(one.message)]) == 2
    t = trainer(tmp_path, ls.TemperatureScaling(bounds=(0.5, 2)))
    with pytest.warns(UserWarning, match=r"lower end of bounds=\(0\.5, 2\.0\)"):
        t.validate(Sure(), DataLoader(right, 8), verbose=False)


@pytest.mark.parametrize("n", [1, 2])
def test_few_samples(tmp_path, n):
    scaling = ls.TemperatureScaling()
    t = trainer(tmp_path, scaling)
    t.validate(Net(), datamodule=Split(n_val=n), verbose=False)
    t.test(Net(), datamodule=Split(n_val=n), verbose=False)
    assert scaling.fit.n == n
    assert 0.01 <= scaling.temperature <= 100


def test_two_classes(tmp_path):
    def target(y):
        return y % 2

    scaling, net, data = ls.TemperatureScaling(), Net(classes=2), Split(target=target)
    trainer(tmp_path, scaling).validate(net, datamodule=data, verbose=False)
    assert scaling.temperature == pytest.approx(temperature_of(*logits(net, data.val_set.tensors)), rel=1e-6)


def test_noisy_validation_says_so(tmp_path):
    data = Split()
    data.noisy_validation = True
    with pytest.warns(UserWarning, match="validation labels that are noisy"):
        trainer(tmp_path, ls.TemperatureScaling()).validate(Net(), datamodule=data, verbose=False)


def test_a_diverged_model_has_no_temperature_and_goes_on(tmp_path):
    class Diverged(Net):
        def forward(self, x):
            return super().forward(x) * torch.nan

    scaling = ls.TemperatureScaling()
    t = trainer(tmp_path, scaling)
    with pytest.warns(UserWarning, match="TemperatureScaling fitted nothing: 40 samples are no numbers"):
        t.validate(Diverged(), datamodule=Split(), verbose=False)
    assert scaling.temperature is None
    assert math.isnan(t.callback_metrics["val_scaled/nll"])


def test_sanity_check_fits_nothing(tmp_path):
    class Stop(Net):
        def on_train_start(self):
            raise RuntimeError("stop")

    scaling = ls.TemperatureScaling()
    with pytest.raises(RuntimeError, match="stop"):
        trainer(tmp_path, scaling, num_sanity_val_steps=2).fit(Stop(), datamodule=Split())
    assert scaling.temperature is None


def test_half_precision(tmp_path):
    scaling, monitor = ls.TemperatureScaling(), ls.CalibrationMonitor()
    net = knowing(Net(dtype=torch.float32))
    data = Split(dtype=torch.float32)
    t = trainer(tmp_path, monitor, scaling, precision="bf16-true")
    t.validate(net, datamodule=data, verbose=False)
    t.test(net, datamodule=data, verbose=False)
    x, y = data.val_set.tensors
    z, _ = logits(net.bfloat16(), (x.bfloat16(), y))
    assert scaling.temperature == pytest.approx(temperature_of(z.double(), y), rel=1e-6)
    assert scaling.results["test"]["n"] == 60


@pytest.mark.parametrize("bounds", [(0, 1), (2, 1), (1,), (1, math.nan)])
def test_wrong_bounds(bounds):
    with pytest.raises(ValueError, match="bounds must be two temperatures"):
        ls.TemperatureScaling(bounds=bounds)


@pytest.mark.parametrize("max_values", [0, -1, 1.5, True])
def test_wrong_max_values(max_values):
    with pytest.raises(ValueError, match="max_values must be an integer larger than 0"):
        ls.TemperatureScaling(max_values=max_values)


def test_the_module(tmp_path):
    net, scaler = nn.Linear(4, 3), ScaledLogits(1.7)
    scaled = nn.Sequential(net, scaler)
    x = torch.randn(5, 4)
    torch.testing.assert_close(scaled(x), net(x) / 1.7)
    exported = torch.export.export(scaled, (x,)).module()
    torch.testing.assert_close(exported(x), scaled(x))
    torch.testing.assert_close(torch.jit.trace(scaled, x)(x), scaled(x))
    other = nn.Sequential(nn.Linear(4, 3), ScaledLogits(1.0))
    other.load_state_dict(scaled.state_dict())
    torch.testing.assert_close(other(x), scaled(x))
    for copied in (copy.deepcopy(scaled), pickle.loads(pickle.dumps(scaled))):
        torch.testing.assert_close(copied(x), scaled(x))
    half = copy.deepcopy(scaled).bfloat16()
    assert half[1].temperature.dtype == torch.float32
    assert half(x.bfloat16()).dtype == torch.bfloat16
    buffer = io.BytesIO()
    torch.save(scaled.state_dict(), buffer)
    for wrong in (0.0, -1.0, math.nan, math.inf):
        with pytest.raises(ValueError, match="temperature must be above 0"):
            ScaledLogits(wrong)


def kept(store):
    rows = store.rows(lambda sums: sums)
    return torch.cat([scores for scores, _ in rows]) if rows else torch.zeros(0, 1)


@pytest.mark.parametrize("max_values", [3000, 900, 100, 10])
def test_the_same_rows_are_kept_for_any_batches_and_ranks(max_values):
    z = torch.arange(3000.0).view(1000, 3)
    y = torch.zeros(1000, dtype=torch.long)
    found = []
    for size in (1000, 64, 7):
        store = LogitStore(Spec(), max_values)
        for part, labels in zip(z.split(size), y.split(size), strict=True):
            store.add(part, labels, len(part))
        found.append((store.share, kept(store).sort(0).values))
        assert found[-1][1].numel() <= max_values
        assert store.share == found[0][0]
        assert torch.equal(found[-1][1], found[0][1])
    stores = [LogitStore(Spec(), max_values, rank=rank, world_size=3) for rank in range(3)]
    for rank, store in enumerate(stores):
        for part in z[rank::3].split(50):
            store.add(part, y[: len(part)], len(part))
    said = []
    for store in stores:
        store.rows(lambda sums: said.append(sums) or sums)
    total = sum(said)
    rows = torch.cat([part for store in stores for part, _ in store.rows(lambda sums: total.clone())])
    assert torch.equal(rows.sort(0).values, found[0][1])
    assert {store.share for store in stores} == {found[0][0]}
    if max_values > 100:  # about as many as there may be
        assert found[0][1].numel() > max_values / 3


def test_kept_logits_are_not_the_callers():
    z = torch.ones(4, 3, requires_grad=True)
    store = LogitStore(Spec(), 100)
    store.add(z.detach(), torch.zeros(4, dtype=torch.long), 4)
    with torch.no_grad():
        z.zero_()
    assert kept(store).eq(1).all()
    assert not kept(store).requires_grad


class Sigmoid(Net):
    """Ends in probabilities; ``saturated`` rounds them as half precision does."""

    saturated = False

    def forward(self, x):
        p = self.layer(x).squeeze(1).sigmoid()
        return (p > 0.5).to(p) if self.saturated else p

    def loss(self, batch):
        return F.binary_cross_entropy(self(batch[0]), batch[1])


def sigmoid(tmp_path, saturated):
    torch.manual_seed(0)
    data = Split(target=lambda y: (y == 0).double())
    net = knowing(Sigmoid(classes=1))
    net.saturated = saturated
    scaling = ls.TemperatureScaling()
    trainer(tmp_path, scaling).validate(net, datamodule=data)
    return net, data, scaling


def test_a_network_that_ends_in_probabilities(tmp_path):
    _net, _data, scaling = sigmoid(tmp_path, saturated=False)
    module = scaling.module()
    p = torch.tensor([0.2, 0.5, 0.9])
    torch.testing.assert_close(module(p), (p.logit() / scaling.temperature).sigmoid())
    restored = ls.TemperatureScaling()
    restored.load_state_dict(scaling.state_dict())
    assert restored.module().input == "probs"


def test_saturated_probabilities_are_said(tmp_path):
    with pytest.warns(UserWarning, match="label has probability 0"):
        sigmoid(tmp_path, saturated=True)


@pytest.mark.parametrize("index", [-1, "a", None, True])
def test_wrong_dataloader_idx(index):
    with pytest.raises(ValueError, match="dataloader_idx must be an integer, 0 or larger"):
        ls.TemperatureScaling(dataloader_idx=index)


def test_a_loader_that_is_not_there(tmp_path):
    with pytest.raises(ValueError, match="one of the 1 validation loaders"):
        trainer(tmp_path, ls.TemperatureScaling(dataloader_idx=1)).validate(Net(), datamodule=Split())
