"""Unit 05's losses against the papers' equations, torchdistill, and their own laws."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.autograd import gradcheck

from kdlib import evidence
from kdlib.losses import kd_loss, kl_divergence
from kdlib.losses import structure as logits

CLOSE = {"rtol": 1e-9, "atol": 1e-11}


def batch(seed=0, rows=7, classes=11, scale=3.0):
    g = torch.Generator().manual_seed(seed)
    z, v = (torch.randn(rows, classes, generator=g, dtype=torch.float64) * scale for _ in "zv")
    return z, v, torch.randint(classes, (rows,), generator=g)


def equal(ours, theirs, **close):
    np.testing.assert_allclose(ours.detach().numpy(), np.asarray(theirs), **(close or CLOSE))


class NumPy:
    """The equations as the papers write them, with probabilities and no tricks."""

    @staticmethod
    def softmax(z, temperature):
        e = np.exp(z / temperature - (z / temperature).max(-1, keepdims=True))
        return e / e.sum(-1, keepdims=True)

    @classmethod
    def split(cls, z, v, y, temperature):
        q, p = cls.softmax(z, temperature), cls.softmax(v, temperature)
        tckd, nckd = [], []
        for qi, pi, c in zip(q, p, y, strict=True):
            b_q, b_p = (np.array([x[c], 1 - x[c]]) for x in (qi, pi))
            hat_q, hat_p = (np.delete(x, c) / (1 - x[c]) for x in (qi, pi))
            tckd.append((b_p * np.log(b_p / b_q)).sum())
            nckd.append((hat_p * np.log(hat_p / hat_q)).sum())
        return np.array(tckd), np.array(nckd)

    @classmethod
    def dist(cls, z, v, temperature, beta, gamma):
        q, p = cls.softmax(z, temperature), cls.softmax(v, temperature)
        rows = [1 - np.corrcoef(a, b)[0, 1] for a, b in zip(q, p, strict=True)]
        columns = [1 - np.corrcoef(a, b)[0, 1] for a, b in zip(q.T, p.T, strict=True)]
        return temperature**2 * (beta * np.mean(rows) + gamma * np.mean(columns))

    @staticmethod
    def standardise(z):
        return (z - z.mean(-1, keepdims=True)) / (z.std(-1, ddof=1, keepdims=True) + 1e-7)

    @classmethod
    def standardised_kd(cls, z, v, y, temperature, alpha):
        q, p = (cls.softmax(cls.standardise(x), temperature) for x in (z, v))
        soft = (p * np.log(p / q)).sum(-1).mean()
        hard = -np.log(cls.softmax(z, 1.0)[np.arange(len(y)), y]).mean()
        return alpha * temperature**2 * soft + (1 - alpha) * hard


@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize("temperature", [1.0, 4.0])
class TestAgainstThePapers:
    def test_split_and_dkd(self, seed, temperature):
        z, v, y = batch(seed)
        numpy = [x.numpy() for x in (z, v, y)]
        tckd, nckd = NumPy.split(*numpy, temperature)
        ours = logits.split_kd(z, v, y, temperature)
        equal(ours.tckd, tckd)
        equal(ours.nckd, nckd)
        whole = temperature**2 * (2 * tckd + 3 * nckd).mean()
        equal(logits.dkd_loss(z, v, y, temperature, 2.0, 3.0), whole)

    def test_dist(self, seed, temperature):
        z, v, _ = batch(seed)
        theirs = NumPy.dist(z.numpy(), v.numpy(), temperature, 2.0, 3.0)
        equal(logits.dist_loss(z, v, temperature, 2.0, 3.0), theirs, rtol=1e-6)

    def test_standardised(self, seed, temperature):
        z, v, y = batch(seed)
        equal(logits.standardise(z), NumPy.standardise(z.numpy()))
        theirs = NumPy.standardised_kd(*(x.numpy() for x in (z, v, y)), temperature, 0.7)
        equal(logits.standardised_kd(z, v, y, temperature, 0.7), theirs)


class TestAgainstTorchdistill:
    @staticmethod
    def ask(loss, z, v, **more):
        return loss.forward({"s": {"output": z}}, {"t": {"output": v}}, **more)

    def test_dist(self):
        DISTLoss = pytest.importorskip("torchdistill.losses.mid_level").DISTLoss

        z, v, _ = batch()
        z.requires_grad_(True)
        theirs = self.ask(DISTLoss("s", "output", "t", "output", 2.0, 3.0, tau=4.0), z, v)
        ours = logits.dist_loss(z, v, 4.0, 2.0, 3.0)
        equal(ours, theirs.detach(), rtol=1e-6)
        grads = [torch.autograd.grad(x, z, retain_graph=True)[0] for x in (ours, theirs)]
        equal(*grads, rtol=1e-5, atol=1e-6)

    def test_logit_standardisation(self):
        LogitStdKDLoss = pytest.importorskip("torchdistill.losses.mid_level").LogitStdKDLoss

        z, v, y = batch()
        z.requires_grad_(True)
        loss = LogitStdKDLoss("s", "output", "t", "output", 2.0, alpha=0.1, beta=0.9)
        ours = logits.standardised_kd(z, v, y, 2.0, 0.9)
        theirs = self.ask(loss, z, v, targets=y)
        equal(ours, theirs.detach())
        equal(*(torch.autograd.grad(x, z, retain_graph=True)[0] for x in (ours, theirs)))
        # what the unit says of it: without targets the factor T^2 is missing
        soft = logits.standardised_kd(z, v, y, 2.0, 1.0)
        equal(soft, 4.0 * self.ask(loss, z, v).detach())

    def test_it_has_no_dkd(self):
        mid_level = pytest.importorskip("torchdistill.losses.mid_level")

        assert not hasattr(mid_level, "DKDLoss")


numbers = st.floats(-1e4, 1e4, width=32)


@st.composite
def batches(draw, least=2):
    rows, classes = draw(
        st.sampled_from([(1, 5), (3, 4), (5, 3), (2, 2)]).filter(lambda shape: shape[1] >= least)
    )
    z, v = (
        torch.tensor(draw(st.lists(numbers, min_size=rows * classes, max_size=rows * classes)))
        .reshape(rows, classes)
        .double()
        for _ in "zv"
    )
    y = draw(st.lists(st.integers(0, classes - 1), min_size=rows, max_size=rows))
    return z, v, torch.tensor(y)


class TestLaws:
    @settings(max_examples=80)
    @given(batches(), st.floats(0.5, 100.0))
    def test_halves_make_up_the_whole(self, given, temperature):
        z, v, y = given
        tckd, nckd = logits.split_kd(z, v, y, temperature)
        p = (v / temperature).softmax(-1)
        rest = p.masked_fill(torch.nn.functional.one_hot(y, p.shape[-1]).bool(), 0.0).sum(-1)
        assert tckd.isfinite().all()
        assert nckd.isfinite().all()
        whole = kl_divergence(v, z, temperature)
        torch.testing.assert_close(tckd + rest * nckd, whole, rtol=1e-8, atol=1e-8)
        if z.shape[-1] == 2:
            assert nckd.abs().max() == 0

    @settings(max_examples=60)
    @given(batches(least=3), st.floats(0.5, 100.0))
    def test_losses_and_gradients_are_finite(self, given, temperature):
        z, v, y = given
        z.requires_grad_(True)
        v.requires_grad_(True)
        for loss in (
            logits.dkd_loss(z, v, y, temperature),
            logits.dist_loss(z, v, temperature),
            logits.standardised_kd(z, v, y, temperature),
        ):
            assert loss.isfinite()
            assert loss >= -1e-6
            grads = torch.autograd.grad(loss, (z, v), allow_unused=True)
            assert grads[0].isfinite().all()
            assert grads[1] is None

    def test_nckd_leaves_the_target_alone(self):
        z, v, y = batch()
        z.requires_grad_(True)
        (found,) = torch.autograd.grad(logits.split_kd(z, v, y).nckd.sum(), z)
        assert found.gather(1, y[:, None]).abs().max() == 0

    def test_dkd_with_the_teachers_own_beta_is_plain_kd(self):
        z, v, y = batch(rows=1)
        beta = 1 - (v / 4.0).softmax(-1)[0, y[0]].item()
        plain = kd_loss(z, v, y, 4.0, 1.0)
        torch.testing.assert_close(logits.dkd_loss(z, v, y, 4.0, 1.0, beta), plain)

    @pytest.mark.parametrize("factor", [0.25, 0.5, 2.0, 4.0])
    def test_only_standardising_is_blind_to_the_teachers_scale(self, factor):
        noise, v, y = batch()
        z = v + 0.2 * noise
        same = [logits.standardised_kd(z, x, y) for x in (v, factor * v)]
        torch.testing.assert_close(*same, rtol=1e-5, atol=1e-7)
        for loss in (
            lambda x: kd_loss(z, x, y),
            lambda x: logits.dkd_loss(z, x, y),
            lambda x: logits.dist_loss(z, x),
        ):
            assert abs(loss(factor * v) / loss(v) - 1) > 1e-3

    def test_gradients_to_second_order(self):
        z, v, y = batch(rows=3, classes=4)
        z.requires_grad_(True)
        assert gradcheck(lambda x: logits.dkd_loss(x, v, y), (z,))
        assert gradcheck(lambda x: logits.dist_loss(x, v), (z,))
        assert gradcheck(lambda x: logits.standardised_kd(x, v, y), (z,))

    def test_a_certain_teacher_in_float32(self):
        z, v, y = (x.float() if x.is_floating_point() else x for x in batch())
        v = v + 200 * torch.nn.functional.one_hot(y, v.shape[-1])
        p = v.softmax(-1).gather(1, y[:, None])
        assert (p == 1).all()
        assert logits.dkd_loss(z, v, y, 1.0).isfinite()
        assert logits.dkd_loss(v, z, y, 1.0).isfinite()

    def test_half_precision_is_accumulated_in_float32(self):
        z, v, y = batch()
        for dtype in (torch.float16, torch.bfloat16):
            z16, v16 = z.to(dtype), v.to(dtype)
            assert logits.dkd_loss(z16, v16, y).dtype == torch.float32
            assert logits.dist_loss(z16, v16).dtype == torch.float32
            assert logits.standardised_kd(z16, v16, y).dtype == torch.float32

    def test_leading_dimensions(self):
        z, v, y = batch(rows=6)
        flat = logits.dkd_loss(z, v, y)
        shaped = logits.dkd_loss(z.view(2, 3, -1), v.view(2, 3, -1), y.view(2, 3))
        torch.testing.assert_close(flat, shaped)

    def test_constant_rows(self):
        z = torch.full((2, 4), 1.5, requires_grad=True)
        assert logits.standardise(z).abs().max() == 0
        _, v, y = batch(rows=2, classes=4)
        logits.standardised_kd(z, v.float(), y).backward()
        assert z.grad.isfinite().all()


@pytest.mark.parametrize(
    ("call", "words"),
    [
        (lambda z, v, y: logits.dkd_loss(z[:, :2], v[:, :2], y % 2), "at least 3 classes"),
        (lambda z, v, y: logits.split_kd(z[:, :1], v[:, :1], y * 0), "at least two classes, got 1"),
        (lambda z, v, y: logits.split_kd(z, v, y, 0.0), "temperature must be positive"),
        (lambda z, v, y: logits.split_kd(z, v, y + 11), "targets must lie in"),
        (lambda z, v, y: logits.dkd_loss(z, v[:3], y), "must have the same shape"),
        (lambda z, v, y: logits.dkd_loss(z, v * torch.nan, y), "teacher_logits must be finite"),
        (lambda z, v, y: logits.dist_loss(z[0], v[0]), r"must have shape \(B, C\)"),
        (lambda z, v, y: logits.dist_loss(z, v, -1.0), "temperature must be positive"),
        (lambda z, v, y: logits.standardise(z[:, :1]), "at least two classes, got 1"),
        (lambda z, v, y: logits.standardised_kd(z, v, y, 2.0, 1.5), "alpha must lie between"),
        (lambda z, v, y: logits.pearson(z, v[:3]), "must have the same shape"),
    ],
)
def test_bad_input_is_named(call, words):
    with pytest.raises(ValueError, match=words):
        call(*batch())


class TestEvidence:
    stored = evidence.load("u05_logit_structure")

    def test_has_enough_seeds_and_ordered_intervals(self):
        n = len(self.stored["seeds"])
        assert n >= 5
        for regime in self.stored["regimes"]:
            for arm, entry in self.stored["results"][regime].items():
                assert len(entry["accuracy"]) == n
                if arm != "plain KD":
                    low, mean, high = (entry["accuracy_difference"][i] for i in (1, 0, 2))
                    assert low <= mean <= high

    def test_the_arms_are_those_of_the_code(self):
        from evidence import u05_logit_structure as code

        assert self.stored["arms"] == list(code.ARMS)
        assert self.stored["regimes"] == list(code.REGIMES)
        assert list(self.stored["rescaled"]) == [f"x{s:g}" for s in code.SCALES]

    def test_standardising_is_blind_to_the_teachers_scale(self):
        for x, arms in self.stored["rescaled"].items():
            mine = arms["standardised KD"]["accuracy"]
            theirs = self.stored["rescaled"]["x1"]["standardised KD"]["accuracy"]
            assert max(abs(a - b) for a, b in zip(mine, theirs, strict=True)) < 0.5, x

    def test_the_decoupled_loss_at_the_same_weight_is_plain_kd_on_one_row(self):
        from evidence import u05_logit_structure as code

        z, v, y = batch(rows=1)
        torch.testing.assert_close(code.same_weight(z, v, y), kd_loss(z, v, y, 4.0, 1.0))
