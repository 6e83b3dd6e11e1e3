# ---
# jupyter:
#   kernelspec:
#     display_name: Python 3
#     language: python
#     name: python3
# ---

# %% [markdown]
# # 00 · Start here
#
# Knowledge distillation trains a small network on what a large one says. This unit has two parts.
# The first takes ten minutes: you write a few lines of code, a check speaks to you, and you know how
# the whole course works. In the second you meet the **teacher** that the course distils: you measure
# how often it is right, how sure it is, and whether it should be that sure.
#
# After this unit you can
#
# - answer an exercise, read a verdict, find your progress, and hand in,
# - write a softmax with a temperature, accuracy, negative log-likelihood and temperature scaling,
# - say what a temperature changes about a classifier, and what it cannot change.
#
# You need about 60 minutes, and Python with a little PyTorch: tensors, shapes, indexing.

# %%
import torch
import torch.nn.functional as F
from torch import Tensor

from kdlib import check, evidence
from kdlib.data import fashion_mnist
from kdlib.evaluation import model_size, paired_interval, predict, reliability_bins
from kdlib.models import CNN, load_teacher
from kdlib.notebook import Dashboard, knobs, plots

# %% [markdown]
# ## 0.1 One exercise, from start to end
#
# A classifier gives one number for each class, its **logit**. A softmax turns the logits $z$ into
# probabilities. With a **temperature** $T$ it is equation 1 of Hinton, Vinyals and Dean
# ([arXiv 1503.02531](https://arxiv.org/abs/1503.02531)), the paper that this course starts from:
#
# $$q_i = \frac{\exp(z_i / T)}{\sum_j \exp(z_j / T)}$$
#
# At $T = 1$ it is the softmax you know. A higher $T$ spreads the probability over more classes, a
# lower one gathers it on the largest logit.
#
# ### Your turn
# {{00.softmax_with_temperature}}
#
# Write `softmax_with_temperature(logits, temperature)`.
#
# - `logits` is (..., C): any number of dimensions, and the last one holds the classes.
# - Return a tensor of the same shape; each row sums to one.
# - Logits may be in the thousands.
# - A temperature that is not positive raises a `ValueError` that says what was given.
# - The caller's `logits` stay as they are. `torch.softmax` is allowed.
#
# ### What a check says when an answer is wrong
#
# Before you write yours, look at somebody else's. The next cell holds an answer with one mistake,
# and checks it.


# %%
def somebodys_answer(logits: Tensor, temperature: float) -> Tensor:
    if temperature <= 0:
        raise ValueError(f"temperature must be positive, got {temperature}")
    return torch.softmax(logits * temperature, dim=-1)


check("00.softmax_with_temperature", somebodys_answer)

# %% [markdown]
# Read the verdict from the top.
#
# - The first line gives the points.
# - Each line with a **tick** is something that was tested and is right. It earns its points even
#   when another line fails.
# - Each line with a **cross** says what went wrong, in the numbers that this answer returned. The
#   right numbers are never shown. Inputs are often float64: a tensor that you make yourself takes the
#   dtype of the input, or it rounds.
# - **Looks like** names the mistake when it is a known one. The check has run a collection of wrong
#   answers on the same inputs, and one of them behaves just like this one.
#
# A check never stops the notebook, and you can run it as often as you like. Nothing is lost by
# a wrong try.
#
# ### Now yours
#
# Replace the line `raise NotImplementedError(...)` in the next cell, run the cell, then run the check
# below it. Keep the first line of the cell: by it your answer is recognised when it is graded.


# %% exercise="00.softmax_with_temperature"
def softmax_with_temperature(logits: Tensor, temperature: float) -> Tensor:
    """Probabilities at a temperature: (..., C) -> (..., C)."""
    ### BEGIN SOLUTION
    if temperature <= 0:
        raise ValueError(f"temperature must be positive, got {temperature}")
    return torch.softmax(logits / temperature, dim=-1)
    ### END SOLUTION


# %% check="00.softmax_with_temperature"
check("00.softmax_with_temperature", softmax_with_temperature)

# %% [markdown] hints="00.softmax_with_temperature"
# - What does the formula do to $z$ before anything is exponentiated?
# - `torch.softmax` wants to know along which dimension the numbers sum to one. Count it from the end. It also takes care of large logits.
# - Two steps: an `if` that raises, then one line that returns a softmax over the last dimension.

# %% [markdown] expect="00.softmax_with_temperature"
# Four ticks and no cross. The figure below then uses your function: from left to right, the same
# three logits get softer.

# %%
logits = torch.tensor([4.0, 2.0, 0.0])
_, axes = plots.figure(3, height=2.2, sharey=True)
for ax, T in zip(axes, (0.5, 1.0, 4.0), strict=True):
    plots.probability_bars(ax, softmax_with_temperature(logits, T), ("a", "b", "c"), f"T = {T:g}")
plots.show(
    "Bars of the probabilities of classes a, b and c at T = 0.5, 1 and 4. The order stays; a falls "
    f"from {softmax_with_temperature(logits, 0.5)[0]:.2f} to "
    f"{softmax_with_temperature(logits, 4.0)[0]:.2f}."
)

# %% [markdown]
# *Figure: three classes with logits 4, 2 and 0. At T = 0.5 nearly all probability is on class a; at
# T = 4 the three bars come close to each other, in the same order.*
#
# ## 0.2 Where your progress shows, and how to hand in
#
# Your best result for each exercise is kept in a file on this computer and sent nowhere. (On Colab
# it goes when the machine goes.) This shows it for the whole course; `python -m kdlib progress` does
# the same in a terminal:

# %% tags=["nbval-ignore-output"]
Dashboard()

# %% [markdown]
# **To hand in from JupyterLab:** choose *Kernel > Restart Kernel and Run All Cells*, see that your
# checks still pass, and save. Then hand in this file as your teacher asks for it, under its own name,
# `00_start_here.ipynb`.
#
# **To hand in from Colab:** choose *Runtime > Restart session and run all*, then
# *File > Download > Download .ipynb*. If the name begins with "Copy of", rename the file to
# `00_start_here.ipynb`.
#
# Your answers are run again when they are graded, on other random inputs than here, so what counts
# is the function and not the output you see. Add as many cells as you like. Do not delete, split or
# copy the cells of an exercise.
#
# That is the whole loop: read, write, check, repair. The rest of this unit uses it three more times.
#
# ## 0.3 Meet the teacher
#
# The course ships a convolutional network that was trained on the 60,000 training images of
# Fashion-MNIST ([arXiv 1708.07747](https://arxiv.org/abs/1708.07747)), scaled down to 14x14 pixels.
# It is small as teachers go, and still far larger than the students that you will train.

# %%
test = fashion_mnist(train=False)
names = test.class_names
teacher = load_teacher("fashion_cnn")
for name, model in {"teacher": teacher, "a student of unit 02": CNN(16)}.items():
    size = model_size(model)
    print(f"{name}: {size.parameters:,} parameters, {size.bytes / 1e6:.2f} MB")

# %%
teacher_logits = predict(teacher, test.inputs)  # (10000, 10)
print("images", tuple(test.inputs.shape), "logits", tuple(teacher_logits.shape))

# %% [markdown]
# How often is it right? The class with the largest logit is the prediction.
#
# ### Your turn
# {{00.accuracy}}
#
# Write `accuracy(logits, targets)`.
#
# - `logits` is (N, C), `targets` (N,) holds the true class of each row as an index.
# - Return the share of rows that are predicted right: a Python float between 0 and 1.


# %% exercise="00.accuracy"
def accuracy(logits: Tensor, targets: Tensor) -> float:
    """Share of rows whose largest logit is that of the true class: (N, C), (N,) -> float."""
    ### BEGIN SOLUTION
    right = logits.argmax(dim=-1) == targets
    return right.double().mean().item()
    ### END SOLUTION


# %% check="00.accuracy"
check("00.accuracy", accuracy)

# %% [markdown] hints="00.accuracy"
# - Which method of a tensor gives the position of the largest entry, and along which dimension?
# - Comparing two tensors of indices gives a tensor of True and False. Its mean is what you want, once it is made of numbers.
# - One line: `(predicted class == targets)`, turned into numbers, averaged, and taken out of the tensor.

# %% [markdown] expect="00.accuracy"
# The cell below prints the teacher's accuracy on the 10,000 test images: more than nine in ten.

# %%
print(f"accuracy of the teacher: {accuracy(teacher_logits, test.targets):.1%}")

# %% [markdown]
# A number says little about the teacher's character. Look at four images: two it is sure about, one
# it hesitates over, and one it gets wrong with great confidence.

# %%
confidence, predicted = teacher_logits.softmax(-1).max(-1)
wrong = predicted != test.targets
chosen = [0, 1, int(confidence.argmin()), int((confidence * wrong).argmax())]


def top3(index: int) -> str:
    probs, classes = teacher_logits[index].softmax(-1).topk(3)
    lines = [f"{names[c]} {p:.1%}" for p, c in zip(probs, classes, strict=True)]
    return "\n".join([f"is: {names[test.targets[index]]}", *lines])


plots.image_row(test.inputs[chosen], [top3(i) for i in chosen], height=2.8)
plots.show(
    "Four test images, each with its class and the teacher's three most probable ones: "
    + "; ".join(top3(i) for i in chosen)
)

# %% [markdown]
# *Figure: four test images. Above each stand its true class and the teacher's three most probable
# classes. Over the third the teacher hesitates between several; at the last it is sure, and wrong.*
#
# The runners-up are what distillation lives on. Hand the second image to your function and move the
# temperature: the top class stays the top class, and the classes behind it rise into sight.

# %% tags=["nbval-ignore-output"]
pullover = teacher_logits[1]


def show_temperature(T: float) -> None:
    _, ax = plots.figure(height=2.8)
    plots.probability_bars(ax, softmax_with_temperature(pullover, T), names, f"T = {T:g}")
    plots.show(
        f"Bars of the ten class probabilities for the pullover at T = {T:g}. "
        f"The longest reaches {softmax_with_temperature(pullover, T).max():.2f}."
    )


knobs(show_temperature, T=(0.5, 10.0, 1.0, 0.5))

# %%
_, axes = plots.figure(3, height=2.8, sharey=True)
for ax, T in zip(axes, (1.0, 3.0, 10.0), strict=True):
    plots.probability_bars(ax, softmax_with_temperature(pullover, T), names, f"T = {T:g}")
plots.show(
    "Bars of the ten class probabilities for the pullover at T = 1, 3 and 10. The longest shrinks "
    f"from {softmax_with_temperature(pullover, 1.0).max():.2f} to "
    f"{softmax_with_temperature(pullover, 10.0).max():.2f}, and the others grow."
)

# %% [markdown]
# *Figure: the pullover at three positions of the slider. At T = 1 there is one bar. At T = 10 the other
# garments for the upper body stand out among the rest.*
#
# ## 0.4 How sure should it be?
#
# Of all images on which a classifier says "80 %", it should get 80 % right. Then it is
# **calibrated**. Compare what the teacher claims with what it achieves.

# %%
claimed = teacher_logits.softmax(-1).amax(-1).mean().item()
print(f"mean confidence {claimed:.1%}, accuracy {accuracy(teacher_logits, test.targets):.1%}")

# %%
bins = reliability_bins(teacher_logits, test.targets, bins=10)
_, ax = plots.figure(height=3.2, width=4.2)
ax.plot([0, 1], [0, 1], color="black", lw=0.8, label="calibrated")
ax.plot(bins.confidence, bins.accuracy, "o-", label="teacher")
ax.set_xlabel("confidence (probability of the predicted class)")
ax.set_ylabel("share that is right")
ax.legend()
plots.show(
    "Share of right predictions over confidence, in ten bins, beside the diagonal of a calibrated "
    f"network. At confidence {bins.confidence[7]:.2f} the teacher is right on "
    f"{bins.accuracy[7]:.2f}, at {bins.confidence[9]:.2f} on {bins.accuracy[9]:.2f}."
)

# %% [markdown]
# *Figure: predictions sorted by confidence into ten bins. Points below the line are over-confident:
# the teacher is right less often than it says. That is so from 0.6 up, where most images are. The
# leftmost bin holds only a handful.*
#
# A distilled student copies these probabilities, so their quality matters. The measure for it is
# the **negative log-likelihood** of the true class, which is also the cross-entropy that networks
# are trained on:
#
# $$\mathrm{NLL} = -\frac{1}{N} \sum_n \log q_n(y_n)$$
#
# It is zero for a classifier that is certain and right, and $\log C$ for one that gives all $C$
# classes the same. Its unit is the nat, since the logarithm is the natural one.
#
# ### Your turn
# {{00.nll}}
#
# Write `nll(logits, targets)`.
#
# - `logits` is (N, C), `targets` (N,); return a Python float, in nats.
# - It is a mean over the rows.
# - A model may be certain and wrong: logits in the thousands, the true class at a probability that
#   is zero in floating point. The NLL is then large, and finite.


# %% exercise="00.nll"
def nll(logits: Tensor, targets: Tensor) -> float:
    """Mean negative log-likelihood of the true classes, in nats: (N, C), (N,) -> float."""
    ### BEGIN SOLUTION
    log_probs = F.log_softmax(logits, dim=-1)  # (N, C)
    true = log_probs.gather(-1, targets[:, None])  # (N, 1)
    return -true.mean().item()
    ### END SOLUTION


# %% check="00.nll"
check("00.nll", nll)

# %% [markdown] hints="00.nll"
# - Which single entry of each row of log-probabilities counts?
# - Take the logarithm together with the softmax, not after it. PyTorch has one function for both.
# - `gather`, or indexing with `torch.arange(N)` and `targets`, picks one entry of each row; then a mean and a sign.

# %% [markdown] expect="00.nll"
# The cell below prints two numbers that agree, yours and PyTorch's, and above them the NLL of
# someone who knows nothing.

# %%
print(f"no idea:       {nll(torch.zeros(1, 10), torch.tensor([0])):.4f} nats")
print(f"your nll:      {nll(teacher_logits, test.targets):.4f} nats")
print(f"cross_entropy: {F.cross_entropy(teacher_logits, test.targets):.4f} nats")

# %% [markdown]
# ## 0.5 Predict
#
# In this course you predict before you measure. A wrong prediction that you explain is worth as much
# as a right one.
#
# ### Your turn, in words
# {{00.prediction}}
#
# You divide all logits of the teacher by a temperature $T$ and let $T$ grow from 0.3 to 100. What
# happens to its **accuracy**, and what to its **NLL**? At which $T$ do you expect the smallest NLL:
# below, at, or above 1? Give a reason for each. After the experiment, add what you saw.

# %% [markdown] written="00.prediction" points=3 minutes=8
# Accuracy does not change at any T: dividing a row by a positive number keeps the order of its
# logits, so the largest stays the largest. The NLL first falls and then rises. When T is small the
# teacher is nearly certain of everything, and each image that it gets wrong costs very much. When T
# is large it gives all classes the same, and the NLL tends to log 10, about 2.3 nats. I expect the
# minimum above 1, since the teacher claims more confidence than it has accuracy.
#
# After the run: accuracy is the same to the last digit, and the smallest NLL is at about 1.4, as
# expected. The gain is smaller than I thought, since the teacher was not far from calibrated.

# %% [markdown] rubric="00.prediction"
# - 1 point: accuracy cannot change, because division by a positive number keeps the order of a row's logits.
# - 1 point: the NLL has a minimum, and the answer says what makes it grow on both sides (certain mistakes at small T, near-uniform predictions at large T).
# - 1 point: places the minimum with a reason from the measurements above (over-confident, so above 1), and compares with the result afterwards. A wrong prediction, well explained, earns full points.

# %% [markdown]
# ## 0.6 Temperature scaling
#
# Guo et al. ([arXiv 1706.04599](https://arxiv.org/abs/1706.04599)) repair a network's confidence with
# a single number: the temperature with the smallest NLL on images that it was not trained on.
#
# $$T^* = \operatorname*{argmin}_T \; \mathrm{NLL}(z / T,\, y)$$
#
# ### Your turn
# {{00.fit_temperature}}
#
# Write `fit_temperature(logits, targets, temperatures)`.
#
# - `logits` is (N, C), `targets` (N,), `temperatures` (K,): the ones to try, in any order.
# - Return the temperature with the smallest NLL, as a Python float.
# - `F.cross_entropy` is the NLL too; use it here, so that this exercise stands on its own.


# %% exercise="00.fit_temperature"
def fit_temperature(logits: Tensor, targets: Tensor, temperatures: Tensor) -> float:
    """The temperature of the grid with the smallest NLL: (N, C), (N,), (K,) -> float."""
    ### BEGIN SOLUTION
    losses = torch.tensor([F.cross_entropy(logits / T, targets) for T in temperatures])  # (K,)
    return temperatures[losses.argmin()].item()
    ### END SOLUTION


# %% check="00.fit_temperature"
check("00.fit_temperature", fit_temperature)

# %% [markdown] hints="00.fit_temperature"
# - You need one NLL for each temperature. What do you do to the logits before you ask for it?
# - Having the list of NLLs, you want the *position* of the smallest, and then what stands at that position in the grid.
# - Two lines: a tensor of K NLLs; an entry of `temperatures`, taken out of its tensor.

# %% [markdown] expect="00.fit_temperature"
# The figure below: a flat line, and a curve with its lowest point a little above T = 1.

# %%
grid = torch.logspace(-0.5, 2, 101)  # 0.32 to 100
scaled = [(teacher_logits / T, test.targets) for T in grid]
_, (left, right) = plots.figure(2, height=3.0)
left.semilogx(grid, [100 * accuracy(*pair) for pair in scaled])
left.set_ylim(0, 100)
left.set_ylabel("accuracy (%)")
right.semilogx(grid, [nll(*pair) for pair in scaled])
right.axvline(fit_temperature(teacher_logits, test.targets, grid), color="black", lw=0.8)
right.set_ylabel("NLL (nats)")
for ax in (left, right):
    ax.set_xlabel("temperature")
plots.show(
    "Two curves over temperature, 0.3 to 100, on a logarithmic axis. Left, accuracy is flat at "
    f"{100 * accuracy(*scaled[0]):.1f} %. Right, the NLL falls from {nll(*scaled[0]):.2f} to "
    f"{min(nll(*pair) for pair in scaled):.3f} nats and rises to {nll(*scaled[-1]):.2f}."
)

# %% [markdown]
# *Figure: left, accuracy is the same at every temperature. Right, the NLL falls to its minimum (thin
# line) and rises towards that of ten equal probabilities.*
#
# This temperature was chosen on the images it was judged on, which flatters it. So do it properly:
# choose on 1,000 images, judge on the other 9,000, and repeat with other draws. As a **control**,
# fit on the same images with their labels shuffled. If the gain came from softening as such, shuffled
# labels would give it too.


# %%
def split_once(seed: int) -> tuple[float, float, float]:
    """NLL on 9,000 images: as it is, with T fitted, with T fitted to shuffled labels."""
    generator = torch.Generator().manual_seed(seed)
    order = torch.randperm(len(test.targets), generator=generator)
    fit, rest = order[:1000], order[1000:]
    shuffled = test.targets[fit][torch.randperm(1000, generator=generator)]
    T = fit_temperature(teacher_logits[fit], test.targets[fit], grid)
    T_control = fit_temperature(teacher_logits[fit], shuffled, grid)
    print(f"split {seed}: T = {T:.2f}, control T = {T_control:.0f}")
    return tuple(nll(teacher_logits[rest] / t, test.targets[rest]) for t in (1.0, T, T_control))


# %%
before, fitted, control = zip(*(split_once(seed) for seed in range(5)), strict=True)
for name, arm in {"fitted": fitted, "shuffled labels": control}.items():
    mean, low, high, n = paired_interval(arm, before)
    print(f"{name}: NLL {mean:+.4f} nats [{low:+.4f}, {high:+.4f}] against T = 1, {n} splits")

# %% [markdown]
# Five splits from your own functions. The stored run has thirty and a finer search for $T$;
# `python -m evidence u00_temperature_scaling` regenerates it.

# %%
stored = evidence.load("u00_temperature_scaling")["results"]
for arm in ("fitted", "fitted to shuffled labels"):
    for key, unit in {"accuracy": "", "nll": " nats", "ece": ""}.items():
        mean, low, high = stored[arm][f"{key}_difference"]
        print(f"{arm}: {key} {mean:+.4f}{unit} [{low:+.4f}, {high:+.4f}]")

# %%
_, (left, right) = plots.figure(2, height=2.8)
left.hist(stored["fitted"]["temperature"], bins=10)
left.set_xlabel("fitted temperature")
left.set_ylabel("splits")
for arm, name in {"T = 1": "as it is", "fitted": "T fitted"}.items():
    right.hist(stored[arm]["nll"], bins=10, alpha=0.8, label=name)
right.set_xlabel("NLL on the other 9,000 images (nats)")
right.legend()
plots.show(
    "Histograms over 30 splits. Left, the fitted temperature, "
    f"{min(stored['fitted']['temperature']):.2f} to {max(stored['fitted']['temperature']):.2f}. "
    f"Right, the NLL: as it is, {min(stored['T = 1']['nll']):.3f} nats or more; "
    f"with T fitted, {max(stored['fitted']['nll']):.3f} or less."
)

# %% [markdown]
# *Figure: thirty splits. Left, the temperature chosen on 1,000 images varies a little and always
# lies above 1. Right, the NLL on the other images, before and after.*
#
# One number, fitted on 1,000 images, lowers the NLL in every split, by a small and sure amount, and
# brings confidence closer to accuracy (ECE, the expected calibration error, is the mean gap of the
# reliability figure). Accuracy does not move at all. The control makes the NLL far worse: labels
# that say nothing ask for a teacher that says nothing, so the search takes the hottest temperature
# it is offered. The interval covers the luck of the
# split only. All splits share one teacher and one test set, so it says nothing about other teachers.
#
# ### Your turn, in words
# {{00.not_accuracy}}
#
# A colleague reports: "With T = 2 our teacher became more accurate." What do you ask them first?
# And why is "pick the temperature with the best accuracy" no method at all?

# %% [markdown] written="00.not_accuracy" points=2 minutes=5
# I ask what else changed between the two runs, or whether they measured the teacher or a student
# trained with it. Dividing all logits of a row by the same positive number keeps their order, so
# the same network on the same images has the same accuracy at every temperature. For the same reason
# accuracy cannot choose one: all temperatures tie, and what one gets is the first that was tried.

# %% [markdown] rubric="00.not_accuracy"
# - 1 point: asks about another cause (other weights or images, a student instead of the teacher, noise or rounding), since T alone cannot do this.
# - 1 point: all temperatures tie in accuracy, so choosing by it is arbitrary.

# %% [markdown]
# ## 0.7 What comes next
#
# Here the temperature repaired a finished classifier, and one value was right. In distillation the
# same formula has another purpose: it sets how much of the runners-up the student gets to see, and
# the best value depends on the student. Unit 01 measures how far two distributions are apart; unit
# 02 puts both together.
#
# In short:
#
# - a check tells you what is right, what is wrong, and which known mistake it looks like,
# - a temperature never changes which class wins,
# - this teacher is a little over-confident, and one number repairs most of it.
