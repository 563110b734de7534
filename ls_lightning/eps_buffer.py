"""What the loss modules share: an eps that a schedule rewrites in place, and options kept as attributes."""

import ctypes
from collections.abc import Callable, Sequence
from typing import Any, ClassVar, Self

import torch
from torch import Tensor, nn

from ls_lightning.functional.eps import EPS, Range, check_eps
from ls_lightning.functional.waiting import is_recorded

Values = Sequence[float] | Tensor


class EpsBuffer(nn.Module):
    """A loss whose `eps` is a float32 buffer outside the state dict.

    What float32 cannot hold of a number lies in a second buffer that only float64 logits meet: 0.1 is 0.1
    to 1e-15 there, and no float64 tensor keeps the module from a device without that dtype (MPS).
    Write through `set_eps`, which keeps the two together.

    Args:
        eps: in [0, 1), or another `allowed` range of a subclass; a number, or a tensor or list.
        **options: kept as attributes, tensors and weights as buffers of the state dict, as in torch's losses.

    Raises:
        TypeError: eps is neither a number, a list of numbers nor a floating-point tensor.
        ValueError: eps is out of range, or requires grad.
    """

    allowed: ClassVar[Range] = EPS
    eps: Tensor
    _eps_rest: Tensor

    def __init__(self, eps: float | Values, **options: Any) -> None:
        super().__init__()
        if isinstance(eps, Sequence) and not isinstance(eps, str):
            eps = torch.tensor(list(eps), dtype=torch.float32)
        check_eps(eps, self.allowed)
        if isinstance(eps, Tensor):
            if eps.requires_grad:
                raise ValueError(
                    "eps of a loss module is a buffer, got a tensor that requires grad. "
                    "To learn eps, give it to the functions of ls_lightning.functional."
                )
            _check_range(eps, self.allowed)
            high, rest = _split(eps)
        else:
            high, rest = (torch.tensor(part, dtype=torch.float32) for part in _split_number(float(eps), self.allowed))
        self._exact: tuple[str, ...] = ()
        self.register_exact("eps", high)
        self.register_exact("_eps_rest", rest)
        self._names = tuple(options)
        for name, value in options.items():
            if isinstance(value, Tensor) or name in ("weight", "pos_weight"):
                self.register_buffer(name, value)
            else:
                setattr(self, name, value)

    def register_exact(self, name: str, value: Tensor | None, persistent: bool = False) -> None:
        """Hold a buffer that moves with the module and keeps its dtype; `persistent` puts it in the state dict."""
        self.register_buffer(name, value, persistent=persistent)
        self._exact = (*dict.fromkeys([*self._exact, name]),)

    def set_eps(self, eps: float | Tensor) -> None:
        """Write `eps` in place, for every class or sample at once, or with a tensor of the buffer's shape.

        A number is checked and written without waiting for a device, and does not recompile a compiled
        step. A tensor's values are checked if it is on the CPU.
        """
        check_eps(eps, self.allowed)
        if not isinstance(eps, Tensor):
            high, rest = _split_number(float(eps), self.allowed)
            self.eps.fill_(high)
            self._eps_rest.fill_(rest)
            return
        if eps.shape not in (self.eps.shape, ()):
            raise ValueError(f"eps must be a number or of shape {tuple(self.eps.shape)}, got shape {tuple(eps.shape)}.")
        if eps.device.type == "cpu":
            _check_range(eps, self.allowed)
        for buffer, part in zip((self.eps, self._eps_rest), _split(eps), strict=True):
            buffer.copy_(part)

    def extra_repr(self) -> str:
        """Show eps and the options that are set; tensors by their shape."""
        options = {name: getattr(self, name) for name in self._names}
        return ", ".join(
            f"{name}={_shown(value)}" for name, value in {"eps": self.eps, **options}.items() if value is not None
        )

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> Self:
        exact: dict[str, Tensor | None] = {name: getattr(self, name) for name in self._exact}
        super()._apply(fn, recurse)  # type: ignore[no-untyped-call]
        # .half() and .to(torch.bfloat16), e.g. of a bf16-true Trainer, may move eps but not round it.
        for name, before in exact.items():
            after = getattr(self, name)
            if before is not None and after.dtype != before.dtype:
                setattr(self, name, before.to(after.device))
        return self

    def _call(self, function: Callable[..., Tensor], logits: Tensor, target: Tensor, options: dict[str, Any]) -> Tensor:
        plain = self.__dict__  # getattr of a module searches it for parameters first
        own = {name: plain[name] if name in plain else getattr(self, name) for name in self._names}
        eps = self._number_for(logits)
        return function(logits, target, self._eps_for(logits) if eps is None else eps, **{**own, **options})

    def _number_for(self, logits: Tensor) -> float | None:
        """Return eps where it is one number that can be read off at once: fewer operations than a tensor."""
        eps = None if torch.compiler.is_compiling() or is_recorded() else self._buffers["eps"]
        if eps is None or not eps.is_cpu or eps.ndim or type(eps) is not Tensor:
            return None
        return eps.item() + self._eps_rest.item() if logits.dtype == torch.float64 else eps.item()

    def _eps_for(self, logits: Tensor) -> Tensor:
        """Return a copy, so that `set_eps` between forward and backward does no harm; 1-d is per class."""
        if logits.dtype == torch.float64:
            eps = self.eps.double() + self._eps_rest.double()
        else:
            eps = self.eps.clone()
        return eps.unsqueeze(0) if eps.ndim == 1 else eps


def _check_range(eps: Tensor, allowed: Range) -> None:
    if eps.is_meta or bool((allowed.holds(eps) & allowed.holds(eps.float())).all()):
        return
    raise ValueError(
        f"{allowed.name} must be in {allowed}, got a tensor from {eps.min():g} to {eps.max():g}. {allowed.advice}"
    )


def _split(eps: Tensor) -> tuple[Tensor, Tensor]:
    """Return eps in float32, and what that leaves out."""
    high = eps.detach().to(torch.float32, copy=True)
    return high, (eps.detach() - high.to(eps.dtype)).float()


def _split_number(eps: float, allowed: Range) -> tuple[float, float]:
    high = ctypes.c_float(eps).value
    check_eps(high, allowed)  # float32 rounds the largest numbers below 1 to 1
    return high, eps - high


def _shown(value: object) -> str:
    if not isinstance(value, Tensor):
        return str(value)
    return f"{value.item():.6g}" if value.ndim == 0 and not value.is_meta else f"tensor{tuple(value.shape)}"
