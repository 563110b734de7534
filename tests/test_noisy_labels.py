"""Training labels from a file: whose they are, who gets them, one clear line for whatever is wrong with them."""

import csv
from pathlib import Path

import numpy as np
import pytest
import torch
from cli import QUICK, result, run_here
from PIL import Image

from ls_lightning.zoo.data_image_folder import ImageFolderData
from ls_lightning.zoo.data_npz import NpzData
from ls_lightning.zoo.data_sklearn import BreastCancerData, DigitsData
from ls_lightning.zoo.label_file import read_label_file

K, N = 4, 120
CLASSES = ("cat", "cow", "dog", "owl")


def ready(data):
    data.setup("fit")
    return data


def numbered(count, seed=0):
    """Images whose first pixel says which they are, labels, and wrong labels of three in ten."""
    rng = np.random.default_rng(seed)
    x = np.zeros((count, 2, 2), np.uint8)
    x[:, 0, 0] = np.arange(count)
    y = np.arange(count) % K
    noisy = np.where(rng.random(count) < 0.3, rng.integers(0, K, count), y)
    return x, y, noisy


def arrays(folder, **more):
    x, y, _ = numbered(N)
    path = folder / "mine.npz"
    np.savez(path, x_train=x, y_train=y, x_test=x[:8], y_test=y[:8], **more)
    return str(path)


def label_file(folder, kind, labels, index=None):
    """The same labels in each of the formats."""
    path = folder / f"labels.{kind}"
    if kind == "npy":
        np.save(path, labels)
    elif kind == "npz":
        np.savez(path, clean_label=np.zeros_like(labels), worse_label=labels)
    else:
        with path.open("w", newline="") as lines:
            rows = zip(range(len(labels)) if index is None else index, labels, strict=True)
            csv.writer(lines).writerows([["index", "worse_label"], *rows])
    return {"noisy_labels": str(path), "noisy_labels_key": None if kind == "npy" else "worse_label"}


def which(data, dataset):
    """The number of each sample, read off its first pixel."""
    pixels = torch.stack([dataset[row][0] for row in range(len(dataset))])[:, 0, 0, 0]
    return ((pixels * data.train_set.std.squeeze()) + data.train_set.mean.squeeze()).round().long()


@pytest.mark.parametrize("kind", ["npz", "npy", "csv"])
@pytest.mark.parametrize("seed", [0, 3])
def test_each_training_sample_has_the_label_of_its_own_index(tmp_path, kind, seed):
    _, y, noisy = numbered(N)
    data = ready(NpzData(arrays(tmp_path), split_seed=seed, **label_file(tmp_path, kind, noisy)))
    at = which(data, data.train_set)
    assert torch.equal(data.train_set.target, torch.from_numpy(noisy)[at])
    assert torch.equal(data.train_labels, data.train_set.target)
    assert torch.equal(data.train_labels_clean, torch.from_numpy(y)[at])
    assert data.measured_noise["train"] == pytest.approx(np.mean((noisy != y)[at.numpy()]))
    assert data.measured_noise["train"] > 0.1


@pytest.mark.parametrize("inside", [False, True])
def test_validation_is_clean_unless_asked_and_test_always(tmp_path, inside):
    _, y, noisy = numbered(N)
    path = arrays(tmp_path)
    data = ready(NpzData(path, val_fraction=0.4, noisy_labels_val=inside, **label_file(tmp_path, "npz", noisy)))
    at = which(data, data.val_set)
    assert torch.equal(data.val_set.target, torch.from_numpy(noisy if inside else y)[at])
    assert torch.equal(data.test_set.target, torch.from_numpy(y[:8]))
    assert data.noisy_validation is inside
    assert (data.measured_noise["val"] > 0) is inside


def test_a_validation_set_of_its_own_stays_clean(tmp_path):
    x, y, noisy = numbered(N)
    data = ready(NpzData(arrays(tmp_path, x_val=x[:16], y_val=y[:16]), **label_file(tmp_path, "npy", noisy)))
    assert torch.equal(data.train_set.target, torch.from_numpy(noisy))
    assert torch.equal(data.val_set.target, torch.from_numpy(y[:16]))


@pytest.mark.parametrize("kind", ["npz", "npy", "csv"])
@pytest.mark.parametrize("own_val", [False, True])
def test_a_subset_is_found_by_index_train(tmp_path, kind, own_val):
    x, y, _ = numbered(N)
    index = np.random.default_rng(1).permutation(5000)[:N]
    whole = np.random.default_rng(2).integers(0, K, 5000)
    more = {"x_val": x[:8], "y_val": y[:8]} if own_val else {}
    data = ready(NpzData(arrays(tmp_path, index_train=index, **more), **label_file(tmp_path, kind, whole)))
    expected = torch.from_numpy(whole[index])[which(data, data.train_set)]
    assert torch.equal(data.train_set.target, expected)


@pytest.mark.parametrize("cls", [DigitsData, BreastCancerData])
def test_the_bundled_data_are_indexed_by_their_order(tmp_path, cls):
    count, classes = (1797, 10) if cls is DigitsData else (569, 2)
    noisy = np.random.default_rng(0).integers(0, classes, count)
    data, plain = ready(cls(**label_file(tmp_path, "npy", noisy))), ready(cls())
    assert torch.equal(data.train_set.x, plain.train_set.x)
    assert data.train_set.target.dtype == plain.train_set.target.dtype
    assert data.measured_noise["train"] == pytest.approx(1 - 1 / classes, abs=0.1)
    assert torch.equal(data.val_set.target, plain.val_set.target)


def test_without_a_file_nothing_is_measured(tmp_path):
    assert ready(NpzData(arrays(tmp_path))).measured_noise == {"train": 0, "val": 0}
    assert ready(DigitsData(label_noise=0.4)).measured_noise["train"] == pytest.approx(0.4, abs=1e-3)
    assert ready(DigitsData(val_label_noise=0.2)).noisy_validation


@pytest.fixture
def photos(tmp_path):
    """``train/<class>/<index>.png``: the grey value is the index."""
    _, y, _ = numbered(N)
    for index, label in enumerate(y):
        folder = tmp_path / "photos" / "train" / CLASSES[label]
        folder.mkdir(parents=True, exist_ok=True)
        Image.new("L", (8, 8), index).save(folder / f"{index:05d}.png")
    return tmp_path / "photos"


def grey(data, paths):
    return torch.tensor([int(Path(path).stem) for path in paths])


@pytest.mark.parametrize("kind", ["npz", "npy", "csv"])
def test_an_image_is_found_by_the_number_in_its_name(photos, kind):
    _, _, noisy = numbered(N)
    more = np.concatenate([noisy, np.zeros(50, int)])
    given = label_file(photos, kind, more)
    data = ready(ImageFolderData(str(photos), image_size=8, grayscale=True, noisy_labels_val=True, **given))
    for dataset in (data.train_set, data.val_set):
        assert torch.equal(dataset.target, torch.from_numpy(noisy)[grey(data, dataset.paths)])


@pytest.mark.parametrize("as_names", [False, True])
def test_an_image_is_found_by_its_name(photos, as_names):
    _, y, noisy = numbered(N)
    lines = [f"{CLASSES[y[i]]}/{i:05d}.png, {CLASSES[noisy[i]] if as_names else noisy[i]}" for i in range(N)]
    (photos / "mine.csv").write_text("\n".join(["name, label", *reversed(lines)]) + "\n")
    data = ready(ImageFolderData(str(photos), image_size=8, noisy_labels=str(photos / "mine.csv")))
    assert torch.equal(data.train_set.target, torch.from_numpy(noisy)[grey(data, data.train_set.paths)])


# What is refused


def refused(build):
    with pytest.raises((ValueError, FileNotFoundError)) as caught:
        ready(build())
    assert "\n" not in str(caught.value)
    return str(caught.value)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"noisy_labels_key": "a"}, "noisy_labels_key needs a file, got noisy_labels=None. Use noisy_labels=<file>."),
        ({"noisy_labels_val": True}, "noisy_labels_val needs a file, got noisy_labels=None. Use noisy_labels=<file>."),
        ({"noisy_labels_val": 1}, "noisy_labels_val must be true or false, got 1."),
        (
            {"noisy_labels": "a.npy", "label_noise": 0.1},
            "label_noise=0.1 would flip the labels of noisy_labels. Leave one of them out.",
        ),
        (
            {"noisy_labels": "a.npy", "noisy_labels_val": True, "val_label_noise": 0.1},
            "val_label_noise=0.1 would flip the labels of noisy_labels. Leave one of them out.",
        ),
        ({"noisy_labels": "a.txt"}, "noisy_labels must be a file .npz, .npy, .csv, got 'a.txt'."),
    ],
)
def test_options_that_mean_nothing(options, message):
    assert refused(lambda: DigitsData(**options)) == message


def test_multilabel_has_no_class_to_replace():
    message = refused(lambda: NpzData("a", task="multilabel", noisy_labels="a.npy"))
    assert message == "noisy_labels are classes, and task=multilabel has none. Leave noisy_labels out."


def test_no_such_file(tmp_path):
    message = refused(lambda: NpzData(arrays(tmp_path), noisy_labels=str(tmp_path / "none.npz")))
    assert message == f"there is no file {tmp_path / 'none.npz'}, which was to hold the noisy labels."


@pytest.mark.parametrize("key", [None, "aggre"])
def test_an_unknown_key_lists_the_keys(tmp_path, key):
    given = label_file(tmp_path, "npz", numbered(N)[2])
    message = refused(lambda: NpzData(arrays(tmp_path), **{**given, "noisy_labels_key": key}))
    expected = f"noisy_labels_key must name one of the arrays of {tmp_path / 'labels.npz'}: clean_label, worse_label"
    assert message == expected + ("." if key is None else "; got 'aggre'.")


@pytest.mark.parametrize("length", [N - 1, N + 1])
def test_another_length(tmp_path, length):
    given = label_file(tmp_path, "npz", np.zeros(length, int))
    message = refused(lambda: NpzData(arrays(tmp_path), **given))
    assert message == f"{given['noisy_labels']} must hold {N} labels, one for each training sample, got {length}."


@pytest.mark.parametrize("label", [-1, K])
def test_a_label_that_is_no_class(tmp_path, label):
    given = label_file(tmp_path, "npy", np.full(N, label))
    message = refused(lambda: NpzData(arrays(tmp_path), **given))
    assert message == f"{given['noisy_labels']} must hold classes 0 to 3, got {label}."


def test_an_unknown_name_of_a_class(photos):
    (photos / "mine.csv").write_text("index,label\n" + "\n".join(f"{i},fox" for i in range(N)))
    message = refused(lambda: ImageFolderData(str(photos), noisy_labels=str(photos / "mine.csv")))
    assert message == f"{photos / 'mine.csv'} must hold classes 0 to 3, or one of cat, cow, dog, ..., got 'fox'."


def test_a_missing_index(tmp_path):
    given = label_file(tmp_path, "csv", np.zeros(N - 2, int), index=range(2, N))
    message = refused(lambda: NpzData(arrays(tmp_path), noisy_labels_val=True, **given))
    assert message == f"{given['noisy_labels']} has no label for the index 0, and for 1 more."


def test_an_image_whose_label_is_missing(photos):
    (photos / "mine.csv").write_text("name,label\ncat/00000.png,1\n")
    message = refused(lambda: ImageFolderData(str(photos), noisy_labels=str(photos / "mine.csv")))
    assert "has no label for the name 'cat/0" in message


def test_the_same_index_twice(photos):
    (photos / "mine.csv").write_text("index,label\n1,1\n1,2\n")
    message = refused(lambda: ImageFolderData(str(photos), noisy_labels=str(photos / "mine.csv")))
    assert message == f"{photos / 'mine.csv'} has two labels for one index. Leave one."


@pytest.mark.parametrize(
    ("names", "message"),
    [
        (("a.png", "b.png"), "cat/a.png has no index in its name, such as 00029.jpg."),
        (("1.png", "2.png"), "cat/1.png and dog/1.png have the same index 1."),
    ],
)
def test_names_that_say_no_official_index(tmp_path, names, message):
    for label in ("cat", "dog"):
        for split in ("train", "val", "test"):
            (tmp_path / split / label).mkdir(parents=True)
            for name in names:
                Image.new("L", (4, 4)).save(tmp_path / split / label / name)
    given = label_file(tmp_path, "npy", np.zeros(9, int))
    found = refused(lambda: ImageFolderData(str(tmp_path), **given))
    assert found == f"{message} Use a .csv with a column name."


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("0,1\n1,2\n", "noisy_labels_key must name one of the columns of {}: 0, 1; got 'label'."),
        ("index,label\n0,1\n1\n", "{} must have 2 cells in each row, got '1'."),
        ("index,label\na,1\n", "the column index of {} must hold integers of at least 0, got 'a'."),
        ("name,label\na,1\n", "{} has a column name, but the samples of this data have none. Use a column index."),
        ("", "cannot read {}: "),
    ],
)
def test_a_csv_that_cannot_be_read(tmp_path, text, message):
    (tmp_path / "mine.csv").write_text(text)
    found = refused(lambda: NpzData(arrays(tmp_path), noisy_labels=str(tmp_path / "mine.csv")))
    assert found.startswith(message.format(tmp_path / "mine.csv"))


@pytest.mark.parametrize("content", [np.zeros((N, 2), int), np.zeros(N), b"no array"])
def test_an_array_that_cannot_be_read(tmp_path, content):
    path = tmp_path / "labels.npy"
    path.write_bytes(content) if isinstance(content, bytes) else np.save(path, content)
    found = refused(lambda: NpzData(arrays(tmp_path), noisy_labels=str(path)))
    assert found.startswith(f"cannot read {path}: " if isinstance(content, bytes) else f"{path} must hold integer")


@pytest.mark.parametrize("index", [np.arange(N - 1), np.arange(N) - 1, np.zeros(N)])
def test_an_index_that_is_none(tmp_path, index):
    found = refused(lambda: NpzData(arrays(tmp_path, index_train=index)))
    assert found.startswith(f"index_train must hold {N} integers of at least 0, one a sample, got ")


def test_a_validation_set_of_its_own_takes_no_label(tmp_path):
    x, y, noisy = numbered(N)
    given = {**label_file(tmp_path, "npy", noisy), "noisy_labels_val": True}
    found = refused(lambda: NpzData(arrays(tmp_path, x_val=x[:8], y_val=y[:8]), **given))
    assert found == "noisy_labels_val needs a validation split cut from the training data, got one of its own."


# The command line


def test_the_result_says_how_many_labels_are_wrong(monkeypatch, tmp_path):
    _, y, noisy = numbered(N)
    label_file(tmp_path, "npz", noisy)
    arrays(tmp_path)
    options = ["data.noisy_labels=labels.npz", "data.noisy_labels_key=worse_label", "hydra.run.dir=job", *QUICK]
    assert run_here(monkeypatch, tmp_path, "data=npz", "data.path=mine.npz", *options) == 0
    found = result(tmp_path / "job")["label_noise"]
    assert found["train"] == pytest.approx(np.mean(noisy != y), abs=0.05)
    assert found["val"] == 0


def test_a_key_of_a_single_array_is_refused(tmp_path):
    np.save(tmp_path / "labels.npy", np.array([0, 1]))
    with pytest.raises(ValueError, match=r"noisy_labels_key='mine' is for \.npz and \.csv; .*labels\.npy is one array"):
        read_label_file(tmp_path / "labels.npy", "mine")
    assert read_label_file(tmp_path / "labels.npy").labels == [0, 1]
