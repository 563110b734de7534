"""The data modules: splits, noise, standardisation, loaders, files, one clear line for whatever is wrong."""

import math
import random
import re
import sys
from pathlib import Path

import lightning as L
import numpy as np
import pytest
import torch
from hydra.utils import instantiate
from hypothesis import given, settings
from hypothesis import strategies as st
from omegaconf import OmegaConf
from PIL import Image
from sklearn.datasets import load_breast_cancer, load_digits
from sklearn.preprocessing import StandardScaler
from torch import nn
from torch.utils.data import DataLoader, DistributedSampler, TensorDataset

import ls_lightning
from ls_lightning.zoo.data_base import LoaderOptions
from ls_lightning.zoo.data_image_folder import ImageFolderData
from ls_lightning.zoo.data_npz import NpzData
from ls_lightning.zoo.data_sklearn import BreastCancerData, DigitsData
from ls_lightning.zoo.data_splits import flip_labels, generator, split_indices, stratified_cut
from ls_lightning.zoo.image_files import crop_and_flip

CONF = Path(ls_lightning.__file__).parent.parent / "conf"
BUNDLED = [DigitsData, BreastCancerData]
SPLITS = ("train_set", "val_set", "test_set")


def ready(data):
    data.setup("fit")
    return data


def tensors(dataset):
    """All inputs and targets of a data set, sample by sample."""
    pairs = [dataset[index] for index in range(len(dataset))]
    return torch.stack([x for x, _ in pairs]), torch.stack([y for _, y in pairs])


def equal(one, other):
    return all(torch.equal(a, b) for a, b in zip(one, other, strict=True))


# Splits and noise, as functions


labels_of_classes = st.lists(st.integers(0, 5), min_size=1, max_size=80).map(torch.tensor)
shares = st.floats(0, 0.95)
seeds = st.integers(0, 2**30)


@settings(deadline=None)
@given(labels_of_classes, shares, seeds)
def test_stratified_cut_is_a_partition_with_the_share_of_each_class(labels, share, seed):
    rest, part = stratified_cut(labels, share, torch.Generator().manual_seed(seed))
    assert sorted([*rest.tolist(), *part.tolist()]) == list(range(len(labels)))
    for indices in (rest, part):
        assert indices.tolist() == sorted(indices.tolist())
    spared = 0
    for number in labels.unique():
        count, gone = int((labels == number).sum()), int((labels[part] == number).sum())
        assert gone < count
        spared += int(count * share) + 1 == count  # where rounding up would take the last sample
        assert abs(gone - count * share) < 1 + 1e-9
    assert round(len(labels) * share) - spared <= len(part) <= round(len(labels) * share)


@settings(deadline=None)
@given(labels_of_classes, shares, shares, seeds)
def test_flipping_changes_exactly_the_share_and_is_nested(labels, share, more, seed):
    few, many = sorted((share, more))
    noisy, noisier = (flip_labels(labels, part, 6, seed) for part in (few, many))
    flipped = noisy != labels
    assert int(flipped.sum()) == round(few * len(labels))
    assert noisy.min() >= 0
    assert noisy.max() <= 5
    assert torch.equal(noisy[flipped], noisier[flipped])


def test_flips_are_uniform_over_samples_and_over_the_other_classes():
    labels = torch.arange(4).repeat(10_000)
    noisy = flip_labels(labels, 0.6, 4, seed=1)
    confusion = torch.zeros(4, 4).index_put_((labels, noisy), torch.ones(()), accumulate=True) / 10_000
    expected = torch.full((4, 4), 0.2) + 0.2 * torch.eye(4)
    torch.testing.assert_close(confusion, expected, rtol=0, atol=0.02)


def test_splits_are_random_within_a_class():
    """Each sample is in the test split about equally often over the seeds."""
    labels = torch.arange(2).repeat(10)
    times = torch.zeros(20)
    for seed in range(2000):
        times[split_indices(labels, 0.2, 0.3, seed).test] += 1
    torch.testing.assert_close(times / 2000, torch.full((20,), 0.3), rtol=0, atol=0.05)


def test_the_test_split_does_not_depend_on_the_validation_fraction():
    labels = torch.arange(5).repeat(40)
    small, large = (split_indices(labels, fraction, 0.25, 3) for fraction in (0.1, 0.4))
    assert torch.equal(small.test, large.test)
    assert (len(small.val), len(large.val)) == (20, 80)


def test_generators_differ_between_purposes_and_seeds():
    draws = {
        tuple(torch.randint(1000, (3,), generator=generator(seed, stream)).tolist())
        for seed in range(20)
        for stream in ("test", "val", "noise", "statistics")
    }
    assert len(draws) == 80


# The bundled data


@pytest.mark.parametrize(
    ("cls", "facts"),
    [
        (DigitsData, ("multiclass", 10, 10, (1, 8, 8), torch.int64)),
        (BreastCancerData, ("binary", 2, 1, (30,), torch.float32)),
    ],
)
def test_facts_of_bundled_data(cls, facts):
    data = ready(cls())
    x, y = next(iter(data.val_dataloader()))
    assert (data.task, data.num_classes, data.num_outputs, data.input_shape, y.dtype) == facts
    assert x.dtype == torch.float32
    assert x.shape[1:] == data.input_shape
    assert y.shape == (len(x),)


@pytest.mark.parametrize(("cls", "load"), [(DigitsData, load_digits), (BreastCancerData, load_breast_cancer)])
def test_every_sample_is_in_one_split_standardised_by_the_training_split(cls, load):
    """scikit-learn's arrays and scaler as the judges."""
    source, data = load(), ready(cls())
    x, y = (torch.cat(parts) for parts in zip(*(tensors(getattr(data, name)) for name in SPLITS), strict=True))
    restored = (x * data.train_set.std + data.train_set.mean).flatten(1).double()
    distance, row = torch.cdist(restored, torch.from_numpy(source.data)).min(1)
    assert distance.max() < 1e-2
    assert sorted(row.tolist()) == list(range(len(source.data)))
    assert np.array_equal(y.numpy(), source.target[row])
    columns = source.data[row].reshape(len(x), -1, 1 if cls is DigitsData else 30)
    scaler = StandardScaler().fit(columns[: len(data.train_set)].reshape(-1, columns.shape[2]))
    expected = scaler.transform(columns.reshape(-1, columns.shape[2])).reshape(x.shape)
    np.testing.assert_allclose(x.numpy(), expected, atol=2e-5)


@pytest.mark.parametrize("cls", BUNDLED)
def test_sizes_and_class_shares_of_the_splits(cls):
    data = ready(cls(val_fraction=0.1, test_fraction=0.25))
    targets = [tensors(getattr(data, name))[1].long() for name in SPLITS]
    everything = torch.cat(targets)
    for target, fraction in zip(targets, (0.65, 0.1, 0.25), strict=True):
        assert abs(len(target) - fraction * len(everything)) <= 1
        ideal = everything.bincount() * fraction
        assert ((target.bincount() - ideal).abs() < 1.5).all()


@pytest.mark.parametrize("cls", BUNDLED)
def test_splits_and_noise_depend_on_split_seed_alone(cls):
    def snapshot(seed, training_seed):
        torch.manual_seed(training_seed)
        np.random.seed(training_seed)
        random.seed(training_seed)
        data = ready(cls(split_seed=seed, label_noise=0.2))
        return [part for name in SPLITS for part in tensors(getattr(data, name))]

    first = snapshot(0, 1)
    assert equal(first, snapshot(0, 2))
    other = snapshot(1, 1)
    assert not any(torch.equal(a, b) for a, b in zip(first, other, strict=True))


@pytest.mark.parametrize("cls", BUNDLED)
def test_global_generators_are_untouched(cls):
    before = torch.get_rng_state(), str(np.random.get_state()), random.getstate()
    ready(cls(label_noise=0.3))
    assert torch.equal(before[0], torch.get_rng_state())
    assert before[1:] == (str(np.random.get_state()), random.getstate())


@pytest.mark.parametrize("noise", [0.0, 0.1, 0.4, 0.99])
@pytest.mark.parametrize("cls", BUNDLED)
def test_noise_in_validation_flips_its_labels_and_nothing_else(cls, noise):
    clean, noisy = ready(cls()), ready(cls(val_label_noise=noise))
    (x, y), (x_clean, y_clean) = tensors(noisy.val_set), tensors(clean.val_set)
    assert int((y != y_clean).sum()) == round(noise * len(y))
    assert torch.equal(x, x_clean)
    for name in ("train_set", "test_set"):
        assert equal(tensors(getattr(noisy, name)), tensors(getattr(clean, name)))


@pytest.mark.parametrize("split_seed", [0, 1])
def test_noise_in_the_inputs_of_digits(split_seed):
    clean, noisy = (ready(DigitsData(split_seed=split_seed, input_noise=sd)) for sd in (0.0, 0.5))
    added = []
    for name in SPLITS:
        assert torch.equal(getattr(noisy, name).target, getattr(clean, name).target)
        added.append((getattr(noisy, name).x - getattr(clean, name).x).flatten() / 16)
    noise = torch.cat(added)
    assert noise.std().item() == pytest.approx(0.5, rel=0.02)
    assert abs(noise.mean().item()) < 0.01
    assert equal(tensors(noisy.train_set), tensors(ready(DigitsData(split_seed=split_seed, input_noise=0.5)).train_set))


@pytest.mark.parametrize("sd", [-1, math.nan, math.inf, "0.5", True])
def test_refuses_other_noise_in_the_inputs(sd):
    with pytest.raises(ValueError, match="input_noise must be a number of at least 0"):
        DigitsData(input_noise=sd)


@pytest.mark.parametrize("noise", [0.0, 0.1, 0.4, 0.99])
@pytest.mark.parametrize("cls", BUNDLED)
def test_noise_flips_the_share_of_training_labels_and_nothing_else(cls, noise):
    clean, noisy = ready(cls()), ready(cls(label_noise=noise))
    flipped = noisy.train_labels != noisy.train_labels_clean
    assert int(flipped.sum()) == round(noise * len(flipped))
    assert torch.equal(noisy.train_labels_clean, clean.train_labels)
    x, y = tensors(noisy.train_set)
    assert torch.equal(y.long(), noisy.train_labels)
    assert torch.equal(x, tensors(clean.train_set)[0])
    for name in ("val_set", "test_set"):
        assert equal(tensors(getattr(noisy, name)), tensors(getattr(clean, name)))


def test_setup_loads_once():
    data = ready(DigitsData())
    first = data.train_set
    data.setup("test")
    assert data.train_set is first


# Loaders


@pytest.mark.parametrize("workers", [0, 2])
@pytest.mark.parametrize("cls", BUNDLED)
def test_batches_equal_those_of_a_tensor_dataset(cls, workers):
    data = ready(cls(batch_size=50, eval_batch_size=70, num_workers=workers))
    for name, size, shuffle in (("train", 50, True), ("val", 70, False), ("test", 70, False)):
        plain = DataLoader(TensorDataset(*tensors(getattr(data, f"{name}_set"))), size, shuffle=shuffle)
        torch.manual_seed(5)
        ours = list(getattr(data, f"{name}_dataloader")())
        torch.manual_seed(5)
        theirs = list(plain)
        assert len(ours) == len(theirs)
        assert all(equal(a, b) for a, b in zip(ours, theirs, strict=True))


def test_training_order_follows_the_global_seed_and_changes_each_epoch():
    loader = ready(DigitsData()).train_dataloader()

    def epoch():
        return torch.cat([y for _, y in loader])

    torch.manual_seed(1)
    first, second = epoch(), epoch()
    assert not torch.equal(first, second)
    torch.manual_seed(1)
    assert torch.equal(first, epoch())


@pytest.mark.parametrize("ranks", [2, 3])
def test_a_distributed_sampler_gives_every_sample_to_some_rank(ranks):
    data = ready(DigitsData())
    loader = data.val_dataloader()
    seen = []
    for rank in range(ranks):
        sampler = DistributedSampler(loader.dataset, ranks, rank, shuffle=False)
        parts = DataLoader(loader.dataset, 32, sampler=sampler, collate_fn=loader.collate_fn)
        seen += [tuple(row) for x, _ in parts for row in x.flatten(1).tolist()]
    everything = tensors(data.val_set)[0].flatten(1)
    assert set(seen) == {tuple(row) for row in everything.tolist()}
    assert len(seen) - len(everything) < ranks


class Recorder(L.LightningModule):
    """Writes down what each rank is given."""

    def __init__(self, folder):
        super().__init__()
        self.folder, self.layer = folder, nn.Linear(30, 1)
        self.seen = {"train": [], "val": []}

    def training_step(self, batch, batch_idx):
        self.seen["train"].append(batch[0])
        return self.layer(batch[0]).mean()

    def validation_step(self, batch, batch_idx):
        self.seen["val"].append(batch[0])

    def on_fit_end(self):
        torch.save({k: torch.cat(v) for k, v in self.seen.items()}, f"{self.folder}/{self.global_rank}.pt")

    def configure_optimizers(self):
        return torch.optim.SGD(self.parameters(), 0.1)


@pytest.mark.ddp
@pytest.mark.slow
def test_two_ddp_processes_share_the_samples(tmp_path):
    trainer = L.Trainer(
        accelerator="cpu",
        devices=2,
        strategy="ddp_spawn",
        max_epochs=1,
        num_sanity_val_steps=0,
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
    )
    data = ready(BreastCancerData(num_workers=1))
    trainer.fit(Recorder(str(tmp_path)), data)
    ranks = [torch.load(tmp_path / f"{rank}.pt") for rank in range(2)]
    for split, dataset in (("train", data.train_set), ("val", data.val_set)):
        everything = {tuple(row) for row in tensors(dataset)[0].tolist()}
        given = [{tuple(row) for row in rank[split].tolist()} for rank in ranks]
        assert given[0] | given[1] == everything
        assert len(given[0] & given[1]) == len(everything) % 2


# Arrays from a file


def arrays(shape=(4,), classes=3, n=60, dtype=np.float32, seed=0):
    rng = np.random.default_rng(seed)
    found = {}
    for name, count in (("train", n), ("test", n // 2)):
        found[f"x_{name}"] = (rng.random((count, *shape)) * 250).astype(dtype)
        found[f"y_{name}"] = np.arange(count) % classes
    return found


def npz(folder, drop=(), **changes):
    """A file of `arrays()` with some of them changed."""
    found = {key: value for key, value in (arrays() | changes).items() if key not in drop}
    np.savez(folder / "mine.npz", **found)
    return folder / "mine.npz"


@pytest.mark.parametrize(
    ("shape", "given_shape"),
    [
        ((5,), (5,)),
        ((9, 7), (1, 9, 7)),
        ((9, 7, 3), (3, 9, 7)),
        ((9, 7, 1), (1, 9, 7)),
        ((3, 2, 4), (4, 3, 2)),
    ],
)
@pytest.mark.parametrize("dtype", [np.uint8, np.float16, np.float32, np.float64, np.int64, bool])
def test_npz_standardises_by_feature_or_channel(shape, given_shape, dtype, tmp_path):
    found = arrays(shape, dtype=dtype)
    found |= {"x_val": found["x_test"][:9], "y_val": found["y_test"][:9]}
    data = ready(NpzData(npz(tmp_path, **found)))
    assert (data.input_shape, data.num_classes, data.num_outputs, data.task) == (
        given_shape,
        3,
        3,
        "multiclass",
    )
    train = found["x_train"].astype(np.float64) / (255 if dtype == np.uint8 else 1)
    axes = 0 if len(shape) == 1 else (0, 1, 2)[: train.ndim if len(shape) == 3 else 3]
    mean, std = train.mean(axes), train.std(axes)
    std = np.where(std > 0, std, 1)
    for name in ("train", "val", "test"):
        x = found[f"x_{name}"].astype(np.float64) / (255 if dtype == np.uint8 else 1)
        expected = (x - mean) / std
        if len(shape) == 2:
            expected = expected[:, None]
        if len(shape) == 3:
            expected = np.moveaxis(expected, -1, 1)
        ours, target = tensors(getattr(data, f"{name}_set"))
        np.testing.assert_allclose(ours.numpy(), expected, atol=1e-4)
        assert np.array_equal(target.numpy(), found[f"y_{name}"])


def test_npz_cuts_a_missing_validation_split_from_training(tmp_path):
    data = ready(NpzData(npz(tmp_path), val_fraction=0.25))
    assert [len(getattr(data, name)) for name in SPLITS] == [45, 15, 30]
    assert torch.bincount(tensors(data.val_set)[1]).tolist() == [5, 5, 5]
    assert [len(getattr(ready(NpzData(npz(tmp_path))), name)) for name in SPLITS] == [54, 6, 30]


def test_npz_does_not_touch_the_global_generator(tmp_path):
    before = torch.get_rng_state()
    ready(NpzData(npz(tmp_path), label_noise=0.5))
    assert torch.equal(before, torch.get_rng_state())


def test_npz_leaves_a_constant_feature_at_zero_and_scales_a_tiny_one(tmp_path):
    found = arrays()
    for name in ("x_train", "x_test"):
        found[name][:, 0] = 0.1
        found[name][:, 1] *= 1e-20
    x, _ = tensors(ready(NpzData(npz(tmp_path, **found))).train_set)
    assert x[:, 0].abs().max() < 1e-5
    assert x[:, 1].std() == pytest.approx(1, abs=0.1)


def test_npz_binary(tmp_path):
    data = ready(NpzData(npz(tmp_path, **arrays(classes=2)), task="binary", label_noise=0.5))
    _, target = tensors(data.train_set)
    assert (data.num_classes, data.num_outputs, target.dtype, target.shape) == (2, 1, torch.float32, (54,))
    assert int((target != data.train_labels_clean).sum()) == 27


@pytest.mark.parametrize("dtype", [np.int64, np.float32, bool])
def test_npz_multilabel(dtype, tmp_path):
    hot = {
        f"y_{name}": (np.arange(n * 5).reshape(n, 5) % 3 == 0).astype(dtype)
        for name, n in (("train", 60), ("test", 30))
    }
    data = ready(NpzData(npz(tmp_path, **hot), task="multilabel"))
    target = data.test_set.target
    assert (data.num_classes, data.num_outputs, target.dtype) == (5, 5, torch.float32)
    assert np.array_equal(target.numpy(), hot["y_test"])
    assert (len(data.train_set), len(data.val_set)) == (54, 6)


def test_npz_takes_labels_in_a_column(tmp_path):
    found = arrays()
    column = {key: value[:, None].astype(np.uint8) for key, value in found.items() if key[0] == "y"}
    data = ready(NpzData(npz(tmp_path, **column)))
    assert np.array_equal(tensors(data.test_set)[1].numpy(), found["y_test"])


MUST = "It must hold x_train, y_train, x_test, y_test and may hold x_val, y_val."
A = arrays()
WRONG_NPZ = {
    "lacks": ({"drop": ["x_test"]}, {}, f"{{path}} lacks x_test; it has x_train, y_train, y_test. {MUST}"),
    "lacks two": (
        {"drop": ["x_train", "y_test"]},
        {},
        f"{{path}} lacks x_train, y_test; it has y_train, x_test. {MUST}",
    ),
    "half a split": (
        {"x_val": A["x_test"]},
        {},
        f"{{path}} lacks y_val; it has x_train, y_train, x_test, y_test, x_val. {MUST}",
    ),
    "objects": (
        {"x_train": np.array([{}] * 60)},
        {},
        f"cannot read {{path}} as .npz: Object arrays cannot be loaded when allow_pickle=False. {MUST}",
    ),
    "lengths": (
        {"y_train": A["y_train"][:-1]},
        {},
        "x_train and y_train must hold one entry a sample, got shapes (60, 4) and (59,).",
    ),
    "empty": (
        {"x_test": A["x_test"][:0], "y_test": A["y_test"][:0]},
        {},
        "x_test and y_test must hold one entry a sample, got shapes (0, 4) and (0,).",
    ),
    "scalar": (
        {"x_train": 3},
        {},
        "x_train and y_train must hold one entry a sample, got shapes () and (60,).",
    ),
    "other shape": (
        {"x_test": A["x_test"][:, :3]},
        {},
        "x_test has samples (3,) of float32, x_train has (4,) of float32; they must agree.",
    ),
    "other scale": (
        {"x_test": A["x_test"].astype(np.uint8)},
        {},
        "x_test has samples (4,) of uint8, x_train has (4,) of float32; they must agree.",
    ),
    "text": (
        {"x_train": np.array(["a"] * 60), "x_test": np.array(["a"] * 30)},
        {},
        "x_train must hold numbers, got <U1.",
    ),
    "complex": (
        {key: A[key].astype(complex) for key in ("x_train", "x_test")},
        {},
        "x_train must hold numbers, got complex128.",
    ),
    "dimensions": (
        {key: A[key][:, 0] for key in ("x_train", "x_test")},
        {},
        "x_train must be (N, D), (N, H, W) or (N, H, W, C), got (60,).",
    ),
    "channels first": (
        arrays((3, 8, 8)),
        {},
        "x_train must be (N, H, W, C), but (60, 3, 8, 8) has channels first: use x.transpose(0, 2, 3, 1).",
    ),
    "nan": (
        {"x_train": np.full((60, 4), np.nan, np.float32)},
        {},
        "x_train must be finite in float32, but has nan or inf.",
    ),
    "too large": (
        {"x_train": A["x_train"] * np.float64(1e300), "x_test": A["x_test"].astype(float)},
        {},
        "x_train must be finite in float32, but has nan or inf.",
    ),
    "real labels": (
        {"y_train": A["y_train"].astype(float)},
        {},
        "y_train must hold integer class labels (N,), got float64 (60,). Save y.astype('int64').",
    ),
    "one-hot labels": (
        {"y_train": np.eye(3, dtype=int)[A["y_train"]]},
        {},
        "y_train must hold integer class labels (N,), got int64 (60, 3). They are one-hot: save y.argmax(1).",
    ),
    "negative label": ({"y_test": A["y_test"] - 1}, {}, "y_test must hold class labels 0..K-1, got -1."),
    "gap": (
        {"y_train": A["y_train"] * 2, "y_test": A["y_test"] * 2},
        {},
        "y_train has no sample of class 1, but labels go up to 4. Number the classes of y_train 0..K-1.",
    ),
    "unknown in test": (
        {"y_test": A["y_test"] + 1},
        {},
        "y_test goes up to 3, but y_train only to 2: nothing can be learnt of class 3. Leave its samples out, or train "
        "on some.",
    ),
    "from 1": (
        {"y_train": A["y_train"] + 1, "y_test": A["y_test"] + 1},
        {},
        "y_train has no sample of class 0, but labels go up to 3. Number the classes of y_train 0..K-1. If yours begin "
        "at 1: y - 1.",
    ),
    "names": (
        {"y_train": np.array(["a", "b"] * 30), "y_test": np.array(["a", "b"] * 15)},
        {},
        "y_train must hold integer class labels (N,), got <U1 (60,). Save np.unique(y, return_inverse=True)[1].",
    ),
    "one class": (
        {"y_train": A["y_train"] * 0, "y_test": A["y_test"] * 0},
        {},
        "a classifier needs at least 2 classes, but every label is 0.",
    ),
    "fewer classes": (
        {"y_train": np.arange(60) % 10, "y_test": np.arange(30) % 10},
        {"num_classes": 9},
        "data.num_classes=9 but y_train goes up to 9, so 10 classes",
    ),
    "more classes": ({}, {"num_classes": 5}, "data.num_classes=5 but y_train goes up to 2, so 3 classes"),
    "binary": (
        {},
        {"task": "binary"},
        "task=binary needs labels 0 and 1, but they go up to 2. Use task=multiclass.",
    ),
    "multilabel of indices": (
        {},
        {"task": "multilabel"},
        "y_train must hold 0 and 1, (N, K), because task=multilabel, got int64 (60,).",
    ),
    "multilabel values": (
        {"y_train": np.full((60, 2), 0.5)},
        {"task": "multilabel"},
        "y_train must hold 0 and 1, (N, K), because task=multilabel, got float64 (60, 2).",
    ),
    "multilabel columns": (
        {"y_train": np.zeros((60, 2)), "y_test": np.zeros((30, 3))},
        {"task": "multilabel"},
        "y_test has 3 columns, y_train has 2; they must agree.",
    ),
    "multilabel count": (
        {"y_train": np.zeros((60, 2)), "y_test": np.zeros((30, 2))},
        {"task": "multilabel", "num_classes": 3},
        "data.num_classes=3 but y_train has 2 columns, so 2 classes",
    ),
    "val twice": (
        {"x_val": A["x_test"], "y_val": A["y_test"]},
        {"val_fraction": 0.2},
        "val_fraction=0.2, but {path} has x_val. Leave val_fraction out.",
    ),
    "val too small": (
        {},
        {"val_fraction": 0.001},
        "val_fraction=0.001 of 60 samples is none; use a larger one.",
    ),
}


@pytest.mark.parametrize("case", WRONG_NPZ)
def test_wrong_arrays_give_one_clear_line(case, tmp_path):
    changes, options, message = WRONG_NPZ[case]
    path = npz(tmp_path, **changes)
    with pytest.raises(ValueError) as caught:
        ready(NpzData(str(path), **options))
    assert str(caught.value) == message.replace("{path}", str(path))


def test_missing_npz_says_where_it_looked_and_what_it_must_hold(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(FileNotFoundError) as caught:
        ready(NpzData("sub/mine.npz"))
    assert str(caught.value) == f"there is no file {tmp_path}/sub/mine.npz. {MUST}"


@pytest.mark.parametrize("content", [b"", b"no archive at all", b"PK\x03\x04 broken"])
def test_a_file_that_is_no_npz_gives_one_clear_line(content, tmp_path):
    (tmp_path / "mine.npz").write_bytes(content)
    with pytest.raises(ValueError) as caught:
        ready(NpzData(str(tmp_path / "mine.npz")))
    assert re.fullmatch(rf"cannot read {re.escape(str(tmp_path))}/mine.npz as .npz: .+\. {MUST}", str(caught.value))


def test_a_single_array_is_no_npz(tmp_path):
    np.save(tmp_path / "mine.npy", np.zeros(3))
    message = f"cannot read {tmp_path}/mine.npy as .npz: it holds a single array. {MUST}"
    with pytest.raises(ValueError, match=re.escape(message)):
        ready(NpzData(str(tmp_path / "mine.npy")))


# Images in folders


def paint(path, seed, size=(32, 32), mode="RGB"):
    """Save an image of random pixels, (width, height)."""
    rng = np.random.default_rng(seed)
    shape = (size[1], size[0], 3) if mode == "RGB" else (size[1], size[0])
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(rng.integers(0, 256, shape, dtype=np.uint8), mode=None).save(path)
    return path


@pytest.fixture
def folder(tmp_path):
    """Three classes of 20 training images."""
    for number, name in enumerate(("cat", "ant", "bee")):
        for index in range(20):
            paint(tmp_path / "train" / name / f"{index:02}.png", 100 * number + index)
    return tmp_path


def pixels(path):
    return np.asarray(Image.open(path).convert("RGB"), np.float64).transpose(2, 0, 1) / 255


def test_image_folder_cuts_stratified_splits_and_standardises_by_training_images(folder):
    (folder / "train" / ".hidden").mkdir()
    (folder / "train" / "ant" / "notes.txt").write_text("no image")
    (folder / "train" / "ant" / ".00.png").write_bytes(b"no image")
    data = ready(ImageFolderData(str(folder), val_fraction=0.2, test_fraction=0.25))
    assert (data.task, data.num_classes, data.num_outputs, data.input_shape) == (
        "multiclass",
        3,
        3,
        (3, 32, 32),
    )
    assert data.classes == ["ant", "bee", "cat"]
    paths = {name: getattr(data, name).paths for name in SPLITS}
    assert sorted(file for files in paths.values() for file in files) == sorted(
        str(file) for file in folder.glob("train/[!.]*/[!.]*.png")
    )
    assert [torch.bincount(getattr(data, name).target).tolist() for name in SPLITS] == [
        [11] * 3,
        [4] * 3,
        [5] * 3,
    ]
    train = np.stack([pixels(path) for path in paths["train_set"]])
    mean, std = train.mean((0, 2, 3), keepdims=True)[0], train.std((0, 2, 3), keepdims=True)[0]
    for name in SPLITS:
        x, y = tensors(getattr(data, name))
        expected = np.stack([(pixels(path) - mean) / std for path in paths[name]])
        np.testing.assert_allclose(x.numpy(), expected, atol=1e-4)
        assert [data.classes[index] for index in y] == [Path(path).parent.name for path in paths[name]]


def test_image_folder_uses_the_folders_there_are(folder):
    for index in range(3):
        paint(folder / "val" / "cat" / f"{index}.jpg", index)
        paint(folder / "test" / "bee" / f"{index}.JPEG", index)
    data = ready(ImageFolderData(str(folder)))
    assert [len(getattr(data, name)) for name in SPLITS] == [60, 3, 3]
    assert (tensors(data.val_set)[1].tolist(), tensors(data.test_set)[1].tolist()) == ([2] * 3, [1] * 3)


def test_image_folder_binary_has_float_targets(tmp_path):
    for number in range(20):
        paint(tmp_path / "train" / "ab"[number % 2] / f"{number}.png", number)
    data = ready(ImageFolderData(str(tmp_path), task="binary", num_classes=2))
    x, y = next(iter(data.train_dataloader()))
    assert (data.num_outputs, y.dtype, y.shape, x.dtype) == (1, torch.float32, (12,), torch.float32)


def test_image_folder_noise_and_generator(folder):
    before = torch.get_rng_state()
    clean = ready(ImageFolderData(str(folder)))
    noisy = ready(ImageFolderData(str(folder), label_noise=0.5, augment=True))
    assert torch.equal(before, torch.get_rng_state())
    assert int((noisy.train_labels != clean.train_labels).sum()) == round(0.5 * len(clean.train_set))
    assert noisy.train_set.paths == clean.train_set.paths
    assert torch.equal(noisy.val_set.target, clean.val_set.target)


def test_images_are_scaled_and_cut_to_the_middle(folder):
    """A wide image: left third red, middle green, right blue; the middle square is green."""
    wide = np.zeros((20, 60, 3), np.uint8)
    for third in range(3):
        wide[:, 20 * third : 20 * third + 20, third] = 255
    for name in ("val", "test"):
        (folder / name / "ant").mkdir(parents=True)
        Image.fromarray(wide if name == "val" else wide.transpose(1, 0, 2)).save(folder / name / "ant" / "a.png")
    data = ready(ImageFolderData(str(folder), image_size=10))
    for dataset in (data.val_set, data.test_set):
        shown = dataset[0][0] * dataset.std + dataset.mean
        assert shown.shape == (3, 10, 10)
        torch.testing.assert_close(shown[:, 2:-2, 2:-2].mean((1, 2)), torch.tensor([0.0, 1.0, 0.0]))


def test_image_turned_by_its_camera_is_shown_upright(folder):
    (folder / "val" / "ant").mkdir(parents=True)
    image = Image.open(paint(folder / "upright.png", 7))
    exif = Image.Exif()
    exif[0x0112] = 6  # stored a quarter turn counter-clockwise
    image.rotate(90).save(folder / "val" / "ant" / "a.png", exif=exif)
    dataset = ready(ImageFolderData(str(folder))).val_set
    shown = dataset[0][0] * dataset.std + dataset.mean
    np.testing.assert_allclose(shown.numpy(), pixels(folder / "upright.png"), atol=1e-5)


@pytest.mark.parametrize("mode", ["1", "L", "P", "RGBA", "CMYK"])
@pytest.mark.parametrize("grayscale", [False, True])
def test_every_8_bit_mode_is_read(folder, mode, grayscale):
    suffix = "jpg" if mode == "CMYK" else "png"
    (folder / "val" / "ant").mkdir(parents=True)
    image = Image.open(paint(folder / "a.png", 1)).convert(mode)
    image.save(folder / "val" / "ant" / f"a.{suffix}")
    dataset = ready(ImageFolderData(str(folder), grayscale=grayscale)).val_set
    x = dataset[0][0]
    want = np.asarray(Image.open(folder / "val" / "ant" / f"a.{suffix}").convert("L" if grayscale else "RGB"))
    want = want[None] if grayscale else want.transpose(2, 0, 1)
    np.testing.assert_allclose((x * dataset.std + dataset.mean).numpy(), want / 255, atol=1e-5)


def test_augmentation_shifts_and_flips_training_images_only(folder):
    """Every augmented image is one of the shifts, mirrored at the border by numpy, flipped or not."""
    plain = ready(ImageFolderData(str(folder)))
    data = ready(ImageFolderData(str(folder), augment=True))
    original = plain.train_set[0][0].numpy()
    padded = np.pad(original, ((0, 0), (4, 4), (4, 4)), mode="reflect")
    shifts = [padded[:, top : top + 32, left : left + 32] for top in range(9) for left in range(9)]
    candidates = {view.tobytes() for shift in shifts for view in (shift, shift[..., ::-1])}
    assert len(candidates) == 162
    torch.manual_seed(0)
    views = [data.train_set[0][0].numpy().tobytes() for _ in range(600)]
    assert set(views) <= candidates
    assert len(set(views)) > 140  # 600 draws of 162 miss 4 on average
    for name in ("val_set", "test_set"):
        assert equal(tensors(getattr(data, name)), tensors(getattr(plain, name)))


def test_augmentation_without_margin_flips_only():
    x = torch.arange(12.0).view(1, 3, 4)
    views = {tuple(crop_and_flip(x, 0).flatten().tolist()) for _ in range(50)}
    assert views == {tuple(x.flatten().tolist()), tuple(x.flip(-1).flatten().tolist())}


@pytest.mark.parametrize("workers", [0, 2])
def test_augmented_batches_repeat_with_the_seed(folder, workers):
    data = ready(ImageFolderData(str(folder), augment=True, batch_size=16, num_workers=workers))

    def two_epochs(seed):
        torch.manual_seed(seed)
        loader = data.train_dataloader()
        return [part for _ in range(2) for batch in loader for part in batch]

    first = two_epochs(1)
    assert equal(first, two_epochs(1))
    assert not torch.equal(first[0], two_epochs(2)[0])
    assert not torch.equal(first[0], first[len(first) // 2])


def test_an_unreadable_image_is_named(folder):
    broken = folder / "test" / "ant" / "broken.png"
    paint(broken, 1)
    broken.write_bytes(broken.read_bytes()[:300])
    nothing = folder / "test" / "bee" / "text.jpg"
    nothing.parent.mkdir()
    nothing.write_text("no image")
    deep = folder / "test" / "cat" / "deep.png"
    deep.parent.mkdir()
    Image.fromarray(np.zeros((32, 32), np.uint16)).save(deep)
    dataset = ready(ImageFolderData(str(folder))).test_set
    for index, path, reason in (
        (0, broken, r".*truncated.*"),
        (1, nothing, "cannot identify image file"),
        (2, deep, "more than 8 bits a channel; convert it to 8"),
    ):
        with pytest.raises(ValueError) as caught:
            dataset[index]
        line = rf"cannot read the image {re.escape(str(path))}: {reason}\. Replace or remove it\."
        assert re.fullmatch(line, str(caught.value))


def wrong_folder(case, folder):
    """Spoil the folder; return the options and the exact message."""
    train = folder / "train"
    if case == "class count":
        return {"num_classes": 4}, f"data.num_classes=4 but {train} has 3 class folders, so 3 classes"
    if case == "binary":
        return {"task": "binary"}, f"task=binary needs 2 classes, but {train} has 3 class folders."
    if case == "val twice":
        paint(folder / "val" / "ant" / "a.png", 1)
        return {"val_fraction": 0.2}, f"val_fraction=0.2, but {folder / 'val'} exists. Leave val_fraction out."
    if case == "unknown class":
        paint(folder / "test" / "dog" / "a.png", 1)
        return {}, f"{folder / 'test'} has the class 'dog', which {train} has not."
    if case == "empty class":
        (train / "dog").mkdir()
        return {}, f"{train / 'dog'} holds no image (.png, .jpg, .jpeg)."
    if case == "no class":
        (folder / "val").mkdir()
        return {}, f"{folder / 'val'} must hold one folder for each class, but has none."
    for name in ("bee", "cat"):
        for file in (train / name).iterdir():
            file.unlink()
        (train / name).rmdir()
    return {}, f"a classifier needs at least 2 classes, but {train} has 1 class folders."


@pytest.mark.parametrize(
    "case", ["class count", "binary", "val twice", "unknown class", "empty class", "no class", "one class"]
)
def test_a_wrong_folder_gives_one_clear_line(case, folder):
    options, message = wrong_folder(case, folder)
    with pytest.raises(ValueError) as caught:
        ready(ImageFolderData(str(folder), **options))
    assert str(caught.value) == message


def test_missing_image_folder_says_where_it_looked_and_what_it_must_hold(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(FileNotFoundError) as caught:
        ready(ImageFolderData("images"))
    assert str(caught.value) == (
        f"there is no folder {tmp_path}/images/train. It must hold one folder for each class, with .png or .jpg images."
    )


# Options and missing packages


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"batch_size": 0}, "batch_size must be an integer of at least 1, got 0."),
        ({"batch_size": 6.5}, "batch_size must be an integer of at least 1, got 6.5."),
        ({"eval_batch_size": True}, "eval_batch_size must be an integer of at least 1, got True."),
        ({"num_workers": -1}, "num_workers must be an integer of at least 0, got -1."),
        ({"split_seed": -1}, "split_seed must be an integer of at least 0, got -1."),
        ({"split_seed": "0"}, "split_seed must be an integer of at least 0, got '0'."),
        ({"label_noise": 1.0}, "label_noise must be in [0, 1), got 1.0."),
        ({"label_noise": float("nan")}, "label_noise must be in [0, 1), got nan."),
        ({"label_noise": "much"}, "label_noise must be in [0, 1), got 'much'."),
        ({"val_label_noise": 1.0}, "val_label_noise must be in [0, 1), got 1.0."),
        ({"val_fraction": 0.0}, "val_fraction must be in (0, 1), got 0.0."),
        ({"val_fraction": float("nan")}, "val_fraction must be in (0, 1), got nan."),
        ({"test_fraction": 1}, "test_fraction must be in (0, 1), got 1."),
        (
            {"val_fraction": 0.5, "test_fraction": 0.5},
            "val_fraction + test_fraction must be below 1, got 0.5 + 0.5: nothing is left to train on.",
        ),
        ({"val_fraction": 0.0001}, "val_fraction=0.0001 of {n} samples is none; use a larger one."),
        ({"test_fraction": 0.0001}, "test_fraction=0.0001 of {n} samples is none; use a larger one."),
    ],
)
@pytest.mark.parametrize(("cls", "n"), [(DigitsData, 1797), (BreastCancerData, 569)])
def test_a_wrong_option_gives_one_clear_line(cls, n, options, message):
    with pytest.raises(ValueError) as caught:
        ready(cls(**options))
    assert str(caught.value) == message.replace("{n}", str(n))


@pytest.mark.parametrize(
    ("build", "message"),
    [
        (
            lambda: NpzData("a", task="regression"),
            "task must be one of multiclass, binary, multilabel, got 'regression'.",
        ),
        (lambda: NpzData("a", num_classes=1), "num_classes must be an integer of at least 2, got 1."),
        (lambda: NpzData("a", val_fraction=1.5), "val_fraction must be in (0, 1), got 1.5."),
        (
            lambda: NpzData("a", task="multilabel", label_noise=0.1),
            "label_noise flips classes, and task=multilabel has none to flip. Use label_noise=0.",
        ),
        (
            lambda: ImageFolderData("a", task="multilabel"),
            "task=multilabel does not fit folders, where an image has one class. Use data=npz.",
        ),
        (lambda: ImageFolderData("a", image_size=0), "image_size must be an integer of at least 1, got 0."),
        (lambda: ImageFolderData("a", grayscale=1), "grayscale must be true or false, got 1."),
        (lambda: ImageFolderData("a", augment="yes"), "augment must be true or false, got 'yes'."),
        (
            lambda: ImageFolderData("a", num_classes=2.0),
            "num_classes must be an integer of at least 2, got 2.0.",
        ),
        (lambda: ImageFolderData("a", test_fraction=-1), "test_fraction must be in (0, 1), got -1."),
    ],
)
def test_a_wrong_option_of_file_data_gives_one_clear_line(build, message):
    with pytest.raises(ValueError) as caught:
        build()
    assert str(caught.value) == message


@pytest.mark.parametrize(("cls", "name"), [(DigitsData, "digits"), (BreastCancerData, "breast_cancer")])
def test_missing_scikit_learn_says_how_to_install_it(cls, name, monkeypatch):
    monkeypatch.setitem(sys.modules, "sklearn", None)
    with pytest.raises(ModuleNotFoundError) as caught:
        ready(cls())
    assert str(caught.value) == f"data={name} needs scikit-learn: pip install 'ls-lightning[data]'"


def test_missing_pillow_says_how_to_install_it(folder, monkeypatch):
    monkeypatch.setitem(sys.modules, "PIL", None)
    with pytest.raises(ModuleNotFoundError) as caught:
        ready(ImageFolderData(str(folder)))
    assert str(caught.value) == "data=image_folder needs Pillow: pip install 'ls-lightning[image]'"


@pytest.mark.parametrize("name", ["digits", "breast_cancer", "npz", "image_folder"])
def test_config_builds_the_data_and_shows_its_defaults(name):
    config = OmegaConf.load(CONF / "data" / f"{name}.yaml")
    given = {"path": "somewhere"} if OmegaConf.is_missing(config, "path") else {}
    config.pop("defaults", None)
    config.update(given)
    ours = instantiate(config)
    plain = type(ours)(**given)
    assert name.replace("_", "") in type(ours).__name__.lower()

    def options(data):
        return {key: value for key, value in vars(data).items() if not key.startswith("_")}

    assert options(ours) == options(plain)
    shown = {key for key in config if not key.startswith("_")}
    accepted = set(type(ours).__init__.__kwdefaults__) | set(given)
    accepted |= set(LoaderOptions.__annotations__)
    assert shown == accepted
