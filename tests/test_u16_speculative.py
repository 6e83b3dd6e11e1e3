"""Unit 16: speculative decoding is exact; acceptance, speed, parity with transformers, errors."""

import itertools
import math
from collections import defaultdict

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from kdlib.decoding import accept_draft, acceptance, speedup
from kdlib.decoding.speculative import generate
from kdlib.losses import total_variation
from tests import oracles


def rows(seed, n, V, scale=1.5):
    g = torch.Generator().manual_seed(seed)
    return (torch.randn(n, V, generator=g, dtype=torch.float64) * scale).softmax(-1)


def cells(*points):
    """Split [0, 1) at these points; give the middle and the width of each part."""
    edges = np.unique(np.clip(np.concatenate([[0.0, 1.0], *map(np.ravel, points)]), 0, 1))
    edges = edges[np.concatenate([[True], np.diff(edges) > 1e-12])]
    return [((a + b) / 2, b - a) for a, b in itertools.pairwise(edges)]


def exactly(q, p, drawn_from=None):
    """Probability of each result, summed over all drafts and all there is to tell in uniforms.

    The draft's tokens are drawn from the rows of `drawn_from`, which is q unless told otherwise.
    """
    G, V = q.shape
    chances = drawn_from if drawn_from is not None else q
    a, b = q.numpy(), p.numpy()
    judged = [cells(b[t][a[t] > 0] / a[t][a[t] > 0]) for t in range(G)]
    left = [np.maximum(b[t] - a[t], 0).cumsum() for t in range(G)]
    added = cells(*(c / c[-1] for c in left if c[-1] > 0), b[G].cumsum())
    found = defaultdict(float)
    for x in itertools.product(range(V), repeat=G):
        weight = math.prod(float(chances[t, i]) for t, i in enumerate(x))
        if weight == 0:
            continue
        for parts in itertools.product(*judged, added):
            uniforms = torch.tensor([u for u, _ in parts], dtype=torch.float64)
            result = accept_draft(torch.tensor(x), q, p, uniforms)
            found[tuple(result.tolist())] += weight * math.prod(w for _, w in parts)
    return found


def first_token(found, V):
    return np.array([sum(w for r, w in found.items() if r[0] == i) for i in range(V)])


@pytest.mark.parametrize("seed", range(3))
class TestAcceptDraftIsExact:
    def test_first_token_on_a_grid(self, seed):
        """Every drafted token, weighted with q, and a grid of uniforms; G = 1."""
        V, n = 5, 32
        q, p = rows(seed, 1, V), rows(seed + 100, 2, V)
        middles = (torch.arange(n, dtype=torch.float64) + 0.5) / n
        first, second = np.zeros(V), np.zeros(V)
        for x in range(V):
            for uniforms in torch.cartesian_prod(middles, middles):
                result = accept_draft(torch.tensor([x]), q, p, uniforms).tolist()
                first[result[0]] += q[0, x].item() / n**2
                if len(result) > 1:
                    second[result[1]] += q[0, x].item() / n**2
        np.testing.assert_allclose(first, p[0].numpy(), atol=1 / n)
        np.testing.assert_allclose(second / second.sum(), p[1], atol=1 / n)

    def test_second_token_given_that_the_first_stayed(self, seed):
        """With two drafted tokens, to rounding: no grid, but all cells of the uniforms."""
        q, p = rows(seed, 2, 3), rows(seed + 100, 3, 3)
        found = exactly(q, p)
        stays = torch.minimum(q[0], p[0])
        np.testing.assert_allclose(first_token(found, 3), p[0], atol=1e-10)
        for a, b in itertools.product(range(3), repeat=2):
            both = sum(w for r, w in found.items() if r[:2] == (a, b))
            assert both == pytest.approx((stays[a] * p[1, b]).item(), abs=1e-10)
        for a, b, c in itertools.product(range(3), repeat=3):
            wanted = stays[a] * torch.minimum(q[1, b], p[1, b]) * p[2, c]
            assert found[a, b, c] == pytest.approx(wanted.item(), abs=1e-10)

    def test_a_draft_that_was_not_drawn_from_q_breaks_it(self, seed):
        """A greedy draft whose q is a softmax: huggingface/transformers #32867."""
        q, p = rows(seed, 1, 4), rows(seed + 100, 2, 4)
        greedy = torch.zeros_like(q)
        greedy[0, q[0].argmax()] = 1.0
        assert np.abs(first_token(exactly(q, p, greedy), 4) - p[0].numpy()).max() > 0.02
        # told the truth, that it had no choice, it is exact again
        np.testing.assert_allclose(first_token(exactly(greedy, p), 4), p[0], atol=1e-10)


WEIGHTS = st.lists(st.integers(0, 9), min_size=4, max_size=4).filter(any)


class TestAcceptDraft:
    @given(WEIGHTS, WEIGHTS, WEIGHTS)
    @settings(max_examples=40)
    def test_exact_for_any_two_distributions(self, a, b, c):
        """Zeros among the probabilities, equal distributions and disjoint ones."""
        q, p0, p1 = (torch.tensor(x, dtype=torch.float64) / sum(x) for x in (a, b, c))
        found = exactly(q[None], torch.stack([p0, p1]))
        np.testing.assert_allclose(first_token(found, 4), p0, atol=1e-10)
        kept = sum(w for r, w in found.items() if len(r) == 2)
        assert kept == pytest.approx(torch.minimum(q, p0).sum().item(), abs=1e-10)

    @given(st.integers(0, 2**31), st.integers(1, 5), st.integers(2, 6))
    @settings(max_examples=60)
    def test_keeps_a_prefix_and_adds_one(self, seed, G, V):
        q, p = rows(seed, G, V), rows(seed + 1, G + 1, V)
        g = torch.Generator().manual_seed(seed)
        drafted = torch.multinomial(q, 1, generator=g)[:, 0]
        uniforms = torch.rand(G + 1, generator=g, dtype=torch.float64)
        found = accept_draft(drafted, q, p, uniforms)
        n = len(found) - 1
        assert found.dtype == torch.int64
        assert 0 <= n <= G
        assert torch.equal(found[:n], drafted[:n])
        if n < G:  # the added token is one that the draft says too rarely
            assert p[n, found[n]] > q[n, found[n]]
            assert found[n] != drafted[n]

    def test_probability_zero_is_zero(self):
        q = torch.tensor([[0.5, 0.5, 0.0]])
        p = torch.tensor([[0.0, 0.25, 0.75], [0.0, 0.0, 1.0]])
        zeros = torch.zeros(2)
        assert accept_draft(torch.tensor([0]), q, p, zeros).tolist() == [2]
        assert accept_draft(torch.tensor([1]), q, p, zeros).tolist() == [1, 2]

    def test_the_largest_uniform_of_float32(self):
        """No token of probability 0 is added, be it at the end of the vocabulary."""
        largest = torch.tensor(1.0).nextafter(torch.tensor(0.0))
        for seed in range(20):
            q, p = rows(seed, 1, 50).float(), rows(seed + 50, 2, 50).float()
            p[:, 40:] = 0
            for x in range(50):
                found = accept_draft(torch.tensor([x]), q, p, largest.repeat(2))
                n = len(found) - 1
                assert p[n, found[n]] > (q[0, found[n]] if n == 0 else 0)

    @pytest.mark.parametrize("seed", range(4))
    def test_as_transformers_does(self, seed, monkeypatch):
        """The same uniforms on both sides: theirs are asked for by two functions of torch."""
        utils = pytest.importorskip("transformers.generation.utils")
        G, V = 4, 6
        g = torch.Generator().manual_seed(seed)
        z, v = (torch.randn(1, n, V, generator=g, dtype=torch.float64) for n in (G, G + 1))
        q, p = z[0].softmax(-1), v[0].softmax(-1)
        counts = set()
        for _ in range(60):
            drafted = torch.multinomial(q, 1, generator=g)[:, 0]
            uniforms = torch.rand(G + 1, generator=g, dtype=torch.float64)
            with monkeypatch.context() as patch:
                patch.setattr(torch, "rand_like", lambda x, u=uniforms: u[:G].view_as(x))
                patch.setattr(
                    torch,
                    "multinomial",
                    lambda w, num_samples, u=uniforms: (
                        (w.cumsum(-1) > u[G]).int().argmax(-1, keepdim=True)
                    ),
                )
                theirs, n = utils._speculative_sampling(drafted[None], z, G, v)[:2]
            ours = accept_draft(drafted, q, p, uniforms)
            assert theirs[0].tolist() == ours.tolist()
            assert int(n) == len(ours) - 1
            counts.add(len(ours))
        assert len(counts) >= 4

    def test_bad_shapes_are_named(self):
        q, p = rows(0, 2, 4), rows(1, 3, 4)
        drafted, uniforms = torch.tensor([0, 1]), torch.zeros(3)
        accept_draft(drafted, q, p, uniforms)
        for bad in (
            (drafted, q, p[:2], uniforms),
            (drafted, q, p[:, :3], uniforms),
            (drafted[:1], q, p, uniforms),
            (drafted, q, p, uniforms[:2]),
        ):
            with pytest.raises(ValueError, match=r"p must be \(3, 4\)"):
                accept_draft(*bad)


def logits(seed=0, B=3, T=5, V=7, lengths=(5, 2, 4)):
    g = torch.Generator().manual_seed(seed)
    p, q = (torch.randn(B, T, V, generator=g, dtype=torch.float64) * 2 for _ in "pq")
    return p, q, torch.arange(T) < torch.tensor(lengths)[:, None]


class TestAcceptance:
    @pytest.mark.parametrize("temperature", [0.3, 1.0, 2.5])
    @pytest.mark.parametrize("seed", range(3))
    def test_is_the_equation_and_one_minus_total_variation(self, seed, temperature):
        p, q, mask = logits(seed)
        found = acceptance(p, q, mask, temperature).item()
        by_hand = [
            sum(
                min(a, b)
                for a, b in zip(
                    oracles.softmax(p[i, t], temperature),
                    oracles.softmax(q[i, t], temperature),
                    strict=True,
                )
            )
            for i, t in mask.nonzero().tolist()
        ]
        assert found == pytest.approx(np.mean(by_hand), rel=1e-12)
        distance = total_variation(p[mask] / temperature, q[mask] / temperature).mean()
        assert found == pytest.approx(1 - distance.item(), rel=1e-12)

    @given(st.integers(0, 2**31), st.floats(0.1, 10))
    @settings(max_examples=50)
    def test_is_a_symmetric_probability(self, seed, temperature):
        p, q, mask = logits(seed)
        found = acceptance(p, q, mask, temperature)
        assert 0 <= found <= 1
        torch.testing.assert_close(acceptance(q, p, mask, temperature), found)
        torch.testing.assert_close(acceptance(p + 3, q - 5, mask, temperature), found)
        assert acceptance(p, p, mask, temperature) == pytest.approx(1.0)

    def test_padding_has_no_say_and_there_is_a_gradient(self):
        p, q, mask = logits()
        wanted = acceptance(p, q, mask)
        p[~mask], q[~mask] = float("nan"), float("inf")
        q.requires_grad_(True)
        found = acceptance(p, q, mask)
        torch.testing.assert_close(found.detach(), wanted)
        found.backward()
        assert q.grad[mask].abs().sum() > 0
        assert not q.grad[~mask].any()

    @pytest.mark.parametrize("seed", range(3))
    def test_is_how_often_accept_draft_keeps_a_token(self, seed):
        z, v = rows(seed, 1, 4).log(), rows(seed + 7, 1, 4).log()
        found = exactly(z.softmax(-1), torch.cat([v, v]).softmax(-1))
        kept = sum(w for r, w in found.items() if len(r) == 2)
        alpha = acceptance(v[None], z[None], torch.ones(1, 1, dtype=torch.bool))
        assert kept == pytest.approx(alpha.item(), abs=1e-10)

    def test_bad_input_is_named(self):
        p, q, mask = logits()
        for temperature in (0, -1.0):
            with pytest.raises(ValueError, match="temperature"):
                acceptance(p, q, mask, temperature)
        with pytest.raises(ValueError, match="at least one token"):
            acceptance(p, q, torch.zeros_like(mask))
        with pytest.raises(ValueError, match="mask must have shape"):
            acceptance(p, q, mask[:, :-1])
        with pytest.raises(ValueError, match="same shape"):
            acceptance(p, q[:1], mask)
        with pytest.raises(ValueError, match="q_logits must be finite"):
            acceptance(p, q.log(), mask)


class TestSpeedup:
    @given(st.floats(0, 1), st.integers(1, 12), st.floats(0, 1))
    def test_is_the_mean_number_of_tokens_over_the_time(self, alpha, G, cost):
        tokens = sum(alpha**n * (1 - alpha) * (n + 1) for n in range(G)) + alpha**G * (G + 1)
        assert speedup(alpha, G, cost) == pytest.approx(tokens / (G * cost + 1), rel=1e-4)

    def test_limits(self):
        assert speedup(1, 4, 0.25) == pytest.approx(5 / 2)
        assert speedup(1 - 1e-9, 4, 0.25) == pytest.approx(5 / 2, rel=1e-6)
        assert speedup(0, 4, 0.25) == pytest.approx(1 / 2)  # nothing stays, and it still costs
        assert speedup(0.0, 1, 0.0) == 1

    @pytest.mark.parametrize(("alpha", "G"), [(0.3, 2), (0.8, 5), (0.95, 8)])
    def test_by_simulation(self, alpha, G):
        stays = np.random.default_rng(0).random((20_000, G)) < alpha
        tokens = 1 + np.cumprod(stays, axis=1).sum(axis=1)
        error = tokens.std() / math.sqrt(len(tokens))
        assert abs(speedup(alpha, G, 0.1) * (0.1 * G + 1) - tokens.mean()) < 4 * error

    @pytest.mark.parametrize("bad", [(1.1, 4, 0.1), (-0.1, 4, 0.1), (0.5, 0, 0.1), (0.5, 4, -1)])
    def test_bad_input_is_named(self, bad):
        with pytest.raises(ValueError, match=r"alpha|drafted"):
            speedup(*bad)


def table(seed, V=6, scale=1.5):
    """A model that looks at the last token only."""
    weights = rows(seed, V, V, scale).log().float()
    return lambda ids: weights[ids]


def memoryless(seed, V=6, scale=1.5):
    weights = rows(seed, 1, V, scale).log().float()[0]
    return lambda ids: weights.expand(*ids.shape, V)


class TestGenerate:
    @pytest.mark.parametrize("drafted", [1, 4])
    def test_a_draft_that_is_the_target_is_always_right(self, drafted):
        g = torch.Generator().manual_seed(0)
        found, looked, stayed = generate(
            table(1), table(1), torch.tensor([2, 0]), 50, drafted, generator=g
        )
        assert looked == stayed > 0
        assert found[:2].tolist() == [2, 0]
        assert 52 <= len(found) <= 52 + drafted
        assert len(found) - 2 == stayed + looked // drafted  # one of the target's own each time

    def test_counts_fit_min_1_p_over_q(self):
        """Draft and target whose words do not depend on what came before: one alpha for all."""
        target, draft = memoryless(3), memoryless(4)
        ids = torch.zeros(1, 1, dtype=torch.long)
        p, q = (m(ids)[0, 0].double().softmax(-1).numpy() for m in (target, draft))
        g = torch.Generator().manual_seed(5)
        found, looked, stayed = generate(target, draft, torch.tensor([0]), 1500, 3, generator=g)
        drawn = np.random.default_rng(6).choice(len(q), size=100_000, p=q)
        simulated = np.minimum(1, p[drawn] / q[drawn]).mean()
        alpha = acceptance(target(ids), draft(ids), torch.ones(1, 1, dtype=torch.bool)).item()
        assert simulated == pytest.approx(alpha, abs=0.01)
        assert 0.2 < alpha < 0.9
        assert abs(stayed - alpha * looked) < 4 * math.sqrt(alpha * (1 - alpha) * looked)
        # and the text is the target's
        n = len(found) - 1
        counts = np.bincount(found[1:].numpy(), minlength=len(p))
        assert (np.abs(counts - n * p) < 4 * np.sqrt(n * p * (1 - p))).all()

    def test_a_target_that_looks_back_writes_as_it_would_alone(self):
        target, draft = table(7, V=4), table(8, V=4)
        found, looked, stayed = generate(
            target, draft, torch.tensor([0]), 2500, 4, generator=torch.Generator().manual_seed(9)
        )
        assert 0 < stayed < looked
        pairs = np.zeros((4, 4))
        np.add.at(pairs, (found[:-1].numpy(), found[1:].numpy()), 1)
        p = target(torch.arange(4)).double().softmax(-1).numpy()
        n = pairs.sum(axis=1, keepdims=True)
        assert (np.abs(pairs - n * p) < 4 * np.sqrt(n * p * (1 - p)) + 1).all()

    def test_the_same_seed_gives_the_same_text_and_the_rule_can_be_replaced(self):
        texts = [
            generate(
                table(1),
                table(2),
                torch.tensor([1]),
                30,
                generator=torch.Generator().manual_seed(4),
            )[0]
            for _ in range(2)
        ]
        assert torch.equal(*texts)

        def keep_none(drafted, q, p, uniforms):
            return p[0].argmax().view(1)

        found, looked, stayed = generate(
            table(1), table(2), torch.tensor([1]), 10, 3, torch.Generator(), keep_none
        )
        assert (len(found), looked, stayed) == (11, 10, 0)
