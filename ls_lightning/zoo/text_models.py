"""A small network for texts: ``TextCNN(input_shape, K, num_tokens)`` maps numbers of words ``(N, T)`` to logits."""

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from .checks import check_int, check_ints, check_share
from .text_features import PADDING


class TextCNN(nn.Module):
    r"""Convolutions over the words of a text, the largest answer of each filter, a linear layer.

    .. math:: h_w = \max_t \mathrm{relu}(W_w\,[e_t, \dots, e_{t+w-1}] + b_w),\quad z = W [h_{w_1}, h_{w_2}, \dots] + b

    with :math:`e_t` the embedding of word t. Windows that begin in the padding do not count, so logits do not depend
    on how far a text is filled up.

    Args:
        input_shape: ``(T,)``, words of a text.
        num_outputs: K, at least 1.
        num_tokens: words are numbered 1 to ``num_tokens``; 0 is padding, at the end of a text. None, where the data
            has no such numbers, is refused.
        width: of the embedding.
        channels: filters of each window.
        windows: how many words each sees.
        dropout: probability of zeroing an answer in training, in [0, 1).

    Returns:
        Called with int64 ``(N, T)``: logits ``(N, K)``.

    Raises:
        ValueError: the data gives no numbers of words, a size is not a positive integer, or ``dropout`` is outside
            [0, 1).

    Example:
        >>> net = TextCNN((4,), 3, num_tokens=10).eval()
        >>> short, long = torch.tensor([[7, 8]]), torch.tensor([[7, 8, 0, 0]])
        >>> torch.allclose(net(short), net(long))
        True

    Source: Kim 2014, arXiv:1408.5882.
    """

    def __init__(
        self,
        input_shape: Sequence[int],
        num_outputs: int,
        num_tokens: int | None = None,
        *,
        width: int = 64,
        channels: int = 64,
        windows: Sequence[int] = (1, 2, 3),
        dropout: float = 0.0,
    ) -> None:
        super().__init__()
        if num_tokens is None:
            raise ValueError(
                f"model=text_cnn needs numbers of words, data gives shape {tuple(input_shape)}. "
                "Use data=text_file data.features=tokens, or model=mlp."
            )
        self.windows, maps = check_ints("windows", windows), check_int("channels", channels)
        check_share("dropout", dropout, zero=True)
        self.embedding = nn.Embedding(check_int("num_tokens", num_tokens) + 1, check_int("width", width), PADDING)
        self.convolutions = nn.ModuleList(nn.Conv1d(width, maps, size) for size in self.windows)
        self.dropout = nn.Dropout(dropout)
        self.head = nn.Linear(maps * len(self.windows), check_int("num_outputs", num_outputs))

    def forward(self, x: Tensor) -> Tensor:
        """Logits ``(N, K)`` of numbers of words ``(N, T)``."""
        words = self.embedding(x).transpose(1, 2)
        counted = x[:, None] != PADDING
        found = [self._largest(convolution, words, counted) for convolution in self.convolutions]
        logits: Tensor = self.head(self.dropout(torch.cat(found, 1)))
        return logits

    def _largest(self, convolution: nn.Module, words: Tensor, counted: Tensor) -> Tensor:
        filled = nn.functional.pad(words, (0, max(self.windows)))
        answers: Tensor = convolution(filled)[..., : words.shape[2]].relu()
        return (answers * counted).amax(-1)
