"""Unit 04: parity with NumPy, SciPy and scikit-learn, properties, the museum, stored evidence."""

import ast
import inspect
import math
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from kdlib import evaluation, evidence, museum
from kdlib.checks import catalogue
from kdlib.checks.judge import judge
from kdlib.checks.observe import observe
from kdlib.models import CNN, seeded
from kdlib.training import views as augment
from tests import oracles

SOURCE = Path(__file__).parents[1] / "solutions" / "04_trust.py"
EXHIBITS = range(1, 7)


def pair(seed=0, rows=40, classes=6, scale=2.0):
    g = torch.Generator().manual_seed(seed)
    z, v = (torch.randn(rows, classes, generator=g, dtype=torch.float64) * scale for _ in "zv")
    return z, v, torch.randint(classes, (rows,), generator=g)


def ece_of_the_paper(logits, targets, bins):
    """Guo et al. 2017, section 2, in NumPy float64: bins ((m - 1)/M, m/M]."""
    e = np.exp(logits.numpy() - logits.numpy().max(1, keepdims=True))
    p = e / e.sum(1, keepdims=True)
    confidence, right = p.max(1), p.argmax(1) == targets.numpy()
    total = 0.0
    for m in range(1, bins + 1):
        inside = ((m - 1) / bins < confidence) & (confidence <= m / bins)
        if inside.any():
            total += inside.sum() * abs(right[inside].mean() - confidence[inside].mean())
    return total / len(right)


@pytest.mark.parametrize("seed", range(5))
class TestAgainstThePapers:
    def test_fidelity(self, seed):
        z, v, _ = pair(seed)
        found = evaluation.fidelity(z, v)
        same = z.numpy().argmax(1) == v.numpy().argmax(1)
        assert found.agreement == pytest.approx(same.mean(), abs=1e-12)
        assert found.predictive_kl == pytest.approx(np.mean(oracles.kl(v, z, 1.0)), rel=1e-12)
        assert found == (evaluation.agreement(z, v), evaluation.predictive_kl(v, z))

    @pytest.mark.parametrize("bins", [1, 4, 15])
    def test_ece(self, seed, bins):
        z, _, y = pair(seed, rows=300)
        assert evaluation.ece(z, y, bins) == pytest.approx(ece_of_the_paper(z, y, bins), abs=1e-12)

    def test_paired_interval(self, seed):
        g = np.random.default_rng(seed)
        a, b = g.normal(80, 2, 9), g.normal(79, 2, 9)
        found = evaluation.paired_interval(a.tolist(), b.tolist(), 0.9)
        low, high = stats.ttest_rel(a, b).confidence_interval(0.9)
        np.testing.assert_allclose(found[:3], [(a - b).mean(), low, high], rtol=1e-10)

    def test_mixup(self, seed):
        g = torch.Generator().manual_seed(seed)
        x = torch.randn(5, 1, 3, 3, generator=g, dtype=torch.float64)
        order, weight = augment.draw_mixup(5, g)
        found = augment.mixup(x, order, weight)
        for i in range(5):
            w = weight[i].double().item()
            by_hand = w * x[i].numpy() + (1 - w) * x[order[i]].numpy()
            np.testing.assert_allclose(found[i].numpy(), by_hand, rtol=1e-12)


def test_ece_agrees_with_scikit_learns_calibration_curve():
    from sklearn.calibration import calibration_curve

    z, _, y = pair(3, rows=500)
    confidence, predicted = z.softmax(-1).max(-1)
    right = (predicted == y).numpy()
    bins = evaluation.reliability_bins(z, y, 10)
    accuracy, mean = calibration_curve(right, confidence.numpy(), n_bins=10)
    full = bins.count > 0
    np.testing.assert_allclose(bins.accuracy[full].numpy(), accuracy, rtol=1e-9)
    np.testing.assert_allclose(bins.confidence[full].numpy(), mean, rtol=1e-9)


@given(st.integers(1, 12), st.integers(2, 7), st.integers(0, 10_000), st.floats(0.01, 100))
@settings(max_examples=40)
def test_fidelity_and_ece_on_any_input(rows, classes, seed, scale):
    z, v, y = pair(seed, rows, classes, scale)
    order = torch.randperm(rows, generator=torch.Generator().manual_seed(seed))
    a, kl = evaluation.fidelity(z, v)
    assert 0 <= a <= 1
    assert kl >= -1e-9
    assert evaluation.fidelity(v, v) == (1.0, pytest.approx(0.0, abs=1e-9))
    assert evaluation.fidelity(z[order] + 3, v[order] - 7) == pytest.approx((a, kl), rel=1e-6)
    error = evaluation.ece(z, y)
    assert 0 <= error <= 1
    assert evaluation.ece(z[order], y[order]) == pytest.approx(error, abs=1e-9)


@given(st.lists(st.tuples(*[st.floats(0, 100)] * 2), min_size=2, max_size=12), st.floats(-50, 50))
@settings(max_examples=40)
def test_an_interval_moves_with_its_numbers(numbers, shift):
    a, b = map(list, zip(*numbers, strict=True))
    mean, low, high, _ = evaluation.paired_interval(a, b)
    assert low <= mean <= high
    moved = evaluation.paired_interval([x + shift for x in a], b)
    np.testing.assert_allclose(moved[:3], [x + shift for x in (mean, low, high)], atol=1e-6)
    turned = evaluation.paired_interval(b, a)
    np.testing.assert_allclose(turned[:3], [-mean, -high, -low], atol=1e-9)
    assert high - low <= np.diff(evaluation.paired_interval(a, b, 0.99)[1:3])[0] + 1e-9


@given(st.integers(1, 9), st.integers(0, 10_000))
@settings(max_examples=30)
def test_mixup_at_its_ends(rows, seed):
    g = torch.Generator().manual_seed(seed)
    x, order = torch.randn(rows, 2, 3, generator=g), torch.randperm(rows, generator=g)
    assert torch.equal(augment.mixup(x, order, torch.ones(rows)), x)
    assert torch.equal(augment.mixup(x, order, torch.zeros(rows)), x[order])
    assert torch.allclose(augment.mixup(x, torch.arange(rows), torch.rand(rows)), x, atol=1e-6)


class TestErrors:
    def test_mixup(self):
        x = torch.zeros(3, 2)
        with pytest.raises(ValueError, match="order must have shape"):
            augment.mixup(x, torch.arange(2), torch.ones(3))
        with pytest.raises(ValueError, match="weight must have shape"):
            augment.mixup(x, torch.arange(3), torch.ones(1))
        with pytest.raises(ValueError, match="between 0 and 1"):
            augment.mixup(x, torch.arange(3), torch.full((3,), 1.5))

    def test_mixup_step_and_fidelity(self):
        net = seeded(0, CNN)
        x, w = torch.zeros(2, 1, 14, 14), torch.ones(2)
        optimizer = torch.optim.SGD(net.parameters(), 0.1)
        with pytest.raises(ValueError, match="temperature"):
            augment.mixup_step(net, net, x, torch.arange(2), w, optimizer, 0.0)
        with pytest.raises(ValueError, match="student_logits"):
            evaluation.fidelity(torch.zeros(2, 3), torch.zeros(2, 4))


def test_mixup_step_is_the_gradient_of_the_paper():
    """One SGD step on the logits' own layer: (q - p) / B times T, from the blended inputs."""
    g = torch.Generator().manual_seed(0)
    student, teacher = (torch.nn.Linear(3, 4, bias=False).double() for _ in "st")
    x = torch.randn(5, 3, generator=g, dtype=torch.float64)
    order, weight = augment.draw_mixup(5, g)
    before, T = student.weight.detach().clone(), 2.5
    optimizer = torch.optim.SGD(student.parameters(), lr=1.0)
    loss = augment.mixup_step(student, teacher, x, order, weight, optimizer, T)
    view = augment.mixup(x, order, weight)
    q = F.softmax(view @ before.T / T, -1)
    p = F.softmax(view @ teacher.weight.detach().T / T, -1)
    np.testing.assert_allclose(
        (before - student.weight).detach().numpy(), (T * (q - p).T @ view / 5).numpy(), rtol=1e-10
    )
    assert loss == pytest.approx(T**2 * (p * (p / q).log()).sum(-1).mean().item())


def test_batches_run_through_the_data_in_a_new_order_each_time():
    drawn = torch.cat(list(museum.batches(70, 6, seed=3)))
    epochs = [drawn[i : i + 64].tolist() for i in (0, 64, 128)]
    assert all(len(set(epoch)) == 64 for epoch in epochs)
    assert len(set(map(tuple, epochs))) == 3
    assert [len(rows) for rows in museum.batches(5, 3)] == [5, 5, 5]


class TestMuseum:
    @pytest.mark.parametrize("number", EXHIBITS)
    def test_a_script_as_found_earns_nothing_and_is_named(self, number):
        exercise = catalogue()[f"04.exhibit_{number}"]
        for seed in (0, 5, 77):
            verdict = judge(exercise, observe(exercise, museum.AS_FOUND[number], seed), seed)
            assert verdict.points == 0
            assert [d.name for d in verdict.diagnoses] == ["as found"]
            assert verdict.diagnoses[0].seen_in

    @pytest.mark.parametrize("number", EXHIBITS)
    def test_the_notebook_shows_the_script_that_is_measured(self, number):
        """What stands in the notebook and what `evidence/` runs are the same code."""
        shown = next(
            node
            for node in ast.parse(SOURCE.read_text(encoding="utf-8")).body
            if isinstance(node, ast.FunctionDef) and node.name == f"found_{number}"
        )
        measured = ast.parse(inspect.getsource(museum.AS_FOUND[number])).body[0]
        assert ast.dump(shown) == ast.dump(measured)

    @pytest.mark.parametrize("factor", [0.5, 3.0, 4.0, 7.0])
    def test_exhibit_1_no_constant_is_a_repair(self, factor):
        """A constant that the catalogue does not know fails as well, and is told why."""

        def hidden(student, teacher, images, labels, steps, seed=0):
            optimizer = torch.optim.AdamW(student.parameters(), 2e-3)
            student.train()
            teacher.eval()
            for rows in museum.batches(len(images), steps, seed):
                z = student(images[rows])
                with torch.no_grad():
                    v = teacher(images[rows])
                soft = F.kl_div((z / 2).log_softmax(1), (v / 2).softmax(1), reduction="mean")
                loss = 0.5 * factor * 4 * soft + 0.5 * F.cross_entropy(z, labels[rows])
                optimizer.zero_grad()
                loss.backward()
                optimizer.step()

        exercise = catalogue()["04.exhibit_1"]
        verdict = judge(exercise, observe(exercise, hidden))
        assert verdict.points == 0
        assert "how many classes" in str(verdict).replace("\n    ", " ")

    def test_the_bench_measures_each_exhibit(self):
        bench = museum.Bench(images=64, steps=4, test=100)
        for number in EXHIBITS:
            found = bench.measure(number, museum.REPAIRED[number])
            assert 0 <= found["accuracy"] <= 100
            assert math.isfinite(found["predictive_kl"])
        as_found = bench.measure(5, museum.AS_FOUND[5])
        assert as_found["agreement"] == 100.0
        assert as_found["predictive_kl"] == pytest.approx(0.0, abs=1e-9)


class TestEvidence:
    """What the unit's prose says, checked against the stored results."""

    def test_seeds(self):
        results = evidence.load("u04_seeds")["results"]
        low = {k: v["accuracy_difference"] for k, v in results.items() if k != "labels alone"}
        assert low["distilled, T = 1"][1] > 0
        assert low["distilled, T = 2"][2] < 0
        assert low["distilled, T = 1.5"][1] < 0 < low["distilled, T = 1.5"][2]

    def test_fidelity(self):
        stored = evidence.load("u04_fidelity")
        short, long = (stored["results"][k]["mixup, one view"] for k in ("200", "3200"))
        assert short["agreement_difference"][2] < 0 < long["agreement_difference"][1]
        assert long["predictive_kl_difference"][2] < 0
        assert stored["one view against answers blended"]["agreement_difference"][1] > 0
        assert stored["long against short"]["fixed"]["predictive_kl_difference"][1] > 0
        fixed = stored["results"]["3200"]["fixed"]
        assert min(fixed["agreement_on_transfer_images"]) > 98
        assert max(fixed["agreement"]) < 90

    def test_museum(self):
        stored = evidence.load("u04_museum")
        assert len(stored["seeds"]) >= 5
        bugs = {int(n): entry["as found"] for n, entry in stored["results"].items()}
        assert set(bugs) == set(EXHIBITS)
        assert min(bugs[5]["agreement"]) == 100
        assert bugs[2]["accuracy_difference"][2] < 0
