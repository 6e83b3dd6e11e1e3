"""Unit 12: parity with the papers and with TRL, exact gradients, properties, errors, evidence."""

import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from kdlib import evidence
from kdlib.losses import sequences as losses
from kdlib.models import GPT, GPTConfig, seeded
from kdlib.training import on_policy
from tests import oracles

CLOSE = {"rtol": 1e-9, "atol": 1e-9}


def batch(seed=0, lengths=(5, 2, 4), T=5, V=7, scale=3.0):
    g = torch.Generator().manual_seed(seed)
    z, v = (torch.randn(len(lengths), T, V, generator=g, dtype=torch.float64) * scale for _ in "zv")
    return z, v, torch.arange(T) < torch.tensor(lengths)[:, None]


def numpy_skew(v, z, alpha):
    p, q = oracles.softmax(v), oracles.softmax(z)
    return (p * (np.log(p) - np.log(alpha * p + (1 - alpha) * q))).sum(-1)


@pytest.mark.parametrize("seed", range(4))
class TestAgainstThePapers:
    def test_jsd(self, seed):
        z, v, mask = batch(seed)
        rows = z[mask].numpy(), v[mask].numpy()
        for beta in (0.1, 0.5, 0.9):
            ours = losses.jsd(z, v, mask, beta)
            np.testing.assert_allclose(ours, oracles.jsd(rows[1], rows[0], beta).mean(), **CLOSE)
        np.testing.assert_allclose(
            losses.jsd(z, v, mask, 0.0), oracles.kl(rows[1], rows[0]).mean(), **CLOSE
        )
        np.testing.assert_allclose(
            losses.jsd(z, v, mask, 1.0), oracles.kl(rows[0], rows[1]).mean(), **CLOSE
        )

    def test_skew_kl(self, seed):
        z, v, mask = batch(seed, scale=1.5)
        rows = z[mask].numpy(), v[mask].numpy()
        for alpha in (0.1, 0.7):
            ours = losses.skew_kl(z, v, mask, alpha)
            np.testing.assert_allclose(ours, numpy_skew(rows[1], rows[0], alpha).mean(), **CLOSE)
            ours = losses.skew_reverse_kl(z, v, mask, alpha)
            np.testing.assert_allclose(ours, numpy_skew(rows[0], rows[1], alpha).mean(), **CLOSE)

    def test_taid_and_its_gradient(self, seed):
        z, v, mask = batch(seed)
        z.requires_grad_(True)
        t = 0.3
        loss = on_policy.taid_loss(z, v, mask, t)
        (found,) = torch.autograd.grad(loss, z)
        a, b = z.detach()[mask].numpy(), v[mask].numpy()
        target = (1 - t) * a + t * b
        np.testing.assert_allclose(loss.detach(), oracles.kl(target, a).mean(), **CLOSE)
        by_hand = (oracles.softmax(a) - oracles.softmax(target)) / len(a)
        np.testing.assert_allclose(found[mask], by_hand, **CLOSE)
        assert (found[~mask] == 0).all()


class TestAgainstTRL:
    """TRL's generalized_jsd_loss: beta weighs the teacher, with GKD's ends at 0 and 1."""

    @pytest.mark.parametrize("beta", [0.0, 0.1, 0.5, 0.9, 1.0])
    @pytest.mark.parametrize("temperature", [1.0, 2.0])
    def test_jsd_value_and_gradient(self, beta, temperature):
        from trl.experimental.gkd.gkd_trainer import GKDTrainer

        z, v, mask = batch(3)
        z.requires_grad_(True)
        labels = torch.where(mask, 0, -100)
        theirs = GKDTrainer.generalized_jsd_loss(
            z, v, labels=labels, beta=beta, temperature=temperature
        )
        ours = losses.jsd(z, v, mask, beta, temperature)
        torch.testing.assert_close(ours, theirs, rtol=1e-12, atol=1e-12)
        torch.testing.assert_close(
            *(torch.autograd.grad(x, z, retain_graph=True)[0] for x in (ours, theirs)),
            rtol=1e-10,
            atol=1e-12,
        )


def language(seed=0, V=3, T=3):
    g = torch.Generator().manual_seed(seed)
    prefixes = sum(V**t for t in range(T))
    q, p = (torch.randn(prefixes, V, generator=g, dtype=torch.float64) for _ in "qp")
    rows = on_policy.all_sequences(V, T, V - 1)
    return q.requires_grad_(True), p, rows, losses.mask_until_eos(rows, V - 1)


def scored(q, p, rows):
    return (on_policy.token_log_probs(on_policy.table_logits(t, rows), rows) for t in (q, p))


def expected_gradient(loss, q, p, rows, mask):
    """The mean of a loss's gradient over all rows, each with its probability."""
    log_q, log_p = scored(q, p, rows)
    weight = (log_q * mask).sum(1).exp().detach()
    each = (loss(log_q[i : i + 1], log_p[i : i + 1], mask[i : i + 1]) for i in range(len(rows)))
    return torch.autograd.grad(sum(w * x for w, x in zip(weight, each, strict=True)), q)[0]


@pytest.mark.parametrize(("seed", "V", "T"), [(0, 3, 3), (1, 2, 4), (2, 4, 3), (3, 3, 4)])
class TestAgainstEnumeration:
    def test_the_rows_are_all_there_is(self, seed, V, T):
        q, p, rows, mask = language(seed, V, T)
        log_q, _ = scored(q, p, rows)
        total = (log_q * mask).sum(1).exp().sum()
        torch.testing.assert_close(total, torch.ones_like(total))
        assert len(set(map(tuple, rows.tolist()))) == len(rows)

    def test_the_surrogates_gradient_is_that_of_the_sequence_kl(self, seed, V, T):
        q, p, rows, mask = language(seed, V, T)
        log_q, log_p = scored(q, p, rows)
        weight = (log_q * mask).sum(1).exp()
        kl = (weight * ((log_q - log_p) * mask).sum(1)).sum()
        exact = torch.autograd.grad(kl, q)[0]
        found = expected_gradient(on_policy.reverse_kl_surrogate, q, p, rows, mask)
        torch.testing.assert_close(found, exact, rtol=1e-12, atol=1e-13)

    def test_the_per_token_gradient_takes_prefixes_as_given(self, seed, V, T):
        q, p, rows, mask = language(seed, V, T)
        log_q, _ = scored(q, p, rows)
        weight = (log_q * mask).sum(1).exp().detach()
        z, v = (on_policy.table_logits(t, rows) for t in (q, p))
        each = (z.softmax(-1) * (z.log_softmax(-1) - v.log_softmax(-1))).sum(-1) * mask
        token_level = torch.autograd.grad((weight[:, None] * each).sum(), q)[0]

        def per_row(log_q, log_p, mask):
            return on_policy.per_token_loss(log_q, log_p, mask) * mask.sum()

        found = expected_gradient(per_row, q, p, rows, mask)
        torch.testing.assert_close(found, token_level, rtol=1e-12, atol=1e-13)
        exact = expected_gradient(on_policy.reverse_kl_surrogate, q, p, rows, mask)
        assert (found - exact).norm() > 0.05 * exact.norm()  # and that is not the whole


class TestProperties:
    numbers = st.floats(-60, 60, width=32)

    @settings(max_examples=40)
    @given(
        st.lists(numbers, min_size=24, max_size=24),
        st.lists(numbers, min_size=24, max_size=24),
        st.sampled_from([0.0, 1.0]) | st.floats(0.001, 0.999),
        st.just(0.0) | st.floats(0.001, 0.999),
    )
    def test_bounds(self, a, b, beta, alpha):
        z, v = (torch.tensor(x, dtype=torch.float64).reshape(2, 3, 4) for x in (a, b))
        mask = torch.tensor([[True, True, False], [True, False, False]])
        jsd = losses.jsd(z, v, mask, beta)
        assert jsd >= -1e-9
        if 0 < beta < 1:
            assert jsd <= -(beta * math.log(beta) + (1 - beta) * math.log1p(-beta)) + 1e-9
        skew = losses.skew_kl(z, v, mask, alpha)
        assert -1e-9 <= skew <= (-math.log(alpha) if alpha > 0 else math.inf) + 1e-9
        torch.testing.assert_close(
            losses.jsd(z, v, mask, beta), losses.jsd(v, z, mask, 1 - beta), rtol=1e-6, atol=1e-9
        )
        assert on_policy.taid_loss(z, v, mask, 0.0).abs() < 1e-12

    @settings(max_examples=30)
    @given(st.integers(0, 1000), st.sampled_from([0.0, float("nan"), float("-inf")]))
    def test_padding_changes_nothing(self, seed, fill):
        z, v, mask = batch(seed)
        found = []
        for junk in (False, True):
            a = z.clone().requires_grad_(True)
            teacher = v.masked_fill(~mask[..., None], fill) if junk else v
            total = sum(
                f(a, teacher, mask, x)
                for f, x in ((losses.jsd, 0.3), (losses.skew_kl, 0.1), (on_policy.taid_loss, 0.5))
            )
            found.append((total.detach(), torch.autograd.grad(total, a)[0]))
        torch.testing.assert_close(found[0], found[1])

    @settings(max_examples=30)
    @given(st.integers(0, 1000), st.sampled_from([0.0, float("nan"), float("-inf")]))
    def test_padding_changes_no_policy_gradient(self, seed, fill):
        z, v, mask = batch(seed)
        log_q, log_p = (x[..., 0] for x in (z, v))
        for f in (on_policy.reverse_kl_surrogate, on_policy.per_token_loss):
            found = []
            for teacher in (log_p, log_p.masked_fill(~mask, fill)):
                a = log_q.clone().requires_grad_(True)
                found.append(torch.autograd.grad(f(a, teacher, mask), a)[0])
            torch.testing.assert_close(found[0], found[1])


class TestOnPolicyBatch:
    student = seeded(0, GPT, GPTConfig(6, 16, layers=1, heads=2, context=12))
    rows = torch.tensor([[0, 1, 2, 5, 5, 5], [3, 4, 1, 2, 0, 5]])

    def draw(self, fraction, seed=0):
        g = torch.Generator().manual_seed(seed)
        return on_policy.on_policy_batch(self.student, self.rows, 2, fraction, 5, g)

    def test_data(self):
        rows, mask = self.draw(0.0)
        assert torch.equal(rows, self.rows)
        assert mask.tolist() == [[False, True, True, False, False], [False] + [True] * 4]

    def test_own_rows_keep_the_prompt_and_carry_no_graph(self):
        for seed in range(10):
            rows, mask = self.draw(1.0, seed)
            assert torch.equal(rows[:, :2], self.rows[:, :2])
            assert rows.shape == self.rows.shape
            assert not rows.requires_grad
            for row, m in zip(rows[:, 2:].tolist(), mask.tolist(), strict=True):
                end = row.index(5) + 1 if 5 in row else 4
                assert row[end:] == [5] * (4 - end)
                assert m == [False] + [True] * end + [False] * (4 - end)

    def test_lambda_is_the_chance_of_a_batch(self):
        g = torch.Generator().manual_seed(0)
        own = 0
        for _ in range(200):
            rows, _ = on_policy.on_policy_batch(self.student, self.rows, 2, 0.3, 5, g)
            own += not torch.equal(rows, self.rows)
        assert 35 < own < 85


def test_divergence_by_position_is_the_mean_at_each():
    student, teacher = (
        seeded(s, GPT, GPTConfig(6, 16, layers=1, heads=2, context=12)) for s in (0, 1)
    )
    rows = torch.randint(6, (70, 8), generator=torch.Generator().manual_seed(0))
    found = on_policy.divergence_by_position(student, teacher, rows, 3)
    with torch.no_grad():
        z, v = (m(rows[:, :-1]).double().numpy() for m in (student, teacher))
    np.testing.assert_allclose(found, oracles.kl(z, v).mean(0)[2:], rtol=1e-4)
    forward = on_policy.divergence_by_position(student, teacher, rows, 3, reverse=False)
    np.testing.assert_allclose(forward, oracles.kl(v, z).mean(0)[2:], rtol=1e-4)


def test_taid_schedule_by_hand():
    schedule = on_policy.TAIDSchedule(0.4, 1.0, 0.1, 0.9)
    assert schedule.step(2.0, 0.01) == 0.4  # the first loss is only remembered
    momentum = 0.1 * (2.0 - 1.5) / 2.0
    more = 0.1 * 0.6 / (1 + math.exp(-momentum))
    assert schedule.step(1.5, 0.02) == pytest.approx(0.4 + more)
    assert schedule.step(1.5, 0.5) == pytest.approx(0.7)  # not behind the steps
    assert schedule.step(1.5, 1.0) == 1.0


@pytest.mark.parametrize(
    ("call", "words"),
    [
        (lambda z, v, m: losses.jsd(z, v, m, 1.5), "beta must lie between 0 and 1, got 1.5"),
        (lambda z, v, m: losses.skew_kl(z, v, m, 1.0), "alpha must lie in"),
        (lambda z, v, m: on_policy.taid_loss(z, v, m, -0.1), "t must lie between 0 and 1"),
        (lambda z, v, m: on_policy.taid_loss(z, v[:2], m, 0.1), "must have the same shape"),
        (lambda z, v, m: on_policy.taid_loss(z, v, ~m & m, 0.1), "at least one token"),
        (lambda z, v, m: on_policy.per_token_loss(z[..., 0], v[..., 0], m.int()), "boolean"),
        (lambda z, v, m: on_policy.per_token_loss(z, v, m), r"must have shape \(B, T\)"),
        (
            lambda z, v, m: on_policy.reverse_kl_surrogate(z[..., 0], v[..., 0] / 0, m),
            "teacher_log_probs must be finite",
        ),
        (
            lambda z, v, m: on_policy.on_policy_batch(None, m.long(), 5, 0.5, 1, None),
            r"prompt_length must lie in 1..4, got 5",
        ),
        (
            lambda z, v, m: on_policy.on_policy_batch(None, m.long(), 2, 1.5, 1, None),
            "fraction must lie between 0 and 1",
        ),
        (lambda z, v, m: on_policy.divergence_by_position(None, None, m.long(), 5), "start"),
        (lambda z, v, m: on_policy.TAIDSchedule(alpha=2.0), "alpha must lie between 0 and 1"),
    ],
)
def test_bad_input_is_named(call, words):
    with pytest.raises(ValueError, match=words):
        call(*batch())


class TestEvidence:
    def test_directions(self):
        stored = evidence.load("u12_directions")
        assert len(stored["seeds"]) >= 5
        results = stored["results"]
        sampled = {arm: sum(e["sampled"]) / len(e["sampled"]) for arm, e in results.items()}
        for arm, e in results.items():
            if arm != "forward KL":
                mean, low, high = e["sampled_difference"]
                assert low <= mean <= high
                assert mean == pytest.approx(sampled[arm] - sampled["forward KL"], abs=1e-3)
        assert sampled["sequence gradient"] > sampled["reverse KL, lambda = 1"] + 20
        seconds = [
            sum(results[a]["seconds"])
            for a in ("reverse KL, lambda = 1", "reverse KL, as long as lambda = 1 takes")
        ]
        assert 0.8 < seconds[0] / seconds[1] < 1.25  # stored: the two had the same time
        assert results["sequence gradient"]["nll_difference"][1] > 0  # and its price

    def test_exposure(self):
        stored = evidence.load("u12_exposure")
        assert len(stored["seeds"]) >= 5
        last = "{}-{}".format(*stored["edges"][-2:])
        gap = {
            arm: [o - t for o, t in zip(e[f"own {last}"], e[f"text {last}"], strict=True)]
            for arm, e in stored["results"].items()
        }
        assert min(gap["reverse KL"]) > 0  # worse after its own prefixes
        assert all(
            on < off
            for on, off in zip(gap["reverse KL, on-policy"], gap["reverse KL"], strict=True)
        )
