# ---
# jupyter:
#   kernelspec:
#     display_name: Python 3
#     language: python
#     name: python3
# ---

# %% [markdown]
# # 05 · Structure in the logits
#
# The loss of unit 02 treats a row of logits as one distribution and asks the student to match it.
# Three papers take that row apart and ask for something else:
#
# - **DKD** ([arXiv 2203.08679](https://arxiv.org/abs/2203.08679)) separates the target from the rest
#   and weighs the two by hand,
# - **logit standardisation** ([arXiv 2403.01427](https://arxiv.org/abs/2403.01427)) removes the scale
#   of the logits,
# - **DIST** ([arXiv 2205.10536](https://arxiv.org/abs/2205.10536)) asks for correlation instead of
#   equality.
#
# After this unit you can
#
# - split a distillation loss in two, and say which half does the work and which is held back,
# - write all three losses so that they survive a certain teacher and an undecided student,
# - say what each of them ignores, and when that helps,
# - tell a better loss from a heavier weight.
#
# You need about 85 minutes. Notation: $p$ is the teacher, $q$ the student, $v$ and $z$ their
# logits, $y$ the label, all probabilities at temperature $T$. A hat is a distribution over all
# classes but $y$.

# %%
import torch
import torch.nn.functional as F
from torch import Tensor

from kdlib import check, evidence
from kdlib.data import fashion_mnist
from kdlib.evaluation import accuracy, nll, predict
from kdlib.losses import kd_loss, kl_divergence
from kdlib.losses import structure as logits
from kdlib.models import CNN, load_teacher, seeded
from kdlib.notebook import plots
from kdlib.profile import scale
from kdlib.training import fit

# %%
train, test = fashion_mnist(train=True), fashion_mnist(train=False)
names = test.class_names
teacher_logits = predict(load_teacher("fashion_cnn"), train.inputs)  # (20000, 10)
print(f"teacher: {accuracy(teacher_logits, train.targets):.1%} of its training images right")

# %% [markdown]
# ## 5.1 A loss in two halves
#
# Write $b = (p_y,\ 1 - p_y)$ for the two events *it is the target* and *it is something else*, and
# $\hat p_j = p_j / (1 - p_y)$ for how the teacher shares out the rest. Then, in each row,
#
# $$\mathrm{KL}(p \,\|\, q) \;=\; \underbrace{\mathrm{KL}(b_p \,\|\, b_q)}_{\text{TCKD}}
# \;+\; (1 - p_y)\, \underbrace{\mathrm{KL}(\hat p \,\|\, \hat q)}_{\text{NCKD}}$$
#
# because $\log p_j = \log(1 - p_y) + \log \hat p_j$ for every wrong class $j$. TCKD says how *sure*
# to be. NCKD says which wrong classes are nearly right, and is the dark knowledge of
# unit 03. Plain distillation multiplies it by $1 - p_y$. How large is that factor on real images?


# %%
def doubt(logits: Tensor, targets: Tensor, temperature: float) -> Tensor:
    """1 - p_y, also where it is far below what 1 - p can resolve."""
    target = F.one_hot(targets, logits.shape[-1]).bool()
    z = logits.double() / temperature
    rest = z.masked_fill(target, -torch.inf).logsumexp(-1)
    return torch.sigmoid(rest - z[target])


_, ax = plots.figure(height=3.0)
bins = torch.logspace(-8, 0, 33)
for T, style in ((1.0, "stepfilled"), (4.0, "step")):
    found = doubt(teacher_logits, train.targets, T)
    ax.hist(found.clamp(min=1e-8), bins=bins, histtype=style, lw=2, alpha=0.8, label=f"T = {T:g}")
    print(f"T = {T:g}: mean {found.mean():.3f}, median {found.median():.4f}")
ax.set_xscale("log")
ax.set_xlabel("$1 - p_y$, the weight of NCKD in plain distillation")
ax.set_ylabel("training images")
ax.legend(loc="upper left")
plots.show(
    "Two histograms of 1 - p_y over the training images, on a logarithmic axis from 1e-8 to 1. The "
    f"median is {doubt(teacher_logits, train.targets, 1.0).median():.1g} at T = 1 (filled) and "
    f"{found.median():.2f} at T = 4 (outline)."
)

# %% [markdown]
# *Figure: at T = 1 half of the images have a factor below a thousandth: what the teacher thinks of
# their wrong classes hardly counts (the first bar holds all images below it, too). T = 4 lifts the
# median to about a quarter. Temperature is a first answer to the problem that DKD sees; keep that
# in mind when we compare.*
#
# A second fact about certain teachers. In float32, `1 - p` does not resolve anything below $6 \cdot
# 10^{-8}$:

# %%
found = doubt(teacher_logits, train.targets, 1.0)
print(f"1 - p_y is below 6e-8 for {(found < 6e-8).double().mean():.0%} of the images")
surest = found.argmin()
p_y = teacher_logits[surest].softmax(-1)[train.targets[surest]]
print("log(1 - p_y) of the surest, in float32:", torch.log(1 - p_y).item())

# %% [markdown]
# Code that forms the probabilities first, then masks, divides and takes logarithms, gives infinities
# or NaN on these images. It has happened in public: in
# [zhengli97/CTKD #9](https://github.com/zhengli97/CTKD/issues/9) a learned temperature was NaN after
# one backward pass through DKD.
#
# ### Your turn
# {{05.split_kd}}
#
# Write `split_kd(student_logits, teacher_logits, targets, temperature)`.
#
# - Logits are (B, C), `targets` (B,). Return a pair: TCKD and NCKD, each (B,), in nats, without
#   $T^2$.
# - The identity above has to hold in each row.
# - The teacher is a constant. The target is the label, also where the teacher prefers another
#   class.
# - Either network may be as certain as it likes: no NaN, no infinity. Do not form $1 - p_y$.
# - With two classes NCKD is zero. That needs no special case.
# - `kl_divergence(teacher_logits, student_logits)` from `kdlib.losses` gives a KL for each
#   row.


# %% exercise="05.split_kd"
def split_kd(
    student_logits: Tensor,  # (B, C)
    teacher_logits: Tensor,  # (B, C)
    targets: Tensor,  # (B,)
    temperature: float = 4.0,
) -> tuple[Tensor, Tensor]:
    """TCKD and NCKD of each row: (B,) and (B,), in nats."""
    ### BEGIN SOLUTION
    y = targets[:, None]
    others = torch.arange(student_logits.shape[1] - 1)
    others = others + (others >= y)  # (B, C - 1): every class but y
    pairs, rests = [], []
    for given in (teacher_logits.detach(), student_logits):
        z = given / temperature
        rest = z.gather(1, others)
        rests.append(rest)
        pairs.append(torch.cat([z.gather(1, y), rest.logsumexp(1, keepdim=True)], dim=1))
    return kl_divergence(*pairs), kl_divergence(*rests)
    ### END SOLUTION


# %% check="05.split_kd"
check("05.split_kd", split_kd)

# %% [markdown] hints="05.split_kd"
# - Which C - 1 numbers have $\hat p$ as their softmax? Which two numbers have $b$ as theirs?
# - $\hat p$ is the softmax of the other logits. $b$ is the softmax of the target's logit and of the `logsumexp` of the others.
# - For both networks: divide by T, pick `rest` (B, C - 1) and `pair` (B, 2). Then one KL on the pairs and one on the rests.

# %% [markdown] expect="05.split_kd"
# On the teacher's real logits against a student that knows nothing, the identity holds to about
# fifteen digits, and nothing is NaN at T = 1.

# %%
nothing = 0.1 * torch.randn(20000, 10, generator=torch.Generator().manual_seed(0)).double()
sure = teacher_logits.double()
for T in (1.0, 4.0):
    tckd, nckd = split_kd(nothing, sure, train.targets, T)
    whole = kl_divergence(sure, nothing, T)
    gap = (tckd + doubt(sure, train.targets, T) * nckd - whole).abs().max()
    print(
        f"T = {T:g}: TCKD {tckd.mean():.2f}, NCKD {nckd.mean():.2f}, identity to 1e-12: {gap < 1e-12}"
    )

# %% [markdown]
# The authors' own code hides the target another way: it takes 1,000 off its logit, after dividing
# by T ([mdistiller #1](https://github.com/megvii-research/mdistiller/issues/1) asks what the number
# means). That works while all logits, divided by T, are small against 1,000. Divide by T
# *afterwards*, and a high temperature brings the target back. Leaving the class out has no such
# limits.
#
# ## 5.2 Which half is held back
#
# Take a student that has learned 300 labels, and sort the images it has not seen by how sure the
# teacher is.

# %% tags=["nbval-ignore-output"]
student = seeded(0, CNN, 16)
few = slice(0, 300)
fit(student, train.inputs[few], train.targets[few], steps=scale(grade=20, cpu=300, full=300))
unseen = slice(300, 6300)
z, v, y = (predict(student, train.inputs[unseen]), teacher_logits[unseen], train.targets[unseen])

# %% tags=["nbval-ignore-output"]
tckd, nckd = split_kd(z, v, y, 4.0)
weight = doubt(v, y, 4.0)
groups = weight.argsort(descending=True).chunk(10)  # from hesitant to certain
x = [1 - weight[g].mean() for g in groups]
_, ax = plots.figure(height=3.2)
for values, marker, label in (
    (tckd, "o", "TCKD"),
    (nckd, "s", "NCKD"),
    (weight * nckd, "D", "$(1-p_y)$ NCKD, as in plain KD"),
):
    ax.plot(x, [values[g].mean() for g in groups], f"{marker}-", label=label)
ax.set_xlabel("teacher's $p_y$ at T = 4 (mean of each tenth of the images)")
ax.set_ylabel("divergence (nats)")
ax.set_ylim(bottom=0)
ax.legend()
plots.show(
    "Three divergences over the teacher's p_y, a mean for each tenth of the images. At "
    f"p_y = {x[-1]:.3f}: TCKD {tckd[groups[-1]].mean():.2f}, NCKD {nckd[groups[-1]].mean():.2f}, "
    f"(1 - p_y) NCKD {(weight * nckd)[groups[-1]].mean():.3f} nats."
)

# %% [markdown]
# *Figure: the surer the teacher (to the right), the more the student still has to learn about the
# rest, and the less of it is left in plain distillation: the factor falls faster than NCKD rises.
# On the tenth of the images where the teacher is surest, next to nothing of NCKD remains.*
#
# What do the two halves do to the logits? Differentiate each on one image and turn the sign, so that
# a bar points where a step of gradient descent would push.

# %%
sure_enough = (test.targets == 6) & (predict(load_teacher(), test.inputs).softmax(-1)[:, 6] > 0.9)
shirt = test.inputs[sure_enough][:1]
v1, y1 = predict(load_teacher(), shirt).double(), torch.tensor([6])


def push(z: Tensor, alpha: float, beta: float, T: float = 4.0) -> Tensor:
    """Minus the gradient of T^2 (alpha TCKD + beta NCKD) at one row of student logits."""
    z = z.clone().requires_grad_(True)
    tckd, nckd = split_kd(z, v1, y1, T)
    (T**2 * (alpha * tckd + beta * nckd)).sum().backward()
    return -z.grad[0]


# %%
def draw_push(ax, beta: float) -> None:
    z1 = torch.zeros(1, 10, dtype=torch.float64)
    for offset, (label, arm) in enumerate((("TCKD", (1, 0)), (f"{beta:g} x NCKD", (0, beta)))):
        ax.barh([i + 0.4 * offset - 0.2 for i in range(10)], push(z1, *arm), 0.4, label=label)
    ax.set_yticks(range(10), names)
    ax.invert_yaxis()
    ax.set_xlabel("push on the logit")
    ax.legend(loc="lower right", fontsize=8)


# %% tags=["nbval-ignore-output"]
from kdlib.notebook import knobs


def show_push(beta: float) -> None:
    _, ax = plots.figure(height=3.2)
    draw_push(ax, beta)
    plots.show(
        f"Bars of the push on ten logits by TCKD and by {beta:g} x NCKD, for a shirt. The strongest push "
        f"upwards of NCKD is {push(torch.zeros(1, 10).double(), 0, beta).max():.2f}."
    )


knobs(show_push, beta=(0.0, 8.0, 1.0, 0.25))

# %%
_, axes = plots.figure(3, height=3.2, width=8.4, sharey=True)
for ax, beta in zip(axes, (1 - float(v1.div(4).softmax(-1)[0, 6]), 1.0, 8.0), strict=True):
    draw_push(ax, round(beta, 2))
plots.show(
    "Bars of the push on ten logits of a shirt at three betas. TCKD pushes the shirt by "
    f"{push(torch.zeros(1, 10).double(), 1, 0)[6]:+.2f} each time; the strongest push upwards of "
    f"NCKD at beta = 8 is {push(torch.zeros(1, 10).double(), 0, 8).max():.2f}."
)

# %% [markdown]
# *Figure: a shirt, and a student that knows nothing. TCKD (blue) lifts the shirt and pushes all
# other classes down alike. NCKD (orange) never touches the shirt's own logit: it orders the rest,
# T-shirt up, shoes down. From left to right: this image's own factor in plain distillation, beta =
# 1, beta = 8. At 8 the strongest push of all lifts a class that is wrong. (Mind the axes.)*
#
# Both are right about something. But look at the last panel, and keep in mind that a small student
# has to divide its attention.

# %% [markdown]
# ## 5.3 Decoupled distillation
#
# Zhao et al. replace the factor $1 - p_y$, which the teacher sets for each image, by a constant that
# *you* set:
#
# $$L_{\mathrm{DKD}} = T^2\,(\alpha\,\mathrm{TCKD} + \beta\,\mathrm{NCKD}), \qquad
# \text{mean over rows}$$
#
# The defaults of the authors' code are $\alpha = 1$, $\beta = 8$, $T = 4$; cross-entropy with the
# labels comes on top. There is one trap that no shape error shows: in
# [mdistiller #60](https://github.com/megvii-research/mdistiller/issues/60) somebody used it for two
# classes, and NCKD was zero at best and infinite at worst.
#
# ### Your turn
# {{05.dkd_loss}}
#
# Write `dkd_loss(student_logits, teacher_logits, targets, temperature, alpha, beta)`.
#
# - Use `logits.split_kd` from kdlib here, so that this exercise stands on its own.
# - Return a scalar: the soft term alone, with $T^2$, a mean over the rows.
# - Fewer than three classes raise a `ValueError` that says why.


# %% exercise="05.dkd_loss"
def dkd_loss(
    student_logits: Tensor,  # (B, C)
    teacher_logits: Tensor,  # (B, C)
    targets: Tensor,  # (B,)
    temperature: float = 4.0,
    alpha: float = 1.0,
    beta: float = 8.0,
) -> Tensor:
    """Decoupled distillation loss of Zhao et al. 2022: a scalar, in nats."""
    ### BEGIN SOLUTION
    if student_logits.shape[-1] < 3:
        raise ValueError("with two classes NCKD is always zero: beta would weigh nothing")
    tckd, nckd = logits.split_kd(student_logits, teacher_logits, targets, temperature)
    return temperature**2 * (alpha * tckd + beta * nckd).mean()
    ### END SOLUTION


# %% check="05.dkd_loss"
check("05.dkd_loss", dkd_loss)

# %% [markdown] hints="05.dkd_loss"
# - What does a softmax over a single class always give?
# - Weigh the two results of `logits.split_kd` row by row, then average, then multiply by T squared.

# %% [markdown] expect="05.dkd_loss"
# The loss of the student from section 5.2 as beta grows: a straight line. Plain distillation is the
# point where each row has its own beta.

# %% tags=["nbval-ignore-output"]
for beta in (0.0, 1.0, 2.0, 8.0):
    print(f"beta = {beta:g}: {dkd_loss(z, v, y, beta=beta):.2f}")
print(f"plain KD: {kd_loss(z, v, y, temperature=4.0, alpha=1.0):.2f}")

# %% [markdown]
# ## 5.4 The scale of the logits
#
# Multiply a teacher's logits by four. It predicts the same classes, in the same order. But its soft
# targets harden, and plain distillation asks the student for the new scale as well:

# %%
for factor in (0.25, 1.0, 4.0):
    scaled = factor * teacher_logits
    confidence = (scaled / 4).softmax(-1).max(-1).values.mean()
    print(
        f"x{factor:<4g} accuracy {accuracy(scaled, train.targets):.1%}, "
        f"confidence at T = 4 {confidence:.2f}"
    )

# %% [markdown]
# Sun et al. argue that the order and the proportions of the logits are what a student should learn,
# and the scale is its own business. They standardise each row, the teacher's and the student's:
#
# $$s(z) = \frac{z - \operatorname{mean}(z)}{\operatorname{std}(z) + 10^{-7}}$$
#
# ### Your turn
# {{05.standardise}}
#
# Write `standardise(logits)`.
#
# - `logits` is (B, C), the result too: mean zero and standard deviation one in each row.
# - The deviation is the **unbiased** one, with C - 1 in the denominator, as in the authors' code.
# - A row of equal logits gives zeros, and a gradient without NaN.


# %% exercise="05.standardise"
def standardise(logits: Tensor) -> Tensor:
    """Each row with mean zero and standard deviation one: (B, C) -> (B, C)."""
    ### BEGIN SOLUTION
    centred = logits - logits.mean(dim=-1, keepdim=True)
    return centred / (logits.std(dim=-1, keepdim=True) + 1e-7)
    ### END SOLUTION


# %% check="05.standardise"
check("05.standardise", standardise)

# %% [markdown] hints="05.standardise"
# - Which dimension holds the logits of one image? What does `keepdim` keep?
# - `Tensor.std` is unbiased unless told otherwise. NumPy's is not.

# %% [markdown] expect="05.standardise"
# Three versions of the same rows come out as one.

# %%
rows = teacher_logits[:100].double()
same = standardise(rows)
for factor, shift in ((0.25, 0.0), (4.0, 0.0), (1.0, 30.0)):
    moved = (standardise(factor * rows + shift) - same).abs().max()
    print(f"logits x {factor:g} + {shift:g}: moved by less than 1e-5: {bool(moved < 1e-5)}")

# %% [markdown]
# Now the loss. The hard term keeps the logits as they are: it is what teaches the student its scale.
#
# $$L = \alpha\, T^2\, \mathrm{KL}\big(\mathrm{softmax}(s(v)/T) \,\|\, \mathrm{softmax}(s(z)/T)\big)
# + (1 - \alpha)\, \mathrm{CE}(y, q)$$
#
# ### Your turn
# {{05.standardised_kd}}
#
# Write `standardised_kd(student_logits, teacher_logits, targets, temperature, alpha)`.
#
# - Use `logits.standardise` from kdlib here.
# - Mind the order of standardising and dividing by T: one order makes T useless.
# - A scalar; the teacher is a constant; `alpha` weighs the soft term, as always in this course.


# %% exercise="05.standardised_kd"
def standardised_kd(
    student_logits: Tensor,  # (B, C)
    teacher_logits: Tensor,  # (B, C)
    targets: Tensor,  # (B,)
    temperature: float = 2.0,
    alpha: float = 0.9,
) -> Tensor:
    """Distillation on standardised logits (Sun et al. 2024): a scalar, in nats."""
    ### BEGIN SOLUTION
    z = logits.standardise(student_logits)
    v = logits.standardise(teacher_logits.detach())
    soft = kl_divergence(v, z, temperature).mean()
    return alpha * temperature**2 * soft + (1 - alpha) * F.cross_entropy(student_logits, targets)
    ### END SOLUTION


# %% check="05.standardised_kd"
check("05.standardised_kd", standardised_kd)

# %% [markdown] hints="05.standardised_kd"
# - Which of the two terms should notice that a student's logits have doubled?
# - Standardise both, divide by T, KL as in unit 02, times T squared. The hard term gets the raw logits.

# %% [markdown] expect="05.standardised_kd"
# The soft term does not see the student's scale, so its gradient has no part along the student's
# (centred) logits: the product printed below is zero up to rounding.

# %%
z1 = torch.randn(8, 10, dtype=torch.float64, generator=torch.Generator().manual_seed(1))
z1.requires_grad_(True)
standardised_kd(z1, rows[:8], train.targets[:8], alpha=1.0).backward()
along = (z1.grad * (z1 - z1.mean(-1, keepdim=True))).sum(-1).abs().max().item()
print(f"gradient along the logits below 1e-6: {along < 1e-6}; its length: {z1.grad.norm():.2f}")

# %% [markdown]
# (A library that you may meet, torchdistill, has this loss as `LogitStdKDLoss`. Given no targets, its
# version 1.1.5 returns the KL without the factor $T^2$; the paper's loss has it always.)
#
# ## 5.5 Correlation instead of equality
#
# Huang et al. go further. Let $P$ and $Q$ be the (B, C) matrices of probabilities at temperature T.
# The student need not be *equal* to the teacher; it is enough that each row of Q **correlates**
# with the same row of P (which classes does this image resemble?) and each column with the same
# column (which images resemble this class?):
#
# $$L_{\mathrm{DIST}} = T^2\Big[\beta\, \operatorname*{mean}_{n}\big(1 - r(P_{n\cdot}, Q_{n\cdot})\big)
# + \gamma\, \operatorname*{mean}_{c}\big(1 - r(P_{\cdot c}, Q_{\cdot c})\big)\Big]$$
#
# with Pearson's $r(a, b) = \dfrac{\sum_i (a_i - \bar a)(b_i - \bar b)}{\|a - \bar a\|\,\|b - \bar b\|}$.
#
# ### Your turn
# {{05.dist_loss}}
#
# Write `dist_loss(student_logits, teacher_logits, temperature, beta, gamma)`.
#
# - One softmax for each network, along the classes. Then look at the matrix in two directions.
# - `beta` weighs the rows, `gamma` the columns; both parts are means.
# - A student that finds all classes equally probable has rows without spread. Their correlation
#   counts as zero, and the gradient must not be NaN. A term of about $10^{-8}$ in the denominator
#   will do.
# - The teacher is a constant.


# %% exercise="05.dist_loss"
def dist_loss(
    student_logits: Tensor,  # (B, C)
    teacher_logits: Tensor,  # (B, C)
    temperature: float = 4.0,
    beta: float = 1.0,
    gamma: float = 1.0,
) -> Tensor:
    """Relations between classes and between images (Huang et al. 2022): a scalar."""
    ### BEGIN SOLUTION
    q = F.softmax(student_logits / temperature, dim=-1)
    p = F.softmax(teacher_logits.detach() / temperature, dim=-1)

    def apart(a: Tensor, b: Tensor) -> Tensor:
        a, b = a - a.mean(-1, keepdim=True), b - b.mean(-1, keepdim=True)
        return 1 - F.cosine_similarity(a, b, dim=-1, eps=1e-8).mean()

    return temperature**2 * (beta * apart(q, p) + gamma * apart(q.T, p.T))
    ### END SOLUTION


# %% check="05.dist_loss"
check("05.dist_loss", dist_loss)

# %% [markdown] hints="05.dist_loss"
# - Pearson's correlation of two vectors is the cosine of two other vectors. Which?
# - Write a helper for the rows of a matrix. The columns of a matrix are the rows of its transpose.
# - Inside the helper: subtract each row's mean, `F.cosine_similarity` along the row, one minus its mean.

# %% [markdown] expect="05.dist_loss"
# In the next figure the student is the teacher with its logits multiplied by a factor. Each loss has
# its own opinion of what that costs.

# %%
factors = torch.logspace(-2, 2, 33, base=2.0)
v, y = teacher_logits[:500].double(), train.targets[:500]
curves = {
    "plain KD, T = 4": lambda z: kd_loss(z, v, y, 4.0, alpha=1.0),
    "NCKD alone, T = 4": lambda z: dkd_loss(z, v, y, 4.0, alpha=0.0, beta=1.0),
    "DIST, T = 4": lambda z: dist_loss(z, v, 4.0),
    "standardised KD, T = 2": lambda z: standardised_kd(z, v, y, 2.0, alpha=1.0),
}
_, ax = plots.figure(height=3.2)
for (label, loss), marker in zip(curves.items(), "osD^", strict=True):
    ax.plot(factors, [loss(f * v) for f in factors], marker=marker, markevery=4, label=label)
ax.set_xscale("log", base=2)
ax.set_xlabel("student's logits = teacher's logits times")
ax.set_ylabel("loss")
ax.legend()
plots.show(
    "Four losses over the student's scale, from a quarter to four times the teacher's. Four times: "
    f"{plots.spell({label: loss(4 * v) for label, loss in curves.items()}, '.2f')}."
)

# %% [markdown]
# *Figure: the same knowledge at another scale. Plain distillation and NCKD punish every scale but the
# teacher's own, a larger one most. Standardised distillation sees nothing at all, and DIST little: a
# softmax is not linear, so a correlation of probabilities still feels the scale somewhat.*
#
# Blindness cuts both ways. If a loss cannot see the student's scale, it cannot teach it either: how
# sure the student is, is then left to the hard term.

# %% [markdown]
# ## 5.6 Two classes have no structure
#
# Many real tasks are binary. What is left of the three ideas there?

# %%
pair_v = torch.tensor([[4.0, 1.0], [0.2, 0.1], [-3.0, 2.0]], dtype=torch.float64)
pair_z = torch.tensor([[0.3, 0.1], [9.0, 2.0], [5.0, -1.0]], dtype=torch.float64)
right = torch.tensor([0, 0, 1])
print("NCKD:              ", [f"{x:.3f}" for x in logits.split_kd(pair_z, pair_v, right).nckd])
print("standardised rows: ", [f"{a:+.3f} {b:+.3f}" for a, b in logits.standardise(pair_v)])
print(
    "correlation of rows:",
    [f"{r:.3f}" for r in logits.pearson(pair_z.softmax(-1), pair_v.softmax(-1))],
)

# %% [markdown]
# Nothing: NCKD is zero, every standardised row is $(\pm 0.707, \mp 0.707)$, and every correlation
# of two rows is one or minus one, however sure anybody is. What remains is which class is the
# larger, and that is what a hard label says. All three return a number all the same.
# (Only DIST's columns remain, says its author in
# [thread 11](https://github.com/hunto/image_classification_sota/issues/11) of his repository.) In a
# binary task use the plain loss.

# %% [markdown]
# ## 5.7 Do they help?
#
# The student learns from 300 labelled images with the teacher's logits as they are, or multiplied by
# four.
#
# ### Your turn, in words
# {{05.prediction}}
#
# **Predict before you run.** (a) Rank *TCKD alone*, *NCKD alone* ($\alpha = 0, \beta = 1$), *plain
# KD* and *DKD with $\beta = 8$* by test accuracy. (b) What happens to plain KD and to standardised
# KD when the teacher's logits are multiplied by four? Give reasons from sections 5.1 to 5.5, and
# say which result would prove you wrong. Come back after the experiment and add what you saw.

# %% [markdown] written="05.prediction" points=3 minutes=8
# Prediction: (a) DKD with beta = 8, then plain KD, then NCKD alone, then TCKD alone. TCKD says of
# the target little more than the label does, and the dark knowledge is in NCKD, which plain KD
# holds back by 1 - p_y. NCKD alone should still beat TCKD alone, since the hard term looks after
# the target. (b) Plain KD gets worse at x4: its targets become hard and it asks for logits four
# times as large. Standardised KD does not notice the factor. What would prove me wrong: TCKD alone
# ahead of plain KD, or standardised KD moving with the factor.
#
# After the run: (b) came out as predicted, and in NLL more than in accuracy. In (a) I was right
# that TCKD alone gains nothing, and wrong twice. NCKD alone is by far the worst: its gradient never
# touches the target's logit, and a hard term of weight 0.1 is too weak to put the target in its
# place among classes that are being ordered at full force. And beta = 8 loses to plain KD, for the
# same reason in a milder form.

# %% [markdown] rubric="05.prediction"
# - 1 point: a ranking with reasons that use the split (what each half says about a row), and a prediction for both losses at x4 that uses what each ignores.
# - 1 point: says what result would contradict the prediction.
# - 1 point: after the run, compares with the measured intervals, names at least one surprise or confirmation, and explains it. A wrong prediction, well explained, earns full points.

# %%
SEEDS = range(scale(grade=1, cpu=3, full=10))
STEPS = scale(grade=10, cpu=300, full=600)
LOSSES = {
    "plain KD": lambda z, v, y: kd_loss(z, v, y, 4.0, 0.9),
    "DKD, beta = 8": lambda z, v, y: 0.9 * dkd_loss(z, v, y) + 0.1 * F.cross_entropy(z, y),
    "standardised KD": standardised_kd,
}


def trained(loss, seed: int, factor: float) -> tuple[float, float]:
    rows = torch.randperm(20000, generator=torch.Generator().manual_seed(seed))[:300]
    model = seeded(seed, CNN, 16)
    how = {"teacher_logits": factor * teacher_logits[rows], "loss_fn": loss}
    how |= {"steps": STEPS, "seed": seed, "progress": False}
    fit(model, train.inputs[rows], train.targets[rows], **how)
    found = predict(model, test.inputs)
    return 100 * accuracy(found, test.targets), nll(found, test.targets)


# %% tags=["nbval-ignore-output"]
for name, loss in LOSSES.items():
    for factor in (1.0, 4.0):
        runs = [trained(loss, seed, factor) for seed in SEEDS]
        mean = [sum(r[i] for r in runs) / len(runs) for i in (0, 1)]
        print(f"{name:16s} teacher x{factor:g}: accuracy {mean[0]:.1f} %, NLL {mean[1]:.2f} nats")

# %% [markdown]
# Three seeds and half the steps tell you that your code runs, and little more. The stored
# experiment has more seeds, and the controls; `python -m evidence u05_logit_structure` regenerates
# it. First, all arms against the labels alone.

# %%
stored = evidence.load("u05_logit_structure")
gains = stored["gains"]
arms, regimes = stored["arms"], stored["regimes"]
print(f"{len(stored['seeds'])} seeds, {stored['steps']} steps")

# %%
_, ax = plots.figure(height=4.8)
for offset, (regime, marker) in enumerate(zip(regimes, "osD", strict=True)):
    found = [(i, gains[regime][arm]) for i, arm in enumerate(arms) if arm in gains[regime]]
    means = [m for _, (m, _, _) in found]
    spread = [[m - lo for _, (m, lo, _) in found], [hi - m for _, (m, _, hi) in found]]
    height = [i + 0.2 * (offset - 1) for i, _ in found]
    ax.errorbar(means, height, xerr=spread, fmt=marker, ms=4, capsize=2, label=regime)
ax.axvline(0, color="black", lw=0.8)
ax.set_yticks(range(len(arms)), arms)
ax.invert_yaxis()
ax.set_xlabel("test accuracy against labels alone (points)")
ax.legend(fontsize=8)
plots.show(
    f"Accuracy of {len(arms)} arms against labels alone, with 95 % intervals, in points. Plain KD: "
    f"{plots.spell({r: gains[r]['plain KD'] for r in regimes})}. DIST: "
    f"{plots.spell({r: gains[r]['DIST'] for r in regimes})}."
)

# %% [markdown]
# *Figure: paired 95 % intervals over seeds; to the right of the line, the teacher helps. All arms
# have T = 4 (standardised KD: T = 2). With 300 labels plain KD and DKD with beta up to 2 gain about
# three points; NCKD alone is far off to the left unless the labels weigh as much. With a teacher
# whose logits are multiplied by four, plain KD's gain is gone, DKD with beta = 1 and DIST keep a
# part of theirs, and standardised KD keeps all. With 2,000 labels nothing gains: at T = 4 so many
# labels know better, as in unit 02.*

# %%
compared = stored["results"]["300 labels"]
print(f"{'300 labels, against plain KD':30s}{'accuracy':>19s}{'NLL':>22s}{'NLL, rescaled':>22s}")
for arm in arms[1:]:  # the first one is plain KD
    line = f"{arm:30s}"
    for metric, places, room in (("accuracy", 1, 19), ("nll", 2, 22), ("nll_fitted", 2, 22)):
        mean, low, high = compared[arm][f"{metric}_difference"]
        line += f"{f'{mean:+.{places}f} [{low:+.{places}f}, {high:+.{places}f}]':>{room}s}"
    print(line)

# %% [markdown]
# Four things to read here.
#
# - **Neither half does it alone.** (Against the labels alone, as in the figure; plain KD is three points above
#   them.) TCKD without NCKD gains nothing over the labels. NCKD without TCKD
#   loses nearly nine points, because nobody tells the target's logit where to go; with the labels
#   weighed as heavily as NCKD it gains one point of the three. Together they gain all three.
# - **Decoupling as such changes nothing here.** The same average weight, a constant instead of
#   $1 - p_y$: the interval includes zero. So does $\beta = 1$, in accuracy.
# - **$\beta = 8$ costs three points here**, and still more than two with heavier labels.
# - **A lower NLL need not be better knowledge.** Every $\beta$ from 1 up lowers NLL. The last column
#   divides each student's logits by one temperature first, fitted on 2,000 images that no student
#   was trained on: then a sliver of it remains at $\beta = 1$ and 2, and at 4 and 8 the sign turns.
#
# And yet the argument for decoupling is sound. It says that NCKD starves where the teacher is
# certain. So look where the teacher is certain everywhere, with its logits multiplied by four:

# %%
compared = stored["results"]["300 labels, teacher's logits x4"]
for arm in ("DKD, beta = mean of 1 - p_y", "DKD, beta = 1", "DKD, beta = 8", "standardised KD"):
    mean, low, high = compared[arm]["accuracy_difference"]
    print(f"{arm:28s} against plain KD: {mean:+.1f} [{low:+.1f}, {high:+.1f}] points")

# %% [markdown]
# There the same average weight, given to all rows alike, is worth half a point, and $\beta = 1$
# nearly one. That is the paper's effect, isolated. Standardising is worth more.
#
# The authors report the opposite on CIFAR-100 (a ResNet8x4 taught by a ResNet32x4: 73.33 % with
# plain KD, 76.32 % with DKD, according to their
# [repository](https://github.com/megvii-research/mdistiller)). Both can be true. They have a
# hundred classes, so far more rest to learn about; a student with room for it; and 240 epochs.
# Their code also compares 0.1 CE + 0.9 KD with 1.0 CE + TCKD + 8 NCKD and a warm-up: several
# weights change at once.
#
# ### Your turn, in words
# {{05.weight_or_decoupling}}
#
# "DKD beats distillation only because its soft term is heavier", says a colleague. Which two
# weights change when you go from plain KD to DKD with $\beta = 8$? Which arms of the stored
# experiment vary one of them alone, and what do they show? Would the same arms settle the question
# on another data set?

# %% [markdown] written="05.weight_or_decoupling" points=3 minutes=8
# Two weights change: that of the soft term as a whole against the labels, and, inside it, that of
# NCKD against TCKD; the latter also becomes the same for all images. "Soft weight x10" varies the
# first alone: it differs from plain KD by a tenth of a point, so that weight explains nothing here.
# "beta = mean of 1 - p_y" keeps both weights as they are on average and only removes the coupling
# to each image's certainty: nothing with the teacher as it is, half a point with the hardened one.
# The series beta = 1, 2, 4, 8 varies the balance of NCKD and TCKD: accuracy stays at first and
# falls from 4 on. "Labels heavier" shows that the loss at 8 is not for want of labels. So the
# colleague is wrong: weight does nothing, decoupling a little where the teacher is certain, and too
# much NCKD harms. On another data set I would run the same arms before I believe anything: with a
# hundred classes, a larger student or a surer teacher NCKD may deserve eight times the weight, and
# the soft term's total weight may matter when labels are noisy.

# %% [markdown] rubric="05.weight_or_decoupling"
# - 1 point: names both: the weight of the soft term against the hard one, and the weight of NCKD against TCKD (with "1 - p_y of each row" replaced by a constant as part of it).
# - 1 point: names the arms that isolate them (soft weight x10, labels heavier; beta = mean of 1 - p_y; the series of betas) and reads their intervals correctly.
# - 1 point: says what does not carry over (the balance depends on student, teacher, number of classes, temperature and labels) and would run the same controls there.

# %% [markdown]
# ## 5.8 The rescaled teacher
#
# The same teacher, the same predictions, its logits multiplied by 1/4 to 4.

# %%
rescaled = stored["rescaled"]
_, axes = plots.figure(2, height=3.4, width=8.4)
for ax, metric, unit in zip(axes, ("accuracy", "nll"), ("points", "nats"), strict=True):
    series = {
        arm: [rescaled[x][arm][f"{metric}_difference"] for x in rescaled]
        for arm in ("plain KD", "DKD, beta = 1", "standardised KD", "DIST")
    }
    plots.lines_with_intervals(ax, list(rescaled), series)
    ax.axhline(0, color="black", lw=0.8)
    ax.set_xlabel("teacher's logits times")
    ax.set_ylabel(f"{metric.replace('nll', 'NLL')} against labels alone ({unit})")
axes[0].get_legend().remove()
plots.show(
    "Accuracy (left) and NLL (right) against labels alone over the factor on the teacher's logits, "
    f"with 95 % intervals. NLL at x0.25: "
    f"{plots.spell({arm: points[0] for arm, points in series.items()}, '+.2f')}; at "
    f"x4: {plots.spell({a: points[-1] for a, points in series.items()}, '+.2f')}."
)

# %% [markdown]
# *Figure: paired 95 % intervals over seeds; on the left up is better, on the right down is better.
# Plain KD and DKD are best with a softened teacher and lose with a hardened one, plain KD most.
# Standardised KD is a flat line; DIST falls little.*

# %%
for arm, entry in stored["drift"].items():
    points, nats = entry["accuracy_difference"], entry["nll_difference"]
    print(
        f"{arm:16s} from x1 to x4: {points[0]:+.1f} [{points[1]:+.1f}, {points[2]:+.1f}] points, "
        f"NLL {nats[0]:+.2f} [{nats[1]:+.2f}, {nats[2]:+.2f}] nats"
    )

# %% [markdown]
# Standardising does what it promises: its student does not notice the factor at all. It is an
# insurance, and has a premium: with the teacher's logits as they are, plain KD is half a point
# ahead, and with a softened teacher more. Who knows the teacher's scale can simply choose a
# temperature that suits it; who does not know, or has many teachers, may want the insurance.
#
# And a student that is told nothing of its scale finds it slowly, through the hard term alone. In
# your live run, with half the steps, its NLL was high for that reason.
#
# ## What to take along
#
# - A distillation loss is two losses. Look at both before you change the weight of their sum.
# - Each of the three methods removes something: a coupling, a scale, a demand for equality. Each is
#   blind to what it removed, so something else has to look after it.
# - Work with logits, not with probabilities: at T = 1 one image in eight would have given NaN.
# - An effect reported with 100 classes need not be there with 10, and with 2 it cannot be.
#
# ## Further reading
#
# - Zhao et al., *Decoupled Knowledge Distillation*, arXiv 2203.08679
# - Huang et al., *Knowledge Distillation from A Stronger Teacher*, arXiv 2205.10536
# - Sun et al., *Logit Standardization in Knowledge Distillation*, arXiv 2403.01427
#
# Next: unit 06, where the student looks inside the teacher.
