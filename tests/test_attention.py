from __future__ import annotations

import itertools
import math
import sys
from collections.abc import Iterator
from types import ModuleType
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from wdsfilter.engine import attention
from wdsfilter.engine.positions import Row
from wdsfilter.engine.segments import of_rows


@pytest.fixture(autouse=True)
def fresh_kernel() -> Iterator[None]:
    """What a test has put in the place of a library does not last."""
    attention.varlen_kernel.cache_clear()
    yield
    attention.varlen_kernel.cache_clear()


def by_the_book(
    q: Tensor, k: Tensor, v: Tensor, ends_q: Tensor, ends_k: Tensor, scale: float | None, causal: bool
) -> Tensor:
    """What both libraries document: softmax in each segment; causal: the last query sees the last key."""
    repeat = q.shape[1] // k.shape[1]
    k, v = (part.double().repeat_interleave(repeat, dim=1) for part in (k, v))
    out = []
    for (a, b), (c, d) in zip(
        itertools.pairwise(ends_q.tolist()), itertools.pairwise(ends_k.tolist()), strict=True
    ):
        scores = torch.einsum("qhd,khd->hqk", q[a:b].double(), k[c:d]) * (scale or q.shape[-1] ** -0.5)
        if causal:
            late = torch.arange(d - c)[None] > torch.arange(b - a)[:, None] + (d - c) - (b - a)
            scores = scores.masked_fill(late, -math.inf)
        out.append(torch.einsum("hqk,khd->qhd", scores.softmax(-1), v[c:d]))
    return torch.cat(out).to(q.dtype)


def torchs(*args: Any, scale: Any, window_size: Any, enable_gqa: bool) -> Tensor:
    """``torch.nn.attention.varlen.varlen_attn`` by its documentation."""
    q, k, v, ends_q, ends_k, most_q, most_k = args
    assert enable_gqa or q.shape[1] == k.shape[1]
    assert (most_q, most_k) == (int(ends_q.diff().max()), int(ends_k.diff().max()))
    return by_the_book(q, k, v, ends_q, ends_k, scale, window_size == (-1, 0))


def flash_attns(*args: Any, softmax_scale: Any, causal: bool) -> Tensor:
    """``flash_attn.flash_attn_varlen_func`` by its documentation."""
    q, k, v, ends_q, ends_k, _, _ = args
    return by_the_book(q, k, v, ends_q, ends_k, softmax_scale, causal)


@pytest.mark.parametrize("causal", [True, False])
@pytest.mark.parametrize("library", ["none", "torch", "flash-attn"])
def test_every_kernel_attends_inside_segments(
    library: str, causal: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Segments of mixed lengths, some of which share keys, with grouped heads: each kernel does what is written."""
    rows = [Row(3, (2, 2), 4, shared=9, branches=(2, 1)), Row(1, (1, 3), 2, shared=4, branches=(1,))]
    segments = of_rows(rows)
    assert segments.gather is not None
    torch.manual_seed(0)
    q, k, v = (torch.randn(sum(segments.queries), heads, 8) for heads in (4, 2, 2))
    k, v = k[segments.gather], v[segments.gather]
    ends = [
        torch.tensor([0, *itertools.accumulate(lengths)], dtype=torch.int32)
        for lengths in (segments.queries, segments.keys)
    ]

    def kernel(*args: Any) -> Tensor:
        return attention.by_length(*args[:5], *args[7:])

    if library == "torch":
        kernel = attention._of_torch(torchs)
    elif library == "flash-attn":
        module = ModuleType("flash_attn")
        module.flash_attn_varlen_func = flash_attns  # type: ignore[attr-defined]
        monkeypatch.setitem(sys.modules, "flash_attn", module)
        kernel = attention._of_flash_attn()
    longest = max(segments.queries), max(segments.keys)
    out = kernel(q, k, v, *ends, *longest, 0.3, causal)
    torch.testing.assert_close(out, by_the_book(q, k, v, ends[0], ends[1], 0.3, causal), atol=1e-6, rtol=1e-5)


@pytest.mark.parametrize("causal", [True, False])
def test_segments_of_one_length_change_no_bit_of_each_other(causal: bool) -> None:
    """Where segments as long lie side by side and are attended to in one call, each has the bits that it has alone."""
    torch.manual_seed(0)
    queries, keys = [30, 30, 30, 7, 7, 65], [41, 41, 41, 18, 18, 65]
    q, k, v = (torch.randn(sum(n), heads, 32) for n, heads in ((queries, 6), (keys, 2), (keys, 2)))
    ends = [
        torch.tensor([0, *itertools.accumulate(lengths)], dtype=torch.int32) for lengths in (queries, keys)
    ]
    together = attention.by_length(q, k, v, ends[0], ends[1], None, causal)
    parts = zip(
        torch.split(q, queries), torch.split(k, keys), torch.split(v, keys), queries, keys, strict=True
    )
    alone = [
        attention.by_length(a, b, c, torch.tensor([0, count]), torch.tensor([0, most]), None, causal)
        for a, b, c, count, most in parts
    ]
    assert torch.equal(together, torch.cat(alone))


def test_branches_see_their_rows_start_and_themselves() -> None:
    """Keys of a branch are its row's shared tokens, then its own, wherever the row lies in the pack."""
    segments = of_rows([Row(2, (1, 1), 1), Row(1, (1, 1), 2, shared=3, branches=(2, 1))])
    assert segments.queries == [4, 4, 2, 1]
    assert segments.keys == [4, 4, 5, 4]
    assert segments.gather is not None
    parts = np.split(segments.gather, np.cumsum(segments.keys)[:-1])
    assert [part.tolist() for part in parts] == [
        [0, 1, 2, 3],
        [4, 5, 6, 7],
        [4, 5, 6, 8, 9],
        [4, 5, 6, 10],
    ]
    assert of_rows([Row(2, (1, 1), 1)]).gather is None


def test_every_row_sees_the_start_that_all_share() -> None:
    """A start of two tokens stands once, before the pack; trunks and branches see it as if it were their own."""
    segments = of_rows([Row(2, (1, 1), 1), Row(2, (1, 1), 2, shared=4, branches=(2,))], head=2)
    assert segments.queries == [2, 2, 3, 2]
    assert segments.keys == [2, 4, 5, 6]
    assert segments.gather is not None
    parts = np.split(segments.gather, np.cumsum(segments.keys)[:-1])
    assert [part.tolist() for part in parts] == [[0, 1], [0, 1, 2, 3], [0, 1, 4, 5, 6], [0, 1, 4, 5, 7, 8]]


@pytest.mark.parametrize(
    ("device", "dtype", "capability", "place"),
    [
        pytest.param("cuda:1", torch.bfloat16, (9, 0), "cuda:1", id="hopper"),
        pytest.param("cuda", torch.float16, (8, 0), "cuda", id="ampere"),
        pytest.param("cuda", torch.float16, (7, 5), "cpu", id="turing"),
        pytest.param("cuda", torch.float32, (9, 0), "cpu", id="fp32"),
        pytest.param("cpu", torch.bfloat16, None, "cpu", id="cpu"),
        pytest.param("mps", torch.float16, None, "cpu", id="mps"),
    ],
)
def test_a_kernel_is_used_where_it_runs(
    device: str, dtype: torch.dtype, capability: Any, place: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Bounds lie beside the data exactly where flash attention can read them: half precision, from Ampere on."""
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda device: capability)
    assert attention.place_of_bounds(torch.device(device), dtype) == torch.device(place)
