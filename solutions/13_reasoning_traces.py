# ---
# jupyter:
#   kernelspec:
#     display_name: Python 3
#     language: python
#     name: python3
# ---

# %% [markdown]
# # 13 · Reasoning traces
#
# A teacher behind an API gives you no logits. It gives you text: an answer and, if you ask for it, the
# steps that lead there. Much of what is called distillation today trains a student on such
# **traces**. This unit asks what the steps are worth, which of them to keep, and who decides.
#
# After this unit you can
#
# - fine-tune on completions without teaching prompts, padding, or endless talk,
# - write a verifier that a model cannot talk its way past,
# - turn a teacher that errs into a clean training set, and say what a verifier does not see,
# - estimate pass@k without bias,
# - compare fine-tuning on traces, on-policy distillation and policy gradient at equal cost.
#
# You need about 85 minutes. Units 11 and 12 introduced the shift, the mask and the reverse KL.

# %%
import torch
import torch.nn.functional as F
from torch import Tensor

from kdlib import check, evidence
from kdlib.data import shell_game as game
from kdlib.data.text import pad
from kdlib.evaluation import paired_interval
from kdlib.models import GPT, GPTConfig, load_teacher, seeded, teacher_info
from kdlib.notebook import plots
from kdlib.profile import scale
from kdlib.training import fit_tokens

# %% [markdown]
# ## 13.1 A problem with steps
#
# Five cups stand in a row, a ball lies under one of them. Neighbouring cups change places ten times:
# `a` swaps cups 1 and 2, `b` 2 and 3, `c` 3 and 4, `d` 4 and 5. Where is the ball? The problem is a
# line of text, and so is its solution:
#
# `dcbacabdba>3` `3444332233` `#3`
#
# That is: ten swaps, `>` and the first cup; the cup **after each swap**; the mark `#` and the answer.
# Every character is a token, and a token EOS ends the row. The form is that of a word problem
# with worked steps, and thousands of problems can be made and checked in no time.

# %%
generator = torch.Generator().manual_seed(0)
some = game.problems(3, generator)
for text in game.completions(game.worked(some), 0):
    print(text)

# %%
CONFIG = GPTConfig(game.VOCABULARY, width=32, layers=2, heads=4, context=32)
PROMPT = game.SWAPS + 2  # tokens before the solution starts
path = [int(some.prompts[0, -1]) + 1, *some.steps[0].tolist()]
swaps = game.completions(some.prompts[:1], 0)[0][: game.SWAPS]
_, ax = plots.figure(height=2.8)
ax.step(range(game.SWAPS + 1), path, where="post", marker="o")
ax.set_xticks(range(game.SWAPS + 1), ["start", *swaps])
ax.set_yticks(range(1, 6))
ax.invert_yaxis()
ax.set_xlabel("swap")
ax.set_ylabel("cup with the ball")
plots.show(
    f"The cup with the ball, from the start through {game.SWAPS} swaps, as steps: "
    f"{', '.join(map(str, path))}."
)

# %% [markdown]
# *Figure: the first problem. Each swap moves the ball by one cup or leaves it where it is. Each step
# is easy; the answer needs all ten of them in order.*
#
# How far do you get without following the ball? Someone who knows only the first cup can name the
# cup that is most probable after ten random swaps.

# %%
one_swap = torch.zeros(5, 5)
for left in range(4):
    moved = torch.eye(5)
    moved[[left, left + 1]] = moved[[left + 1, left]]
    one_swap += moved / 4
blind = torch.linalg.matrix_power(one_swap, game.SWAPS).max(dim=1).values.mean()
print(f"the best guess from the first cup alone: {blind:.1%} right")

# %% [markdown]
# ## 13.2 Learn the completion
#
# Supervised fine-tuning (SFT) is next-token prediction on whole rows, with one change: the student
# is to learn to **answer**, not to ask. Only the completion's tokens count, its EOS among them:
#
# $$L = -\frac{1}{N} \sum_b \sum_{t=P_b}^{L_b - 1} \log q(x_{b,t} \mid x_{b,<t}), \qquad
# N = \sum_b (L_b - P_b)$$
#
# Row $b$ has $P_b$ tokens of prompt and $L_b$ tokens in all; positions count from 0. Behind the row's
# end there is padding, and as in many real models the padding token **is** the EOS token.
#
# ### Your turn
# {{13.sft_loss}}
#
# Write `sft_loss(logits, ids, prompt_lengths, lengths)`.
#
# - `logits` is (B, T, V): those at position t are for the token at t + 1. `ids` is (B, T);
#   `prompt_lengths` (1 or more) and `lengths` are (B,). {= the value; the gradient}
# - Return a scalar, the mean over all completion tokens of the batch together.
#   {= the value; padding and repetition change nothing}
# - Every completion has an EOS of its own, and it counts. The padding behind it does not. A row may be a
#   prompt and nothing else. {= the value; padding and repetition change nothing}
# - Logits in the padding may be NaN. {= NaN in the padding does no harm}
# - A batch without any completion raises a `ValueError`. {= a batch without a completion is refused}
# - `kdlib.losses.shift_and_mask` is sealed here: the mask is yours to write. {= -}


# %% exercise="13.sft_loss"
def sft_loss(
    logits: Tensor,  # (B, T, V)
    ids: Tensor,  # (B, T)
    prompt_lengths: Tensor,  # (B,)
    lengths: Tensor,  # (B,)
) -> Tensor:
    """Negative log-likelihood of the completions: a scalar, in nats per token."""
    ### BEGIN SOLUTION
    position = torch.arange(1, ids.shape[1])  # of each target
    counts = (position >= prompt_lengths[:, None]) & (position < lengths[:, None])
    if not counts.any():
        raise ValueError("there is no completion in the batch")
    return F.cross_entropy(logits[:, :-1][counts], ids[:, 1:][counts])
    ### END SOLUTION


# %% check="13.sft_loss"
check("13.sft_loss", sft_loss)

# %% [markdown] hints="13.sft_loss"
# - At which position does the model say the completion's first token? At which its EOS?
# - Number the targets: the target at index 0 is token 1. A target counts when its number is at least the prompt's length and smaller than the row's.
# - Three lines: the targets' numbers (`torch.arange`), a boolean mask (B, T - 1), and a cross-entropy over what the mask selects from `logits[:, :-1]` and `ids[:, 1:]`.

# %% [markdown] expect="13.sft_loss"
# Six ticks. Below, an untrained student pays about two nats for each token, a little less than one that
# holds all twelve tokens equally probable (log 12 = 2.5).

# %%
rows = game.worked(game.problems(64, generator))
untrained = seeded(0, GPT, CONFIG)
starts, ends = torch.full((64,), PROMPT), torch.full((64,), rows.shape[1])
with torch.no_grad():
    print(f"untrained student: {sft_loss(untrained(rows), rows, starts, ends):.2f} nats per token")

# %% [markdown]
# ## 13.3 Answers or steps?
#
# Two students of the same size, with the same initial weights, learn from the same 4,000 problems for
# the same number of updates. One sees `...>3#3`, the other `...>33444332233#3`.
#
# ### Your turn, in words
# {{13.prediction}}
#
# **Predict before you run.** How many of the answers will each student get right (blind guessing gives
# the number above)? Suppose that the student with steps wins: name two explanations that have
# nothing to do with *what the steps say*, and for each a control that would expose it. After the
# experiment, add what you saw.

# %% [markdown] written="13.prediction" points=4 minutes=8
# Prediction: the student with answers alone stays near blind guessing, because two layers cannot
# carry out ten dependent swaps in one pass and the answer alone does not say how to break the problem
# up. The student with steps gets nearly all right, since each step is a small table: cup and swap in,
# cup out.
#
# Other explanations: (1) more learning signal, since a row with steps has 13 tokens to learn and an
# answer 3; control: train on answers for 13/3 as many updates. (2) more computation before the answer:
# ten more tokens are ten more passes; control: ten filler tokens without content in place of the
# steps.
#
# After the run: answers alone get about 27 %, which is blind guessing (29 %). As many learned tokens add
# a point or two, as many processed tokens nothing that is sure, and fillers are even worse. Steps reach
# 98 %. So it is the content of the steps.

# %% [markdown] rubric="13.prediction"
# - 1 point: a number or range for both students, with a reason.
# - 2 points: two rival explanations that do not concern the content (more learned tokens, more processed tokens or computation, longer training, ...), each with a control that fits it; 1 point for each.
# - 1 point: afterwards compares the prediction with the measured intervals, controls included. A wrong prediction, well explained, earns full points.

# %%
STEPS = scale(grade=4, cpu=150, full=150)


def train(rows: Tensor, seed: int = 0) -> GPT:
    """Fine-tune a fresh student on whole rows (n, T), with your loss."""
    lengths = ((rows != game.EOS).sum(1) + 1).clamp(max=rows.shape[1])  # the first EOS counts
    starts = torch.full_like(lengths, PROMPT)
    model = seeded(seed, GPT, CONFIG)

    def loss(model: GPT, batch: Tensor) -> Tensor:
        return sft_loss(model(rows[batch]), rows[batch], starts[batch], lengths[batch])

    def draw(g: torch.Generator) -> Tensor:
        return torch.randint(len(rows), (64,), generator=g)

    fit_tokens(model, draw, loss, steps=STEPS, lr=8e-3, seed=seed, progress=False)
    return model


# %% tags=["nbval-ignore-output"]
given = game.problems(4000, torch.Generator().manual_seed(0))
for name, rows in (
    ("answers alone", game.answers_only(given)),
    ("worked steps", game.worked(given)),
):
    print(f"{name}: {game.exact_answer(train(rows), 500):.1%} of 500 fresh problems right")

# %% [markdown]
# One seed proves little, and "equal updates" is not the only fair comparison. The stored run has six
# seeds and the controls; `python -m evidence u13_worked_steps` regenerates it.

# %%
stored = evidence.load("u13_worked_steps")
arms = {arm: e for arm, e in stored["results"].items() if not arm.startswith("step-by-step")}
_, ax = plots.figure(height=2.8)
for y, e in enumerate(arms.values()):
    ax.plot(e["accuracy"], [y] * len(e["accuracy"]), "o", color=plots.BLUE, alpha=0.6)
ax.axvline(100 * blind, color=plots.BLACK, lw=0.8, ls="--")
ax.text(100 * blind + 1, len(arms) - 1.4, "blind guess", fontsize=9)
ax.set_yticks(range(len(arms)), arms)
ax.set_ylim(len(arms) - 0.5, -0.5)
ax.set_xlim(0, 102)
ax.set_xlabel("right answers on fresh problems (percent)")
plots.show(
    "Right answers in percent, a dot for each seed, and the blind guess as a dashed line. Means: "
    f"{plots.spell({a: sum(e['accuracy']) / len(e['accuracy']) for a, e in arms.items()}, '.0f')}."
)

# %%
for arm, e in arms.items():
    mean = sum(e["accuracy"]) / len(e["accuracy"])
    against = e.get("accuracy_difference")
    gain = "{:+5.1f} [{:+.1f}, {:+.1f}] points".format(*against) if against else ""
    print(f"{arm:42s} {mean:5.1f} %  {gain}")

# %% [markdown]
# *Figure and table: each dot is a seed; differences are paired, with 95 % intervals, against answers
# alone at equal updates. Longer training on answers, by processed or by learned tokens, stays at the
# blind guess, and ten filler tokens do not even reach it.*
#
# The steps win by their **content**. They turn one hard function (ten swaps at once) into ten easy
# ones, and the student writes its intermediate results where its next pass can read them.

# %% [markdown]
# ## 13.4 Who says that it is right?
#
# Traces come from a model, and models err. Here comes the strength of problems with checkable
# answers: a small program, the **verifier**, says for every trace whether its answer is right. It
# will filter your training data, and in reinforcement learning it *is* the goal. So everything that it
# lets pass will be found. Public verifiers have read the first number in place of the last, the last
# in place of the marked one, and have rewarded an empty answer.
#
# ### Your turn
# {{13.verify}}
#
# Write `verify(text, answer)`, for texts from any model and any whole number.
#
# - The answer is what stands after the **last** `#`, whatever stands before it.
#   {= reads the answer, not the steps; the last mark counts, and only what stands behind it}
# - It has to be one whole number, and nothing else may stand there: "4 or 5" is no answer, and neither
#   is 4.7, +4 or 4e0. {= one answer, whole and exact}
# - How the number is written does not matter: spaces and line breaks around it, a minus sign, then a
#   dollar sign before the digits, zeros in front, commas between thousands, zeros after a decimal point, a
#   full stop at the end. So `#$29.00`, `# 1,234.` and `#-$5` are answers, and `#$-5` is none.
#   {= a number is a number however it is written; one answer, whole and exact}
# - A text without a readable answer is **wrong**: return False, raise nothing. A model may also write
#   ten thousand digits, and Python's `int` raises beyond 4,300. {= no answer is a wrong answer}
# - Compare whole numbers as whole numbers. {= one answer, whole and exact}
# - `game.final_answer` is sealed here: the reading is yours to write. {= -}


# %% exercise="13.verify"
def verify(text: str, answer: int) -> bool:
    """Whether the text ends with the right answer."""
    ### BEGIN SOLUTION
    import re

    _, mark, said = text.rpartition("#")
    number = r"\s*(-?)\$?(\d{1,3}(?:,\d{3})+|\d+)(?:\.0+)?\.?\s*"
    found = re.fullmatch(number, said)
    if not mark or not found:
        return False
    try:
        return int(found[1] + found[2].replace(",", "")) == answer
    except ValueError:  # more digits than `int` reads
        return False
    ### END SOLUTION


# %% check="13.verify"
check("13.verify", verify)

# %% [markdown] hints="13.verify"
# - Which texts would a lazy student write if it knew your verifier? Try an empty one, one with all the numbers, and one that changes its mind.
# - Split the text at the last mark, then ask whether the *whole* rest reads as one number. A pattern that has to match everything is stricter than one that is searched for.
# - One pattern for the whole rest, in this order: space, perhaps a minus sign, perhaps a dollar sign, digits (plain, or in groups of three with commas), perhaps zeros after a point, perhaps a full stop, space. `re.fullmatch` asks whether a pattern is all there is.

# %% [markdown] expect="13.verify"
# The first two texts below are right, the other four are not.

# %%
for text in ("...so #3", "no, wait: #4 ... #3.", "#3 or 4", "3 #4", "the ball is under 3", "#"):
    print(f"{text!r:26} {verify(text, 3)}")

# %% [markdown]
# ## 13.5 A teacher that errs
#
# The teacher of this unit is a small GPT that was stopped half-way through its training. Greedily it
# gets most answers right; when you **sample**, and you must if you want several traces of a problem,
# about half of them.

# %%
teacher = load_teacher("shell_gpt")
facts = teacher_info("shell_gpt")
print(f"greedy {facts['accuracy']:.1%}, sampled at T = 1 {facts['accuracy_sampled']:.1%}")

# %%
N, DRAWS = scale(grade=10, cpu=500, full=1000), 8
asked = game.problems(N, torch.Generator().manual_seed(7))
questions = asked.prompts.repeat_interleave(DRAWS, dim=0)  # (N * DRAWS, P)


def draw_traces(temperature: float) -> list[list[str]]:
    """Let the teacher solve each problem DRAWS times."""
    g = torch.Generator().manual_seed(1)
    texts = game.completions(game.play(teacher, questions, temperature, g), PROMPT)
    return [texts[i : i + DRAWS] for i in range(0, len(texts), DRAWS)]


def marks(traces: list[list[str]]) -> Tensor:
    """Which trace of which problem your verifier accepts: (N, DRAWS), boolean."""
    pairs = zip(traces, asked.answers.tolist(), strict=True)
    return torch.tensor([[bool(verify(t, y)) for t in row] for row, y in pairs])


# %%
def show_counts(ax, temperature: float) -> None:
    counts = marks(draw_traces(temperature)).sum(dim=1)
    ax.bar(range(DRAWS + 1), torch.bincount(counts, minlength=DRAWS + 1) / N * 100)
    ax.set_title(f"T = {temperature:g}: {100 * counts.double().mean() / DRAWS:.0f} % right")
    ax.set_xticks(range(0, DRAWS + 1, 2))
    ax.set_xlabel("right traces out of 8")


_, axes = plots.figure(3, height=2.8, sharey=True)
for ax, temperature in zip(axes, (0.3, 1.0, 1.6), strict=True):
    show_counts(ax, temperature)
axes[0].set_ylabel("problems (percent)")
plots.show(
    "Bars of how many of 8 traces are right, in percent of the problems. "
    + "; ".join(ax.get_title() for ax in axes)
)

# %% [markdown]
# *Figure: how many of eight traces are right, problem by problem. At T = 0.3 two problems in three are
# solved every time, by eight copies of the same trace. At T = 1 nearly every problem is solved at least
# once. At T = 1.6 most traces are noise.*

# %% tags=["nbval-ignore-output"]
from kdlib.notebook import knobs


def move(T: float) -> None:
    _, ax = plots.figure(height=2.8)
    show_counts(ax, T)
    plots.show(
        f"Bars of how many of {DRAWS} traces are right, in percent of the problems. {ax.get_title()}."
    )


knobs(move, T=(0.2, 2.0, 1.0, 0.2))

# %% [markdown]
# The spread over problems is the trap of filtering. Keep every right trace, and problems that are
# solved eight times fill the set, while those that are solved once hardly occur. So cap the traces
# of each problem, and let them be **different** ones: different ways to an answer are what this kind of
# data adds (Yuan et al., [arXiv 2308.01825](https://arxiv.org/abs/2308.01825)).
#
# ### Your turn
# {{13.rejection_sample}}
#
# Write `rejection_sample(traces, answers, verifier, keep)`.
#
# - `traces[i]` is a list of texts for problem i, in the order they were drawn; `answers[i]` is its right
#   answer; `verifier(text, answer)` returns a bool, and it alone says what is right.
#   {= only verified traces}
# - For each problem keep the first `keep` **different** traces that the verifier accepts, or as many as
#   there are. {= each trace of a problem once; at most `keep` traces of a problem, and no solvable problem lost}
# - Return a list of pairs `(i, text)`, problems in order. A problem without a right trace has no pair.
#   {= the first ones, in order, with their problem's number}
# - `keep` < 1, or lists of different lengths, raise a `ValueError`.
#   {= bad input is refused}


# %% exercise="13.rejection_sample"
def rejection_sample(traces, answers, verifier, keep: int) -> list[tuple[int, str]]:
    """The verified traces, at most `keep` different ones for each problem."""
    ### BEGIN SOLUTION
    if len(traces) != len(answers) or keep < 1:
        raise ValueError(f"got {len(traces)} problems, {len(answers)} answers, keep = {keep}")
    kept = []
    for i, (drawn, answer) in enumerate(zip(traces, answers, strict=True)):
        right = dict.fromkeys(text for text in drawn if verifier(text, answer))
        kept += [(i, text) for text in list(right)[:keep]]
    return kept
    ### END SOLUTION


# %% check="13.rejection_sample"
check("13.rejection_sample", rejection_sample)

# %% [markdown] hints="13.rejection_sample"
# - In which order do you verify, remove repetitions and cut? What changes if you cut first?
# - A dict keeps its keys in the order they were added and holds each once; a set forgets the order.
# - For each problem: the right traces, each once, in order (`dict.fromkeys`), then the first `keep` of them, each paired with the problem's own number.

# %% [markdown] expect="13.rejection_sample"
# The cell below filters the teacher's traces with your function in three ways and compares what is
# kept with the true steps.

# %% tags=["nbval-ignore-output"]
traces, answers = draw_traces(1.0), asked.answers.tolist()
truth = game.completions(game.worked(asked), PROMPT)  # in this game there is one right way
frequent = [sorted(row, key=row.count, reverse=True) for row in traces]
print(f"{N * DRAWS} traces drawn, {int(marks(traces).sum())} with the right answer")
for name, drawn, keep in (
    ("first two", traces, 2),
    ("first one", traces, 1),
    ("most frequent one", frequent, 1),
):
    kept = rejection_sample(drawn, answers, verify, keep)
    sound = sum(text == truth[i] for i, text in kept)
    print(f"{name}: {len(kept)} traces, {sound / max(1, len(kept)):.0%} with every step right")
print(f"problems without a trace: {N - len({i for i, _ in kept})} of {N}")

# %% [markdown]
# A surprise: some traces with the right answer have wrong steps. And the second, different trace makes
# it worse. In a word problem two different solutions can both be right. In this game there is **one**
# right way, so a different trace with the right answer has erred and come back by luck. "Different" is a
# good rule where there are many ways, and a bad one here, where repetition is evidence: errors
# scatter, the right way recurs. So take the most frequent accepted trace of each problem, which is what
# `kept` holds now.
#
# Does filtering help? Two students learn for equally many updates: one from all traces, one from `kept`.


# %%
def as_rows(pairs: list[tuple[int, str]]) -> Tensor:
    """Put prompts and traces together, each with its EOS: (n, T), filled with EOS."""
    end = torch.tensor([game.EOS])
    rows = [torch.cat([asked.prompts[i], game.encode(text), end]) for i, text in pairs]
    return pad(rows, fill=game.EOS).ids


# %% tags=["nbval-ignore-output"]
everything = as_rows([(i, text) for i, row in enumerate(traces) for text in row])
raw, filtered = [], []
for seed in range(scale(grade=1, cpu=2, full=5)):
    raw.append(100 * game.exact_answer(train(everything, seed), 500))
    filtered.append(100 * game.exact_answer(train(as_rows(kept), seed), 500))
    print(f"seed {seed}: all traces {raw[-1]:.1f} %, verified traces {filtered[-1]:.1f} %")
if len(raw) > 1:
    print("difference in points, 95 % interval:", paired_interval(filtered, raw))

# %% [markdown]
# Two seeds make an interval that says little. The stored run trains many teachers of three qualities,
# stopped when 30, 50 or 95 % of their sampled answers were right, and their students.

# %%
stored = evidence.load("u13_verified_traces")
levels = sorted(stored["levels"], key=stored["levels"].get)
arms = (
    "as few traces, unfiltered",
    "right answer",
    "right answer, the most frequent for each problem",
    "every step right",
)
_, ax = plots.figure(height=3.2)
for number, (arm, marker) in enumerate(zip(arms, "sD^o", strict=True)):
    found = [stored["results"][level][arm]["accuracy_difference"] for level in levels]
    x = [i + 0.12 * (number - 1.5) for i in range(len(found))]
    spread = [[m - lo for m, lo, _ in found], [hi - m for m, _, hi in found]]
    ax.errorbar(x, [m for m, _, _ in found], yerr=spread, fmt=marker, capsize=3, label=arm)
ax.axhline(0, color="black", lw=0.8)
ax.set_xticks(range(len(levels)), levels)
ax.set_ylabel("against all traces (points)")
ax.legend(fontsize=9)
erring = stored["results"]["erring teacher"]
plots.show(
    "Accuracy against all traces for three teachers, with 95 % intervals, in points. Erring teacher: "
    f"{plots.spell({a: erring[a]['accuracy_difference'] for a in arms})}."
)

# %%
for level in levels:
    print(f"{level} ({stored['seeds'][level]} of them)")
    for arm, e in stored["results"][level].items():
        mean = sum(e["accuracy"]) / len(e["accuracy"])
        against = e.get("accuracy_difference")
        gain = "{:+5.1f} [{:+.1f}, {:+.1f}]".format(*against) if against else ""
        print(f"    {arm:50s} {mean:5.1f} %  {gain}")

# %% [markdown]
# *Figure and table: paired differences to the student of all traces, with 95 % intervals.*
#
# - **Near-perfect teacher**: filtering brings nothing; there is nothing to filter.
# - **Erring teacher**: filtering by the answer helps, and most with one trace for each problem, the most
#   frequent. Those students beat their own teacher (compare the rows): a student of many samples learns
#   what they agree on. As few traces without a filter gain nothing, so it is the choice that counts.
# - **Weak teacher**: filtering by the answer has no effect whose sign is sure. Filtering by the *steps*
#   lifts the student by about 30 points.
#
# Look at what the verifier let through:

# %%
for level in levels:
    share = {k: sum(v) / len(v) for k, v in stored["traces"][level].items()}
    print(
        f"{level}: right answers {share['right_answer']:.0f} %; "
        f"of those, with a wrong step {share['right_answer_wrong_steps']:.0f} %"
    )

# %% [markdown]
# ### Your turn, in words
# {{13.what_the_verifier_misses}}
#
# Explain the left end of the figure. How can a trace with wrong steps end with the right answer, in
# this game and in general? Why is that common with a weak teacher and rare with a good one? And what
# would you do about it for word problems, where no program can check the steps?

# %% [markdown] written="13.what_the_verifier_misses" points=4 minutes=8
# A trace is accepted for its last token. In this game one wrong step is never mended by right ones,
# because a swap moves different cups to different places; but a second wrong step can lead back, and a
# teacher may also state an answer that does not follow from its steps. With five cups a lost trace is
# right by luck every now and then. A weak teacher is lost in most of its traces, so more than 40 % of its
# right answers are luck, and they teach wrong steps. A good teacher is rarely lost, so nearly all its
# right answers come from right steps.
#
# Where steps cannot be checked by a program: ask for answers that are hard to guess (numbers rather
# than yes/no or four choices), draw several traces and trust answers on which different traces agree,
# have a second model check steps, take a better teacher, or look at a random sample by hand and
# report how many right answers have wrong steps.

# %% [markdown] rubric="13.what_the_verifier_misses"
# - 1 point: a mechanism: two errors that cancel, a lucky guess, an answer that does not follow from the steps.
# - 1 point: why it depends on the teacher: lucky hits have a fixed rate among lost traces, so their share among right answers grows as the teacher gets weaker.
# - 1 point: links it to the figure: answers filter little there, while checked steps help.
# - 1 point: at least one workable remedy without a program for steps.

# %% [markdown]
# ## 13.6 pass@k
#
# A teacher that is right half of the time on average may be right sometimes on every problem, or
# always on half of them. For filtering the first is far better. **pass@k** tells them apart: the share
# of problems that at least one of k samples solves. Estimating it from exactly k samples is noisy. Chen
# et al. ([arXiv 2107.03374](https://arxiv.org/abs/2107.03374), equation 1) draw n >= k samples of
# each problem, count the right ones, c, and compute the chance that k of those n are not all wrong:
#
# $$\mathrm{pass@}k = \operatorname*{mean}_{\text{problems}}
# \left[ 1 - \binom{n-c}{k} \Big/ \binom{n}{k} \right]$$
#
# ### Your turn
# {{13.pass_at_k}}
#
# Write `pass_at_k(correct, k)`.
#
# - `correct` is (P, n), boolean: which of n samples of P problems are right. Return a number.
#   {= the value; k = 1 and k = n; more samples never hurt}
# - There may be thousands of samples: binomials of that size do not fit into a float. Most factors
#   cancel. {= thousands of samples}
# - k outside 1..n raises a `ValueError`. {= k outside 1..n is refused}


# %% exercise="13.pass_at_k"
def pass_at_k(correct: Tensor, k: int) -> float:
    """Share of problems that k samples solve, estimated without bias from n >= k."""
    ### BEGIN SOLUTION
    n = correct.shape[1]
    if not 1 <= k <= n:
        raise ValueError(f"k must lie in 1..{n}, got {k}")
    wrong = n - correct.sum(dim=1).double()  # (P,)
    all_wrong = torch.ones_like(wrong)
    for drawn in range(k):  # the next one is wrong too, after so many wrong ones
        all_wrong *= (wrong - drawn).clamp(min=0) / (n - drawn)
    return (1 - all_wrong).mean().item()
    ### END SOLUTION


# %% check="13.pass_at_k"
check("13.pass_at_k", pass_at_k)

# %% [markdown] hints="13.pass_at_k"
# - You draw samples one after the other without putting them back. What is the chance that the first is wrong? That the second is wrong too?
# - C(n - c, k) / C(n, k) is a product of k fractions, each at most one. What is it when fewer than k samples are wrong?
# - For each problem multiply (n - c - i) / (n - i) for i = 0 ... k - 1, never below zero; subtract from one; average over problems.

# %% [markdown] expect="13.pass_at_k"
# The figure: pass@k of this teacher rises from one half towards one, and the tempting shortcut
# 1 - (1 - c/n)^k stays below it.

# %%
right = marks(traces)  # (N, 8)
ks = range(1, DRAWS + 1)
rate = right.double().mean(dim=1)
_, ax = plots.figure(height=3.0)
ax.plot(ks, [100 * pass_at_k(right, k) for k in ks], "o-", label="pass@k")
ax.plot(ks, [100 * (1 - (1 - rate) ** k).mean() for k in ks], "s--", label="1 - (1 - c/n)^k")
ax.axhline(100 * rate.mean(), color="black", lw=0.8)
ax.set_xlabel("samples of each problem, k")
ax.set_ylabel("problems solved (percent)")
ax.legend()
plots.show(
    f"Problems solved over k, 1 to {DRAWS}. pass@k rises from {100 * pass_at_k(right, 1):.0f} to "
    f"{100 * pass_at_k(right, DRAWS):.0f} %; the shortcut stays below it and ends at "
    f"{100 * (1 - (1 - rate) ** DRAWS).mean():.0f} %. A line marks pass@1."
)

# %% [markdown]
# *Figure: the teacher at T = 1. The line is pass@1. With eight samples nearly every problem is solved at
# least once, which is why filtering has something to keep. The shortcut puts samples back and can draw
# the same one twice, so it is too low, most of all at k = n.*

# %% [markdown]
# ## 13.7 Steps as a second task
#
# Writing steps costs tokens at every question. Can a student learn from steps and still answer at
# once? **Distilling step-by-step** (Hsieh et al.,
# [arXiv 2305.02301](https://arxiv.org/abs/2305.02301)) trains two tasks, told apart by a prefix: give
# the label, and give the rationale. At test time only the label is asked for.
#
# $$L = L_{\mathrm{label}} + \lambda\, L_{\mathrm{rationale}}$$
#
# ### Your turn
# {{13.step_by_step_loss}}
#
# Write `step_by_step_loss(label_logits, label_targets, rationale_logits, rationale_targets, weight)`.
#
# - Logits are (B, T, V) and (B, S, V), shifted already; targets are (B, T) and (B, S), with -100 where a
#   token does not count. {= the value; the gradient reaches both tasks}
# - Each task is a mean over **its own** counted tokens; `weight` is $\lambda$, 1 unless it is given.
#   {= the value; lambda = 0 is the answer alone; linear in lambda}
# - A negative `weight`, or a task without any counted token, raises a `ValueError`.
#   {= a negative lambda and an empty task are refused}


# %% exercise="13.step_by_step_loss"
def step_by_step_loss(
    label_logits: Tensor,  # (B, T, V)
    label_targets: Tensor,  # (B, T)
    rationale_logits: Tensor,  # (B, S, V)
    rationale_targets: Tensor,  # (B, S)
    weight: float = 1.0,
) -> Tensor:
    """Answer and rationale as two tasks: a scalar, in nats."""
    ### BEGIN SOLUTION
    if weight < 0:
        raise ValueError(f"weight must not be negative, got {weight}")
    if (label_targets == -100).all() or (rationale_targets == -100).all():
        raise ValueError("each task needs a token that counts")
    label = F.cross_entropy(label_logits.transpose(1, 2), label_targets)
    rationale = F.cross_entropy(rationale_logits.transpose(1, 2), rationale_targets)
    return label + weight * rationale
    ### END SOLUTION


# %% check="13.step_by_step_loss"
check("13.step_by_step_loss", step_by_step_loss)

# %% [markdown] hints="13.step_by_step_loss"
# - How many tokens has a label, how many a rationale? What happens to the label if you average over all of them together?
# - `F.cross_entropy` leaves out targets of -100 by itself, and wants the classes in dimension 1.
# - Two cross-entropies and a sum; before them two checks of the input.

# %% [markdown] expect="13.step_by_step_loss"
# With lambda = 0 it is the loss of the answers alone.

# %%
g = torch.Generator().manual_seed(0)
z, r = torch.randn(2, 3, 5, generator=g), torch.randn(2, 9, 5, generator=g)
y, s = torch.randint(5, (2, 3), generator=g), torch.randint(5, (2, 9), generator=g)
for weight in (0.0, 0.5, 1.0):
    print(f"lambda = {weight}: {step_by_step_loss(z, y, r, s, weight):.3f}")

# %% [markdown]
# The paper reports that it works for language understanding: a T5 of 770 million parameters beats
# the few-shot PaLM of 540 billion with 80 % of a benchmark's data (abstract). Does it work here?

# %%
stored = evidence.load("u13_worked_steps")["results"]
for arm in ("answers alone", *(a for a in stored if a.startswith("step-by-step"))):
    e = stored[arm]
    against = e.get("accuracy_difference")
    gain = "{:+5.1f} [{:+.1f}, {:+.1f}] points".format(*against) if against else ""
    print(f"{arm:38s} {sum(e['accuracy']) / len(e['accuracy']):5.1f} %  {gain}")

# %% [markdown]
# It does not: asked for the answer at once, the student of both tasks is no better than one of answers
# alone (the interval holds zero). The reason is in the task. In language understanding a rationale
# points at the part of the input that matters, and the label is then one look away. Here ten steps
# depend on each other, and a network of two layers that has to answer in one pass has no room to carry
# them out, whatever it has learned about them. A method's claim is a claim about its tasks.

# %% [markdown]
# ## 13.8 Who did what
#
# The same four parts return in every well-known case: a teacher, what it writes, a filter, a student.
#
# | work | teacher | what it wrote | filter | student | reported |
# |---|---|---|---|---|---|
# | Stanford Alpaca (project page, March 2023) | text-davinci-003 | 52,000 instructions with answers | not by correctness | LLaMA 7B | made for less than 600 dollars |
# | Orca ([2306.02707](https://arxiv.org/abs/2306.02707), abstract) | GPT-4, with ChatGPT as assistant | explanations, step by step | selection of tasks | 13B | Big-Bench Hard: more than twice Vicuna-13B, on par with ChatGPT |
# | phi-1 ([2306.11644](https://arxiv.org/abs/2306.11644), abstract) | GPT-3.5 | 1B tokens of textbooks and exercises, beside 6B tokens of chosen web data | quality of the web data | 1.3B | HumanEval pass@1 50.6 % |
# | Distilling step-by-step ([2305.02301](https://arxiv.org/abs/2305.02301), abstract) | PaLM 540B | labels and rationales | none | T5 770M | beats its few-shot teacher on a benchmark with 80 % of the data |
# | Teaching small models to reason ([2212.08410](https://arxiv.org/abs/2212.08410), abstract) | PaLM 540B | chains of thought | – | T5 XXL | GSM8K 8.11 % to 21.99 % |
# | RFT ([2308.01825](https://arxiv.org/abs/2308.01825), abstract) | several fine-tuned models | several paths for each problem | right answer, different paths | LLaMA 7B | GSM8K 35.9 % to 49.3 % |
# | DeepSeek-R1 ([2501.12948v1](https://arxiv.org/abs/2501.12948v1), section 2.3.3, tables 5 and 6) | DeepSeek-R1 | about 600,000 reasoning traces and 200,000 others | several samples, only correct ones kept | Qwen-32B, SFT only | AIME 2024 72.6 %; the same base with RL directly: 47.0 % |
#
# (A dash: not read at the source.) The last row is the comparison of this unit's last section, at a size
# that nobody repeats at home. It is not a comparison at equal cost: the teacher's own training is not
# counted.

# %% [markdown]
# ## 13.9 Traces, on-policy, or reward?
#
# If you have more of the teacher than its text, there are other ways to spend a budget. A student
# that gets 30 % of its sampled answers right goes on in one of three ways:
#
# - **SFT** on a fixed set of the teacher's traces: your loss.
# - **On-policy distillation** (unit 12): the student writes, the teacher gives its distribution at every
#   token, the loss is the reverse KL.
# - **Policy gradient**: the student writes, the verifier says 0 or 1 about the whole, and the student is
#   pushed towards what did better than its other attempts at the same problem.
#
# Writing costs time, so SFT gets two updates for one of the others. A control learns the teacher's
# distributions on the *teacher's* traces. Before you look at the figure, order the three for a near-perfect
# teacher and for one that errs.

# %%
stored = evidence.load("u13_on_policy")
levels = ("near-perfect teacher", "erring teacher")
first = stored["results"][levels[0]]
names = sorted(first, key=lambda arm: -sum(first[arm]["accuracy"]))
_, axes = plots.figure(2, height=3.4, width=8.0, sharex=True, sharey=True)
said = []
for ax, level in zip(axes, levels, strict=True):
    for arm, e in stored["results"][level].items():
        y = names.index(arm)
        ax.plot(e["accuracy"], [y] * len(e["accuracy"]), "o", color=plots.BLUE, alpha=0.6)
        ax.plot(sum(e["accuracy"]) / len(e["accuracy"]), y, "|", color=plots.BLACK, ms=14)
    ax.set_yticks(range(len(names)), names)
    ax.set_title(level)
    found = {a: sum(e["accuracy"]) / 6 for a, e in stored["results"][level].items()}
    said.append(f"{level}: {plots.spell(found, '.0f')}.")
    ax.set_xlabel("right answers (percent)")
axes[0].set_ylim(len(names) - 0.5, -0.5)
plots.show(
    "Right answers in percent, dots for the seeds and a bar for their mean. " + " ".join(said)
)

# %%
for level in levels:
    print(level)
    for arm in (name for name in names if name in stored["results"][level]):
        e = stored["results"][level][arm]
        mean = sum(e["accuracy"]) / len(e["accuracy"])
        against = e.get("accuracy_difference")
        gain = "{:+5.1f} [{:+.1f}, {:+.1f}]".format(*against) if against else ""
        sampled = sum(e["sampled"]) / len(e["sampled"])
        print(f"  {arm:37s} {mean:5.1f} %  {gain:21s} {sampled:5.1f} %  {e['seconds']:.1f} s")

# %% [markdown]
# *Figure and table: dots are seeds, bars their mean. The table gives greedy accuracy, its paired
# difference to SFT on all traces at equal time with a 95 % interval, accuracy when sampled at T = 1, and the
# processor seconds of the student's training.*
#
# - **On-policy against SFT: a null.** With neither teacher is there a greedy difference whose sign is sure.
#   (When sampled, on-policy is behind with the near-perfect teacher at equal time, and about level at equal
#   updates.)
#   Unit 12 shows where learning from one's own writing pays: where an error leads to places that the
#   training data never showed. Here every cup with every swap is in the data, so even after an error the
#   next step is familiar.
# - **Logits against text: look at the sampled column.** With the erring teacher, the two arms that see its
#   distributions sample right answers more often than SFT on its samples. The control on the *teacher's*
#   traces does so too, so the distributions help, not the student's own writing.
# - **A verifier against a teacher's logits.** SFT on verified traces wins with the erring teacher and beats
#   that teacher. Imitation, on-policy or not, stays near its teacher's level.
# - **Policy gradient is slowest by far.** One bit for each attempt is a thin signal, and 64 attempts
#   for each update are so noisy that the student gets *worse*. Four times as many, at three times
#   the time, and it improves, slowly. It needs no teacher, though, and no teacher bounds it.
#
# One warning for your own runs. On-policy methods end a text where the *student* says EOS. In a public
# example a base model learned from a teacher whose texts end with another token; within a few dozen steps
# its texts grew to the limit (modelscope/ms-swift #9526). A short SFT phase first teaches both to stop in
# the same way, as it did here.

# %% [markdown]
# ## Further reading
#
# - Yuan et al., *Scaling Relationship on Learning Mathematical Reasoning with Large Language Models*, arXiv 2308.01825
# - Hsieh et al., *Distilling Step-by-Step!*, arXiv 2305.02301
# - DeepSeek-AI, *DeepSeek-R1*, arXiv 2501.12948
# - Chen et al., *Evaluating Large Language Models Trained on Code*, arXiv 2107.03374
# - Zelikman et al., *STaR: Bootstrapping Reasoning With Reasoning*, arXiv 2203.14465
#
# Next: unit 16, a real language model.
