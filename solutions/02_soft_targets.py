# ---
# jupyter:
#   kernelspec:
#     display_name: Python 3
#     language: python
#     name: python3
# ---

# %% [markdown]
# # 02 · Soft targets
#
# A trained classifier says more than the class it picks. Shown a shirt, it gives a little
# probability to *T-shirt* and *coat* and almost none to *sandal*. Hinton, Vinyals and Dean
# ([arXiv 1503.02531](https://arxiv.org/abs/1503.02531)) trained small networks on those whole
# distributions, the **soft targets**, and called it distillation.
#
# After this unit you can
#
# - show what a teacher knows beyond its predictions,
# - write the distillation loss, derive its gradient, and say what the factor $T^2$ is for,
# - run distillation without the mistakes that public code has made,
# - say from measurements when soft targets help, and when they do not.
#
# You need about 110 minutes. Notation: $p$ is the teacher, $q$ the student, $v$ and $z$ their
# logits, and $p^T = \mathrm{softmax}(v/T)$.

# %%
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from kdlib import check, evidence
from kdlib.data import fashion_mnist
from kdlib.evaluation import accuracy, model_size, paired_interval, predict
from kdlib.models import CNN, load_teacher, seeded
from kdlib.notebook import plots
from kdlib.profile import scale
from kdlib.training import fit

# %% [markdown]
# ## 2.1 What a teacher knows
#
# The teacher is a convolutional network that was trained on all 60,000 Fashion-MNIST images, at
# 14x14 pixels. It is a constant from here on. Of those images the course ships 20,000; students learn
# from these.

# %%
train, test = fashion_mnist(train=True), fashion_mnist(train=False)
names = test.class_names
teacher = load_teacher("fashion_cnn")
teacher_test = predict(teacher, test.inputs)  # (10000, 10) logits
print(
    f"teacher: {accuracy(teacher_test, test.targets):.1%} of {len(test.targets)} test images right"
)

# %% [markdown]
# Look at three shirts. The title gives the teacher's three most probable classes.

# %%
shirts = (test.targets == 6).nonzero().flatten()[:40]
unsure = shirts[teacher_test[shirts].softmax(-1).max(-1).values.argsort()[[0, 10, 39]]]


def top3(logits: Tensor) -> str:
    probs, classes = logits.softmax(-1).topk(3)
    return "\n".join(f"{names[c]} {p:.0%}" for p, c in zip(probs, classes, strict=True))


plots.image_row(test.inputs[unsure], [top3(z) for z in teacher_test[unsure]], height=2.6)
plots.show(
    "Three shirts of the test set, each with the teacher's three most probable classes: "
    + "; ".join(top3(z) for z in teacher_test[unsure])
)

# %% [markdown]
# *Figure: three shirts from the test set: one that the teacher is unsure about, one that it takes for
# a dress, and one that it is certain of. Most of the runners-up are garments for the upper body.*
#
# One image is an anecdote. The next exercise asks the question of all of them: **given the true
# class, how does the teacher share out the probability that it puts on the wrong ones?**
#
# $$M_{ij} = \operatorname*{mean}_{n:\,y_n = i} \frac{p_{nj}}{1 - p_{ni}} \quad (j \ne i),
# \qquad M_{ii} = 0$$
#
# ### Your turn
# {{02.near_misses}}
#
# Write `near_misses(logits, targets)`.
#
# - `logits` is (N, C), `targets` is (N,) and holds every class at least once.
# - Return M, a (C, C) tensor whose rows sum to one and whose diagonal is zero, in
#   the dtype of `logits` (`torch.zeros` alone is float32).
# - Share out each example's remainder first, then average over the examples of a class.
# - On some images this teacher is so certain that $1 - p_i$ is zero in floating point. Your table
#   has to be right for those too.


# %% exercise="02.near_misses"
def near_misses(logits: Tensor, targets: Tensor) -> Tensor:
    """Which wrong classes the network finds nearly right: (N, C), (N,) -> (C, C)."""
    ### BEGIN SOLUTION
    one_hot = F.one_hot(targets, logits.shape[-1])
    wrong = logits.masked_fill(one_hot.bool(), float("-inf")).softmax(dim=-1)
    return one_hot.T.to(wrong.dtype) @ wrong / one_hot.sum(dim=0)[:, None]
    ### END SOLUTION


# %% check="02.near_misses"
check("02.near_misses", near_misses)

# %% [markdown] hints="02.near_misses"
# - What is left of a softmax when one class is not allowed to take part?
# - $p_j / (1 - p_i)$ is a softmax too: over all classes but $i$. Which logit gives a class probability zero?
# - Three lines: mark the true class in each row (`F.one_hot`), a softmax over the marked logits, and for each class a mean over its rows.

# %% [markdown] expect="02.near_misses"
# The heat map below: a block of garments for the upper body that are taken for each other, another
# one of shoes, and nearly nothing between the two.

# %%
table = near_misses(teacher_test, test.targets)
_, axes = plots.figure(height=5.2)
plots.class_heatmap(axes, table, names, "wrong class (percent of the wrong probability)")
row, column = divmod(int(table.argmax()), 10)
plots.show(
    "Ten by ten table in percent; rows are true classes, columns wrong ones, dark is much. The "
    f"largest number: {100 * table.max():.0f} % of what is wrong on {names[row]} goes to "
    f"{names[column]}."
)

# %% [markdown]
# *Figure: rows are true classes. Each number is the share of the wrong probability that goes to
# that column.*
#
# This is what a hard label hides. "Shirt" as a label says *not a T-shirt* and *not a sandal* with
# the same force. The teacher says that one of the two is nearly right.

# %%
for true, near, far in (("Shirt", "T-shirt/top", "Sandal"), ("Sneaker", "Ankle boot", "Dress")):
    row = table[names.index(true)]
    print(f"{true}: {near} {row[names.index(near)]:.1%}, {far} {row[names.index(far)]:.1%}")

# %% [markdown]
# ## 2.2 Temperature
#
# At $T = 1$ most of these numbers are too small to move a gradient. A temperature above 1 raises
# them: $p_i^T \propto \exp(v_i / T)$ (equation 1 of the paper).

# %% tags=["nbval-ignore-output"]
from kdlib.notebook import knobs

certain = int(unsure[2])


def show_temperature(T: float) -> None:
    _, axes = plots.figure(height=2.8)
    plots.probability_bars(axes, (teacher_test[certain] / T).softmax(-1), names, f"T = {T:g}")
    plots.show(
        f"Bars of the ten class probabilities for one shirt at T = {T:g}. "
        f"The longest reaches {(teacher_test[certain] / T).softmax(-1).max():.2f}."
    )


knobs(show_temperature, T=(0.5, 20.0, 1.0, 0.5))

# %%
_, axes = plots.figure(3, height=2.8, sharey=True)
for ax, T in zip(axes, (1.0, 4.0, 20.0), strict=True):
    plots.probability_bars(ax, (teacher_test[certain] / T).softmax(-1), names, f"T = {T:g}")
plots.show(
    "Bars of the ten class probabilities for one shirt at T = 1, 4 and 20. The longest shrinks from "
    f"{teacher_test[certain].softmax(-1).max():.2f} over "
    f"{(teacher_test[certain] / 4).softmax(-1).max():.2f} to "
    f"{(teacher_test[certain] / 20).softmax(-1).max():.2f}."
)

# %% [markdown]
# *Figure: the shirt the teacher is certain of, at three temperatures. At T = 1 there is one bar. At
# T = 4 the near misses appear in order. At T = 20 the differences drown in uniformity.*

# %% [markdown]
# ## 2.3 The distillation loss
#
# The student learns from two things at once: the teacher's distribution and, where there is one,
# the label. Section 2 of the paper describes a weighted sum:
#
# $$L = \alpha\, T^2\, \mathrm{KL}(p^T \,\|\, q^T) \;+\; (1 - \alpha)\, \mathrm{CE}(y, q)$$
#
# Both terms are **means over the rows** of a batch. The soft term compares both networks at
# temperature $T$; the hard term uses the student as it will be used, at $T = 1$.
#
# ### Your turn
# {{02.kd_loss}}
#
# Write `kd_loss(student_logits, teacher_logits, targets, temperature, alpha)`.
#
# - Logits are (B, C), `targets` (B,) class indices; the result is a scalar tensor.
# - `alpha` weighs the **soft** term. Papers differ; this course does not.
# - The teacher is a constant: no gradient arrives at `teacher_logits`.
# - A temperature that is not positive raises a `ValueError` that says what was given.
# - `F.kl_div` is allowed, and has three ways to go wrong: the order of its arguments, what it
#   takes the logarithm of, and its `reduction`.


# %% exercise="02.kd_loss"
def kd_loss(
    student_logits: Tensor,  # (B, C)
    teacher_logits: Tensor,  # (B, C)
    targets: Tensor,  # (B,)
    temperature: float = 4.0,
    alpha: float = 0.9,
) -> Tensor:
    """Distillation loss of Hinton et al. 2015: a scalar, in nats."""
    ### BEGIN SOLUTION
    if temperature <= 0:
        raise ValueError(f"temperature must be positive, got {temperature}")
    soft = F.kl_div(
        F.log_softmax(student_logits / temperature, dim=-1),
        F.log_softmax(teacher_logits.detach() / temperature, dim=-1),
        reduction="batchmean",
        log_target=True,
    )
    hard = F.cross_entropy(student_logits, targets)
    return alpha * temperature**2 * soft + (1 - alpha) * hard
    ### END SOLUTION


# %% check="02.kd_loss"
check("02.kd_loss", kd_loss)

# %% [markdown] hints="02.kd_loss"
# - For which of the two networks does `F.kl_div` want log-probabilities, and which reduction divides by the number of rows alone?
# - Compute the soft term and the hard term into two variables first. Print both for a random batch: is the soft term zero when you pass the same logits twice?
# - The soft term has the shape `F.kl_div(log q, log p, reduction=..., log_target=True)`, both at temperature T, the teacher detached.

# %% [markdown] expect="02.kd_loss"
# Nine ticks. The cell below then trains nothing yet; it shows your loss on one batch of real
# logits, with the student equal to the teacher (only the hard term is left) and far from it.

# %%
batch, y = teacher_test[:64], test.targets[:64]
print(f"student = teacher: {kd_loss(batch, batch, y):.3f}")
print(f"student undecided: {kd_loss(torch.zeros(64, 10), batch, y):.3f}")

# %% [markdown]
# ## 2.4 Its gradient
#
# What does the soft term tell the student? Differentiate one row with respect to its logits. The
# terms of the softmax cancel as they do for cross-entropy, and equation 2 of the paper remains:
#
# $$\frac{\partial}{\partial z_i} \mathrm{KL}(p^T \| q^T) = \frac{1}{T}\,(q_i^T - p_i^T)$$
#
# ### Your turn
# {{02.kd_gradient}}
#
# Write `kd_gradient(student_logits, teacher_logits, temperature)`.
#
# - Logits are (B, C); return (B, C): the gradient of each row's own KL, without a mean over rows
#   and without the factor $T^2$.
# - No autograd is needed.


# %% exercise="02.kd_gradient"
def kd_gradient(student_logits: Tensor, teacher_logits: Tensor, temperature: float) -> Tensor:
    """Gradient of KL(p^T || q^T) with respect to the student's logits: (B, C)."""
    ### BEGIN SOLUTION
    q = F.softmax(student_logits / temperature, dim=-1)
    p = F.softmax(teacher_logits / temperature, dim=-1)
    return (q - p) / temperature
    ### END SOLUTION


# %% check="02.kd_gradient"
check("02.kd_gradient", kd_gradient)

# %% [markdown] hints="02.kd_gradient"
# - By how much does $z_i / T$ change when $z_i$ changes by one?
# - The derivative of $-\sum_j p_j \log q_j$ with respect to the scaled logits is $q - p$. The chain rule does the rest.

# %% [markdown] expect="02.kd_gradient"
# The next cell computes the same gradient by autograd, through your loss: the two agree to about
# fifteen digits.

# %%
z = torch.randn(5, 10, dtype=torch.float64, requires_grad=True)
v = torch.randn(5, 10, dtype=torch.float64)
T = 3.0
kd_loss(z, v, torch.zeros(5, dtype=torch.long), temperature=T, alpha=1.0).backward()
by_hand = T**2 * kd_gradient(z.detach(), v, T) / 5  # T^2 and the mean over 5 rows put back
print("equal:", torch.allclose(z.grad, by_hand, rtol=1e-12, atol=1e-14))

# %% [markdown]
# Now the factor $T^2$. The gradient has a factor $1/T$ in front, and $q^T - p^T$ shrinks about as
# $1/T$ as well, because both distributions approach the uniform one. Watch both on the teacher's
# real logits, against a student that knows nothing yet.

# %%
temperatures = torch.logspace(-0.3, 2, 24)
nothing = 0.1 * torch.randn(500, 10, generator=torch.Generator().manual_seed(0))
sizes = [
    kd_gradient(nothing, teacher_test[:500], float(T)).norm(dim=1).mean() for T in temperatures
]
_, ax = plots.figure(height=3.2)
ax.loglog(temperatures, sizes, "o-", label="without $T^2$")
ax.loglog(
    temperatures,
    [s * T**2 for s, T in zip(sizes, temperatures, strict=True)],
    "s-",
    label="with $T^2$",
)
ax.set_xlabel("temperature")
ax.set_ylabel("mean length of the gradient")
ax.legend()
plots.show(
    "Mean length of the gradient over temperature, 0.5 to 100, both logarithmic. Without T^2 it "
    f"falls from {sizes[0]:.2f} to {sizes[-1]:.1g}; with T^2 it settles at "
    f"{sizes[-1] * temperatures[-1] ** 2:.2f}."
)

# %% [markdown]
# *Figure: without the factor the gradient falls a hundredfold for each tenfold rise in temperature.
# With it the gradient settles: you can change T without changing the balance that alpha sets.*

# %% [markdown]
# ### Your turn, in words
# {{02.why_t_squared}}
#
# A colleague trains at T = 4 with alpha = 0.9 and forgets the factor $T^2$. What do the two terms
# really weigh? What is wrong with their conclusion when they compare T = 2, 4 and 8 in this way?

# %% [markdown] written="02.why_t_squared" points=3 minutes=8
# A colleague trains at T = 4 with alpha = 0.9 and forgets the factor T squared. Their soft term's
# gradient is about 16 times too small, so the true weights are not 0.9 to 0.1 but about 0.9/16 to
# 0.1, which is 0.056 to 0.1: the hard labels dominate. Their student behaves nearly like one that
# was trained on labels alone. When they then compare T = 2, 4 and 8, they vary two things at once:
# the softness of the targets and, through 1/T^2, the weight of the soft term. A result like "high
# temperatures do not help" would not follow from the comparison.

# %% [markdown] rubric="02.why_t_squared"
# - 1 point: the soft term's gradient is about T^2 = 16 times too small, so hard labels outweigh it in spite of alpha = 0.9.
# - 1 point: gives the effective ratio (about 0.056 : 0.1) or an equivalent number.
# - 1 point: a comparison of temperatures then changes the weight of the soft term as well, so it cannot tell the two effects apart.

# %% [markdown]
# ## 2.5 The limit of high temperature
#
# For large $T$, $\exp(z/T)$ is about $1 + z/T$. If each row of logits has mean zero, equation 2
# becomes equation 4 of the paper:
#
# $$\frac{\partial}{\partial z_i} \mathrm{KL}(p^T \| q^T) \;\approx\; \frac{1}{C\,T^2}\,(z_i - v_i)$$
#
# with $C$ classes (the paper writes $N$). That is the gradient of $\tfrac12 \|z - v\|^2$ up to a constant: **logit
# matching**, which Ba and Caruana had used before
# ([arXiv 1312.6184](https://arxiv.org/abs/1312.6184)).
#
# ### Your turn
# {{02.logit_matching_gradient}}
#
# Write `logit_matching_gradient(student_logits, teacher_logits, temperature)`.
#
# - Logits are (B, C); return (B, C).
# - The logits you get are **not** centred: adding a constant to a row must not change the result.


# %% exercise="02.logit_matching_gradient"
def logit_matching_gradient(
    student_logits: Tensor, teacher_logits: Tensor, temperature: float
) -> Tensor:
    """What kd_gradient tends to at high temperature: (B, C)."""
    ### BEGIN SOLUTION
    difference = student_logits - teacher_logits
    centred = difference - difference.mean(dim=-1, keepdim=True)
    return centred / (student_logits.shape[-1] * temperature**2)
    ### END SOLUTION


# %% check="02.logit_matching_gradient"
check("02.logit_matching_gradient", logit_matching_gradient)

# %% [markdown] hints="02.logit_matching_gradient"
# - Over which dimension is a row centred, and is it enough to centre the difference?
# - Subtract from $z - v$ its own mean over the classes, then divide by $C T^2$.

# %% [markdown] expect="02.logit_matching_gradient"
# In the figure below the error falls to about a half by T = 3 and hardly moves from there to T = 10. Then
# it falls along a straight line of slope -1: ten times the temperature, a tenth of the error.

# %%
temperatures = torch.logspace(0, 3, 16)
error = []
for T in temperatures.tolist():
    exact = kd_gradient(nothing, teacher_test[:500], T)
    limit = logit_matching_gradient(nothing, teacher_test[:500], T)
    error.append(((limit - exact).norm() / exact.norm()).item())
_, ax = plots.figure(height=3.0)
ax.loglog(temperatures, error, "o-")
ax.set_xlabel("temperature")
ax.set_ylabel("relative error of the limit")
plots.show(
    "Relative error of the limit over temperature, both logarithmic: a line that falls from "
    f"{error[0]:.2f} at T = 1 over {error[5]:.2f} at T = 10 to {error[-1]:.1g} at T = 1000."
)

# %% [markdown]
# *Figure: how far logit matching is from distillation. At the temperatures people use, 1 to 10, the
# two still differ a lot.*
#
# The difference matters. At moderate $T$ distillation pays little attention to logits far below the
# average, which training hardly constrains and which may be noise. Hinton et al. found that
# intermediate temperatures work best when the student is much too small to learn everything the
# teacher knows (section 2.1 of the paper).

# %% [markdown]
# ## 2.6 One step
#
# Around the loss stands a training step, and most published distillation bugs are in it: a teacher
# in train mode, gradients that nobody wants, networks in each other's place.
#
# ### Your turn
# {{02.distill_step}}
#
# Write `distill_step`: one update of the student on one batch.
#
# - The student answers in train mode, the teacher in eval mode. They may arrive in either.
# - The teacher's forward pass records no graph, and nothing in the teacher changes.
# - Use `kdlib.losses.kd_loss` here, so that this exercise stands on its own.
# - Return the loss before the update, as a Python float.

# %% exercise="02.distill_step"
from kdlib import losses


def distill_step(
    student: nn.Module,
    teacher: nn.Module,
    inputs: Tensor,  # (B, ...)
    targets: Tensor,  # (B,)
    optimizer: torch.optim.Optimizer,
    temperature: float = 4.0,
    alpha: float = 0.9,
) -> float:
    """Update the student once and return the loss."""
    ### BEGIN SOLUTION
    student.train()
    teacher.eval()
    with torch.no_grad():
        teacher_logits = teacher(inputs)
    loss = losses.kd_loss(student(inputs), teacher_logits, targets, temperature, alpha)
    optimizer.zero_grad()
    loss.backward()
    optimizer.step()
    return loss.item()
    ### END SOLUTION


# %% check="02.distill_step"
check("02.distill_step", distill_step)

# %% [markdown] hints="02.distill_step"
# - What do `train()`, `eval()` and `no_grad()` each switch? Which of them stops BatchNorm from updating its statistics?
# - Order: modes, teacher's logits, loss, clear old gradients, backward, update.
# - The teacher's part is two lines, `with torch.no_grad():` being the first.

# %% [markdown] expect="02.distill_step"
# Twenty of your steps on a fresh student: the loss falls.

# %%
student = seeded(0, CNN, 16)
optimizer = torch.optim.AdamW(student.parameters(), 2e-3)
seen = [
    distill_step(student, teacher, train.inputs[i : i + 64], train.targets[i : i + 64], optimizer)
    for i in range(0, 20 * 64, 64)
]
print(f"first step {seen[0]:.2f}, last step {seen[-1]:.2f}, falling: {seen[-1] < seen[0]}")

# %% [markdown]
# ## 2.7 Ask the teacher once
#
# The teacher is far larger than the student, and it says the same thing about an image in every
# epoch. So run it once and look its logits up. The trap is the key: the cache must be asked by
# **index in the data set**, because batches are shuffled. (With random augmentation the teacher
# would have to see the augmented image; unit 04 comes back to that.)
#
# ### Your turn
# {{02.TeacherCache}}
#
# Write a class `TeacherCache`.
#
# - `TeacherCache(teacher, inputs, batch_size)` runs the teacher once over `inputs` (N, ...), in eval
#   mode and without gradient, `batch_size` rows at a time. N need not be a multiple of it.
# - `cache[indices]` gives the (B, C) logits of the examples `indices` (B,), in that order.
# - `len(cache)` is N.


# %% exercise="02.TeacherCache"
class TeacherCache:
    """The teacher's logits for a whole data set, looked up by example index."""

    def __init__(self, teacher: nn.Module, inputs: Tensor, batch_size: int = 256) -> None:
        ### BEGIN SOLUTION
        teacher.eval()
        with torch.no_grad():
            self.logits = torch.cat([teacher(chunk) for chunk in inputs.split(batch_size)])

    def __len__(self) -> int:
        return len(self.logits)

    def __getitem__(self, indices: Tensor) -> Tensor:
        return self.logits[indices]
        ### END SOLUTION


# %% check="02.TeacherCache"
check("02.TeacherCache", TeacherCache)

# %% [markdown] hints="02.TeacherCache"
# - `inputs.split(n)` gives chunks of n rows and a shorter last one. What keeps their results in order?
# - One (N, C) tensor is enough of a cache: indexing it with a tensor of indices gives rows in that order.
# - Three methods: `__init__`, `__len__`, `__getitem__`, of four, one and one lines.

# %% [markdown] expect="02.TeacherCache"
# The cell below fills your cache with the training images that the experiment needs.

# %%
cache = TeacherCache(teacher, train.inputs, 1000)
some = torch.tensor([12, 3, 19_999])
with torch.no_grad():
    direct = teacher(train.inputs[some])
print(
    len(cache), "images; same as asking directly:", torch.allclose(cache[some], direct, atol=1e-4)
)

# %% [markdown]
# ## 2.8 Does it help?
#
# The student is a small CNN. It learns from labelled images (300 here; the stored run has 1,000 and 6,000 too), once from the
# labels alone and once with your loss on top. All else is equal within a seed: images, initial
# weights, order of batches, number of updates.

# %%
sizes = {"teacher": model_size(teacher), "student": model_size(CNN(16))}
for name, size in sizes.items():
    print(f"{name}: {size.parameters:,} parameters, {size.bytes / 1e6:.2f} MB")

# %% [markdown]
# ### Your turn, in words
# {{02.prediction}}
#
# **Predict before you run.** For which of 300, 1,000 and 6,000 labels will soft targets help, and at
# which temperature? Why? What result would prove you wrong? Come back after the experiment and add
# what you saw.

# %% [markdown] written="02.prediction" points=3 minutes=8
# Prediction: soft targets help most with 300 labels, because there each label says little and the
# teacher's distribution adds what the labels leave out: which classes resemble each other and how
# sure one can be about this image. With 6,000 labels the gain shrinks, as the labels themselves
# pin most of that down, and a high temperature may cost accuracy because the small student spends
# its capacity on matching small probabilities. What would change my mind: no gain at 300 labels.
#
# After the run: the gain is largest at 300 labels and shrinks with more, as I said. I did not expect
# two things. At 6,000 labels every temperature from 2 up loses accuracy, not only the highest. And soft
# targets of another image of the class gain nothing at 300 labels, so what helps is what the teacher
# says about this very image, not the average resemblance of classes.

# %% [markdown] rubric="02.prediction"
# - 1 point: a prediction for each of the three label counts with a reason that concerns information in the targets (not only "more data is better").
# - 1 point: says what result would contradict the prediction.
# - 1 point: after the run, compares with the measured intervals and explains at least one difference or confirmation, using a control. A wrong prediction, well explained, earns full points.

# %%
SEEDS = range(scale(grade=1, cpu=3, full=10))
STEPS = scale(grade=20, cpu=400, full=800)


def trained_accuracy(rows: Tensor, seed: int, **how) -> float:
    model = seeded(seed, CNN, 16)
    fit(model, train.inputs[rows], steps=STEPS, seed=seed, **how)
    return 100 * accuracy(predict(model, test.inputs), test.targets)


def distilled(z: Tensor, v: Tensor, y: Tensor) -> Tensor:
    return kd_loss(z, v, y, temperature=2.0, alpha=0.9)


# %% tags=["nbval-ignore-output"]
alone, soft = [], []
for seed in SEEDS:
    rows = torch.randperm(len(train.targets), generator=torch.Generator().manual_seed(seed))[:300]
    y = train.targets[rows]
    alone.append(trained_accuracy(rows, seed, targets=y))
    soft.append(
        trained_accuracy(rows, seed, targets=y, teacher_logits=cache[rows], loss_fn=distilled)
    )
    print(f"seed {seed}: labels alone {alone[-1]:.1f} %, with your loss {soft[-1]:.1f} %")
if len(alone) > 1:
    print("difference in points, 95 % interval:", paired_interval(soft, alone))

# %% [markdown]
# Three seeds and half the steps make a wide interval. The stored run has ten seeds, more arms and
# the controls; `python -m evidence u02_soft_targets` regenerates it.

# %%
stored = evidence.load("u02_soft_targets")
regimes = ["300 labels", "1000 labels", "6000 labels"]
arms = [a for a in stored["results"][regimes[0]] if a.startswith("distilled")]
_, ax = plots.figure(height=3.6)
for offset, (regime, marker) in enumerate(zip(regimes, "osD", strict=True)):
    found = [stored["results"][regime][arm]["accuracy_difference"] for arm in arms]
    x = [i + 0.12 * (offset - 1) for i in range(len(arms))]
    spread = [[m - lo for m, lo, _ in found], [hi - m for m, _, hi in found]]
    ax.errorbar(x, [m for m, _, _ in found], yerr=spread, fmt=marker, capsize=3, label=regime)
ax.axhline(0, color="black", lw=0.8)
ax.set_xticks(range(len(arms)), [a.removeprefix("distilled, ") for a in arms])
ax.set_ylabel("accuracy against labels alone (points)")
ax.legend()
plots.show(
    "Gain in accuracy with 95 % intervals at four temperatures, for three numbers of labels. T = 1: "
    f"{plots.spell({r: stored['results'][r][arms[0]]['accuracy_difference'] for r in regimes})}. "
    f"T = 8: {plots.spell({r: stored['results'][r][arms[-1]]['accuracy_difference'] for r in regimes})}."
)

# %% [markdown]
# *Figure: ten seeds, paired 95 % intervals. With 300 labels distillation wins at every temperature
# tried, and the higher ones win more. With 1,000 the best temperature is lower. With 6,000 only T = 1
# still gains, and the higher the temperature, the more it costs.*
#
# Why would good soft targets cost accuracy? At a high temperature the loss asks the student to match
# the teacher's small probabilities as carefully as its large ones. This student is small and its
# budget of updates is fixed. With 300 labels there is nothing better to do with that budget. With
# 6,000 there is: the labels themselves.
#
# Is it really the teacher's knowledge? Each control below could explain the gain away: longer
# training, smoother labels, a teacher that knows nothing, and soft targets that belong to *another
# image of the same class*.

# %%
controls = stored["results"]["300 labels"]
rows = {
    arm: controls[arm]["accuracy_difference"]
    for arm in controls
    if arm != "labels alone" and not arm.endswith(("T = 1", "T = 4", "T = 8"))
}
_, ax = plots.figure(height=2.8)
plots.intervals(ax, rows, "accuracy against labels alone, 300 labels (points)")
plots.show(f"Horizontal 95 % intervals around zero, in points of accuracy: {plots.spell(rows)}.")

# %%
for arm, (mean, low, high) in rows.items():
    print(f"{arm:45s} {mean:+6.1f}  [{low:+.1f}, {high:+.1f}] points")

# %% [markdown]
# *Figure and table: 300 labels; whatever comes from a teacher is at T = 2. Longer training does not
# explain the gain, smoother labels explain a part of it, and an untrained teacher's soft targets have
# no effect whose sign is sure.*
#
# The row to remember is that of **another image of the same class**. Those soft targets are just as
# soft and know as much about which classes resemble each other, and the gain is gone. What helps is
# what the teacher saw in *this* image.
#
# A warning before you believe any one control: with 1,000 labels the same untrained teacher *does*
# raise accuracy, and with 6,000 three times the training raises it more than any teacher here.

# %%
for regime in regimes[1:]:
    for arm in ("distilled, T = 1", "untrained teacher", "labels alone, 3x as long"):
        mean, low, high = stored["results"][regime][arm]["accuracy_difference"]
        print(f"{regime:12s} {arm:26s} {mean:+5.1f}  [{low:+.1f}, {high:+.1f}] points")

# %% [markdown]
# And where it wins most, no label is needed at all. The teacher can comment on images that nobody
# has labelled:

# %%
for arm, entry in stored["results"]["6000 images without labels"].items():
    mean = sum(entry["accuracy"]) / len(entry["accuracy"])
    against = entry.get("accuracy_difference")
    gain = f"{against[0]:+.1f} [{against[1]:+.1f}, {against[2]:+.1f}] points" if against else ""
    name = "300 labels alone" if arm == "labels alone" else "6,000 unlabelled, " + arm
    print(f"{name:55s} {mean:.1f} %  {gain}")

# %% [markdown]
# Here the soft targets have no advantage over the class that the teacher predicts: on these images it
# is the teacher's *knowledge of more images* that counts, however it is written down.
#
# So the lesson is a map, not a slogan. A teacher helps most where images without labels are there for
# the asking; soft targets help where labels are few; and with plenty of labels a temperature that asks
# too much of a small student costs accuracy. Measure, with controls, before you believe.
#
# ## Further reading
#
# - Hinton, Vinyals, Dean, *Distilling the Knowledge in a Neural Network*, arXiv 1503.02531
# - Ba, Caruana, *Do Deep Nets Really Need to be Deep?*, arXiv 1312.6184
# - Stanton et al., *Does Knowledge Distillation Really Work?*, arXiv 2106.05945
#
# Next: unit 03, where a student learns a class it has never seen.
