import json
import math

import pytest

from ls_lightning.sweep.results import config_digest, read_result, write_result
from ls_lightning.sweep.summary import direction


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
