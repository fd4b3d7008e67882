"""The command line of the paper's run, on generated images in the published format."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from addergraph import Model
from addergraph.cli import main as cli
from tests.addergraph.data.published import cifar_files, write_folder

pytestmark = pytest.mark.usefixtures("quick_objects")


def run(capsys: pytest.CaptureFixture[str], *arguments: str) -> str:
    with pytest.raises(SystemExit) as end:
        cli.main(arguments)
    out, err = capsys.readouterr()
    assert end.value.code == 0, err
    return out


@pytest.mark.slow
def test_resnet20_as_in_the_paper_from_files_to_a_model(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    write_folder(tmp_path / "data", cifar_files(10, "bin", count=2))
    model, folder = tmp_path / "resnet20.safetensors", tmp_path / "run"
    recipe = tmp_path / "my.toml"
    recipe.write_text(run(capsys, "recipe", "cvpr2020").replace("batch = 256", "batch = 5"))
    given = [
        "train", "--model", "resnet20", "--data", f"cifar10:{tmp_path / 'data'}", "--threads", "2",
        "--recipe", str(recipe), "--checkpoint", str(folder), "--resume", "-o", str(model),
    ]  # fmt: skip
    out = run(capsys, *given, "--epochs", "2")
    assert "resnet20 on cifar10:" in out and "10 samples of (32, 32, 3), 2 to validate" in out
    assert "epoch 2/2" in out and "pixels enter as (pixel * 0.00392157 - mean) / std" in out
    rows = [json.loads(line) for line in (folder / "log.jsonl").read_text().splitlines()]
    assert [row["epoch"] for row in rows] == [1, 2]
    assert all(f"{row['images_per_second']:,.0f} images/s" in out for row in rows)
    assert rows[1]["learning_rate"] == pytest.approx(0.05)
    written = model.read_bytes()
    assert run(capsys, *given, "--epochs", "2").count("epoch ") == 0  # nothing was left to do
    assert model.read_bytes() == written
    assert Model.load(model).output_shape == (10,)
