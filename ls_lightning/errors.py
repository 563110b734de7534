"""What the command line answers with one line.

ValueError
ConfigError    a configuration that cannot be run; nothing was trained
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Iterator
from contextlib import contextmanager


class ConfigError(ValueError):
    """A configuration that cannot be run. The message is one line: what was needed, what came, what to do."""


def one_line(error: BaseException) -> str:
    r"""The message of an error without its line breaks.

    Example:
        >>> one_line(ValueError("no such file:\n  a.npz"))
        'no such file: a.npz'
    """
    text = str(error.args[0]) if isinstance(error, KeyError) and error.args else str(error)
    return " ".join(line.strip() for line in text.splitlines() if line.strip()) or type(error).__name__


def did_you_mean(word: str, options: Iterable[str]) -> str:
    """A sentence with the option that is nearest to ``word``, to stand behind another; empty if none is near.

    Example:
        >>> did_you_mean("widht", ["width", "depth"])
        ' Did you mean width?'
    """
    close = difflib.get_close_matches(word, list(options), n=1)
    return f" Did you mean {close[0]}?" if close else ""


@contextmanager
def as_config_error(key: str, *kinds: type[Exception]) -> Iterator[None]:
    """Whatever of these ``kinds`` goes wrong inside is a mistake in the configuration of ``key``.

    Example:
        >>> with as_config_error("data", OSError):
        ...     open("missing.npz")
        Traceback (most recent call last):
        ls_lightning.errors.ConfigError: data: [Errno 2] No such file or directory: 'missing.npz'
    """
    try:
        yield
    except ConfigError:
        raise
    except Exception as error:
        if not isinstance(error, (ValueError, TypeError, LookupError, OSError, ImportError, *kinds)):
            raise
        wrapped = error.__cause__ if str(error).startswith("Error in call to target") else None  # Hydra's words
        raise ConfigError(f"{key}: {one_line(wrapped or error)}") from error
