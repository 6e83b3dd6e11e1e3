"""The blind set only counts: enough answers, each in order, and no check worse than it was."""

import inspect
import os

import pytest

from kdlib.checks import catalogue
from tests.blind import measure, stored_counts, wrong_answers

ANSWERS = wrong_answers()


def test_each_exercise_of_a_unit_that_has_a_set_has_at_least_six():
    units = {exercise[:2] for exercise in ANSWERS}
    counted = {e: len(ANSWERS.get(e, ())) for e in catalogue() if e[:2] in units}
    assert {e: n for e, n in counted.items() if n < 6} == {}


@pytest.mark.parametrize("exercise", ANSWERS)
def test_each_answer_says_its_cause_and_clause_once(exercise):
    answers = ANSWERS[exercise]
    assert all(wrong.cause.strip() and wrong.clause.strip() for wrong in answers)
    assert len({wrong.cause for wrong in answers}) == len(answers)
    assert len({wrong.answer.__name__ for wrong in answers}) == len(answers)


@pytest.mark.parametrize("exercise", ANSWERS)
def test_each_answer_can_be_called_as_the_reference(exercise):
    wanted = list(inspect.signature(catalogue()[exercise].reference).parameters.values())
    for wrong in ANSWERS[exercise]:
        names = list(inspect.signature(wrong.answer).parameters)
        assert names == [p.name for p in wanted[: len(names)]], wrong.answer.__name__
        assert all(p.default is not p.empty for p in wanted[len(names) :]), wrong.answer.__name__


@pytest.mark.skipif("KDLIB_MEASURE" not in os.environ, reason="`make blind` measures")
@pytest.mark.parametrize("exercise", ANSWERS)
def test_no_check_got_worse(exercise):
    """More full marks, or fewer named, than stored: the check lost something."""
    stored = stored_counts()[exercise]
    full, named = measure(exercise, ANSWERS[exercise])
    assert stored["wrong"] == len(ANSWERS[exercise]), "run python -m tests.blind --store"
    assert len(full) <= stored["full"], [wrong.answer.__name__ for wrong in full]
    assert len(named) >= stored["named"]
