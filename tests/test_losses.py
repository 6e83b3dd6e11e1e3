"""Parity with the papers' equations and with independent libraries, and properties on any input."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.autograd import gradcheck

from kdlib import losses
from kdlib.losses import divergences
from tests import oracles

CLOSE = {"rtol": 1e-9, "atol": 1e-9}


def pair(seed=0, rows=7, classes=11, scale=3.0):
    g = torch.Generator().manual_seed(seed)
    z, v = (torch.randn(rows, classes, generator=g, dtype=torch.float64) * scale for _ in "zv")
    return z, v, torch.randint(classes, (rows,), generator=g)


def equal(ours, theirs):
    np.testing.assert_allclose(ours.detach().numpy(), np.asarray(theirs), **CLOSE)


@pytest.mark.parametrize("seed", range(5))
class TestAgainstThePapers:
    def test_divergences(self, seed):
        z, v, _ = pair(seed)
        equal(divergences.log_softmax(z, 2.5), oracles.log_softmax(z, 2.5))
        equal(divergences.softmax(z, 0.7), oracles.softmax(z, 0.7))
        equal(divergences.entropy(z), oracles.entropy(z))
        equal(divergences.kl_divergence(v, z, 3.0), oracles.kl(v, z, 3.0))
        equal(divergences.total_variation(v, z), oracles.total_variation(v, z))
        p = divergences.softmax(v)
        equal(divergences.soft_cross_entropy(z, p), oracles.cross_entropy(p.numpy(), z))
        for beta in (0.01, 0.1, 0.5, 0.9):
            equal(divergences.generalized_jsd(v, z, beta, 2.0), oracles.jsd(v, z, beta, 2.0))

    @pytest.mark.parametrize(("temperature", "alpha"), [(1.0, 1.0), (4.0, 0.9), (20.0, 0.5)])
    def test_kd_loss_and_its_gradient(self, seed, temperature, alpha):
        z, v, y = pair(seed)
        z.requires_grad_(True)
        v.requires_grad_(True)
        loss = losses.kd_loss(z, v, y, temperature, alpha)
        loss.backward()
        numpy = [x.detach().numpy() for x in (z, v, y)]
        equal(loss, oracles.kd(*numpy, temperature, alpha))
        equal(z.grad, oracles.kd_gradient_of_mean(*numpy, temperature, alpha))
        assert v.grad is None

    def test_gradient_in_closed_form_is_autograds(self, seed):
        z, v, _ = pair(seed)
        z.requires_grad_(True)
        (found,) = torch.autograd.grad(divergences.kl_divergence(v, z, 3.0).sum(), z)
        equal(losses.kd_gradient(z, v, 3.0), found)

    def test_high_temperature_is_logit_matching(self, seed):
        z, v, _ = pair(seed)
        exact, limit = (f(z, v, 1e4) for f in (losses.kd_gradient, losses.logit_matching_gradient))
        assert ((exact - limit).norm() / exact.norm()) < 1e-3
        centred = [x - x.mean(-1, keepdim=True) for x in (z, v)]
        z0 = centred[0].requires_grad_(True)
        (matching,) = torch.autograd.grad(losses.logit_matching_loss(z0, centred[1]), z0)
        scaled = limit * z.shape[-1] * 1e8 / len(z)
        np.testing.assert_allclose(matching.numpy(), scaled.detach().numpy(), rtol=1e-9)


class TestAgainstLibraries:
    def test_torchdistill(self):
        KDLoss = pytest.importorskip("torchdistill.losses.mid_level").KDLoss

        z, v, y = pair()
        z.requires_grad_(True)
        theirs = KDLoss("s", "", "t", "", temperature=4.0, alpha=0.1, beta=0.9)
        io = ({"s": {"output": z}}, {"t": {"output": v}})
        ours = losses.kd_loss(z, v, y, 4.0, 0.9)
        found = KDLoss.forward(_with_paths(theirs), *io, targets=y)
        equal(ours, found.detach().numpy())
        equal(*(torch.autograd.grad(x, z, retain_graph=True)[0] for x in (ours, found)))

    @pytest.mark.parametrize("beta", [0.1, 0.5, 0.9])
    def test_trl(self, beta):
        from trl.experimental.gkd.gkd_trainer import GKDTrainer

        z, v, _ = pair()
        z, v = z[None], v[None]  # (B, T, V)
        labels = torch.zeros(z.shape[:2], dtype=torch.long)
        theirs = GKDTrainer.generalized_jsd_loss(z, v, labels=labels, beta=beta, temperature=2.0)
        ours = divergences.generalized_jsd(v, z, beta, temperature=2.0).mean()
        equal(ours, theirs.numpy())


def _with_paths(loss):
    """Read the modules' outputs from where `io` has them."""
    loss.student_module_path, loss.student_module_io = "s", "output"
    loss.teacher_module_path, loss.teacher_module_io = "t", "output"
    return loss


temperatures = st.floats(1e-2, 1e4)
numbers = st.floats(-1e4, 1e4, width=32)
dtypes = st.sampled_from([torch.float64, torch.float32, torch.bfloat16, torch.float16])


@st.composite
def logits(draw, how_many=2):
    shape = draw(st.sampled_from([(1, 2), (3, 5), (2, 3, 4), (6,), (4, 1)]))
    n = int(np.prod(shape))
    return [
        torch.tensor(draw(st.lists(numbers, min_size=n, max_size=n))).reshape(shape)
        for _ in range(how_many)
    ]


class TestProperties:
    @settings(max_examples=80)
    @given(logits(), temperatures, dtypes)
    def test_kl_is_finite_nonnegative_and_zero_at_home(self, pair, temperature, dtype):
        v, z = (x.to(dtype) for x in pair)
        kl = divergences.kl_divergence(v, z, temperature)
        assert kl.shape == v.shape[:-1]
        assert kl.isfinite().all()
        assert (kl >= -1e-3 * (1 + kl.abs())).all()
        assert divergences.kl_divergence(v, v, temperature).abs().max() == 0
        assert kl.dtype == (dtype if dtype == torch.float64 else torch.float32)

    @settings(max_examples=80)
    @given(logits(), temperatures, st.floats(-1e3, 1e3))
    def test_a_constant_changes_nothing(self, pair, temperature, constant):
        v, z = (x.double() for x in pair)
        a = divergences.kl_divergence(v, z, temperature)
        b = divergences.kl_divergence(v + constant, z, temperature)
        torch.testing.assert_close(a, b, rtol=1e-6, atol=1e-6)

    @settings(max_examples=80)
    @given(logits(), st.floats(0.01, 0.99))
    def test_jsd_and_tv_are_bounded_and_symmetric_where_they_should_be(self, pair, beta):
        v, z = (x.double() for x in pair)
        jsd = divergences.generalized_jsd(v, z, beta)
        assert jsd.isfinite().all()
        bound = -(beta * np.log(beta) + (1 - beta) * np.log(1 - beta))
        assert (jsd <= bound + 1e-9).all()
        torch.testing.assert_close(jsd, divergences.generalized_jsd(z, v, 1 - beta))
        tv = divergences.total_variation(v, z)
        assert ((tv >= 0) & (tv <= 1 + 1e-9)).all()
        assert (tv <= (divergences.kl_divergence(v, z) / 2).sqrt() + 1e-6).all()

    @settings(max_examples=60)
    @given(logits(), temperatures, st.floats(0, 1), dtypes)
    def test_kd_loss_never_overflows_and_ignores_duplication(self, pair, temperature, alpha, dtype):
        z, v = (x.reshape(-1, x.shape[-1]).to(dtype) for x in pair)
        y = torch.zeros(len(z), dtype=torch.long)
        once = losses.kd_loss(z, v, y, temperature, alpha)
        assert once.isfinite()
        twice = losses.kd_loss(*(torch.cat([x, x]) for x in (z, v, y)), temperature, alpha)
        torch.testing.assert_close(once, twice, rtol=1e-4, atol=1e-4)

    def test_gradients_are_right_to_second_order(self):
        z, v, y = pair(rows=2, classes=3)
        z.requires_grad_(True)
        assert gradcheck(lambda x: losses.kd_loss(x, v, y, 2.0, 0.7), (z,))
        assert gradcheck(lambda x: divergences.generalized_jsd(v, x, 0.3), (z,))


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"temperature": 0.0}, "temperature must be positive and finite, got 0"),
        ({"temperature": float("inf")}, "got inf"),
        ({"alpha": 1.5}, "alpha must lie between 0 and 1, got 1.5"),
        ({"student_logits": torch.zeros(2, 3)}, r"same shape, got \(2, 3\) and \(7, 11\)"),
        ({"teacher_logits": torch.full((7, 11), float("nan"))}, "teacher_logits must be finite"),
        ({"targets": torch.full((7,), 11)}, r"targets must lie in 0\.\.10, got 11"),
        ({"targets": torch.zeros(7)}, "dtype int64"),
        ({"targets": torch.zeros(6, dtype=torch.long)}, "targets must have shape"),
    ],
)
def test_bad_input_is_named(change, words):
    z, v, y = pair()
    good = {"student_logits": z, "teacher_logits": v, "targets": y}
    with pytest.raises(ValueError, match=words):
        losses.kd_loss(**{**good, **change})


def test_no_rows_is_an_error():
    with pytest.raises(ValueError, match="at least one row"):
        losses.kd_loss(torch.zeros(0, 3), torch.zeros(0, 3), torch.zeros(0, dtype=torch.long))
