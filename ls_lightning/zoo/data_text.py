"""Texts with one label each, from wherever a subclass finds them."""

from collections.abc import Mapping
from typing import Any, Unpack

import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from .checks import check_choice, check_int, check_share
from .data_base import ClassificationData, LoaderOptions, Part, Parts
from .data_limit import limited, rows_of
from .data_memory import TensorPairs
from .data_splits import split_indices
from .expected import Expected
from .text_features import FEATURES, BagOfWords, Encoder, WordNumbers
from .text_table import Rows, TextTable, class_names, digest

_FRACTIONS = {"val": 0.1, "test": 0.2}
_OF_VAL = ("val", "validation", "valid", "dev")
_MAX_TOKENS = 32


class TextOptions(LoaderOptions, total=False):
    """The options that every data module of texts takes; explained in `TextData`."""

    task: str
    num_classes: int | None
    unknown: str | None
    features: str
    ngrams: int
    max_features: int
    max_tokens: int | None
    val_fraction: float | None
    test_fraction: float | None
    limit_train: int | None
    expects: Mapping[str, Any] | None


class TextData(ClassificationData):
    """Base of the data modules of texts: a subclass has `find`.

    Splits ``train``, ``val`` (or else validation, valid, dev) and ``test`` are taken as they are; one that is not
    there is cut from ``train``. Vocabulary and weights come from the training split alone. Inputs are ``(N, D)``,
    float32, or with ``features="tokens"`` numbers of words ``(N, T)``, int64, for ``model=text_cnn``. Classes are in
    the order of their names, or of their values where all are numbers; ``noisy_labels`` finds a text by its place in
    ``train``.

    Args:
        task: ``"multiclass"``, or ``"binary"`` for two classes.
        num_classes: K, if it is to be checked against the labels.
        unknown: a split, or a label, whose texts belong to no class: nothing is trained on them, and
            :class:`~ls_lightning.OutOfScope` measures how sure the model is of those of the split, or of those of the
            label in ``test``; in all of the file, where there is no such split.
        features: ``"tfidf"``, ``"hashing"``, or ``"tokens"`` for the order of words.
        ngrams: of the bags: the most words that make one feature.
        max_features: features, or words to know.
        max_tokens: of ``"tokens"``: words of a text that are read; None is 32.
        val_fraction: share of ``train`` to validate on if there is no such split, in (0, 1); None is 0.1.
        test_fraction: the same for testing; None is 0.2.
        limit_train: train on so many texts, of each class its share; None: on all.
        expects: what a known data set looks like, see `Expected`; None: anything.
        **options: see `ClassificationData`.

    Attributes:
        num_tokens: with ``features="tokens"``, the highest number of a word.
        unknown_set: the unknown texts.

    Raises:
        ValueError: an option is out of range or, in ``setup``, texts, labels or splits do not fit.
        ModuleNotFoundError: in ``setup``, scikit-learn is missing and ``features`` needs it.
    """

    unknown_set: Dataset[Any] | None = None

    def __init__(
        self,
        *,
        task: str = "multiclass",
        num_classes: int | None = None,
        unknown: str | None = None,
        features: str = "tfidf",
        ngrams: int = 1,
        max_features: int = 5000,
        max_tokens: int | None = None,
        val_fraction: float | None = None,
        test_fraction: float | None = None,
        limit_train: int | None = None,
        expects: Mapping[str, Any] | None = None,
        **options: Unpack[LoaderOptions],
    ) -> None:
        super().__init__(task, **options)
        if task == "multilabel":
            raise ValueError("task=multilabel does not fit texts of one label each. Use data=npz.")
        self.expected_classes = None if num_classes is None else check_int("num_classes", num_classes, least=2)
        self.unknown = None if unknown is None else str(unknown)  # a label may be a number
        self.features = check_choice("features", features, FEATURES)
        self.ngrams, self.max_features = check_int("ngrams", ngrams), check_int("max_features", max_features)
        self.max_tokens = _MAX_TOKENS if max_tokens is None else check_int("max_tokens", max_tokens)
        if features == "tokens" and ngrams > 1:
            raise ValueError(f"ngrams={ngrams} is of bags of words, and features=tokens has none. Leave ngrams out.")
        if features != "tokens" and max_tokens is not None:
            raise ValueError(f"max_tokens={max_tokens} is for features=tokens, got features={features}. Leave it out.")
        self.fractions = {
            name: None if value is None else check_share(f"{name}_fraction", value)
            for name, value in (("val", val_fraction), ("test", test_fraction))
        }
        self.limit_train = None if limit_train is None else check_int("limit_train", limit_train)
        self.expects = Expected.of(expects)

    def find(self) -> Mapping[str, TextTable]:
        """The splits by name."""
        raise NotImplementedError

    def load(self) -> Parts:
        """Read and check the texts; cut the splits off that are not there."""
        found, self._unknown_texts = self._without_unknown(self.find())
        if "train" not in found:
            raise ValueError(f"{type(self).__name__} needs a split train, got {', '.join(found) or 'none'}.")
        self.classes = class_names(found["train"].labels)
        self.num_classes = self._count_classes()
        if self.expects is not None:
            sizes = {name: len(rows.texts) for name, rows in found.items()}
            self.expects.check(classes=self.num_classes, samples=sizes, sha256=digest(found))
        parts = {name: Part(rows.texts, self._indices(name, rows.labels)) for name, rows in found.items()}
        self.num_labels = len(parts["train"].labels)
        return self._cut(parts["train"]._replace(ids=range(self.num_labels)), parts)

    def datasets(self, parts: Parts) -> tuple[Dataset[Any], Dataset[Any], Dataset[Any]]:
        """Sets of the encoded texts; what encodes them has seen the training texts alone."""
        encode = self._encoder(parts.train.x)
        if self._unknown_texts:
            zeros = self._targets(torch.zeros(len(self._unknown_texts), dtype=torch.int64))
            self.unknown_set = TensorPairs(encode(self._unknown_texts), zeros)
        train, val, test = (TensorPairs(encode(part.x), part.labels) for part in parts)
        return train, val, test

    def ood_dataloader(self) -> DataLoader[Any] | None:
        """The unknown texts, with 0 in the place of labels; None if ``unknown`` names none."""
        return None if self.unknown_set is None else self._loader(DataLoader, self.unknown_set, self.eval_batch_size)

    def _encoder(self, texts: list[str]) -> Encoder:
        if self.features == "tokens":
            words = WordNumbers(texts, max_features=self.max_features, max_tokens=self.max_tokens)
            self.num_tokens = words.num_tokens
            return words
        hashing = self.features == "hashing"
        return BagOfWords(texts, hashing=hashing, ngrams=self.ngrams, max_features=self.max_features)

    def _without_unknown(self, tables: Mapping[str, TextTable]) -> tuple[dict[str, Rows], list[str]]:
        val = next((name for name in _OF_VAL if name in tables), "val")
        named = {"val" if name == val else name: table for name, table in tables.items()}
        apart = named.pop(self.unknown, None) if self.unknown is not None else None
        found: dict[str, Rows] = {name: named[name].read() for name in ("train", "val", "test") if name in named}
        if self.unknown is None or apart is not None:
            return found, [] if apart is None else apart.read(labelled=False).texts
        home = "test" if "test" in found else "train"  # of one file, whose other texts are cut into splits
        texts = [text for text, label in zip(*found.get(home, Rows([], [])), strict=True) if label == self.unknown]
        if not texts:
            there = class_names(found[home].labels) if home in found else []
            raise ValueError(
                f"data.unknown must be a split ({', '.join(tables)}), or a label in {home} ({', '.join(there[:8])}"
                f"{', ...' * (len(there) > 8)}), got {self.unknown!r}."
            )
        return {name: _without(rows, self.unknown) for name, rows in found.items()}, texts

    def _count_classes(self) -> int:
        count = len(self.classes)
        if self.expected_classes not in (None, count):
            raise ValueError(f"data.num_classes={self.expected_classes}, but train has {count} classes.")
        if count < 2 or (self.task == "binary" and count > 2):
            need = "task=binary needs 2 classes" if self.task == "binary" else "a classifier needs at least 2 classes"
            raise ValueError(f"{need}, but train has {count}: {', '.join(self.classes[:5])}.")
        return count

    def _indices(self, split: str, labels: list[str]) -> Tensor:
        number = {name: index for index, name in enumerate(self.classes)}
        strange = sorted(set(labels) - number.keys())
        if strange:
            more = f", and {len(strange) - 1} more," if len(strange) > 1 else ""
            raise ValueError(
                f"{split} has the label {strange[0]!r}{more} which train has not. Train on it too, leave it out, or "
                f"measure its texts as unknown input: data.unknown={strange[0]}."
            )
        return torch.tensor([number[label] for label in labels])

    def _cut(self, train: Part, found: Mapping[str, Part]) -> Parts:
        """Splits of their own as they are; the others out of ``train``."""
        shares = {name: self._share(name, found) for name in ("val", "test")}
        at = split_indices(train.labels, shares["val"], shares["test"], self.split_seed)
        val, test = (found.get(name) or rows_of(train, getattr(at, name)) for name in ("val", "test"))
        return Parts(limited(rows_of(train, at.train), self.limit_train, self.split_seed), val, test)

    def _share(self, name: str, found: Mapping[str, Part]) -> float:
        given = self.fractions[name]
        if name not in found:
            return _FRACTIONS[name] if given is None else given
        if given is not None:
            raise ValueError(f"{name}_fraction={given}, but there is a split {name}. Leave {name}_fraction out.")
        return 0.0


def _without(rows: Rows, label: str) -> Rows:
    kept = [pair for pair in zip(*rows, strict=True) if pair[1] != label]
    return Rows([text for text, _ in kept], [name for _, name in kept])
