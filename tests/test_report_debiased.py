"""The debiased ECE of a table is read off the bins of a reliability diagram."""

import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from job_folders import bins, measured, write_job

from ls_lightning.metrics import CalibrationError
from ls_lightning.sweep.criterion import parse_criterion
from ls_lightning.sweep.debias import debiased_ece
from ls_lightning.sweep.jobs import read_job


@settings(max_examples=40, deadline=None)
@given(st.integers(1, 300), st.integers(1, 20), st.integers(0, 2**31))
def test_against_the_metric(n, num_bins, seed):
    generator = torch.Generator().manual_seed(seed)
    logits = 4 * torch.randn(n, 3, generator=generator)
    target = torch.where(torch.rand(n, generator=generator) < 0.5, logits.argmax(1), 0)
    metric = CalibrationError(num_bins=num_bins, debias=True)
    metric.update(logits, target)
    found = debiased_ece(*(column.tolist() for column in metric.reliability_bins()))
    assert found == pytest.approx(metric.compute().item(), abs=1e-12)


def test_against_labels_drawn_anew():
    counts, confidence, accuracy = [40, 0, 200], [0.55, math.nan, 0.9], [0.65, math.nan, 0.87]
    n, p, a = (np.array(column)[[0, 2]] for column in (counts, confidence, accuracy))
    ece = np.sum(n * abs(p - a)) / n.sum()
    drawn = np.random.default_rng(0).binomial(n.astype(int), a, size=(200_000, 2)) / n
    wanted = 2 * ece - np.mean(np.sum(n * abs(p - drawn), axis=1)) / n.sum()
    assert debiased_ece(counts, confidence, accuracy) == pytest.approx(wanted, abs=5e-4)


def test_without_samples():
    assert math.isnan(debiased_ece([0, 0], [math.nan] * 2, [math.nan] * 2))


def test_a_job_has_it_plain_and_scaled(tmp_path):
    job = read_job(write_job(tmp_path, 0.1, val=measured(0.5), test=measured(0.5), scaled=measured(0.5)))
    columns = bins()
    wanted = debiased_ece(*([math.nan if v is None else v for v in columns[name]] for name in columns))
    assert job.values["test/ece_debiased"] == job.values["test_scaled/ece_debiased"] == wanted
    assert "val/ece_debiased" not in job.values  # it has no bins there
    assert parse_criterion("ece_debiased").cost(job, "test") == wanted


def test_a_job_that_measured_it_keeps_its_own(tmp_path):
    job = read_job(write_job(tmp_path, 0.1, test={**measured(0.5), "ece_debiased": 0.25}))
    assert job.values["test/ece_debiased"] == 0.25
