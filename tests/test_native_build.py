"""Loops in C are built once where a compiler is, for all processes; where none is, torch's operations do the same."""

import logging
import multiprocessing
import os
import platform
import shutil
import stat
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from torch.nn import functional as F
from torch.testing import assert_close

from ls_lightning.functional import fused_quick, smoothed_cross_entropy
from ls_lightning.functional.native import build
from ls_lightning.functional.native import loss as native_loss

LEVELS = ["DEFAULT", "AVX2", "AVX512"] if platform.machine() in {"x86_64", "AMD64"} else ["DEFAULT"]
needs_compiler = pytest.mark.skipif(native_loss.loop() is None, reason="needs a C compiler")


@pytest.fixture
def sources(tmp_path, monkeypatch):
    """A folder with a small file of C, and a compiler that counts its runs; nothing is kept yet."""
    folder = tmp_path / "sources"
    folder.mkdir()
    (folder / "answer.h").write_text("#define ANSWER 42\n")
    (folder / "answer.c").write_text('#include "answer.h"\nint answer(void) { return ANSWER; }\n')
    compiler = tmp_path / "counting cc"
    compiler.write_text(f'#!/bin/sh\necho run >> "{tmp_path}/runs"\nexec {os.environ.get("CC") or "cc"} "$@"\n')
    compiler.chmod(compiler.stat().st_mode | stat.S_IXUSR)
    monkeypatch.setattr(build, "__file__", str(folder / "build.py"))
    monkeypatch.setenv("CC", f"'{compiler}'")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.delenv("LS_LIGHTNING_NATIVE", raising=False)
    monkeypatch.delenv("LS_LIGHTNING_LOOPS", raising=False)
    return folder


def load():
    """As in a process of its own."""
    return build.load_library.__wrapped__("answer")


def runs(folder: Path) -> int:
    log = folder.parent / "runs"
    return len(log.read_text().splitlines()) if log.exists() else 0


def build_ahead(folder: Path, ahead: Path) -> subprocess.CompletedProcess[str]:
    """As in an image that has a compiler and no torch."""
    script = shutil.copy(build.__spec__.origin, folder)
    return subprocess.run([sys.executable, "-I", "-S", script, ahead], capture_output=True, text=True)


def in_processes(number: int) -> list[int]:
    """What that many processes find at once."""
    context = multiprocessing.get_context("fork")
    answers = context.Queue()
    started = [context.Process(target=lambda: answers.put(load().answer())) for _ in range(number)]
    for process in started:
        process.start()
    found = [answers.get(timeout=100) for _ in started]
    for process in started:
        process.join()
    return found


@needs_compiler
def test_it_is_built_once_and_used_by_later_processes(sources):
    assert in_processes(1) == [42]
    assert load().answer() == 42
    assert runs(sources) == 1
    (kept,) = (sources.parent / "cache" / "ls_lightning").iterdir()
    assert kept.suffix == ".so"


@needs_compiler
def test_a_change_of_source_or_header_is_built_anew(sources):
    assert load().answer() == 42
    (sources / "answer.h").write_text("#define ANSWER 43\n")
    assert load().answer() == 43
    assert runs(sources) == 2


@needs_compiler
def test_processes_that_begin_together_do_not_disturb_each_other(sources):
    assert in_processes(4) == [42] * 4
    assert len(list((sources.parent / "cache" / "ls_lightning").iterdir())) == 1


@needs_compiler
def test_what_was_built_ahead_serves_every_processor_without_a_compiler(sources, monkeypatch):
    ahead, path = sources.parent / "ahead", os.environ["PATH"]
    assert build_ahead(sources, ahead).returncode == 0
    built = runs(sources)
    monkeypatch.setenv("LS_LIGHTNING_LOOPS", str(ahead))
    monkeypatch.setenv("PATH", "")
    for level in LEVELS:
        monkeypatch.setattr("torch.backends.cpu.get_cpu_capability", lambda level=level: level)
        assert load().answer() == 42
    assert built == runs(sources) == len(LEVELS) == len(list(ahead.iterdir()))
    assert {stat.S_IMODE(library.stat().st_mode) for library in ahead.iterdir()} == {0o755}  # others load it
    assert not (sources.parent / "cache").exists()

    monkeypatch.setenv("PATH", path)
    (sources / "answer.h").write_text("#define ANSWER 43\n")
    assert load().answer() == 43  # of other sources: built here


@needs_compiler
def test_building_ahead_says_why_it_cannot(sources):
    (sources / "answer.h").write_text("#error no answer\n")
    done = build_ahead(sources, sources.parent / "ahead")
    assert done.returncode == 1
    assert done.stderr.startswith("error: ")
    assert "no answer" in done.stderr
    assert not list((sources.parent / "ahead").iterdir())


@needs_compiler
def test_a_folder_that_cannot_be_written_to_is_done_without(sources, monkeypatch):
    (sources.parent / "file").touch()
    monkeypatch.setenv("XDG_CACHE_HOME", str(sources.parent / "file"))
    assert load().answer() == 42


@pytest.mark.parametrize(
    ("compiler", "said"), [("/nonexistent/cc", "no C compiler '/nonexistent/cc'"), ("false", "returned non-zero exit")]
)
def test_without_a_compiler_that_works_there_is_none(sources, monkeypatch, caplog, compiler, said):
    monkeypatch.setenv("CC", compiler)
    with caplog.at_level(logging.INFO, "ls_lightning"):
        assert load() is None
    (record,) = caplog.records
    assert record.levelno == logging.INFO
    assert "answer.c is not used, torch's operations are: " in record.message
    assert said in record.message
    assert not list((sources.parent / "cache" / "ls_lightning").iterdir())  # nothing half-built is left


def test_it_can_be_turned_off(sources, monkeypatch):
    monkeypatch.setenv("LS_LIGHTNING_NATIVE", "0")
    assert load() is None
    assert runs(sources) == 0


def test_losses_are_the_same_without(monkeypatch):
    monkeypatch.setenv("CC", "/nonexistent/cc")
    monkeypatch.setattr(fused_quick, "_FORMS", {})  # of the loop that is there otherwise
    native_loss.loop.cache_clear()
    build.load_library.cache_clear()
    try:
        assert native_loss.loop() is None
        logits, target = torch.randn(8, 5, requires_grad=True), torch.randint(5, (8,))
        found = torch.autograd.grad(smoothed_cross_entropy(logits, target, 0.1), logits)
        expected = torch.autograd.grad(F.cross_entropy(logits, target, label_smoothing=0.1), logits)
        assert_close(found, expected)
    finally:
        native_loss.loop.cache_clear()
        build.load_library.cache_clear()
