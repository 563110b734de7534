"""Known data sets: what the experiments expect, where it is to be had, fewer samples of it, CIFAR-10's archive."""

import hashlib
import io
import tarfile
import warnings

import numpy as np
import pytest
import torch
from cli import QUICK, result, run, run_here
from PIL import Image

from ls_lightning.zoo import cifar10
from ls_lightning.zoo.data_image_folder import ImageFolderData
from ls_lightning.zoo.data_npz import NpzData
from ls_lightning.zoo.expected import Expected, digest

K = 10
EXPECTED = {"name": "Tiny", "classes": K, "shape": [1, 8, 8], "samples": {"train": 200, "test": 20}}
HINT = "For data of your own: data.expects=null."


def tiny(folder, classes=K, shape=(8, 8), n=200):
    """Images whose first pixel is their index."""
    found = {}
    for name, count in (("train", n), ("test", n // 10)):
        x = np.random.default_rng(0).integers(0, 256, (count, *shape)).astype(np.uint8)
        x[:, 0, 0] = np.arange(count).reshape(-1, *[1] * (len(shape) - 2))
        found |= {f"x_{name}": x, f"y_{name}": (np.arange(count) % classes).astype(np.uint8)}
    np.savez(folder / "tiny.npz", **found)
    return str(folder / "tiny.npz")


def ready(data):
    data.setup("fit")
    return data


def archive(path, count=20):
    """As CIFAR-10's binary version: a byte of label, then the planes of red, green and blue."""
    rng = np.random.default_rng(0)
    names = [name for batches in cifar10.BATCHES.values() for name in batches]
    rows = {name: rng.integers(0, 256, (count, 3073), dtype=np.uint8) for name in names}
    with tarfile.open(path, "w:gz") as tar:
        for name, row in rows.items():
            row[:, 0] = np.arange(count) % K
            info = tarfile.TarInfo(f"cifar-10-batches-bin/{name}")
            info.size = row.size
            tar.addfile(info, io.BytesIO(row.tobytes()))
    return rows


@pytest.fixture
def folder(tmp_path):
    """CIFAR-10 in small: 100 training and 20 test images."""
    archive(tmp_path / "small.tar.gz")
    cifar10.write_folder(tmp_path / "small.tar.gz", tmp_path / "cifar10")
    return tmp_path / "cifar10"


# What is expected


def test_data_as_expected_is_taken_without_a_word(tmp_path):
    path = tiny(tmp_path)
    with np.load(path) as found:
        sha256 = hashlib.sha256()
        for name in ("train", "test"):
            sha256.update(found[f"x_{name}"].tobytes() + found[f"y_{name}"].astype("<i8").tobytes())
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        ready(NpzData(path, expects={**EXPECTED, "sha256": sha256.hexdigest()}))


@pytest.mark.parametrize(
    ("changes", "found"),
    [
        ({"classes": 3}, "Tiny has 10 classes, but the data has 3."),
        ({"shape": (8, 9)}, "Tiny has samples (1, 8, 8), but the data has (1, 8, 9)."),
        ({"shape": (8, 8, 3)}, "Tiny has samples (1, 8, 8), but the data has (3, 8, 8)."),
    ],
)
def test_other_classes_and_shapes_are_refused(tmp_path, changes, found):
    with pytest.raises(ValueError) as caught:
        ready(NpzData(tiny(tmp_path, **changes), expects=EXPECTED))
    assert str(caught.value) == f"{found} {HINT}"


@pytest.mark.parametrize(
    ("n", "said"),
    [
        (100, "Tiny has 200 train, 20 test samples, but the data has 100 train, 10 test."),
        (200, "the data is not Tiny as published: its sha256 is "),
    ],
    ids=["fewer", "others"],
)
def test_other_samples_get_a_warning(tmp_path, n, said):
    with pytest.warns(UserWarning, match="Tiny") as caught:
        data = ready(NpzData(tiny(tmp_path, n=n), expects={**EXPECTED, "sha256": "0" * 64}))
    assert [str(one.message).startswith(said) for one in caught] == [True]
    assert data.num_classes == K


def test_the_digest_sees_each_pixel_each_label_and_their_order():
    x, y = torch.arange(24, dtype=torch.uint8).view(6, 1, 2, 2), torch.arange(6)
    other = x.clone()
    other[5, 0, 1, 1] = 0
    variants = [(x, y), (other, y), (x, y.flip(0)), (x.flip(0), y.flip(0))]
    assert len({digest({"train": pair}) for pair in variants}) == len(variants)


@pytest.mark.parametrize("options", [{"classes": 3}, {"name": "A", "shapes": [1]}])
def test_an_unknown_expectation_is_refused(options):
    with pytest.raises(ValueError, match="expects must have name and may have classes, shape, samples, sha256, get"):
        Expected.of(options)


def test_a_folder_is_compared_as_published_whatever_size_it_is_read_at(folder):
    right = {"name": "Small", "classes": K, "shape": [3, 32, 32], "samples": {"train": 100, "test": 20}}
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert ready(ImageFolderData(str(folder), image_size=8, expects=right)).input_shape == (3, 8, 8)
    with pytest.raises(ValueError, match=r"Small has samples \(3, 28, 28\), but the data has \(3, 32, 32\)\."):
        ready(ImageFolderData(str(folder), expects={**right, "shape": [3, 28, 28]}))
    with pytest.raises(ValueError, match=r"Small has 100 classes, but the data has 10\."):
        ready(ImageFolderData(str(folder), expects={**right, "classes": 100}))


def test_another_folder_is_told_what_it_should_be(tmp_path):
    expects = {"name": "Small", "get": {"path": "small.tar from https://example.org"}}
    with pytest.raises(FileNotFoundError, match=r"jpg images\. Small: small\.tar from https://example\.org$"):
        ready(ImageFolderData(str(tmp_path), expects=expects))


# Fewer samples


def kept(path, count, **options):
    data = ready(NpzData(path, limit_train=count, **options))
    return data, set(data.train_set.x[:, 0, 0, 0].tolist())


def test_a_limit_keeps_so_many_of_each_class_and_those_of_a_smaller_one(tmp_path):
    path = tiny(tmp_path)
    (everything, all_of_them), (some, more), (_, few) = kept(path, None), kept(path, 90), kept(path, 40)
    assert len(few) == 40
    assert few < more < all_of_them
    assert some.train_labels.bincount().tolist() == [9] * K
    assert torch.equal(some.val_set.x, everything.val_set.x)
    assert len(some.test_set) == 20
    assert kept(path, 40)[1] == few != kept(path, 40, split_seed=1)[1]
    assert kept(path, 180)[1] == all_of_them


def test_a_limit_above_what_there_is_is_refused(tmp_path):
    with pytest.raises(
        ValueError, match="limit_train must be at most the 180 training samples that there are, got 181"
    ):
        kept(tiny(tmp_path), 181)


def test_fewer_images_keep_their_labels_of_a_file(folder, tmp_path):
    labels = np.random.default_rng(1).integers(0, K, 100)
    np.save(tmp_path / "people.npy", labels)
    data = ready(ImageFolderData(str(folder), limit_train=50, noisy_labels=str(tmp_path / "people.npy")))
    index = [int(path[-9:-4]) for path in data.train_set.paths]
    assert len(index) == 50
    assert data.train_labels.tolist() == labels[index].tolist()
    assert data.train_labels_clean.tolist() == [one % K for one in index]


# CIFAR-10's archive


def test_the_archive_becomes_a_folder_pixel_for_pixel(tmp_path, capsys):
    rows = archive(tmp_path / "small.tar.gz")
    cifar10.main([str(tmp_path / "small.tar.gz"), str(tmp_path / "cifar10")])
    assert capsys.readouterr().out == f"120 images in {tmp_path / 'cifar10'}\n"
    assert len(list((tmp_path / "cifar10").rglob("*.png"))) == 120
    for split, index, row in (("train", 47, rows["data_batch_3.bin"][7]), ("test", 19, rows["test_batch.bin"][19])):
        file = tmp_path / "cifar10" / split / cifar10.CLASSES[row[0]] / f"{index:05d}.png"
        pixels = np.asarray(Image.open(file))
        assert np.array_equal(pixels, np.stack([row[1:1025], row[1025:2049], row[2049:]], -1).reshape(32, 32, 3))
    assert list(cifar10.CLASSES) == sorted(cifar10.CLASSES)  # as a folder is numbered


@pytest.mark.parametrize(
    ("make", "said"),
    [
        (lambda folder: (folder / "a.tar.gz").write_bytes(b"no archive"), "file could not be opened"),
        (lambda folder: tarfile.open(folder / "a.tar.gz", "w:gz").close(), "must hold data_batch_1.bin, but does not"),
        (lambda folder: (folder / "out").mkdir(), "must not exist yet, but does"),
        (lambda folder: None, "No such file or directory"),
    ],
    ids=["no archive", "another", "folder exists", "missing"],
)
def test_another_archive_gets_one_line(tmp_path, capsys, make, said):
    make(tmp_path)
    with pytest.raises(SystemExit) as caught:
        cifar10.main([str(tmp_path / "a.tar.gz"), str(tmp_path / "out")])
    err = capsys.readouterr().err
    assert caught.value.code == 2
    assert err.startswith("error: ")
    assert said in err
    assert err.count("\n") == 1


# The experiments


@pytest.mark.parametrize(
    ("typed", "said"),
    [
        (["mnist"], "data.path is needed, got nothing: data.path=<value>. MNIST: mnist.npz from https://storage."),
        (["mnist", "data.path=no.npz"], "got 'no.npz' (from {cwd}). MNIST: mnist.npz from https://storage."),
        (["cifar10"], "data.path is needed, got nothing: data.path=<value>. CIFAR-10: the folder that python -m ls_"),
        (["cifar10n", "data.path=."], "got 'cifar10n.npz' (from {cwd}). CIFAR-10: cifar10n.npz, which python -c "),
    ],
)
def test_missing_data_gets_one_line_with_its_source(tmp_path, monkeypatch, capsys, typed, said):
    assert run_here(monkeypatch, tmp_path, f"experiment={typed[0]}", *typed[1:], "hydra.run.dir=job") == 2
    err = capsys.readouterr().err
    assert said.format(cwd=tmp_path) in err
    assert err.startswith("error: data.")
    assert err.count("\n") == 1


@pytest.mark.slow
def test_an_experiment_trains_on_the_folder_and_the_labels_of_its_key(folder, tmp_path):
    labels = {key: (np.arange(100) + shift) % K for key, shift in (("aggre_label", 0), ("worse_label", 1))}
    np.savez(tmp_path / "people.npz", **labels)
    typed = ["experiment=cifar10n", f"data.path={folder}", "data.noisy_labels=people.npz", "data.limit_train=50"]
    code, _, err = run(tmp_path, *typed, "data.val_fraction=0.2", *QUICK, "hydra.run.dir=job")
    assert code == 0, err
    assert "CIFAR-10 has 50000 train, 10000 test samples, but the data has 100 train, 20 test." in err
    found = result(tmp_path / "job")
    assert (found["label_noise"], found["model"], found["eps"]) == ({"train": 1.0, "val": 0.0}, "resnet", 0.1)
    assert found["metrics"]["test"]["n"] == 20
