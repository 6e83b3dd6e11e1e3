"""Unit 13: the game, its verifier, the losses against NumPy, TRL and enumeration, the evidence."""

import itertools
import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from kdlib import evidence
from kdlib.data import shell_game as game
from kdlib.evaluation import pass_at_k
from kdlib.losses import traces
from kdlib.models import load_teacher, teacher_info
from kdlib.training import rejection_sample
from tests import oracles


def draw(n=50, seed=0, swaps=game.SWAPS):
    return game.problems(n, torch.Generator().manual_seed(seed), swaps)


class TestTheGame:
    def test_steps_are_what_swapping_cups_does(self):
        found = draw(200)
        for prompt, steps in zip(found.prompts.tolist(), found.steps.tolist(), strict=True):
            cups = ["empty"] * 5
            cups[prompt[-1]] = "ball"
            for swap, step in zip(prompt[: game.SWAPS], steps, strict=True):
                left = "abcd".index(game.ALPHABET[swap])
                cups[left], cups[left + 1] = cups[left + 1], cups[left]
                assert cups.index("ball") + 1 == step
        assert (found.answers == found.steps[:, -1]).all()

    def test_all_swaps_and_cups_occur_equally_often(self):
        found = draw(5000)
        counts = torch.bincount(found.prompts[:, : game.SWAPS].flatten(), minlength=9)[5:]
        assert (counts / counts.sum() - 0.25).abs().max() < 0.01
        first = torch.bincount(found.prompts[:, -1], minlength=5) / 5000
        assert (first - 0.2).abs().max() < 0.03

    def test_one_wrong_step_alone_is_never_mended(self):
        """From two different cups the same swaps lead to two different cups."""
        swaps = draw(100).prompts[:, : game.SWAPS]
        ends = []
        for start in range(5):
            position = torch.full((100,), start)
            for left in (swaps - game.CUPS).T:
                position = position + (position == left).long() - (position == left + 1).long()
            ends.append(position)
        assert (torch.stack(ends).sort(dim=0).values == torch.arange(5)[:, None]).all()

    def test_text_and_tokens(self):
        found = draw()
        rows = game.worked(found)
        texts = game.completions(rows, 0)
        assert all((game.encode(t) == r[:-1]).all() for t, r in zip(texts, rows, strict=True))
        assert (rows[:, -1] == game.EOS).all()
        assert game.completions(game.answers_only(found), game.SWAPS + 2) == [
            f"#{a}" for a in found.answers.tolist()
        ]
        with pytest.raises(ValueError, match="may hold"):
            game.encode("3x")
        for bad in ((0, 1), (1, 0)):
            with pytest.raises(ValueError, match="at least 1"):
                game.problems(bad[0], torch.Generator(), bad[1])

    def test_right_answers_and_right_steps(self):
        found = draw()
        rows = game.worked(found)
        assert game.right_answers(rows, found).all()
        assert game.right_steps(rows, found).all()
        lucky = rows.clone()
        lucky[:, game.SWAPS + 4] = (lucky[:, game.SWAPS + 4] + 1) % 5
        assert game.right_answers(lucky, found).all()
        assert not game.right_steps(lucky, found).any()
        assert not game.right_steps(game.answers_only(found), found).any()

    def test_the_teacher_is_as_good_as_it_says(self):
        teacher, facts = load_teacher("shell_gpt"), teacher_info("shell_gpt")
        assert game.exact_answer(teacher, 2000) == pytest.approx(facts["accuracy"], abs=0.01)
        assert game.exact_answer(teacher, 2000, 1.0) == pytest.approx(
            facts["accuracy_sampled"], abs=0.03
        )
        assert 0.45 < facts["accuracy_sampled"] < 0.6 < facts["accuracy"]


class TestVerify:
    @given(st.integers(-(10**20), 10**20), st.text(alphabet="0123456789 #ab,.", max_size=20))
    def test_reads_a_number_however_it_is_written(self, answer, before):
        for written in (f"{answer}", f"{answer:,}", f" {answer}.", f"{answer}.00", f"{answer}.0."):
            assert game.verify(f"{before}#{written}", answer)
            assert not game.verify(f"{before}#{written}", answer + 1)

    @given(st.text(max_size=30))
    def test_never_raises_and_needs_a_mark(self, text):
        game.verify(text, 3)
        assert game.verify(text.replace("#", ""), 3) is False

    @pytest.mark.parametrize(
        "said", ["4 or 5", "4,5", "4.5", "four", "", "4 #", "$", "4e0", "0x4", "٤", "--4", "4,00"]
    )
    def test_what_is_no_answer(self, said):
        assert game.final_answer("#" + said) is None
        assert game.verify("#" + said, 4) is False


def batch(seed=0):
    g = torch.Generator().manual_seed(seed)
    lengths, prompts = torch.tensor([9, 5, 7]), torch.tensor([3, 4, 1])
    ids = torch.randint(6, (3, 9), generator=g)
    for row, n in enumerate(lengths):
        ids[row, n - 1 :] = 6
    return torch.randn(3, 9, 7, generator=g, dtype=torch.float64), ids, prompts, lengths


@pytest.mark.parametrize("seed", range(5))
class TestLosses:
    def test_sft_loss_is_the_equation(self, seed):
        logits, ids, prompts, lengths = batch(seed)
        log_q = oracles.log_softmax(logits.numpy())
        terms = [
            -log_q[b, t - 1, ids[b, t]] for b in range(3) for t in range(prompts[b], lengths[b])
        ]
        found = traces.sft_loss(logits, ids, prompts, lengths)
        np.testing.assert_allclose(found.item(), np.mean(terms), rtol=1e-12)

    def test_sft_loss_is_what_trl_trains_with(self, seed):
        """TRL's collator with pad = EOS, then the loss of transformers."""
        loss_utils = pytest.importorskip("transformers.loss.loss_utils")
        sft = pytest.importorskip("trl.trainer.sft_trainer")
        logits, ids, prompts, lengths = batch(seed)
        collate = sft.DataCollatorForLanguageModeling(pad_token_id=6)
        made = collate(
            [
                {"input_ids": x[:n].tolist(), "labels": [-100] * p + x[p:n].tolist()}
                for x, p, n in zip(ids, prompts.tolist(), lengths.tolist(), strict=True)
            ]
        )
        assert (made["input_ids"] == ids).all()
        theirs = loss_utils.ForCausalLMLoss(logits.float(), made["labels"], 7)
        ours = traces.sft_loss(logits.float(), ids, prompts, lengths)
        assert ours.item() == pytest.approx(theirs.item(), rel=1e-6)

    def test_step_by_step_loss_is_the_equation(self, seed):
        g = torch.Generator().manual_seed(seed)
        parts, arguments = [], []
        for width in (3, 11):
            z = torch.randn(4, width, 5, generator=g, dtype=torch.float64)
            y = torch.randint(5, (4, width), generator=g)
            y[:, 0] = y[1, 1:] = -100
            log_q = oracles.log_softmax(z.numpy())
            kept = [
                -log_q[b, t, y[b, t]] for b in range(4) for t in range(width) if y[b, t] != -100
            ]
            parts.append(np.mean(kept))
            arguments += [z, y]
        found = traces.step_by_step_loss(*arguments, 0.3)
        np.testing.assert_allclose(found.item(), parts[0] + 0.3 * parts[1], rtol=1e-12)


def test_losses_refuse_bad_input():
    logits, ids, _, lengths = batch()
    with pytest.raises(ValueError, match="at least one token"):
        traces.sft_loss(logits, ids, lengths, lengths)
    with pytest.raises(ValueError, match="weight"):
        traces.step_by_step_loss(logits, ids, logits, ids, -1.0)
    with pytest.raises(ValueError, match="at least one token"):
        traces.step_by_step_loss(logits, torch.full_like(ids, -100), logits, ids)


class TestPassAtK:
    @given(st.lists(st.integers(0, 6), min_size=1, max_size=4), st.integers(1, 6))
    @settings(max_examples=40)
    def test_is_the_share_of_all_choices(self, counts, k):
        """Enumerate every choice of k out of six samples."""
        correct = torch.stack([torch.arange(6) < c for c in counts])
        shares = [
            np.mean([any(s) for s in itertools.combinations(row, k)]) for row in correct.tolist()
        ]
        assert pass_at_k(correct, k) == pytest.approx(np.mean(shares), abs=1e-12)

    @pytest.mark.parametrize(("n", "k", "rate"), [(8, 3, 0.2), (10, 10, 0.05), (6, 1, 0.5)])
    def test_is_unbiased(self, n, k, rate):
        """The mean over all counts of right samples is the chance that k samples succeed."""
        mean = sum(
            math.comb(n, c)
            * rate**c
            * (1 - rate) ** (n - c)
            * pass_at_k(torch.arange(n)[None] < c, k)
            for c in range(n + 1)
        )
        assert mean == pytest.approx(1 - (1 - rate) ** k, abs=1e-12)

    def test_large_counts_against_whole_numbers(self):
        correct = torch.stack([torch.arange(3000) < c for c in (0, 1, 2, 500)])
        for k in (1, 10, 1500, 3000):
            exact = [
                1 - math.comb(3000 - c, k) / math.comb(3000, k) for c in correct.sum(1).tolist()
            ]
            assert pass_at_k(correct, k) == pytest.approx(sum(exact) / 4, abs=1e-10)

    def test_refuses(self):
        for k in (0, 4):
            with pytest.raises(ValueError, match=r"k must lie in 1\.\.3"):
                pass_at_k(torch.zeros(2, 3, dtype=torch.bool), k)
        for bad in (torch.zeros(2, 3), torch.zeros(3, dtype=torch.bool)):
            with pytest.raises(ValueError, match="boolean of shape"):
                pass_at_k(bad, 1)


@given(
    st.lists(st.lists(st.sampled_from(["a#1", "b#1", "c#2", "d#2", "#"]), max_size=8), max_size=5),
    st.integers(1, 4),
)
def test_rejection_sampling_keeps_its_promises(traces, keep):
    answers = [1 + i % 2 for i in range(len(traces))]
    kept = rejection_sample(traces, answers, game.verify, keep)
    assert len(set(kept)) == len(kept)
    assert [i for i, _ in kept] == sorted(i for i, _ in kept)
    for i, row in enumerate(traces):
        right = list(dict.fromkeys(t for t in row if t.endswith(f"#{answers[i]}")))
        assert [t for j, t in kept if j == i] == right[:keep]


def test_rejection_sampling_refuses():
    with pytest.raises(ValueError, match="differ in length"):
        rejection_sample([["#1"]], [], game.verify, 1)
    with pytest.raises(ValueError, match="keep"):
        rejection_sample([["#1"]], [1], game.verify, 0)


class TestEvidence:
    def test_steps_win_by_their_content(self):
        stored = evidence.load("u13_worked_steps")
        assert len(stored["seeds"]) >= 5
        results = stored["results"]
        assert results["worked steps"]["accuracy_difference"][1] > 50
        for control in ("answers alone, as many learned tokens", "filler tokens, then the answer"):
            assert results[control]["accuracy_difference"][2] < 5
        low, high = results["step-by-step, answer asked directly"]["accuracy_difference"][1:]
        assert low < 0 < high  # the null that section 13.7 teaches

    def test_filtering_helps_where_the_teacher_errs(self):
        stored = evidence.load("u13_verified_traces")
        assert min(stored["seeds"].values()) >= 5
        results, traces = stored["results"], stored["traces"]
        perfect = results["near-perfect teacher"]["right answer"]["accuracy_difference"]
        erring = results["erring teacher"]["right answer"]["accuracy_difference"]
        assert erring[0] > perfect[0]
        levels = sorted(stored["levels"], key=stored["levels"].get)
        lucky = [np.mean(traces[t]["right_answer_wrong_steps"]) for t in levels]
        assert lucky == sorted(lucky, reverse=True)

    def test_policy_gradient_is_the_slowest_way(self):
        stored = evidence.load("u13_on_policy")
        assert len(stored["seeds"]) >= 5
        good = stored["results"]["near-perfect teacher"]
        assert good["policy gradient"]["accuracy_difference"][2] < 0
