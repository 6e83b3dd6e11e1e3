"""SmolLM2 and its stories. The real model is fetched by pip at the first run and then cached."""

from __future__ import annotations

import os
import subprocess

import pytest
import torch

from kdlib.losses import sequence_nll
from kdlib.models import keep_layers, smollm2

pytest.importorskip("transformers")


@pytest.fixture(scope="module")
def real():
    """The model as PyPI has it."""
    try:
        return smollm2.load("pypi")
    except RuntimeError as error:
        if os.environ.get("KDLIB_REQUIRE_SMOLLM2"):
            raise
        pytest.skip(str(error).splitlines()[0])


class TestStories:
    def test_parts_are_disjoint_and_whole(self) -> None:
        train, test = smollm2.stories(), smollm2.stories(train=False)
        assert len(train.ids) == 372
        assert len(test.ids) == 60
        assert int(train.lengths.sum() + test.lengths.sum()) == 85510
        rows = {tuple(row[:length].tolist()) for row, length in zip(*train[:2], strict=True)}
        assert not rows & {tuple(r[:n].tolist()) for r, n in zip(*test[:2], strict=True)}

    def test_mask_counts_the_story_and_its_end_only(self) -> None:
        some = smollm2.stories(n=20)
        assert some.mask.sum(1).tolist() == (some.lengths - some.prompt_lengths).tolist()
        first = some.mask.int().argmax(1) + 1  # the token that the first True predicts
        assert first.tolist() == some.prompt_lengths.tolist()

    @pytest.mark.parametrize("n", [0, 373, -1])
    def test_a_number_that_is_not_there(self, n: int) -> None:
        with pytest.raises(ValueError, match="between 1 and 372"):
            smollm2.stories(n=n)


class TestWithoutTheModel:
    def test_an_unknown_source(self) -> None:
        with pytest.raises(ValueError, match="'hub', 'pypi' or None, got 'ftp'"):
            smollm2.load("ftp")

    def test_neither_hub_nor_pip(self, monkeypatch, tmp_path) -> None:
        def fails(*args, **kwargs):
            return subprocess.CompletedProcess(args, 1, "", "no route to anywhere")

        monkeypatch.setenv("KDLIB_CACHE", str(tmp_path))
        monkeypatch.setenv("HF_HUB_OFFLINE", "1")
        monkeypatch.setattr(smollm2.subprocess, "run", fails)
        monkeypatch.setattr(smollm2.importlib.util, "find_spec", lambda name: None)
        with pytest.raises(RuntimeError, match="no route to anywhere"):
            smollm2.load()
        assert list(tmp_path.iterdir()) == []

    def test_the_hub_that_does_not_answer(self, monkeypatch) -> None:
        monkeypatch.delenv("HF_HUB_OFFLINE", raising=False)
        monkeypatch.setenv("HF_ENDPOINT", "http://127.0.0.1:9")
        assert not smollm2._hub_answers()

    def test_the_hub_by_a_local_folder(self, monkeypatch, tmp_path) -> None:
        """What the hub would serve, read from a folder laid out like it."""
        from tokenizers import Tokenizer, models
        from transformers import PreTrainedTokenizerFast

        words = Tokenizer(models.WordLevel({"<e>": 0, "fox": 1}, unk_token="<e>"))
        made = smollm2.stand_in(50)
        made.save_pretrained(tmp_path)
        PreTrainedTokenizerFast(tokenizer_object=words).save_pretrained(tmp_path)
        monkeypatch.setattr(smollm2, "HUB", str(tmp_path))
        model, tokenizer = smollm2.load("hub")
        ids = torch.tensor([tokenizer("fox").input_ids])
        torch.testing.assert_close(model(ids).logits, made(ids).logits)
        assert not any(p.requires_grad for p in model.parameters())

    def test_trimmed_softmax_is_the_old_one_renormalised(self) -> None:
        kept = torch.tensor([3, 7, 20, 41])
        whole = smollm2.stand_in(50)
        ids = torch.tensor([[0, 2, 1]])
        p = whole(kept[ids]).logits.softmax(-1)[..., kept]
        trimmed = smollm2.trim_vocabulary(whole, kept)
        found = trimmed(ids).logits.softmax(-1)
        torch.testing.assert_close(found, p / p.sum(-1, keepdim=True))
        assert trimmed.lm_head.weight is trimmed.model.embed_tokens.weight

    def test_top_k_is_the_full_softmax_cut_off(self) -> None:
        model, ids = smollm2.stand_in(50), torch.randint(50, (5, 9))
        tokens, values = smollm2.top_k(model, ids, 6, progress=False)
        with smollm2.autocast():
            best = model(ids).logits.float().log_softmax(-1).topk(6)
        torch.testing.assert_close(values.float(), best.values, atol=1e-2, rtol=0)
        assert (tokens.dtype, values.dtype) == (torch.int16, torch.float16)


class TestRealModel:
    def test_it_is_at_home_in_its_stories(self, real) -> None:
        model, tokenizer = real
        test = smollm2.stories(train=False, n=2)
        ids = test.vocabulary[test.ids]
        assert tokenizer.decode(ids[0, : int(test.prompt_lengths[0])]).startswith("<|im_start|>")
        with torch.no_grad():
            logits = model(ids).logits[:, :-1]
        cost = sequence_nll(logits, ids[:, 1:], test.mask).item()
        assert cost < 2.2
        assert sum(p.numel() for p in model.parameters()) == 134_515_008

    def test_a_pruned_copy_is_the_same_with_a_cache(self, real) -> None:
        pruned = keep_layers(real[0], [0, 1, 15, 29])
        ids = torch.tensor([[1, 504, 3163, 436, 253, 3605]])
        with torch.no_grad():
            whole = pruned(ids, use_cache=False).logits
            start = pruned(ids[:, :3], use_cache=True)
            rest = pruned(ids[:, 3:], past_key_values=start.past_key_values).logits
        torch.testing.assert_close(rest, whole[:, 3:], atol=1e-3, rtol=1e-3)

    def test_greedy_speculative_decoding_writes_what_the_model_writes(self, real) -> None:
        model, tokenizer = real
        draft = keep_layers(model, list(range(0, 30, 3)))
        asked = tokenizer(smollm2.chat("Name three animals."), return_tensors="pt")
        plain = model.generate(**asked, max_new_tokens=12, do_sample=False)
        helped = model.generate(**asked, max_new_tokens=12, do_sample=False, assistant_model=draft)
        assert plain.tolist() == helped.tolist()
