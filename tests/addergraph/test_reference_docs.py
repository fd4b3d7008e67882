"""docs/ops.md."""

from __future__ import annotations

from pathlib import Path

from addergraph.ir import registry
from addergraph.report.reference_docs import ops_markdown, ops_stub

ROOT = Path(__file__).parents[2]
PAGE, STUB = ROOT / "docs" / "ops.md", ROOT / "addergraph" / "ops" / "__init__.pyi"


def test_the_page_is_up_to_date() -> None:
    assert PAGE.read_text(encoding="utf-8") == ops_markdown(), (
        "regenerate it: python -m addergraph.report.reference_docs > docs/ops.md"
    )


def test_the_stub_is_up_to_date() -> None:
    assert STUB.read_text(encoding="utf-8") == ops_stub(), (
        "regenerate it: python -m addergraph.report.reference_docs stub "
        "> addergraph/ops/__init__.pyi"
    )


def test_every_op_has_a_section_with_its_attributes() -> None:
    sections = {s.split("\n", 1)[0]: s for s in ops_markdown().split("\n## ")[1:]}
    assert set(sections) == set(registry())
    assert "*contraction, surrogate gradient*" in sections["adder2d"]
    assert "* `padding=(0,0,0,0)`: " in sections["adder2d"]
    assert "* `window`: " in sections["max_pool2d"]
    assert "*reduction, not per sample*" in sections["batch_norm_statistics"]
    assert "not differentiable" in sections["conv2d_grad_input"]
    assert "Attributes" not in sections["relu"]
