"""Wrong answers to unit 02, written from the notebook's text."""

from typing import ClassVar

import torch
import torch.nn.functional as F

from kdlib import losses
from tests.blind import Wrong, collector

WRONG: dict[str, list[Wrong]] = {}
wrong = collector(WRONG)


def _positive(temperature):
    if temperature <= 0:
        raise ValueError(f"temperature must be positive, got {temperature}")


def _rest(logits, targets):
    hidden = F.one_hot(targets, logits.shape[-1]).bool()
    return logits.masked_fill(hidden, float("-inf")).softmax(-1)


@wrong("02.near_misses", "divides p by 1 - p", "right where 1 - p is zero in floating point")
def divides(logits, targets):
    p = logits.softmax(-1)
    own = p.gather(1, targets[:, None])
    share = p / (1 - own)
    table = torch.stack([share[targets == c].mean(0) for c in range(logits.shape[-1])])
    return table.fill_diagonal_(0)


@wrong("02.near_misses", "divides, with an epsilon", "right where 1 - p is zero; rows sum to one")
def divides_with_epsilon(logits, targets):
    p = logits.softmax(-1)
    own = F.one_hot(targets, logits.shape[-1]).to(p.dtype)
    p = p * (1 - own)
    share = p / (p.sum(-1, keepdim=True) + 1e-8)
    return torch.stack([share[targets == c].mean(0) for c in range(logits.shape[-1])])


@wrong("02.near_misses", "averages first, then shares out", "share out each example first")
def averages_first(logits, targets):
    p = logits.log_softmax(-1).exp()
    table = torch.stack([p[targets == c].mean(0) for c in range(logits.shape[-1])])
    table.fill_diagonal_(0)
    return table / table.sum(-1, keepdim=True)


@wrong("02.near_misses", "a float32 table", "in the dtype of logits")
def float32_table(logits, targets):
    share = _rest(logits, targets)
    table = torch.zeros(logits.shape[-1], logits.shape[-1])
    for c in range(logits.shape[-1]):
        table[c] = share[targets == c].mean(0)
    return table


@wrong("02.near_misses", "table with the true class in columns", "rows are true classes")
def transposed(logits, targets):
    share = _rest(logits, targets)
    return torch.stack([share[targets == c].mean(0) for c in range(logits.shape[-1])], dim=1)


@wrong("02.near_misses", "hides the predicted class", "the wrong classes of the true one")
def predicted_hidden(logits, targets):
    share = _rest(logits, logits.argmax(-1))
    table = torch.stack([share[targets == c].mean(0) for c in range(logits.shape[-1])])
    table.fill_diagonal_(0)
    return table / table.sum(-1, keepdim=True)


@wrong("02.near_misses", "writes -inf into the logits", "the caller's logits are an input")
def overwrites(logits, targets):
    logits[torch.arange(len(targets)), targets] = float("-inf")
    share = logits.softmax(-1)
    return torch.stack([share[targets == c].mean(0) for c in range(logits.shape[-1])])


@wrong("02.near_misses", "sets the true logit to zero", "the true class takes no part")
def zero_logit(logits, targets):
    hidden = F.one_hot(targets, logits.shape[-1]).bool()
    share = logits.masked_fill(hidden, 0.0).softmax(-1)
    table = torch.stack([share[targets == c].mean(0) for c in range(logits.shape[-1])])
    table.fill_diagonal_(0)
    return table / table.sum(-1, keepdim=True)


@wrong(
    "02.near_misses", "hides with -100 as 'minus infinity'", "a probability of zero at any logits"
)
def minus_hundred(logits, targets):
    hidden = F.one_hot(targets, logits.shape[-1]).bool()
    share = logits.masked_fill(hidden, -100.0).softmax(-1)
    return torch.stack([share[targets == c].mean(0) for c in range(logits.shape[-1])])


def _soft(student_logits, teacher_logits, temperature):
    log_q = F.log_softmax(student_logits / temperature, -1)
    log_p = F.log_softmax(teacher_logits.detach() / temperature, -1)
    return F.kl_div(log_q, log_p, reduction="batchmean", log_target=True)


@wrong("02.kd_loss", "alpha on the hard term", "alpha weighs the soft term")
def alpha_hard(student_logits, teacher_logits, targets, temperature=4.0, alpha=0.9):
    _positive(temperature)
    soft = temperature**2 * _soft(student_logits, teacher_logits, temperature)
    return (1 - alpha) * soft + alpha * F.cross_entropy(student_logits, targets)


@wrong("02.kd_loss", "factor T", "T^2")
def factor_t(student_logits, teacher_logits, targets, temperature=4.0, alpha=0.9):
    _positive(temperature)
    soft = temperature * _soft(student_logits, teacher_logits, temperature)
    return alpha * soft + (1 - alpha) * F.cross_entropy(student_logits, targets)


@wrong("02.kd_loss", "the hard term at temperature T, too", "the hard term is at T = 1")
def hard_at_t(student_logits, teacher_logits, targets, temperature=4.0, alpha=0.9):
    _positive(temperature)
    soft = temperature**2 * _soft(student_logits, teacher_logits, temperature)
    return alpha * soft + (1 - alpha) * F.cross_entropy(student_logits / temperature, targets)


@wrong("02.kd_loss", "reduction='mean'", "means over the rows")
def class_mean(student_logits, teacher_logits, targets, temperature=4.0, alpha=0.9):
    _positive(temperature)
    soft = temperature**2 * F.kl_div(
        F.log_softmax(student_logits / temperature, -1),
        F.softmax(teacher_logits.detach() / temperature, -1),
        reduction="mean",
    )
    return alpha * soft + (1 - alpha) * F.cross_entropy(student_logits, targets)


@wrong("02.kd_loss", "teacher not detached", "no gradient arrives at teacher_logits")
def not_detached(student_logits, teacher_logits, targets, temperature=4.0, alpha=0.9):
    _positive(temperature)
    log_q = F.log_softmax(student_logits / temperature, -1)
    log_p = F.log_softmax(teacher_logits / temperature, -1)
    soft = temperature**2 * (log_p.exp() * (log_p - log_q)).sum(-1).mean()
    return alpha * soft + (1 - alpha) * F.cross_entropy(student_logits, targets)


@wrong("02.kd_loss", "stops the teacher's gradient by a flag", "teacher logits out of a network")
def flag_cleared(student_logits, teacher_logits, targets, temperature=4.0, alpha=0.9):
    _positive(temperature)
    teacher_logits.requires_grad_(False)
    soft = temperature**2 * _soft(student_logits, teacher_logits, temperature)
    return alpha * soft + (1 - alpha) * F.cross_entropy(student_logits, targets)


@wrong("02.kd_loss", "cross-entropy for the KL", "KL: zero when both agree")
def soft_cross_entropy(student_logits, teacher_logits, targets, temperature=4.0, alpha=0.9):
    _positive(temperature)
    p = (teacher_logits.detach() / temperature).softmax(-1)
    soft = temperature**2 * F.cross_entropy(student_logits / temperature, p)
    return alpha * soft + (1 - alpha) * F.cross_entropy(student_logits, targets)


@wrong("02.kd_loss", "T^2 over the whole sum", "T^2 belongs to the soft term")
def factor_on_both(student_logits, teacher_logits, targets, temperature=4.0, alpha=0.9):
    _positive(temperature)
    soft = _soft(student_logits, teacher_logits, temperature)
    hard = F.cross_entropy(student_logits, targets)
    return temperature**2 * (alpha * soft + (1 - alpha) * hard)


@wrong("02.kd_loss", "drops rows that the teacher gets wrong", "means over the rows of the batch")
def only_where_right(student_logits, teacher_logits, targets, temperature=4.0, alpha=0.9):
    _positive(temperature)
    right = teacher_logits.argmax(-1) == targets
    soft = temperature**2 * _soft(student_logits[right], teacher_logits[right], temperature)
    soft = torch.nan_to_num(soft)
    return alpha * soft + (1 - alpha) * F.cross_entropy(student_logits, targets)


@wrong("02.kd_gradient", "no 1/T", "(q - p) / T")
def without_chain_rule(student_logits, teacher_logits, temperature):
    return (student_logits / temperature).softmax(-1) - (teacher_logits / temperature).softmax(-1)


@wrong("02.kd_gradient", "the sign of descent", "the gradient, not the step")
def descent(student_logits, teacher_logits, temperature):
    q, p = (student_logits / temperature).softmax(-1), (teacher_logits / temperature).softmax(-1)
    return (p - q) / temperature


@wrong("02.kd_gradient", "mean over rows", "without a mean over rows")
def mean_over_rows(student_logits, teacher_logits, temperature):
    q, p = (student_logits / temperature).softmax(-1), (teacher_logits / temperature).softmax(-1)
    return (q - p) / temperature / len(q)


@wrong("02.kd_gradient", "factor T^2", "without the factor T^2")
def with_factor(student_logits, teacher_logits, temperature):
    q, p = (student_logits / temperature).softmax(-1), (teacher_logits / temperature).softmax(-1)
    return (q - p) * temperature


@wrong("02.kd_gradient", "teacher at T = 1", "p^T")
def teacher_cold(student_logits, teacher_logits, temperature):
    return ((student_logits / temperature).softmax(-1) - teacher_logits.softmax(-1)) / temperature


@wrong(
    "02.kd_gradient", "gradient for the teacher's logits", "with respect to the student's logits"
)
def for_the_teacher(student_logits, teacher_logits, temperature):
    v = teacher_logits.detach().clone().requires_grad_()
    log_p = F.log_softmax(v / temperature, -1)
    log_q = F.log_softmax(student_logits.detach() / temperature, -1)
    return torch.autograd.grad((log_p.exp() * (log_p - log_q)).sum(), v)[0]


@wrong("02.kd_gradient", "gradient of the reverse KL", "of KL(p^T || q^T)")
def of_the_reverse(student_logits, teacher_logits, temperature):
    z = student_logits.detach().clone().requires_grad_()
    log_p = F.log_softmax(teacher_logits.detach() / temperature, -1)
    log_q = F.log_softmax(z / temperature, -1)
    return torch.autograd.grad((log_q.exp() * (log_q - log_p)).sum(), z)[0]


@wrong("02.kd_gradient", "backward into the caller's tensor", "the gradient of this call alone")
def into_the_caller(student_logits, teacher_logits, temperature):
    student_logits.requires_grad_()
    log_q = F.log_softmax(student_logits / temperature, -1)
    p = (teacher_logits / temperature).softmax(-1).detach()
    (-(p * log_q).sum()).backward()
    return student_logits.grad


@wrong("02.logit_matching_gradient", "no centring", "adding a constant changes nothing")
def not_centred(student_logits, teacher_logits, temperature):
    return (student_logits - teacher_logits) / (student_logits.shape[-1] * temperature**2)


@wrong("02.logit_matching_gradient", "centred over the batch", "each row has mean zero")
def centred_over_batch(student_logits, teacher_logits, temperature):
    d = student_logits - teacher_logits
    return (d - d.mean(0)) / (d.shape[-1] * temperature**2)


@wrong("02.logit_matching_gradient", "centred by the mean of everything", "each row has mean zero")
def centred_by_everything(student_logits, teacher_logits, temperature):
    d = student_logits - teacher_logits
    return (d - d.mean()) / (d.shape[-1] * temperature**2)


@wrong("02.logit_matching_gradient", "N of the paper read as the batch", "C classes")
def divided_by_rows(student_logits, teacher_logits, temperature):
    d = student_logits - teacher_logits
    return (d - d.mean(-1, keepdim=True)) / (len(d) * temperature**2)


@wrong("02.logit_matching_gradient", "T instead of T^2", "1 / (C T^2)")
def one_temperature(student_logits, teacher_logits, temperature):
    d = student_logits - teacher_logits
    return (d - d.mean(-1, keepdim=True)) / (d.shape[-1] * temperature)


@wrong("02.logit_matching_gradient", "centres the student alone", "adding a constant to a row")
def student_centred(student_logits, teacher_logits, temperature):
    z = student_logits - student_logits.mean(-1, keepdim=True)
    return (z - teacher_logits) / (z.shape[-1] * temperature**2)


@wrong("02.logit_matching_gradient", "the sign exchanged", "z - v")
def sign(student_logits, teacher_logits, temperature):
    d = teacher_logits - student_logits
    return (d - d.mean(-1, keepdim=True)) / (d.shape[-1] * temperature**2)


@wrong("02.logit_matching_gradient", "centres in place", "the caller's logits stay")
def centred_in_place(student_logits, teacher_logits, temperature):
    student_logits -= student_logits.mean(-1, keepdim=True)
    teacher_logits -= teacher_logits.mean(-1, keepdim=True)
    return (student_logits - teacher_logits) / (student_logits.shape[-1] * temperature**2)


@wrong("02.logit_matching_gradient", "ten classes as in the notebook", "C classes")
def ten_classes(student_logits, teacher_logits, temperature):
    d = student_logits - teacher_logits
    return (d - d.mean(-1, keepdim=True)) / (10 * temperature**2)


@wrong("02.distill_step", "no eval for the teacher", "the teacher in eval mode")
def teacher_as_it_comes(student, teacher, inputs, targets, optimizer, temperature=4.0, alpha=0.9):
    student.train()
    with torch.no_grad():
        v = teacher(inputs)
    loss = losses.kd_loss(student(inputs), v, targets, temperature, alpha)
    optimizer.zero_grad()
    loss.backward()
    optimizer.step()
    return loss.item()


@wrong("02.distill_step", "no zero_grad", "one update on one batch")
def gradients_pile_up(student, teacher, inputs, targets, optimizer, temperature=4.0, alpha=0.9):
    student.train()
    teacher.eval()
    with torch.no_grad():
        v = teacher(inputs)
    loss = losses.kd_loss(student(inputs), v, targets, temperature, alpha)
    loss.backward()
    optimizer.step()
    return loss.item()


@wrong("02.distill_step", "zero_grad between backward and step", "an update of the student")
def gradients_cleared_late(
    student, teacher, inputs, targets, optimizer, temperature=4.0, alpha=0.9
):
    student.train()
    teacher.eval()
    with torch.no_grad():
        v = teacher(inputs)
    loss = losses.kd_loss(student(inputs), v, targets, temperature, alpha)
    loss.backward()
    optimizer.zero_grad()
    optimizer.step()
    return loss.item()


@wrong("02.distill_step", "evaluates the loss after the step", "the loss before the update")
def loss_afterwards(student, teacher, inputs, targets, optimizer, temperature=4.0, alpha=0.9):
    student.train()
    teacher.eval()
    with torch.no_grad():
        v = teacher(inputs)
    optimizer.zero_grad()
    losses.kd_loss(student(inputs), v, targets, temperature, alpha).backward()
    optimizer.step()
    with torch.no_grad():
        return losses.kd_loss(student(inputs), v, targets, temperature, alpha).item()


@wrong("02.distill_step", "temperature and alpha not passed on", "temperature, alpha are arguments")
def defaults_used(student, teacher, inputs, targets, optimizer, temperature=4.0, alpha=0.9):
    student.train()
    teacher.eval()
    with torch.no_grad():
        v = teacher(inputs)
    loss = losses.kd_loss(student(inputs), v, targets)
    optimizer.zero_grad()
    loss.backward()
    optimizer.step()
    return loss.item()


@wrong("02.distill_step", "no train mode for the student", "the student answers in train mode")
def student_as_it_comes(student, teacher, inputs, targets, optimizer, temperature=4.0, alpha=0.9):
    teacher.eval()
    with torch.no_grad():
        v = teacher(inputs)
    loss = losses.kd_loss(student(inputs), v, targets, temperature, alpha)
    optimizer.zero_grad()
    loss.backward()
    optimizer.step()
    return loss.item()


@wrong("02.distill_step", "freezes the teacher's parameters", "nothing in the teacher changes")
def freezes(student, teacher, inputs, targets, optimizer, temperature=4.0, alpha=0.9):
    student.train()
    teacher.eval()
    for parameter in teacher.parameters():
        parameter.requires_grad_(False)
    v = teacher(inputs)
    loss = losses.kd_loss(student(inputs), v, targets, temperature, alpha)
    optimizer.zero_grad()
    loss.backward()
    optimizer.step()
    return loss.item()


@wrong("02.distill_step", "detaches after a forward with a graph", "records no graph")
def detached_afterwards(student, teacher, inputs, targets, optimizer, temperature=4.0, alpha=0.9):
    student.train()
    teacher.eval()
    v = teacher(inputs).detach()
    loss = losses.kd_loss(student(inputs), v, targets, temperature, alpha)
    optimizer.zero_grad()
    loss.backward()
    optimizer.step()
    return loss.item()


@wrong("02.distill_step", "clips the gradients as usual", "one update of the student by its loss")
def clips(student, teacher, inputs, targets, optimizer, temperature=4.0, alpha=0.9):
    student.train()
    teacher.eval()
    with torch.no_grad():
        v = teacher(inputs)
    loss = losses.kd_loss(student(inputs), v, targets, temperature, alpha)
    optimizer.zero_grad()
    loss.backward()
    torch.nn.utils.clip_grad_norm_(student.parameters(), 1.0)
    optimizer.step()
    return loss.item()


@wrong("02.TeacherCache", "drops the last, shorter batch", "N need not be a multiple")
class LastBatchDropped:
    def __init__(self, teacher, inputs, batch_size=256):
        teacher.eval()
        count = max(1, len(inputs) // batch_size)
        with torch.no_grad():
            self.logits = torch.cat(
                [teacher(inputs[i * batch_size : (i + 1) * batch_size]) for i in range(count)]
            )

    def __len__(self):
        return len(self.logits)

    def __getitem__(self, indices):
        return self.logits[indices]


class _Cache:
    def __init__(self, teacher, inputs, batch_size=256):
        teacher.eval()
        with torch.no_grad():
            self.logits = torch.cat([teacher(part) for part in inputs.split(batch_size)])

    def __len__(self):
        return len(self.logits)

    def __getitem__(self, indices):
        return self.logits[indices]


@wrong("02.TeacherCache", "answers in sorted order", "in that order")
class SortedAnswers(_Cache):
    def __getitem__(self, indices):
        return self.logits[indices.sort().values]


@wrong("02.TeacherCache", "a mask: duplicates fall away", "(B, C) of the examples indices")
class Masked(_Cache):
    def __getitem__(self, indices):
        wanted = torch.zeros(len(self.logits), dtype=torch.bool)
        wanted[indices] = True
        return self.logits[wanted]


@wrong("02.TeacherCache", "forgets eval mode", "in eval mode")
class NoEval(_Cache):
    def __init__(self, teacher, inputs, batch_size=256):
        with torch.no_grad():
            self.logits = torch.cat([teacher(part) for part in inputs.split(batch_size)])


@wrong("02.TeacherCache", "forgets no_grad", "without gradient")
class WithGraph(_Cache):
    def __init__(self, teacher, inputs, batch_size=256):
        teacher.eval()
        self.logits = torch.cat([teacher(part) for part in inputs.split(batch_size)])


@wrong("02.TeacherCache", "asks the teacher at each lookup", "runs the teacher once")
class Lazy:
    def __init__(self, teacher, inputs, batch_size=256):
        self.teacher, self.inputs = teacher.eval(), inputs

    def __len__(self):
        return len(self.inputs)

    def __getitem__(self, indices):
        with torch.no_grad():
            return self.teacher(self.inputs[indices])


@wrong("02.TeacherCache", "ignores batch_size", "batch_size rows at a time")
class AllAtOnce(_Cache):
    def __init__(self, teacher, inputs, batch_size=256):
        teacher.eval()
        with torch.no_grad():
            self.logits = teacher(inputs)


@wrong("02.TeacherCache", "keeps probabilities", "the logits")
class Probabilities(_Cache):
    def __getitem__(self, indices):
        return self.logits.softmax(-1)[indices]


@wrong("02.TeacherCache", "len is the number of batches", "len(cache) is N")
class LengthInBatches(_Cache):
    def __init__(self, teacher, inputs, batch_size=256):
        super().__init__(teacher, inputs, batch_size)
        self.batches = len(inputs.split(batch_size))

    def __len__(self):
        return self.batches


@wrong("02.TeacherCache", "one cache for the whole class", "a second cache has its own teacher")
class Shared(_Cache):
    kept: ClassVar[list] = []

    def __init__(self, teacher, inputs, batch_size=256):
        if not self.kept:
            super().__init__(teacher, inputs, batch_size)
            self.kept.append(self.logits)
        self.logits = self.kept[0]
