# ---
# jupyter:
#   kernelspec:
#     display_name: Python 3
#     language: python
#     name: python3
# ---

# %% [markdown]
# # 12 · On-policy distillation
#
# In unit 11 the student read other people's text and was told, word by word, what the teacher would
# have said next. Then it had to write by itself, after prefixes that nobody had shown it. In
# **on-policy** distillation the student writes first, and the teacher marks what it wrote.
#
# After this unit you can
#
# - choose among the divergences that language-model distillation uses, and say what each forgives,
# - train a student on its own text, at the price that this has,
# - derive the gradient of the sequence-level reverse KL and check it exactly,
# - say what the popular per-token loss leaves out, and when that matters,
# - measure exposure bias instead of believing in it.
#
# You need about 90 minutes. Notation: $p$ is the teacher, a constant; $q$ the student; $y_t$ a token
# and $y_{<t}$ what stands before it.

# %%
import copy
import math
from itertools import pairwise

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from kdlib import check, evidence
from kdlib.data import translators as task
from kdlib.decoding import generate
from kdlib.losses import mask_until_eos
from kdlib.losses import sequences as sequence_losses
from kdlib.models import GPT, GPTConfig, load_teacher, seeded
from kdlib.notebook import plots
from kdlib.profile import scale
from kdlib.recipes.translators_teacher import translation_nll
from kdlib.training import all_sequences, fit_tokens, table_logits, token_log_probs

# %% [markdown]
# ## 12.1 Which way is the student wrong?
#
# Two students can be equally far from the teacher and wrong in opposite ways: one says things that
# the teacher never would, the other never says things that the teacher does. Unit 01 drew this for a
# Gaussian: the forward KL covers, the reverse KL seeks a mode. Generalised knowledge distillation
# (GKD, [arXiv 2306.13649](https://arxiv.org/abs/2306.13649)) puts both at the ends of one family:
#
# $$\mathrm{JSD}_\beta(p \,\|\, q) = \beta\,\mathrm{KL}(p \,\|\, m) + (1-\beta)\,\mathrm{KL}(q \,\|\, m),
# \qquad m = \beta p + (1-\beta) q$$
#
# **Beta weighs the teacher.** As beta goes to 0, $\mathrm{JSD}_\beta / \beta$ tends to the forward KL; as
# it goes to 1, $\mathrm{JSD}_\beta / (1-\beta)$ tends to the reverse one. *At* the ends the formula is
# zero, so implementations follow a convention: beta = 0 means $\mathrm{KL}(p \| q)$, beta = 1 means
# $\mathrm{KL}(q \| p)$.
#
# ### Your turn
# {{12.jsd}}
#
# Write `jsd(student_logits, teacher_logits, mask, beta)`, a loss over tokens.
#
# - Logits are (B, T, V), `mask` (B, T) is True where a token counts; a row's first tokens may be left
#   out as well as its last ones. {= the value between the ends; the student's gradient; not contiguous}
# - The result is a mean over all tokens that count, a scalar in nats.
#   {= the value between the ends; zero at agreement}
# - The two ends follow the convention. {= the two ends; the student's gradient}
# - A beta outside 0..1 raises a `ValueError` that says what was given. {= beta outside 0..1 is refused}
# - The mixture is one of probabilities, but the logits may be in the thousands, and float32: stay in
#   log space. {= large logits; large logits: the gradient}
# - The teacher is a constant, and your arguments stay as they are. {= the teacher is a constant; no side effects}
# - Where the mask is False the teacher's logits may be minus infinity, and that must reach neither your
#   loss nor your gradient. {= padding does not reach the value; padding does not reach the gradient}


# %% exercise="12.jsd"
def jsd(
    student_logits: Tensor,  # (B, T, V)
    teacher_logits: Tensor,  # (B, T, V)
    mask: Tensor,  # (B, T), boolean
    beta: float = 0.5,
) -> Tensor:
    """Generalised Jensen-Shannon divergence, a mean over valid tokens, in nats."""
    ### BEGIN SOLUTION
    if not 0 <= beta <= 1:
        raise ValueError(f"beta must lie between 0 and 1, got {beta}")
    log_q = student_logits[mask].log_softmax(-1)  # (N, V)
    log_p = teacher_logits[mask].detach().log_softmax(-1)

    def kl(log_a: Tensor, log_b: Tensor) -> Tensor:
        return (log_a.exp() * (log_a - log_b)).sum(-1).mean()

    if beta in (0, 1):
        return kl(log_p, log_q) if beta == 0 else kl(log_q, log_p)
    log_m = torch.logaddexp(log_p + math.log(beta), log_q + math.log(1 - beta))
    return beta * kl(log_p, log_m) + (1 - beta) * kl(log_q, log_m)
    ### END SOLUTION


# %% check="12.jsd"
check("12.jsd", jsd)

# %% [markdown] hints="12.jsd"
# - What does `logits[mask]` give for logits (B, T, V) and a mask (B, T)? Does it matter whether you do that first or last?
# - The logarithm of a sum of two exponentials is one function in PyTorch. A weight becomes a term that is added to a logarithm.
# - Select, then two log-softmaxes; a helper `kl(log_a, log_b)` is used in all three cases. The mixture has the shape `torch.logaddexp(log_p + ..., log_q + ...)`.

# %% [markdown] expect="12.jsd"
# In the table, JSD/beta comes close to the forward KL at the top, JSD/(1-beta) to the reverse KL at the
# bottom, and the last column shows what the convention for the ends costs.

# %%
z, v = (
    torch.randn(4, 6, 30, dtype=torch.float64, generator=torch.Generator().manual_seed(s)) * 2
    for s in (0, 1)
)
mask = torch.ones(4, 6, dtype=torch.bool)
forward, reverse = jsd(z, v, mask, 0.0), jsd(z, v, mask, 1.0)
for beta in (0.001, 0.1, 0.5, 0.9, 0.999):
    value = jsd(z, v, mask, beta)
    print(
        f"beta {beta:<5}: JSD/beta {value / beta:8.3f}   JSD/(1-beta) {value / (1 - beta):8.3f}   JSD {value:.4f}"
    )
print(f"forward KL {forward:.3f}, reverse KL {reverse:.3f}")

# %% [markdown]
# From beta = 0.001 to beta = 0 your loss jumps by a factor of a thousand. Whoever tunes beta at a fixed
# learning rate tunes the learning rate as well.
#
# **The same in TRL.** `GKDTrainer.generalized_jsd_loss(student_logits, teacher_logits, labels, beta)` of
# Hugging Face's TRL has your orientation: beta weighs the teacher, 0 is forward, 1 is reverse, and
# tokens labelled -100 do not count. This course's tests compare values and gradients with it at
# beta = 0, 0.1, 0.5, 0.9 and 1, and they agree to 12 digits. It was not always so: until TRL
# [#2204](https://github.com/huggingface/trl/pull/2204) the mixture was one of log-probabilities, and
# until [#3043](https://github.com/huggingface/trl/pull/3043) its weights were exchanged. With the
# default beta = 0.5 the second bug cannot be seen.
#
# ## 12.2 What a divergence forgives
#
# Let the vocabulary be two tokens, and let the teacher say *A* with probability 0.3. Below is each
# divergence as the student's probability of *A* goes from one in a hundred million to one.


# %%
def two_tokens(loss, *number: float) -> tuple[Tensor, Tensor]:
    """Give the loss for student's probabilities of A from 1e-8 to nearly 1."""
    logit = torch.linspace(-18.4, 9, 240, dtype=torch.float64)
    z = torch.stack([logit, torch.zeros_like(logit)], dim=-1)[:, None, None]  # (240, 1, 1, 2)
    v = torch.tensor([0.3, 0.7], dtype=torch.float64).log().expand(1, 1, 2)
    one = torch.ones(1, 1, dtype=torch.bool)
    return logit.sigmoid(), torch.stack([loss(row, v, one, *number) for row in z])


# %%
from kdlib.notebook import knobs


def show_beta(beta: float) -> None:
    _, ax = plots.figure(height=2.6)
    q, value = two_tokens(sequence_losses.jsd, beta)
    value = value / max(min(beta, 1 - beta), 1e-9) if 0 < beta < 1 else value
    ax.semilogx(q, value)
    ax.set_xlabel("student's probability of A (teacher: 0.3)")
    ax.set_ylabel("JSD, rescaled (nats)")
    ax.set_ylim(0, 2)
    plots.show(
        f"Rescaled JSD at beta = {beta:.2f} over the student's probability of A, logarithmic. It is zero "
        f"at 0.3, where the two agree, and {value[0]:.2f} nats at the left end."
    )


# %% tags=["nbval-ignore-output"]
knobs(show_beta, beta=(0.0, 1.0, 0.5, 0.05))

# %% [markdown]
# One more divergence first, because it belongs into the same picture. DistiLLM
# ([arXiv 2402.03898](https://arxiv.org/abs/2402.03898)) keeps the forward KL's direction, but lends the
# student a little of the teacher's mass: the **skew KL** with a small alpha, 0.1 in the paper.
#
# $$\mathrm{SKL}_\alpha(p \,\|\, q) = \mathrm{KL}\bigl(p \,\|\, \alpha p + (1-\alpha) q\bigr)$$
#
# ### Your turn
# {{12.skew_kl}}
#
# Write `skew_kl(student_logits, teacher_logits, mask, alpha)`.
#
# - Shapes, mask, mean, padding and large logits as before; the teacher is a constant again.
#   {= the value; not contiguous; the teacher is a constant; padding does not reach the value; padding does not reach the gradient; large logits; large logits: the gradient; no side effects}
# - Alpha lies in [0, 1). 0 gives the forward KL; an alpha below 0, and 1 or more, raises a `ValueError`
#   that says what was given. (Why 1, too?) {= alpha = 0 is the forward KL; alpha outside [0, 1) is refused}
# - The student's gradient comes through the mixture. {= the student's gradient}
# - With alpha > 0 the value never exceeds $\log(1/\alpha)$, however sure the student is of other tokens.
#   {= never more than log(1 / alpha)}


# %% exercise="12.skew_kl"
def skew_kl(
    student_logits: Tensor,  # (B, T, V)
    teacher_logits: Tensor,  # (B, T, V)
    mask: Tensor,  # (B, T), boolean
    alpha: float = 0.1,
) -> Tensor:
    """KL(p || alpha p + (1 - alpha) q), a mean over valid tokens, in nats."""
    ### BEGIN SOLUTION
    if not 0 <= alpha < 1:
        raise ValueError(f"alpha must lie in [0, 1), got {alpha}")
    log_q = student_logits[mask].log_softmax(-1)
    log_p = teacher_logits[mask].detach().log_softmax(-1)
    weights = torch.tensor([alpha, 1 - alpha], dtype=log_p.dtype).log()
    log_m = torch.logaddexp(log_p + weights[0], log_q + weights[1])
    return (log_p.exp() * (log_p - log_m)).sum(-1).mean()
    ### END SOLUTION


# %% check="12.skew_kl"
check("12.skew_kl", skew_kl)

# %% [markdown] hints="12.skew_kl"
# - Which of your lines of `jsd` can stay as they are?
# - The same mixture with other weights, and only one divergence.
# - Check alpha, select, two log-softmaxes, `torch.logaddexp` for the mixture, then the KL from the teacher to it.

# %% [markdown] expect="12.skew_kl"
# In the figure below, a curve that leaves the teacher together with the forward KL and levels off at just
# under half a nat, while the forward KL goes on rising.

# %%
ends = {}
_, ax = plots.figure(height=3.4)
for name, loss, number, style in (
    ("forward KL", sequence_losses.jsd, 0.0, "-"),
    ("reverse KL", sequence_losses.jsd, 1.0, "-"),
    ("JSD, beta = 0.5 (twice)", lambda *a: 2 * sequence_losses.jsd(*a), 0.5, "--"),
    ("skew KL, alpha = 0.1", skew_kl, 0.1, "-."),
):
    q, value = two_tokens(loss, number)
    ends[name] = value[0]
    ax.semilogx(q, value, style, label=name)
ax.axvline(0.3, color="black", lw=0.8)
ax.set_xlabel("student's probability of A (teacher: 0.3)")
ax.set_ylabel("divergence (nats)")
ax.set_ylim(0, 5)
ax.legend()
plots.show(
    "Four divergences over the student's probability of A, logarithmic; all are zero at 0.3. At the "
    f"left end, in nats: {plots.spell(ends, '.2f')}."
)

# %% [markdown]
# *Figure: all four are zero where the student agrees with the teacher (line). To the left is the student
# that never says A. The forward KL punishes it without end; the reverse KL and the JSD forgive it and level
# off; so does the skew KL, a little higher.*
#
# The gradient tells the same story: with the forward KL, one token that the teacher likes and the
# student does not can outweigh a whole batch.
#
# ## 12.3 A target that starts at the student
#
# TAID ([arXiv 2501.16937](https://arxiv.org/abs/2501.16937)) changes the target instead. At first it is
# nearly the student itself; in the course of training it moves to the teacher:
#
# $$L = \mathrm{KL}(p_t \,\|\, q), \qquad p_t = \mathrm{softmax}\bigl((1-t)\,z' + t\,v\bigr)$$
#
# with the teacher's logits $v$ and the student's own, $z'$, **as a constant**. In the authors' code $t$
# starts at 0.4, grows with the steps, and a little faster while the loss falls
# (`kdlib.training.TAIDSchedule`).
#
# ### Your turn
# {{12.taid_loss}}
#
# Write `taid_loss(student_logits, teacher_logits, mask, t)`.
#
# - Shapes, mask, mean, padding and large logits as before; the teacher is a constant again.
#   {= the value; not contiguous; the teacher is a constant; padding does not reach the value; padding does not reach the gradient; large logits; no side effects}
# - A t outside 0..1 raises a `ValueError` that says what was given. {= t outside 0..1 is refused}
# - The mixture is one of logits this time, and the target takes no gradient. {= the value; the student's gradient}
# - At t = 0 there is nothing to learn: value and gradient are zero. At t = 1 it is the forward KL.
#   {= nothing to learn at t = 0; t = 1 is the forward KL}


# %% exercise="12.taid_loss"
def taid_loss(
    student_logits: Tensor,  # (B, T, V)
    teacher_logits: Tensor,  # (B, T, V)
    mask: Tensor,  # (B, T), boolean
    t: float,
) -> Tensor:
    """KL(p_t || q) against the interpolated target, a mean over valid tokens, in nats."""
    ### BEGIN SOLUTION
    if not 0 <= t <= 1:
        raise ValueError(f"t must lie between 0 and 1, got {t}")
    z, v = student_logits[mask], teacher_logits[mask].detach()
    log_target = ((1 - t) * z.detach() + t * v).log_softmax(-1)
    return (log_target.exp() * (log_target - z.log_softmax(-1))).sum(-1).mean()
    ### END SOLUTION


# %% check="12.taid_loss"
check("12.taid_loss", taid_loss)

# %% [markdown] hints="12.taid_loss"
# - If the gradient may also move the target, in which two ways can the loss become small?
# - `detach` the student where it is a part of the target, and only there.
# - Select the valid logits of both, mix them, `log_softmax`, then KL(target || student).

# %% [markdown] expect="12.taid_loss"
# Three targets for one decision below: the first word of a translation, for a student that has learned
# nothing yet.
#
# The task is that of unit 11. Three translators share the work, each with a dictionary of its own; a
# translation is *faithful* when one of them could have written all of it. The teacher knows all three.

# %% tags=["nbval-ignore-output"]
teacher = load_teacher("translators_gpt")
data = task.corpus(4000, torch.Generator().manual_seed(1000))  # (4000, 14)
student = seeded(0, GPT, GPTConfig(task.VOCABULARY, 32, layers=1, heads=2, context=16))
for row in data[:3]:
    print(task.show(row))


def nll(model: nn.Module, batch: Tensor) -> Tensor:
    return translation_nll(model, data[batch])


def draw(generator: torch.Generator) -> Tensor:
    return torch.randint(len(data), (64,), generator=generator)


STEPS = scale(grade=20, cpu=1200, full=1200)
losses = fit_tokens(student, draw, nll, steps=STEPS, progress=False).losses
print(f"{losses[0]:.1f} nats per token at the first step, {losses[-1]:.1f} at the last")

# %%
fresh = seeded(0, GPT, student.config)
with torch.no_grad():
    z, v = (m(data[:1, : task.PROMPT])[0, -1] for m in (fresh, teacher))
letters = [*"ABCDEFGHIJKL", "sep", "end"]
_, axes = plots.figure(3, height=3.2, sharey=True)
for ax, t in zip(axes, (0.0, 0.4, 1.0), strict=True):
    plots.probability_bars(ax, ((1 - t) * z + t * v).softmax(-1), letters, f"t = {t:g}")
best = v.topk(3).indices
plots.show(
    "Bars of 14 next tokens at t = 0, 0.4 and 1. The three most probable of the teacher hold "
    f"{z.softmax(-1)[best].sum():.2f} at t = 0 and {v.softmax(-1)[best].sum():.2f} at t = 1."
)

# %% [markdown]
# *Figure: the target for the first word of the first sentence, for an untrained student. At t = 0 it is the
# student's own guess, at t = 1 the teacher's, which knows that three words can be right, one for each
# translator. At t = 0.4 the student is asked for a step that it can take.*
#
# ## 12.4 Let the student write
#
# All of this so far compared the two after prefixes of the data. GKD's objective has a second part:
#
# $$(1-\lambda)\; \mathbb{E}_{y \sim \text{data}} \sum_t D\bigl(p(\cdot|y_{<t}), q(\cdot|y_{<t})\bigr) \;+\;
# \lambda\; \mathbb{E}_{y \sim q} \sum_t D\bigl(p(\cdot|y_{<t}), q(\cdot|y_{<t})\bigr)$$
#
# In the second part the student continues the prompt, and the teacher says, at each position of what
# the student wrote, what it would have said there. **No gradient goes through sampling**: what was
# written is treated like data that happened to come along. (GKD does so for stability. What is lost by
# it, you will see in 12.6.) In its algorithm 1 a coin is thrown for each batch.
#
# ### Your turn
# {{12.on_policy_batch}}
#
# Write `on_policy_batch(student, rows, prompt_length, fraction, eos, generator)`.
#
# - `rows` (B, T) are data: prompts of `prompt_length` tokens, their continuations, then `eos` up to T. A
#   continuation may fill its row to the end, and a prompt may hold `eos`. {= rows of the data; what counts}
# - One coin for the batch: with probability `fraction` (lambda) the student continues the prompts up to T
#   tokens; otherwise the rows stay as they are and it is not asked.
#   {= lambda is the chance of a batch; rows of the data; a batch of the data costs no writing}
# - It samples at temperature 1. Coin and samples come from `generator`.
#   {= sampled as the student says, from the generator}
# - It writes in eval mode and is left in the mode in which it came; `rows` are left as they came.
#   {= it writes in eval mode and is given back as it came; no side effects}
# - It writes without autograd, and what you return can be trained on: inference mode goes too far.
#   {= no gradient through sampling}
# - `kdlib.decoding.generate(student, prompts, length, 1.0, eos, generator)` does the sampling. It stops early
#   when every row has ended: fill up with `eos`. {= rows that the student wrote; filled up with eos}
# - Return the rows (B, T) and a boolean mask (B, T - 1) that belongs to the targets `rows[:, 1:]`: tokens
#   after the prompt count, up to the first EOS and **that too**.
#   {= what counts; what counts in the data; whole numbers and a boolean mask}


# %% exercise="12.on_policy_batch"
def on_policy_batch(
    student: nn.Module,
    rows: Tensor,  # (B, T)
    prompt_length: int,
    fraction: float,
    eos: int,
    generator: torch.Generator,
) -> tuple[Tensor, Tensor]:
    """Give rows (B, T) and which targets count (B, T - 1): the student's text or the data's."""
    ### BEGIN SOLUTION
    T = rows.shape[1]
    if torch.rand((), generator=generator) < fraction:
        before = student.training
        with torch.no_grad():
            prompts = rows[:, :prompt_length]
            rows = generate(student.eval(), prompts, T - prompt_length, 1.0, eos, generator)
        student.train(before)
        rows = F.pad(rows, (0, T - rows.shape[1]), value=eos)
    ended = (rows[:, prompt_length:] == eos).long().cumsum(1)  # 1 at the first EOS
    counts = (ended == 0) | ((ended == 1) & (rows[:, prompt_length:] == eos))
    return rows, F.pad(counts, (prompt_length - 1, 0), value=False)
    ### END SOLUTION


# %% check="12.on_policy_batch"
check("12.on_policy_batch", on_policy_batch)

# %% [markdown] hints="12.on_policy_batch"
# - The target at column t of `rows[:, 1:]` is token t + 1. Which column belongs to the first token after the prompt?
# - `(part == eos).cumsum(1)` counts how many EOS have been seen. What is the count at the first EOS itself, and after it?
# - Coin, remember the mode, `eval()`, `generate` under `no_grad`, mode back, fill up; then a mask for the part after the prompt, with `prompt_length - 1` columns of False before it.

# %% [markdown] expect="12.on_policy_batch"
# A few translations by the young student, complete and ended, each with the translators who could have
# written it: often none, because words of two dictionaries are mixed.

# %% tags=["nbval-ignore-output"]
rows, mask = on_policy_batch(
    student, data[:64], task.PROMPT, 1.0, task.EOS, torch.Generator().manual_seed(0)
)
for row, could, counts in list(zip(rows, task.faithful(rows), mask, strict=True))[:6]:
    who = [str(i + 1) for i in range(3) if could[i]]
    print(
        f"{task.show(row):22s} translator: {', '.join(who) or 'none':6s} {int(counts.sum())} tokens count"
    )

# %% [markdown]
# A row is marked up to its EOS, and the EOS itself is marked too: that is how a student learns to stop.
# TRL's GKD trainer made this mask by comparing with the padding token, which for many models *is* the EOS,
# and so dropped the end of every completion
# ([#6357](https://github.com/huggingface/trl/pull/6357)).
# When stopping goes wrong, lengths explode. In ms-swift's example for on-policy distillation the student was
# a base model and the teacher a chat model; each ended its texts with another token, and after a few
# dozen steps the student wrote until it was cut off
# ([#9526](https://github.com/modelscope/ms-swift/issues/9526)). The teacher had never seen a text end
# the way the student ended it.
#
# ## 12.5 The gradient of a whole sequence
#
# MiniLLM ([arXiv 2306.08543](https://arxiv.org/abs/2306.08543)) asks for more than agreement token by
# token. It minimises the reverse KL between distributions over **whole sequences**:
#
# $$\mathrm{KL}(q \,\|\, p) = \mathbb{E}_{y \sim q} \sum_t \bigl[\log q(y_t|y_{<t}) - \log p(y_t|y_{<t})\bigr]$$
#
# The student appears twice: in the brackets, and in what is written. With the score-function trick
# ($\nabla q = q\,\nabla \log q$) and the fact that $\mathbb{E}_q \nabla \log q = 0$, the gradient becomes
#
# $$\nabla \mathrm{KL} = \mathbb{E}_{y \sim q} \sum_t G_t \,\nabla \log q(y_t|y_{<t}), \qquad
# G_t = \sum_{t' \ge t} \bigl[\log q(y_{t'}|y_{<t'}) - \log p(y_{t'}|y_{<t'})\bigr]$$
#
# $G_t$ is what the rest of the row is going to cost. A token is charged for all that follows it, since
# it decides where the student has to go on. What comes *before* it, it cannot change.
#
# Autograd wants a loss. A **surrogate** is a number whose gradient is the right one, and whose value
# means nothing.
#
# ### Your turn
# {{12.reverse_kl_surrogate}}
#
# Write `reverse_kl_surrogate(student_log_probs, teacher_log_probs, mask)`.
#
# - All are (B, T): log-probabilities of the tokens that the student wrote, and which of them count.
#   A row's first tokens may be left out as well as its last ones. {= padding reaches no gradient}
# - The sum over tokens of $G_t \log q(y_t)$, a mean over **rows**. $G_t$ is a constant, and the return
#   itself: no baseline is subtracted. {= the gradient, by enumeration; a mean over rows}
# - The teacher is a constant, and your arguments stay as they are. {= the teacher is a constant; no side effects}
# - The teacher's log-probability may be minus infinity where the mask is False. (In TRL's trainer with a
#   teacher on a server it was, and the gradient became NaN while the loss looked fine:
#   [#5594](https://github.com/huggingface/trl/pull/5594).) {= padding reaches no gradient}


# %% exercise="12.reverse_kl_surrogate"
def reverse_kl_surrogate(
    student_log_probs: Tensor,  # (B, T)
    teacher_log_probs: Tensor,  # (B, T)
    mask: Tensor,  # (B, T), boolean
) -> Tensor:
    """A scalar whose expected gradient is that of KL(q || p) over whole sequences."""
    ### BEGIN SOLUTION
    log_q = student_log_probs.masked_fill(~mask, 0.0)
    log_p = teacher_log_probs.masked_fill(~mask, 0.0)
    cost = (log_q - log_p).detach()
    to_go = cost.flip(1).cumsum(1).flip(1)  # (B, T)
    return (to_go * log_q).sum(1).mean()
    ### END SOLUTION


# %% check="12.reverse_kl_surrogate"
check("12.reverse_kl_surrogate", reverse_kl_surrogate)

# %% [markdown] hints="12.reverse_kl_surrogate"
# - `cumsum` runs from left to right. How do you sum from each token to the end?
# - Put zeros where the mask is False before you subtract, not after: a zero does not undo an infinity.
# - Costs, detached; a reversed cumulative sum; times log q; sum over tokens, mean over rows.

# %% [markdown] expect="12.reverse_kl_surrogate"
# The cell below does not believe the derivation. A student of three tokens can write 31 rows of up to
# four tokens; it computes the KL over all of them, differentiates it, and compares with the mean of your
# surrogate's gradient. They agree to about fifteen digits.


# %%
def tiny_language(T: int, V: int = 3, seed: int = 0):
    """A student and a teacher that are tables, and every row that can be written."""
    g = torch.Generator().manual_seed(seed)
    prefixes = sum(V**t for t in range(T))
    q, p = (torch.randn(prefixes, V, generator=g, dtype=torch.float64) for _ in range(2))
    rows = all_sequences(V, T, eos=V - 1)
    return q.requires_grad_(True), p, rows, mask_until_eos(rows, V - 1)


def exact_gradient(q: Tensor, p: Tensor, rows: Tensor, mask: Tensor) -> Tensor:
    """Differentiate the KL over all rows."""
    log_q, log_p = (token_log_probs(table_logits(x, rows), rows) * mask for x in (q, p))
    kl = (log_q.sum(1).exp() * (log_q.sum(1) - log_p.sum(1))).sum()
    return torch.autograd.grad(kl, q)[0]


# %%
def mean_gradient(loss, q: Tensor, p: Tensor, rows: Tensor, mask: Tensor) -> Tensor:
    """Average a loss's gradient over all rows, each with its probability."""
    log_q, log_p = (token_log_probs(table_logits(x, rows), rows) for x in (q, p))
    chance = (log_q * mask).sum(1).exp().detach()
    each = [loss(log_q[i : i + 1], log_p[i : i + 1], mask[i : i + 1]) for i in range(len(rows))]
    return torch.autograd.grad((chance * torch.stack(each)).sum(), q)[0]


tiny = tiny_language(4)
exact, found = exact_gradient(*tiny), mean_gradient(reverse_kl_surrogate, *tiny)
print(len(tiny[2]), "rows; equal:", torch.allclose(found, exact, rtol=1e-10, atol=1e-13))

# %% [markdown]
# The obvious alternative fails the same test. Average log q - log p over the student's rows, which
# estimates the KL correctly, and let autograd differentiate that:

# %%
naive = mean_gradient(lambda q, p, m: ((q - p) * m).sum(1).mean(), *tiny)
print(f"largest entry: exact {exact.abs().max():.3f}, naive {naive.abs().max():.3f}")

# %% [markdown]
# Nothing is left but noise of mean zero: the estimate knows what was written, and not that the student
# chose it. Tang and Munos ([arXiv 2506.09477](https://arxiv.org/abs/2506.09477)) found this in several
# open-source projects.
#
# ## 12.6 The per-token loss, and what it leaves out
#
# Summing to the end of the row makes a noisy estimate. The recipe that became popular for on-policy
# distillation ([Thinking Machines Lab, 2025](https://thinkingmachines.ai/blog/on-policy-distillation/))
# marks each token for itself alone, which in the language of reinforcement learning is a discount of 0:
#
# $$A_t = -\bigl(\log q(y_t|y_{<t}) - \log p(y_t|y_{<t})\bigr), \qquad
# L = -\frac1N \sum_{t} A_t \,\log q(y_t|y_{<t}), \qquad A_t \text{ a constant}$$
#
# ### Your turn
# {{12.per_token_loss}}
#
# Write `per_token_loss(student_log_probs, teacher_log_probs, mask)`.
#
# - Shapes and padding as in 12.5, and the teacher is a constant again.
#   {= padding reaches no gradient; the teacher is a constant; no side effects}
# - A mean over the **tokens** that count, of the advantage itself: no baseline, no whitening.
#   {= the student's gradient}
# - What the student finds likelier than the teacher does gets less likely with a step of descent.
#   {= what the teacher finds unlikely gets less likely}
# - Only the gradient is checked: the value is not a divergence either. {= -}


# %% exercise="12.per_token_loss"
def per_token_loss(
    student_log_probs: Tensor,  # (B, T)
    teacher_log_probs: Tensor,  # (B, T)
    mask: Tensor,  # (B, T), boolean
) -> Tensor:
    """Policy gradient with discount 0: each token is marked for itself, a mean over tokens."""
    ### BEGIN SOLUTION
    log_q = student_log_probs[mask]
    log_p = teacher_log_probs[mask].detach()
    advantage = -(log_q - log_p).detach()
    return -(advantage * log_q).mean()
    ### END SOLUTION


# %% check="12.per_token_loss"
check("12.per_token_loss", per_token_loss)

# %% [markdown] hints="12.per_token_loss"
# - A token that the teacher likes less than the student does: is its advantage positive or negative, and what should happen to its probability?
# - Select the valid tokens first. What is differentiated, and what is only a number?
# - Three lines: the two selected log-probabilities, the detached advantage, minus the mean of the product.

# %% [markdown] expect="12.per_token_loss"
# Below, the expected gradient of your loss equals that of the reverse KL at each position *with the
# prefixes taken as given*, which is GKD's on-policy loss at beta = 1. It is not the gradient of the
# sequence's KL.


# %% tags=["nbval-ignore-output"]
def summed(log_q: Tensor, log_p: Tensor, mask: Tensor) -> Tensor:
    return per_token_loss(log_q, log_p, mask) * mask.sum()  # a sum over tokens, like the KL


def missing(T: int, seed: int) -> float:
    """What the per-token gradient lacks, as a share of the whole gradient's length."""
    language = tiny_language(T, seed=seed)
    whole = exact_gradient(*language)
    return ((mean_gradient(summed, *language) - whole).norm() / whole.norm()).item()


lengths = range(1, scale(grade=4, cpu=6, full=6))
left_out = torch.tensor([[missing(T, seed) for seed in range(scale(2, 8, 20))] for T in lengths])
for T, row in zip(lengths, left_out, strict=True):
    print(f"rows of up to {T} tokens: {100 * row.mean():.0f} % of the gradient is missing")

# %% [markdown]
# And what is won by it? Draw rows from the tiny student as one does in practice and compare both
# estimates with the exact gradient as the number of rows grows.


# %%
def sampled_error(loss, language, rows_drawn: int, seed: int) -> float:
    q, p, rows, mask = language
    log_q, log_p = (token_log_probs(table_logits(x, rows), rows) for x in (q, p))
    chance = (log_q.detach() * mask).sum(1).exp()
    i = torch.multinomial(chance, rows_drawn, True, generator=torch.Generator().manual_seed(seed))
    total = loss(log_q[i], log_p[i], mask[i])
    whole = exact_gradient(*language)
    return ((torch.autograd.grad(total, q)[0] - whole).norm() / whole.norm()).item()


def per_row(log_q: Tensor, log_p: Tensor, mask: Tensor) -> Tensor:
    return per_token_loss(log_q, log_p, mask) * mask.sum() / len(mask)


# %% tags=["nbval-ignore-output"]
drawn = [4, 16, 64, 256, 1024, 4096, 16384]
language, last = tiny_language(5), {}
_, (left, right) = plots.figure(2, height=3.2)
left.plot(lengths, 100 * left_out.mean(1), "o-")
left.set_xlabel("longest row (tokens)")
left.set_ylabel("missing from the gradient (%)")
for name, loss, style in (
    ("whole sequence", reverse_kl_surrogate, "o-"),
    ("per token", per_row, "s--"),
):
    error = [
        torch.tensor([sampled_error(loss, language, n, s) for s in range(8)]).mean() for n in drawn
    ]
    last[name] = error[-1]
    right.loglog(drawn, error, style, label=name)
right.set_xlabel("rows drawn")
right.set_ylabel("error / length of the gradient")
right.legend()
plots.show(
    "Left, the missing share of the gradient over the length of a row, from "
    f"{100 * left_out[0].mean():.0f} to {100 * left_out[-1].mean():.0f} %. Right, the error over the "
    f"rows drawn, both logarithmic; with the most rows: {plots.spell(last, '.2f')}."
)

# %% [markdown]
# *Figure: left, the share of the sequence gradient that the per-token loss lacks even with endless data;
# it grows with length and is zero for a single token. Right, rows of up to five tokens: with few rows the
# per-token estimate is the better one, because it is less noisy; with many it stops improving, because
# it is biased.*
#
# ### Your turn, in words
# {{12.what_it_leaves_out}}
#
# Both expected gradients are zero where the student equals the teacher. Why then can it matter
# which one you descend? Use the translators: which decision does the per-token loss not see the
# consequences of, and for what kind of student are there consequences?

# %% [markdown] written="12.what_it_leaves_out" points=3 minutes=8
# The per-token gradient treats the prefix as given, so it never asks how the present token changes the
# prefixes that follow. The sequence gradient charges each token with G_t, all later costs included.
# With the translators the first word decides whose dictionary has to be followed for the other five. If
# the student cannot keep track of all three translators, every first word leads to expensive later
# words, but some lead to cheaper ones. Per token, the first word's own divergence is zero when it
# has the teacher's proportions 40/30/30, so nothing pushes it away from them. The sequence gradient
# moves the first word to the translator whose continuation the student can write, and the later
# words become consistent. A student with the capacity to equal the teacher ends at the same
# place either way; for one without it the two objectives have different optima: the per-token one
# keeps the mixture and its inconsistent sentences, the other gives up translators for consistency.

# %% [markdown] rubric="12.what_it_leaves_out"
# - 1 point: the per-token gradient takes prefixes as given; the effect of a token on later costs is missing.
# - 1 point: applies it to the first word of a translation, which decides what the later words must be.
# - 1 point: says that it matters when the student cannot equal the teacher (capacity), while a student that can has the same optimum under both.

# %% [markdown]
# ## 12.7 The experiment
#
# The student has one layer of width 32: too little to do what the teacher does. It has been trained for
# 1,200 updates on the data, and gets 400 more, with the same prompts in the same order:
#
# - **off-policy**: forward KL, reverse KL, JSD, skew KL, TAID, on the data's rows;
# - **on-policy**: the same losses on the student's own rows;
# - **policy gradients** on the student's own rows: per token, and whole sequence.
#
# ### Your turn, in words
# {{12.prediction}}
#
# **Predict before you run.** (a) Which of these raises the share of faithful translations among the
# student's *samples* most, and by how much roughly (over the stored seeds the start is 42 % on average, and the forward KL brings 10
# points)? (b) How
# many of the three translators will that student still imitate? (c) Will the token-level reverse KL gain
# from being on-policy when both may use the same CPU time? Give reasons. Come back afterwards.

# %% [markdown] written="12.prediction" points=4 minutes=8
# Prediction: (a) the whole-sequence gradient, because faithfulness is a property of the sentence and
# only this loss sees the sentence; perhaps 20 points. (b) It will favour one translator, because the
# reverse KL forgives what is never said. (c) I expect a small gain from on-policy data, since
# the student makes mistakes the data never show, but at equal time it may be lost: writing costs more
# than a training step.
#
# After the run: (a) was right and too timid: nearly every sample is faithful. (b) It imitates a single
# translator, and its NLL on the translators' text is far worse, so "better" depends on what it is for.
# (c) I expected a small gain and there is none that is sure: one point at equal updates, and at equal time
# the interval of the difference holds zero and leans to the other side. The curves along the position
# explain it: this student is no worse after its own prefixes than after the data's.

# %% [markdown] rubric="12.prediction"
# - 1 point: a prediction with a reason for (a) that concerns sentences against tokens, or modes.
# - 1 point: a prediction with a reason for (b) that uses what the reverse KL forgives.
# - 1 point: a prediction for (c) that weighs the price of writing.
# - 1 point: after the run, compares with the stored intervals and explains one difference or confirmation. A wrong prediction, well explained, earns full points.

# %%
AGAIN = scale(grade=10, cpu=200, full=400)
SEEDS = range(scale(grade=1, cpu=2, full=5))


def continued(objective, fraction: float, seed: int) -> GPT:
    """Train a copy of the student on rows of which a share `fraction` is its own."""
    model, g = copy.deepcopy(student), torch.Generator().manual_seed(seed)

    def loss(model: nn.Module, batch: Tensor) -> Tensor:
        rows, mask = on_policy_batch(model, data[batch], task.PROMPT, fraction, task.EOS, g)
        with torch.no_grad():
            v = teacher(rows[:, :-1])
        return objective(model(rows[:, :-1]), v, mask, rows[:, 1:])

    fit_tokens(model, draw, loss, steps=AGAIN, lr=2e-3, seed=seed, progress=False)
    return model


# %%
def reverse(z: Tensor, v: Tensor, mask: Tensor, y: Tensor) -> Tensor:
    return jsd(z, v, mask, 1.0)


def sequence(z: Tensor, v: Tensor, mask: Tensor, y: Tensor) -> Tensor:
    return reverse_kl_surrogate(token_log_probs(z, y), token_log_probs(v, y), mask)


@torch.no_grad()
def faithful_samples(model: GPT, n: int = 500) -> tuple[float, list[int]]:
    """Share of faithful samples, and how many each translator could have written."""
    g = torch.Generator().manual_seed(7)
    rows = generate(model, task.prompts(n, g), task.LENGTH + 1, 1.0, task.EOS, g)
    could = task.faithful(rows)
    return could.any(1).double().mean().item(), could.sum(0).tolist()


# %% tags=["nbval-ignore-output"]
print(f"at the start: {100 * faithful_samples(student)[0]:.0f} % faithful")
for name, objective, fraction in (
    ("reverse KL on the data", reverse, 0.0),
    ("reverse KL on its own rows", reverse, 1.0),
    ("sequence gradient", sequence, 1.0),
):
    for seed in SEEDS:
        share, who = faithful_samples(continued(objective, fraction, seed))
        print(f"{name:28s} seed {seed}: {100 * share:4.0f} % faithful; by translator {who}")

# %% [markdown]
# The stored run has five seeds, twice the updates, and more arms;
# `python -m evidence u12_directions` makes it again.

# %%
stored = evidence.load("u12_directions")
results = stored["results"]


def mean(arm: str, metric: str) -> float:
    return sum(results[arm][metric]) / len(results[arm][metric])


print(f"{'':42s} samples  greedy  translators   NLL  CPU seconds")
order = sorted(results, key=lambda arm: mean(arm, "sampled"))
for arm in order:
    print(
        f"{arm:42s} {mean(arm, 'sampled'):5.0f} %  {mean(arm, 'greedy'):4.0f} %"
        f"{mean(arm, 'translators'):10.1f} {mean(arm, 'nll'):9.2f} {mean(arm, 'seconds'):8.1f}"
    )

# %%
rows = {
    arm: results[arm]["sampled_difference"]
    for arm in order
    if arm not in ("at the start", "forward KL")
}
_, ax = plots.figure(height=4.6)
plots.intervals(ax, rows, "faithful samples against forward KL on the data (points)")
plots.show(f"Horizontal 95 % intervals around zero, in points: {plots.spell(rows, '+.0f')}.")

# %% [markdown]
# *Figure: paired 95 % intervals over five seeds. The divergences on the data lie within three points of each
# other. Only two arms are clearly above zero: the sequence gradient, and training on the teacher's beam
# outputs.*

# %%
for name, e in stored["compared"].items():
    effect, low, high = e["sampled_difference"]
    print(f"{name:45s} {effect:+6.1f}  [{low:+.1f}, {high:+.1f}] points of faithful samples")

# %% [markdown]
# Read it in four steps.
#
# **Which divergence** hardly matters here. The reverse KL gains two points over the forward one at best, and
# its interval touches zero; JSD, skew KL and TAID are ties. Papers that find larger differences have larger
# gaps between teacher and student; the seeds here differ from each other far more than the losses do.
#
# **Writing oneself** (lambda) brings about one point at equal updates, which may be none. But off-policy the
# teacher answers once, from a cache, while the student's own rows are new every time: an update costs 2.4
# times as much. Spend that time on more updates of the data, and on-policy is not ahead any more.
#
# **The per-token loss** has the same expected gradient as the reverse KL with lambda = 1, from one sampled
# token instead of the whole vocabulary. What separates these two arms is the noise of the estimate, and it costs points.
# Who has the teacher's logits should use them; the per-token loss is for teachers that send one number.
#
# **The sequence gradient** is another objective, and it shows. The student gives up two translators and writes
# like the third, more faithfully than the teacher's own samples (80 %, since the teacher is not perfect
# either). The price: it has forgotten the others, and its NLL on real translations is more than ten
# times that of the forward KL. It reached the lowest KL(q || p) of all arms, which is just what it was asked for.
# The cheap old way, training on the teacher's beam outputs, gets most of the way in a third of the training
# time (the teacher's search not counted), and forgets less.

# %% [markdown]
# ## 12.8 Exposure bias, measured
#
# Why write at all, then? The argument is **exposure bias**: a student that has only seen good prefixes does
# not know what to do after its own mistakes, and one mistake leads to the next. Whether that happens can
# be measured. Compare student and teacher at each position twice: after the prefixes of the data, and
# after those that the student wrote. MiniLLM draws such a curve over the length of the text;
# `kdlib.training.divergence_by_position` gives one. For the translators:

# %%
for arm in ("at the start", "reverse KL", "reverse KL, lambda = 1"):
    for where in ("data", "own"):
        curve = [mean(arm, f"{where} {i}") for i in range(1, 7)]
        print(f"{arm:24s} after {where:4s} prefixes:", "  ".join(f"{x:.2f}" for x in curve))

# %% [markdown]
# KL(q || p) in nats for the six words of a translation. Before any writing, and after distillation on the
# data, the two rows hardly differ and nothing grows along the sentence: there is no exposure bias to cure.
# The student's trouble is that it cannot keep three dictionaries apart, and it has that trouble after any
# prefix. So on-policy data had nothing to add; with lambda = 1 the student even gets better after its own
# prefixes at the cost of those it no longer writes.
#
# Now a student that has something to unlearn. A small GPT learns 12,000 bytes of Jane Austen nearly by
# heart; then it is distilled from `austen_gpt`, the teacher of unit 11, either on that text or on what
# it writes after prompts of 16 bytes from it. The stored run has five seeds, each with another piece of
# the novels; `python -m evidence u12_exposure` makes it again.

# %%
exposure = evidence.load("u12_exposure")
edges = exposure["edges"]
bins = [f"{a}-{b}" for a, b in pairwise(edges)]
middle = [(a + b) / 2 for a, b in pairwise(edges)]


def draw_curves(ax, arm: str, title: str) -> None:
    """Draw the divergence along the position, mean and range of the seeds."""
    for where, style, label in (
        ("own", "o-", "after own writing"),
        ("text", "s--", "after the text"),
    ):
        runs = torch.tensor([exposure["results"][arm][f"{where} {b}"] for b in bins])
        ax.plot(middle, runs.mean(1), style, label=label)
        ax.fill_between(middle, runs.min(1).values, runs.max(1).values, alpha=0.2)
    ax.set_xscale("log")
    ax.set_title(title)
    ax.set_xlabel("bytes after the prompt")


# %%
_, axes = plots.figure(3, height=3.4, sharey=True)
draw_curves(axes[0], "at the start", "before")
draw_curves(axes[1], "reverse KL", "distilled on the text")
draw_curves(axes[2], "reverse KL, on-policy", "on its own writing")
axes[0].set_ylabel("KL(p || q) (nats per byte)")
axes[0].legend()
gap = {
    arm: sum(e[f"own {bins[-1]}"]) / 5 - sum(e[f"text {bins[-1]}"]) / 5
    for arm, e in exposure["results"].items()
}
plots.show(
    "Divergence over the bytes after the prompt, after own writing and after the text, before "
    f"distillation and after two kinds of it. Gap between the two after {bins[-1]} bytes, in nats: "
    f"{plots.spell(gap, '+.2f')}."
)

# %% [markdown]
# *Figure: mean and range over five seeds of KL(p || q), after prefixes that the student wrote (circles) and
# after those of the text (squares), from the same prompts. Left and middle: within a few bytes of writing
# the two part, and off-policy distillation, which lowers both, does not close the gap. Right: trained on its
# own writing, the student is nearly as good after its own prefixes as after the text.*

# %%
for arm, e in exposure["results"].items():
    row = {k: sum(e[k]) / len(e[k]) for k in ("teacher_nll", "real_words", "bits", "seconds")}
    print(
        f"{arm:40s} teacher's NLL of samples {row['teacher_nll']:.2f}, real words "
        f"{row['real_words']:.0f} %, held out {row['bits']:.2f} bits/byte, {row['seconds']:.1f} s"
    )

# %%
for name, key, unit in (
    ("KL(p || q), 64 to 96 bytes into its own text", "own 64-96", "nats per byte"),
    ("held-out text", "bits", "bits per byte"),
    ("teacher's NLL of the samples", "teacher_nll", "nats per byte"),
    ("real words in the samples", "real_words", "points"),
):
    effect, low, high = exposure["equal_time"][f"{key}_difference"]
    print(f"{name:46s} {effect:+.2f}  [{low:+.2f}, {high:+.2f}] {unit}")

# %% [markdown]
# *Table: on-policy minus off-policy, when both get the same time.*
#
# So exposure bias is real here, it appears within four bytes, and writing removes most of it. The student
# also predicts text better that neither it nor the teacher has seen. Yet its samples are *worse*: the teacher
# finds them less likely, and fewer of their words exist. The off-policy student goes on practising 12,000 bytes
# that it nearly knows by heart, and a sample that recites Jane Austen is a good sample by these measures.
# Which of the two you want depends on whether your users' prompts are in the training text.
#
# On other ground the answer differs again. In trials for this course with a student that was already
# distilled on the whole corpus, and on a task of reasoning steps that unit 13 uses, on-policy training
# brought nothing. Measure the two curves first. If they lie on each other, writing has nothing
# to repair.

# %% [markdown]
# ## 12.9 When only the top of the vocabulary is sent
#
# A teacher on a server sends no 150,000 logits a token, but its largest ten or so. Then it is tempting to
# sum the divergence over those alone:
#
# $$\sum_{i \in S} q_i \log \frac{q_i}{p_i}, \qquad S = \text{the entries that the teacher sent}$$
#
# When verl, a library for reinforcement learning, got on-policy distillation, this was tried and taken out again: training was unstable
# ([#5041](https://github.com/verl-project/verl/pull/5041)). One distribution is enough to see why.

# %%
zipf = 1 / torch.arange(1, 51, dtype=torch.float64)
p = zipf / zipf.sum()  # (50,)
top = p.topk(5).indices


def truncated(log_q: Tensor) -> Tensor:
    return (log_q.exp() * (log_q - p.log()))[top].sum()


def with_tail(log_q: Tensor) -> Tensor:
    """The rest of the vocabulary as one more token."""
    tails = [(1 - x[top].sum()).log() for x in (log_q.exp(), p)]
    return truncated(log_q) + tails[0].exp() * (tails[0] - tails[1])


# %%
def descend(loss, steps: int = 400) -> tuple[list[float], list[float]]:
    """Give the loss and the student's mass on S along a descent."""
    z = p.log().requires_grad_(True)  # the student starts as the teacher
    losses, mass = [], []
    for _ in range(steps):
        value = loss(z.log_softmax(0))
        (gradient,) = torch.autograd.grad(value, z)
        z = (z - 2.0 * gradient).detach().requires_grad_(True)
        losses.append(value.item())
        mass.append(z.softmax(0)[top].sum().item())
    return losses, mass


# %%
_, (left, right) = plots.figure(2, height=3.0)
for name, loss in (("top 5 alone", truncated), ("with a tail", with_tail)):
    losses, mass = descend(loss)
    left.plot(losses, label=name)
    right.plot(mass, label=name)
right.axhline(p[top].sum(), color="black", lw=0.8)
for ax, label in ((left, "loss (nats)"), (right, "student's mass on the top 5")):
    ax.set_xlabel("steps")
    ax.set_ylabel(label)
left.legend()
plots.show(
    "Left, two losses over 400 steps; right, the student's mass on the top 5. The loss of the top 5 "
    f"alone falls to {descend(truncated)[0][-1]:.2f} nats and its mass to "
    f"{descend(truncated)[1][-1]:.2f}; with a tail the mass stays at {mass[-1]:.2f}."
)
print(
    f"teacher's mass {p[top].sum():.3f}; student's without a tail {descend(truncated)[1][-1]:.3f}, with {mass[-1]:.3f}"
)

# %% [markdown]
# *Figure: the student starts as an exact copy of the teacher. The truncated loss still finds something to
# improve: it goes below zero, which no divergence does, while the student's mass on the teacher's best
# tokens falls from 51 % to 19 %. With the rest of the vocabulary as one more token nothing moves.*
#
# It can be computed by hand: $q \log (q/p)$ has its minimum at $q = p/e$. The student does best by moving
# mass to where nobody looks, until 37 % of it is left. A negative divergence in your log is always a sign
# that something was left out or counted twice; in a thread on axolotl's distillation from stored
# log-probabilities a user met one, and the cause was never settled
# ([#2692](https://github.com/axolotl-ai-cloud/axolotl/issues/2692)). Unit 16 comes back to the tail.
#
# ## What to remember
#
# - A divergence is a choice of what to forgive. Beta weighs the teacher; the ends are a convention, and
#   tuning beta tunes the learning rate too.
# - Select the valid tokens before you compute, stay in log space, and let the EOS count.
# - On-policy rows cost more, since no cache helps. They pay where the student does worse after its own
#   prefixes than after the data's: measure that curve first.
# - The sequence-level gradient is more than the sum of the token-level ones. It lets the student commit to
#   what it can finish, and what it gives up for that is variety.
# - A negative divergence means that something was left out.
#
# ## Further reading
#
# - Agarwal et al., *On-Policy Distillation of Language Models*, arXiv 2306.13649
# - Gu et al., *MiniLLM*, arXiv 2306.08543
# - Ko et al., *DistiLLM*, arXiv 2402.03898
# - Shing et al., *TAID*, arXiv 2501.16937
# - Tang, Munos, *On a few pitfalls in KL divergence gradient estimation for RL*, arXiv 2506.09477
#
# Next: unit 13, where the student learns from worked solutions that can be checked.
