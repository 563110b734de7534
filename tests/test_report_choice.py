"""The choice of eps and the words for it, on made-up sweeps whose answer is known."""

import json
import shlex

import pytest
from hypothesis import given
from hypothesis import strategies as st
from job_folders import measured, write_job, write_sweep
from scipy import stats

from ls_lightning.errors import ConfigError
from ls_lightning.sweep.answer import explain, headline
from ls_lightning.sweep.choose import choose
from ls_lightning.sweep.criterion import parse_criterion
from ls_lightning.sweep.find import find_jobs
from ls_lightning.sweep.groups import group_jobs
from ls_lightning.sweep.jobs import Job, read_job

GRID = (0, 0.05, 0.1, 0.2)


def valley(eps):
    return 0.5 + 20 * (eps - 0.1) ** 2


def chosen(root, select="nll"):
    groups, _ = group_jobs(read_job(folder) for folder in find_jobs([root]))
    return choose(groups, parse_criterion(select))


def text(choice):
    return "\n".join([headline(choice), *explain(choice)])


def test_a_clear_minimum_is_chosen_and_told_from_eps_0(tmp_path):
    choice = chosen(write_sweep(tmp_path, valley, grid=GRID, noise=0.001))
    assert (choice.best.eps, choice.chosen.eps, choice.baseline.eps, choice.edge) == (0.1, 0.1, 0, None)
    assert choice.separated
    said = text(choice)
    assert said.startswith("eps 0.1: ECE 8.0 -> 6.0 %, accuracy +4.")
    assert "over 5 seeds; temperature scaling alone gives 7.0 %." in said
    assert "more than noise" in said
    assert "in favour of eps 0.1" in said
    assert "widen" not in said
    assert "No eps is better" not in said


def test_the_effect_is_that_of_the_test_data_with_bonferronis_interval(tmp_path):
    choice = chosen(write_sweep(tmp_path, valley, grid=GRID, noise=0.01))
    after, before = (group.by_seed("test/nll") for group in (choice.chosen, choice.baseline))
    wanted = stats.ttest_rel(list(after.values()), list(before.values())).confidence_interval(1 - 0.05 / 3)
    assert (choice.stage, choice.alpha) == ("test", pytest.approx(0.05 / 3))
    assert (choice.effect.low, choice.effect.high) == pytest.approx((wanted.low, wanted.high))


@pytest.mark.parametrize("rounding", [-1e-9, 1e-9])
def test_a_loss_that_is_plain_at_eps_0_but_for_rounding_is_not_preferred(tmp_path, rounding):
    for seed in range(2):
        for loss, eps, nll in (("ce", 0, 0.5), ("mine.Loss", 0, 0.5 + rounding), ("ce", 0.1, 0.6 + 0.01 * seed)):
            write_job(tmp_path / f"{loss}-{eps}-{seed}", eps, seed, loss=loss, val=measured(nll), test=measured(nll))
    choice = chosen(tmp_path)
    assert (choice.chosen.loss, choice.chosen.eps) == ("ce", 0)
    assert (choice.asked.eps, choice.reference.eps) == (0.1, 0)
    assert choice.effect.mean == pytest.approx(0.105)


def test_validation_alone_chooses(tmp_path):
    for number, (eps, val, test) in enumerate(((0, 0.5, 0.1), (0.1, 0.3, 0.9), (0.2, 0.4, 0.0))):
        for seed in range(3):
            write_job(tmp_path / f"{number}-{seed}", eps, seed, val=measured(val), test=measured(test))
    choice = chosen(tmp_path)
    assert choice.chosen.eps == 0.1
    assert choice.effect.mean == pytest.approx(0.8)
    assert "in favour of eps 0." in text(choice)


def test_one_standard_error_toward_the_smaller_eps(tmp_path):
    costs = {0: [0.9, 0.9, 0.9, 0.9], 0.05: [0.52, 0.50, 0.48, 0.51], 0.1: [0.5, 0.5, 0.5, 0.5], 0.2: [0.7] * 4}
    for eps, values in costs.items():
        for seed, value in enumerate(values):
            write_job(tmp_path / f"{eps}-{seed}", eps, seed, val=measured(value), test=measured(value))
    choice = chosen(tmp_path)
    excess = [after - before for after, before in zip(costs[0.05], costs[0.1], strict=True)]
    assert 0 < sum(excess) / 4 <= stats.sem(excess)
    assert (choice.best.eps, choice.chosen.eps) == (0.1, 0.05)
    assert "eps 0.05 is within one standard error of it" in text(choice)
    costs[0.05] = [0.53, 0.52, 0.52, 0.53]
    for seed, value in enumerate(costs[0.05]):
        write_job(tmp_path / f"0.05-{seed}", 0.05, seed, val=measured(value), test=measured(value))
    assert chosen(tmp_path).chosen.eps == 0.1


def test_noise_is_called_noise_and_the_seeds_that_lack_are_counted(tmp_path):
    choice = chosen(
        write_sweep(tmp_path, lambda eps: 0.5 - 0.02 * (eps == 0.1), grid=(0, 0.1), noise=0.03, seeds=range(4))
    )
    assert not choice.separated
    said = text(choice)
    assert "No eps is better than another on this evidence" in said
    needed = choice.more_seeds
    assert f"{needed} seed" in said
    command = next(line for line in said.splitlines() if line.startswith("python -m ls_lightning.train -m"))
    words = shlex.split(command)
    assert "eps=0,0.1" in words
    assert any(word.startswith(("seed=range(4,", "seed=4")) for word in words)
    assert "trainer.max_epochs=40" in words


def test_no_difference_at_all_needs_no_more_seeds(tmp_path):
    said = text(chosen(write_sweep(tmp_path, lambda eps: 0.5, grid=(0, 0.1))))
    assert said.startswith("eps 0: ")
    assert "would need more than 1000 seeds" in said


def test_one_seed_says_nothing(tmp_path):
    choice = chosen(write_sweep(tmp_path, valley, grid=GRID, seeds=[7]))
    said = text(choice)
    assert choice.chosen.eps == 0.1
    assert "a single seed says nothing" in said
    assert "'seed=range(8,12)'" in said
    assert "nan" not in said


@pytest.mark.parametrize(
    ("grid", "best", "side", "words"),
    [
        ((0, 0.05, 0.1), 0.2, "high", "eps=0.15,0.2"),
        ((0, 0.1, 0.4), 0.9, "high", "eps=0.7 "),
        ((0, 0.3, 0.8), 0.9, "high", "eps=0.9 "),
        ((0.1, 0.2), 0.05, "low", "eps=0,0.025,0.05"),
        ((0, -0.2, -0.4), -1, "high", "eps=-0.6,-0.8"),
        ((0, -0.2, -0.4), -0.2, None, ""),
        ((0, 0.1, 0.2), 0.1, None, ""),
        ((0, 0.1, 0.2), 0.0, None, ""),
    ],
)
def test_the_edge_of_the_grid(tmp_path, grid, best, side, words):
    choice = chosen(write_sweep(tmp_path, lambda eps: 0.5 + (eps - best) ** 2, grid=grid, noise=1e-4))
    assert choice.edge == side
    assert ("widen the grid" in text(choice)) == (side is not None)
    assert words in text(choice)


def test_the_grid_is_that_of_the_best_schedule(tmp_path):
    write_sweep(tmp_path / "constant", lambda eps: 0.5 + eps, grid=(0, 0.1, 0.2), noise=1e-4)
    write_sweep(tmp_path / "linear", lambda eps: 0.5 - eps, grid=(0.05, 0.1), noise=1e-4, schedule="linear")
    choice = chosen(tmp_path)
    assert (choice.grid, choice.edge) == ([0, 0.05, 0.1], "high")
    said = text(choice)
    assert said.startswith("eps 0.1 with linear decay: ECE")
    assert "loss=ce schedule=linear trainer.max_epochs=40" in said
    assert "among 5 combinations" in said


def test_without_eps_0_it_is_asked_for(tmp_path):
    choice = chosen(write_sweep(tmp_path, lambda eps: eps, grid=(0.1, 0.2), noise=1e-3))
    assert choice.baseline is None
    assert choice.reference.eps == 0.2
    assert "Plain training (eps 0) was not run" in text(choice)


@pytest.mark.parametrize(("seeds", "noise"), [(1, 0.0), (5, 0.05), (5, 1e-3)])
def test_a_command_has_a_line_of_its_own(tmp_path, seeds, noise):
    said = text(chosen(write_sweep(tmp_path, lambda eps: eps, grid=(0.1, 0.2), noise=noise, seeds=range(seeds))))
    commands = [line for line in said.splitlines() if "python -m" in line]
    assert len(commands) >= 1
    for line in commands:
        assert line.startswith("python -m ls_lightning.train -m "), line
        assert "Plain training" not in line, line


def test_a_single_eps_has_nothing_to_be_compared_with(tmp_path):
    for eps, more in ((0.1, "eps=0,0.05 "), (0, "eps=0.05,0.1 ")):
        said = text(chosen(write_sweep(tmp_path / str(eps), lambda eps: 0.5, grid=(eps,), noise=0.1)))
        assert "nothing to compare it with" in said
        assert f"{more}'seed=range(0,3)' loss=ce schedule=constant" in said
        assert "widen" not in said


def test_without_test_data_it_says_so(tmp_path):
    for eps in (0, 0.1):
        for seed in range(2):
            write_job(tmp_path / f"{eps}-{seed}", eps, seed, val=measured(0.5 - eps + seed / 100))
    choice = chosen(tmp_path)
    assert choice.stage == "val"
    assert "Nothing was measured on test data" in text(choice)


def test_a_single_lucky_seed_is_not_chosen_and_named(tmp_path):
    write_sweep(tmp_path, valley, grid=(0, 0.1), noise=0.001)
    write_job(tmp_path / "lucky", 0.3, 0, val=measured(0.01), test=measured(0.01))
    write_job(tmp_path / "lacking", 0.4, 0, val={"acc": 1.0}, test=measured(0.01))
    choice = chosen(tmp_path)
    assert (choice.chosen.eps, choice.best.eps) == (0.1, 0.1)
    assert [group.eps for group in choice.passed_over] == [0.3, 0.4]
    assert "Not chosen from: eps 0.3 (1 seed); eps 0.4 (1 seed): they lack NLL on validation" in text(choice)


def test_a_metric_that_nobody_measured(tmp_path):
    write_sweep(tmp_path, valley)
    with pytest.raises(ConfigError, match="select=aurc needs val/aurc, which no finished job has"):
        chosen(tmp_path, "aurc")
    assert chosen(tmp_path, "nll_scaled").criterion.label == "NLL after temperature scaling"


@given(st.lists(st.tuples(st.floats(0.01, 10), st.sampled_from(["nll", "ece", "brier"])), min_size=1, max_size=4))
def test_a_weighted_sum_is_one(terms):
    criterion = parse_criterion("+".join(f"{weight:.6f}*{key}" for weight, key in terms))
    values = {"nll": 0.3, "ece": 0.05, "brier": 0.2}
    job = Job("here", "complete", "", {"metrics": {"val": values}})
    wanted = sum(float(f"{weight:.6f}") * values[key] for weight, key in terms)
    assert criterion.cost(job, "val") == pytest.approx(wanted)


def test_lower_is_better_for_every_term():
    job = Job("here", "complete", "", {"metrics": {"val": {"acc": 0.9, "gap": -0.2}}})
    assert parse_criterion("accuracy").cost(job, "val") == pytest.approx(0.1)
    assert parse_criterion("gap+2acc").cost(job, "val") == pytest.approx(0.4)
    assert parse_criterion("accuracy+0.5*ece").label == "error rate + 0.5 ECE"


@pytest.mark.parametrize("wrong", ["", "nll-ece", "0*nll", "nll+", "-1*nll", "nll*2", "nan*nll"])
def test_what_is_no_criterion(wrong):
    with pytest.raises(ConfigError, match="select must be a metric or a weighted sum"):
        parse_criterion(wrong)


@pytest.mark.parametrize(
    ("wrong", "hint"), [("nl", "Did you mean nll"), ("entropy", "select must name"), ("acuracy", "accuracy")]
)
def test_unknown_metrics(wrong, hint):
    with pytest.raises(ConfigError, match=hint):
        parse_criterion(wrong)


def test_commands_find_the_files_that_the_sweep_found(tmp_path):
    root = write_sweep(tmp_path, lambda eps: 0.5 + 0.001 * eps, grid=(0, 0.1), noise=0.01)
    (root / "multirun.yaml").write_text(
        "hydra:\n  runtime:\n    config_sources:\n"
        "    - {path: ls_lightning.conf, schema: pkg, provider: main}\n"
        "    - {path: /my/conf, schema: file, provider: command-line}\n"
        "    - {path: /more, schema: file, provider: hydra.searchpath in command-line}\n"
    )
    (command,) = (line.strip() for line in text(chosen(root)).splitlines() if "ls_lightning.train" in line)
    assert shlex.split(command)[3:6] == ["-m", "--config-dir=/my/conf", "hydra.searchpath=[file:///more]"]


def test_a_temperature_at_the_end_of_its_range_is_not_praised(tmp_path):
    root = write_sweep(tmp_path, valley, grid=(0, 0.1), noise=0.001)
    for file in root.rglob("result.json"):
        result = json.loads(file.read_text())
        result["temperature"]["at_boundary"] = True
        file.write_text(json.dumps(result))
    assert "gives 7.0 % (T at the end of its range in 5 of 5: do not trust it)." in text(chosen(root))


def test_the_command_of_a_job_that_no_sweep_started(tmp_path):
    typed = ["data=npz", "data.path=mine.npz", "eps=0.1", "trainer.max_epochs=5"]
    write_job(tmp_path / "a", 0.1, val=measured(0.5), test=measured(0.5), overrides=typed)
    (tmp_path / "a" / "overrides.yaml").unlink()
    (command,) = (line.strip() for line in text(chosen(tmp_path)).splitlines() if "ls_lightning.train" in line)
    assert command.endswith("data=npz data.path=mine.npz trainer.max_epochs=5")


def test_two_seeds_say_little(tmp_path):
    said = text(chosen(write_sweep(tmp_path, lambda eps: 0.5 + 0.001 * eps, grid=(0, 0.1), seeds=range(2), noise=0.01)))
    assert "Two seeds say little about the spread. Train at least 3 more:\npython" in said
    assert "'seed=range(2,5)'" in said


def with_own(root, values, **keys):
    """A sweep in which the module logged a metric of its own, in validation and test."""
    for number, (eps, seed) in enumerate((eps, seed) for eps in values for seed in range(3)):
        own = {name: value + 0.001 * seed for name, value in values[eps].items()}
        both = {**measured(0.5), **own}
        write_job(root / str(number), eps, seed, val=both, test=both, **keys)
    return root


def test_a_metric_of_ones_own_decides(tmp_path):
    sweep = with_own(tmp_path, {0: {"macro_f1": 0.8, "score": 3}, 0.1: {"macro_f1": 0.9, "score": 2}})
    choice = chosen(sweep, "macro_f1")
    assert (choice.criterion.label, choice.chosen.eps) == ("1 - macro f1", 0.1)
    said = text(choice)
    assert said.startswith("eps 0.1: macro f1 0.801 -> 0.901, ECE 5.0 -> 5.0 %")
    assert "macro f1 +0.100" in said
    assert [chosen(sweep, f"val/score:{side}").chosen.eps for side in ("min", "max")] == [0.1, 0]
    assert chosen(sweep, "score:max+0.001*nll").chosen.eps == 0
    with pytest.raises(ConfigError, match=r"needs val/macro_f2, which no finished job has\. Did you mean val/macro_f1"):
        chosen(sweep, "macro_f2:max")


@pytest.mark.parametrize(
    ("wrong", "words"),
    [
        ("score", "For one of your own say which side is better: score:max or score:min."),
        ("ece:max", "ece is better lower, so ece:max would choose the worst"),
        ("test/score:max", "select is of validation data"),
    ],
)
def test_a_metric_of_ones_own_needs_a_side(wrong, words):
    with pytest.raises(ConfigError, match=words):
        parse_criterion(wrong)


def test_networks_that_still_learn_are_said_to(tmp_path):
    for seed in range(3):
        for k, (eps, nll) in enumerate(((0, "0.9 0.5 0.3"), (0.1, "0.9 0.3 0.31"))):
            folder = write_job(tmp_path / f"{seed}{k}", eps, seed, val=measured(0.5 + eps), test=measured(0.5))
            curve = [f"{10 * step + 9},{value}" for step, value in enumerate(nll.split())]
            (folder / "metrics.csv").write_text("\n".join(["step,val/nll", *curve, f"30,{nll.split()[-1]}", ""]))
    (said,) = (one for one in explain(chosen(tmp_path)) if "trained to the end" in one)
    assert said.startswith(
        "Not trained to the end: the NLL on validation was still falling in the last epoch in 3 of 3"
    )
    assert "jobs of eps 0, so more epochs" in said
    assert said.endswith("Train longer: trainer.max_epochs=80.")
