"""07.contrastive_loss."""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F

from kdlib.checks.criteria import gradients, matches, rejects, tidy
from kdlib.checks.exercise import Arguments, Exercise, Mistake, Probe
from kdlib.checks.probes import positive
from kdlib.exercises.u07_relations.inputs import batch, integer, strided, together
from kdlib.losses import relations


def _embeddings(
    temperature: float | None = None,
    labels: bool = False,
    rows: tuple[int, int] = (4, 7),
    scale: float = 1.0,
    single: bool = False,
    dead: bool = False,
    gaps: bool = False,
    teacher_width: int = 0,
):
    """Make two embeddings of one width; a temperature is drawn where none is given."""

    def make(g: torch.Generator) -> Arguments:
        count, width = integer(g, *rows), integer(g, 3, 6)
        student = batch(g, count, width)
        teacher = 0.7 * student + batch(g, count, width)
        if teacher_width:
            teacher = batch(g, count, width + teacher_width)
        if dead:
            student[1] = 0.0
        sharp = float(torch.rand((), generator=g, dtype=torch.float64)) * 0.5 + 0.3
        y = torch.randint(3, (count,), generator=g)
        if count > 2:
            y[1], y[2] = y[0], (y[0] + 1) % 3  # one pair of a class at least, and two classes
        if gaps:
            student, teacher = strided(student), strided(teacher)
        student, teacher = scale * student, teacher / scale
        if single:
            student, teacher = student.float(), teacher.float()
        return {
            "student_embeddings": student,
            "teacher_embeddings": teacher,
            "temperature": sharp if temperature is None else temperature,
            "labels": y if labels else None,
        }

    return make


def _sizes(answer, a: Arguments) -> torch.Tensor | None:
    s, t, y = a["student_embeddings"], a["teacher_embeddings"], a["labels"]
    return together([answer(s[:n], t[:n], a["temperature"], y[:n]) for n in (1, 2, len(s))])


def _one_class(answer, a: Arguments) -> torch.Tensor | None:
    """Call with labels that are all alike, and with labels that are all different."""
    s, t, tau = a["student_embeddings"], a["teacher_embeddings"], a["temperature"]
    y = torch.arange(len(s))
    return together([answer(s, t, tau, torch.zeros_like(y)), answer(s, t, tau, y)])


def _defaults(answer, a: Arguments) -> torch.Tensor:
    """Call with embeddings alone."""
    return answer(a["student_embeddings"], a["teacher_embeddings"])


def _normal(z):
    return F.normalize(z, dim=1)


def _leave_out(scores, labels):
    same = labels[:, None] == labels[None]
    return scores.masked_fill(same & ~torch.eye(len(scores), dtype=torch.bool), -math.inf)


def _diagonal(scores):
    return F.cross_entropy(scores, torch.arange(len(scores)))


def _contrast(
    of=_normal,
    scaled=lambda scores, temperature: scores / temperature,
    mask=_leave_out,
    one=_diagonal,
    both=lambda rows, columns: (rows + columns) / 2,
    detach=False,
    cut=False,
    strict=True,
    cold=True,
):
    """Assemble a contrastive loss with one thing wrong."""

    def loss(student_embeddings, teacher_embeddings, temperature=0.1, labels=None):
        if cold:
            positive(temperature)
        if strict and student_embeddings.shape != teacher_embeddings.shape:
            raise ValueError("shapes differ")
        teacher = teacher_embeddings.detach() if detach else teacher_embeddings
        student = student_embeddings.detach() if cut else student_embeddings
        scores = scaled(of(student) @ of(teacher).mT, temperature)
        if labels is not None:
            scores = mask(scores, labels)
        return both(one(scores), one(scores.mT))

    return loss


def _same(labels):
    return labels[:, None] == labels[None]


def _supervised(student_embeddings, teacher_embeddings, temperature=0.1, labels=None):
    positive(temperature)
    if student_embeddings.shape != teacher_embeddings.shape:
        raise ValueError("shapes differ")
    scores = _normal(student_embeddings) @ _normal(teacher_embeddings).mT / temperature
    if labels is None:
        return (_diagonal(scores) + _diagonal(scores.mT)) / 2
    good = _same(labels).to(scores.dtype)
    good = good / good.sum(1, keepdim=True)
    return (F.cross_entropy(scores, good) + F.cross_entropy(scores.mT, good)) / 2


def _by_hand(scores):
    e = scores.exp()
    return -(e.diagonal() / e.sum(1)).log().mean()


def _without_itself(scores):
    rest = scores.masked_fill(torch.eye(len(scores), dtype=torch.bool), -math.inf)
    return (rest.logsumexp(1) - scores.diagonal()).mean()


def _half_mask(student_embeddings, teacher_embeddings, temperature=0.1, labels=None):
    positive(temperature)
    if student_embeddings.shape != teacher_embeddings.shape:
        raise ValueError("shapes differ")
    scores = _normal(student_embeddings) @ _normal(teacher_embeddings).mT / temperature
    masked = scores if labels is None else _leave_out(scores, labels)
    return (_diagonal(masked) + _diagonal(scores.mT)) / 2


CONTRASTIVE_LOSS = Exercise(
    id="07.contrastive_loss",
    title="Find the same image",
    reference=relations.contrastive_loss,
    probes=(
        Probe(
            "plain",
            "a small batch without labels",
            _embeddings(),
            gradients=("student_embeddings", "teacher_embeddings"),
        ),
        Probe(
            "labels",
            "a small batch with labels",
            _embeddings(labels=True, rows=(5, 8)),
            gradients=("student_embeddings", "teacher_embeddings"),
        ),
        Probe("defaults", "a call with embeddings alone", _embeddings(), run=_defaults),
        Probe("few rows", "one row, two rows and more", _embeddings(labels=True), run=_sizes),
        Probe("one class", "one class, and as many as rows", _embeddings(), run=_one_class),
        Probe("gaps", "embeddings that are not contiguous", _embeddings(labels=True, gaps=True)),
        Probe(
            "sharp",
            "float32 and a temperature of 0.005",
            _embeddings(0.005, labels=True, single=True),
            atol=1e-5,
        ),
        Probe("small", "float32 times 0.001", _embeddings(scale=1e-3, single=True), atol=1e-6),
        Probe("large", "float32 times 1000", _embeddings(scale=1e3, single=True), atol=1e-6),
        Probe("dead", "a student's embedding of zeros", _embeddings(dead=True)),
        Probe("cold", "a temperature of -1", _embeddings(-1.0)),
        Probe("frozen", "a temperature of 0", _embeddings(0.0)),
        Probe("widths", "embeddings of two widths", _embeddings(teacher_width=2)),
    ),
    criteria=(
        matches("the value", 1.0, "plain", "defaults"),
        gradients("the gradient of both embeddings", 0.75, "plain"),
        matches("labels", 1.0, "labels", "one class"),
        gradients("labels: the gradient", 0.25, "labels"),
        matches("one row, two rows", 0.25, "few rows"),
        matches("no overflow", 0.25, "sharp"),
        matches("float32, small and large", 0.25, "small", "large"),
        matches("not contiguous", 0.25, "gaps"),
        matches("an embedding of zeros", 0.25, "dead"),
        rejects("a temperature that is not positive is refused", 0.25, "cold", "frozen"),
        rejects("two widths are refused", 0.25, "widths"),
        tidy(0.25),
    ),
    mistakes=(
        Mistake(
            "not normalised",
            _contrast(of=lambda z: z),
            "Your similarities are products of embeddings of any length. A network can then win "
            "by making them long. Bring each row to length one first.",
        ),
        Mistake(
            "normalised over the batch",
            _contrast(of=lambda z: F.normalize(z, dim=0)),
            "You normalised over the images. Which dimension holds one image's embedding?",
        ),
        Mistake(
            "students look for teachers only",
            _contrast(both=lambda rows, columns: rows),
            "Each student looks for its teacher among all teachers. The other direction, each "
            "teacher looking among all students, is missing.",
        ),
        Mistake(
            "teachers look for students only",
            _contrast(both=lambda rows, columns: columns),
            "Each teacher looks for its student among all students. The other direction is "
            "missing.",
        ),
        Mistake(
            "sum of both directions",
            _contrast(both=lambda rows, columns: rows + columns),
            "You added the two directions. The equation has their mean.",
        ),
        Mistake(
            "summed over rows",
            _contrast(one=lambda s: F.cross_entropy(s, torch.arange(len(s)), reduction="sum")),
            "Your loss grows with the batch.",
        ),
        Mistake(
            "multiplied by the temperature",
            _contrast(scaled=lambda scores, temperature: scores * temperature),
            "You multiplied by the temperature. A small temperature has to make the similarities "
            "larger.",
        ),
        Mistake(
            "temperature forgotten",
            _contrast(scaled=lambda scores, temperature: scores),
            "The temperature has no influence. Cosines lie between -1 and 1, and a softmax over "
            "so small a range is nearly flat.",
        ),
        Mistake(
            "labels ignored",
            _contrast(mask=lambda scores, labels: scores),
            "Labels make no difference: another image of the same class is still pushed away.",
        ),
        Mistake(
            "the positive masked as well",
            _contrast(mask=lambda s, y: s.masked_fill(_same(y), -math.inf)),
            "An image is of its own class, so you masked the pair that should be found. Which "
            "entry of each row has to stay?",
        ),
        Mistake(
            "other classes masked",
            _contrast(mask=lambda s, y: s.masked_fill(~_same(y), -math.inf)),
            "Your mask is the wrong way round: it leaves out the other classes and keeps the same "
            "one.",
        ),
        Mistake(
            "masked with zero",
            _contrast(mask=lambda s, y: _leave_out(s, y).masked_fill(_leave_out(s, y).isinf(), 0)),
            "You set masked similarities to zero, which a softmax counts as exp(0) = 1. What does "
            "a softmax count as nothing?",
        ),
        Mistake(
            "masked in one direction",
            _half_mask,
            "You masked when students look for teachers, not when teachers look for students.",
        ),
        Mistake(
            "same class as positives",
            _supervised,
            "You made all images of a class positives: that is supervised contrastive learning "
            "(arXiv 2004.11362). Here they are left out, neither sought nor pushed away.",
        ),
        Mistake(
            "the positive not among the candidates",
            _contrast(one=_without_itself),
            "In your softmax the denominator holds the negatives alone. Then the loss can fall "
            "below zero; a cross-entropy counts the right answer, too.",
        ),
        Mistake(
            "exp overflows",
            _contrast(one=_by_hand),
            "You take exp first and log later. At a temperature of 0.01 a similarity of 1 becomes "
            "exp(100), more than float32 holds. Stay in logarithms.",
        ),
        Mistake(
            "teacher detached",
            _contrast(detach=True),
            "No gradient arrives at the teacher's embedding. The teacher's *features* are "
            "constant, but this is what a head has made of them, and that head learns.",
        ),
        Mistake(
            "student detached",
            _contrast(cut=True),
            "No gradient arrives at the student's embedding: only the teacher's head would learn.",
        ),
        Mistake(
            "temperature not checked",
            _contrast(cold=False),
            "With a negative temperature your loss looks for the image that is least alike, and "
            "says nothing.",
        ),
        Mistake(
            "widths not compared",
            _contrast(strict=False),
            "Embeddings of two widths stop somewhere inside PyTorch. Say yourself what does not "
            "fit.",
        ),
    ),
    minutes=18,
    difficulty=3,
)
