"""Texts from files and from data sets of Hugging Face; scikit-learn judges the bags, a loop the network."""

import csv
import io
import json
from pathlib import Path

import numpy as np
import pytest
import torch
from cli import result, run_here
from sklearn.feature_extraction.text import HashingVectorizer, TfidfVectorizer

from ls_lightning.sweep.jobs import read_job
from ls_lightning.zoo.data_hf import HFDatasetData
from ls_lightning.zoo.data_text_file import TextFileData
from ls_lightning.zoo.text_models import TextCNN

PLACES = ["park", "lake", "old town", "harbour", "museum"]
TRAIN = [
    [f"{word} the way to the {place}", label] for place in PLACES for word, label in (("show", "go"), ("pay", "buy"))
]
TEST = [["show a zebra", "go"], ['Pay\tthe way, "please"', "buy"], ["way", "go"]]
STRANGE = [["how tall is it", "oos"], ["sing", "oos"]]
SPLITS = {"train": TRAIN, "val": TRAIN[:4], "test": TEST, "oos_test": STRANGE, "oos_train": STRANGE}
PATTERN = r"(?u)\b\w+\b"


def named(rows, **more):
    return [{"text": text, "label": label, **more} for text, label in rows]


def table(rows, delimiter=","):
    out = io.StringIO()
    writer = csv.DictWriter(out, list(rows[0]), delimiter=delimiter)
    writer.writeheader()
    writer.writerows(rows)
    return out.getvalue()


def lines(rows):
    return "".join(json.dumps(row) + "\n" for row in rows)


def of_column(splits):
    return [row for name, rows in splits.items() for row in named(rows, part=name)]


def splits_file(folder, splits=SPLITS):
    (folder / "mine.json").write_text(json.dumps(splits))
    return folder / "mine.json"


def ready(data):
    data.setup("fit")
    return data


def tensors(dataset):
    return dataset.__getitems__(range(len(dataset)))


FORMS = {
    "mine.json": json.dumps(SPLITS),
    "objects.json": json.dumps({name: named(rows) for name, rows in SPLITS.items()}),
    "mine.csv": table(of_column(SPLITS)),
    "mine.tsv": table(of_column(SPLITS), "\t"),
    "mine.jsonl": "\ufeff" + lines(of_column(SPLITS)),
    "folder": {f"{name}.csv": table(named(rows)) for name, rows in SPLITS.items()},
    "mixed": {f"{'validation' if name == 'val' else name}.jsonl": lines(rows) for name, rows in SPLITS.items()},
}


@pytest.mark.parametrize("name", FORMS)
def test_every_form_holds_the_same(name, tmp_path):
    files = FORMS[name]
    if isinstance(files, dict):
        (tmp_path / name).mkdir()
    for file, text in files.items() if isinstance(files, dict) else [("", files)]:
        (tmp_path / name / file).write_text(text, encoding="utf-8")
    split = {"split": "part"} if name in ("mine.csv", "mine.tsv", "mine.jsonl") else {}
    data = ready(TextFileData(str(tmp_path / name), unknown="oos_test", **split))
    judge = TfidfVectorizer(token_pattern=PATTERN, sublinear_tf=True).fit([text for text, _ in TRAIN])
    for dataset, rows in ((data.train_set, TRAIN), (data.val_set, TRAIN[:4]), (data.test_set, TEST)):
        x, y = tensors(dataset)
        wanted = judge.transform([text for text, _ in rows]).toarray()
        torch.testing.assert_close(x, torch.tensor(wanted * wanted.shape[1] ** 0.5, dtype=torch.float32))
        assert y.tolist() == [["buy", "go"].index(label) for _, label in rows]
    assert (data.classes, data.num_classes, data.input_shape) == (["buy", "go"], 2, (len(judge.vocabulary_),))
    assert "zebra" not in judge.vocabulary_
    ((x, y),) = list(data.ood_dataloader())
    assert (x.shape, y.tolist()) == ((2, len(judge.vocabulary_)), [0, 0])


def test_hashed_pairs_of_words(tmp_path):
    data = ready(TextFileData(splits_file(tmp_path), features="hashing", ngrams=2, max_features=64))
    judge = HashingVectorizer(n_features=64, alternate_sign=False, ngram_range=(1, 2), token_pattern=PATTERN)
    wanted = 8 * torch.tensor(judge.transform([text for text, _ in TEST]).toarray(), dtype=torch.float32)
    torch.testing.assert_close(tensors(data.test_set)[0], wanted)
    torch.testing.assert_close(data.test_set[1][0], wanted[1])


def test_words_by_number(tmp_path):
    data = ready(TextFileData(splits_file(tmp_path), features="tokens", max_features=4, max_tokens=5))
    # the, then pay, show, to and way as often as each other: the first three by the alphabet
    number = {"the": 2, "to": 3, "way": 4, "pay": 5}
    assert data.num_tokens == 5
    words = [["show", "a", "zebra"], ["pay", "the", "way", "please"], ["way"]]
    wanted = [[number.get(word, 1) for word in row] + [0] * (5 - len(row)) for row in words]
    assert tensors(data.test_set)[0].tolist() == wanted
    assert tensors(data.train_set)[0].shape == (10, 5)


def test_splits_by_fraction_follow_their_seed_alone(tmp_path):
    rows = [[f"word{k} is said {k} times", str(k % 3 + 9)] for k in range(60)]
    (tmp_path / "mine.json").write_text(json.dumps(rows))
    options = {"val_fraction": 0.2, "test_fraction": 0.3, "features": "hashing"}
    found = []
    for split_seed, label_noise in ((0, 0.0), (0, 0.5), (1, 0.0)):
        torch.manual_seed(split_seed + 7)
        data = ready(TextFileData(tmp_path / "mine.json", split_seed=split_seed, label_noise=label_noise, **options))
        assert (len(data.train_set), len(data.val_set), len(data.test_set)) == (30, 12, 18)
        assert (data.classes, data.train_labels_clean.bincount().tolist()) == (["9", "10", "11"], [10, 10, 10])
        assert data.measured_noise == {"train": label_noise, "val": 0.0}
        found.append(tensors(data.val_set)[0])
    assert torch.equal(found[0], found[1])
    assert not torch.equal(found[0], found[2])
    few = ready(TextFileData(tmp_path / "mine.json", limit_train=6, **options))
    assert few.train_labels.bincount().tolist() == [2, 2, 2]
    np.save(tmp_path / "theirs.npy", np.arange(60) % 2)
    theirs = ready(TextFileData(tmp_path / "mine.json", noisy_labels=str(tmp_path / "theirs.npy"), **options))
    assert len(theirs.train_labels.unique()) == 2


def test_a_label_of_unknown_texts(tmp_path):
    rows = {"train": TRAIN + STRANGE, "test": TEST + STRANGE[:1]}
    data = ready(TextFileData(splits_file(tmp_path, rows), unknown="oos", val_fraction=0.2))
    assert data.classes == ["buy", "go"]
    assert [len(one) for one in (data.train_set, data.val_set, data.test_set, data.unknown_set)] == [8, 2, 3, 1]


ENDS = {"train": TRAIN, "test": TEST}
WRONG = [
    ("no_train", {"test": TEST}, {}, "needs a split train, got test"),
    ("empty_split", {**ENDS, "val": []}, {}, r"mine.json \(val\) must hold texts, but has no row"),
    ("empty_text", {"train": [*TRAIN, [" ", "go"]]}, {}, r"row 11: text must hold words, got ' '"),
    ("no_text", {"train": [*TRAIN, [3, "go"]]}, {}, "row 11: text must hold words, got 3"),
    ("no_label", {"train": [*TRAIN, ["x", None]]}, {}, "row 11: label must be the name or the number of a class"),
    ("column", {"train": named(TRAIN)}, {"text": "query"}, "have a column 'query', it has text, label. Use data.te"),
    ("shape", {"train": [*TRAIN, ["a", "b", "c"]]}, {}, "row 11 must be an object with 'text' and 'label', or a pair"),
    ("unseen", {**ENDS, "test": [["x", "fly"], ["y", "run"]]}, {}, "test has the label 'fly', and 1 more, which train"),
    ("one_class", {"train": TRAIN[::2]}, {}, "at least 2 classes, but train has 1: go"),
    ("three", {"train": [*TRAIN, ["x", "fly"]]}, {"task": "binary"}, "task=binary needs 2 classes, but train has 3"),
    ("count", ENDS, {"num_classes": 150}, "num_classes=150, but train has 2"),
    ("expected", ENDS, {"expects": {"name": "CLINC150", "classes": 150}}, "CLINC150 has 150 classes, but"),
    ("unknown", ENDS, {"unknown": "oos"}, r"a split \(train, test\), or a label in test \(buy, go\), got 'oos'"),
    ("fraction", ENDS, {"test_fraction": 0.5}, "test_fraction=0.5, but there is a split test"),
    ("no_list", {"train": "x"}, {}, "must hold lists of rows, got 'x'"),
    ("by_column", ENDS, {"split": "part"}, "it has the splits train, test already"),
]  # fmt: skip


@pytest.mark.parametrize(("content", "options", "message"), [row[1:] for row in WRONG], ids=[row[0] for row in WRONG])
def test_what_is_wrong_is_said_in_a_line(content, options, message, tmp_path):
    with pytest.raises(ValueError, match=message) as error:
        ready(TextFileData(splits_file(tmp_path, content), **options))
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("latin.csv", "text,label\ncafé,a\n".encode("latin-1"), "must be UTF-8, but byte 14 is not"),
        ("ragged.csv", b"text,label\nI go, now,a\n", "it has 2 columns, but a row with 3 cells"),
        ("broken.json", b"[[", "cannot read .*broken.json"),
        ("broken.jsonl", b'["a", "b"]\n["c"', "cannot read .*broken.jsonl"),
        ("mine.txt", b"text", "must be a folder or a file .csv, .tsv, .jsonl, .json, got"),
    ],
)
def test_a_file_that_cannot_be_read(name, content, message, tmp_path):
    (tmp_path / name).write_bytes(content)
    with pytest.raises(ValueError, match=message):
        ready(TextFileData(tmp_path / name))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"features": "words"}, "features must be one of tfidf, hashing, tokens"),
        ({"features": "tokens", "ngrams": 2}, "ngrams=2 is of bags"),
        ({"max_tokens": 9}, "max_tokens=9 is for features=tokens"),
        ({"task": "multilabel"}, "task=multilabel does not fit"),
    ],
)
def test_options_that_do_not_fit(options, message):
    with pytest.raises(ValueError, match=message):
        TextFileData("mine.csv", **options)


def test_the_network_is_its_formula_and_does_not_see_padding():
    torch.manual_seed(0)
    net = TextCNN((6,), 3, num_tokens=9, width=4, channels=5, windows=[1, 3]).double().eval()
    words = [[7, 8, 2, 9], [3]]
    found = net(torch.tensor([row + [0] * (6 - len(row)) for row in words]))
    rows = []
    for row in words:
        embedded = [net.embedding.weight[word] for word in row] + [torch.zeros(4).double()] * 3
        best = []
        for convolution, size in zip(net.convolutions, (1, 3), strict=True):
            windows = [torch.stack(embedded[start : start + size], 1) for start in range(len(row))]
            answers = [(convolution.weight * window).sum((1, 2)) + convolution.bias for window in windows]
            best.append(torch.stack(answers).clamp(min=0).amax(0))
        rows.append(net.head.weight @ torch.cat(best) + net.head.bias)
    torch.testing.assert_close(found, torch.stack(rows))
    torch.testing.assert_close(net(torch.tensor([words[0] + [0] * 40])), found[:1])


@pytest.fixture(scope="module")
def job(tmp_path_factory):
    """One job of the command line."""
    folder = tmp_path_factory.mktemp("job")
    splits_file(folder)
    with pytest.MonkeyPatch.context() as patch:
        typed = [
            "data=text_file",
            "data.path=mine.json",
            "data.features=tokens",
            "model=text_cnn",
            "data.unknown=oos_test",
        ]
        run = ["trainer=cpu", "trainer.max_epochs=2", "trainer.enable_progress_bar=false", "hydra.run.dir=job"]
        assert run_here(patch, folder, *typed, *run) == 0
    return folder / "job"


@pytest.mark.slow
def test_a_job_writes_what_it_is_of_unknown_texts(job):
    found = result(job)
    plain, scaled = found["metrics"]["test"], found["temperature"]["metrics"]["test"]
    assert (plain["n"], plain["oos_n"], scaled["oos_n"]) == (3, 2, 2)
    assert 0.5 <= plain["oos_confidence"] <= 1
    assert {name for name in plain if name.startswith("oos")} >= {"oos_auroc", "oos_fpr95", "oos_auroc_max_logit"}
    values = read_job(job).values
    assert values["test/oos_auroc"] == plain["oos_auroc"]
    assert values["test_scaled/oos_confidence"] == scaled["oos_confidence"]
    assert "test/oos_fpr95" in (job / "metrics.csv").read_text().splitlines()[0]


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (["data.features=tokens"], "gives numbers of words, which MLP does not read. Use a model that does"),
        (["model=text_cnn"], "model=text_cnn needs numbers of words, data gives shape"),
        (["experiment=clinc150"], "CLINC150 has 150 classes, but the data has 2"),
        (["experiment=clinc150", "data.path=none.json"], "clinc150.json is data_full.json of https://github.com/clinc"),
    ],
)
def test_the_command_line_says_what_to_do(overrides, message, tmp_path, monkeypatch, capsys):
    splits_file(tmp_path)
    typed = (
        ["data.path=mine.json", *overrides]
        if "experiment" in overrides[0]
        else ["data=text_file", "data.path=mine.json"]
    )
    assert run_here(monkeypatch, tmp_path, *dict.fromkeys([*typed, *overrides]), "hydra.run.dir=job") == 2
    assert message in capsys.readouterr().err
    assert not Path(tmp_path, "job").exists()


def test_a_data_set_of_hugging_face(tmp_path, monkeypatch):
    datasets = pytest.importorskip("datasets")

    def no_network(*named):
        raise ConnectionError(f"asked for {named}")

    kind = datasets.ClassLabel(names=["buy", "go", "oos"])

    def of(rows):
        columns = {"query": [text for text, _ in rows], "intent": [kind.str2int(label) for _, label in rows]}
        return datasets.Dataset.from_dict(columns).cast_column("intent", kind)

    parts = {"train": of(TRAIN), "validation": of(TRAIN[:4]), "test": of(TEST + STRANGE)}
    datasets.DatasetDict(parts).save_to_disk(str(tmp_path / "mine"))
    data = ready(HFDatasetData(str(tmp_path / "mine"), text="query", label="intent", unknown="oos"))
    same = ready(TextFileData(splits_file(tmp_path), unknown="oos_test"))
    for name in ("train_set", "val_set", "test_set", "unknown_set"):
        for found, wanted in zip(tensors(getattr(data, name)), tensors(getattr(same, name)), strict=True):
            torch.testing.assert_close(found, wanted)
    with pytest.raises(ValueError, match=r"'text', it has query, intent. Use data.text=<column> data.label="):
        ready(HFDatasetData(str(tmp_path / "mine")))
    monkeypatch.setattr(datasets, "load_dataset", no_network)
    with pytest.raises(
        ValueError, match=r"cannot load the data set 'some/one': asked for \('some/one', 'plus'\)\. data\.name"
    ):
        ready(HFDatasetData("some/one", subset="plus"))
    with pytest.raises(ValueError, match=r"data.subset is for a data set of the Hub"):
        ready(HFDatasetData(str(tmp_path / "mine"), subset="plus"))


def test_without_the_extras(tmp_path, monkeypatch):
    monkeypatch.setitem(__import__("sys").modules, "datasets", None)
    monkeypatch.setitem(__import__("sys").modules, "sklearn.feature_extraction", None)
    with pytest.raises(ModuleNotFoundError, match=r"data=hf_dataset needs datasets: pip install 'ls-lightning\[hf\]'"):
        ready(HFDatasetData("mine"))
    with pytest.raises(ModuleNotFoundError, match=r"scikit-learn: pip install 'ls-lightning\[data\]'"):
        ready(TextFileData(splits_file(tmp_path)))
    assert ready(TextFileData(splits_file(tmp_path), features="tokens")).num_tokens == 12


@pytest.mark.parametrize(
    ("lines", "said"),
    [
        (['{"text": "a", "label": 0}', '{"text": "b"'], "line 2 is no JSON"),
        (['{"text": "a", "label": 0}', '{"text": "b"}'], "row 2 has no 'label'"),
    ],
)
def test_the_line_that_is_wrong_is_named(tmp_path, lines, said):
    (tmp_path / "mine.jsonl").write_text("\n".join(lines))
    with pytest.raises(ValueError, match=said):
        TextFileData(str(tmp_path / "mine.jsonl")).setup("fit")


@pytest.mark.parametrize("sign", [",", ";", "\t", "|"])
def test_what_stands_between_columns_is_read_off_the_first_line(tmp_path, sign):
    rows = [{"text": f"{text}{sign} please", "label": label} for text, label in TRAIN + STRANGE]
    (tmp_path / "mine.csv").write_text(table(rows, sign))
    data = ready(TextFileData(str(tmp_path / "mine.csv"), val_fraction=0.2, unknown="oos"))
    # one file without splits: all texts of the unknown label are, none of them is trained on
    assert (data.classes, len(data.unknown_set)) == (["buy", "go"], len(STRANGE))
    assert sum(map(len, (data.train_set, data.val_set, data.test_set))) == len(TRAIN)


def test_semicolons_are_seen_before_columns_are_named(tmp_path):
    (tmp_path / "mine.csv").write_text('Message;Team\n"hello, you; there";a\n')
    with pytest.raises(ValueError, match=r"it has Message, Team\. Use data\.text=<column> data\.label=<column>"):
        ready(TextFileData(str(tmp_path / "mine.csv")))


def test_a_csv_without_names_of_columns_is_said_to_be(tmp_path):
    (tmp_path / "mine.csv").write_text("good morning,fine\nbad day,poor\n")
    with pytest.raises(
        ValueError, match=r"a column 'text', it has good morning, fine\. Use data\.text=<column> data\.label="
    ):
        ready(TextFileData(str(tmp_path / "mine.csv")))


def test_a_column_split_that_is_not_read_is_named(tmp_path):
    rows = [f"word{k},{k % 2},train" for k in range(30)]
    (tmp_path / "mine.csv").write_text("\n".join(["text,label,split", *rows]))
    with pytest.warns(UserWarning, match="Use data.split=split"):
        ready(TextFileData(str(tmp_path / "mine.csv")))
