"""The head-to-head with a published speed: its rates, ratios and refusals."""

import pytest

import head_to_head
from fastaugself.errors import RunError


def test_rates_are_those_after_the_compilation_and_ratios_those_to_the_published():
    lines = [{"step": i, "loss_ssl": 1.0, "pairs_per_s": rate} for i, rate in enumerate((1.0, 2.0, 1820.2, 910.1))]
    assert head_to_head.rates(lines, 2) == [1820.2, 910.1]
    with pytest.raises(RunError, match="training logged 4 lines, more than 4 are needed"):
        head_to_head.rates(lines, 4)
    lines[3]["loss_ssl"] = float("inf")
    with pytest.raises(RunError, match="the loss is no finite number at step 3"):
        head_to_head.rates(lines, 2)
    compared = head_to_head.against_published([head_to_head.Row("ours", [910.1, 1820.2, 2730.3])])
    assert compared["ours / kornia, stacked"] == pytest.approx({"median": 2.0, "min": 1.0, "max": 3.0})
    assert len(compared) == len(head_to_head.PUBLISHED)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--photos", "no.beton", "--device", "cpu"], "--photos no.beton does not exist; leave it out"),
        (["--device", "cuda"], "torch finds no CUDA device; pass --device cpu"),
    ],
)
def test_the_head_to_head_refuses_what_it_cannot_measure(tmp_path, arguments, message, capsys, monkeypatch):
    monkeypatch.setattr(head_to_head.torch.cuda, "is_available", lambda: False)
    assert head_to_head.main(["--json", str(tmp_path / "head.json"), *arguments]) == 2
    assert message in capsys.readouterr().err
