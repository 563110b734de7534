"""What is read off a row: right by the definition, and the same bits whatever stands beside it."""

import pytest
import torch
from torch.testing import assert_close

from ls_lightning.functional import waiting
from ls_lightning.functional.rows import read_logits
from ls_lightning.functional.split import split_rows

INF = torch.inf


def logits(k, n=40, dtype=torch.float32):
    generator = torch.Generator().manual_seed(k)
    rows = (torch.randn(n, k, generator=generator) * 4).to(dtype)
    rows[0] = 1.5
    rows[1, k // 2] = -INF
    rows[2, k - 1] = 700  # surer than a float64 can tell from 1
    rows[3, 0] = rows[3, k - 1] = 50
    rows[4, 1:] = -INF
    return rows


def by_definition(rows):
    values = rows.double().sort(1, descending=True).values
    others = values[:, 1:] - values[:, 1:2].clamp(min=torch.finfo(torch.float32).min)
    return values[:, 0], values[:, 1], others.exp().sum(1), (2 * others).exp().sum(1)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16, torch.float16])
@pytest.mark.parametrize("k", [2, 3, 10, 63, 64, 95, 1000])
def test_sums_over_all_but_the_largest(k, dtype):
    rows = logits(k, dtype=dtype)
    for found, expected in zip(split_rows(rows)[:4], by_definition(rows), strict=True):
        assert_close(found.clamp(min=-1e38), expected.clamp(min=-1e38), rtol=1e-11, atol=0)


@pytest.mark.parametrize("threads", [1, 2])
@pytest.mark.parametrize("k", [2, 7, 10, 64, 100, 1000, 33000])
def test_a_row_has_the_same_bits_in_any_company(k, threads):
    before = torch.get_num_threads()
    torch.set_num_threads(threads)
    try:
        rows = logits(k, n=5 + 300000 // k)
        whole = split_rows(rows, weighted=True)
        for size in (1, 3, 8):
            for start in (0, 2, len(rows) - size):
                part = split_rows(rows[start : start + size].clone(), weighted=True)
                assert all(torch.equal(a[start : start + size], b) for a, b in zip(whole, part, strict=True))
        assert all(map(torch.equal, split_rows(rows.t().contiguous().t(), weighted=True), whole))
    finally:
        torch.set_num_threads(before)


@pytest.mark.parametrize("k", [2, 10, 70])
def test_of_equal_logits_the_first_is_right_whether_one_may_look_or_not(k, monkeypatch):
    rows = torch.randint(3, (500, k), generator=torch.Generator().manual_seed(0)).float()
    label = torch.arange(500) % k
    first = (rows == rows.amax(1, keepdim=True)).double().mul(torch.arange(k, 0, -1)).argmax(1)
    assert torch.equal(read_logits(rows, label).correct, first == label)
    monkeypatch.setattr(waiting, "READY", frozenset())
    assert torch.equal(read_logits(rows, label).correct, first == label)
