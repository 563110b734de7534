"""``python -m ls_lightning.train``: compose a configuration, check it, run it.

Torch and lightning are imported only once the configuration is known to be right.
"""

from __future__ import annotations

import contextlib
import gc
import io
import os
import shlex
import signal
import sys
import traceback
from argparse import ArgumentParser
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NoReturn

import hydra
from hydra._internal.utils import get_args_parser
from hydra.core.hydra_config import HydraConfig
from hydra.errors import HydraException
from omegaconf import DictConfig
from omegaconf.errors import OmegaConfBaseException

from ls_lightning.autoload import VARIABLES
from ls_lightning.cluster import check_start, end_with, explain_submitit, in_multirun, join_ranks, restarted_from
from ls_lightning.config import build_schedule, explain, plain_help, register_schema, settle
from ls_lightning.errors import ConfigError
from ls_lightning.schedule_chart import describe


def _task(cfg: DictConfig) -> float | None:
    """Run one job. Returns the NLL on validation, which a sweeper may minimise; None if there is no validation."""
    hydra_cfg = HydraConfig.get()
    overrides = list(hydra_cfg.overrides.task)
    folder = Path(hydra_cfg.runtime.output_dir)
    cfg.name = cfg.name or folder.name
    try:
        join_ranks()
        check_start(cfg)
        cfg.ckpt_path = cfg.ckpt_path or restarted_from(folder)
        cfg = settle(cfg, overrides, hydra_cfg.runtime.choices)
        _refuse_variables()

        with _no_garbage():
            from ls_lightning.job import run_job

        choices = {key: str(value) for key, value in hydra_cfg.runtime.choices.items()}
        result = run_job(cfg, folder, choices, overrides)
    except ConfigError as error:
        _remove_if_empty(folder)
        if in_multirun():  # the other jobs of this process go on
            end_with(2)
            raise
        _fail(str(error))
    except KeyboardInterrupt as error:
        from lightning.pytorch.utilities.exceptions import SIGTERMException

        _say_how_to_resume(folder, str(error), overrides)
        sys.exit(143 if isinstance(error.__cause__, SIGTERMException) else 130)
    except Exception:
        end_with(1)
        raise
    _print_result(result, folder)
    nll: float | None = result["metrics"].get("val", {}).get("nll")
    return nll


@contextlib.contextmanager
def _no_garbage() -> Iterator[None]:
    """What is imported stays: to look through it again and again takes a fifth of the time."""
    looking = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if looking:
            gc.enable()


def _show(cfg: DictConfig) -> None:
    """Draw the schedule that the job would have."""
    hydra_cfg = HydraConfig.get()
    folder = Path(hydra_cfg.runtime.output_dir)
    cfg.name = cfg.name or folder.name
    try:
        cfg = settle(cfg, list(hydra_cfg.overrides.task), hydra_cfg.runtime.choices)
        smoothing = cfg.callbacks.get("label_smoothing") or {}
        by_epoch = smoothing.get("interval") == "epoch"
        print(describe(build_schedule(cfg), Path.cwd(), cfg.trainer.get("max_epochs") if by_epoch else None))
    except ConfigError as error:
        _fail(str(error))
    finally:
        _remove_if_empty(folder)


def _remove_if_empty(folder: Path) -> None:
    """Hydra makes the job's folder, and those above it, before anything is checked."""
    with contextlib.suppress(OSError):
        for path in (folder, *folder.parents):
            if path == Path.cwd():
                break
            path.rmdir()


def _refuse_variables() -> None:
    given = [name for name in VARIABLES if os.environ.get(name)]
    if given:
        raise ConfigError(
            f"{given[0]} is for other people's scripts and would smooth twice here, got {os.environ[given[0]]!r}. "
            "Unset it and use eps=, loss= and schedule=."
        )


def _print_result(result: dict[str, Any], folder: Path) -> None:
    from lightning.pytorch.utilities.rank_zero import rank_zero_only

    if rank_zero_only.rank != 0:  # type: ignore[attr-defined]
        return
    from rich.console import Console

    from ls_lightning.sweep.summary import columns, result_table, sentences

    console = Console(highlight=False)
    splits = columns(result)
    console.print()
    if splits:
        console.print(result_table(splits))
    for sentence in sentences(result):
        console.print(f"\n{sentence}", soft_wrap=True)
    console.print(f"{folder}", style="dim", soft_wrap=True)


def _say_how_to_resume(folder: Path, what: str, overrides: list[str]) -> None:
    if not (folder / "checkpoints" / "last.ckpt").exists():
        print(f"{what}, before the first checkpoint.", file=sys.stderr)
        return
    kept = [override for override in overrides if not override.startswith("ckpt_path=")]
    command = shlex.join(["python", "-m", "ls_lightning.train", *kept, f"hydra.run.dir={folder}", "ckpt_path=last"])
    print(f"{what}. Resume with:\n  {command}", file=sys.stderr)


def _fail(message: str, exit_code: int = 2) -> NoReturn:
    if os.environ.get("LS_DEBUG") == "1":
        traceback.print_exc()
    rank = os.environ.get("LOCAL_RANK", "0")
    print(f"{'' if rank == '0' else f'rank {rank}: '}error: {message}", file=sys.stderr)
    sys.exit(exit_code)


def _name_the_sweep(multirun: bool) -> None:
    """``sweep.resume=<folder>`` is the launcher's ``hydra.launcher.resume``."""
    for k, word in enumerate(sys.argv):
        if word.lstrip("+").startswith("sweep.resume="):
            if not multirun:
                _fail(f"{word} goes on with a sweep and needs -m. A single job: hydra.run.dir=<folder> ckpt_path=last.")
            sys.argv[k] = "hydra.launcher." + word.lstrip("+").removeprefix("sweep.")


def _flags_first(parser: ArgumentParser) -> None:
    """``eps=0,0.1 -m seed=0,1`` means ``-m eps=0,0.1 seed=0,1``; argparse would refuse what stands behind a flag."""
    known, rest = parser.parse_known_args()
    overrides = {*known.overrides, *(word for word in rest if not word.startswith("-"))}
    sys.argv[1:] = sorted(sys.argv[1:], key=lambda word: word in overrides)


@contextlib.contextmanager
def _words_for_gaps() -> Iterator[None]:
    try:
        with contextlib.redirect_stdout(io.StringIO()) as page:
            yield
    finally:  # Hydra exits behind its page
        print(plain_help(page.getvalue()), end="")


def main() -> None:
    """Run the command line in ``sys.argv``. Exit code 2 and one line for a mistake in it."""
    os.environ.setdefault("HYDRA_FULL_ERROR", "1")  # let errors through to here
    parser = get_args_parser()
    parser.error = lambda message: _fail(  # type: ignore[method-assign]
        f"{message}. A value is set by key=value, e.g. eps=0.1; --help lists the keys."
    )
    show = "--show-schedule" in sys.argv
    sys.argv = [word for word in sys.argv if word != "--show-schedule"]
    _flags_first(parser)
    args = parser.parse_args()
    if (args.help or args.hydra_help or args.cfg or args.info) and hasattr(signal, "SIGPIPE"):
        signal.signal(signal.SIGPIPE, signal.SIG_DFL)  # `--help | head` ends quietly, as other programs do
    _name_the_sweep(args.multirun)
    if show and args.multirun:
        _fail("--show-schedule shows the schedule of one job. Leave -m away.")
    register_schema()
    try:
        run = hydra.main(config_path="pkg://ls_lightning.conf", config_name="config", version_base="1.3")
        with _words_for_gaps() if args.help else contextlib.nullcontext():
            run(_show if show else _task)()
    except ConfigError as error:
        _fail(str(error))
    except (HydraException, OmegaConfBaseException) as error:
        _fail(explain(error), exit_code=getattr(error, "exit_code", 2))
    except RuntimeError as error:
        explained = explain_submitit(error)
        if explained is None:
            raise
        _fail(*explained)
    except OSError as error:
        if traceback.extract_tb(error.__traceback__)[-1].name != "mkdir":  # as Hydra does for the job's folder
            raise
        _fail(f"hydra.run.dir must be a folder that can be written, got {error.filename!r} ({error.strerror}).")


if __name__ == "__main__":
    main()
