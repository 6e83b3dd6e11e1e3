"""What the engine says about answers that misbehave."""

import builtins
import dataclasses
import json
import os
import signal
import sys
import tempfile
import threading
import time

import pytest
import torch
import torch.nn.functional as F
from scipy import stats

from kdlib.checks import catalogue, check
from kdlib.checks.criteria import matches, tidy
from kdlib.checks.exercise import Clue, Exercise, Mistake, Probe, Variant
from kdlib.checks.guard import TookTooLong, time_limit
from kdlib.checks.judge import judge
from kdlib.checks.known import known
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
    assert time.perf_counter() - start < 600  # not forever


def test_the_time_limit_works_outside_the_main_thread():
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
        torch.rand(3)
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
    assert "whatever it is given" not in str(verdict)


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


def text_of(verdict):
    return " ".join(str(verdict).split())


class TestNotImplemented:
    def test_an_error_of_torch_is_no_stub(self):
        verdict = verdict_of(lambda s, t, y, *rest: F.log_softmax(y, dim=0).sum() + 0 * s.sum())
        assert verdict.started
        assert "it stops with NotImplementedError" in text_of(verdict)
        assert "log_softmax" in text_of(verdict)

    def test_nor_is_a_module_without_forward(self):
        verdict = verdict_of(lambda *args: torch.nn.Module()(*args))
        assert verdict.started
        assert "it stops with NotImplementedError" in text_of(verdict)

    def test_nor_is_a_refusal_in_words(self):
        def answer(*args):
            raise NotImplementedError("this temperature is not supported")

        assert "this temperature is not supported" in text_of(verdict_of(answer))

    def test_a_stub_in_a_helper_is_one(self):
        def helper():
            raise NotImplementedError

        assert not verdict_of(lambda *args: helper()).started

    def test_a_stub_without_its_source_is_one(self):
        scope = {}
        exec('def kd_loss(*a): raise NotImplementedError("your answer goes here")', scope)
        assert not verdict_of(scope["kd_loss"]).started


class TestTime:
    @pytest.fixture
    def slow_module(self, tmp_path, monkeypatch):
        (tmp_path / "slow_to_load.py").write_text("import time; time.sleep(1.5); READY = True")
        monkeypatch.syspath_prepend(tmp_path)
        yield
        sys.modules.pop("slow_to_load", None)

    @pytest.mark.parametrize("in_thread", [False, True])
    def test_an_import_has_its_own(self, slow_module, in_thread):
        ready = []

        def work():
            with time_limit(1.0):
                import slow_to_load

                time.sleep(0.3)
                ready.append(slow_to_load.READY)

        if in_thread:
            thread = threading.Thread(target=work)
            thread.start()
            thread.join(60)
        else:
            work()
        assert ready == [True]

    def test_a_loop_after_an_import_is_still_stopped(self, slow_module):
        def work():
            import slow_to_load

            while slow_to_load.READY:
                pass

        with pytest.raises(TookTooLong), time_limit(1.0):
            work()

    def test_a_masked_alarm_is_heard_the_next_time(self):
        signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGALRM})
        try:
            with pytest.raises(TookTooLong), time_limit(0.2):
                time.sleep(60)
        finally:
            signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGALRM})


def closes_stdout(*args):
    sys.stdout.close()
    return right(*args)


def lowers_the_recursion_limit(*args):
    sys.setrecursionlimit(120)
    return right(*args)


def recurses(*args):
    return recurses(*args)


def patches_len(*args):
    builtins.len = None
    builtins.isinstance = lambda *a: True
    return right(*args)


def deletes_zip(*args):
    del builtins.zip
    return right(*args)


def ignores_the_alarm(*args):
    signal.signal(signal.SIGALRM, signal.SIG_IGN)
    return right(*args)


def leaves_a_thread(*args):
    threading.Thread(target=time.sleep, args=(0.01,), daemon=True).start()
    return right(*args)


def loses_its_directory(*args):
    with tempfile.TemporaryDirectory() as folder:
        os.chdir(folder)
    return {}["missing"]


def changes_modes(*args):
    loss = right(*args)
    torch.set_default_device("meta")
    torch.set_grad_enabled(False)
    torch.use_deterministic_algorithms(True)
    return loss


def interrupts(*args):
    raise KeyboardInterrupt


def leaves_the_process(*args):
    raise GeneratorExit


class Mute(Exception):
    def __str__(self):
        raise RuntimeError("no words")


def raises_mute(*args):
    raise Mute


def gives_a_sparse_tensor(*args):
    return torch.eye(3).to_sparse()


def gives_a_meta_tensor(*args):
    return torch.empty((), dtype=torch.float64, device="meta")


def gives_complex(*args):
    return torch.complex(right(*args), torch.zeros((), dtype=torch.float64))


SURPRISES = (
    *(closes_stdout, lowers_the_recursion_limit, recurses, patches_len, deletes_zip),
    *(ignores_the_alarm, leaves_a_thread, loses_its_directory, changes_modes, interrupts),
    *(leaves_the_process, raises_mute, gives_a_sparse_tensor, gives_a_meta_tensor, gives_complex),
)


@pytest.mark.parametrize("answer", SURPRISES, ids=lambda a: a.__name__)
def test_no_surprise_gets_out_of_a_check(answer, monkeypatch, tmp_path):
    monkeypatch.setenv("KDLIB_PROGRESS", "off")
    monkeypatch.chdir(tmp_path)
    before = sys.stdout, sys.getrecursionlimit(), dict(vars(builtins)), torch.is_grad_enabled()
    verdict = check(KD, answer)
    assert (sys.stdout, sys.getrecursionlimit(), vars(builtins), torch.is_grad_enabled()) == before
    assert verdict.points < 5 or answer in (
        *(closes_stdout, lowers_the_recursion_limit, patches_len, deletes_zip),
        *(ignores_the_alarm, leaves_a_thread),
    )
    assert str(verdict)
    assert check(KD, right).points == 5


@pytest.mark.parametrize(
    ("change", "back"),
    [
        (lambda: torch.set_default_dtype(torch.float64), None),
        (lambda: torch.set_default_dtype(torch.float16), None),
        (lambda: torch.set_grad_enabled(False), None),
        (lambda: torch.set_default_device("meta"), lambda: torch.set_default_device(None)),
        (lambda: torch.autograd.set_detect_anomaly(True), None),
        (lambda: torch.set_num_threads(2), None),
        (lambda: setattr(builtins, "sum", None), None),
    ],
    ids=["float64", "float16", "no grad", "meta", "anomaly", "threads", "no sum"],
)
def test_the_session_s_modes_change_no_verdict(change, back):
    answers = (right, lambda *a: right(*a) * 2, catalogue()[KD].mistakes[0].answer)
    expected = [str(check(KD, answer, seed=5)) for answer in answers]
    threads, real_sum = torch.get_num_threads(), sum
    known.cache_clear()
    try:
        change()
        found = [str(check(KD, answer, seed=5)) for answer in answers]
    finally:
        builtins.sum = real_sum
        (back or (lambda: None))()
        torch.set_default_dtype(torch.float32)
        torch.set_grad_enabled(True)
        torch.autograd.set_detect_anomaly(False)
        torch.set_num_threads(threads)
    assert found == expected


class TestTwiceIsNotOnce:
    """The engine looks at what a call leaves behind."""

    def exercise(self, **arguments):
        def make(g):
            made = {"x": torch.rand(3, generator=g, requires_grad=True), "rows": [3, 1, 2]}
            with torch.random.fork_rng(devices=[]):
                made["model"] = torch.nn.Linear(3, 1)
            return made

        return Exercise(
            "02.x",
            "X",
            arguments.pop("reference", lambda x, rows, model: x * 2),
            (Probe("p", "a number", make, **arguments),),
            (matches("the value", 1.0, "p"), tidy(0.5)),
            (Mistake("minus", lambda x, rows, model: -x, "Why?"),),
            1,
            1,
        )

    def judged(self, answer, **arguments):
        exercise = self.exercise(**arguments)
        return judge(exercise, observe(exercise, answer))

    TRACES = (
        ("leaves a gradient on x", lambda x, rows, model: x.sum().backward()),
        ("changes rows in place", lambda x, rows, model: rows.sort()),
        ("changes rows in place", lambda x, rows, model: rows.pop()),
        ("leaves model in another mode", lambda x, rows, model: model.eval()),
        ("switches `requires_grad` of x", lambda x, rows, model: x.requires_grad_(False)),
        ("switches `requires_grad` of model", lambda x, rows, model: model.requires_grad_(False)),
        ("the hooks on x", lambda x, rows, model: x.register_hook(lambda g: g)),
        (
            "the hooks on model",
            lambda x, rows, model: model.register_forward_hook(lambda m, i, o: None),
        ),
        ("changes the parameters", lambda x, rows, model: model.weight.data.zero_()),
        ("sets the seed", lambda x, rows, model: torch.manual_seed(0)),
        ("it changes grad mode", lambda x, rows, model: torch.set_grad_enabled(False)),
        (
            "it changes the default dtype",
            lambda x, rows, model: torch.set_default_dtype(torch.float64),
        ),
    )

    @pytest.mark.parametrize(("words", "act"), TRACES)
    def test_each_trace_has_words(self, words, act):
        def answer(x, rows, model):
            result = x.detach() * 2
            act(x, rows, model)
            return result

        verdict = self.judged(answer)
        assert verdict.points == 1.0
        assert words in text_of(verdict)

    @pytest.mark.parametrize(("words", "act"), TRACES[:1])
    def test_what_the_reference_leaves_is_allowed(self, words, act):
        def answer(x, rows, model):
            act(x, rows, model)
            return x * 2

        assert self.judged(answer, reference=answer).passed
        assert not self.judged(answer).passed
        assert self.judged(answer, leaves=("x",)).passed

    def test_a_cache_by_shape_is_noticed(self):
        kept = {}

        def answer(x, rows, model):
            return kept.setdefault(x.shape, x.detach() * 2)

        assert "gives the first result again" in text_of(self.judged(answer))

    def test_an_instance_that_shares_its_list_is_noticed(self):
        kept = []

        def answer(x, rows, model):
            kept.append(x.detach() * 2)
            return sum(kept)

        assert "two different results" in text_of(self.judged(answer))


def test_side_criteria_wait_for_a_main_one():
    verdict = verdict_of(lambda s, *rest: s.sum())
    assert verdict.points == 0
    tidy_result = verdict.results[-1]
    assert tidy_result.passed
    assert "counts once a part of the result is right" in text_of(verdict)


def test_a_factor_that_explains_all_is_no_part():
    verdict = verdict_of(
        lambda s, t: 3 * 4 * (s - t.detach()).square().sum() / s.numel(), "06.hint_loss"
    )
    assert all(d.whole for d in verdict.diagnoses if d.name == "a constant factor")


class TestVariants:
    """The second rank: wrong answers made by rule, tried after the known mistakes."""

    GENERAL = Clue("a factor", "A factor is off.")
    TWO, FOUR = Clue("a factor of two", "Twice."), Clue("a factor of four", "Four times.")

    def verdict(self, answer, *variants):
        exercise = Exercise(
            "02.x",
            "X",
            lambda x: x,
            tuple(
                Probe(n, "numbers", lambda g: {"x": torch.rand(3, generator=g) + 1}) for n in "ab"
            ),
            (matches("the value", 1.0, "a", "b"),),
            (Mistake("minus", lambda x: -x, "Why?"),),
            1,
            1,
            variants=lambda: variants,
        )
        return judge(exercise, observe(exercise, answer))

    def named(self, *args):
        return [d.name for d in self.verdict(*args).diagnoses]

    def test_one_that_agrees_is_named(self):
        two = Variant(lambda x: 2 * x, (self.GENERAL, self.TWO))
        four = Variant(lambda x: 4 * x, (self.GENERAL, self.FOUR))
        assert self.named(lambda x: 4 * x, two, four) == ["a factor of four"]
        assert self.named(lambda x: 5 * x, two, four) == []

    def test_several_that_agree_say_what_they_share(self):
        two = Variant(lambda x: 2 * x, (self.GENERAL, self.TWO))
        four = Variant(lambda x: x + x, (self.GENERAL, self.FOUR))
        other = Variant(lambda x: x / 0.5, (Clue("half", "Half."),))
        assert self.named(lambda x: 2 * x, two, four) == ["a factor"]
        assert self.named(lambda x: 2 * x, two, four, other) == []

    def test_known_mistakes_come_first(self):
        def never():
            raise AssertionError("asked although a known mistake explains everything")
            yield

        exercise = dataclasses.replace(catalogue()[KD], variants=never)
        mistake = exercise.mistakes[0]
        verdict = judge(exercise, observe(exercise, mistake.answer))
        assert [d.name for d in verdict.diagnoses] == [mistake.name]

    def test_time_is_limited(self):
        tried = []

        def slow(x):
            tried.append(1)
            end = time.thread_time() + 0.05
            while time.thread_time() < end:
                pass
            return x

        self.verdict(lambda x: 3 * x, *(Variant(slow, (self.GENERAL,)) for _ in range(40)))
        assert len(tried) < 40
