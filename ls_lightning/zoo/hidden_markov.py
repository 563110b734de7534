"""A hidden Markov chain: draw sequences from it, and say what their tokens tell of their tags."""

from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True)
class HiddenMarkovChain:
    r"""Tags follow a Markov chain, and each tag emits a token.

    .. math:: P(y, x) = \pi_{y_1} B_{y_1 x_1} \prod_{t > 1} A_{y_{t-1} y_t} B_{y_t x_t}

    Tokens are numbered from 1; 0 is padding, at the end of a sequence.

    Args:
        start: pi ``(K,)``, float64: probabilities of the first tag.
        step: A ``(K, K)``, float64: rows are the probabilities of the next tag.
        emission: B ``(K, V)``, float64: rows are the probabilities of the tokens of a tag.

    Example:
        >>> chain = HiddenMarkovChain.circular(3, 6, noise=0.1)
        >>> tags, tokens = chain.sample(2, 5, torch.Generator().manual_seed(0))
        >>> tags.shape, tokens.shape, chain.log_posterior(tokens).shape
        (torch.Size([2, 5]), torch.Size([2, 5]), torch.Size([2, 3, 5]))
    """

    start: Tensor
    step: Tensor
    emission: Tensor

    @classmethod
    def circular(cls, num_tags: int, num_tokens: int, noise: float) -> "HiddenMarkovChain":
        """A chain that stays (probability 0.5), goes on to the next tag (0.3) or jumps to any (0.2).

        Args:
            num_tags: K, at least 2.
            num_tokens: V, a multiple of K: each tag has V / K tokens of its own.
            noise: how often a tag emits any token at all, in [0, 1).
        """
        tags = torch.eye(num_tags, dtype=torch.float64)
        own = num_tokens // num_tags
        return cls(
            start=torch.full((num_tags,), 1 / num_tags, dtype=torch.float64),
            step=0.5 * tags + 0.3 * tags.roll(1, dims=1) + 0.2 / num_tags,
            emission=(1 - noise) * tags.repeat_interleave(own, 1) / own + noise / num_tokens,
        )

    def sample(self, count: int, length: int, rng: torch.Generator) -> tuple[Tensor, Tensor]:
        """Tags in [0, K) and tokens in [1, V] of ``count`` sequences, int64 ``(count, length)``."""
        chance = torch.rand((2, length, count), generator=rng, dtype=torch.float64)
        tags = [_pick(self.start.expand(count, -1), chance[0, 0])]
        for step in range(1, length):
            tags.append(_pick(self.step[tags[-1]], chance[0, step]))
        tokens = [1 + _pick(self.emission[tag], chance[1, step]) for step, tag in enumerate(tags)]
        return torch.stack(tags, 1), torch.stack(tokens, 1)

    def log_posterior(self, tokens: Tensor) -> Tensor:
        r"""Log-probability of each tag at each place, given all tokens, by the forward-backward algorithm.

        .. math:: \log P(y_t = k \mid x_1, \ldots, x_T)

        Args:
            tokens: int64 ``(N, T)``.

        Returns:
            float64 ``(N, K, T)``. No model that sees the tokens alone can have a lower expected NLL.

        Source: Rabiner 1989, doi:10.1109/5.18626, section III.
        """
        padding = torch.ones_like(self.emission[:, :1])  # says nothing of the tag
        evidence = torch.cat([padding, self.emission], 1).log().T[tokens]
        step, length = self.step.log(), tokens.shape[1]
        forward = [self.start.log() + evidence[:, 0]]
        backward = [torch.zeros_like(evidence[:, 0])]
        for t in range(1, length):
            forward.append((forward[-1].unsqueeze(2) + step).logsumexp(1) + evidence[:, t])
            backward.append((step + (backward[-1] + evidence[:, length - t]).unsqueeze(1)).logsumexp(2))
        joint = torch.stack(forward, 2) + torch.stack(backward[::-1], 2)
        return joint.log_softmax(1)


def _pick(probabilities: Tensor, chance: Tensor) -> Tensor:
    """Of each row the class at which the cumulated probability passes ``chance``, uniform in [0, 1)."""
    passed = probabilities.cumsum(1) <= chance.unsqueeze(1)
    return passed.sum(1).clamp(max=probabilities.shape[1] - 1)
