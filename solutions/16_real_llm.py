# ---
# jupyter:
#   kernelspec:
#     display_name: Python 3
#     language: python
#     name: python3
# ---

# %% [markdown] extras="llm"
# # 16 · A real language model
#
# Everything so far fitted into seconds because the models were small. Now take one that people use:
# **SmolLM2-135M-Instruct**, 30 layers, trained by others at a cost you could not pay. You cut it to a third
# of its layers, teach what is left with the whole model as its teacher, and then give the result
# a job: to draft tokens that the large model only has to check.
#
# After this unit you can
#
# - measure which layers of a language model can go, and cut them out so that the rest still runs,
# - store what a teacher says in a few bytes per token, and learn from that without a bias,
# - compare recovery by distillation with plain fine-tuning, at equal tokens and at equal work,
# - decode speculatively without changing the distribution, and say beforehand how fast it will be,
# - do the same in the library that is used at work, and show that its loss is yours.
#
# You need about 100 minutes, 5 GB of memory, and half a GB of disk: the weights are fetched the first
# time (93 MB). On two cores all cells together run for under ten minutes.

# %%
import time
from itertools import chain, pairwise

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from kdlib import check, evidence
from kdlib.decoding import speculative as spec
from kdlib.losses import sequence_nll
from kdlib.models import smollm2
from kdlib.notebook import plots
from kdlib.profile import profile, scale
from kdlib.training import fit_tokens

REAL = profile() != "grade"  # under the grader a tiny random model stands in
DEVICE = "cuda" if profile() == "full" and torch.cuda.is_available() else "cpu"

# %% [markdown]
# ## 16.1 The model
#
# SmolLM2 was tuned to answer requests. A request is written between marks that the model knows:

# %% tags=["nbval-ignore-output"]
print(smollm2.chat("Write a short story about a robot who learns to share."))
if REAL:
    model, tokenizer = smollm2.load()
    asked = tokenizer(
        smollm2.chat("Write a short story about a robot who learns to share."),
        return_tensors="pt",
    )
    started = time.perf_counter()
    said = model.generate(**asked, max_new_tokens=40, do_sample=False)[0]
    print(tokenizer.decode(said[asked["input_ids"].shape[1] :]))
    print(f"\n{40 / (time.perf_counter() - started):.0f} tokens a second")

# %% [markdown]
# Your data are 432 short stories that this model wrote itself, sampled at temperature 0.8: 372 to learn from, 60 to
# test. A teacher's own text is
# the cheapest transfer set there is: no licence to ask for, as much as you like, and the teacher is at
# home in it. It is also a bubble, and you will test inside the same bubble; keep that in mind.
#
# SmolLM2 knows 49,152 tokens. These stories use an eighth of them. **Keeping only the tokens that occur** is
# the first compression, and it is nearly free: the embeddings shrink, and the softmax
# runs over what is left.

# %%
train, test = smollm2.stories(), smollm2.stories(train=False, n=scale(4, 16, 60))
V = len(train.vocabulary)
if REAL:
    teacher = smollm2.trim_vocabulary(model, train.vocabulary).to(DEVICE)
else:
    teacher = smollm2.stand_in(V)
DEPTH = len(teacher.model.layers)
print(f"{len(train.ids)} stories to learn from, {V:,} of 49,152 tokens occur")


# %%
def weights(model: nn.Module) -> float:
    """Millions of weights, each counted once."""
    return sum(p.numel() for p in model.parameters()) / 1e6


# %% tags=["nbval-ignore-output"]
layer = weights(teacher.model.layers[0])
embeddings = weights(teacher.model.embed_tokens)
print(f"{DEPTH} layers of {layer:.2f} million weights, embeddings {embeddings:.1f} million")
print(f"in all {weights(teacher):.1f} million, with all tokens {DEPTH * layer + 28.3:.1f} million")

# %% [markdown]
# Two small tools for what follows: how much a model pays for the test stories, and what it makes of a
# request. Only the story's tokens count, not the request's (unit 13).


# %%
@torch.no_grad()
def logits_of(model: nn.Module, data: smollm2.Stories) -> Tensor:
    """(N, T - 1, V): what the model says about each next token."""
    parts = []
    for ids in data.ids.split(4):
        with smollm2.autocast(DEVICE):
            parts.append(model(ids.to(DEVICE)).logits[:, :-1].float().cpu())
    return torch.cat(parts)


def cost(model: nn.Module, data: smollm2.Stories = test) -> float:
    """Negative log-likelihood of the stories, in nats per token."""
    return sequence_nll(logits_of(model, data), data.ids[:, 1:], data.mask).item()


# %%
def story(model: nn.Module, row: int = 0, length: int = 30) -> str:
    """Let a model begin the story of a test request, greedily."""
    if not REAL:
        return "(no text: a random model stands in)"
    prompt = test.ids[row : row + 1, : int(test.prompt_lengths[row])].to(DEVICE)
    out = model.generate(
        prompt, attention_mask=torch.ones_like(prompt), max_new_tokens=length, do_sample=False
    )
    return tokenizer.decode(train.vocabulary[out[0, prompt.shape[1] :].cpu()])


# %% tags=["nbval-ignore-output"]
print(f"the teacher pays {cost(teacher):.2f} nats per token and writes:\n{story(teacher)}")

# %% [markdown]
# ## 16.2 Which layers can go?
#
# A decoder's layers all read from one stream of hidden states and write to it:
# $h_{l+1} = h_l + f_l(h_l)$. Take one out and the rest still fits together. So which one?
#
# The cheapest answer looks at the stream. A layer whose output points where its input
# pointed has not done much. Its **block influence** (Men et al., arXiv 2403.03853, equation 1) is
#
# $$\mathrm{BI}_l = 1 - \operatorname*{mean}_{t} \frac{h_{l,t} \cdot h_{l+1,t}}
# {\lVert h_{l,t}\rVert \, \lVert h_{l+1,t}\rVert}$$
#
# with a mean over all tokens $t$ that count.
#
# ### Your turn
# {{16.block_influence}}
#
# Write `block_influence(hidden, mask)`.
#
# - `hidden` is a sequence of L + 1 tensors (B, T, D): the states before the first layer, between the layers, and
#   after the last one. Return a tensor (L,). {= the value; 0 for scaling, 2 for turning round}
# - `mask` (B, T) is boolean: True where a token counts. All tokens that count weigh the same, in whatever row they
#   stand. {= the value}
# - Where the mask is False, hidden states may hold anything, NaN too. Do not write into them.
#   {= NaN in the padding does no harm; the states stay as they are}
# - Fewer than two states, or no token that counts: a `ValueError`. {= bad input is refused}


# %% exercise="16.block_influence"
def block_influence(
    hidden: list[Tensor],  # L + 1 times (B, T, D)
    mask: Tensor,  # (B, T), boolean
) -> Tensor:
    """One minus the mean cosine of each layer's input and output, (L,)."""
    ### BEGIN SOLUTION
    if len(hidden) < 2 or not mask.any():
        raise ValueError("two states and a token that counts are needed")
    states = [state[mask] for state in hidden]  # (N, D) each
    turned = [F.cosine_similarity(a, b, dim=-1) for a, b in pairwise(states)]  # (N,) each
    return torch.stack([1 - cosines.mean() for cosines in turned])
    ### END SOLUTION


# %% check="16.block_influence"
check("16.block_influence", block_influence)

# %% [markdown] hints="16.block_influence"
# - A cosine belongs to one token. What are the shapes of the two vectors it compares, and over what is the mean?
# - Indexing with a boolean mask, `state[mask]`, gives (N, D): only what counts, and the rows do not matter any more.
# - `F.cosine_similarity(a, b, dim=-1)` gives N cosines. Do it for each pair of neighbours in the list, and stack the results.

# %% [markdown] expect="16.block_influence"
# The first layer and the last one turn the stream most, and a long middle part hardly moves it.

# %% [markdown]
# The dear answer is to try: leave each layer out in turn, and see what eight stories cost then. Thirty
# forward passes in place of one. (A `ModuleList` with one layer missing is all it takes; you write
# a proper version in the next section.)

# %% tags=["nbval-ignore-output"]
some = smollm2.stories(n=scale(2, 8, 8))
with torch.no_grad(), smollm2.autocast(DEVICE):
    states = teacher(some.ids.to(DEVICE), output_hidden_states=True).hidden_states
influence = block_influence([s.float().cpu() for s in states], F.pad(some.mask, (0, 1)))

layers = teacher.model.layers
removal = []
for out in range(DEPTH):
    teacher.model.layers = nn.ModuleList(x for i, x in enumerate(layers) if i != out)
    removal.append(cost(teacher, some))
teacher.model.layers = layers
removal = torch.tensor(removal)
print(f"the whole model pays {cost(teacher, some):.2f} nats for these stories")
print("without layer 0:", f"{removal[0]:.2f}", " without layer 15:", f"{removal[DEPTH // 2]:.2f}")

# %% [markdown]
# (Each layer still knows its old number here, and nothing goes wrong. Hold that thought.)

# %%
_, ax = plots.figure(height=3.2)
ax.plot(influence, removal, "o")
for number in range(DEPTH):
    if influence[number] > 0.1 or removal[number] > removal.median() + 0.5:
        ax.annotate(
            str(number), (influence[number], removal[number]), (4, 4), textcoords="offset points"
        )
ax.set_xscale("log")
ax.set_xlabel("block influence (logarithmic)")
ax.set_ylabel("cost without the layer\n(nats per token)")
plots.show(
    f"A dot for each of {DEPTH} layers: its cost when it is left out over its block influence. The "
    f"dearest is layer {removal.argmax()} at {removal.max():.1f} nats, the cheapest layer "
    f"{removal.argmin()} at {removal.min():.1f}; the greatest influence, {influence.max():.2f}, is "
    f"that of layer {influence.argmax()}, the least, {influence.min():.3f}, of layer "
    f"{influence.argmin()}."
)

# %% [markdown]
# *Figure: two opinions about the same thirty layers, on eight stories; a dot is a layer, and those far from the crowd
# have their number. Both hold layers 0, 1 and 29 dear. But by block influence layer 11 stands in the middle of the crowd,
# and without it a token costs two nats more; layer 24 turns the stream nearly four times as much and is worth half
# a nat. A small turn in the right direction can be everything.*
#
# ### Your turn, in words
# {{16.prediction}}
#
# **Predict before you go on.** You will keep ten layers of thirty. (1) What will the pruned model pay per token
# before any training, when the whole pays about 1.7 and a model that knows nothing pays $\log 6116 = 8.7$?
# Will it matter how the ten are chosen, and which choice will win: block influence, removal, spread
# evenly, the first ten? (2) Then it learns for a short while from the same stories, once from the
# text alone, once from the teacher's probabilities. The text *is* the teacher's own. What can
# the probabilities still add? After sections 16.3 and 16.5, add what you saw.

# %% [markdown] written="16.prediction" points=4 minutes=8
# Prediction: without training the model is close to useless at ten layers, 5 to 8 nats, since each layer
# expects the stream that its neighbours made, and errors add up. Choices that look at the model should
# beat blind ones; removal should beat block influence, since it measures the cost itself; the first ten
# lack the last layers, which turn the stream into logits, so they should be worst.
# Probabilities add the alternatives to each sampled token: one token of text says one thing, a
# distribution says what else would have been right. With few stories that should help.
#
# After the run: with ten layers the two choices that look at the model pay about 7.5 nats, block influence no more
# than removal, and the blind ones are worse than a model that knows nothing, up to 20 nats: they are
# sure, and wrong. After training, distillation is a quarter of a nat ahead of fine-tuning at equal tokens
# on all seeds, and still a fifth ahead of fine-tuning with twice the updates, which costs as much as the
# teacher's answers did.

# %% [markdown] rubric="16.prediction"
# - 1 point: a number or range for the cost, with a reason (the layers were trained together).
# - 1 point: an order of the choices, with a reason for at least two of them.
# - 1 point: says what a distribution holds that a sampled token does not.
# - 1 point: afterwards compares the predictions with the measured values and intervals. A wrong prediction, well explained, earns full points.

# %% [markdown]
# ## 16.3 Cut
#
# Cutting is three lines, and two of them are forgotten regularly. While a model writes, each layer keeps the keys
# and values of the tokens that it has read, so that it need not read them again: the **cache**.
# `layer.self_attn.layer_idx` is a layer's place in it, and `config.num_hidden_layers` says how many places there are.
# Change the config alone, and the first pass stops with an IndexError (huggingface/transformers #30508). Change neither,
# and a whole row is still read well, so training looks fine; but read token by token, a model without its layer 0
# takes every token for the first.
#
# ### Your turn
# {{16.keep_layers}}
#
# Write `keep_layers(model, keep)` for a model laid out as transformers lays out SmolLM2:
# `model.model.layers` is an `nn.ModuleList`; each layer has `self_attn.layer_idx`; `model.config` has
# `num_hidden_layers`.
#
# - Return a copy that has only the layers numbered in `keep`, in the model's own order, however `keep` is ordered.
#   {= the layers and their order; the output}
# - In the copy, places in the cache count 0, 1, 2, ..., and the config fits.
#   {= each layer knows its place, and the config their number; the same output with a cache}
# - The model stays as it is, and shares nothing with the copy: the student will be trained, the teacher not.
#   {= the original stays as it is}
# - No layer, a layer named twice, or a number outside 0..L-1: a `ValueError`.
#   {= numbers that make no sense are refused}


# %% exercise="16.keep_layers"
def keep_layers(model: nn.Module, keep: list[int]) -> nn.Module:
    """A copy of the model with only these layers."""
    ### BEGIN SOLUTION
    import copy

    depth = len(model.model.layers)
    kept = sorted(keep)
    if not kept or len(set(kept)) < len(kept) or kept[0] < 0 or kept[-1] >= depth:
        raise ValueError(f"keep must name different layers of 0..{depth - 1}, got {keep}")
    student = copy.deepcopy(model)
    student.model.layers = nn.ModuleList(student.model.layers[i] for i in kept)
    for place, layer in enumerate(student.model.layers):
        layer.self_attn.layer_idx = place
    student.config.num_hidden_layers = len(kept)
    return student
    ### END SOLUTION


# %% check="16.keep_layers"
check("16.keep_layers", keep_layers)

# %% [markdown] hints="16.keep_layers"
# - Which objects would the model and the copy share if you only took the layers over into a new list? What happens to them in training?
# - Copy everything first, then change the copy only. Sort, and look at the numbers before you use them.
# - `copy.deepcopy(model)`; a new `nn.ModuleList` of the chosen layers; a loop with `enumerate` over them that sets `self_attn.layer_idx`; the config's count.

# %% [markdown] expect="16.keep_layers"
# The pruned model runs, with and without a cache, and writes nonsense.

# %% tags=["nbval-ignore-output"]
KEEP = scale(3, 10, 10)
kept = sorted(removal.topk(KEEP).indices.tolist())
student = keep_layers(teacher, kept)
print(f"layers {kept}: {weights(student):.1f} million weights, {cost(student):.2f} nats per token")
print(story(student))

# %% [markdown]
# How bad, and how much does the choice matter? The stored run (`python -m evidence u16_layers`) tries
# five ways to choose, at four depths, with five sets of eight stories to choose by:

# %%
stored = evidence.load("u16_layers")
depths = sorted(map(int, stored["results"]), reverse=True)
_, ax = plots.figure(height=3.2)
for number, way in enumerate(stored["results"]["10"]):
    costs = [stored["results"][str(depth)][way]["nll"] for depth in depths]
    x = [[i + 0.14 * (number - 2)] * len(c) for i, c in enumerate(costs)]
    color = plots.PALETTE[number]
    at = list(chain(*x)), list(chain(*costs))
    ax.plot(*at, "osD^v"[number], color=color, label=way)
ax.axhline(stored["teacher_nll"], color=plots.BLACK, lw=0.8, ls="--")
ax.text(0.5, stored["teacher_nll"] + 0.15, "all 30 layers", fontsize=9)
ax.set_xticks(range(len(depths)), [f"{depth} layers" for depth in depths])
ax.set_ylabel("cost (nats per token)")
ax.legend(fontsize=9)
ten = {way: sum(e["nll"]) / len(e["nll"]) for way, e in stored["results"]["10"].items()}
plots.show(
    "Cost in nats per token at four depths, for five ways to choose the layers; it rises as layers "
    f"go. All 30 layers: {stored['teacher_nll']:.1f}. Ten layers: {plots.spell(ten, '.1f')}."
)

# %%
for depth in depths:
    costs = {w: sum(e["nll"]) / len(e["nll"]) for w, e in stored["results"][str(depth)].items()}
    print(f"{depth} layers: " + ", ".join(f"{w} {c:.2f}" for w, c in costs.items()))

# %% [markdown]
# *Figure and table: what 60 test stories cost after pruning, without any training; each mark is a set of
# eight stories to choose by. Three ways look at none: drop the middle keeps equally many at both ends.*
#
# - **At ten layers, blind choices are worse than knowing nothing.** A model that gives every token the same probability pays
#   8.7 nats. The first ten layers pay 20: they are sure of themselves, and wrong. The last layer, which turns
#   the stream into something that can be read as logits, is missing. (The other two keep it, and pay 11 and 14.)
# - **Scores for one layer do not add up.** At 25 layers it makes no difference which of the two scores
#   you ask; at 20, block influence is ahead by a fifth of a nat; at 15, removal by more than a nat; at 10 they are level. Each score says what *one* layer is
#   worth while all the others are there, and by then half of the others are gone. (What would a choice look like
#   that removes one layer, measures all again, and goes on? Try it, it is ten lines.)
# - **Block influence does not depend on the stories** (the marks coincide), removal does a little. It costs one
#   forward pass instead of thirty.
# - **Nothing here is usable.** 2.7 nats at 25 layers, for a model that paid 1.7. Pruning is a way to *start* a
#   student, not to finish one.

# %% [markdown]
# ## 16.4 Ask the teacher once
#
# The student will see every story several times if you train longer than this, and the teacher would say
# the same each time. So ask it once, and keep the answer. All of it is too much: 6,116 probabilities for
# each token. But most of them are next to nothing.

# %% tags=["nbval-ignore-output"]
log_p = logits_of(teacher, some)[some.mask].log_softmax(-1)  # (tokens, V)
mass = log_p.exp().sort(dim=-1, descending=True).values.cumsum(dim=-1)
sizes = [1, 2, 4, 8, 16, 32, 64, 128, 256]
at = mass[:, [k - 1 for k in sizes]]
_, ax = plots.figure(height=2.8)
low, middle, high = at.quantile(torch.tensor([0.1, 0.5, 0.9]), dim=0)
ax.fill_between(sizes, 100 * low, 100 * high, alpha=0.2)
ax.plot(sizes, 100 * middle, "o-", label="median, and from the 10th to the 90th percentile")
ax.plot(sizes, 100 * at.mean(dim=0), "s--", label="mean")
ax.set_xscale("log", base=2)
ax.set_xticks(sizes, sizes)
ax.set_xlabel("K, tokens kept")
ax.set_ylabel("probability they hold (percent)")
ax.legend(fontsize=9)
plots.show(
    "Probability held by the K most probable tokens over K, 1 to 256, logarithmic. The median rises "
    f"from {100 * middle[0]:.0f} % to {100 * middle[-1]:.0f} %; with 32 tokens one position in ten "
    f"is still below {100 * low[5]:.0f} %."
)

# %% [markdown]
# *Figure: how much of the teacher's probability its K most probable tokens hold. Half of all
# positions are nearly decided, but at one in ten even 32 tokens leave a good part out.*
#
# What to do with the rest? Three public answers are wrong in instructive ways.
#
# - **Leave it out**: $\sum_{i \in K} p_i \log (p_i / q_i)$. That is not a divergence. It goes below zero as soon as the
#   student puts more on the K tokens than the teacher does, and then rewards it for more (verl-project/verl #7856).
# - **Renormalise** both over the K tokens: a proper KL, of two other distributions. Whatever the
#   student does with the rest of the vocabulary goes unseen.
# - **Renormalise the teacher alone**: the student learns that nothing else ever comes.
#
# The right one treats **everything else as one event**, with probability $p_r = 1 - \sum_{i \in K} p_i$ for the
# teacher and $q_r$ for the student:
#
# $$L = \frac{1}{N} \sum_{t} \Big[ \sum_{i \in K_t} p_i \log \frac{p_i}{q_i} + p_r \log \frac{p_r}{q_r} \Big]$$
#
# with a mean over the N positions that count. Merging events never raises a divergence, so this is a lower bound on the full KL; never
# negative, and exact for K = V.
#
# ### Your turn
# {{16.cached_kd}}
#
# Write `cached_kd(logits, tokens, log_probs, mask)`.
#
# - `logits` (B, T, V) are the student's. `tokens` (B, T, K) and `log_probs` (B, T, K) are the teacher's most probable
#   tokens **at the same positions**, and their log-probabilities over all V tokens. Nothing needs to be shifted.
#   {= the value; the gradient}
# - `mask` (B, T) is boolean. Where it is False, everything may be NaN. No position that counts: the loss is 0, and so is
#   its gradient (`backward` works). {= the value; NaN where nothing counts does no harm; no position counts}
# - It is 0 for a student that agrees with the teacher, never negative, and never more than the full KL.
#   {= zero for a student that agrees; never negative, and never more than the full KL}
# - Loss and gradient stay exact however sure the student is of the K tokens. {= a student that is very sure}
# - It works, gradient included, for K = V (then there is no rest), and where cached probabilities add up to
#   a little more than 1, since they were rounded: then $p_r$ is 0.
#   {= the full KL when all tokens are kept; rounded log-probabilities}
# - Return a scalar in the dtype of `logits`, in nats per token. {= the value}


# %% exercise="16.cached_kd"
def cached_kd(
    logits: Tensor,  # (B, T, V)
    tokens: Tensor,  # (B, T, K), int64
    log_probs: Tensor,  # (B, T, K)
    mask: Tensor,  # (B, T), boolean
) -> Tensor:
    """Forward KL over K tokens and the rest as one event: a scalar, in nats per token."""
    ### BEGIN SOLUTION
    z, kept, log_p = logits[mask], tokens[mask], log_probs[mask]
    total = z.logsumexp(-1, keepdim=True)
    p = log_p.exp()
    terms = (p * (log_p - z.gather(-1, kept) + total)).sum(-1)
    if kept.shape[-1] < z.shape[-1]:
        p_rest = (1 - p.sum(-1)).clamp(min=0)
        log_q_rest = z.scatter(-1, kept, float("-inf")).logsumexp(-1) - total[:, 0]
        terms = terms + torch.special.xlogy(p_rest, p_rest) - p_rest * log_q_rest
    return terms.sum() / max(1, len(terms))
    ### END SOLUTION


# %% check="16.cached_kd"
check("16.cached_kd", cached_kd)

# %% [markdown] hints="16.cached_kd"
# - The student's log-probabilities of the K tokens come from a softmax over all V. How do you get at K entries of a (N, V) tensor?
# - $q_r$ is $1 - \sum q_i$ on paper. In numbers that is 0 as soon as the student is sure, and log 0 follows. Is there a way to add up the *other* logits directly?
# - `gather` picks the K logits; `logsumexp` over all is the softmax's denominator; `scatter` can set the K logits to minus infinity, so that a second `logsumexp` is the numerator of the rest. `torch.special.xlogy(p, p)` is 0 for p = 0. For K = V leave the rest out: $1 - \sum p_i$ is then not 0 but rounding, and $q_r$ is 0.

# %% [markdown] expect="16.cached_kd"
# In the next cell the loss grows with K towards the full KL and never passes it.

# %% tags=["nbval-ignore-output"]
one = smollm2.stories(n=2)
z = logits_of(student, one)
full_log_p = logits_of(teacher, one).log_softmax(-1)
for k in (1, 4, 32, 256, V):
    best = full_log_p.topk(k)
    print(f"K = {k:5d}: {cached_kd(z, best.indices, best.values, one.mask):.3f} nats")

# %% [markdown]
# Now ask the teacher about all training stories. With K = 32, a token takes 128 bytes in place of
# 12,232, and the teacher can leave the memory for good. The bar moves for a minute or two, once.

# %% tags=["nbval-ignore-output"]
K = 32
learn = smollm2.stories(n=scale(4, 372, 372))
started = time.process_time()
known, values = smollm2.top_k(teacher, learn.ids, K)
seconds_teacher = time.process_time() - started
size = known.nbytes + values.nbytes
share = values.float().exp().sum(-1)[:, :-1][learn.mask].mean()
print(f"{size / 1e6:.1f} MB, {seconds_teacher:.0f} processor seconds, {share:.0%} of the mass")

# %% [markdown]
# ## 16.5 Recover
#
# Two students start from the same ten layers and see the same stories in the same order. One learns from
# the text alone; the teacher wrote that text, so this already is sequence-level distillation (unit 11).
# The other never looks at which token was written: it learns from your loss on the cached probabilities.

# %%
STEPS = scale(2, 60, 400)


def draw(g: torch.Generator) -> Tensor:
    """Four stories for an update."""
    return torch.randint(len(learn.ids), (4,), generator=g)


# %%
def recover(weight: float) -> nn.Module:
    """Train the ten layers; `weight` is the share of the distillation loss."""
    model = keep_layers(teacher, kept).requires_grad_(True)

    def loss(m: nn.Module, rows: Tensor) -> Tensor:
        ids, mask = learn.ids[rows].to(DEVICE), learn.mask[rows].to(DEVICE)
        with smollm2.autocast(DEVICE):
            logits = m(ids).logits[:, :-1]
        logits = logits.float()
        text = sequence_nll(logits, ids[:, 1:], mask)
        if weight == 0:
            return text
        at = known[rows, :-1].long().to(DEVICE), values[rows, :-1].float().to(DEVICE)
        return (1 - weight) * text + weight * cached_kd(logits, *at, mask)

    fit_tokens(model, draw, loss, steps=STEPS, lr=5e-4)
    return model.requires_grad_(False)


# %% tags=["nbval-ignore-output"]
students = {}
for name, weight in (("fine-tuning", 0.0), ("distillation", 1.0)):
    started = time.process_time()
    students[name] = recover(weight)
    spent = time.process_time() - started
    print(f"{name}: {cost(students[name]):.2f} nats per token, {spent:.0f} processor seconds")
    print(story(students[name]))

# %% [markdown]
# One run, one seed. The stored run (`python -m evidence u16_recovery`) has 80 updates, five seeds, all 60 test
# stories, and more arms: both losses, half and half; fine-tuning with twice the updates, which pays for the time the
# teacher's answers took; the first ten layers instead of chosen ones; and ten layers with fresh weights between the teacher's embeddings
# (these two learn half and half).

# %%
stored = evidence.load("u16_recovery")
results = stored["results"]
names = sorted(results, key=lambda arm: sum(results[arm]["nll"]))
_, axes = plots.figure(2, height=3.0, width=9.0, sharey=True)
for ax, metric in zip(axes, ("nll", "acceptance"), strict=True):
    for y, arm in enumerate(names):
        found = results[arm][metric]
        ax.plot(found, [y] * len(found), "o", color=plots.BLUE, alpha=0.6)
axes[0].set_xlabel("cost (nats per token)")
axes[1].set_xlabel("drafted tokens that stay (percent)")
axes[0].set_yticks(range(len(names)), names)
axes[0].set_ylim(len(names) - 0.5, -0.5)
plots.show(
    "Two panels of dots, a dot for each seed: cost, and drafted tokens that stay. Mean cost in nats "
    f"per token: {plots.spell({a: sum(e['nll']) / len(e['nll']) for a, e in results.items()}, '.2f')}."
)

# %%
print("nats per token, against fine-tuning at equal tokens, KL to the teacher, seconds")
for arm in names:
    e = results[arm]
    gain = e.get("nll_difference")
    against = "{:+.3f} [{:+.3f}, {:+.3f}]".format(*gain) if gain else ""
    mean = sum(e["nll"]) / len(e["nll"])
    kl, spent = (sum(e[m]) / len(e[m]) for m in ("kl", "seconds"))
    print(f"  {arm:36s} {mean:.2f} {against:24s} {kl:.2f} {spent:4.0f} s")
longer = stored["against_fine_tuning_twice_the_updates"]
for metric, unit in (("nll", "nats"), ("acceptance", "points that stay")):
    gain = "{:+.2f} [{:+.2f}, {:+.2f}]".format(*longer[f"{metric}_difference"])
    print(f"distillation against fine-tuning with twice the updates: {gain} {unit}")
print(f"the teacher's answers took {stored['cache_seconds']} s, once for all students")

# %% [markdown]
# *Figure and table: dots are seeds; differences are paired, with 95 % intervals, negative is better;
# seconds are processor seconds of the student's training. The right panel is explained in the next section.*
#
# - **Probabilities add to the teacher's own text.** At equal tokens distillation is a quarter of a nat ahead, with
#   every seed on that side. A sampled token says one thing; the distribution says what else could have come.
# - **At equal work, too.** The teacher's answers took as long as 80 updates. The same time spent on more
#   fine-tuning leaves it behind by about a fifth of a nat. (And one cache serves every student that you try.)
# - **Half and half lies between.** These labels are samples of the teacher. They say nothing that the
#   distribution does not, and add noise. With labels from the world it may be otherwise (unit 02).
# - **What you start from counts more than how you teach.** The first ten layers are a nat worse after
#   the same training, fresh weights nearly two.
# - **The right panel has another winner.** Longer fine-tuning pays more per token and is *further* from the teacher in KL,
#   and still its drafts stay half a point more often than the distilled student's. KL and acceptance are two measures of
#   closeness. Choose by the one that your job needs.
# - **All are far from the teacher's 1.7 nats**, after 80 updates of four stories. Minitron (arXiv 2407.14679) retrains its pruned
#   models, by distillation, on up to 3 % of the data that the original was trained on.

# %% [markdown]
# ## 16.6 A job for the student: drafting
#
# A large model writes slowly because it writes one token per pass. But *checking* several tokens takes it
# one pass as well: it gives its distribution after each prefix at once. So let the small model
# draft G tokens, and let the large one check. Done in the right way, the result is distributed **exactly** as if
# the large model had written alone (Leviathan et al., arXiv 2211.17192, algorithm 1):
#
# - Drafted token $x_t$, drawn from $q_t$, stays with probability $\min(1, p_t(x_t)/q_t(x_t))$.
# - At the first that does not, everything after it is dropped too, and one token is drawn in its place from
#   $\max(0, p_t - q_t)$, normalised: what the draft said too rarely.
# - If all stay, the large model's last distribution gives one token more, for free.
#
# Every shortcut changes the distribution. Public code has drawn the replacement from $p$ itself, has let the draft write
# greedily and treated its tokens as if they had been sampled (huggingface/transformers #32867), and has compared
# with a $q$ that the token was not drawn from (#47932).
#
# ### Your turn
# {{16.accept_draft}}
#
# Write `accept_draft(drafted, q, p, uniforms)`.
#
# - `drafted` (G,) are tokens; `q` (G, V) are the distributions that they were drawn from; `p` (G + 1, V) are the
#   large model's, with one row more. {= distributed as the large model; many drafts}
# - `uniforms` (G + 1,) are random numbers in [0, 1), so that your function has no randomness of its own. Number t
#   decides about drafted token t: it stays if `uniforms[t] * q < p`. The last one, `uniforms[G]`, draws the added
#   token, in either case: it is the first token whose cumulative probability exceeds the number.
#   {= the first refusal ends it; probabilities and uniforms of 0; many drafts}
# - Return the tokens that stay and the added one, (n + 1,), int64.
#   {= all stay, and one more; tokens are whole numbers}


# %% exercise="16.accept_draft"
def accept_draft(
    drafted: Tensor,  # (G,), int64
    q: Tensor,  # (G, V)
    p: Tensor,  # (G + 1, V)
    uniforms: Tensor,  # (G + 1,)
) -> Tensor:
    """The drafted tokens that stay, and one more: (n + 1,)."""
    ### BEGIN SOLUTION
    stay, rest = len(drafted), p[-1]
    for t, token in enumerate(drafted.tolist()):
        if uniforms[t] * q[t, token] >= p[t, token]:
            stay, rest = t, (p[t] - q[t]).clamp(min=0)
            break
    cumulative = rest.cumsum(0)
    added = (cumulative <= uniforms[-1] * cumulative[-1]).sum().clamp(max=p.shape[1] - 1)
    return torch.cat([drafted[:stay], added[None]])
    ### END SOLUTION


# %% check="16.accept_draft"
check("16.accept_draft", accept_draft)

# %% [markdown] hints="16.accept_draft"
# - Go through the drafted tokens in order. What do you need to remember when one is refused, and what when none is?
# - In both cases the last step is the same: draw one token from *some* row of weights. Only the row differs.
# - Drawing with a given number u: the cumulative sum of the weights, and the first place where it exceeds u times their total. That needs no normalising.

# %% [markdown] expect="16.accept_draft"
# Of two models that agree everything stays; a token that the large model holds impossible never does.

# %%
agree = torch.tensor([[0.5, 0.3, 0.2]])
print(accept_draft(torch.tensor([1]), agree, agree.repeat(2, 1), torch.tensor([0.99, 0.1])))
never = torch.tensor([[1.0, 0.0, 0.0], [0.2, 0.2, 0.6]])
print(accept_draft(torch.tensor([1]), agree, never, torch.tensor([0.0, 0.5])))

# %% [markdown]
# How often does a drafted token stay? Draw x from q and accept with min(1, p/q):
#
# $$\alpha = \sum_x q(x) \min\Big(1, \frac{p(x)}{q(x)}\Big) = \sum_x \min(p(x), q(x)) = 1 - \mathrm{TV}(p, q)$$
#
# Total variation, which you met in unit 01 as one divergence among others, is *the* divergence of this job (theorem 3.5 and
# corollary 3.6). You can know a draft's worth before you have decoded a single token.
#
# ### Your turn
# {{16.acceptance}}
#
# Write `acceptance(p_logits, q_logits, mask, temperature)`: the mean of $\alpha$ over the tokens that count.
#
# - Both logits are (B, T, V); `mask` (B, T) is boolean; both models decode at the same `temperature`,
#   1 unless it is given. {= the value; at a temperature}
# - It is a probability, 1 for equal models and 0 for models that never agree; which of the two drafts does not
#   matter. {= a probability, and 1 for equal models; the two models may change places}
# - All tokens that count weigh the same. {= the value}
# - Where the mask is False, logits may be NaN. {= NaN in the padding does no harm}
# - A temperature that is not positive, or no token that counts: a `ValueError`. {= bad input is refused}


# %% exercise="16.acceptance"
def acceptance(
    p_logits: Tensor,  # (B, T, V), the large model's
    q_logits: Tensor,  # (B, T, V), the draft's
    mask: Tensor,  # (B, T), boolean
    temperature: float = 1.0,
) -> Tensor:
    """Probability that a drafted token stays: a scalar in [0, 1]."""
    ### BEGIN SOLUTION
    if temperature <= 0 or not mask.any():
        raise ValueError("a positive temperature and a token that counts are needed")
    p = (p_logits[mask] / temperature).softmax(dim=-1)
    q = (q_logits[mask] / temperature).softmax(dim=-1)
    return torch.minimum(p, q).sum(dim=-1).mean()
    ### END SOLUTION


# %% check="16.acceptance"
check("16.acceptance", acceptance)

# %% [markdown] hints="16.acceptance"
# - The formula's sum runs over the vocabulary, for one token. What is left after it, and what is the mean taken over?
# - Mask first: `p_logits[mask]` is (N, V). Then probabilities, the smaller one of each pair, the sum, the mean.

# %% [markdown] expect="16.acceptance"
# The pruned model's drafts hardly ever stay; training raises that several times over.

# %% tags=["nbval-ignore-output"]
p_logits = logits_of(teacher, test)
alphas = {"pruned": acceptance(p_logits, logits_of(student, test), test.mask).item()}
for name, m in students.items():
    alphas[name] = acceptance(p_logits, logits_of(m, test), test.mask).item()
for name, alpha in alphas.items():
    print(f"{name:14s} {alpha:.1%} of the drafted tokens should stay")

# %% [markdown]
# Does it hold? Decode with your `accept_draft`, and count. (The next cell uses no cache, so it is slow; it is
# there to count, not to be fast. The contexts are the ones that come up in decoding, not the test
# stories', so expect agreement up to a few points.)

# %% tags=["nbval-ignore-output"]
draft = students["distillation"]
looked = stayed = 0
for row in range(scale(1, 4, 8)):
    prompt = test.ids[row, : int(test.prompt_lengths[row])].to(DEVICE)
    with smollm2.autocast(DEVICE):
        _, n, k = spec.generate(
            lambda ids: teacher(ids).logits,
            lambda ids: draft(ids).logits,
            prompt,
            scale(4, 30, 60),
            drafted=3,
            generator=torch.Generator(DEVICE).manual_seed(row),
            accept=accept_draft,
        )
    looked, stayed = looked + n, stayed + k
print(f"{stayed} of {looked} drafted tokens stayed: {stayed / max(1, looked):.0%}")

# %% [markdown]
# Is that worth it? With G drafted tokens, and a draft that takes the share c of the large model's time per
# pass, the expected speed against plain decoding is (theorem 3.8)
#
# $$\frac{1 - \alpha^{G+1}}{(1 - \alpha)(G c + 1)}$$
#
# Measure c on this machine, and read the figure before you read on: should this draft be used?


# %%
def seconds(model: nn.Module, assistant: nn.Module | None = None, length: int = 40) -> float:
    """Time of one decoded token, with a cache, the best of three."""
    prompt = test.ids[:1, : int(test.prompt_lengths[0])].to(DEVICE)
    how = {"attention_mask": torch.ones_like(prompt), "max_new_tokens": length}
    how |= {"do_sample": True, "top_k": 0, "assistant_model": assistant}
    best = float("inf")
    for _ in range(scale(1, 3, 3)):
        started = time.perf_counter()
        with smollm2.quiet():
            out = model.generate(prompt, **how)
        best = min(best, (time.perf_counter() - started) / (out.shape[1] - prompt.shape[1]))
    return best


# %% tags=["nbval-ignore-output"]
plain, small = seconds(teacher), seconds(draft)
c = small / plain
print(f"teacher {1000 * plain:.0f} ms a token, draft {1000 * small:.0f} ms: c = {c:.2f}")

# %% tags=["nbval-ignore-output"]
_, ax = plots.figure(height=3.0)
grid = torch.linspace(0, 0.99, 100).tolist()
for number, G in enumerate((1, 2, 4, 8)):
    ax.plot(
        grid, [spec.speedup(a, G, c) for a in grid], color=plots.PALETTE[number], label=f"G = {G}"
    )
ax.axhline(1, color=plots.BLACK, lw=0.8, ls="--")
for number, (name, alpha) in enumerate(alphas.items()):
    ax.axvline(alpha, color=plots.BLACK, lw=0.6, ls=":")
    ax.text(alpha, 2.45 - 0.7 * (number == 1), name, rotation=90, va="top", ha="right", fontsize=8)
ax.set_ylim(0, 2.5)
ax.set_xlabel("probability α that a drafted token stays")
ax.set_ylabel("speed against plain decoding")
ax.legend(fontsize=9)
plots.show(
    "Speed against plain decoding over acceptance, four rising curves for G = 1, 2, 4 and 8. With "
    f"G = 2: {plots.spell({n: spec.speedup(a, 2, c) for n, a in alphas.items()}, '.2f')} times."
)
fastest = max((spec.speedup(alphas["distillation"], G, c), G) for G in range(1, 9))
print("the best that theory gives this draft: {:.2f} times, with G = {}".format(*fastest))

# %% [markdown]
# *Figure: expected speed over acceptance, at the cost c of this draft. Below the dashed line, drafting is slower
# than not drafting. Dotted: your three models.*

# %% tags=["nbval-ignore-output"]
draft.generation_config.num_assistant_tokens = 2
draft.generation_config.num_assistant_tokens_schedule = "constant"
draft.generation_config.assistant_confidence_threshold = 0.0
assisted = seconds(teacher, draft)
print(f"measured: {plain / assisted:.2f} times the speed of plain decoding, with G = 2")

# %% [markdown]
# **An honest failure.** With G = 1 the formula says: drafting pays as soon as $\alpha > c$. Two drafted tokens in five stay,
# and this draft takes more than a third of the large model's time, so theory gives a few percent at best. In practice it is
# much slower than plain decoding. The formula takes for granted that checking several tokens takes as long as one
# pass for one. On a GPU that waits for its memory this is nearly so; a processor has to calculate for each token. And somebody
# has to do the book-keeping between two models.
#
# What would help? Distillation moves $\alpha$, and it cannot move c. A third of the layers is far too big a draft: it
# should be ten or fifty times smaller than its model, and there are no such models below 135 million weights. Where there are,
# distilled drafts decode 10 to 45 % faster than ordinary ones (Zhou et al., arXiv 2310.08461, abstract).

# %% [markdown]
# ## 16.7 The same at work
#
# At work nobody writes the training loop anew. TRL's `GKDTrainer` does what you did, without a cache: `lmbda=0`
# says that the data are given (1 would be on-policy, unit 12), `beta=0` says forward KL. Its batches carry labels, in
# which -100 marks what does not count. First of all: **is its loss your loss?** With all V tokens kept,
# yours has no rest.


# %%
def collate(rows: list[dict]) -> dict[str, Tensor]:
    """A batch as TRL wants it: labels are the tokens, -100 where nothing is learned."""
    at = torch.tensor([row["story"] for row in rows])
    ids, labels = learn.ids[at], learn.ids[at].clone()
    labels[:, 0] = -100
    labels[:, 1:][~learn.mask[at]] = -100
    return {"input_ids": ids, "attention_mask": torch.ones_like(ids), "labels": labels}


# %% tags=["nbval-ignore-output"]
if REAL:
    import os

    os.environ["TRL_EXPERIMENTAL_SILENCE"] = "1"
    from datasets import Dataset
    from trl.experimental.gkd import GKDConfig, GKDTrainer

    usual = {"logging_steps": 1, "save_strategy": "no", "report_to": [], "disable_tqdm": True}
    usual |= {"use_cpu": DEVICE == "cpu", "bf16": False, "per_device_train_batch_size": 4}
    recipe = GKDConfig("trl", lmbda=0.0, beta=0.0, max_steps=6, learning_rate=5e-4, **usual)
    trainer = GKDTrainer(
        model=keep_layers(teacher, kept).requires_grad_(True),
        teacher_model=teacher,
        args=recipe,
        data_collator=collate,
        train_dataset=Dataset.from_dict({"story": list(range(len(learn.ids)))}),
        processing_class=tokenizer,
    )

# %% tags=["nbval-ignore-output"]
batch = {k: v.to(DEVICE) for k, v in collate([{"story": 0}, {"story": 1}]).items()}
with torch.no_grad():
    mine_q = student(batch["input_ids"]).logits[:, :-1]
    mine_p = teacher(batch["input_ids"]).logits[:, :-1].log_softmax(-1)
everything = mine_p.topk(V)
counts = batch["labels"][:, 1:] != -100
mine = cached_kd(mine_q, everything.indices, everything.values, counts).item()
print(f"your loss:  {mine:.6f} nats per token")
if REAL:
    with torch.no_grad():
        theirs = trainer.compute_loss(trainer.model, batch).item()
    print(
        f"TRL's loss: {theirs:.6f} nats per token, relative difference {abs(mine / theirs - 1):.0e}"
    )

# %% [markdown]
# The same number, from code that shares nothing with yours. Now let it train for a few steps:

# %% tags=["nbval-ignore-output"]
if REAL:
    trainer.train()

# %% [markdown]
# Two differences are worth a thought. TRL asks the teacher in **every** step, at two thirds of the time of such a step; your
# cache asks once. And it needs the logits of all V tokens of both models in memory at the same time: here
# that is little, with 128,000 tokens it decides what fits.
#
# ### Your turn, in words
# {{16.memo}}
#
# A colleague wants to ship a chat model that is three times smaller than the team's own, and asks whether to
# prune and distil, to fine-tune a pruned model, or to use a small one as a draft for the large one. Write at most ten
# sentences. Use at least three numbers of this unit with their intervals or conditions, say what this unit did
# **not** measure, and name the one experiment that you would run first.

# %% [markdown] written="16.memo" points=4 minutes=12
# I would prune and distil, but not expect it to be quick. Ten chosen layers of thirty pay 7.6 nats per token before training
# (five calibration sets), where the whole model pays 1.7; after 80 updates on the teacher's own stories they pay
# 3.5 with distillation and 3.8 with fine-tuning, a difference of a quarter of a nat on all five seeds. The teacher's answers cost as
# much time as the training; spent on more fine-tuning, that time closes only a part of the gap, so
# distillation is worth its price here, and the cache serves every further student. Choosing the layers matters more: the first
# ten are a nat worse. As a draft, none of these students pays on this machine, since it is too slow for the
# share of tokens that stay, about two in five. Not measured: answers as people judge them, text other than the teacher's
# own, other models, long training, a GPU. I would first train the 15- and 20-layer students for ten times as long, with and
# without distillation, and test on requests from our users; if fine-tuning on their text catches up there, the cache is not
# worth its trouble.

# %% [markdown] rubric="16.memo"
# - 1 point: at least three measured numbers, each with its interval or its condition (tokens, layers, test text).
# - 1 point: weighs the cost of the teacher's answers against more fine-tuning, rather than quoting equal updates alone.
# - 1 point: names a limit: test stories from the teacher's own distribution, one model, short training, one machine, no judgement of quality by people.
# - 1 point: a first experiment that could change the decision, with a control.

# %% [markdown]
# ## Further reading
#
# - Men et al., *ShortGPT: Layers in Large Language Models are More Redundant Than You Expect*, arXiv 2403.03853
# - Muralidharan et al., *Compact Language Models via Pruning and Knowledge Distillation* (Minitron), arXiv 2407.14679
# - Leviathan, Kalman, Matias, *Fast Inference from Transformers via Speculative Decoding*, arXiv 2211.17192
# - Zhou et al., *DistillSpec: Improving Speculative Decoding via Knowledge Distillation*, arXiv 2310.08461
# - Ben Allal et al., *SmolLM2: When Smol Goes Big*, arXiv 2502.02737
#
# This is the last unit for now. Edge devices, safety and policy, and a capstone are in preparation.
