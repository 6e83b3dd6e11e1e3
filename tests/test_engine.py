"""What the engine says about answers that misbehave."""

import dataclasses
import json
import time

import pytest
import torch
import torch.nn.functional as F
from scipy import stats

from kdlib.checks import catalogue, check
from kdlib.checks.criteria import matches
from kdlib.checks.exercise import Exercise, Mistake, Probe
from kdlib.checks.guard import TookTooLong, time_limit
from kdlib.checks.judge import judge
from kdlib.checks.observe import observe
from kdlib.checks.verdict import CheckFailed, Diagnosis, Result, Verdict
from kdlib.notebook import progress

KD = "02.kd_loss"


def right(student_logits, teacher_logits, targets, temperature=4.0, alpha=0.9):
    if temperature <= 0:
        raise ValueError("temperature")
    soft = F.kl_div(
        (student_logits / temperature).log_softmax(-1),
        (teacher_logits.detach() / temperature).log_softmax(-1),
        reduction="batchmean",
        log_target=True,
    )
    return alpha * temperature**2 * soft + (1 - alpha) * F.cross_entropy(student_logits, targets)


def verdict_of(answer, exercise_id=KD, seed=0):
    exercise = catalogue()[exercise_id]
    return judge(exercise, observe(exercise, answer, seed), seed)


def test_in_place_changes_are_named():
    def answer(s, t, y, T, a):
        loss = right(s, t, y, T, a)
        t /= T
        return loss

    verdict = verdict_of(answer)
    assert "changes teacher_logits in place" in str(verdict).replace("\n    ", " ")
    assert not verdict.passed


def test_chance_is_noticed():
    verdict = verdict_of(lambda *a: right(*a) + 1e-3 * torch.randn(()))
    assert "two different results" in str(verdict).replace("\n    ", " ")


def test_memory_of_the_first_call_is_noticed():
    calls = []

    def answer(*args):
        calls.append(1)
        return right(*args) * (1 + 0.01 * len(calls))

    assert "two different results" in str(verdict_of(answer)).replace("\n    ", " ")


def test_an_endless_loop_is_stopped():
    def answer(*args):
        while True:
            pass

    start = time.perf_counter()
    verdict = verdict_of(answer)
    assert verdict.points == 0
    assert "stopped after" in str(verdict)
    assert time.perf_counter() - start < 60  # not forever


def test_the_time_limit_works_outside_the_main_thread():
    import threading

    seen = []

    def work():
        try:
            with time_limit(0.2):
                while True:
                    pass
        except TookTooLong:
            seen.append("stopped")

    thread = threading.Thread(target=work)
    thread.start()
    thread.join(30)
    assert seen == ["stopped"]


@pytest.mark.parametrize(
    ("answer", "words"),
    [
        (lambda *a: right(*a).expand(3), "shape (3,)"),
        (lambda *a: right(*a).float(), "torch.float32"),
        (lambda *a: right(*a) * float("nan"), "NaN"),
        (lambda *a: "0.3", "a tensor is expected"),
        (lambda *a: right(*a).item(), "no gradient of student_logits arrives"),
        (lambda *a: exit(), "SystemExit"),
        (lambda s: s, "TypeError"),
        (lambda *a: -right(*a), "The sign is wrong"),
    ],
)
def test_each_misbehaviour_has_its_own_words(answer, words):
    verdict = verdict_of(answer)
    assert not verdict.passed
    assert words in str(verdict).replace("\n    ", " ")


def test_two_independent_mistakes_are_both_named():
    def answer(s, t, y, T=4.0, a=0.9):
        soft = F.kl_div(
            (s / T).log_softmax(-1),
            (t.detach() / T).log_softmax(-1),
            log_target=True,
            reduction="batchmean",
        )
        return a * soft + (1 - a) * F.cross_entropy(s, y)  # no T^2, and T = 0 is taken

    names = [d.name for d in verdict_of(answer).diagnoses]
    assert names[0] == "no T squared"
    assert len(names) == 2


def test_a_mixture_of_mistakes_is_traced_to_its_factor():
    def answer(s, t, y, T=4.0, a=0.9):
        soft = F.kl_div((s / T).log_softmax(-1), (t.detach() / T).softmax(-1), reduction="mean")
        return a * soft + (1 - a) * F.cross_entropy(s, y)

    text = str(verdict_of(answer)).replace("\n    ", " ")
    assert "divided by the number of classes and the temperature squared" in text


def test_prints_and_random_state_of_the_student_are_left_alone(capsys):
    def answer(*args):
        print("debugging")
        torch.manual_seed(99)
        return right(*args)

    torch.manual_seed(1)
    before = torch.get_rng_state()
    assert verdict_of(answer).passed
    assert torch.equal(before, torch.get_rng_state())
    assert "debugging" not in capsys.readouterr().out


@pytest.mark.parametrize(
    "shortcut",
    [
        lambda z: torch.log_softmax(z, -1),
        lambda z: z.log_softmax(-1),
        lambda z: F.log_softmax(z, -1),
        lambda z: torch.nn.LogSoftmax(-1)(z),
    ],
)
def test_a_forbidden_shortcut_is_named(shortcut):
    exercise = dataclasses.replace(catalogue()[KD], forbids=("log_softmax",))
    verdict = judge(exercise, observe(exercise, lambda s, *rest: shortcut(s).sum()))
    assert verdict.points == 0
    assert "calls `log_softmax`" in str(verdict)


def test_a_question_is_not_told_as_a_bug():
    stood = Diagnosis("greedy", "Why?", "someone/thing #1")
    asked = Diagnosis("greedy", "Why?", "someone/thing #1, as a question")
    assert stood.elsewhere == "The same bug stood in someone/thing #1."
    assert asked.elsewhere == "Somebody asked about the same in someone/thing #1."
    assert Diagnosis("greedy", "Why?", "").elsewhere == ""
    verdict = Verdict("02.x", "X", (Result("a", 1.0, False, "b"),), (asked,))
    for text in (str(verdict), verdict.to_html()):
        assert "Somebody asked about the same in" in " ".join(text.split())
        assert "as a question" not in text


def test_a_teacher_that_is_no_constant_costs_one_criterion():
    def undetached(student_features, teacher_features):
        if student_features.shape[2:] != teacher_features.shape[2:]:
            raise ValueError("sizes differ")
        a, b = (
            F.normalize(x.square().mean(1).flatten(1), dim=1)
            for x in (student_features, teacher_features)
        )
        return torch.linalg.vector_norm(a - b, dim=1).mean()

    verdict = verdict_of(undetached, "06.attention_loss")
    assert [r.name for r in verdict.results if not r.passed] == ["the teacher is a constant"]


def test_float32_does_not_hide_another_mistake():
    def other_way_round(a, b, confidence=0.95):
        if len(a) != len(b) or len(a) < 2:
            raise ValueError("no pairs")
        d = torch.tensor(b) - torch.tensor(a)
        half = stats.t.ppf((1 + confidence) / 2, len(d) - 1) * d.std().item() / len(d) ** 0.5
        return d.mean().item(), d.mean().item() - half, d.mean().item() + half

    for seed in range(5):
        verdict = verdict_of(other_way_round, "04.paired_interval", seed)
        assert [d.heading for d in verdict.diagnoses] == ["Looks like: b - a."]


def test_a_table_of_several_calls_is_called_one():
    def greedy(next_logits, prompt, length, beams, eos):
        return prompt[:1], 0.0

    text = " ".join(str(verdict_of(greedy, "11.beam_search")).split())
    assert "your table of results (one call a line, filled up with -1) is" in text


def test_a_probe_may_be_lenient():
    def strict(atol):
        return Exercise(
            "02.x",
            "X",
            lambda x: x,
            (Probe("p", "a number", lambda g: {"x": torch.rand(3, generator=g)}, atol=atol),),
            (matches("the value", 1.0, "p"),),
            (Mistake("minus", lambda x: -x, "Why?"),),
            1,
            1,
        )

    for atol, right in ((1e-8, False), (1e-3, True)):
        exercise = strict(atol)
        verdict = judge(exercise, observe(exercise, lambda x: x + 5e-4))
        assert verdict.passed is right
        found = judge(exercise, observe(exercise, lambda x: 5e-4 - x)).diagnoses
        assert [d.name for d in found if d.name == "minus"] == ["minus"] * right


def test_seeds_give_other_inputs_and_the_same_judgement():
    exercise = catalogue()[KD]
    a, b = (observe(exercise, right, seed)["soft"].value for seed in (0, 1))
    assert a != b
    assert verdict_of(right, seed=123456).passed


class TestUnderNbgrader:
    def test_autograde_gives_points_as_text(self, monkeypatch):
        monkeypatch.setenv("NBGRADER_EXECUTION", "autograde")
        verdict = check(KD, right)
        assert verdict._repr_mimebundle_()["text/plain"] == "5"
        assert "5 of 5" in verdict._repr_mimebundle_()["text/html"]

    def test_autograde_draws_its_inputs_anew(self, monkeypatch):
        monkeypatch.setenv("NBGRADER_EXECUTION", "autograde")
        assert len({check(KD, right).seed for _ in range(4)}) > 1

    def test_validate_raises_short(self, monkeypatch):
        monkeypatch.setenv("NBGRADER_EXECUTION", "validate")
        with pytest.raises(CheckFailed, match="of 5 points") as caught:
            check(KD, lambda *a: -right(*a))
        assert len(caught.value._render_traceback_()) == 1
        assert check(KD, right).passed


class TestProgress:
    @pytest.fixture
    def record(self, tmp_path, monkeypatch):
        file = tmp_path / "deep" / "progress.json"
        monkeypatch.setenv("KDLIB_PROGRESS", str(file))
        return file

    def test_best_and_last_are_kept(self, record):
        check(KD, right)
        check(KD, lambda *a: -right(*a))
        entry = json.loads(record.read_text())[KD]
        assert entry["best"] == entry["of"] == 5
        assert entry["last"] < 5
        assert entry["tries"] == 2
        assert "02.kd_loss" in str(progress.Dashboard())
        assert "<table>" in progress.Dashboard()._repr_html_()

    def test_a_damaged_record_is_set_aside(self, record):
        record.parent.mkdir()
        record.write_text("{ not json")
        assert check(KD, right).passed
        assert record.with_name("progress.damaged.json").read_text() == "{ not json"
        assert json.loads(record.read_text())[KD]["best"] == 5

    def test_an_unwritable_place_costs_no_check(self, monkeypatch, tmp_path):
        (tmp_path / "file").write_text("")
        monkeypatch.setenv("KDLIB_PROGRESS", str(tmp_path / "file" / "progress.json"))
        assert check(KD, right).passed

    def test_nothing_is_written_while_grading(self, record, monkeypatch):
        monkeypatch.setenv("NBGRADER_EXECUTION", "autograde")
        check(KD, right)
        assert not record.exists()


def test_a_crash_on_every_probe_is_told_once():
    text = str(check("02.kd_loss", lambda *args: {}["a key"]))
    assert text.count("KeyError: ") == 1
    assert "the same error" in " ".join(text.split())
