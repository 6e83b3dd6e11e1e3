# ---
# jupyter:
#   kernelspec:
#     display_name: Python 3
#     language: python
#     name: python3
# ---

# %% [markdown]
# # 01 · Divergences
#
# Distillation makes one distribution like another. So before anything is distilled: how far apart
# are two distributions, and which of several answers to that question do you want to minimise?
#
# After this unit you can
#
# - compute log-probabilities, cross-entropies and divergences that survive any logits,
# - say what `F.kl_div` expects, and what it does when it gets something else,
# - move between forward and reverse KL, and say what each asks of a student that is too small,
# - recognise in a result which of the usual mistakes was made.
#
# You need about 90 minutes. Notation: $p$ is the teacher, $q$ the student; all numbers are in nats
# (natural logarithms). Every function works on the last dimension and returns one number per row.

# %%
import math

import torch
import torch.nn.functional as F
from torch import Tensor

from kdlib import check, evidence
from kdlib.notebook import knobs, plots

# %% [markdown]
# ## 1.1 Log-probabilities
#
# Every divergence below is a sum of probabilities times logarithms of probabilities. Written down
# naively, both fail for logits that networks do produce:

# %%
z = torch.tensor([800.0, 0.0, -800.0])
print("exp:        ", z.exp().tolist())
print("naive:      ", (z.exp() / z.exp().sum()).log().tolist())
print("log_softmax:", F.log_softmax(z, dim=-1).tolist())

# %% [markdown]
# The remedy is exact, not an approximation. Adding a constant to all logits of a row changes no
# probability, so choose the constant that makes the largest exponent zero:
#
# $$\log q_i = \frac{z_i}{T} - m - \log \sum_j \exp\left(\frac{z_j}{T} - m\right),
# \qquad m = \max_j \frac{z_j}{T}$$
#
# ### Your turn
# {{01.log_softmax}}
#
# Write `log_softmax(logits, temperature)` from `exp`, `log`, `sum` and a maximum.
#
# - `logits` is (N, C); return (N, C) log-probabilities at temperature $T$.
# - Not allowed: torch's own `log_softmax`, `softmax`, `logsumexp`, `cross_entropy`.
# - Logits in the thousands give finite numbers.
# - A temperature that is not positive raises a `ValueError` that says what was given.


# %% exercise="01.log_softmax"
def log_softmax(logits: Tensor, temperature: float = 1.0) -> Tensor:
    """Log-probabilities at a temperature: (N, C) -> (N, C)."""
    ### BEGIN SOLUTION
    if temperature <= 0:
        raise ValueError(f"temperature must be positive, got {temperature}")
    scaled = logits / temperature
    shifted = scaled - scaled.amax(dim=-1, keepdim=True)
    return shifted - shifted.exp().sum(dim=-1, keepdim=True).log()
    ### END SOLUTION


# %% check="01.log_softmax"
check("01.log_softmax", log_softmax)

# %% [markdown] hints="01.log_softmax"
# - Which constant can you add to a row so that no `exp` can overflow and the sum cannot be zero?
# - Shift first, then everything else is as in the formula without $m$. `keepdim=True` keeps (N, 1) next to (N, C).

# %% [markdown] expect="01.log_softmax"
# The line below agrees with the library's last line above.

# %%
print(log_softmax(torch.tensor([[800.0, 0.0, -800.0]])).tolist())

# %% [markdown]
# ## 1.2 Entropy and cross-entropy
#
# The entropy $H(p) = -\sum_i p_i \log p_i$ says how undecided a distribution is: 0 when it is sure,
# $\log C$ when it is uniform over $C$ classes. The cross-entropy
#
# $$H(p, q) = -\sum_i p_i \log q_i$$
#
# is what it costs to code symbols drawn from $p$ with a code made for $q$. With a one-hot $p$ it is
# the loss you know. Distillation uses it with a whole distribution as the target.
#
# ### Your turn
# {{01.soft_cross_entropy}}
#
# Write `soft_cross_entropy(logits, target_probs)`.
#
# - `logits` is (N, C), the student's; `target_probs` is (N, C), rows sum to one, zeros allowed.
# - Return (N,): one number per row. Whoever calls you decides how to reduce.
# - Large logits must not give NaN where a target is zero.


# %% exercise="01.soft_cross_entropy"
def soft_cross_entropy(logits: Tensor, target_probs: Tensor) -> Tensor:
    """Cross-entropy against a distribution: (N, C), (N, C) -> (N,)."""
    ### BEGIN SOLUTION
    return -(target_probs * F.log_softmax(logits, dim=-1)).sum(dim=-1)
    ### END SOLUTION


# %% check="01.soft_cross_entropy"
check("01.soft_cross_entropy", soft_cross_entropy)

# %% [markdown] hints="01.soft_cross_entropy"
# - Whose logarithm is taken, and whose probabilities are the weights?
# - The library's `F.log_softmax` is allowed here; what is left is one product, one sum, one sign.

# %% [markdown] expect="01.soft_cross_entropy"
# In the figure below the three curves meet where the student agrees with the teacher.

# %%
q1 = torch.linspace(0.01, 0.99, 99)  # the student's probability of class 1, of two
student = torch.stack([q1.log(), (1 - q1).log()], dim=-1)
p = torch.tensor([0.7, 0.3]).expand(99, 2)
cross = soft_cross_entropy(student, p)
entropy = -(p * p.log()).sum(-1)
_, ax = plots.figure(height=3.2)
ax.plot(q1, cross, label="cross-entropy H(p, q)")
ax.plot(q1, entropy, "--", label="entropy H(p)")
ax.plot(q1, cross - entropy, label="difference: KL(p || q)")
ax.set_xlabel("student's probability of class 1 (teacher: 0.7)")
ax.set_ylabel("nats")
ax.legend()
plots.show(
    "Cross-entropy, entropy and KL over the student's probability of class 1. Cross-entropy and KL "
    f"are smallest at {q1[cross.argmin()]:.2f}: {cross.min():.3f} nats, which is the entropy, "
    f"and {abs((cross - entropy).min()):.3f}."
)

# %% [markdown]
# *Figure: two classes, teacher (0.7, 0.3). Cross-entropy and KL have their minimum at the same place
# and the same slope everywhere; only the KL is zero there.*

# %% [markdown]
# ## 1.3 KL divergence
#
# $$\mathrm{KL}(p \,\|\, q) = \sum_i p_i\,(\log p_i - \log q_i) = H(p, q) - H(p) \;\ge\; 0$$
#
# It is not symmetric. $\mathrm{KL}(p\|q)$ with the teacher first is the **forward** KL, the one of
# unit 02. PyTorch's `F.kl_div(input, target)` computes $\mathrm{KL}(\text{target} \,\|\, \text{input})$:
# the student's *log*-probabilities come first, the teacher second. Public projects have swapped the two
# networks (keras-team/keras-io #257), passed probabilities where logarithms belong (microsoft/ProDA #20)
# and averaged over the classes (facebookresearch/deit #61), and nothing crashed.
#
# ### Your turn
# {{01.kl_divergence}}
#
# Write `kl_divergence(teacher_logits, student_logits, temperature)`.
#
# - Both are (N, C) logits; both are divided by the temperature. Return (N,).
# - Zero when they agree; never negative; finite for logits in the thousands.
# - A temperature that is not positive raises a `ValueError`.


# %% exercise="01.kl_divergence"
def kl_divergence(
    teacher_logits: Tensor, student_logits: Tensor, temperature: float = 1.0
) -> Tensor:
    """Forward KL(p || q) of each row: (N, C), (N, C) -> (N,)."""
    ### BEGIN SOLUTION
    if temperature <= 0:
        raise ValueError(f"temperature must be positive, got {temperature}")
    log_p = F.log_softmax(teacher_logits / temperature, dim=-1)
    log_q = F.log_softmax(student_logits / temperature, dim=-1)
    return (log_p.exp() * (log_p - log_q)).sum(dim=-1)
    ### END SOLUTION


# %% check="01.kl_divergence"
check("01.kl_divergence", kl_divergence)

# %% [markdown] hints="01.kl_divergence"
# - In the sum, with whose probabilities is the difference of logarithms weighed?
# - Stay in log space for both, and use `exp` once, for the weights.

# %% [markdown] expect="01.kl_divergence"
# The cell below computes the same thing by the library call, in its own order of arguments, and
# prints `True`.

# %%
v, z = torch.randn(2, 4, 10, generator=torch.Generator().manual_seed(0)).unbind(0)
library = F.kl_div(
    z.log_softmax(-1),  # the student, first
    v.log_softmax(-1),  # the teacher, second
    reduction="none",
    log_target=True,
).sum(-1)
print(torch.allclose(kl_divergence(v, z), library, atol=1e-6))

# %% [markdown]
# ## 1.4 Between the two
#
# The generalised Jensen-Shannon divergence compares both with their mixture
# ([arXiv 2306.13649](https://arxiv.org/abs/2306.13649)):
#
# $$\mathrm{JSD}_\beta(p \| q) = \beta\,\mathrm{KL}(p \| m) + (1-\beta)\,\mathrm{KL}(q \| m),
# \qquad m = \beta p + (1-\beta) q$$
#
# $\beta$ is the teacher's share. The mixture is one of **probabilities**. As $\beta \to 0$,
# $\mathrm{JSD}_\beta/\beta$ tends to the forward KL; as $\beta \to 1$,
# $\mathrm{JSD}_\beta/(1-\beta)$ tends to the reverse KL.
#
# ### Your turn
# {{01.generalized_jsd}}
#
# Write `generalized_jsd(teacher_logits, student_logits, beta)`.
#
# - Both are (N, C) logits; return (N,).
# - `beta` outside (0, 1), ends included, raises a `ValueError`: there the value is zero whatever the
#   student does.
# - Stay finite for logits in the thousands: `torch.logaddexp(a, b)` is $\log(e^a + e^b)$ without
#   leaving log space.


# %% exercise="01.generalized_jsd"
def generalized_jsd(teacher_logits: Tensor, student_logits: Tensor, beta: float) -> Tensor:
    """JSD_beta(p || q) of each row: (N, C), (N, C) -> (N,)."""
    ### BEGIN SOLUTION
    if not 0 < beta < 1:
        raise ValueError(f"beta must lie strictly between 0 and 1, got {beta}")
    log_p = F.log_softmax(teacher_logits, dim=-1)
    log_q = F.log_softmax(student_logits, dim=-1)
    log_m = torch.logaddexp(log_p + math.log(beta), log_q + math.log(1 - beta))
    kl_p = (log_p.exp() * (log_p - log_m)).sum(dim=-1)
    kl_q = (log_q.exp() * (log_q - log_m)).sum(dim=-1)
    return beta * kl_p + (1 - beta) * kl_q
    ### END SOLUTION


# %% check="01.generalized_jsd"
check("01.generalized_jsd", generalized_jsd)

# %% [markdown] hints="01.generalized_jsd"
# - What is the logarithm of $\beta p_i$, in terms of $\log p_i$?
# - Two KL divergences share the same second argument. Compute $\log m$ once.
# - $\log m$ has the shape `torch.logaddexp(log_p + ..., log_q + ...)`. Take `math.log` of beta.

# %% [markdown] expect="01.generalized_jsd"
# In the figure below, the scaled divergence starts at the forward KL on the left.

# %%
betas = torch.linspace(0.001, 0.999, 60)
row_p, row_q = v[:1], z[:1]
scaled = [generalized_jsd(row_p, row_q, float(b)).item() / float(b) for b in betas]
mirrored = [generalized_jsd(row_p, row_q, float(b)).item() / (1 - float(b)) for b in betas]
_, ax = plots.figure(height=3.2)
ax.plot(betas, scaled, label=r"JSD / $\beta$")
ax.plot(betas, mirrored, label=r"JSD / (1 - $\beta$)")
ax.axhline(kl_divergence(row_p, row_q).item(), ls="--", color=plots.BLUE, label="forward KL")
ax.axhline(kl_divergence(row_q, row_p).item(), ls=":", color=plots.VERMILLION, label="reverse KL")
ax.set_xlabel(r"$\beta$")
ax.set_ylabel("nats")
ax.legend()
plots.show(
    f"JSD over beta, rescaled. Divided by beta it starts at {scaled[0]:.2f} nats, the forward KL "
    f"(dashed line); divided by 1 - beta it ends at {mirrored[-1]:.2f}, the reverse KL (dotted)."
)

# %% [markdown]
# *Figure: one pair of distributions. Divided by β it starts at the forward KL (left end of the blue
# line); divided by 1 − β it ends at the reverse KL (right end of the other).*
#
# Move beta yourself and watch the mixture between the two:


# %% tags=["nbval-ignore-output"]
def show_mixture(beta: float) -> None:
    p, q = row_p[0].softmax(-1), row_q[0].softmax(-1)
    _, ax = plots.figure(height=2.6)
    ax.plot(p, "o-", label="p")
    ax.plot(q, "s-", label="q")
    ax.plot(beta * p + (1 - beta) * q, "^--", label=f"m, beta = {beta:.2f}")
    ax.set_xlabel("class")
    ax.set_ylabel("probability")
    ax.legend()
    plots.show(
        f"p, q and their mixture at beta = {beta:.2f} over {len(p)} classes. The mixture lies between: "
        f"for class 0, p is {p[0]:.2f}, q {q[0]:.2f}, m {beta * p[0] + (1 - beta) * q[0]:.2f}."
    )


knobs(show_mixture, beta=(0.01, 0.99, 0.3, 0.01))

# %%
show_mixture(0.3)

# %% [markdown]
# *Figure: the slider's picture at beta = 0.3. The mixture lies between the two, nearer to q.*

# %% [markdown]
# ## 1.5 Total variation
#
# The plainest distance of all: how much probability would have to move?
#
# $$\mathrm{TV}(p, q) = \tfrac12 \sum_i |p_i - q_i|$$
#
# It lies between 0 and 1, is symmetric, and comes back in unit 16: a draft model's proposals are
# accepted with probability 1 - TV. Pinsker's inequality ties it to the KL:
# $\mathrm{TV} \le \sqrt{\mathrm{KL}/2}$.
#
# ### Your turn
# {{01.total_variation}}
#
# Write `total_variation(teacher_logits, student_logits)`.
#
# - Both are (N, C) logits; return (N,), no number above one.


# %% exercise="01.total_variation"
def total_variation(teacher_logits: Tensor, student_logits: Tensor) -> Tensor:
    """Total variation distance of each row: (N, C), (N, C) -> (N,)."""
    ### BEGIN SOLUTION
    p, q = teacher_logits.softmax(dim=-1), student_logits.softmax(dim=-1)
    return 0.5 * (p - q).abs().sum(dim=-1)
    ### END SOLUTION


# %% check="01.total_variation"
check("01.total_variation", total_variation)

# %% [markdown] hints="01.total_variation"
# - Two distributions that agree on nothing: what should the distance be, and what is the plain sum of differences?
# - One line, after two softmaxes.

# %% [markdown] expect="01.total_variation"
# Up to a KL of 2 every point of the figure below lies under the dashed line. Beyond, the bound is above one and
# says nothing.

# %%
many = torch.randn(2, 600, 10, generator=torch.Generator().manual_seed(1)) * 2
kl, tv = kl_divergence(many[0], many[1]), total_variation(many[0], many[1])
_, ax = plots.figure(height=3.2)
ax.scatter(kl, tv, s=8, alpha=0.5)
x = torch.linspace(0, 2, 100)
ax.plot(x, (x / 2).sqrt(), "k--", label="Pinsker's bound")
ax.set_xlim(0, 6)
ax.set_xlabel("KL(p || q), nats")
ax.set_ylabel("TV(p, q)")
ax.legend()
plots.show(
    f"600 dots, total variation over KL, and Pinsker's bound as a dashed curve. TV grows with KL and "
    f"flattens below one: it is at most {tv.max():.2f}, at a KL of {kl[tv.argmax()]:.1f} nats."
)
print("points above the bound:", int((tv > (kl / 2).sqrt() + 1e-6).sum()))

# %% [markdown]
# *Figure: 600 random pairs. A small KL forces a small TV; a large KL says nothing, since TV cannot
# pass one.*

# %% [markdown]
# ## 1.6 Which direction?
#
# If the student can become the teacher, every divergence has the same minimum. It matters which one
# you take when the student is **too small**. Here is the smallest case: the target has two modes, the
# student is one Gaussian.
#
# ### Your turn, in words
# {{01.prediction}}
#
# **Predict before you run.** A Gaussian is fitted to a target with two well separated modes, once by
# minimising KL(p || q) and once KL(q || p), where p is the target. Where will each fit put its mean,
# and how wide will it be? Argue from the formula: which points does each expectation visit, and where
# is the logarithm expensive?

# %% [markdown] written="01.prediction" points=3 minutes=8
# Forward KL takes the expectation under p. Both modes are visited, and wherever q is nearly zero there
# the term -log q is huge. So q must cover both modes: its mean lies between them, its standard
# deviation is large, and much of its mass lies in the valley where p has almost none. Reverse KL takes
# the expectation under q. Where q puts no mass nothing is paid, even if p is large; but mass in the
# valley costs a lot, as -log p is huge there. So q sits on one mode with about that mode's width, and
# which one depends on the start.

# %% [markdown] rubric="01.prediction"
# - 1 point: forward KL covers both modes (mean in between, wide), with the reason that the expectation is under p and -log q explodes where q is small.
# - 1 point: reverse KL sits on one mode (narrow), with the reason that the expectation is under q and -log p explodes in the valley.
# - 1 point: says that the choice of the mode depends on the start (or on the modes' weights), or that forward KL puts mass where the target has none.

# %%
grid = torch.linspace(-8, 8, 801, dtype=torch.float64)


def gaussian(mean, std) -> Tensor:
    return -0.5 * ((grid - mean) / std) ** 2  # logits over the grid


target = torch.logaddexp(
    gaussian(-2.5, 0.6).log_softmax(0) + math.log(0.45),
    gaussian(2.5, 0.7).log_softmax(0) + math.log(0.55),
)


# %%
def fit_gaussian(divergence, start: float, steps: int = 600) -> tuple[float, float]:
    mean = torch.tensor(start, dtype=torch.float64, requires_grad=True)
    log_std = torch.zeros((), dtype=torch.float64, requires_grad=True)
    optimizer = torch.optim.Adam([mean, log_std], lr=0.05)
    for _ in range(steps):
        optimizer.zero_grad()
        divergence(target[None], gaussian(mean, log_std.exp())[None]).sum().backward()
        optimizer.step()
    return mean.item(), log_std.exp().item()


# %%
fits = {
    "forward KL": fit_gaussian(kl_divergence, 0.5),
    "reverse KL, from the right": fit_gaussian(lambda p, q: kl_divergence(q, p), 1.5),
    "reverse KL, from the left": fit_gaussian(lambda p, q: kl_divergence(q, p), -1.5),
    "JSD, beta = 0.5": fit_gaussian(lambda p, q: generalized_jsd(p, q, 0.5), 0.5),
}
for name, (mean, std) in fits.items():
    print(f"{name:28s} mean {mean:+.2f}, standard deviation {std:.2f}")

# %%
step = (grid[1] - grid[0]).item()
_, ax = plots.figure(height=3.4)
ax.fill_between(grid, target.softmax(0) / step, color="0.85", label="target p")
for (name, (mean, std)), style in zip(fits.items(), ("-", "--", ":", "-."), strict=True):
    ax.plot(grid, gaussian(mean, std).softmax(0) / step, style, label=name)
ax.set_xlabel("x")
ax.set_ylabel("density")
ax.set_ylim(0, 0.95)
ax.legend()
plots.show(
    "Densities over x: a target with two modes, and four fitted Gaussians: "
    + "; ".join(f"{name} at {mean:+.1f}, std {std:.1f}" for name, (mean, std) in fits.items())
)

# %% [markdown]
# *Figure: forward KL covers, reverse KL seeks. The forward fit has its top where the target has
# almost nothing.*
#
# One target is an anecdote. The stored run fits twenty random mixtures from random starts
# (`python -m evidence u01_mode_seeking` regenerates it), and compares with the reverse KL, pair by
# pair:

# %%
stored = evidence.load("u01_mode_seeking")
print(f"{len(stored['seeds'])} mixtures; mean difference to reverse KL with 95 % interval")
for name, found in stored["differences"].items():
    (std, low, high), (mass, mass_low, mass_high) = found["std"], found["valley"]
    print(f"{name:27s} std {std:+.2f} [{low:+.2f}, {high:+.2f}]", end="   ")
    print(f"share in the valley {mass:+.2f} [{mass_low:+.2f}, {mass_high:+.2f}]")
own = sum(stored["valley_of_the_target"]) / len(stored["seeds"])
print(f"the targets' own share in the valley: {own:.3f}")
reverse = stored["arms"]["reverse KL(q || p)"]["valley"]
print(f"reverse KL stayed between the modes in {sum(v > 0.1 for v in reverse)} of {len(reverse)}")

# %% [markdown]
# The forward fit is wider and puts a good part of its mass where the target has almost none. For a
# language model such mass is text that no teacher would write; for a classifier on images it is mere
# caution. And the symmetric JSD is no safe middle: in this setting it mostly covers, too. Nor is
# seeking a law: the last line counts the mixtures where gradient descent left the reverse fit between
# the modes, in a local minimum.
#
# ### Your turn, in words
# {{01.choose}}
#
# You distil a large language model into one a hundredth of its size, to answer questions with one
# text each. Which direction of the KL would you try first, and what would you watch for with each?
# Use what you saw; two or three sentences each.

# %% [markdown] written="01.choose" points=3 minutes=8
# The student cannot represent everything the teacher can say. Forward KL would make it spread over all
# that the teacher might say, and put probability on text in between that the teacher would never
# write; sampled answers would show it as nonsense. Reverse KL makes it commit to some of the teacher's
# answers, which is what a single good answer needs; I would try it first. With it I would watch
# diversity (entropy of the samples, whether some kinds of answer are gone) and the dependence on the
# start; with forward KL I would watch the quality of samples, for instance the teacher's likelihood of
# them.

# %% [markdown] rubric="01.choose"
# - 1 point: names what forward KL does to a student that is too small (covers, mass on what the teacher would not say).
# - 1 point: names what reverse KL does (commits to some modes, loses diversity).
# - 1 point: gives a measurable warning sign for each direction. Either choice earns full points when argued.

# %% [markdown]
# ## Further reading
#
# - Agarwal et al., *On-Policy Distillation of Language Models*, arXiv 2306.13649
# - Gu et al., *MiniLLM* (reverse KL for language models), arXiv 2306.08543
#
# Next: unit 02, where the forward KL at a temperature becomes a training loss.
