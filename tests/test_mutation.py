"""Mutation testing: each operator makes what it says; a check that is too weak is found."""

import ast
import sys
import types
from itertools import islice

import pytest
import torch

from course.mutate import Survivor, examine, fingerprint, shown, unexplained
from kdlib.checks import catalogue
from kdlib.checks.criteria import matches, tidy
from kdlib.checks.exercise import Exercise, Mistake, Probe
from kdlib.checks.mutation import FAMILIES, OPERATORS, Target, variants
from kdlib.checks.mutation.mutants import annotate, rewritten
from kdlib.checks.record import same

# operator, a function's body, one of the lines that it makes of it
EXAMPLES = [
    ("mean over too much", "return x.sum(-1).mean()", "return x.mean()"),
    ("mean over too much", "F.kl_div(x, y, reduction='batchmean')", "reduction='mean'"),
    ("sum for mean", "return x.mean(dim=-1)", "return x.sum(dim=-1)"),
    ("sum for mean", "return F.cross_entropy(x, y)", "reduction='sum'"),
    ("mean for sum", "return torch.sum(x, 1)", "return torch.mean(x, 1)"),
    ("another dimension", "return x.softmax(dim=-1)", "return x.softmax(dim=-2)"),
    ("another dimension", "return x.sum((1, 2, 3))", "return x.sum((2, 3))"),
    ("over all entries", "return x.sum(-1)", "return x.sum()"),
    ("divided by another number of entries", "return x.sum() / len(x)", "(x.sum() / x.numel())"),
    ("divided by another number of entries", "return a / mask.sum()", "return a / mask.numel()"),
    ("reduction left out", "return x.mean()", "return x"),
    ("largest for smallest", "return x.argmax(-1)", "return x.argmin(-1)"),
    ("biased for unbiased", "return x.std(-1)", "return x.std(-1, correction=0)"),
    ("a temperature left out", "return x / temperature", "return x"),
    ("a temperature left out", "return softmax(x, temperature)", "return softmax(x, 1.0)"),
    ("multiplied by the temperature", "return x / temperature", "return x * temperature"),
    ("factor T squared", "return temperature ** 2 * x", "return temperature * x"),
    ("factor T squared", "return x", "return x * temperature ** 2"),
    ("weights exchanged", "return alpha * x + (1 - alpha) * y", "alpha = 1 - alpha"),
    ("roles exchanged", "return x - y", "def f(y: Tensor, x: Tensor"),
    ("arguments exchanged", "return kl(x, y)", "return kl(y, x)"),
    ("one thing for the other", "return kl(x, y)", "return kl(y, y)"),
    ("the wrong way round", "return x - y", "return y - x"),
    ("sign", "return x + y", "return x - y"),
    ("sign", "return -x", "return x"),
    ("a term left out", "return x + y", "return y"),
    ("a factor left out", "return alpha * x", "return x"),
    ("multiplied for divided", "return x / y", "return x * y"),
    ("a function left out", "return x.exp()", "return x"),
    ("a function left out", "return torch.log(x)", "return x"),
    ("another number", "return 0.5 * x", "return 1.0 * x"),
    ("one more or one less", "return x[:, 1:]", "return x[:, 0:]"),
    ("one more or one less", "return x[:, :n]", "return x[:, :n - 1]"),
    ("another default", "return x", "temperature: float=8.0"),
    ("an argument ignored", "return x * alpha", "alpha = 0.9"),
    ("an argument not passed on", "return kl(x, y, temperature)", "return kl(x, y)"),
    ("the other truth value", "return f(x, log_target=True)", "return f(x, log_target=False)"),
    ("at the boundary", "return x < y", "return x <= y"),
    ("a condition turned round", "return x == y", "return x != y"),
    ("half a condition", "return a and b", "return a or b"),
    ("half a condition", "return 0 < a < b", "return a < b"),
    ("branches exchanged", "return x if a else y", "return y if a else x"),
    ("branches exchanged", "return torch.where(a, x, y)", "return torch.where(a, y, x)"),
    ("not detached", "return x.detach()", "return x"),
    ("not detached", "with torch.no_grad():\n        y = g(x)\n    return y", "    y = g(x)"),
    ("cut off from the gradient", "return x * 2", "return (x * 2).detach()"),
    ("cut off from the gradient", "return x * 2", "y = y.detach()"),
    ("mask left out", "return x[mask]", "return x"),
    ("mask left out", "return torch.where(a, x, 0.0)", "return x"),
    ("mask the wrong way", "return x[mask]", "return x[~mask]"),
    ("mask one column off", "mask = a < b\n    return x[mask]", "mask = mask.roll(1, -1)"),
    ("multiplied by the mask", "return torch.where(mask, x, 0.0)", "return x * mask"),
    ("dimension not kept", "return x.sum(-1, keepdim=True)", "return x.sum(-1)"),
    ("broadcast the other way", "return x[:, None]", "return x[None, :]"),
    ("not transposed", "return x @ y.T", "return x @ y"),
    ("logarithm of a softmax", "return x.log_softmax(-1)", "return x.softmax(-1).log()"),
    ("logarithm of a softmax", "return x.logsumexp(-1)", "return x.exp().sum(-1).log()"),
    ("probabilities for logits", "return F.cross_entropy(x, y)", "F.cross_entropy(x.softmax(-1)"),
    ("a bound left out", "return x.clamp_min(0.1)", "return x"),
    ("a bound left out", "return max(1, x)", "return x"),
    ("a small number too many", "return x.log()", "return (x + 1e-06).log()"),
    ("cut off at a bound", "return x.log()", "return x.clamp_min(1e-06).log()"),
    ("half precision", "return x", "x = x.half().to(x.dtype)"),
    ("rounded to whole numbers", "return x", "return x.long()"),
    ("rounded to whole numbers", "return x.to(torch.float64)", "return x.to(torch.float32)"),
    ("not converted", "return x.item()", "return x"),
    ("changed in place", "return x / temperature", "return x.div_(temperature)"),
    ("not copied", "return x.clone()", "return x"),
    ("not copied", "return copy.deepcopy(model)", "return copy.copy(model)"),
    ("the other mode", "model.eval()", "model.train()"),
    ("left in another state", "return model(x)", "model.eval()"),
    ("two steps exchanged", "a()\n    b()", "b()\n    a()"),
    ("a step left out", "optimizer.step()\n    return x", "pass"),
    ("the loop ends too early", "for i in y:\n        g(i)", "for i in list(y)[:-1]:"),
    ("only the first", "for i in y:\n        g(i)", "break"),
    ("the loop goes on", "for i in y:\n        break", "continue"),
    ("too much let through", "return [i for i in x if i > 0]", "return [i for i in x]"),
    ("a check left out", "if alpha < 0:\n        raise ValueError('no')\n    return x", "pass"),
    ("another exception", "raise ValueError('no')", "raise ArithmeticError('no')"),
    (
        "an exception without what was given",
        "raise ValueError(f'{x}')",
        "ValueError('bad argument')",
    ),
    (
        "cleared up only when all goes well",
        "try:\n        a()\n    finally:\n        b()",
        "    b()",
    ),
    ("kept between calls", "found = []\n    return found", "found=[]"),
    ("kept between calls", "self.x = x", "type(self).x = x"),
    ("another pattern", r"return re.search('a\\.b', x)", "re.search('a.b', x)"),
    ("another pattern", "return x.rstrip('.')", "return x"),
]
BY_NAME = {operator.name: operator for operator in OPERATORS}


def made(name, body):
    head = "def f(x: Tensor, y: Tensor, model: nn.Module, temperature: float=4.0, alpha: float=0.9)"
    tree = ast.parse(f"{head} -> Tensor:\n    {body}").body[0]
    annotate(tree)
    return [*rewritten(tree, BY_NAME[name])]


@pytest.mark.parametrize(("name", "body", "line"), EXAMPLES)
def test_an_operator_makes_what_it_says(name, body, line):
    def plain(source):
        return source.replace("(", "").replace(")", "")

    found = made(name, body)
    assert any(plain(line) in plain(source) for source in found), found
    for source in found:
        ast.parse(source)


def test_each_operator_has_an_example_and_words():
    assert {name for name, _, _ in EXAMPLES} == set(BY_NAME)
    assert len(BY_NAME) == len(OPERATORS)
    assert all(o.says.endswith((".", "?")) and o.family for o in OPERATORS)


def test_rewriting_leaves_the_tree_as_it_was():
    tree = ast.parse("def f(x, temperature=2.0):\n    return -x[0].sum(dim=-1) / temperature").body[
        0
    ]
    annotate(tree)
    before = ast.unparse(tree)
    assert sum(len([*rewritten(tree, operator)]) for operator in OPERATORS) > 10
    assert ast.unparse(tree) == before


# a small exercise, in a module of its own

SOURCE = '''
from kdlib.seal import reference

@reference("99.centre")
def centre(x):
    """Subtract the mean of each row."""
    return x - _middle(x)

def _middle(x):
    return x.mean(dim=-1, keepdim=True)

def by_factor(factor):
    def centre(x):
        return (x - _middle(x)) * factor
    return centre

def by_loop(x):
    import torch
    return torch.stack([row - row.mean() for row in x])
'''


@pytest.fixture
def module(monkeypatch, tmp_path):
    file = tmp_path / "centring.py"
    file.write_text(SOURCE)
    made = types.ModuleType("centring")
    made.__file__ = str(file)
    monkeypatch.setitem(sys.modules, "centring", made)
    exec(compile(SOURCE, str(file), "exec"), vars(made))
    return made


def exercise(module, rows):
    def make(g):
        return {"x": torch.randn(rows, 4, generator=g, dtype=torch.float64)}

    return Exercise(
        id="99.centre",
        title="Centring",
        reference=module.centre,
        probes=(Probe("rows", f"{rows} rows", make),),
        criteria=(matches("the value", 1.0, "rows"), tidy(0.5)),
        mistakes=(Mistake("no mean", lambda x: x, "You subtract nothing."),),
        minutes=5,
        difficulty=1,
    )


def test_a_mutant_does_not_meet_the_seal(module):
    target = Target(module.centre)
    assert target.helpers == ["_middle"]
    x = torch.tensor([[1.0, 3.0]])
    assert target.original()(x).tolist() == [[-1.0, 1.0]]
    over_rows = next(m for m in target.mutants() if "dim=-2" in m.after)
    assert over_rows.answer()(x).tolist() == [[0.0, 0.0]]
    assert over_rows.key == (
        "another dimension @ return x.mean(dim=-1, keepdim=True) => "
        "return x.mean(dim=-2, keepdim=True)"
    )


def test_a_weak_check_has_survivors_and_a_better_one_fewer(module):
    weak = examine(exercise(module, 1), [module.by_loop])
    strong = examine(exercise(module, 3), [module.by_loop])
    assert not weak.problems + strong.problems
    early = "only the first @ return torch.stack([row - row.mean() for row in x])"
    assert any(s.key.startswith(early) for s in weak.survivors)
    assert not any(s.key.startswith(early) for s in strong.survivors)
    assert weak.made == strong.made == strong.killed + len(strong.survivors)


def test_an_answer_that_another_function_made_is_mutated_with_its_values(module):
    mutants = list(Target(module.by_factor(2.0)).mutants())
    x = torch.tensor([[1.0, 3.0]])
    left_out = next(m for m in mutants if m.after == "return x - _middle(x)")
    assert left_out.answer()(x).tolist() == [[-1.0, 1.0]]


def test_an_answer_that_fails_its_check_is_a_problem(module):
    module.wrong = lambda x: x
    report = examine(exercise(module, 3), [module.wrong])
    assert "does not define" in report.problems[0]


def test_what_is_listed_as_equivalent_has_to_be_there(module):
    report = examine(exercise(module, 1), [])
    keys = [s.key for s in report.survivors]
    assert keys
    assert unexplained(report, dict.fromkeys(keys, "one row")) == ([], [])
    left, stale = unexplained(report, {keys[0]: "one row", "sign @ a => b": "not there"})
    assert len(left) == len(keys) - 1
    assert stale == ["sign @ a => b"]
    assert unexplained(report, {"*": "all"}) == ([], [])


def test_a_survivor_is_shown_as_a_diff():
    survivor = Survivor("by_loop", "sign @ a + b => a - b", "a + b", "a - b", "value on 'rows'")
    assert shown([survivor]) == (
        "sign · by_loop · differs in value on 'rows'\n  - a + b\n  + a - b\n"
        "  'sign @ a + b => a - b'"
    )


def test_the_fingerprint_follows_the_sources(module):
    from tests.answers import u02

    kd = catalogue()["02.kd_loss"]
    answers = u02.ANSWERS["02.kd_loss"]
    assert fingerprint(kd, answers) == fingerprint(kd, answers)
    assert fingerprint(kd, answers) != fingerprint(kd, answers[:-1])
    assert fingerprint(kd, answers) != fingerprint(catalogue()["02.kd_gradient"], answers)


# mutants that teach


def test_variants_are_made_once_and_come_with_two_clues():
    kd = catalogue()["02.kd_gradient"]
    first = [answer for answer, _ in islice(variants(kd), 5)]
    assert [answer for answer, _ in islice(variants(kd), 5)] == first
    for _, ((family, general), (name, special)) in variants(kd):
        assert (BY_NAME[name].family, BY_NAME[name].says) == (family, special)
        assert FAMILIES[family] == general


def test_a_variant_does_what_a_student_did():
    kd = catalogue()["02.kd_gradient"]
    z, v = (torch.randn(3, 4, generator=torch.Generator().manual_seed(s)) for s in (0, 1))
    wrong = ((z / 2).softmax(-1) - (v / 2).softmax(-1)) * 2
    agree = [clues for answer, clues in variants(kd) if same(_run(answer, z, v), wrong)]
    # to multiply by T is to divide by it and have T squared too many
    assert {special[0] for _, special in agree} == {
        "multiplied by the temperature",
        "factor T squared",
    }
    assert {family[0] for family, _ in agree} == {"temperature"}


def _run(answer, *tensors):
    try:
        return answer(*tensors, 2.0)
    except Exception:
        return None


def test_no_words_name_the_reference():
    for operator in OPERATORS:
        assert "reference" not in operator.says
        assert "solution" not in operator.says
    assert {operator.family for operator in OPERATORS} == set(FAMILIES)
