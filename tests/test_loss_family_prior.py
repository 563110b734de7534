import numpy as np
import pytest
import torch
from loss_family import draw
from nets import CLASSES, Data, Net, trainer
from torch.nn import functional as F
from torch.testing import assert_close
from torch.utils.data import ConcatDataset, DataLoader, Subset, TensorDataset

import ls_lightning as ls
from ls_lightning.functional.hierarchy import class_similarity
from ls_lightning.functional.prior import prior_smoothing
from ls_lightning.losses import PriorSmoothing, build_loss

CLOSE = {"rtol": 1e-6, "atol": 1e-7}
COUNTS = torch.tensor([4.0, 1.0, 0.0, 5.0])
MATRIX = torch.rand(4, 4, generator=torch.Generator().manual_seed(2)).softmax(1)


def save(path, values):
    if path.suffix == ".pt":
        torch.save(values, path)
    elif path.suffix == ".csv":
        np.savetxt(path, values.numpy(), delimiter=",")
    else:
        (np.save if path.suffix == ".npy" else np.savez)(path, values.numpy())
    return path


@pytest.mark.parametrize("prior", [COUNTS, MATRIX], ids=["vector", "matrix"])
@pytest.mark.parametrize("form", ["tensor", "list", ".npy", ".npz", ".csv", ".pt"])
def test_forms_of_a_prior(tmp_path, prior, form):
    logits, index, _ = draw((6, 4))
    given = {"tensor": prior, "list": prior.tolist()}.get(form)
    if given is None:
        given = str(save(tmp_path / f"prior{form}", prior))
    loss = PriorSmoothing(0.2, prior=given)
    assert_close(loss(logits, index), prior_smoothing(logits, index, 0.2, prior=prior), **CLOSE)
    other = PriorSmoothing(0.2, prior=[1.0, 1.0, 1.0, 1.0])
    other.set_prior(given)
    assert_close(other(logits, index), loss(logits, index))


def test_prior_keeps_its_dtype_and_stays_out_of_the_state_dict():
    loss = PriorSmoothing(prior=MATRIX).half()
    assert_close(loss.prior, MATRIX, rtol=0, atol=0)
    assert list(loss.state_dict()) == []
    assert "prior=tensor(4, 4)" in repr(loss)
    assert "prior=frequencies" in repr(PriorSmoothing())


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({"prior": [0.5, -0.5]}, ValueError, "prior must not be negative"),
        ({"prior": [0.0, 0.0]}, ValueError, "nor 0 throughout"),
        ({"prior": [1.0, float("nan")]}, ValueError, "nan"),
        ({"prior": [1.0]}, ValueError, r"prior must be \(K,\) or \(K, K\) with K >= 2, got shape \(1,\)"),
        ({"prior": torch.ones(2, 3)}, ValueError, r"got shape \(2, 3\)"),
        ({"prior": [[0.5, 0.5], [0.5, 0.6]]}, ValueError, "sums from 1 to 1.1: divide each row by its sum"),
        ({"prior": 3}, TypeError, "prior must be numbers, a tensor or a file, got 3"),
        ({"prior": "frequency"}, ValueError, "must be 'frequencies', 'hierarchy' or a file .npy, .npz, .csv, .pt"),
        ({"prior": "not_there.npy"}, FileNotFoundError, "there is no file .*not_there.npy"),
        ({"prior": COUNTS, "beta": 4.0}, ValueError, "beta belongs to prior='hierarchy', got beta=4.0"),
    ],
)
def test_a_bad_prior_is_refused_at_once(options, error, message):
    with pytest.raises(error, match=message) as caught:
        build_loss("prior", **options)
    assert "\n" not in str(caught.value)


def test_files_that_hold_no_prior(tmp_path):
    np.savez(tmp_path / "two.npz", a=np.ones(3), b=np.ones(3))
    (tmp_path / "text.csv").write_text("a,b\n")
    torch.save({"prior": COUNTS}, tmp_path / "dict.pt")
    for name, message in {
        "two.npz": "one array, got a, b",
        "text.csv": "holds no prior",
        "dict.pt": "one tensor",
    }.items():
        with pytest.raises(ValueError, match=message):
            PriorSmoothing(prior=str(tmp_path / name))


def test_a_prior_that_was_not_read_yet():
    with pytest.raises(RuntimeError, match="prior='frequencies' is read from the data by LabelSmoothing"):
        PriorSmoothing()(torch.zeros(2, 3), torch.tensor([0, 1]))


# The hierarchy


def test_similarity_by_hand():
    """A tree of two levels: siblings have the distance 1/2, all others 1."""
    a = class_similarity(["animal/cat", "animal/dog", "vehicle/car", "vehicle/bus"], beta=3.0)
    distance = torch.tensor([[0, 0.5, 1, 1], [0.5, 0, 1, 1], [1, 1, 0, 0.5], [1, 1, 0.5, 0]])
    expected = torch.exp(-3 * distance)
    assert_close(a, expected / expected.sum(1, keepdim=True))
    assert_close(class_similarity(["a/x", "a/y", "b"], beta=0.0), torch.full((3, 3), 1 / 3))
    # A folder above all of them is not a level.
    assert_close(class_similarity(["all/a/x", "all/a/y", "all/b/z"]), class_similarity(["a/x", "a/y", "b/z"]))


@pytest.mark.parametrize(
    ("names", "beta", "message"),
    [
        (["cat", "dog"], 4.0, "names that share folders"),
        (["all/cat", "all/dog"], 4.0, "names that share folders"),
        (["a/b", "a/b", "c"], 4.0, "class names must differ"),
        (["a/b", "a/c", "d"], -1.0, "beta must be a number of at least 0"),
    ],
)
def test_similarity_refuses(names, beta, message):
    with pytest.raises(ValueError, match=message):
        class_similarity(names, beta)


# From the data of a run


def fit(tmp_path, data, loss="prior", net=None):
    net = net or Net()
    callback = ls.LabelSmoothing(loss=loss, eps=0.3)
    trainer(tmp_path, callback, max_epochs=1).fit(net, datamodule=data)
    return net, callback._calls.loss.prior


@pytest.mark.parametrize("wrap", ["tensors", "subset", "concat", "targets", "train_labels", "distributions"])
def test_frequencies_come_from_the_training_labels(tmp_path, wrap):
    data = Data()
    x, y = data.set.tensors
    expected = torch.bincount(y, minlength=CLASSES).float()
    if wrap == "subset":
        data.set = Subset(data.set, range(20))
        expected = torch.bincount(y[:20], minlength=CLASSES).float()
    elif wrap == "concat":
        data.set = ConcatDataset([TensorDataset(x[:9], y[:9]), TensorDataset(x[9:], y[9:])])
    elif wrap == "targets":
        data.set = [*zip(x, y, strict=True)]
        data.set = type("Listed", (list,), {"targets": y.tolist()})(data.set)
    elif wrap == "train_labels":
        data.set = [*zip(x, y, strict=True)]
        data.train_labels = y
    elif wrap == "distributions":
        data.set = TensorDataset(x, F.one_hot(y, CLASSES).double())
        expected = expected.double()
    net, prior = fit(tmp_path, data)
    assert_close(prior, expected)
    judged, _ = fit(tmp_path, data, PriorSmoothing(prior=expected))
    assert_close(net.layer.weight, judged.layer.weight)


def test_frequencies_without_a_data_module(tmp_path):
    callback, data = ls.LabelSmoothing(loss="prior"), Data()
    trainer(tmp_path, callback, max_epochs=1).fit(Net(), DataLoader(data.set, 8))
    assert_close(callback._calls.loss.prior, torch.bincount(data.set.tensors[1]).float())


def test_what_the_data_does_not_say(tmp_path):
    data = Data()
    data.set = [*zip(*data.set.tensors, strict=True)]
    with pytest.raises(LookupError, match="prior='frequencies' needs the training labels, which Data does not show"):
        fit(tmp_path, data)
    with pytest.raises(LookupError, match="prior='hierarchy' needs classes, the names, which Data does not have"):
        fit(tmp_path, Data(), PriorSmoothing(prior="hierarchy"))


def test_hierarchy_from_the_data_module(tmp_path):
    data = Data()
    data.classes = ["a/x", "a/y", "b/z", "b/w", "c"]
    _, prior = fit(tmp_path, data, PriorSmoothing(prior="hierarchy", beta=5.0))
    assert_close(prior, class_similarity(data.classes, 5.0))


def test_nested_image_folders(tmp_path):
    image = pytest.importorskip("PIL.Image")
    from ls_lightning.zoo import ImageFolderData

    for name in ("animal/cat", "animal/dog", "car"):
        folder = tmp_path / "train" / name
        folder.mkdir(parents=True)
        for shade in range(10):
            image.new("RGB", (8, 8), (20 * shade, 0, 90)).save(folder / f"{shade}.png")
    data = ImageFolderData(str(tmp_path), image_size=8)
    data.setup("fit")
    assert data.classes == ["animal/cat", "animal/dog", "car"]
    assert data.num_classes == 3
    assert len(data.train_labels) == 18
