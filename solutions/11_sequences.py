# ---
# jupyter:
#   kernelspec:
#     display_name: Python 3
#     language: python
#     name: python3
# ---

# %% [markdown]
# # 11 · Sequences
#
# A language model is a classifier that is asked again and again: which token comes next? Everything
# of the units before still holds, at every position of every row. Two things are new. Rows have
# different lengths, and much public code goes wrong there. And a sequence has a probability of its own,
# which is not what the most probable next tokens add up to.
#
# After this unit you can
#
# - turn padded rows into inputs, targets and a mask, also where padding and end of text are one token,
# - write word-level distillation that gives the same loss padded, packed and in micro-batches,
# - compare language models in bits per byte, whatever their tokens are,
# - write a beam search, and say what it finds that greedy decoding misses,
# - say when to distil words and when to distil whole sequences, and what the second one costs.
#
# You need about 110 minutes. Notation: $p$ is the teacher, $q$ the student, $x$ a prompt, $y_t$ the
# token at position $t$; shapes are (B, T) for rows of tokens and (B, T, V) for logits.

# %%
import math
from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from kdlib import check, evidence
from kdlib.data import translators as task
from kdlib.data.text import EOS, VOCABULARY, austen, decode, encode, pad
from kdlib.decoding import generate
from kdlib.models import GPT, GPTConfig, load_teacher, seeded, teacher_info
from kdlib.notebook import knobs, plots
from kdlib.profile import scale
from kdlib.training import fit_tokens

# %% [markdown]
# ## 11.1 Shift and mask
#
# The tokens of this unit are bytes: 256 of them, and one more that ends a text, EOS. The teacher is a
# small GPT that has read six novels by Jane Austen.

# %%
teacher = load_teacher("austen_gpt")
held_out = austen(train=False)  # two passages that the teacher has not seen
facts = teacher_info("austen_gpt")
print(f"{facts['parameters']:,} parameters, {facts['bytes'] / 1e6:.1f} MB")
print(decode(held_out[:70]))

# %% [markdown]
# `logits[:, t]` of a GPT answers the question *what comes after token t?* So targets are the row moved
# by one. Rows of a batch have different lengths and are filled up on the right:

# %%
batch = pad([encode("Sense", end=True), encode("and", end=True), encode("Sensibility", end=True)])
print(batch.ids)
print("lengths:", batch.lengths.tolist(), " EOS =", EOS)

# %% [markdown]
# Here, as in SmolLM2-Instruct and many others, **the padding is the EOS token**. The tensor alone does
# not say which 256 ends a text and which one fills a gap. The lengths do.
#
# ### Your turn
# {{11.shift_and_mask}}
#
# Write `shift_and_mask(ids, lengths, prompt_lengths)`.
#
# - `ids` is (B, T). `lengths` (B,) counts the real tokens of each row, its prompt and its closing EOS
#   among them. {= the mask without prompts; the mask with prompts}
# - Return inputs, targets and mask, each (B, T - 1). The mask is boolean: True where a target counts.
#   {= inputs and targets; the mask is boolean}
# - The closing EOS counts as a target; what fills the row after it, EOS or any other token, does not.
#   {= the mask without prompts; the mask with prompts}
# - The first `prompt_lengths[b]` tokens of row b are read but not learned, so as targets they do not
#   count. A prompt has at least one token; a row may be a prompt and nothing else.
#   {= the mask with prompts}
# - An EOS inside a row or its prompt, as after a turn in a chat, is a token like any other.
#   {= an EOS inside a row counts}
# - `ids` and the lengths stay as they are. {= no side effects}


# %% exercise="11.shift_and_mask"
def shift_and_mask(
    ids: Tensor, lengths: Tensor, prompt_lengths: Tensor
) -> tuple[Tensor, Tensor, Tensor]:
    """Inputs, targets and mask, each (B, T - 1)."""
    ### BEGIN SOLUTION
    position = torch.arange(1, ids.shape[1])  # of each target in its row
    mask = position < lengths[:, None]
    mask = mask & (position >= prompt_lengths[:, None])
    return ids[:, :-1], ids[:, 1:], mask
    ### END SOLUTION


# %% check="11.shift_and_mask"
check("11.shift_and_mask", shift_and_mask)

# %% [markdown] hints="11.shift_and_mask"
# - Target number t of a row stands where in `ids`? When is *that* place real?
# - Compare one row of positions, `torch.arange(...)`, with a column of lengths: broadcasting gives (B, T - 1).
# - Two comparisons joined by `&`, one for the end of the row and one for the end of the prompt.

# %% [markdown] expect="11.shift_and_mask"
# With no prompt (prompt lengths of 1) the rows above count 5, 3 and 11 targets: each word's letters after the
# first, and its EOS.

# %%
inputs, targets, mask = shift_and_mask(batch.ids, batch.lengths, torch.ones(3, dtype=torch.long))
print("targets that count:", mask.sum(dim=1).tolist())
print("as many EOS among them as rows:", (targets[mask] == EOS).sum().item() == len(targets))

# %% [markdown]
# ## 11.2 Bits per byte
#
# How good is a language model? Its loss is in nats per *token*, and a token is whatever the tokenizer
# says. A text of 100 bytes may be 33 tokens of a larger vocabulary. This teacher's loss is about 1.2 nats
# for each of the 100; the same 1.2 for each of the 33 would be a miracle. What can be compared is the
# length of the code that a model would need to send the text, for each byte of it:
#
# $$\mathrm{BPB} = \frac{\sum_{t\ \mathrm{valid}} -\log_2 q(y_t \mid y_{<t})}{\sum_{t\ \mathrm{valid}} \mathrm{bytes}(y_t)}$$
#
# ### Your turn
# {{11.bits_per_byte}}
#
# Write `bits_per_byte(logits, targets, mask, token_bytes)`.
#
# - `logits` is (B, T, V), `targets` and `mask` are (B, T); `token_bytes` (V,) says how many bytes of text
#   a token stands for. For EOS that is 0: it costs bits and is no text. {= the value}
# - Valid is where the boolean mask is True. It may have gaps. {= the value}
# - Return a Python float. One sum over the whole batch, divided by one other sum.
#   {= a plain number; the value; what can be counted by hand}
# - Logits may be float32 and hundreds apart: a model can be sure, and wrong.
#   {= a model that is sure and wrong}
# - No byte of text among the valid targets is a `ValueError`, also where no target is valid.
#   {= a text without bytes is refused}
# - What you are given stays as it is. {= no side effects}


# %% exercise="11.bits_per_byte"
def bits_per_byte(logits: Tensor, targets: Tensor, mask: Tensor, token_bytes: Tensor) -> float:
    """Code length of the valid targets for each byte of their text."""
    ### BEGIN SOLUTION
    valid = targets[mask]  # (N,)
    nats = F.cross_entropy(logits[mask], valid, reduction="sum").item()
    count = token_bytes[valid].sum().item()
    if count == 0:
        raise ValueError("the valid targets hold no byte of text")
    return nats / math.log(2) / count
    ### END SOLUTION


# %% check="11.bits_per_byte"
check("11.bits_per_byte", bits_per_byte)

# %% [markdown] hints="11.bits_per_byte"
# - A nat is how many bits? And what does `reduction="sum"` give you that `"mean"` does not?
# - `targets[mask]` is a flat row of the valid targets, and `logits[mask]` has a row of logits for each.
# - Sum of nats, divided by $\ln 2$, divided by the sum of `token_bytes[...]`.

# %% [markdown] expect="11.bits_per_byte"
# On held-out text: 8 bits for a model that knows nothing about bytes, about 4.4 for one that knows how
# often each byte occurs, and far fewer for the teacher.

# %%
one_byte = torch.cat([torch.ones(256), torch.zeros(1)]).long()
rows = held_out[: 32 * 129].view(32, 129)
seen = torch.ones(32, 128, dtype=torch.bool)
with torch.no_grad():
    teacher_logits = teacher(rows[:, :-1])  # (32, 128, 257)
frequent = torch.bincount(austen(n=200_000), minlength=VOCABULARY).clamp(min=0.01).log()
for name, z in {
    "all bytes alike": torch.zeros(VOCABULARY).index_fill(0, torch.tensor([EOS]), -1e4),
    "frequencies": frequent,
    "teacher": teacher_logits,
}.items():
    bits = bits_per_byte(z.expand(32, 128, -1), rows[:, 1:], seen, one_byte)
    print(f"{name:16s} {bits:.1f} bits per byte")

# %% [markdown]
# The average hides where the bits go. Look at one held-out sentence, byte by byte:

# %%
sentence = "Nothing ever fatigues me but doing what I do not like."
ids = encode(sentence)
with torch.no_grad():
    log_q = teacher(ids[None, :-1])[0].log_softmax(-1)
bits = -log_q.gather(-1, ids[1:, None])[:, 0] / math.log(2)
_, ax = plots.figure(height=2.6)
ax.bar(range(1, len(ids)), bits, color=plots.BLUE)
ax.set_xticks(range(len(ids)), list(sentence), fontsize=7)
ax.set_xlabel("byte")
ax.set_ylabel("bits for this byte")
plots.show(
    f"Bars of the bits that each byte of the sentence costs the teacher: {bits.mean():.1f} on "
    f"average, {bits.max():.1f} for the dearest, {sentence[int(bits.argmax()) + 1]!r}. The beginnings "
    "of words are dear and their ends nearly free."
)

# %% [markdown]
# *Figure: what each byte costs the teacher. The beginnings of words are expensive and their ends nearly
# free: after "Not" there is "hing", after "fati" there is "gue".*

# %% [markdown]
# ## 11.3 Word-level distillation
#
# At every position the teacher has a whole distribution over the next token, and the student can be
# asked for the same. Kim and Rush ([arXiv 1606.07947](https://arxiv.org/abs/1606.07947))
# call this **word-level** distillation:
#
# $$L = \frac{T^2}{N} \sum_{t\ \mathrm{valid}} \mathrm{KL}\big(p_t^T \,\|\, q_t^T\big), \qquad
# N = \text{number of valid tokens in the batch}$$
#
# The equation is unit 02's. What goes wrong is the mean. Divide by rows, and long rows get a larger
# learning rate; average row by row, and tokens of short rows weigh more; count the padding, and the
# loss depends on the longest row of the batch.
#
# ### Your turn
# {{11.word_level_kd}}
#
# Write `word_level_kd(student_logits, teacher_logits, mask, temperature)`.
#
# - Logits are (B, T, V), the mask is (B, T) and boolean, and may have gaps. Return a scalar, a mean over
#   valid tokens. {= the value; the gradient; padding changes nothing}
# - Both logits are divided by the temperature, which is 1 unless it is given. {= the value}
# - The teacher is a constant. {= the teacher is a constant}
# - Valid logits are finite, in float32 too, where they may be hundreds apart.
#   {= a teacher that is certain; nor does it reach the gradient}
# - Where the mask is False anything may stand, in both logits, infinity and NaN included. It must not
#   reach the value, nor the gradient.
#   {= what is masked may be anything; nor does it reach the gradient}
# - A mask without a valid token is a `ValueError`. {= a batch without a valid token is refused}
# - What you are given stays as it is. {= no side effects}


# %% exercise="11.word_level_kd"
def word_level_kd(
    student_logits: Tensor, teacher_logits: Tensor, mask: Tensor, temperature: float = 1.0
) -> Tensor:
    """T squared times KL(p || q), a mean over valid tokens."""
    ### BEGIN SOLUTION
    if not mask.any():
        raise ValueError("the mask counts no token")
    log_q = F.log_softmax(student_logits[mask] / temperature, dim=-1)  # (N, V)
    log_p = F.log_softmax(teacher_logits[mask].detach() / temperature, dim=-1)
    kl = (log_p.exp() * (log_p - log_q)).sum(dim=-1)
    return temperature**2 * kl.mean()
    ### END SOLUTION


# %% check="11.word_level_kd"
check("11.word_level_kd", word_level_kd)

# %% [markdown] hints="11.word_level_kd"
# - What is zero times infinity? So is it enough to multiply by the mask at the end?
# - Indexing with a boolean mask, `logits[mask]`, leaves an (N, V) table of valid rows: now it is unit 02's loss.
# - Index, divide by T, log_softmax, KL over the last dimension, mean, T squared.

# %% [markdown] expect="11.word_level_kd"
# In the cell below the same three words give one number, whether padded, padded further, or packed
# into one long row.

# %%
g = torch.Generator().manual_seed(0)
z, v = (torch.randn(3, 11, VOCABULARY, generator=g, dtype=torch.float64) for _ in range(2))
wider = [F.pad(x, (0, 0, 0, 5), value=7.0) for x in (z, v)]
packed = [x[mask][None] for x in (z, v)]
padded_loss = word_level_kd(z, v, mask)
wider_loss = word_level_kd(*wider, F.pad(mask, (0, 5)))
packed_loss = word_level_kd(*packed, torch.ones(1, int(mask.sum()), dtype=torch.bool))
print(f"padded {padded_loss:.4f}, wider {wider_loss:.4f}, packed {packed_loss:.4f}")
wrong = F.kl_div(z.log_softmax(-1), v.log_softmax(-1), reduction="batchmean", log_target=True)
print(f"batchmean on (B, T, V) divides by B alone: {wrong:.1f}")

# %% [markdown]
# ## 11.4 A batch in parts
#
# A batch that does not fit into memory is run in micro-batches whose gradients add up. The mean over
# valid tokens has *one* denominator, that of the whole batch. If each micro-batch divides by its own
# count and the results are averaged, the update depends on how the batch was cut. TRL's distillation
# trainers did that until [#6006](https://github.com/huggingface/trl/pull/6006).
#
# ### Your turn
# {{11.accumulation_step}}
#
# Write `accumulation_step(model, micro_batches, optimizer)`: one update.
#
# - `micro_batches` is a list of (inputs, targets, mask), each (B, T); B and T differ between them. Some
#   may hold no valid token, but not all. {= the first loss; a micro-batch without a valid token}
# - The loss is the negative log-likelihood of the targets, a mean over the valid tokens of *all*
#   micro-batches. {= the first loss; the model after the first update}
# - Hold one graph at a time: `backward()` in each micro-batch. {= one graph at a time}
# - Clear old gradients first, also those that were there before your first update; step once, with the
#   given optimiser, and clip nothing.
#   {= the model after the first update; loss and model after the second update; one update for each call}
# - Return the loss before the update as a Python float. {= the first loss; the loss is a plain number}
# - The micro-batches stay as they are. {= no side effects}


# %% exercise="11.accumulation_step"
def accumulation_step(
    model: nn.Module,
    micro_batches: list[tuple[Tensor, Tensor, Tensor]],
    optimizer: torch.optim.Optimizer,
) -> float:
    """Update the model once and return the loss."""
    ### BEGIN SOLUTION
    count = sum(int(mask.sum()) for _, _, mask in micro_batches)
    optimizer.zero_grad()
    total = 0.0
    for inputs, targets, mask in micro_batches:
        nats = F.cross_entropy(model(inputs)[mask], targets[mask], reduction="sum")
        (nats / count).backward()
        total += nats.item() / count
    optimizer.step()
    return total
    ### END SOLUTION


# %% check="11.accumulation_step"
check("11.accumulation_step", accumulation_step)

# %% [markdown] hints="11.accumulation_step"
# - Which number must be known before the first `backward()`?
# - A sum over the tokens of a micro-batch, divided by the count of all: these add up to the right mean.
# - Count; clear; for each part: sum, divide, backward; step.

# %% [markdown] expect="11.accumulation_step"
# Cut in three ways, the same five rows give the same loss, to twelve decimals.

# %%
five = pad([encode(w, end=True) for w in ("Elinor", "Marianne", "Emma", "Anne", "Elizabeth")])
x, y, m = shift_and_mask(five.ids, five.lengths, torch.ones(5, dtype=torch.long))
losses = []
for cut in ([5], [2, 3], [1, 1, 3]):
    model = seeded(0, GPT, GPTConfig(width=16, layers=1, heads=2, context=16)).double()
    parts = list(zip(x.split(cut), y.split(cut), m.split(cut), strict=True))
    losses.append(accumulation_step(model, parts, torch.optim.SGD(model.parameters(), 0.1)))
    print(cut, f"{losses[-1]:.4f}")
print("equal to 1e-12:", max(losses) - min(losses) < 1e-12)

# %% [markdown]
# ## 11.5 The most probable sequence
#
# Three translators share the work at an office. Each has a dictionary of their own and translates word
# for word. Who gets a sentence is decided by lot: 40 % go to the first, 30 % to each of the others. The
# second and the third agree on half of the words.

# %%
prompt = torch.tensor([[1, 3, 0, 2, 5, 7, task.SEP]])
for who, share in enumerate(task.SHARES):
    print(f"{share:.0%}: {task.show(task.translate(prompt, torch.tensor([who]))[0])}")

# %% [markdown]
# What is the most probable first word, and what is the most probable translation?

# %%
first_word = {"first's word": 0.4, "word of the other two": 0.6}
sentence = {"the first's": 0.4, "the second's": 0.3, "the third's": 0.3}
_, axes = plots.figure(2, height=2.2)
for ax, probs, title in zip(
    axes, (first_word, sentence), ("first word", "whole translation"), strict=True
):
    plots.probability_bars(ax, torch.tensor(list(probs.values())), list(probs), title)
plots.show(
    f"Two bar charts. First word: {plots.spell(first_word, '.1f')}. "
    f"Whole translation: {plots.spell(sentence, '.1f')}."
)

# %% [markdown]
# *Figure: word by word the other two win where they agree, with 60 %. Sentence by sentence the first
# translator wins, with 40 %. Who takes the most probable word each time starts down a road that ends
# at 30 %.*
#
# **Greedy decoding** takes the most probable token each time. **Beam search** keeps the K most probable
# prefixes, extends each by every token, and keeps the K best again:
#
# $$\mathrm{score}(y_{1..t}) = \sum_{s \le t} \log q(y_s \mid x, y_{<s})$$
#
# ### Your turn
# {{11.beam_search}}
#
# Write `beam_search(next_logits, prompt, length, beams, eos)` for one prompt.
#
# - `next_logits(rows)` takes (K, T) rows and gives the (K, V) logits of the token after each. Logits are
#   no log-probabilities. {= one beam is greedy decoding; several beams}
# - `prompt` is (P,) and may hold EOS, which ends nothing: only an EOS that you added does.
#   {= rows that end}
# - Add at most `length` tokens. {= one beam is greedy decoding; several beams}
# - There may be more beams than tokens: then there are fewer prefixes at first. {= several beams}
# - A row that has ended with `eos` stays in the race with its score unchanged. {= rows that end}
# - Return the best row, prompt included and cut after its first new EOS, and its score (no length
#   penalty). {= one beam is greedy decoding; several beams; rows that end}
# - One beam is greedy decoding. {= one beam is greedy decoding}
# - `prompt` stays as it is. {= no side effects}


# %% exercise="11.beam_search"
def beam_search(
    next_logits: Callable[[Tensor], Tensor], prompt: Tensor, length: int, beams: int, eos: int
) -> tuple[Tensor, float]:
    """The best row found, (P + n,), and its log-probability."""
    ### BEGIN SOLUTION
    rows, scores = prompt[None], torch.zeros(1)  # one prefix at first
    for _ in range(length):
        log_q = next_logits(rows).log_softmax(dim=-1)  # (K, V)
        ended = (rows[:, len(prompt) :] == eos).any(dim=1)
        log_q[ended] = float("-inf")
        log_q[ended, eos] = 0.0
        total = (scores[:, None] + log_q).flatten()  # (K V,)
        scores, best = total.topk(min(beams, len(total)))
        parent, token = best // log_q.shape[1], best % log_q.shape[1]
        rows = torch.cat([rows[parent], token[:, None]], dim=1)
    stops = (rows[0, len(prompt) :] == eos).nonzero().flatten().tolist()
    end = len(prompt) + stops[0] + 1 if stops else rows.shape[1]
    return rows[0, :end], scores[0].item()
    ### END SOLUTION


# %% check="11.beam_search"
check("11.beam_search", beam_search)

# %% [markdown] hints="11.beam_search"
# - How many *different* prefixes are there before the first step? And an index into K times V candidates: which prefix, which token?
# - Flatten prefix score plus token log-probability to (K V,), take `topk`, divide by V: the quotient is the prefix, the remainder the token.
# - An ended row: minus infinity for every token but EOS, and zero for EOS.

# %% [markdown] expect="11.beam_search"
# A teacher that has learned the office's ways is caught out by its own greedy decoding: it mixes two
# dictionaries. With five beams it finds the first translator's version, and gives it more probability.

# %%
office = load_teacher("translators_gpt")
with torch.no_grad():
    for beams in (1, 2, 5):
        row, score = beam_search(lambda r: office(r)[:, -1], prompt[0], 7, beams, task.EOS)
        who = task.faithful(row[None])[0].nonzero().flatten().tolist()
        name = f"translator {who[0] + 1}" if who else "nobody's"
        print(f"{beams} beams: {task.show(row)}  {math.exp(score):.0%}  {name}")

# %% [markdown]
# Is it always better to search more? Not where the text is open-ended. The most probable continuation
# of a novel is dull, and samples at a low temperature come near it. Move the slider; the samples under it
# are fixed.

# %% tags=["nbval-ignore-output"]
start = encode("My dear Mr. Bennet, ")


def show_sample(temperature: float) -> None:
    g = torch.Generator().manual_seed(1)
    row = generate(teacher, start[None], 90, temperature, generator=g)[0]
    print(f"T = {temperature:.1f}: {decode(row)}")


knobs(show_sample, temperature=(0.0, 1.5, 0.8, 0.1))

# %% tags=["nbval-ignore-output"]
for temperature in (0.0, 0.5, 1.0, 1.5):
    show_sample(temperature)

# %% [markdown]
# At T = 0, greedy, it turns in circles; at T = 1 it sounds like the novels, with words that do not exist;
# at 1.5 it falls apart.
#
# ## 11.6 Sequence-level distillation
#
# Word-level distillation teaches the student what the teacher thinks of every next word *of the
# reference*. Kim and Rush's other idea is to distil the distribution over whole sequences. There are
# too many to sum over, so they put the teacher's beam search result $\hat y$ in their place, and
# what is left is ordinary training on another text:
#
# $$L = -\frac{1}{N} \sum_{t\ \mathrm{valid}} \log q(\hat y_t \mid x, \hat y_{<t})$$
#
# No logits are needed: it works through any interface that returns text, and it is what much of today's
# "distilled" language models went through (unit 13).
#
# ### Your turn
# {{11.sequence_level_kd}}
#
# Write `sequence_level_kd(student, prompts, outputs, eos)`.
#
# - `student(ids)` gives (B, T, V) logits for (B, T) ids. `prompts` is (B, P), all of one length, and may
#   hold EOS, which ends nothing. {= the loss; the student's gradient; EOS in a prompt}
# - `outputs` (B, N) is what the teacher wrote, filled with `eos` after the first one. A row without `eos`
#   was cut off and counts whole. {= outputs that were cut off}
# - Only the output's tokens count, up to its first EOS and that one too. Return the mean over all tokens
#   that count. {= the loss; the student's gradient}
# - The student may be float32, sure and wrong. {= a student that is sure and wrong}
# - What you are given stays as it is. {= no side effects}


# %% exercise="11.sequence_level_kd"
def sequence_level_kd(
    student: Callable[[Tensor], Tensor], prompts: Tensor, outputs: Tensor, eos: int
) -> Tensor:
    """NLL of the teacher's output, a mean over valid tokens."""
    ### BEGIN SOLUTION
    rows = torch.cat([prompts, outputs], dim=1)
    logits = student(rows[:, :-1])[:, prompts.shape[1] - 1 :]  # (B, N, V)
    is_end = (outputs == eos).long()
    mask = is_end.cumsum(dim=1) - is_end == 0  # no EOS before this token
    return F.cross_entropy(logits[mask], outputs[mask])
    ### END SOLUTION


# %% check="11.sequence_level_kd"
check("11.sequence_level_kd", sequence_level_kd)

# %% [markdown] hints="11.sequence_level_kd"
# - Which of the student's logits predicts the first token of the output?
# - A token counts if no EOS stands *before* it. A cumulative sum, of whole numbers and not of truth
#   values, counts the EOS up to each place.
# - Join prompts and outputs, run the student once, keep the N logits from P - 1 on, index with the mask.

# %% [markdown] expect="11.sequence_level_kd"
# The office's own beam outputs cost the office's teacher little, and its references more: it cannot know
# who will get a sentence.

# %%
from kdlib.decoding import beam_search_batch as search_many  # yours, for a batch and with a cache

data = task.corpus(4000, torch.Generator().manual_seed(1000))
source, written = data[:, : task.PROMPT], data[:, task.PROMPT :]
outputs = torch.cat([search_many(office, s, 7, 5, task.EOS)[0] for s in source.split(1000)])
outputs = outputs[:, task.PROMPT :]
with torch.no_grad():
    for name, y in (("references", written), ("beam outputs", outputs)):
        print(f"{name}: {sequence_level_kd(office, source, y, task.EOS):.2f} nats per token")

# %% [markdown]
# ## 11.7 Words or sequences?
#
# Now a student with a single layer of width 32 joins the office: 13,000 parameters against the teacher's
# 100,000. It gets 4,000 sentences, 600 updates, and one of two lessons: your `word_level_kd` on the
# references, or your `sequence_level_kd` on the teacher's beam outputs.
#
# A translation is *faithful* if one of the three translators could have written it. The student decodes
# greedily, because that is what a small model is for.
#
# ### Your turn, in words
# {{11.prediction}}
#
# **Predict before you run.** Word-level distillation hands over the teacher's whole distribution,
# sequence-level one answer for each sentence. Which student translates faithfully more often? Which one
# has the lower NLL on fresh references? Would more training close the gap, and what would beams in
# place of greedy decoding change? Come back after the experiment and add what you saw.

# %% [markdown] written="11.prediction" points=3 minutes=8
# Prediction: the student taught by sequences, under greedy decoding. For each sentence the teacher's
# distribution holds three translations, and to keep them apart a student has to work out from what it
# has written so far whose dictionary it is following. One small layer will do that badly, and a mixture
# of dictionaries is nobody's translation. The beam's outputs are nearly always the first translator's,
# a single dictionary. For the NLL I expect the opposite: three in five references are by the other two,
# and the sequence-level student has been taught that they do not happen. More training should narrow
# the gap; beams should help the word-level student most, as they can step back from a mixture.
#
# After the run: as predicted, and the gap is wide, 70 points [43, 98] at width 32. Sampling the teacher in
# place of its beam loses all of it, 2 points [-11, 14], so it is the choice of one translation that counts
# and not that the text is the teacher's. Three times the updates narrow the gap to 22 points [0, 44].
# What I had not expected: even then the word-level student stays below the *teacher's own* greedy
# decoding, which mixes dictionaries too, and the student of its beam is above it in every seed.

# %% [markdown] rubric="11.prediction"
# - 1 point: a prediction for faithfulness under greedy decoding, with a reason that concerns several right answers (mixing translators, or a mode that is easier to learn).
# - 1 point: a prediction for the NLL, with the reason that one answer for each sentence leaves out the others.
# - 1 point: after the run, compares with the measured intervals and explains at least one difference or confirmation, using a control (sampled outputs, longer training, beams). A wrong prediction, well explained, earns full points.

# %%
SEEDS = range(scale(grade=1, cpu=2, full=5))
STEPS = scale(grade=20, cpu=600, full=1800)
with torch.no_grad():
    office_logits = office(data[:, :-1])[:, task.PROMPT - 1 :]  # asked once (4000, 7, 14)
counts = torch.ones(64, task.LENGTH + 1, dtype=torch.bool)


def lesson(student: GPT, rows: Tensor, sequences: bool) -> Tensor:
    if sequences:
        return sequence_level_kd(student, source[rows], outputs[rows], task.EOS)
    logits = student(data[rows, :-1])[:, task.PROMPT - 1 :]
    return word_level_kd(logits, office_logits[rows], counts)


# %%
def taught(seed: int, sequences: bool) -> GPT:
    student = seeded(seed, GPT, GPTConfig(task.VOCABULARY, 32, layers=1, heads=2, context=16))
    fit_tokens(
        student,
        lambda g: torch.randint(len(data), (64,), generator=g),
        lambda model, rows: lesson(model, rows, sequences),
        steps=STEPS,
        seed=seed,
        progress=False,
    )
    return student


# %% tags=["nbval-ignore-output"]
test = task.prompts(500, torch.Generator().manual_seed(77))
for seed in SEEDS:
    for name, sequences in (("words", False), ("sequences", True)):
        student = taught(seed, sequences)
        greedy = generate(student, test, 7, temperature=0.0)
        right = task.faithful(greedy).any(1).float().mean()
        print(f"seed {seed}, {name:9s}: {right:.0%} faithful, e.g. {task.show(greedy[0])}")

# %% [markdown]
# Two seeds are an anecdote. The stored run has five, and the controls; `python -m evidence
# u11_sequence_level` regenerates it.

# %%
stored = evidence.load("u11_sequence_level")


def mean(numbers: list[float]) -> float:
    return sum(numbers) / len(numbers)


middle = stored["results"]["width 32"]
middle = dict(sorted(middle.items(), key=lambda arm: mean(arm[1]["greedy"])))
print(f"{'width 32, 600 updates':40s} greedy  5 beams    NLL   mass")
for arm, e in {"the teacher": stored["teacher"], **middle}.items():
    values = [mean(e[k]) if isinstance(e[k], list) else e[k] for k in ("greedy", "beam")]
    nll, mass = (mean(e[k]) if isinstance(e[k], list) else e[k] for k in ("nll", "mass"))
    print(f"{arm:40s} {values[0]:5.0f} % {values[1]:6.0f} % {nll:7.2f} {mass:5.0f} %")

# %%
rows = {arm: e["greedy_difference"] for arm, e in middle.items() if arm != "word level"}
_, ax = plots.figure(height=3.0)
plots.intervals(ax, rows, "faithful greedy translations against word level (points)")
plots.show(f"Horizontal 95 % intervals around zero, in points: {plots.spell(rows, '+.0f')}.")

# %% [markdown]
# *Figure and table: width 32, five seeds, paired 95 % intervals. NLL is that of fresh references in nats
# per token; mass is the probability that a student gives to its own greedy output. The beam's outputs
# are worth 70 points. Nothing else that comes from the teacher is worth half as much.*
#
# Take the explanations one by one. *It learns better from the teacher's text than from people's?* Then
# sampled outputs would help too; they are worth 2 points [-11, 14]. *It only needs sharper targets?* The
# word-level teacher at T = 1/2 is worth -5 [-17, 7]. What helps is that **one translation is chosen for
# each sentence**: sentences of the first translator alone, without any teacher, are learned perfectly.
# The teacher's part is to make that choice in data where nobody has noted who translated what. Mix the
# two lessons, word level on the beam's outputs, and the teacher's distributions bring the other
# translators back in.

# %%
_, ax = plots.figure(height=3.2)
said = []
regimes = list(stored["results"])
for arm, color in (("word level", plots.VERMILLION), ("sequence level", plots.BLUE)):
    for metric, style in (("greedy", "o-"), ("beam", "s--")):
        values = [mean(stored["results"][r][arm][metric]) for r in regimes]
        said.append(f"{arm}, {metric}: {', '.join(f'{v:.0f}' for v in values)}.")
        ax.plot(regimes, values, style, color=color, label=f"{arm}, {metric}")
ax.axhline(stored["teacher"]["greedy"], color="black", lw=0.8, ls=":", label="teacher, greedy")
ax.set_ylabel("faithful translations (%)")
ax.set_ylim(0, 103)
ax.margins(x=0.1)
ax.legend(loc="lower right", fontsize=8)
plots.show("Faithful translations in percent at three sizes of the experiment. " + " ".join(said))

# %% [markdown]
# *Figure: means of five seeds. At width 16 word level teaches almost nothing that holds together, and
# sequence level 93 %. With three times the updates word level comes near the teacher's own greedy
# decoding (dotted), and stays below it in all five seeds; sequence level is above it in all five.*
#
# With that longer training the difference is 22 points [0, 44]: one word-level run of five got stuck at
# 45 %, so the interval is wide and touches zero. A perfect word-level student decodes like its teacher,
# with its teacher's mistakes. A sequence-level student has learned what the teacher finds *after
# searching*: the search has moved from decoding into training. With beams the two students come close
# (92 and 99 %), and beams are what a small model was to save.
#
# ### Your turn, in words
# {{11.price}}
#
# The sequence-level student translates better and has by far the worse NLL on the references. How can
# both be true? Name one use for which you would rather ship the word-level student, and say what you
# would measure to decide.

# %% [markdown] written="11.price" points=2 minutes=6
# NLL on the references asks how much probability the student gives to whatever a translator wrote. The
# sequence-level student has put nearly all of it on the first translator's version, so on the six
# sentences in ten that the others translate it is badly surprised. Greedy decoding asks only for one
# version that holds together. I would ship the word-level student where probabilities are used rather
# than one output: to rank translations that people have written, to flag unlikely ones, to draw varied
# samples, or as a draft for speculative decoding. I would measure NLL on references there, or how often
# it ranks a faithful translation above a mixed one.

# %% [markdown] rubric="11.price"
# - 1 point: NLL on references asks for probability on every translation that may occur; the sequence-level student has put nearly all of it on one of them, which is all that greedy decoding needs.
# - 1 point: a use that needs the whole distribution (scoring or ranking, sampling varied answers, uncertainty, a draft model for speculative decoding, further distillation) with a fitting measure.

# %% [markdown]
# ## 11.8 On real text
#
# A novel is not a translation: after "My dear" there is no right answer, and no mode worth writing
# down. The second stored run teaches a student of 0.1 million parameters the bytes of Austen's novels,
# from 16 KB of text and from all 3.8 MB.

# %%
real = evidence.load("u11_real_text")
print(f"teacher: {real['teacher']:.2f} bits per byte on held-out text")
for regime, arms in real["results"].items():
    print(f"\n{regime:30s} bits/byte   at its best  seconds")
    for arm, e in arms.items():
        found = f"{mean(e['bits']):9.2f} {mean(e['best']):13.2f} {mean(e['seconds']):8.0f}"
        print(f"{arm:30s} {found}")

# %%
_, axes = plots.figure(2, height=2.6, width=9.0)
said = []
for ax, (regime, arms) in zip(axes, real["results"].items(), strict=True):
    differences = {a: e["bits_difference"] for a, e in arms.items() if a != "data"}
    saved = {arm: (-m, -high, -low) for arm, (m, low, high) in differences.items()}
    plots.intervals(ax, saved, "bits per byte saved against the text itself")
    ax.tick_params(axis="y", labelsize=8)
    ax.set_title(regime)
    said.append(f"{regime}: {plots.spell(saved, '+.2f')}.")
plots.show("Horizontal 95 % intervals around zero, in bits per byte saved. " + " ".join(said))

# %% [markdown]
# *Figure and table: five seeds, paired 95 % intervals, held-out text; "at its best" stops each arm at its
# best moment, "seconds" is processor time for the updates. Right of zero means better than learning
# from the text itself.*
#
# On real text the order is turned round. **Word level wins**: from 16 KB it saves 0.25 bits per byte
# [0.21, 0.28], and stopping the baseline at its best does not explain it. Text that the teacher
# *sampled* is a poorer text than Austen's (0.09 bits worse) until there is four times as much of it
# (0.08 better): its advantage is that it costs nothing but time. And the *beam's* text is a disaster:

# %%
print(real["beam_sample"])
for arm, e in real["results"]["16 KB of text"].items():
    print(
        f"{arm:30s} the teacher needs {mean(e['teacher_bits']):.1f} bits per byte for what it writes"
    )

# %% [markdown]
# That is what the most probable continuation looks like where nothing is right. The student of the beam
# writes text that the teacher finds very probable indeed, and nobody would read. Where any one
# right answer will do, distil what the teacher finds by searching; where the text is open, distil its
# distribution, or samples from it.
#
# With 3.8 MB word level still wins at equal updates, by 0.09 bits [0.08, 0.10]. But the teacher was asked
# at every update, and in that time the student could have made four times as many updates on the text
# itself, which saves 0.79. Ask the teacher once and keep its answers (unit 02), or do not ask it.
#
# ## Further reading
#
# - Kim, Rush, *Sequence-Level Knowledge Distillation*, arXiv 1606.07947. Their best student gains 4.2
#   BLEU over its baseline with greedy decoding and 1.7 with beam search (abstract): as here, distilled
#   sequences help most where nobody searches.
# - Wei et al., *Sentence-Level or Token-Level? A Comprehensive Study on Knowledge Distillation*,
#   arXiv 2404.14827
# - Agarwal et al., *On-Policy Distillation of Language Models*, arXiv 2306.13649
#
# Next: unit 12, where the student writes and the teacher comments.
