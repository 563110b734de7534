"""One line for what Hydra and OmegaConf say in several."""

from __future__ import annotations

import re

from ls_lightning.config.keys import explain_key
from ls_lightning.errors import did_you_mean, one_line


def explain(error: BaseException) -> str:
    """One line for an error of Hydra or OmegaConf, which print several.

    Args:
        error: what was raised while the configuration was composed.
    """
    text = str(error)
    if text.startswith("Error in call to target") and error.__cause__ is not None:
        return one_line(error.__cause__)
    if match := re.match(r"Sweeping over Hydra's configuration is not supported : '([^']+)'", text):
        return f"{match.group(1)} has several values, and a sweep has one of this key; a list is written key=[a,b]."
    if match := re.match(r"Ambiguous value for argument '(.+?)'", text):
        return f"{match.group(1)} has several values: -m sweeps over them; a list is written key=[a,b]."
    if "does not support sweep type" in text:
        return f"{text.splitlines()[0].rstrip('.')}. A range is searched by hydra/sweeper=ls_optuna."
    if match := re.search(r"Could not (?:find|load) 'hydra/launcher/(submitit|joblib)", text):
        extra = "slurm" if match.group(1) == "submitit" else "joblib"
        return f"this launcher needs hydra-{match.group(1)}-launcher: pip install 'ls-lightning[{extra}]'."
    if "'${trainer.devices}'" in text and "could not be converted to Integer" in text:
        return "hydra/launcher=slurm needs the number of devices of each machine: trainer.devices=4."
    if match := re.search(r"Could not find '(.+)/([^'/]+)'", text):
        group, option = match.groups()
        options = re.findall(r"^\t(\S+)$", text, re.M)
        hint = did_you_mean(option, options) or f" A file of yours, {group}/{option}.yaml, needs --config-dir=<folder>."
        return f"{group} must be one of {', '.join(options)}, got {option!r}.{hint}"
    if match := re.search(r"Could not override '([^']+)'", text):
        return explain_key(match.group(1), error.__cause__)
    if match := re.match(r"Error merging override eps=(.*)", text.splitlines()[0] if text else ""):
        return f"eps must be a number in [0, 1), got {match.group(1)}. It is the mass taken from the true class."
    text = text.removeprefix("Error merging override ")
    causes = [line.strip() for line in f"{text}\n{error.__cause__ or ''}".splitlines() if line.strip()]
    causes = [line for line in causes if not line.startswith(("full_key:", "object_type=", "reference_type="))]
    return ": ".join(dict.fromkeys(line.rstrip(".:") for line in causes[:3])) + "."


def plain_help(text: str) -> str:
    r"""Hydra's ``--help`` with words in the place of ``???``: eps is that of the loss unless it is given.

    Args:
        text: as Hydra prints it.

    Example:
        >>> plain_help("eps: ???\nloss: {eps: ${oc.select:eps,0.1}}").splitlines()[0]
        'eps: 0.1  # unless you give another'
    """
    usual = re.search(r"\$\{oc\.select:eps,([^}]+)\}", text)
    known = "eps: (required)" if usual is None else f"eps: {usual[1]}  # unless you give another"
    return re.sub(r"^eps: \?\?\?$", known, text, flags=re.M).replace(": ???", ": (required)")
