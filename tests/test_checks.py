"""The graders, tested like a product: each mistake its diagnosis, each right answer full marks."""

import copy
import importlib
import zlib

import pytest
import torch

from kdlib.checks import catalogue, check, units
from kdlib.checks.judge import judge
from kdlib.checks.observe import observe
from tests.idle import IDLE

SEEDS = (0, 1, 2)
EXERCISES = list(catalogue().values())
ANSWERS = {
    exercise_id: answers
    for unit in units()
    for exercise_id, answers in importlib.import_module(f"tests.answers.{unit[:3]}").ANSWERS.items()
}
MISTAKES = [(e, m) for e in EXERCISES for m in e.mistakes]
RIGHT = [(e, a) for e in EXERCISES for a in ANSWERS[e.id]]


def named(pair):
    return f"{pair[0].id}-{getattr(pair[1], 'name', getattr(pair[1], '__name__', '?'))}"


@pytest.mark.parametrize("pair", MISTAKES, ids=named)
def test_each_mistake_fails_with_its_own_diagnosis(pair):
    exercise, mistake = pair
    for seed in SEEDS:
        verdict = judge(exercise, observe(exercise, mistake.answer, seed), seed)
        assert not verdict.passed
        assert verdict.points < exercise.points
        assert [d.name for d in verdict.diagnoses][:1] == [mistake.name], str(verdict)


@pytest.mark.parametrize("pair", RIGHT, ids=named)
def test_each_right_answer_passes(pair):
    """On two of the three seeds; `make test-seeds` takes 200."""
    exercise, answer = pair
    for seed in (0, 1 + zlib.crc32(answer.__name__.encode()) % 2):
        verdict = judge(exercise, observe(exercise, answer, seed), seed)
        assert verdict.passed, str(verdict)


@pytest.mark.parametrize("exercise", EXERCISES, ids=lambda e: e.id)
class TestEachExercise:
    def test_has_eight_right_answers_and_enough_mistakes(self, exercise):
        assert len({a.__name__ for a in ANSWERS[exercise.id]}) >= 8
        assert len(exercise.mistakes) >= 4

    def test_the_reference_is_right_for_many_seeds(self, exercise):
        for seed in (5, 77, 2**31 - 1):
            record = observe(exercise, exercise.reference, seed, is_reference=True)
            assert judge(exercise, record, seed).passed

    def test_the_stub_scores_nothing(self, exercise):
        def stub(*args, **kwargs):
            raise NotImplementedError("your answer goes here")

        verdict = judge(exercise, observe(exercise, stub))
        assert (verdict.points, verdict.started) == (0, False)

    def test_the_reference_is_sealed(self, exercise):
        verdict = judge(exercise, observe(exercise, exercise.reference))
        assert verdict.points == 0
        assert "sealed" in str(verdict)
        assert not hasattr(exercise.reference, "__wrapped__")

    def test_doing_nothing_earns_nothing(self, exercise):
        for answer in IDLE:
            verdict = judge(exercise, observe(exercise, answer))
            assert (verdict.points, verdict.note) == (0, ""), f"{answer.__name__}: {verdict}"

    def test_a_crash_names_the_error_and_the_line(self, exercise):
        def crash(*args, **kwargs):
            return {}["a key that is not there"]

        verdict = judge(exercise, observe(exercise, crash))
        assert verdict.points == 0
        assert "KeyError" in str(verdict)
        assert "not there" in str(verdict)

    def test_none_is_told_from_a_wrong_number(self, exercise):
        verdict = judge(exercise, observe(exercise, lambda *args, **kwargs: None))
        assert verdict.points == 0
        if all(probe.run is None for probe in exercise.probes):
            assert "`return`" in " ".join(r.message for r in verdict.results)

    def test_messages_do_not_hold_the_expected_value(self, exercise):
        """Shift every value of the reference and look for the true ones in what is said."""
        record = copy.deepcopy(observe(exercise, exercise.reference, is_reference=True))
        true = set()
        for seen in record.values():
            if isinstance(seen.value, torch.Tensor | float) and not isinstance(seen.value, bool):
                value = torch.as_tensor(seen.value)
                if value.is_floating_point():
                    # a number in the thousands is the same to four digits after the shift
                    first = [x for x in value.flatten().tolist()[:4] if 1e-3 < abs(x) < 1e3]
                    true |= {f"{x:.4g}" for x in first}
                    seen.value = seen.value + 0.3719
        if not true:
            pytest.skip("no probe returns a float")
        text = str(judge(exercise, record))
        assert not [number for number in true if number in text and len(number) > 4], text


def test_points_of_criteria_are_quarters():
    for exercise in EXERCISES:
        assert all(c.points * 4 == int(c.points * 4) and c.points > 0 for c in exercise.criteria)


def test_an_unknown_exercise_suggests_a_near_one():
    with pytest.raises(ValueError, match=r"did you mean .*02\.kd_loss"):
        check("02.kdloss", lambda: None)


def test_a_result_instead_of_a_function_is_explained():
    verdict = check("02.kd_loss", 3.0)
    assert verdict.points == 0
    assert "without parentheses" in str(verdict)


def test_the_documented_matrix_is_what_the_checks_do(capsys):
    from pathlib import Path

    from kdlib.checks.__main__ import matrix

    made = "\n".join(matrix()) + "\n"
    with capsys.disabled():
        mistakes, answers = len(MISTAKES), len(RIGHT)
        print(f"\n{len(EXERCISES)} exercises, {mistakes} known mistakes, {answers} right answers")
    documented = Path(__file__).parents[1] / "docs" / "MISTAKES.md"
    assert documented.read_text(encoding="utf-8") == made, "run python -m kdlib.checks"
