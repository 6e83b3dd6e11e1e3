"""Unit 07: parity with the papers and with torchdistill, properties, errors, evidence."""

import math

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn
from torch.autograd import gradcheck

from kdlib import evidence
from kdlib.evaluation import knn_accuracy, precision_at_k
from kdlib.losses import relations

CLOSE = {"rtol": 1e-10, "atol": 1e-12}
LOSSES = {
    "sp": relations.sp_loss,
    "distance": relations.rkd_distance_loss,
    "angle": relations.rkd_angle_loss,
    "pkt": relations.pkt_loss,
}


def rows(seed, n, width, shift=0.3):
    g = torch.Generator().manual_seed(seed)
    return torch.randn(n, width, generator=g, dtype=torch.float64) * 2 + shift


def equal(ours, theirs, **close):
    np.testing.assert_allclose(ours.detach().numpy(), np.asarray(theirs), **(close or CLOSE))


def huber(gap):
    gap = np.abs(gap)
    return np.where(gap < 1, 0.5 * gap**2, gap - 0.5)


def numpy_sp(s, t):
    """Tung and Mori: one entry of G at a time."""

    def rows_of(z):
        g = np.array([[a @ b for b in z] for a in z])
        return g / np.sqrt((g**2).sum(axis=1, keepdims=True))

    return ((rows_of(t) - rows_of(s)) ** 2).sum() / len(s) ** 2


def numpy_distance(s, t):
    """Park et al., with the mean over all entries."""

    def psi(x):
        d = np.array([[np.sqrt(((a - b) ** 2).sum()) for b in x] for a in x])
        return d / d[~np.eye(len(x), dtype=bool)].mean()

    return huber(psi(s) - psi(t)).mean()


def numpy_angle(s, t):
    """Park et al., one corner of one triangle at a time."""

    def direction(a, b):
        length = np.sqrt(((a - b) ** 2).sum())
        return (a - b) / length if length else a * 0.0

    def psi(x):
        n = range(len(x))
        return np.array(
            [[[direction(x[i], x[j]) @ direction(x[k], x[j]) for k in n] for j in n] for i in n]
        )

    return huber(psi(s) - psi(t)).mean()


def numpy_pkt(s, t):
    """Passalis and Tefas, without their epsilon."""

    def p(x):
        x = x / np.sqrt((x**2).sum(axis=1, keepdims=True))
        k = (x @ x.T + 1) / 2
        return k / k.sum(axis=1, keepdims=True)

    return (p(t) * np.log(p(t) / p(s))).sum(axis=1).mean()


def numpy_contrast(s, t, tau, labels=None):
    s, t = (z / np.sqrt((z**2).sum(axis=1, keepdims=True)) for z in (s, t))
    total, n = 0.0, len(s)
    for i in range(n):
        keep = [j for j in range(n) if j == i or labels is None or labels[j] != labels[i]]
        for a, b in ((s, t), (t, s)):
            e = np.exp([a[i] @ b[j] / tau for j in keep])
            total -= math.log(e[keep.index(i)] / e.sum())
    return total / (2 * n)


def numpy_nce(scores, z, n):
    """RepDistiller's crd/criterion.py, without its epsilon."""
    k = scores.shape[1] - 1
    u = np.exp(scores) / z
    won = np.log(u[:, 0] / (u[:, 0] + k / n))
    lost = np.log((k / n) / (u[:, 1:] + k / n)).sum(axis=1)
    return -(won + lost).mean()


ORACLES = {"sp": numpy_sp, "distance": numpy_distance, "angle": numpy_angle, "pkt": numpy_pkt}


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("widths", [(3, 7), (5, 5), (1, 4)])
class TestAgainstThePapers:
    @pytest.mark.parametrize("name", LOSSES)
    def test_relations(self, seed, widths, name):
        s, t = rows(seed, 6, widths[0]), rows(seed + 10, 6, widths[1])
        if name == "pkt" and widths[0] == 1:
            s = s.abs()  # opposite rows have probability zero, where only the epsilon speaks
        close = {"rtol": 1e-5, "atol": 1e-6} if name == "pkt" else CLOSE
        equal(LOSSES[name](s, t), ORACLES[name](s.numpy(), t.numpy()), **close)

    def test_contrast(self, seed, widths):
        s, t = rows(seed, 6, widths[1]), rows(seed + 10, 6, widths[1])
        y = torch.tensor([0, 1, 0, 2, 1, 0])
        for labels in (None, y):
            ours = relations.contrastive_loss(s, t, 0.3, labels)
            theirs = numpy_contrast(s.numpy(), t.numpy(), 0.3, None if labels is None else y)
            equal(ours, theirs)

    def test_nce(self, seed, widths):
        scores = rows(seed, 4, 2 + widths[1])
        equal(relations.nce_loss(scores, 37.0, 50), numpy_nce(scores.numpy(), 37.0, 50))


PATHS = {"student": "s", "teacher": "t"}


def io(s, t):
    return {"s": {"output": s, "input": s}}, {"t": {"output": t, "input": t}}


class TestAgainstTorchdistill:
    """Version 1.1.5. Its CRDLoss cannot draw negatives: `draw` reads an attribute not there."""

    s, t = rows(0, 6, 4), rows(1, 6, 9)

    def both(self, ours, theirs):
        s = self.s.clone().requires_grad_(True)
        a, b = ours(s, self.t), theirs(s)
        (x,), (y,) = (torch.autograd.grad(v, s) for v in (a, b))
        return abs(a - b).item(), (x - y).abs().max().item()

    def test_sp_once_its_norm_is_two(self, monkeypatch):
        from torchdistill.losses import mid_level

        loss = mid_level.SPKDLoss("s", "t", "batchmean")
        value, _ = self.both(relations.sp_loss, lambda s: loss(*io(s, self.t)))
        assert value > 1e-3  # as it comes, it divides rows by their L1 norm
        monkeypatch.setattr(mid_level, "normalize", lambda g, _: F.normalize(g, p=2, dim=1))
        assert max(self.both(relations.sp_loss, lambda s: loss(*io(s, self.t)))) < 1e-12

    @pytest.mark.parametrize(("part", "weights"), [("distance", (1, 0)), ("angle", (0, 1))])
    def test_rkd(self, part, weights):
        from torchdistill.losses.mid_level import RKDLoss

        loss = RKDLoss("s", "t", *weights, "mean")
        assert max(self.both(LOSSES[part], lambda s: loss(*io(s, self.t)))) < 1e-11

    def test_pkt_is_a_batch_times_smaller_there(self):
        from torchdistill.losses.mid_level import PKTLoss

        loss = PKTLoss("s", "output", "t", "output")
        n = len(self.s)
        value, slope = self.both(relations.pkt_loss, lambda s: n * loss(*io(s.clone(), self.t)))
        assert value < 1e-6
        assert slope < 1e-5


@st.composite
def batches(draw):
    n, a, b = draw(st.integers(2, 6)), draw(st.integers(1, 5)), draw(st.integers(1, 5))
    seed = draw(st.integers(0, 10_000))
    return rows(seed, n, a), rows(seed + 1, n, b)


@pytest.mark.parametrize("name", LOSSES)
class TestProperties:
    @settings(max_examples=30, deadline=None)
    @given(pair=batches(), factor=st.sampled_from([1e-3, 0.5, 40.0, 1e3]))
    def test_zero_at_home_and_blind_to_scale(self, name, pair, factor):
        loss, (s, t) = LOSSES[name], pair
        value = loss(s, t)
        assert value >= -1e-12
        assert abs(loss(t, t)) < 1e-12
        torch.testing.assert_close(value, loss(factor * s, t), rtol=1e-6, atol=1e-9)

    @settings(max_examples=30, deadline=None)
    @given(pair=batches(), seed=st.integers(0, 100))
    def test_blind_to_rotation_and_to_the_order_of_images(self, name, pair, seed):
        loss, (s, t) = LOSSES[name], pair
        turn = torch.linalg.qr(rows(seed, s.shape[1], s.shape[1]))[0]
        order = torch.randperm(len(s), generator=torch.Generator().manual_seed(seed))
        value = loss(s, t)
        torch.testing.assert_close(value, loss(s @ turn, t), rtol=1e-6, atol=1e-9)
        torch.testing.assert_close(value, loss(s[order], t[order]), rtol=1e-6, atol=1e-9)

    def test_gradients_are_right(self, name):
        s, t = rows(0, 4, 3).requires_grad_(True), rows(1, 4, 5)
        assert gradcheck(lambda x: LOSSES[name](x, t), (s,))

    @pytest.mark.parametrize("case", ["twins", "dead", "collapsed"])
    def test_awkward_rows_have_finite_gradients(self, name, case):
        s, t = rows(0, 4, 3), rows(1, 4, 5)
        if case == "twins":
            s[1] = s[0]
        if case == "dead":
            s[1] = 0
        if case == "collapsed":
            s[:] = s[0]
        s.requires_grad_(True)
        (found,) = torch.autograd.grad(LOSSES[name](s, t), s)
        assert found.isfinite().all()
        assert name not in ("distance", "angle") or found.abs().max() < 1e3

    @pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32])
    @pytest.mark.parametrize("scale", [1e-3, 1.0, 1e3])
    def test_no_dtype_overflows(self, name, dtype, scale):
        s, t = (scale * rows(0, 5, 3)).to(dtype), rows(1, 5, 7).to(dtype)
        found = LOSSES[name](s, t)
        assert found.dtype == torch.float32
        torch.testing.assert_close(
            found.double(), LOSSES[name](s.double(), t.double()), rtol=1e-4, atol=1e-5
        )

    def test_the_teacher_is_a_constant_and_maps_are_flattened(self, name):
        s, t = rows(0, 4, 12).requires_grad_(True), rows(1, 4, 5).requires_grad_(True)
        maps = s.unflatten(1, (3, 2, 2)).movedim(1, -1).contiguous().movedim(-1, 1)
        LOSSES[name](maps, t).backward()
        assert t.grad is None
        assert s.grad.abs().max() > 0


class TestContrast:
    def test_equal_similarities_cost_log_b(self):
        z = torch.ones(5, 3, dtype=torch.float64)
        equal(relations.contrastive_loss(z, z, 0.2), math.log(5))

    def test_one_class_costs_nothing_and_many_change_nothing(self):
        s, t = rows(0, 5, 3), rows(1, 5, 3)
        y = torch.arange(5)
        assert relations.contrastive_loss(s, t, 0.1, torch.zeros(5, dtype=torch.long)) == 0
        equal(relations.contrastive_loss(s, t, 0.1, y), relations.contrastive_loss(s, t, 0.1))

    @settings(max_examples=30, deadline=None)
    @given(st.integers(0, 1000), st.sampled_from([0.01, 0.1, 1.0]))
    def test_leaving_negatives_out_never_costs(self, seed, tau):
        s, t = rows(seed, 6, 3), rows(seed + 1, 6, 3)
        y = torch.randint(3, (6,), generator=torch.Generator().manual_seed(seed))
        masked = relations.contrastive_loss(s, t, tau, y)
        assert 0 <= masked <= relations.contrastive_loss(s, t, tau) + 1e-12

    def test_gradients_are_right(self):
        s, t = rows(0, 4, 3).requires_grad_(True), rows(1, 4, 3).requires_grad_(True)
        y = torch.tensor([0, 0, 1, 2])
        assert gradcheck(lambda a, b: relations.contrastive_loss(a, b, 0.5, y), (s, t))

    def test_what_learns(self):
        student, teacher = nn.Linear(5, 3), nn.Sequential(nn.Linear(5, 7), nn.Dropout(0.5))
        heads = nn.Linear(3, 4), nn.Linear(7, 4)
        trainer = relations.ContrastiveTrainer(student, teacher, *heads, 0.2)
        before = [m.state_dict()[k].clone() for m in (student, *heads) for k in m.state_dict()]
        frozen = teacher[0].weight.clone()
        loss = trainer.step(torch.randn(6, 5), torch.arange(6) % 3)
        after = [m.state_dict()[k] for m in (student, *heads) for k in m.state_dict()]
        assert type(loss) is float
        assert not any(torch.equal(a, b) for a, b in zip(before[::2], after[::2], strict=True))
        assert torch.equal(teacher[0].weight, frozen)
        assert not teacher.training


class TestMemoryBank:
    def test_nce_survives_scores_that_overflow_exp(self):
        scores = torch.tensor([[300.0, 100.0, -200.0]], requires_grad=True)
        loss = relations.nce_loss(scores, 10.0, 100)
        loss.backward()
        exact = relations.nce_loss(scores.detach().double(), 10.0, 100)
        torch.testing.assert_close(loss.detach().double(), exact, rtol=1e-5, atol=1e-5)
        assert scores.grad.isfinite().all()

    def test_the_normaliser_is_frozen_by_the_first_batch(self):
        bank = relations.MemoryBank(40, 8, 10, seed=1)
        z, index = torch.randn(5, 8), torch.arange(5)
        bank.loss(z, index)
        first = bank.normaliser
        bank.update(z, index)
        bank.loss(z, index)
        assert bank.normaliser == first != bank.latest
        anew = relations.MemoryBank(40, 8, 10, seed=1, freeze=False)
        anew.loss(z, index)
        anew.update(z, index)
        anew.loss(z, index)
        assert anew.normaliser == anew.latest

    def test_negatives(self):
        index = torch.arange(10).repeat(100)
        drawn = relations.MemoryBank(10, 4, 6, seed=0).draw(index)
        assert torch.equal(drawn[:, 0], index)
        assert (drawn[:, 1:] == index[:, None]).float().mean() == pytest.approx(0.1, abs=0.02)
        other = relations.MemoryBank(10, 4, 6, seed=0, avoid=True).draw(index)
        assert not (other[:, 1:] == index[:, None]).any()
        counts = other[:, 1:].flatten().bincount(minlength=10) / other[:, 1:].numel()
        assert counts.min() > 0.08

    def test_update_is_a_moving_mean_of_length_one(self):
        bank = relations.MemoryBank(6, 3, 2, momentum=0.5)
        before, z = bank.rows.clone(), torch.randn(2, 3)
        bank.update(z, torch.tensor([4, 1]))
        want = F.normalize(0.5 * before[[4, 1]] + 0.5 * F.normalize(z, dim=1), dim=1)
        torch.testing.assert_close(bank.rows[[4, 1]], want)
        assert torch.equal(bank.rows[[0, 2, 3, 5]], before[[0, 2, 3, 5]])

    def test_the_loss_is_repdistillers(self):
        """One half of `ContrastMemory.forward` and `ContrastLoss`, written out in float64."""
        bank = relations.MemoryBank(30, 5, 7, temperature=0.5, seed=3)
        z, index = F.normalize(torch.randn(4, 5), dim=1), torch.tensor([3, 9, 0, 21])
        state = bank.generator.get_state()
        ours = bank.loss(z, index)
        bank.generator.set_state(state)
        drawn = bank.draw(index)
        out = torch.bmm(bank.rows[drawn].double(), z.double()[:, :, None]).squeeze(-1)
        out = (out / 0.5).exp()
        out = out / (out.mean() * 30)
        m, noise = 7, 1 / 30
        won = (out[:, 0] / (out[:, 0] + m * noise + 1e-7)).log()
        lost = (m * noise / (out[:, 1:] + m * noise + 1e-7)).log()
        theirs = -(won.sum() + lost.sum()) / 4
        torch.testing.assert_close(ours.double(), theirs, rtol=1e-5, atol=1e-5)


class TestNeighbours:
    def test_against_scikit_learn(self):
        from sklearn.neighbors import KNeighborsClassifier

        g = torch.Generator().manual_seed(0)
        y, gallery_y = (torch.randint(3, (n,), generator=g) for n in (40, 90))
        queries = torch.randn(40, 4, generator=g) + F.one_hot(y, 4) * 2
        gallery = torch.randn(90, 4, generator=g) + F.one_hot(gallery_y, 4) * 2
        model = KNeighborsClassifier(5).fit(F.normalize(gallery, dim=1), gallery_y)
        theirs = model.score(F.normalize(queries, dim=1), y)
        assert knn_accuracy(queries, y, gallery, gallery_y, k=5) == pytest.approx(theirs)

    def test_precision_leaves_the_query_out(self):
        z = torch.tensor([[1.0, 0.0], [1.0, 0.1], [0.0, 1.0], [0.1, 1.0]])
        assert precision_at_k(z, torch.tensor([0, 0, 1, 1]), k=1) == 1
        assert precision_at_k(z, torch.tensor([0, 1, 0, 1]), k=1) == 0

    @pytest.mark.parametrize(
        ("call", "words"),
        [
            (lambda z, y: knn_accuracy(z, y, z, y, k=5), r"k must lie in 1\.\.4, got 5"),
            (lambda z, y: precision_at_k(z, y, k=4), r"k must lie in 1\.\.3, got 4"),
            (lambda z, y: precision_at_k(z, y[:3], k=1), "one row for each target"),
        ],
    )
    def test_bad_input_is_named(self, call, words):
        with pytest.raises(ValueError, match=words):
            call(torch.randn(4, 2), torch.tensor([0, 0, 1, 1]))


X = rows(0, 4, 3)


@pytest.mark.parametrize(
    ("call", "words"),
    [
        (lambda: relations.sp_loss(X, X[:3]), "as many rows, got 4 and 3"),
        (lambda: relations.sp_loss(X[0], X), "student_features must have shape"),
        (lambda: relations.pkt_loss(X * math.nan, X), "student_features must be finite"),
        (lambda: relations.rkd_distance_loss(X[:1], X[:1]), "at least two rows.*got 1"),
        (lambda: relations.rkd_angle_loss(X, X[:3]), "as many rows"),
        (lambda: relations.contrastive_loss(X, X[:, :2]), "same shape"),
        (lambda: relations.contrastive_loss(X, X, 0.0), "temperature must be positive"),
        (lambda: relations.contrastive_loss(X, X, 0.1, torch.zeros(3)), r"labels must be \(4,\)"),
        (lambda: relations.nce_loss(X, 0.0, 5), "normaliser must be positive"),
        (lambda: relations.nce_loss(X, math.inf, 5), "normaliser must be positive and finite"),
        (lambda: relations.nce_loss(X[:, :1], 1.0, 5), "K >= 1"),
        (lambda: relations.nce_loss(X, 1.0, 0), "examples must be at least 1"),
        (lambda: relations.MemoryBank(1, 2, 3), "negatives >= 1 of examples >= 2"),
    ],
)
def test_bad_input_is_named(call, words):
    with pytest.raises(ValueError, match=words):
        call()


class TestEvidence:
    @pytest.fixture
    def stored(self):
        return evidence.load("u07_relations")

    def test_every_arm_has_every_seed(self, stored):
        for arms in stored["results"].values():
            for arm, entry in arms.items():
                assert len(entry["accuracy"]) == len(stored["seeds"]) >= 5, arm

    def test_headlines_come_from_the_results(self, stored):
        intervals = [stored["mask"], stored["forgotten"]]
        intervals += [
            value
            for arms in stored["results"].values()
            for entry in arms.values()
            for value in entry.values()
            if len(value) == 3
        ]
        assert stored["headlines"]
        for row in stored["headlines"]:
            assert any(np.allclose(row["interval"], found) for found in intervals), row["claim"]

    def test_the_picture_moves_towards_the_teachers(self, stored):
        accuracy = [frame["accuracy"] for frame in stored["pictures"].values()]
        assert len(accuracy) >= 5
        assert stored["pictures"]["0"]["accuracy"] < max(accuracy)
        for frame in stored["pictures"].values():
            assert len(frame["points"]) == len(stored["picture_classes"])
