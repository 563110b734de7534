"""From texts to what a network reads: bags of n-grams, or the numbers of words. Learnt from training texts alone."""

import re
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from typing import Any

import torch
from torch import Tensor

FEATURES = ("tfidf", "hashing", "tokens")
PADDING, UNKNOWN = 0, 1

_WORD = r"(?u)\b\w+\b"


class SparseRows:
    r"""Rows of a sparse matrix that become dense when they are asked for, as a batch needs them.

    Times the root of D: a row of length 1 then has entries of the size of standardised inputs.

    Args:
        matrix: of scipy, ``(N, D)``, compressed by rows.

    Example:
        >>> from scipy.sparse import csr_matrix
        >>> SparseRows(csr_matrix([[0.0, 1.0, 0.0, 0.0]]))[torch.tensor([0])]
        tensor([[0., 2., 0., 0.]])
    """

    def __init__(self, matrix: Any) -> None:
        self.matrix = matrix.tocsr()
        self._scale = float(matrix.shape[1]) ** 0.5

    def __len__(self) -> int:
        return int(self.matrix.shape[0])

    def __getitem__(self, rows: int | Tensor) -> Tensor:
        places = [rows] if isinstance(rows, int) else rows.numpy()
        dense: Tensor = self._scale * torch.from_numpy(self.matrix[places].toarray()).to(torch.float32)
        return dense[0] if isinstance(rows, int) else dense


class BagOfWords:
    """N-grams of words, weighted and scaled to length 1, by scikit-learn.

    Args:
        texts: of training: they alone decide on the vocabulary and the weights.
        hashing: counts at places that a hash decides on, without a vocabulary; else tf-idf of the most frequent.
        ngrams: the longest, at least 1; single words are always among them.
        max_features: D at most; with ``hashing`` exactly.

    Raises:
        ModuleNotFoundError: scikit-learn is missing.

    Example:
        >>> bag = BagOfWords(["red fish", "blue fish"], hashing=False, ngrams=1, max_features=100)
        >>> bag(["green fish"])[0].nonzero().flatten().tolist()
        [1]
    """

    def __init__(self, texts: Sequence[str], *, hashing: bool, ngrams: int, max_features: int) -> None:
        options: dict[str, Any] = {"ngram_range": (1, ngrams), "token_pattern": _WORD}
        extraction = _sklearn_text()
        if hashing:
            self._vectorizer = extraction.HashingVectorizer(n_features=max_features, alternate_sign=False, **options)
        else:
            self._vectorizer = extraction.TfidfVectorizer(max_features=max_features, sublinear_tf=True, **options)
        self._vectorizer.fit(texts)

    def __call__(self, texts: Sequence[str]) -> SparseRows:
        """Their rows; a text without a known word is a row of zeros."""
        return SparseRows(self._vectorizer.transform(texts))


class WordNumbers:
    """The words of a text by their numbers: 0 fills up at the end, 1 is a word that training did not have.

    Args:
        texts: of training.
        max_features: words to know, the most frequent ones.
        max_tokens: T; longer texts are cut.

    Attributes:
        num_tokens: the highest number.

    Example:
        >>> words = WordNumbers(["red fish", "blue fish"], max_features=100, max_tokens=3)
        >>> words(["Green fish!"]), words.num_tokens
        (tensor([[1, 2, 0]]), 4)
    """

    def __init__(self, texts: Iterable[str], *, max_features: int, max_tokens: int) -> None:
        counts = Counter(word for text in texts for word in _words(text))
        ranked = sorted(counts, key=lambda word: (-counts[word], word))[:max_features]
        self._number = {word: number for number, word in enumerate(ranked, UNKNOWN + 1)}
        self._max_tokens = max_tokens
        self.num_tokens = UNKNOWN + len(ranked)

    def __call__(self, texts: Sequence[str]) -> Tensor:
        """Int64 ``(N, T)``."""
        numbers = torch.full((len(texts), self._max_tokens), PADDING)
        for row, text in enumerate(texts):
            found = [self._number.get(word, UNKNOWN) for word in _words(text)[: self._max_tokens]]
            numbers[row, : len(found)] = torch.tensor(found, dtype=torch.int64)
        return numbers


Encoder = Callable[[Sequence[str]], Any]  # SparseRows, or a tensor: both are indexed alike


def _words(text: str) -> list[str]:
    return re.findall(_WORD, text.lower())


def _sklearn_text() -> Any:
    try:
        from sklearn.feature_extraction import text
    except ModuleNotFoundError as error:
        if (error.name or "").partition(".")[0] != "sklearn":
            raise
        raise ModuleNotFoundError(
            "bags of words need scikit-learn: pip install 'ls-lightning[data]'; data.features=tokens does not.",
            name="sklearn",
        ) from None
    return text
