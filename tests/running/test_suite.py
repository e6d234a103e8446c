from __future__ import annotations

from pathlib import Path

import pytest

from posterior_bench.running.plan import plan
from posterior_bench.running.suite import Suite, SuiteError, load_suite, shipped

GOOD = """
name = "mine"
[[tasks]]
simulator = "inverse_kinematics"
[[methods]]
method = "prior"
"""


def written(tmp_path: Path, text: str) -> str:
    path = tmp_path / "suite.toml"
    path.write_text(text, encoding="utf-8")
    return str(path)


def test_a_file_is_read(tmp_path):
    suite = load_suite(written(tmp_path, GOOD))
    assert (suite.name, suite.measurements, suite.tasks[0].simulator) == ("mine", 1000, "inverse_kinematics")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (('name = "mine"', 'name = "mine"\nmeasurement = 5'), "did you mean 'measurements'"),
        (('name = "mine"', 'name = "mine"\ndraws = "many"'), "draws"),
        (('name = "mine"', 'name = "../mine"'), "name"),
        (('simulator = "inverse', 'simulater = 1\nsimulator = "inverse'), "did you mean 'simulator'"),
        (('method = "prior"', 'method = "prior"\noption = {}'), "did you mean 'options'"),
        (('name = "mine"', 'name = "mine'), "not valid TOML"),
        (("[[methods]]", "[[nothing]]"), "methods"),
        (('name = "mine"', 'name = "mine"\ndense_draw = 5'), "did you mean 'dense_draws'"),
        (
            ('name = "mine"', 'name = "mine"\ndense_measurements = 1001'),
            "expected at most the suite's measurements, 1000",
        ),
        (('method = "prior"', 'method = "prior"\nobservation = 3'), "did you mean 'observations'"),
        (('method = "prior"', 'method = "prior"\nmeasurements = 0'), "greater than or equal to 1"),
        (("[[methods]]", 'reference = "engin"\n[[methods]]'), "reference"),
    ],
)
def test_a_wrong_file_says_where_and_offers_the_nearest_word(tmp_path, change, message):
    with pytest.raises(SuiteError, match=message):
        load_suite(written(tmp_path, GOOD.replace(*change)))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (("inverse_kinematics", "inverse_kinematic"), "did you mean 'inverse_kinematics'"),
        (('method = "prior"', 'method = "priors"'), "did you mean 'prior'"),
        (('method = "prior"', 'method = "abc_rejection"\noptions = {accep = 2}'), "did you mean 'accept'"),
        (('method = "prior"', 'method = "prior"\ntasks = ["tisue"]'), "unknown task 'tisue'"),
        (("[[methods]]", '[[methods]]\nmethod = "prior"\n[[methods]]'), "two entries are called 'prior'"),
        (('"inverse_kinematics"', '"no/such/file.py:Mine"'), "there is no file"),
    ],
)
def test_a_wrong_plugin_is_found_before_anything_runs(tmp_path, change, message):
    with pytest.raises(SuiteError, match=message):
        plan(load_suite(written(tmp_path, GOOD.replace(*change))))


def test_an_unknown_suite_answers_with_the_nearest():
    with pytest.raises(SuiteError, match="did you mean 'quick'"):
        load_suite("quik")


def test_anchors_are_one_job_a_task(make_suite):
    jobs = plan(make_suite(["Gaussian"], ["prior", "Regression"], budgets=[100, 200], repetitions=3))
    assert len([j for j in jobs if j.method == "prior"]) == 1
    assert len([j for j in jobs if j.method == "regression"]) == 6


def test_only_picks_jobs_and_says_what_there_is(make_suite):
    suite = make_suite(["Gaussian"], ["prior", "Regression"])
    assert [j.method for j in plan(suite, ["*/regression"])] == ["regression"]
    with pytest.raises(SuiteError, match="gaussian/prior"):
        plan(suite, ["nothing"])


def test_an_address_depends_on_what_determines_the_numbers(make_suite):
    def job(**settings: object):
        return plan(make_suite(["Gaussian"], ["Regression"], **settings))[0]

    base, more_draws, more_budget = job(), job(draws=50), job(budgets=[400])
    assert base == job()
    assert base.fit == more_draws.fit, "more draws need no new fit"
    assert base.id != more_draws.id
    assert base.fit != more_budget.fit
    assert base.simulations == more_budget.simulations, "a larger budget extends a smaller one"


def test_an_edited_plugin_never_meets_its_old_rows(tmp_path):
    text = Path(__file__).with_name("toys.py").read_text(encoding="utf-8")
    ids = []
    for folder, source in (("one", text), ("two", text.replace("time.sleep(self.delay)", "time.sleep(0.0)"))):
        place = tmp_path / folder
        place.mkdir()
        (place / "toys.py").write_text(source, encoding="utf-8")
        entries = {"tasks": [{"simulator": f"{place}/toys.py:Gaussian"}]}
        suite = Suite(name="toys", methods=[{"method": f"{place}/toys.py:Regression"}], **entries)
        ids.append(plan(suite)[0].id)
    assert ids[0] != ids[1]


def test_each_budget_may_have_its_own_repetitions(tmp_path):
    text = GOOD.replace('simulator = "inv', 'budgets = [10, 20]\nrepetitions = [3, 1]\nsimulator = "inv').replace(
        '"prior"', '"abc_rejection"'
    )
    jobs = plan(load_suite(written(tmp_path, text)))
    assert [(job.budget, job.repetition) for job in jobs] == [(10, 0), (10, 1), (10, 2), (20, 0)]
    with pytest.raises(SuiteError, match="2 repetitions for 1 budgets"):
        load_suite(written(tmp_path, text.replace("[10, 20]", "[10]")))


PUBLISHED = """
[[published]]
task = "inverse_kinematics"
title = "Errors"
source = "Somebody 1999"
note = "Not comparable."
columns = ["Error"]
metrics = ["map_error"]
rows = [{ label = "Prior", method = "prior", values = ["0.5"] }]
"""


def test_a_published_table_must_be_rectangular_and_of_a_task_of_the_suite(tmp_path):
    assert load_suite(written(tmp_path, GOOD + PUBLISHED)).published[0].rows[0].values == ("0.5",)
    with pytest.raises(SuiteError, match="metrics has 2 entries; expected one a column, 1"):
        load_suite(written(tmp_path, GOOD + PUBLISHED.replace('["map_error"]', '["map_error", ""]')))
    with pytest.raises(SuiteError, match="unknown task 'inverse_kinematic'"):
        plan(
            load_suite(
                written(tmp_path, GOOD + PUBLISHED.replace('task = "inverse_kinematics"', 'task = "inverse_kinematic"'))
            )
        )


def test_a_task_may_leave_the_reference_out(tmp_path):
    with_it, without = (
        plan(load_suite(written(tmp_path, GOOD.replace("[[methods]]", f"reference = {word}\n[[methods]]"))))[0]
        for word in ("true", "false")
    )
    assert with_it.has_reference
    assert not without.has_reference
    assert with_it.id != without.id  # their rows are not the same
    assert with_it.fit == without.fit


def test_seconds_are_told_for_each_budget(tmp_path):
    text = GOOD.replace('simulator = "inv', 'budgets = [10, 20]\nsimulator = "inv').replace(
        'method = "prior"', 'method = "abc_rejection"\nseconds = { inverse_kinematics = [1, 2.5] }'
    )
    assert [job.seconds for job in plan(load_suite(written(tmp_path, text)))] == [1, 2.5]


@pytest.mark.parametrize("name", sorted(shipped()))
def test_the_shipped_suites_can_be_planned(name):
    suite = load_suite(name)
    assert suite.name == name
    jobs = plan(suite)
    assert "prior" in {job.method for job in jobs}, "a suite holds the worst honest answer"
    assert all(job.seconds is not None for job in jobs), "a shipped suite tells how long it takes"
