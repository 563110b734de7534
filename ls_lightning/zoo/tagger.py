"""Tagger: a small recurrent network, logits for every token of a sequence."""

from torch import Tensor, nn
from torch.nn.utils.rnn import pack_padded_sequence, pad_packed_sequence

from .checks import check_int, check_share


class Tagger(nn.Module):
    r"""A gated recurrent unit in each direction over the tokens' embeddings.

    .. math:: z_t = W\,[\overrightarrow{\mathrm{gru}}(x_{1:t});\ \overleftarrow{\mathrm{gru}}(x_{t:T})] + b

    Padding is not read: a sequence has the same logits whatever it is padded to.

    Args:
        num_outputs: K, at least 1.
        num_tokens: tokens are numbered 1 to ``num_tokens``; 0 is padding, at the end of a sequence.
        width: of the embedding and of the state in each direction.
        dropout: probability of zeroing a feature before the last layer in training, in [0, 1).

    Returns:
        Called with int64 ``(N, T)``: logits ``(N, K, T)``.

    Raises:
        ValueError: a size is not a positive integer, or ``dropout`` is outside [0, 1).

    Example:
        >>> import torch
        >>> Tagger(3, num_tokens=9, width=4)(torch.tensor([[1, 9, 2], [5, 0, 0]])).shape
        torch.Size([2, 3, 3])

    Source: Cho et al. 2014, arXiv:1406.1078 (gated recurrent unit).
    """

    def __init__(self, num_outputs: int, num_tokens: int, *, width: int = 32, dropout: float = 0.0) -> None:
        super().__init__()
        outputs, tokens = check_int("num_outputs", num_outputs), check_int("num_tokens", num_tokens)
        size = check_int("width", width)
        self.embedding = nn.Embedding(tokens + 1, size, padding_idx=0)
        self.gru = nn.GRU(size, size, batch_first=True, bidirectional=True)
        self.head = nn.Sequential(nn.Dropout(check_share("dropout", dropout, zero=True)), nn.Linear(2 * size, outputs))

    def forward(self, tokens: Tensor) -> Tensor:
        """Logits ``(N, K, T)`` of tokens ``(N, T)``."""
        lengths = (tokens != 0).sum(1).clamp(min=1).cpu()
        packed = pack_padded_sequence(self.embedding(tokens), lengths, batch_first=True, enforce_sorted=False)
        states, _ = pad_packed_sequence(self.gru(packed)[0], batch_first=True, total_length=tokens.shape[1])
        logits: Tensor = self.head(states)
        return logits.movedim(2, 1)
