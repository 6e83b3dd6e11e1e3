"""Unit 03: parity with the papers' equations and with libraries, properties, errors, evidence."""

import math

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.autograd import gradcheck

from kdlib import evidence, losses
from kdlib import losses as dk
from tests import oracles

CLOSE = {"rtol": 1e-9, "atol": 1e-9}


def drawn(seed, *shape, scale=3.0):
    g = torch.Generator().manual_seed(seed)
    return torch.randn(*shape, generator=g, dtype=torch.float64) * scale


def classes_of(seed, rows, classes):
    return torch.randint(classes, (rows,), generator=torch.Generator().manual_seed(seed))


def equal(ours, theirs):
    np.testing.assert_allclose(np.asarray(ours.detach()), np.asarray(theirs), **CLOSE)


def coarse(p, inside):
    outside = [c for c in range(p.shape[-1]) if c not in inside]
    return np.concatenate([p[:, inside], p[:, outside].sum(-1, keepdims=True)], axis=-1)


def equation_5(q, generalist, specialists):
    """The sum of divergences, in NumPy."""
    kl = (generalist * np.log(generalist / q)).sum(-1)
    for inside, p in specialists:
        kl = kl + (p * np.log(p / coarse(q, list(inside)))).sum(-1)
    return kl


@pytest.mark.parametrize("seed", range(5))
class TestAgainstThePapers:
    def test_label_smoothing(self, seed):
        z, y = drawn(seed, 7, 6), classes_of(seed, 7, 6)
        smoothed = 0.8 * np.eye(6)[y.numpy()] + 0.2 / 6
        equal(dk.label_smoothing_loss(z, y, 0.2), oracles.cross_entropy(smoothed, z).mean())

    def test_label_smoothing_is_kd_with_a_uniform_teacher(self, seed):
        """The identity of the unit: kd_loss at T = 1, up to eps log C."""
        z, y = drawn(seed, 7, 6), classes_of(seed, 7, 6)
        kd = losses.kd_loss(z, torch.zeros_like(z), y, temperature=1.0, alpha=0.3)
        equal(dk.label_smoothing_loss(z, y, 0.3), kd + 0.3 * math.log(6))

    @pytest.mark.parametrize("temperature", [0.5, 1.0, 4.0])
    def test_ensemble(self, seed, temperature):
        v = drawn(seed, 4, 5, 6)
        mean = np.mean([oracles.softmax(m, temperature) for m in v], axis=0)
        equal(dk.ensemble_soft_targets(v, temperature), mean)

    def test_the_two_means_minimise_the_two_divergences(self, seed):
        """Section 5.4: arithmetic for KL(p, q), geometric for KL(q, p)."""
        v = drawn(seed, 3, 1, 5)
        p = v.softmax(-1)[:, 0]
        arithmetic = dk.ensemble_soft_targets(v)[0]
        geometric = v.mean(0).softmax(-1)[0]

        def forward(q):
            return (p * (p / q).log()).sum()

        def backward(q):
            return (q * (q / p).log()).sum()

        for other in drawn(seed + 9, 20, 5).softmax(-1) + 1e-9:
            for weight in (0.05, 0.5):
                assert forward(arithmetic) <= forward(torch.lerp(arithmetic, other, weight))
                assert backward(geometric) <= backward(torch.lerp(geometric, other, weight))

    def test_transfer_loss(self, seed):
        z, v, y = drawn(seed, 9, 5), drawn(seed + 50, 9, 5), classes_of(seed, 9, 5)
        y[[0, 4, 5]] = -1
        labelled = (y != -1).numpy()
        soft = oracles.kl(v, z, 3.0).mean()
        hard = -oracles.log_softmax(z)[labelled, y[labelled].numpy()].mean()
        equal(dk.transfer_loss(z, v, y, 3.0, 0.7), 0.7 * 9 * soft + 0.3 * hard)

    def test_transfer_loss_with_all_labels_is_kd_loss(self, seed):
        z, v, y = drawn(seed, 9, 5), drawn(seed + 50, 9, 5), classes_of(seed, 9, 5)
        equal(dk.transfer_loss(z, v, y, 3.0, 0.7), losses.kd_loss(z, v, y, 3.0, 0.7))

    def test_class_bias_reaches_the_share(self, seed):
        z = drawn(seed, 30, 6)
        b = dk.class_bias(z, 2, 0.37)
        z[:, 2] += b
        assert oracles.softmax(z)[:, 2].mean() == pytest.approx(0.37, abs=1e-12)

    def test_merge_is_the_minimum_of_equation_5(self, seed):
        """Against SciPy, which descends the gradient of q's logits as the paper does."""
        from scipy.optimize import minimize

        g = drawn(seed, 2, 6, scale=1.5).softmax(-1)
        special = [
            ((0, 1, 2), drawn(seed + 1, 2, 4, scale=1.5).softmax(-1)),
            ((2, 5), drawn(seed + 2, 2, 3, scale=1.5).softmax(-1)),
        ]
        merged = dk.merge_specialists(g, special)
        numpy = [(inside, p.numpy()) for inside, p in special]

        def cost(z):
            return equation_5(oracles.softmax(z.reshape(2, 6)), g.numpy(), numpy).sum()

        found = minimize(cost, np.log(g.numpy()).ravel(), method="BFGS", options={"gtol": 1e-8})
        ours = equation_5(merged.numpy(), g.numpy(), numpy).sum()
        assert ours <= found.fun + 1e-9
        np.testing.assert_allclose(merged, oracles.softmax(found.x.reshape(2, 6)), atol=1e-5)

    def test_one_specialist_in_closed_form(self, seed):
        g, p = drawn(seed, 3, 5).softmax(-1), drawn(seed + 1, 3, 3).softmax(-1)
        merged = dk.merge_specialists(g, [((1, 3), p)])
        rest = g[:, [0, 2, 4]]
        dustbin = (rest.sum(-1) + p[:, 2]) / 2
        expected = torch.empty_like(g)
        expected[:, [1, 3]] = (g[:, [1, 3]] + p[:, :2]) / 2
        expected[:, [0, 2, 4]] = dustbin[:, None] * rest / rest.sum(-1, keepdim=True)
        equal(merged, expected)


class TestAgainstLibraries:
    @pytest.mark.parametrize("smoothing", [0.0, 0.1, 0.5, 1.0])
    def test_pytorch_label_smoothing(self, smoothing):
        z, y = drawn(0, 7, 6).requires_grad_(True), classes_of(0, 7, 6)
        ours = dk.label_smoothing_loss(z, y, smoothing)
        theirs = F.cross_entropy(z, y, label_smoothing=smoothing)
        equal(ours, theirs.detach())
        equal(*(torch.autograd.grad(x, z, retain_graph=True)[0] for x in (ours, theirs)))

    def test_torchdistill_on_a_batch_with_all_labels(self):
        KDLoss = pytest.importorskip("torchdistill.losses.mid_level").KDLoss

        z, v, y = drawn(0, 7, 6), drawn(1, 7, 6), classes_of(0, 7, 6)
        theirs = KDLoss("s", "", "t", "", temperature=2.0, alpha=0.1, beta=0.9)
        theirs.student_module_path, theirs.student_module_io = "s", "output"
        theirs.teacher_module_path, theirs.teacher_module_io = "t", "output"
        found = theirs({"s": {"output": z}}, {"t": {"output": v}}, targets=y)
        equal(dk.transfer_loss(z, v, y, 2.0, 0.9), found)

    def test_scipy_finds_the_same_bias(self):
        from scipy.optimize import brentq

        z = drawn(3, 40, 7)

        def short(b):
            moved = z.numpy().copy()
            moved[:, 4] += b
            return oracles.softmax(moved)[:, 4].mean() - 0.2

        assert dk.class_bias(z, 4, 0.2) == pytest.approx(brentq(short, -50, 50), abs=1e-9)


rows = st.integers(1, 6)
width = st.integers(2, 6)
seeds = st.integers(0, 10_000)


class TestProperties:
    @settings(max_examples=60)
    @given(seeds, rows, width, st.floats(0.01, 0.99), st.floats(0, 300))
    def test_class_bias_is_exact_however_far_the_class(self, seed, n, c, share, down):
        z = drawn(seed, n, c)
        z[:, 0] -= down
        b = dk.class_bias(z, 0, share)
        z[:, 0] += b
        assert z.softmax(-1)[:, 0].mean().item() == pytest.approx(share, abs=1e-9)
        assert dk.class_bias(z, 0, share) == pytest.approx(0.0, abs=1e-6)

    @settings(max_examples=60)
    @given(seeds, rows, width, st.integers(1, 5), st.floats(0.1, 50), st.floats(-1e3, 1e3))
    def test_ensembles_are_distributions_blind_to_order_and_shift(self, seed, n, c, m, t, shift):
        v = drawn(seed, m, n, c)
        p = dk.ensemble_soft_targets(v, t)
        torch.testing.assert_close(p.sum(-1), torch.ones(n, dtype=p.dtype))
        torch.testing.assert_close(p, dk.ensemble_soft_targets(v.flip(0), t))
        torch.testing.assert_close(p, dk.ensemble_soft_targets(v + shift, t), rtol=1e-6, atol=1e-9)

    @settings(max_examples=40)
    @given(seeds, rows, st.integers(3, 7), st.integers(1, 3))
    def test_no_round_of_the_merge_raises_the_sum(self, seed, n, c, many):
        g = drawn(seed, n, c, scale=1.5).softmax(-1)
        special = []
        for m in range(many):
            inside = tuple(sorted({(seed + m) % c, (seed + 2 * m + 1) % c}))
            if len(inside) == c:
                continue
            p = drawn(seed + 7 * m + 1, n, len(inside) + 1, scale=1.5).softmax(-1)
            special.append((inside, p))
        numpy = [(inside, p.numpy()) for inside, p in special]
        before = np.inf
        for steps in (1, 2, 5, 20):
            merged = dk.merge_specialists(g, special, steps=steps)
            torch.testing.assert_close(merged.sum(-1), torch.ones(n, dtype=g.dtype))
            now = equation_5(merged.numpy(), g.numpy(), numpy).sum()
            assert now <= before + 1e-9
            before = now

    @settings(max_examples=40)
    @given(seeds, st.integers(2, 8), width, st.floats(0.5, 20), st.floats(0, 1))
    def test_transfer_loss_is_finite_with_any_number_of_labels(self, seed, n, c, t, alpha):
        z, v, y = drawn(seed, n, c), drawn(seed + 1, n, c), classes_of(seed, n, c)
        for labelled in range(n + 1):
            y[labelled:] = -1
            z.requires_grad_(True)
            loss = dk.transfer_loss(z, v, y, t, alpha)
            assert loss.isfinite()
            (found,) = torch.autograd.grad(loss, z)
            assert found.isfinite().all()
            y = classes_of(seed, n, c)

    def test_gradients(self):
        z, v, y = drawn(0, 3, 4).requires_grad_(True), drawn(1, 3, 4), torch.tensor([1, -1, 3])
        assert gradcheck(lambda x: dk.transfer_loss(x, v, y, 2.0, 0.7), (z,))
        assert gradcheck(lambda x: dk.label_smoothing_loss(x, y.clamp_min(0), 0.3), (z,))

    def test_the_teacher_is_a_constant(self):
        z, v = drawn(0, 3, 4).requires_grad_(True), drawn(1, 3, 4).requires_grad_(True)
        dk.transfer_loss(z, v, torch.tensor([1, -1, 3])).backward()
        assert v.grad is None
        assert z.grad is not None


def test_fit_leaves_missing_labels_to_a_loss_of_ones_own():
    from kdlib.models import MLP, seeded
    from kdlib.training import fit

    x, v = drawn(0, 32, 1, 4, 4).float(), drawn(1, 32, 3).float()
    y = torch.where(torch.arange(32) < 8, classes_of(2, 32, 3), -1)
    how = {"teacher_logits": v, "steps": 3, "batch_size": 16, "progress": False}
    fit(seeded(0, MLP, 8, 16, 3), x, y, loss_fn=dk.transfer_loss, **how)
    with pytest.raises(ValueError, match=r"targets must lie in 0\.\.2, got -1"):
        fit(seeded(0, MLP, 8, 16, 3), x, y, **how)


Z, V, Y = drawn(0, 4, 3), drawn(1, 4, 3), torch.tensor([0, 1, 2, 0])
P = Z.softmax(-1)


@pytest.mark.parametrize(
    ("call", "words"),
    [
        (lambda: dk.class_bias(Z, 0, 0.0), r"share must lie inside \(0, 1\), got 0"),
        (lambda: dk.class_bias(Z, 3, 0.1), r"class_index must lie in 0\.\.2, got 3"),
        (lambda: dk.class_bias(Z[0], 0, 0.1), r"shape \(N, C\)"),
        (lambda: dk.class_bias(Z / 0, 0, 0.1), "logits must be finite"),
        (lambda: dk.ensemble_soft_targets(Z[0]), r"shape \(M, \.\.\., C\)"),
        (lambda: dk.ensemble_soft_targets(Z[None], 0.0), "temperature must be positive"),
        (lambda: dk.label_smoothing_loss(Z, Y, 1.5), "smoothing must lie between 0 and 1, got 1.5"),
        (lambda: dk.label_smoothing_loss(Z, Y + 1), r"targets must lie in 0\.\.2"),
        (lambda: dk.transfer_loss(Z, V, Y - 2), r"got -2"),
        (lambda: dk.transfer_loss(Z, V[:2], Y), "same shape"),
        (lambda: dk.transfer_loss(Z, V, Y, alpha=2.0), "alpha must lie between 0 and 1"),
        (lambda: dk.transfer_loss(Z, V, Y, temperature=-1.0), "temperature must be positive"),
        (lambda: dk.merge_specialists(Z, []), "generalist must not be negative"),
        (lambda: dk.merge_specialists(P, [((0, 1, 2), P)]), "must pair K of 3 classes"),
        (lambda: dk.merge_specialists(P, [((0, 0), P)]), "must pair K of 3 classes"),
        (lambda: dk.merge_specialists(P, [((0, 7), P)]), "must pair K of 3 classes"),
    ],
)
def test_bad_input_is_named(call, words):
    with pytest.raises(ValueError, match=words):
        call()


class TestEvidence:
    @pytest.mark.parametrize(
        "name",
        ["u03_omitted_class", "u03_few_labels", "u03_ensemble", "u03_smoothed_teacher"],
    )
    def test_has_enough_seeds_and_headlines(self, name):
        stored = evidence.load(name)
        assert len(stored["seeds"]) >= 5
        assert stored["headlines"]

    def test_hard_labels_never_find_the_omitted_class_before_correction(self):
        for arms in evidence.load("u03_omitted_class")["results"].values():
            assert max(arms["hard labels"]["recall before"]) < 1.0

    def test_the_stored_intervals_belong_to_the_stored_numbers(self):
        from kdlib.evaluation import paired_interval

        curve = evidence.load("u03_few_labels")["curve"]
        for arms in curve.values():
            found = paired_interval(
                arms["soft targets"]["accuracy"], arms["hard labels"]["accuracy"]
            )
            stored = arms["soft targets"]["accuracy_difference"]
            np.testing.assert_allclose(found[:3], stored, atol=1e-2)
