import io
import json
import math

import pytest
from rich.console import Console

from ls_lightning.sweep.results import config_digest, read_result, write_result
from ls_lightning.sweep.summary import columns, direction, result_table, sentences


def test_round_trip(tmp_path):
    assert read_result(tmp_path) is None
    write_result(tmp_path, {"eps": 0.1, "metrics": {"test": {"ece": 1 / 3, "nll": math.inf, "n": 5}}})
    assert [path.name for path in tmp_path.iterdir()] == ["result.json"]
    result = read_result(tmp_path)
    assert result["schema"] == 1
    assert result["metrics"]["test"] == {"ece": 1 / 3, "nll": None, "n": 5}
    json.loads((tmp_path / "result.json").read_text(), parse_constant=pytest.fail)


@pytest.mark.parametrize("text", ["{", "[]", "{}", '{"schema": 99}'])
def test_foreign_files_are_refused(tmp_path, text):
    (tmp_path / "result.json").write_text(text)
    with pytest.raises(ValueError, match=r"result\.json is not"):
        read_result(tmp_path)


def test_a_failed_write_leaves_the_old_file(tmp_path):
    write_result(tmp_path, {"eps": 0.1})
    with pytest.raises(TypeError):
        write_result(tmp_path, {"eps": object()})
    assert read_result(tmp_path)["eps"] == 0.1


def test_digest_depends_on_values_alone():
    config = {"loss": {"_target_": "a", "eps": 0.1}, "seed": 0}
    assert config_digest(config) == config_digest({"seed": 0, "loss": {"eps": 0.1, "_target_": "a"}})
    assert config_digest(config) != config_digest({**config, "seed": 1})
    assert len(config_digest(config)) == 12


@pytest.mark.parametrize(
    ("gap", "words"),
    [
        (0.114, "overconfident by 11.4 points"),
        (-0.114, "underconfident by 11.4 points"),
        (0.0003, "neither over- nor underconfident"),
        (-0.0006, "underconfident by 0.1 points"),
    ],
)
def test_direction(gap, words):
    assert direction({"gap": gap, "acc": 0.8}).startswith(words)


def printed(table):
    console = Console(width=120, record=True, file=io.StringIO())
    console.print(table)
    return [line.split("│") for line in console.export_text().splitlines()]


TEST = {"acc": 0.75, "nll": 0.5, "gap": -0.1, "ece": 0.12, "aurc": 0.01234, "n": 1200}
SCALED = {**TEST, "nll": 0.4, "gap": 0.01, "ece": 0.02}
FIT = {"T": 0.5, "n": 300, "nll_before": 0.6, "nll_after": 0.5, "at_boundary": False, "share": 1.0}
RESULT = {"metrics": {"val": TEST, "test": TEST}, "temperature": {**FIT, "metrics": {"test": SCALED}}}


def test_the_table_has_plain_and_scaled_side_by_side():
    assert list(columns(RESULT)) == ["val", "test", "test, T = 0.5"]
    rows = {cells[0].strip(): [cell.strip() for cell in cells[1:]] for cells in printed(result_table(columns(RESULT)))}
    assert rows["accuracy"] == ["75.00%", "75.00%", "75.00%"]
    assert rows["ECE"] == ["12.00%", "12.00%", "2.00%"]
    assert rows["NLL"] == ["0.5000", "0.5000", "0.4000"]
    assert rows["gap (confidence - accuracy)"] == ["-10.00%", "-10.00%", "+1.00%"]
    assert rows["AURC"] == ["1.234%", "1.234%", "1.234%"]
    assert rows["n"] == ["1,200", "1,200", "1,200"]


@pytest.mark.parametrize("temperature", ["absent", None, FIT, {**FIT, "metrics": {}}])
def test_results_without_a_scaled_model(temperature):
    result = {"metrics": {"test": TEST}}
    if temperature != "absent":
        result["temperature"] = temperature
    assert list(columns(result)) == ["test"]
    assert sentences(result) == [f"On test the model is {direction(TEST)}."]


def test_sentences():
    said = sentences(RESULT)
    assert said[0] == "On test the model is underconfident by 10.0 points (mean confidence 65.0 %, accuracy 75.0 %)."
    assert said[1] == "Dividing its logits by T = 0.5, fitted on val, takes ECE from 12.0 % to 2.0 % on test."
    assert sentences({"metrics": {}}) == []
    assert "training diverged" in sentences({"metrics": {"test": {"acc": math.nan, "gap": math.nan}}})[0]
    doubtful = {**RESULT["temperature"], "at_boundary": True}
    assert "Do not use it" in sentences({**RESULT, "temperature": doubtful})[1]
    assert sentences({"metrics": {"val": {"acc": None, "gap": None}}}) == []


def test_metrics_of_any_name_and_without_a_value():
    rows = printed(result_table({"val": {"my_own": 0.25, "acc": None}, "test": {"acc": 0.5, "n": 5}}))
    found = {cells[0].strip(): [cell.strip() for cell in cells[1:]] for cells in rows}
    assert found["my own"] == ["0.2500", "-"]
    assert found["accuracy"] == ["-", "50.00%"]
    assert found["n"] == ["-", "5"]
    assert list(found).index("accuracy") < list(found).index("my own")


def test_a_result_of_before_is_read(tmp_path):
    before = {"schema": 1, "eps": 0.1, "metrics": {"test": TEST}, "reliability": {"test": {}}}
    (tmp_path / "result.json").write_text(json.dumps(before))
    assert list(columns(read_result(tmp_path))) == ["test"]
