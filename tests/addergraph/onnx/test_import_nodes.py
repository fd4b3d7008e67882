"""The node tests of the package onnx, natively: see `tests/campaigns/onnx_nodes.py`."""

from __future__ import annotations

from pathlib import Path

import pytest

pytest.importorskip("onnx")

from tests.campaigns.onnx_nodes import PASSED, REFUSED, WRONG, cases, outcome, outcomes, summary

FEW = {
    "test_basic_conv_with_padding": PASSED, "test_averagepool_2d_ceil": PASSED,
    "test_gemm_all_attributes": PASSED, "test_qlinearconv": PASSED, "test_matmul_bcast": PASSED,
    "test_resize_upsample_sizes_nearest": PASSED, "test_add_int8": PASSED,
    "test_add_uint64": REFUSED, "test_resize_upsample_scales_cubic": REFUSED,
}  # fmt: skip


@pytest.mark.slow
def test_no_node_test_of_a_supported_operator_is_wrong() -> None:
    found = list(outcomes())
    print(summary(found))
    assert not [one for one in found if one.kind == WRONG]
    assert sum(one.kind == PASSED for one in found) >= 480


@pytest.mark.slow
def test_some_of_them(tmp_path: Path) -> None:
    known = {case.name: case for case in cases()}
    assert {name: outcome(known[name], tmp_path).kind for name in FEW} == FEW
