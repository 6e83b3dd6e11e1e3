"""Unit 11: parity with NumPy and TRL, invariances on any input, the shipped teachers."""

import itertools
import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.autograd import gradcheck

from kdlib import decoding, evaluation, evidence
from kdlib.data import text, translators
from kdlib.decoding import beam_search_batch, generate
from kdlib.losses import sequences as losses
from kdlib.models import gpt, load_teacher, seeded, teacher_info
from kdlib.training import accumulation_step, fit_tokens
from tests import oracles

LOSSES = (
    losses.word_level_kd,
    losses.reverse_kl,
    losses.jsd,
    losses.skew_kl,
    losses.skew_reverse_kl,
)


def batch(seed=0, lengths=(6, 2, 4), width=7, classes=9):
    g = torch.Generator().manual_seed(seed)
    z, v = (3 * torch.randn(len(lengths), width, classes, generator=g).double() for _ in "zv")
    y = torch.randint(classes, (len(lengths), width), generator=g)
    return z, v, y, torch.arange(width) < torch.tensor(lengths)[:, None]


def small(seed=0, **sizes):
    sizes = {"vocabulary": 11, "width": 16, "layers": 2, "heads": 2, "context": 40, **sizes}
    return seeded(seed, gpt.GPT, gpt.GPTConfig(**sizes)).double().eval()


def equal(ours, theirs, tolerance=1e-10):
    np.testing.assert_allclose(float(ours), float(theirs), rtol=tolerance, atol=tolerance)


@pytest.mark.parametrize("seed", range(3))
class TestAgainstNumpy:
    def test_losses(self, seed):
        z, v, y, mask = batch(seed)
        p, q, m = oracles.softmax(v), oracles.softmax(z), mask.numpy()

        def kl(a, b):
            return (a * (np.log(a) - np.log(b))).sum(-1)[m].mean()

        equal(losses.word_level_kd(z, v, mask), kl(p, q))
        equal(losses.word_level_kd(z, v, mask, 3.0), 9 * oracles.kl(v, z, 3.0)[m].mean())
        equal(losses.reverse_kl(z, v, mask), kl(q, p))
        equal(losses.jsd(z, v, mask, 0.3), oracles.jsd(v, z, 0.3)[m].mean())
        equal(losses.skew_kl(z, v, mask, 0.1), kl(p, 0.1 * p + 0.9 * q))
        equal(losses.skew_reverse_kl(z, v, mask, 0.1), kl(q, 0.1 * q + 0.9 * p))
        rows, places = np.nonzero(m)
        nll = -np.log(q[rows, places, y.numpy()[rows, places]])
        equal(losses.sequence_nll(z, y, mask), nll.mean())
        size = torch.tensor([2, 3, 1, 1, 4, 2, 5, 1, 0])
        bits = nll.sum() / np.log(2) / size.numpy()[y.numpy()[rows, places]].sum()
        equal(evaluation.bits_per_byte(z, y, mask, size), bits)

    def test_beam_search_that_is_wide_enough_finds_the_best(self, seed):
        model, prompt, eos = small(seed, vocabulary=4), torch.tensor([1, 2]), 0
        best, score = decoding.beam_search(lambda rows: model(rows)[:, -1], prompt, 3, 64, eos)
        found = {}
        for new in itertools.product(range(4), repeat=3):
            end = new.index(eos) + 1 if eos in new else 3
            row = torch.tensor([[1, 2, *new[:end]]])
            log_q = oracles.log_softmax(model(row[:, :-1])[0].detach())
            found[new[:end]] = sum(log_q[1 + t, w] for t, w in enumerate(new[:end]))
        top = max(found, key=found.get)
        assert tuple(best[2:].tolist()) == top
        equal(score, found[top])

    def test_sequence_level_kd(self, seed):
        model, eos = small(seed), 10
        g = torch.Generator().manual_seed(seed)
        prompts, outputs = (torch.randint(10, (3, n), generator=g) for n in (4, 5))
        outputs[0, 2:], outputs[1, 4:] = eos, eos
        nats, count = 0.0, 0
        for prompt, output in zip(prompts.tolist(), outputs.tolist(), strict=True):
            row = prompt + output[: output.index(eos) + 1 if eos in output else 5]
            log_q = oracles.log_softmax(model(torch.tensor([row[:-1]]))[0].detach())
            nats -= sum(log_q[t, row[t + 1]] for t in range(3, len(row) - 1))
            count += len(row) - 4
        equal(losses.sequence_level_kd(model, prompts, outputs, eos), nats / count)


class TestAgainstTrl:
    @pytest.mark.parametrize("beta", [0, 0.1, 0.5, 0.9, 1])
    @pytest.mark.parametrize("temperature", [1.0, 2.0])
    def test_jsd_its_ends_and_its_gradient(self, beta, temperature):
        from trl.experimental.gkd.gkd_trainer import GKDTrainer

        z, v, y, mask = batch()
        z.requires_grad_(True)
        labels = y.masked_fill(~mask, -100)
        theirs = GKDTrainer.generalized_jsd_loss(z, v, labels, beta, temperature)
        ours = losses.jsd(z, v, mask, beta, temperature)
        equal(ours.detach(), theirs.detach())
        mine, other = (torch.autograd.grad(x, z)[0] for x in (ours, theirs))
        torch.testing.assert_close(mine, other, rtol=1e-9, atol=1e-12)
        if beta == 0:
            ours = losses.word_level_kd(z, v, mask, temperature) / temperature**2
            equal(ours.detach(), theirs.detach())

    def test_the_denominator_of_gradient_accumulation(self):
        from trl.experimental.gkd.gkd_trainer import GKDTrainer

        z, v, y, mask = batch()
        labels = y.masked_fill(~mask, -100)
        theirs = GKDTrainer.generalized_jsd_loss(z, v, labels, 0.5, num_items_in_batch=29)
        equal(losses.jsd(z, v, mask, 0.5, denominator=29), theirs)


lengths = st.lists(st.integers(1, 6), min_size=1, max_size=4)


class TestProperties:
    @settings(max_examples=25)
    @given(lengths, st.integers(0, 99), st.sampled_from(LOSSES))
    def test_padding_packing_and_accumulation(self, lengths, seed, loss):
        z, v, _, mask = batch(seed, tuple(lengths), 6)
        whole = loss(z, v, mask)
        packed = loss(z[mask][None], v[mask][None], torch.ones(1, int(mask.sum())).bool())
        pad = torch.nn.functional.pad
        wider = loss(
            pad(z, (0, 0, 0, 3), value=9.0),
            pad(v, (0, 0, 0, 3), value=float("nan")),
            pad(mask, (0, 3)),
        )
        parts = sum(
            loss(z[i : i + 1], v[i : i + 1], mask[i : i + 1], denominator=int(mask.sum()))
            for i in range(len(z))
        )
        for other in (packed, wider, parts):
            torch.testing.assert_close(whole, other, rtol=1e-9, atol=1e-12)
        assert whole >= -1e-12
        assert loss(v, v, mask).abs() < 1e-12

    @settings(max_examples=25)
    @given(st.lists(st.lists(st.integers(0, 3), min_size=5, max_size=5), min_size=1, max_size=4))
    def test_mask_until_eos(self, rows):
        mask = losses.mask_until_eos(torch.tensor(rows), 3)
        for row, seen in zip(rows, mask.tolist(), strict=True):
            end = row.index(3) + 1 if 3 in row else len(row)
            assert seen == [True] * end + [False] * (5 - end)

    @settings(max_examples=25)
    @given(st.text(max_size=40))
    def test_bytes_go_there_and_back(self, words):
        assert text.decode(text.encode(words, end=True)) == words

    def test_what_is_masked_reaches_no_gradient(self):
        z, v, _, mask = batch()
        v[~mask] = float("-inf")
        z.requires_grad_(True)
        for loss in LOSSES:
            (found,) = torch.autograd.grad(loss(z, v, mask), z)
            assert found.isfinite().all()
            assert (found[~mask] == 0).all()

    def test_gradients_to_second_order(self):
        z, v, _, mask = batch(lengths=(2, 1), width=2, classes=3)
        z.requires_grad_(True)
        for loss in LOSSES:
            assert gradcheck(lambda x, loss=loss: loss(x, v, mask), (z,))


class TestGpt:
    def test_the_cache_changes_nothing(self):
        model, ids = small(), torch.randint(11, (2, 9))
        cache = model.new_cache()
        steps = [model(ids[:, :4], cache), *(model(ids[:, t : t + 1], cache) for t in range(4, 9))]
        torch.testing.assert_close(torch.cat(steps, 1), model(ids), rtol=1e-10, atol=1e-10)

    def test_the_future_is_not_seen(self):
        model, ids = small(), torch.randint(11, (1, 8))
        other = ids.clone()
        other[:, 5:] = 0
        torch.testing.assert_close(model(ids)[:, :5], model(other)[:, :5])

    def test_packed_documents_are_alone(self):
        model, ids = small(), torch.randint(11, (1, 9))
        segments = torch.tensor([[0] * 4 + [1] * 5])
        packed = model(ids, segments=segments)
        torch.testing.assert_close(packed[:, 4:], model(ids[:, 4:]), rtol=1e-9, atol=1e-9)
        torch.testing.assert_close(packed[:, :4], model(ids[:, :4]), rtol=1e-9, atol=1e-9)

    @pytest.mark.parametrize("beams", [1, 3])
    def test_two_beam_searches_agree(self, beams):
        model, prompts, eos = small(4), torch.randint(1, 11, (5, 3)), 0
        rows, scores = beam_search_batch(model, prompts, 6, beams, eos)
        for prompt, row, score in zip(prompts, rows, scores, strict=True):
            best, mine = decoding.beam_search(lambda r: model(r)[:, -1], prompt, 6, beams, eos)
            assert row[: len(best)].tolist() == best.tolist()
            assert set(row[len(best) :].tolist()) <= {eos}
            equal(mine, score)
        if beams == 1:
            greedy = generate(model, prompts, 6, temperature=0.0, eos=eos)
            assert torch.equal(rows, greedy)

    def test_samples_have_the_models_frequencies(self):
        model, prompt = small(), torch.tensor([[3, 1]]).expand(4000, -1)
        rows = generate(model, prompt, 1, generator=torch.Generator().manual_seed(0))
        seen = torch.bincount(rows[:, -1], minlength=11) / 4000
        assert (seen - model(prompt[:1])[0, -1].softmax(-1)).abs().max() < 0.03

    def test_initial_predictions_are_not_extreme(self):
        model = small(width=64, vocabulary=257, heads=4)
        logits = model(torch.randint(257, (4, 32)))
        assert 0.2 < logits.std() < 3


class TestTraining:
    def test_accumulation_is_one_large_batch(self):
        ids = torch.randint(11, (5, 7))
        mask = torch.arange(6) < torch.tensor([6, 2, 5, 1, 3])[:, None]
        parts = [(ids[i : i + 2, :-1], ids[i : i + 2, 1:], mask[i : i + 2]) for i in (0, 2, 4)]
        found = []
        for pieces in ([(ids[:, :-1], ids[:, 1:], mask)], parts):
            model = small()
            loss = accumulation_step(model, pieces, torch.optim.SGD(model.parameters(), 0.1))
            found.append((loss, torch.cat([p.flatten() for p in model.parameters()])))
        equal(found[0][0], found[1][0])
        torch.testing.assert_close(found[0][1], found[1][1], rtol=1e-9, atol=1e-12)
        with pytest.raises(ValueError, match="at least one valid token"):
            accumulation_step(model, [], torch.optim.SGD(model.parameters(), 0.1))

    def test_fit_tokens_repeats_and_learns(self):
        def run():
            model = small().float()

            def loss(m, x):
                return losses.sequence_nll(m(x[:, :-1]), x[:, 1:], x[:, 1:] >= 0)

            def draw(g):
                return torch.arange(9).expand(4, -1) + torch.randint(2, (4, 1), generator=g)

            return fit_tokens(model, draw, loss, steps=30, lr=1e-2, seed=3).losses

        first = run()
        assert first == run()
        assert first[-1] < first[0] / 3


class TestShipped:
    def test_the_text(self):
        train, held_out = text.austen(), text.austen(train=False)
        assert (len(train), len(held_out)) == (3_806_800, 200_356)
        assert max(train.max(), held_out.max()) < 256
        assert "Emma Woodhouse, handsome, clever, and rich" in text.decode(train[:400])

    def test_the_language_teacher_is_as_good_as_it_says(self):
        model, facts = load_teacher("austen_gpt"), teacher_info("austen_gpt")
        bits = evaluation.text_bits_per_byte(model, text.austen(train=False), rows=48)
        assert bits == pytest.approx(facts["bits_per_byte"], abs=0.04)
        assert facts["bytes"] < 5e6
        assert model.facts() == facts["config"]

    def test_the_translators_teacher_is_as_good_as_it_says(self):
        model, facts = load_teacher("translators_gpt"), teacher_info("translators_gpt")
        prompts = translators.prompts(300, torch.Generator().manual_seed(10_000))
        rows, _ = beam_search_batch(model, prompts, 7, 5, translators.EOS)
        assert translators.faithful(rows).any(1).float().mean() >= facts["faithful"] - 0.01
        assert model.facts() == facts["config"]

    def test_the_translators(self):
        g = torch.Generator().manual_seed(0)
        rows = translators.corpus(3000, g)
        could = translators.faithful(rows)
        assert could.any(1).all()
        assert could[:, 0].float().mean() == pytest.approx(0.4, abs=0.03)
        agree = (translators.DICTIONARIES[1] == translators.DICTIONARIES[2]).sum()
        assert agree == 6
        assert all(len(set(d.tolist())) == 12 for d in translators.DICTIONARIES)
        assert translators.show(rows[0]).count(">") == 1


@pytest.mark.parametrize(
    ("call", "words"),
    [
        (lambda z, v, y, m: losses.word_level_kd(z, v, m.int()), "mask must be boolean"),
        (lambda z, v, y, m: losses.word_level_kd(z, v, m & False), "at least one token"),
        (lambda z, v, y, m: losses.word_level_kd(z, v[:1], m), "same shape"),
        (lambda z, v, y, m: losses.word_level_kd(z, v, m[:, :2]), "to fit student_logits"),
        (lambda z, v, y, m: losses.jsd(z, v, m, 1.5), "beta must lie between 0 and 1"),
        (lambda z, v, y, m: losses.skew_kl(z, v, m, 1.0), r"alpha must lie in \[0, 1\)"),
        (lambda z, v, y, m: losses.reverse_kl(z, v, m, 0.0), "temperature must be positive"),
        (lambda z, v, y, m: losses.shift_and_mask(y, torch.tensor([1, 2])), "lengths must have"),
        (lambda z, v, y, m: losses.shift_and_mask(y, torch.tensor([1, 9, 2])), r"lie in 1\.\.7"),
        (
            lambda z, v, y, m: evaluation.bits_per_byte(z, y, m, torch.zeros(9)),
            "at least one byte",
        ),
        (lambda z, v, y, m: text.pad([]), "at least one row"),
        (lambda z, v, y, m: text.austen(n=10**8), "n must lie in"),
        (lambda z, v, y, m: gpt.GPTConfig(width=10, heads=4), "multiple of 2 x heads"),
        (lambda z, v, y, m: small()(torch.zeros(1, 41, dtype=torch.long)), "got 41"),
        (lambda z, v, y, m: generate(small(), y, 1, temperature=-1), "not be negative"),
        (lambda z, v, y, m: translators.faithful(y), "rows must have shape"),
        (lambda z, v, y, m: losses.sequence_level_kd(small(), y, y[:1], 0), "prompts and outputs"),
    ],
)
def test_bad_input_is_named(call, words):
    with pytest.raises(ValueError, match=words):
        call(*batch())


def test_the_stored_claims():
    stored = evidence.load("u11_sequence_level")
    found = stored["results"]
    for regime in ("width 16", "width 32"):
        assert found[regime]["sequence level"]["greedy_difference"][1] > 0, regime
        low, high = found[regime]["sequence level, teacher sampled"]["greedy_difference"][1:]
        assert low < 0 < high, "sampling the teacher brings nothing"
    for arms in found.values():
        assert arms["sequence level"]["nll_difference"][1] > 0, "and the price is paid"
    longer, teacher = found["width 32, 3x as long"], stored["teacher"]["greedy"]
    assert max(longer["word level"]["greedy"]) < teacher < min(longer["sequence level"]["greedy"])
    text_found = evidence.load("u11_real_text")["results"]["16 KB of text"]
    assert text_found["word level"]["bits_difference"][2] < 0
    assert math.isfinite(evidence.load("u11_real_text")["teacher"])
