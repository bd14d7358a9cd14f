"""The table of packaging/gpu-proof, and the claims of the manual in it."""

import json
from pathlib import Path

import pytest
from gpu import claims

ROOT = Path(__file__).parents[1]
PAGES = {"recipe.5": "docs/recipe.5.md", "unit": "templates/model.service.j2", "README": "README.md", "design": "docs/design.md"}  # fmt: skip


@pytest.mark.parametrize("claim", claims.CLAIMS, ids=lambda claim: claim.sentence[:40])
def test_each_claim_stands_where_the_table_says(claim: claims.Claim) -> None:
    text = " ".join((ROOT / PAGES[claim.page]).read_text().split())
    assert " ".join(claim.sentence.split()) in text


def test_the_table_says_what_is_wrong_and_what_is_not_proven(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    rows = [
        {"id": "late", "what": "w", "value": "v", "holds": False},
        {"id": "late-works", "what": "w", "value": "v", "holds": True},
        {"id": "group", "what": "w", "value": "a | b", "holds": True},
    ]
    (tmp_path / "waiting.json").write_text(json.dumps(rows))
    assert claims.write(tmp_path) == 1
    printed = capsys.readouterr().out
    page = (tmp_path / "gpu-proof.md").read_text()
    assert "its engine opens | late, late-works, never | **wrong**: late |" in page
    assert "own its device nodes | group | proven |" in page
    assert "| a \\| b | ok |" in page
    assert page.count("Not yet run.") == 4
    assert printed.startswith("not proven sets CUDA_VISIBLE_DEVICES=")
