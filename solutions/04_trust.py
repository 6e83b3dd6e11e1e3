# ---
# jupyter:
#   kernelspec:
#     display_name: Python 3
#     language: python
#     name: python3
# ---

# %% [markdown]
# # 04 · Trust
#
# You have a student and a number: 77 % of the test images right. Did it learn that from the
# teacher? Is it sure of the right things? Would another seed say the same? And does the script do
# what its author thinks? Accuracy answers none of these questions.
#
# After this unit you can
#
# - measure how faithful a student is to its teacher, and how well its confidence is calibrated,
# - put an interval on a difference, and say what two seeds are worth,
# - show teacher and student the same view, and tell what that buys,
# - find six bugs that stood in public code, repair the cause and not the symptom.
#
# You need about 130 minutes; section 4.5 is a good place for a break. Notation as in unit 02: $p$ is the teacher, $q$ the student.

# %%
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from kdlib import check, evaluation, evidence
from kdlib.data import fashion_mnist
from kdlib.models import CNN, load_teacher, seeded
from kdlib.museum import batches
from kdlib.notebook import plots
from kdlib.profile import scale
from kdlib.training import fit

# %% [markdown]
# The teacher is the one of unit 02. Two students of the same size learn from the same 300 labelled
# images: one from the labels alone, one with the teacher's soft targets at T = 2.

# %% tags=["nbval-ignore-output"]
train = fashion_mnist(train=True)
test = fashion_mnist(train=False, n=scale(grade=1000, cpu=10_000, full=10_000))
teacher = load_teacher()
teacher_test = evaluation.predict(teacher, test.inputs)  # (N, 10) logits
few, y = train.inputs[:300], train.targets[:300]
students = {"labels alone": seeded(0, CNN, 16), "distilled": seeded(0, CNN, 16)}
STEPS = scale(grade=50, cpu=400, full=800)
fit(students["labels alone"], few, y, steps=STEPS)
fit(students["distilled"], few, y, teacher_logits=evaluation.predict(teacher, few), steps=STEPS)
predictions = {name: evaluation.predict(s, test.inputs) for name, s in students.items()}

# %% tags=["nbval-ignore-output"]
for name, logits in {"teacher": teacher_test, **predictions}.items():
    print(f"{name:13s} {evaluation.accuracy(logits, test.targets):6.1%} right")

# %% [markdown]
# ## 4.1 How faithful is it?
#
# A student can be right where its teacher is wrong, and wrong where it is right; accuracy counts
# both as they come. Stanton et al. ([arXiv 2106.05945](https://arxiv.org/abs/2106.05945)) separate
# two things: *generalisation*, how well a student predicts the labels, and *fidelity*, how well it
# matches its teacher. They measure fidelity twice, by the class that is predicted and by the whole
# distribution:
#
# $$\text{agreement} = \operatorname*{mean}_n\, [\arg\max q_n = \arg\max p_n], \qquad
# \text{predictive KL} = \operatorname*{mean}_n\, \mathrm{KL}(p_n \,\|\, q_n)$$
#
# both on held-out inputs and at $T = 1$, as the student will be used.
#
# ### Your turn
# {{04.fidelity}}
#
# Write `fidelity(student_logits, teacher_logits)`.
#
# - Both are (N, C). Return two numbers in this order: the agreement, a share between 0 and 1, and
#   the predictive KL in nats. {= the agreement; the predictive KL}
# - Each is a mean over rows. Logits may be in the thousands. {= the agreement; the predictive KL; large logits}
# - Shapes that differ raise a `ValueError`: broadcasting would give a number, and a wrong one. {= two widths are refused}


# %% exercise="04.fidelity"
def fidelity(student_logits: Tensor, teacher_logits: Tensor) -> tuple[float, float]:
    """Agreement and predictive KL on the same inputs: (N, C), (N, C) -> two numbers."""
    ### BEGIN SOLUTION
    if student_logits.shape != teacher_logits.shape:
        shapes = tuple(student_logits.shape), tuple(teacher_logits.shape)
        raise ValueError(f"the two must have the same shape, got {shapes[0]} and {shapes[1]}")
    same = student_logits.argmax(-1) == teacher_logits.argmax(-1)
    log_q, log_p = student_logits.log_softmax(-1), teacher_logits.log_softmax(-1)
    kl = (log_p.exp() * (log_p - log_q)).sum(-1)
    return same.double().mean().item(), kl.mean().item()
    ### END SOLUTION


# %% check="04.fidelity"
check("04.fidelity", fidelity)

# %% [markdown] hints="04.fidelity"
# - Which of the two distributions is the expectation taken under, and what does `log_softmax` do that `softmax` followed by `log` does not?
# - Agreement: compare two `argmax`. KL: sum over classes of $p\,(\log p - \log q)$ in each row. Then a mean over rows for each of them.
# - Two lines for the two means, and one `if` before them that compares shapes.

# %% [markdown] expect="04.fidelity"
# A table with two rows. The distilled student agrees with the teacher more often than the other,
# and its predictive KL is smaller.

# %% tags=["nbval-ignore-output"]
print(f"{'':13s}  accuracy  agreement  predictive KL")
for name, logits in predictions.items():
    a, kl = fidelity(logits, teacher_test)
    right = evaluation.accuracy(logits, test.targets)
    print(f"{name:13s}  {right:8.1%}  {a:9.1%}  {kl:8.3f} nats")

# %% [markdown]
# Agreement has a floor that has nothing to do with distillation. Two networks that are each right
# on most images agree on most images, whoever taught them. So agreement is worth something only
# next to that of a student that never met the teacher: the first row.
#
# ## 4.2 Is it sure of the right things?
#
# A network that says "90 %" should be right nine times out of ten. Sort the predictions into bins by
# their **confidence**, the largest probability, and compare in each bin what the network says with
# how often it is right. The expected calibration error (Guo et al. 2017,
# [arXiv 1706.04599](https://arxiv.org/abs/1706.04599)) is the mean gap, each bin weighed by the
# share of predictions in it:
#
# $$\mathrm{ECE} = \sum_{b=1}^{M} \frac{|B_b|}{N}\;
# \bigl|\,\mathrm{accuracy}(B_b) - \mathrm{confidence}(B_b)\,\bigr|$$
#
# Bin $b$ holds the confidences in $\left(\frac{b-1}{M}, \frac{b}{M}\right]$: its right edge belongs
# to it, its left one does not.
#
# ### Your turn
# {{04.ece}}
#
# Write `ece(logits, targets, bins)`.
#
# - `logits` is (N, C), `targets` (N,), `bins` the number M of bins of equal width. Return a number. {= the mean gap}
# - Some bins are empty, and some confidences are exactly 1. Neither may do harm. {= empty bins do no harm; what lies on an edge}


# %% exercise="04.ece"
def ece(logits: Tensor, targets: Tensor, bins: int = 15) -> float:
    """Expected calibration error: (N, C), (N,) -> a number between 0 and 1."""
    ### BEGIN SOLUTION
    confidence, predicted = logits.softmax(-1).max(-1)
    right = (predicted == targets).to(confidence.dtype)
    total = 0.0
    for b in range(bins):
        inside = (confidence > b / bins) & (confidence <= (b + 1) / bins)
        if inside.any():
            gap = right[inside].mean() - confidence[inside].mean()
            total += inside.sum().item() * gap.abs().item()
    return total / len(targets)
    ### END SOLUTION


# %% check="04.ece"
check("04.ece", ece)

# %% [markdown] hints="04.ece"
# - How do you say "lies in bin b" with two comparisons, and which of them includes the edge?
# - For each bin that is not empty: the absolute difference of two means over the rows inside, times the number of those rows. Divide the sum by N at the end.
# - One loop over bins with a mask, an `if` for the empty ones, and one line that adds up.

# %% [markdown] expect="04.ece"
# Three diagrams with your ECE in the title. The teacher lies close to the diagonal. Both students lie
# below it in every bin: they are more sure than they are right.

# %% tags=["nbval-ignore-output"]
errors = {}
_, axes = plots.figure(3, height=3.0, sharey=True)
for ax, (name, z) in zip(axes, {"teacher": teacher_test, **predictions}.items(), strict=True):
    plots.reliability(ax, *evaluation.reliability_bins(z, test.targets))
    errors[name] = ece(z, test.targets)
    ax.set_title(f"{name}\nECE {errors[name]:.3f}")
axes[0].set_ylabel("accuracy in the bin")
plots.show(
    "Accuracy over confidence in 15 bins, for the teacher and two students, with the diagonal. ECE: "
    f"{plots.spell(errors, '.3f')}."
)

# %% [markdown]
# *Figure: reliability diagrams of the teacher and both students. A point is one of 15 bins, its area
# the share of predictions in it, the red line its gap to the diagonal. The teacher's points lie
# near the diagonal. Both students are over-confident, and about as much: soft targets for 300 images
# made this student more accurate and more faithful, and not better calibrated.*
#
# That is worth a pause. Three measures, and the two students differ in two of them. Dividing logits
# by a temperature moves confidence and no prediction. Try it on the student of labels alone.

# %% tags=["nbval-ignore-output"]
from kdlib.notebook import knobs


def show_reliability(T: float) -> None:
    _, ax = plots.figure(height=3.0, width=3.4)
    z = predictions["labels alone"] / T
    plots.reliability(ax, *evaluation.reliability_bins(z, test.targets))
    ax.set_title(f"T = {T:g}: ECE {ece(z, test.targets):.3f}")
    plots.show(
        f"Accuracy over confidence of the student of labels alone, its logits divided by {T:g}: "
        f"the ECE is {ece(z, test.targets):.3f}."
    )


knobs(show_reliability, T=(0.5, 4.0, 1.0, 0.25))

# %% tags=["nbval-ignore-output"]
temperatures = torch.linspace(0.5, 4, 15).tolist()
best = {}
_, ax = plots.figure(height=2.8)
for (name, z), style in zip({"teacher": teacher_test, **predictions}.items(), "osD", strict=True):
    found = [ece(z / T, test.targets) for T in temperatures]
    best[name] = temperatures[found.index(min(found))]
    ax.plot(temperatures, found, f"{style}-", label=name)
ax.set_xlabel("temperature that the logits are divided by")
ax.set_ylabel("ECE")
ax.legend()
plots.show(
    "ECE over temperature, 0.5 to 4: three curves that fall and rise again. Each is smallest at T: "
    f"{plots.spell(best, '.2f')}."
)

# %% [markdown]
# *Figure: the same for every temperature. Each network has one at which its ECE is smallest: about
# 1.5 for the teacher and nearly 2 for both students. Accuracy is the same along each line.*
#
# ## 4.3 Is the difference real?
#
# Train both students with another seed, and every number above changes. Two runs that share their
# seed (images, initial weights, order of batches) share most of that luck, so it cancels in their
# **difference**. With $d_i = a_i - b_i$ for the seeds $i = 1 \dots n$,
#
# $$\bar d \;\pm\; t_{n-1}\,\frac{s_d}{\sqrt n}, \qquad
# s_d^2 = \frac{1}{n-1}\sum_i (d_i - \bar d)^2$$
#
# is Student's interval. $t_{n-1}$ is the quantile of the t distribution with $n - 1$ degrees of
# freedom that leaves out 2.5 % on each side, when the confidence is 95 %. It pays for not knowing
# the spread: 2.26 with ten seeds, 12.7 with two.
#
# ### Your turn
# {{04.paired_interval}}
#
# Write `paired_interval(a, b, confidence)`.
#
# - `a` and `b` are lists with one number for each seed, the same seeds in the same order. {= the mean difference; the interval; two seeds}
# - Return three numbers: the mean of a - b, the lower and the upper end. {= the mean difference; the interval; surer means wider}
# - `scipy.stats.t.ppf(x, n - 1)` is the point that a share x of the distribution lies below. {= the interval; another confidence}
# - Lists of two lengths, or fewer than two pairs, raise a `ValueError`. {= one seed, or no pairs, is refused}

# %% exercise="04.paired_interval"
from scipy import stats


def paired_interval(
    a: list[float], b: list[float], confidence: float = 0.95
) -> tuple[float, float, float]:
    """Mean difference a - b with its interval: mean, low, high."""
    ### BEGIN SOLUTION
    if len(a) != len(b) or len(a) < 2:
        raise ValueError(f"needs at least 2 pairs, got {len(a)} and {len(b)} numbers")
    d = torch.tensor(a, dtype=torch.float64) - torch.tensor(b, dtype=torch.float64)
    n, mean = len(d), d.mean().item()
    half = stats.t.ppf((1 + confidence) / 2, n - 1) * d.std().item() / n**0.5
    return mean, mean - half, mean + half
    ### END SOLUTION


# %% check="04.paired_interval"
check("04.paired_interval", paired_interval)

# %% [markdown] hints="04.paired_interval"
# - Which spread belongs under the root: that of the a's, of the b's, or of their differences?
# - Half the width is a quantile times the standard deviation of the differences (with n - 1), over the root of n. A confidence of 95 % leaves 2.5 % on each side: what share lies below the upper end?
# - An `if` that refuses, the differences as a tensor or array, then half the width in one line.

# %% [markdown] expect="04.paired_interval"
# Three lines: at T = 1 a gain whose sign is sure, at T = 2 a loss whose sign is sure, and at
# T = 1.5 an interval around zero.

# %%
seeds = evidence.load("u04_seeds")["results"]  # an MLP, 1,000 labels, 40 seeds
alone = seeds["labels alone"]["accuracy"]
gains = {}
for T in ("1", "1.5", "2"):
    arm = seeds[f"distilled, T = {T}"]["accuracy"]
    gains[T] = [x - y for x, y in zip(arm, alone, strict=True)]
    mean, low, high = paired_interval(arm, alone)
    print(f"distilled at T = {T:3s} against labels alone: {mean:+.2f} [{low:+.2f}, {high:+.2f}]")

# %% [markdown]
# These are forty seeds of one experiment: an MLP with 64 units, 1,000 labels, 400 updates. Now
# pretend that you could afford two. There are 780 pairs of seeds; take each of them for the whole
# experiment.

# %%
pairs = torch.combinations(torch.arange(40))
_, axes = plots.figure(2, height=3.2)
d = gains["1.5"]
for n in range(2, 41):
    mean, low, high = paired_interval(d[:n], [0.0] * n)
    axes[0].plot([n, n], [low, high], color=plots.BLUE, lw=2)
    axes[0].plot(n, mean, ".", color=plots.VERMILLION)
axes[0].axhline(0, color="black", lw=0.8)
axes[0].set_xlabel("seeds")
axes[0].set_ylabel("T = 1.5 against labels alone (points)")
for T, style in (("1", "--"), ("1.5", "-"), ("2", ":")):
    means = torch.tensor(gains[T])[pairs].mean(1).sort().values
    share = torch.linspace(0, 1, len(means))
    axes[1].plot(means, share, style, lw=2, label=f"T = {T}")
axes[1].axvline(0, color="black", lw=0.8)
axes[1].set_xlabel("mean gain over 2 seeds (points)")
axes[1].set_ylabel("share of pairs below")
axes[1].legend()
plots.show(
    f"Left, the 95 % interval at T = 1.5 narrows to {low:+.2f} to {high:+.2f} points at 40 seeds. "
    "Right, the share of pairs of seeds whose mean gain lies below a number, three rising curves. "
    f"At T = 1.5 a pair says {torch.tensor(d)[pairs].mean(1).min():+.1f} to "
    f"{torch.tensor(d)[pairs].mean(1).max():+.1f}."
)

# %% [markdown]
# *Figure: left, the interval as seeds are added. It takes about ten before it stays within 0.2 points
# of zero, and what it then says is that there is little to see. Right, what
# two seeds would have reported. At T = 1 nearly every pair has the right sign. At T = 1.5, where
# forty seeds find none, two report anything from a clear loss to a clear gain.*

# %%
print("T = 1.5, where forty seeds find no effect. Of 780 pairs of seeds:")
chosen = torch.tensor(gains["1.5"])[pairs]  # (780, 2)
together = (chosen > 0).all(1) | (chosen < 0).all(1)
print(f"  {together.double().mean():.0%} have both seeds on the same side")
half_width = chosen.std(1) / 2**0.5
for name, quantile in (("1.96", 1.96), ("Student's 12.7", stats.t.ppf(0.975, 1))):
    away = (chosen.mean(1).abs() > quantile * half_width).double().mean()
    print(f"  {away:.0%} have an interval without zero, with {name}")
a, b = (torch.tensor(seeds[k]["accuracy"]) for k in ("distilled, T = 1", "labels alone"))
other = ~torch.eye(40, dtype=torch.bool)
wrong = ((a[:, None] - b[None, :]) < 0)[other].double().mean()
print(f"T = 1, where the gain is real: one run against one of ANOTHER seed, wrong sign {wrong:.0%}")
print(f"  against the run of the same seed, {sum(x < 0 for x in gains['1']) / 40:.0%}")

# %% [markdown]
# ### Your turn, in words
# {{04.two_seeds}}
#
# A report says: "Our loss improves the student from 81.1 % to 81.5 %; both of our two seeds agree."
# The two baselines were run last year with other seeds. Use the numbers above: what is this evidence
# worth, and what do you ask for?

# %% [markdown] written="04.two_seeds" points=3 minutes=6
# Very little. Two seeds fall on the same side about half the time when nothing is there, so "both
# agree" is a coin toss. The runs are not paired: against a run of another seed even a real gain of
# 0.4 points has the wrong sign in a fair share of comparisons, because what a seed brings (images,
# initial weights) varies more than the effect. An interval over two pairs uses the quantile 12.7,
# so it would say nothing. I ask for at least five, better ten, seeds of both arms, run with the same
# seeds and budget, and for the paired difference with Student's interval.

# %% [markdown] rubric="04.two_seeds"
# - 1 point: "both agree" is no evidence: without any effect two seeds agree about half of the time (or that a two-seed interval is useless, with the quantile or the measured share).
# - 1 point: the baselines are not paired; names what differs between seeds, and that this spread exceeds the effect (or the measured share of wrong signs).
# - 1 point: asks for a sound design: more seeds in both arms, the same seeds and budget, a paired interval.

# %% [markdown]
# ## 4.4 One view for both
#
# Unit 02 asked the teacher once and kept its answers. That fixes the teacher to the images as they
# are. Beyer et al. ([arXiv 2106.05237](https://arxiv.org/abs/2106.05237)) look at distillation as
# **function matching**: the teacher is a function, it can be asked about anything, so ask it about
# the very view that the student sees, make many views, and be patient. With that recipe their
# ResNet-50 reaches 82.8 % on ImageNet.
#
# One way to many views is *mixup* (Zhang et al., [arXiv 1710.09412](https://arxiv.org/abs/1710.09412)):
#
# $$\tilde x_i = w_i\,x_i + (1 - w_i)\,x_{\pi(i)}, \qquad w_i \in [0, 1]$$
#
# With labels, mixup blends the targets by the same weights. With a teacher there is no need to
# assume that the answer to a blend is the blend of the answers. Look at the difference:

# %%
first, second = few[y == 1][0], few[y == 8][0]  # trousers and a bag
shares = (1.0, 0.7, 0.5, 0.3, 0.0)
views = torch.stack([w * first + (1 - w) * second for w in shares])


def top2(z: Tensor) -> str:
    probs, classes = z.softmax(-1).topk(2)
    named = zip(probs, classes, strict=True)
    return "\n".join(f"{test.class_names[c]} {p:.0%}" for p, c in named)


plots.image_row(views, [top2(z) for z in evaluation.predict(teacher, views)], height=2.0)
plots.show(
    "Five blends of trousers and a bag, with the teacher's two most probable classes: "
    + "; ".join(top2(z) for z in evaluation.predict(teacher, views))
)

# %% [markdown]
# *Figure: trousers blended with a bag, at weights 1, 0.7, 0.5, 0.3 and 0, and the two classes that the
# teacher finds most probable. Its answers are not the weights: a blend is an image of its own.*
#
# ### Your turn
# {{04.mixup_step}}
#
# Write `mixup_step`: one update of the student on one blended batch.
#
# - `order` (B,) names the partner of each row, `weight` (B,) the weight of the row itself.
#   `inputs` (B, ...) may have any number of dimensions, and stays as it is. {= both networks see the same blend; no side effects}
# - Teacher and student see **the same** blend; the teacher in eval mode and without a graph, the
#   student in train mode. {= both networks see the same blend; the teacher answers in eval mode, without a graph}
# - The loss is $T^2\,\mathrm{KL}(p^T \| q^T)$, a mean over rows; there are no labels.
#   `kdlib.losses.kl_divergence(teacher_logits, student_logits, T)` gives the KL of each row. {= the loss of both steps; the student after them}
# - Return the loss before the update, as a Python float. {= the loss of both steps}

# %% exercise="04.mixup_step"
from kdlib.losses import kl_divergence


def mixup_step(
    student: nn.Module,
    teacher: nn.Module,
    inputs: Tensor,  # (B, ...)
    order: Tensor,  # (B,)
    weight: Tensor,  # (B,)
    optimizer: torch.optim.Optimizer,
    temperature: float = 1.0,
) -> float:
    """Update the student once on a view that the teacher sees too; return the loss."""
    ### BEGIN SOLUTION
    w = weight.reshape(-1, *[1] * (inputs.dim() - 1)).to(inputs.dtype)
    view = w * inputs + (1 - w) * inputs[order]
    student.train()
    teacher.eval()
    with torch.no_grad():
        teacher_logits = teacher(view)
    loss = temperature**2 * kl_divergence(teacher_logits, student(view), temperature).mean()
    optimizer.zero_grad()
    loss.backward()
    optimizer.step()
    return loss.item()
    ### END SOLUTION


# %% check="04.mixup_step"
check("04.mixup_step", mixup_step)

# %% [markdown] hints="04.mixup_step"
# - Which shape must `weight` have, to be multiplied with (B, 1, 14, 14)?
# - Make the blend once, and hand the same tensor to both networks. The rest is the step of unit 02 without labels.
# - The blend is two lines: reshape the weights to (B, 1, ..., 1), then the weighted sum of `inputs` and `inputs[order]`.

# %% [markdown] expect="04.mixup_step"
# Three lines below: the loss falls.

# %% tags=["nbval-ignore-output"]
from kdlib.training import draw_mixup

student = seeded(0, CNN, 16)
optimizer = torch.optim.AdamW(student.parameters(), 2e-3)
generator = torch.Generator().manual_seed(0)
losses = []
for rows in batches(1000, scale(grade=20, cpu=300, full=3000)):
    blend = draw_mixup(len(rows), generator)  # order and weight, drawn anew for each batch
    losses.append(mixup_step(student, teacher, train.inputs[rows], *blend, optimizer))
for start in range(0, len(losses), len(losses) // 3):
    part = losses[start : start + len(losses) // 3]
    print(f"steps {start:4d} to {start + len(part):4d}: mean loss {sum(part) / len(part):.3f} nats")

# %% [markdown]
# Does the shared view matter, or only that there are many views? The stored run has five seeds and
# three arms on 1,000 unlabelled images, at three lengths of training:
#
# - **fixed**: both networks see the image itself;
# - **mixup, answers blended**: the student sees a blend, its target is the blend of two cached answers;
# - **mixup, one view**: both see the blend (your step).

# %%
stored = evidence.load("u04_fidelity")
arms = ["fixed", "mixup, answers blended", "mixup, one view"]
_, axes = plots.figure(2, height=3.4)
for ax, metric in zip(axes, ("agreement", "predictive_kl"), strict=True):
    lines = {
        arm: [
            paired_interval(v, [0.0] * len(v))
            for v in (stored["results"][str(n)][arm][metric] for n in stored["steps"])
        ]
        for arm in arms
    }
    plots.lines_with_intervals(ax, stored["steps"], lines)
    ax.set_xscale("log")
    ax.set_xticks(stored["steps"], stored["steps"])
    ax.minorticks_off()
    ax.set_xlabel("updates")
axes[0].set_ylabel("agreement on test images (percent)")
axes[1].set_ylabel("predictive KL (nats)")
axes[1].get_legend().remove()
plots.show(
    "Agreement and predictive KL over the number of updates, with 95 % intervals. Predictive KL "
    "after the longest training, in nats: "
    f"{plots.spell({arm: points[-1] for arm, points in lines.items()}, '.2f')}."
)

# %%
last = stored["results"][str(stored["steps"][-1])]
for arm in arms:
    test_, own = (sum(last[arm][k]) / 5 for k in ("agreement", "agreement_on_transfer_images"))
    print(f"{arm:24s} agrees on {own:.1f} % of its own images, on {test_:.1f} % of test images")
for metric, unit in (("agreement", "points"), ("predictive_kl", "nats"), ("accuracy", "points")):
    mean, low, high = stored["one view against answers blended"][f"{metric}_difference"]
    print(
        f"one view, not blended answers: {metric:13s} {mean:+.2f} [{low:+.2f}, {high:+.2f}] {unit}"
    )

# %% [markdown]
# *Figure and table: five seeds, 95 % intervals of each mean. After 200 updates the fixed teacher is
# ahead. After 3,200 it has been left behind: its student matches the teacher on nearly all of the
# images it was taught with, while its predictive KL on test images **rises**. The shared view keeps
# improving, and the table says that it is the teacher's own answer to the blend that helps, beyond
# the blending.*
#
# Two things to take away. The ranking depends on how long you train: a short comparison would have
# chosen the fixed teacher. And no arm comes near full agreement. Stanton et al. found that gap to
# persist in much larger settings, even where the student has the capacity to match its teacher.

# %% [markdown]
# ## 4.5 The bug museum
#
# Six short training scripts follow. Each runs without a warning, and each has **one** bug that stood
# in a public repository. They are written anew around it.
#
# - Read the script as found. Copy its lines into the answer cell below it (where the answer cell has
#   the first lines already, they are fine).
# - Repair the *cause*. A constant that makes up for the symptom, a larger learning rate, another
#   order of the data or a number that looks better is not a repair, and the checks know many of them.
# - Leave everything else as it is: the check compares the student that comes out.
#
# Most scripts use `batches(n, steps, seed)`, which yields index tensors, shuffled anew for each epoch.

# %% [markdown]
# ### Exhibit 1: half and half
#
# The author wants both terms to count the same, so `alpha` is one half. The soft loss that is logged
# looks small, which nobody minds: losses that fall are good losses.


# %%
def found_1(student, teacher, images, labels, steps, seed=0):
    optimizer = torch.optim.AdamW(student.parameters(), 2e-3)
    T, alpha = 2.0, 0.5
    student.train()
    teacher.eval()
    for rows in batches(len(images), steps, seed):
        outputs = student(images[rows])
        with torch.no_grad():
            teacher_outputs = teacher(images[rows])
        log_q = F.log_softmax(outputs / T, dim=1)
        log_p = F.log_softmax(teacher_outputs / T, dim=1)
        total = F.kl_div(log_q, log_p, reduction="sum", log_target=True)
        soft = T * T * total / outputs.numel()
        loss = alpha * soft + (1 - alpha) * F.cross_entropy(outputs, labels[rows])
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()


# %% [markdown]
# #### Your turn
# {{04.exhibit_1}}
#
# Write `exhibit_1`, the script above, repaired.
#
# - Any number of classes; the student is trained in place, nothing is returned. {= both terms weigh what the script says; the student it trains}


# %% exercise="04.exhibit_1"
def exhibit_1(student, teacher, images, labels, steps, seed=0):
    """Train on labels and on the teacher, in equal parts."""
    optimizer = torch.optim.AdamW(student.parameters(), 2e-3)
    ### BEGIN SOLUTION
    T, alpha = 2.0, 0.5
    student.train()
    teacher.eval()
    for rows in batches(len(images), steps, seed):
        outputs = student(images[rows])
        with torch.no_grad():
            teacher_outputs = teacher(images[rows])
        log_q = F.log_softmax(outputs / T, dim=1)
        log_p = F.log_softmax(teacher_outputs / T, dim=1)
        total = F.kl_div(log_q, log_p, reduction="sum", log_target=True)
        soft = T * T * total / len(outputs)
        loss = alpha * soft + (1 - alpha) * F.cross_entropy(outputs, labels[rows])
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    ### END SOLUTION


# %% check="04.exhibit_1"
check("04.exhibit_1", exhibit_1)

# %% [markdown] hints="04.exhibit_1"
# - In a batch of B rows and C classes, how many numbers does `total` add up, and by how many numbers is it divided?
# - Run `found_1` in your head with 10 classes and with 1,000. Which line makes the balance of the two terms depend on the number of classes?
# - One expression changes. Afterwards the soft term is a mean over the same things as the cross-entropy next to it.

# %% [markdown] expect="04.exhibit_1"
# Three ticks. The student learns half from the teacher, with 4 classes as with 10.

# %% [markdown]
# <details><summary>Where it stood (open this after your repair)</summary>
#
# facebookresearch/deit #61 and #116: the sum of the KL was divided by `numel()`, rows times classes. The
# authors kept it so that their results could be reproduced; `batchmean` had done slightly worse or the same.
# HikariTJU/LD #74 is the same bug found by its factor: 17 classes, a loss of a 17th.
#
# </details>

# %% [markdown]
# ### Exhibit 2: ask once
#
# Asking the teacher in every epoch is slow, so the script asks it once, in advance, and looks its
# answers up. It trains without a warning, and accuracy is poor; "distillation does not help on this
# data", writes the author.


# %%
def found_2(student, teacher, images, labels, epochs, seed=0):
    generator = torch.Generator().manual_seed(seed)
    optimizer = torch.optim.AdamW(student.parameters(), 2e-3)
    student.train()
    teacher.eval()

    def loader():  # one epoch, shuffled
        return torch.randperm(len(images), generator=generator).split(32)

    with torch.no_grad():  # ask the teacher once, in advance
        teacher_outputs = [teacher(images[rows]) for rows in loader()]
    for _ in range(epochs):
        for i, rows in enumerate(loader()):
            z, v = student(images[rows]) / 2, teacher_outputs[i] / 2
            soft = F.kl_div(z.log_softmax(1), v.softmax(1), reduction="batchmean")
            loss = 0.9 * 4 * soft + 0.1 * F.cross_entropy(2 * z, labels[rows])
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()


# %% [markdown]
# #### Your turn
# {{04.exhibit_2}}
#
# Write `exhibit_2`, the script above, repaired.
#
# - The data stay shuffled anew in each epoch. A cache is welcome, and not required. {= every image has its own soft target; the data are still shuffled, the rest is as it was}


# %% exercise="04.exhibit_2"
def exhibit_2(student, teacher, images, labels, epochs, seed=0):
    """Ask the teacher once about every image, then train for some epochs."""
    generator = torch.Generator().manual_seed(seed)
    optimizer = torch.optim.AdamW(student.parameters(), 2e-3)
    student.train()
    teacher.eval()

    def loader():  # one epoch, shuffled
        return torch.randperm(len(images), generator=generator).split(32)

    ### BEGIN SOLUTION
    with torch.no_grad():  # ask the teacher once, in advance
        teacher_outputs = torch.cat([teacher(chunk) for chunk in images.split(32)])
    for _ in range(epochs):
        for rows in loader():
            z, v = student(images[rows]) / 2, teacher_outputs[rows] / 2
            soft = F.kl_div(z.log_softmax(1), v.softmax(1), reduction="batchmean")
            loss = 0.9 * 4 * soft + 0.1 * F.cross_entropy(2 * z, labels[rows])
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
    ### END SOLUTION


# %% check="04.exhibit_2"
check("04.exhibit_2", exhibit_2)

# %% [markdown] hints="04.exhibit_2"
# - Print `rows` in the first batch of the first loop and in the first batch of the second. What do you see?
# - What does the number `i` know about a batch that is drawn anew in each epoch? What knows which images it holds?
# - Keep the answers in the order of the data, as one tensor, and look them up as unit 02 did.

# %% [markdown] expect="04.exhibit_2"
# Three ticks: every image is taught with its own soft target, and the data are still shuffled.

# %% [markdown]
# <details><summary>Where it stood (open this after your repair)</summary>
#
# haitongli/knowledge-distillation-pytorch #4 and #9; #16 asks the teacher about each batch instead, and
# #17 was merged. #23 adds that with random crops no cache can be right: the view differs.
#
# </details>

# %% [markdown]
# ### Exhibit 3: the teacher that has nothing to say
#
# The script was tidied up: one long line became four readable ones. Accuracy is that of a student
# trained on labels; the soft losses that it returns are remarkable.


# %%
def found_3(student, teacher, images, labels, steps, seed=0):
    optimizer = torch.optim.AdamW(student.parameters(), 2e-3)
    history = []
    student.train()
    teacher.eval()
    for rows in batches(len(images), steps, seed):
        with torch.no_grad():
            large_logits = teacher(images[rows])
        output = student(images[rows])
        soft_targets = F.softmax(large_logits / 3.0, dim=-1)
        soft_prob = F.log_softmax(large_logits / 3.0, dim=-1)
        soft_loss = F.kl_div(soft_prob, soft_targets, reduction="batchmean")
        label_loss = F.cross_entropy(output, labels[rows])
        loss = 0.9 * 9.0 * soft_loss + 0.1 * label_loss
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        history.append(soft_loss.item())
    return history


# %% [markdown]
# #### Your turn
# {{04.exhibit_3}}
#
# Write `exhibit_3`, the script above, repaired.
#
# - It trains the student and returns the list of soft losses. {= the student learns from the teacher; the student it trains; the soft losses it returns}


# %% exercise="04.exhibit_3"
def exhibit_3(student, teacher, images, labels, steps, seed=0):
    """Train on labels and on the teacher; return the soft loss of every step."""
    optimizer = torch.optim.AdamW(student.parameters(), 2e-3)
    history = []
    student.train()
    teacher.eval()
    ### BEGIN SOLUTION
    for rows in batches(len(images), steps, seed):
        with torch.no_grad():
            large_logits = teacher(images[rows])
        output = student(images[rows])
        soft_targets = F.softmax(large_logits / 3.0, dim=-1)
        soft_prob = F.log_softmax(output / 3.0, dim=-1)
        soft_loss = F.kl_div(soft_prob, soft_targets, reduction="batchmean")
        label_loss = F.cross_entropy(output, labels[rows])
        loss = 0.9 * 9.0 * soft_loss + 0.1 * label_loss
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        history.append(soft_loss.item())
    return history
    ### END SOLUTION


# %% check="04.exhibit_3"
check("04.exhibit_3", exhibit_3)

# %% [markdown] hints="04.exhibit_3"
# - What is in the list that `found_3` returns, and when is a divergence exactly that?
# - Follow the student's logits from the line that makes them. Which losses do they get into?

# %% [markdown] expect="04.exhibit_3"
# Four ticks. The soft losses are positive, and the student feels them.

# %% [markdown]
# <details><summary>Where it stood (open this after your repair)</summary>
#
# labmlai/annotated_deep_learning_paper_implementations #66, reported as a "small error". It came in when
# the code was tidied up; in the maintainer's words the bug stopped the distillation completely.
#
# </details>

# %% [markdown]
# ### Exhibit 4: eval, for a while
#
# Both networks travel together in one module, which is handy for saving. The first line puts the
# teacher into eval mode. No gradient ever reaches it, and still, after training, some of its
# predictions have changed.


# %%
def found_4(student, teacher, images, labels, epochs, seed=0):
    pair = nn.ModuleDict({"student": student, "teacher": teacher.eval()})
    optimizer = torch.optim.AdamW(student.parameters(), 2e-3)
    steps, accuracy = -(-len(images) // 32), []
    for epoch in range(epochs):
        pair.train()
        for rows in batches(len(images), steps, seed + epoch):
            with torch.no_grad():
                v = pair["teacher"](images[rows])
            z = pair["student"](images[rows])
            soft = F.kl_div(z.log_softmax(1), v.softmax(1), reduction="batchmean")
            loss = 0.9 * soft + 0.1 * F.cross_entropy(z, labels[rows])
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
        pair.eval()
        accuracy.append((student(images).argmax(1) == labels).double().mean().item())
    return accuracy


# %% [markdown]
# #### Your turn
# {{04.exhibit_4}}
#
# Write `exhibit_4`, the script above, repaired.
#
# - The student learns in train mode and is measured in eval mode. It returns the accuracies. {= the teacher answers as the network it is; the student and its accuracies}


# %% exercise="04.exhibit_4"
def exhibit_4(student, teacher, images, labels, epochs, seed=0):
    """Train for some epochs; return the accuracy on the images after each."""
    pair = nn.ModuleDict({"student": student, "teacher": teacher.eval()})
    optimizer = torch.optim.AdamW(student.parameters(), 2e-3)
    steps, accuracy = -(-len(images) // 32), []
    ### BEGIN SOLUTION
    for epoch in range(epochs):
        pair["student"].train()
        for rows in batches(len(images), steps, seed + epoch):
            with torch.no_grad():
                v = pair["teacher"](images[rows])
            z = pair["student"](images[rows])
            soft = F.kl_div(z.log_softmax(1), v.softmax(1), reduction="batchmean")
            loss = 0.9 * soft + 0.1 * F.cross_entropy(z, labels[rows])
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
        pair.eval()
        accuracy.append((student(images).argmax(1) == labels).double().mean().item())
    return accuracy
    ### END SOLUTION


# %% check="04.exhibit_4"
check("04.exhibit_4", exhibit_4)

# %% [markdown] hints="04.exhibit_4"
# - `nn.Module.train` sets a flag. On which modules?
# - In which mode is the teacher when the first batch of the second epoch arrives? Print `teacher.training`.
# - Either the call reaches the student alone, or something puts the teacher back before it is asked.

# %% [markdown] expect="04.exhibit_4"
# Three ticks: the teacher is only ever called in eval mode, and is the same network afterwards.

# %% [markdown]
# <details><summary>Where it stood (open this after your repair)</summary>
#
# neuralmagic/sparseml #2191: the teacher was wrapped into the student's module, and `train()` reaches
# every part of a module. In Sharpiless/yolov5-distillation-5.0 #5 a user asks why the teacher is in train
# mode, with a distilled student at half the score of an undistilled one.
#
# </details>

# %% [markdown]
# ### Exhibit 5: a very good student
#
# The script trains a student on the teacher's soft labels and returns its logits on held-out images.
# The paper's table is made of these. The student matches its teacher to the last digit.


# %%
def found_5(student, teacher, images, held_out, steps, seed=0):
    T, model = 3.0, teacher.eval()
    with torch.no_grad():
        soft_labels = (model(images) / T).softmax(dim=1)
    optimizer = torch.optim.AdamW(student.parameters(), 2e-3)
    student.train()
    for rows in batches(len(images), steps, seed):
        loss = T * T * F.cross_entropy(student(images[rows]) / T, soft_labels[rows])
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    student.eval()
    with torch.no_grad():  # finally, predict at temperature 1
        return model(held_out)


# %% [markdown]
# #### Your turn
# {{04.exhibit_5}}
#
# Write `exhibit_5`, the script above, repaired.
#
# - It returns the logits of the held-out images, (N, C), at temperature 1 and in eval mode. {= it reports the student's predictions; and reports them right}


# %% exercise="04.exhibit_5"
def exhibit_5(student, teacher, images, held_out, steps, seed=0):
    """Train on the teacher's soft labels; return the student's logits on the held-out images."""
    ### BEGIN SOLUTION
    T, model = 3.0, teacher.eval()
    with torch.no_grad():
        soft_labels = (model(images) / T).softmax(dim=1)
    optimizer = torch.optim.AdamW(student.parameters(), 2e-3)
    student.train()
    for rows in batches(len(images), steps, seed):
        loss = T * T * F.cross_entropy(student(images[rows]) / T, soft_labels[rows])
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    student.eval()
    with torch.no_grad():  # finally, predict at temperature 1
        return student(held_out)
    ### END SOLUTION


# %% check="04.exhibit_5"
check("04.exhibit_5", exhibit_5)

# %% [markdown] hints="04.exhibit_5"
# - Whose agreement with the teacher is 100 %, and whose predictive KL is zero?
# - Which object does each name stand for in the last line?

# %% [markdown] expect="04.exhibit_5"
# Three ticks. The reported predictions are worse than as found, and they are the student's.

# %% [markdown]
# <details><summary>Where it stood (open this after your repair)</summary>
#
# carlini/nn_robust_attacks #2. The print-out alone was wrong there, as the author says; in this script
# the wrong numbers would go into a table.
#
# </details>

# %% [markdown]
# ### Exhibit 6: fitted features
#
# The student's features should resemble the teacher's. Their widths may differ, so `hint` holds a linear
# projector between them (`kdlib.museum.Hint`; unit 06 is about such losses). The networks come in
# halves, `features` and `head`. The hint loss falls by a tenth and stays there.


# %%
def found_6(student, teacher, hint, images, labels, steps, seed=0):
    optimizer = torch.optim.AdamW(student.parameters(), 2e-3)
    student.train()
    teacher.eval()
    for rows in batches(len(images), steps, seed):
        with torch.no_grad():
            target = teacher.features(images[rows])
        features = student.features(images[rows])
        label_loss = F.cross_entropy(student.head(features), labels[rows])
        loss = label_loss + 10.0 * hint(features, target)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()


# %% [markdown]
# #### Your turn
# {{04.exhibit_6}}
#
# Write `exhibit_6`, the script above, repaired.
#
# - `hint(student_features, teacher_features)` gives the hint loss; its parameters are to be learned. {= the projector learns, and with it the student; the student and the projector}


# %% exercise="04.exhibit_6"
def exhibit_6(student, teacher, hint, images, labels, steps, seed=0):
    """Train on labels, with a hint on the features."""
    ### BEGIN SOLUTION
    optimizer = torch.optim.AdamW([*student.parameters(), *hint.parameters()], 2e-3)
    student.train()
    teacher.eval()
    for rows in batches(len(images), steps, seed):
        with torch.no_grad():
            target = teacher.features(images[rows])
        features = student.features(images[rows])
        label_loss = F.cross_entropy(student.head(features), labels[rows])
        loss = label_loss + 10.0 * hint(features, target)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    ### END SOLUTION


# %% check="04.exhibit_6"
check("04.exhibit_6", exhibit_6)

# %% [markdown] hints="04.exhibit_6"
# - Compare `hint.projector.weight` before and after the script.
# - A gradient arrives at the projector in every step. Who applies it?

# %% [markdown] expect="04.exhibit_6"
# Three ticks: projector and student learn, the teacher does not.

# %% [markdown]
# <details><summary>Where it stood (open this after your repair)</summary>
#
# huangzongmou/yolov8_Distillation #5: the convolution that aligns the features was part of the loss
# module, whose parameters were not given to the optimiser.
#
# </details>

# %% [markdown]
# ## 4.6 What accuracy hides
#
# You have read all six. Now suppose that you had not, and saw only a table of results: the student's
# test accuracy, its agreement with the teacher and its predictive KL.
#
# ### Your turn, in words
# {{04.prediction}}
#
# **Predict before you run.** For each exhibit: how does the bug change the accuracy that the script
# leads to, and would you notice, without the repaired script next to it? Which of the other two numbers
# gives the bug away? Is there one that no number gives away? Come back after the run and add what you
# saw.

# %% [markdown] written="04.prediction" points=3 minutes=8
# Prediction. Exhibit 1: the soft term loses most of its weight, so accuracy goes a little way towards a
# student of labels alone, and nobody notices. Exhibit 2: the soft targets belong to other images, which
# pulls every prediction towards the mean; accuracy falls, and someone will notice. Exhibit 3: exactly a
# student of labels alone, a few points lower, which looks like "distillation does not help here".
# Exhibit 4: the teacher is noisier, so accuracy falls a little. Exhibit 5: accuracy rises to the
# teacher's, which looks like success; agreement of 100 % and a KL of zero give it away. Exhibit 6: the
# hint is harder to fit; a small loss.
#
# After the run. 1, 2, 3 and 5 are as I said, though one run of exhibit 1 mostly lies within what repaired
# runs give. 4 and 6 surprised me: accuracy and agreement stay where they were, and the predictive KL even
# improves. The students are over-confident (4.2), and noise in the teacher, or a hint that is hard to fit,
# may hold them back; that would have to be tested. No number of the table gives these two away: one has
# to look at the teacher's mode and at which parameters move.

# %% [markdown] rubric="04.prediction"
# - 1 point: a prediction for at least five exhibits, each with a reason that concerns what the bug does to the student's gradient, targets or report.
# - 1 point: names the difference between a change of accuracy and a change that someone would notice who has no repaired run to compare with.
# - 1 point: after the run, compares with the measured intervals and explains at least one confirmation or surprise. A wrong prediction, well explained, earns full points.

# %% [markdown]
# First your own repairs, with one seed: 300 images of Fashion-MNIST, a CNN, the shipped teacher.

# %% tags=["nbval-ignore-output"]
from kdlib.museum import Bench

found = {1: found_1, 2: found_2, 3: found_3, 4: found_4, 5: found_5, 6: found_6}
repaired = {1: exhibit_1, 2: exhibit_2, 3: exhibit_3, 4: exhibit_4, 5: exhibit_5, 6: exhibit_6}
steps = scale(grade=10, cpu=200, full=400)
bench = Bench(300, steps, test=len(test.targets))
print("             accuracy (%)      agreement (%)     predictive KL (nats)")
print("exhibit   found  repaired   found  repaired   found  repaired")
for number in found:
    try:
        a, b = (bench.measure(number, table[number]) for table in (found, repaired))
    except NotImplementedError:
        print(f"{number}         (no repair yet)")
        continue
    pairs_of = [f"{a[k]:5.1f} {b[k]:9.1f}" for k in ("accuracy", "agreement")]
    kl = f"{a['predictive_kl']:5.2f} {b['predictive_kl']:9.2f}"
    print(f"{number}         {pairs_of[0]}   {pairs_of[1]}   {kl}")

# %% [markdown]
# The stored run has ten seeds and 400 updates; `python -m evidence u04_museum` regenerates it.

# %%
museum = evidence.load("u04_museum")["results"]
metrics = {"accuracy": "points", "agreement": "points", "predictive_kl": "nats"}
_, axes = plots.figure(3, height=3.2, sharey=True)
for ax, (metric, unit) in zip(axes, metrics.items(), strict=True):
    edge = 5 if unit == "points" else 0.3
    for row, n in enumerate(museum):
        mean, low, high = museum[n]["as found"][f"{metric}_difference"]
        if abs(mean) < edge:
            ax.plot([low, high], [row, row], color=plots.BLUE, lw=2)
            ax.plot(mean, row, "o", color=plots.BLUE)
        else:  # too far away to draw
            x, ha = (-0.95 * edge, "left") if mean < 0 else (0.95 * edge, "right")
            ax.text(x, row, f"{mean:+.2g}", color=plots.VERMILLION, va="center", ha=ha)
    ax.axvline(0, color="black", lw=0.8)
    ax.set_xlim(-edge, edge)
    ax.set_xlabel(f"{metric.replace('_kl', ' KL')} ({unit})")
axes[0].set_yticks(range(6), [f"exhibit {n}" for n in museum])
axes[0].set_ylim(5.5, -0.5)
plots.show(
    "As found minus repaired: accuracy, agreement and predictive KL of six scripts, with 95 % "
    "intervals around zero. Accuracy, in points: "
    f"{plots.spell({n: museum[n]['as found']['accuracy_difference'] for n in museum})}."
)

# %%
print("found minus repaired:", "  ".join(f"{m} ({u})" for m, u in metrics.items()))
for n in museum:
    shown = [museum[n]["as found"][f"{m}_difference"] for m in metrics]
    print(f"exhibit {n}", *(f"{mean:+7.2f} [{low:+.2f}, {high:+.2f}]" for mean, low, high in shown))

# %% [markdown]
# *Figure and table: as found minus repaired, ten seeds, paired 95 % intervals. A red number at the edge
# lies too far away to be drawn. For accuracy and agreement more is better, for the KL less. Exhibits 1,
# 2 and 3 cost accuracy, from one point to fifty. Exhibit 5 "gains" fifteen. Exhibits 4 and 6 move
# neither accuracy nor agreement, and their predictive KL is smaller, that is better, than the repaired
# script's.*
#
# A difference to the repaired script is something that only its author could have known. Whoever has
# the buggy script alone sees one run. Would that run have looked odd? Count the as-found runs that lie
# outside of everything that ten repaired runs gave:


# %%
def outside(number: str, metric: str) -> str:
    good, bad = (museum[number][arm][metric] for arm in ("repaired", "as found"))
    below = sum(x < min(good) for x in bad)
    above = sum(x > max(good) for x in bad)
    return f"{below:2d} below, {above:2d} above"


print(f"of 10 runs {'accuracy':>20s} {'agreement':>20s} {'predictive KL':>20s}")
for n in museum:
    print(f"exhibit {n}  ", *(f"{outside(n, m):>20s}" for m in metrics))

# %% [markdown]
# Read the two tables together.
#
# - **Exhibit 2** anybody would notice. It is the only one.
# - **Exhibits 1 and 3** give plausible numbers. Most runs of exhibit 1 lie within what repaired runs
#   give. Most of exhibit 3 lie below, but whoever has no repaired run sees a student of labels alone: what it looks like is not a bug but a finding,
#   "distillation gains nothing on these data".
# - **Exhibit 5** looks like a success to whoever reads accuracy. Agreement of 100 % and a predictive KL
#   of zero are too good for a student of this size.
# - **Exhibits 4 and 6** no number gives away: where their predictive KL leaves the range, it does so on the
#   *better* side, where nobody looks for a bug. Here a noisy teacher did not hurt, and a projector that
#   never learns even lowered the predictive KL. That is a result about this teacher, these batches and
#   an over-confident student, and no reason to keep the bug: the script does not do what its author
#   will write about it. (In the thread under exhibit 4, a user lost half the score and suspects this.)
#
# So measure fidelity next to accuracy, and do not stop there. What finds these bugs is a question about
# the script itself, cheap enough to ask in every run. It is what the checks asked yours:
#
# | exhibit | ask |
# |---|---|
# | 1 | What does each term weigh in the student's gradient, with 4 classes and with 10? |
# | 2 | Is the target of row i what the teacher says about row i? |
# | 3 | Does the soft term alone move the student? |
# | 4 | In which mode was the teacher called, and is it the same network afterwards? |
# | 5 | Are the reported predictions the student's? |
# | 6 | Has every parameter moved that should learn, and no other? |
#
# ## Further reading
#
# - Stanton et al., *Does Knowledge Distillation Really Work?*, arXiv 2106.05945
# - Beyer et al., *Knowledge distillation: A good teacher is patient and consistent*, arXiv 2106.05237
# - Guo et al., *On Calibration of Modern Neural Networks*, arXiv 1706.04599
# - Zhang et al., *mixup: Beyond Empirical Risk Minimization*, arXiv 1710.09412
#
# Next: unit 05, where the logits have a structure of their own.
