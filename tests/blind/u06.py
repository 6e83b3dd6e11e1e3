"""Wrong answers to unit 06, written from the notebook's text."""

from contextlib import contextmanager

import torch
import torch.nn.functional as F
from torch import nn

from kdlib.losses import features
from tests.blind import Wrong, collector

WRONG: dict[str, list[Wrong]] = {}
wrong = collector(WRONG)


def _known(model, names):
    modules = dict(model.named_modules())
    for name in names:
        if name not in modules:
            raise ValueError(f"no layer {name!r}")
    return modules


@wrong("06.capture_features", "detaches what it keeps", "with their graph")
@contextmanager
def detached(model, names):
    modules, seen = _known(model, names), {}

    def keep(name):
        def hook(module, inputs, output):
            seen[name] = output.detach().clone()

        return hook

    handles = [modules[name].register_forward_hook(keep(name)) for name in names]
    try:
        yield seen
    finally:
        for handle in handles:
            handle.remove()


@wrong("06.capture_features", "no clone", "as it left the layer, even if the next works in place")
@contextmanager
def no_clone(model, names):
    modules, seen = _known(model, names), {}

    def keep(name):
        def hook(module, inputs, output):
            seen[name] = output

        return hook

    handles = [modules[name].register_forward_hook(keep(name)) for name in names]
    try:
        yield seen
    finally:
        for handle in handles:
            handle.remove()


@wrong("06.capture_features", "no finally", "no hook is left, whether the block ended well or not")
@contextmanager
def no_finally(model, names):
    modules, seen = _known(model, names), {}

    def keep(name):
        def hook(module, inputs, output):
            seen[name] = output.clone()

        return hook

    handles = [modules[name].register_forward_hook(keep(name)) for name in names]
    yield seen
    for handle in handles:
        handle.remove()


@wrong(
    "06.capture_features", "late binding of the loop's name", "a dict from names to their outputs"
)
@contextmanager
def late_binding(model, names):
    modules, seen, handles = _known(model, names), {}, []
    for name in names:

        def hook(module, inputs, output):
            seen[name] = output.clone()  # noqa: B023

        handles.append(modules[name].register_forward_hook(hook))
    try:
        yield seen
    finally:
        for handle in handles:
            handle.remove()


@wrong("06.capture_features", "keeps the first pass", "the outputs of the latest forward pass")
@contextmanager
def first_pass(model, names):
    modules, seen = _known(model, names), {}

    def keep(name):
        def hook(module, inputs, output):
            seen.setdefault(name, output.clone())

        return hook

    handles = [modules[name].register_forward_hook(keep(name)) for name in names]
    try:
        yield seen
    finally:
        for handle in handles:
            handle.remove()


@wrong("06.capture_features", "skips unknown names", "an unknown one raises a ValueError")
@contextmanager
def unknown_skipped(model, names):
    modules, seen = dict(model.named_modules()), {}

    def keep(name):
        def hook(module, inputs, output):
            seen[name] = output.clone()

        return hook

    handles = [modules[n].register_forward_hook(keep(n)) for n in names if n in modules]
    try:
        yield seen
    finally:
        for handle in handles:
            handle.remove()


@wrong("06.capture_features", "finds the bad name after hooking the good ones", "no hook is left")
@contextmanager
def hooks_before_the_error(model, names):
    modules, seen, handles = dict(model.named_modules()), {}, []

    def keep(name):
        def hook(module, inputs, output):
            seen[name] = output.clone()

        return hook

    for name in names:
        if name not in modules:
            raise ValueError(f"no layer {name!r}")
        handles.append(modules[name].register_forward_hook(keep(name)))
    try:
        yield seen
    finally:
        for handle in handles:
            handle.remove()


@wrong("06.capture_features", "keeps the layer's input", "the outputs")
@contextmanager
def inputs_kept(model, names):
    modules, seen = _known(model, names), {}

    def keep(name):
        def hook(module, inputs, output):
            seen[name] = inputs[0].clone()

        return hook

    handles = [modules[name].register_forward_hook(keep(name)) for name in names]
    try:
        yield seen
    finally:
        for handle in handles:
            handle.remove()


@wrong("06.capture_features", "clears every hook of the layer", "the network as without you")
@contextmanager
def foreign_hooks_cleared(model, names):
    modules, seen = _known(model, names), {}

    def keep(name):
        def hook(module, inputs, output):
            seen[name] = output.clone()

        return hook

    for name in names:
        modules[name].register_forward_hook(keep(name))
    try:
        yield seen
    finally:
        for name in names:
            modules[name]._forward_hooks.clear()


@wrong(
    "06.capture_features", "returns the clone from the hook, detached", "computes what it computed"
)
@contextmanager
def output_replaced(model, names):
    modules, seen = _known(model, names), {}

    def keep(name):
        def hook(module, inputs, output):
            seen[name] = output.clone()
            return output.detach()

        return hook

    handles = [modules[name].register_forward_hook(keep(name)) for name in names]
    try:
        yield seen
    finally:
        for handle in handles:
            handle.remove()


@wrong("06.capture_features", "empties the dict on leaving", "seen[...] is read after the block")
@contextmanager
def emptied(model, names):
    modules, seen = _known(model, names), {}

    def keep(name):
        def hook(module, inputs, output):
            seen[name] = output.clone()

        return hook

    handles = [modules[name].register_forward_hook(keep(name)) for name in names]
    try:
        yield seen
    finally:
        for handle in handles:
            handle.remove()
        seen.clear()


def _fitted(s, t, pool=F.adaptive_avg_pool2d):
    size = tuple(min(a, b) for a, b in zip(s.shape[-2:], t.shape[-2:], strict=True))
    return pool(s, size), pool(t, size)


def _channels(s, t):
    if s.shape[1] != t.shape[1]:
        raise ValueError(f"channels differ: {s.shape[1]} and {t.shape[1]}")


@wrong("06.hint_loss", "F.mse_loss: mean over everything", "a sum over channels and positions")
def mean_of_everything(student_features, teacher_features, regressor):
    s, t = _fitted(regressor(student_features), teacher_features.detach())
    _channels(s, t)
    return 0.5 * F.mse_loss(s, t)


@wrong("06.hint_loss", "no half", "1/2 ||...||^2")
def no_half(student_features, teacher_features, regressor):
    s, t = _fitted(regressor(student_features), teacher_features.detach())
    _channels(s, t)
    return (s - t).square().flatten(1).sum(1).mean()


@wrong("06.hint_loss", "sum over images, too", "the mean over the images")
def sum_over_images(student_features, teacher_features, regressor):
    s, t = _fitted(regressor(student_features), teacher_features.detach())
    _channels(s, t)
    return 0.5 * (s - t).square().sum()


@wrong("06.hint_loss", "the teacher not detached", "none to the teacher")
def teacher_gets_gradient(student_features, teacher_features, regressor):
    s, t = _fitted(regressor(student_features), teacher_features)
    _channels(s, t)
    return 0.5 * (s - t).square().flatten(1).sum(1).mean()


@wrong("06.hint_loss", "regressor under no_grad", "gradient goes to the regressor")
def regressor_frozen(student_features, teacher_features, regressor):
    weights = [p.requires_grad for p in regressor.parameters()]
    for p in regressor.parameters():
        p.requires_grad_(False)
    s, t = _fitted(regressor(student_features), teacher_features.detach())
    for p, flag in zip(regressor.parameters(), weights, strict=True):
        p.requires_grad_(flag)
    _channels(s, t)
    return 0.5 * (s - t).square().flatten(1).sum(1).mean()


@wrong("06.hint_loss", "always resizes the student", "bring the larger one down")
def student_resized(student_features, teacher_features, regressor):
    s = F.adaptive_avg_pool2d(regressor(student_features), teacher_features.shape[-2:])
    _channels(s, teacher_features)
    return 0.5 * (s - teacher_features.detach()).square().flatten(1).sum(1).mean()


@wrong("06.hint_loss", "max pooling", "F.adaptive_avg_pool2d")
def max_pooled(student_features, teacher_features, regressor):
    s, t = _fitted(regressor(student_features), teacher_features.detach(), F.adaptive_max_pool2d)
    _channels(s, t)
    return 0.5 * (s - t).square().flatten(1).sum(1).mean()


@wrong("06.hint_loss", "one channel broadcasts", "channels that still differ raise a ValueError")
def channels_unchecked(student_features, teacher_features, regressor):
    s, t = _fitted(regressor(student_features), teacher_features.detach())
    return 0.5 * (s - t).square().flatten(1).sum(1).mean()


@wrong("06.hint_loss", "compares heights alone", "differ in height or width")
def square_maps(student_features, teacher_features, regressor):
    s, t = regressor(student_features), teacher_features.detach()
    _channels(s, t)
    size = min(s.shape[-1], t.shape[-1])
    s, t = F.adaptive_avg_pool2d(s, size), F.adaptive_avg_pool2d(t, size)
    return 0.5 * (s - t).square().flatten(1).sum(1).mean()


@wrong("06.hint_loss", "the norm, not its square", "||...||^2")
def not_squared(student_features, teacher_features, regressor):
    s, t = _fitted(regressor(student_features), teacher_features.detach())
    _channels(s, t)
    return 0.5 * (s - t).flatten(1).norm(dim=1).mean()


class _Trainer:
    def __init__(self, student, teacher, regressor, guided, hint, lr=2e-3):
        self.student, self.teacher, self.regressor = student, teacher, regressor
        self.guided, self.hint = guided, hint
        self.optimizer = torch.optim.Adam(self.learning(), lr)

    def learning(self):
        return [*self.student.parameters(), *self.regressor.parameters()]

    def modes(self):
        self.student.train()
        self.teacher.eval()

    def loss(self, inputs):
        self.modes()
        names = [self.guided], [self.hint]
        with features.capture_features(self.teacher, names[1]) as theirs, torch.no_grad():
            self.teacher(inputs)
        with features.capture_features(self.student, names[0]) as mine:
            self.student(inputs)
        return features.hint_loss(mine[self.guided], theirs[self.hint], self.regressor)

    def step(self, inputs):
        loss = self.loss(inputs)
        self.optimizer.zero_grad()
        loss.backward()
        self.optimizer.step()
        return loss.item()


@wrong(
    "06.HintTrainer", "the regressor is not in the optimiser", "every parameter of the regressor"
)
class WithoutRegressor(_Trainer):
    def learning(self):
        return list(self.student.parameters())


@wrong("06.HintTrainer", "the teacher is in the optimiser", "none of the teacher's")
class WithTeacher(_Trainer):
    def learning(self):
        return [*super().learning(), *self.teacher.parameters()]


@wrong("06.HintTrainer", "only the guided layer's parameters", "every parameter of the student")
class GuidedLayerOnly(_Trainer):
    def learning(self):
        layer = self.student.get_submodule(self.guided)
        return [*layer.parameters(), *self.regressor.parameters()]


@wrong("06.HintTrainer", "AdamW", "a torch.optim.Adam")
class AdamW(_Trainer):
    def __init__(self, student, teacher, regressor, guided, hint, lr=2e-3):
        super().__init__(student, teacher, regressor, guided, hint, lr)
        self.optimizer = torch.optim.AdamW(self.learning(), lr)


@wrong("06.HintTrainer", "lr not passed on", "with step size lr")
class DefaultStepSize(_Trainer):
    def __init__(self, student, teacher, regressor, guided, hint, lr=2e-3):
        super().__init__(student, teacher, regressor, guided, hint)


@wrong("06.HintTrainer", "modes set in the constructor alone", "runs in train mode, in each step")
class ModesOnce(_Trainer):
    def __init__(self, student, teacher, regressor, guided, hint, lr=2e-3):
        super().__init__(student, teacher, regressor, guided, hint, lr)
        student.train()
        teacher.eval()

    def modes(self):
        pass


@wrong("06.HintTrainer", "forgets zero_grad", "one update for the batch")
class GradientsPileUp(_Trainer):
    def step(self, inputs):
        loss = self.loss(inputs)
        loss.backward()
        self.optimizer.step()
        return loss.item()


@wrong("06.HintTrainer", "clears the gradients of the student alone", "the regressor learns, too")
class RegressorPilesUp(_Trainer):
    def step(self, inputs):
        loss = self.loss(inputs)
        self.student.zero_grad()
        loss.backward()
        self.optimizer.step()
        return loss.item()


@wrong("06.HintTrainer", "the loss after the update", "the loss before it")
class LossAfterwards(_Trainer):
    def step(self, inputs):
        super().step(inputs)
        with torch.no_grad():
            return self.loss(inputs).item()


@wrong("06.HintTrainer", "names of the layers exchanged", "guided is the student's layer")
class SameLayerName(_Trainer):
    def __init__(self, student, teacher, regressor, guided, hint, lr=2e-3):
        super().__init__(student, teacher, regressor, guided, guided, lr)


@wrong("06.HintTrainer", "hooks opened in the constructor and never closed", "models as they were")
class HooksStay(_Trainer):
    def __init__(self, student, teacher, regressor, guided, hint, lr=2e-3):
        super().__init__(student, teacher, regressor, guided, hint, lr)
        self.contexts = [
            features.capture_features(student, [guided]),
            features.capture_features(teacher, [hint]),
        ]
        self.mine, self.theirs = (context.__enter__() for context in self.contexts)

    def loss(self, inputs):
        self.modes()
        with torch.no_grad():
            self.teacher(inputs)
        self.student(inputs)
        mine, theirs = self.mine[self.guided], self.theirs[self.hint]
        return features.hint_loss(mine, theirs, self.regressor)


@wrong("06.HintTrainer", "the teacher runs with a graph", "the teacher without a graph")
class TeacherWithGraph(_Trainer):
    def loss(self, inputs):
        self.modes()
        with features.capture_features(self.teacher, [self.hint]) as theirs:
            self.teacher(inputs)
        with features.capture_features(self.student, [self.guided]) as mine:
            self.student(inputs)
        return features.hint_loss(mine[self.guided], theirs[self.hint], self.regressor)


def _same_size(s, t):
    if s.shape[-2:] != t.shape[-2:]:
        raise ValueError(f"maps differ: {tuple(s.shape[-2:])} and {tuple(t.shape[-2:])}")


def _map(f, power=2):
    q = f.abs().pow(power).mean(1).flatten(1)
    return q / (q.square().sum(1, keepdim=True) + 1e-24).sqrt()


def _length(d):
    return torch.where(d.square().sum(1) > 0, (d.square().sum(1) + 1e-24).sqrt(), 0.0)


@wrong("06.attention_loss", "the squared distance", "a norm, not its square")
def squared_distance(student_features, teacher_features):
    _same_size(student_features, teacher_features)
    d = _map(student_features) - _map(teacher_features.detach())
    return d.square().sum(1).mean()


@wrong("06.attention_loss", "the authors' code: mean of squares over all", "each image's distance")
def authors_code(student_features, teacher_features):
    _same_size(student_features, teacher_features)
    return (_map(student_features) - _map(teacher_features.detach())).square().mean()


@wrong("06.attention_loss", "F.normalize over the batch", "each image's map has length one")
def batch_normalised(student_features, teacher_features):
    _same_size(student_features, teacher_features)

    def attention(f):
        return F.normalize(f.square().mean(1).flatten(1), dim=0)

    return _length(attention(student_features) - attention(teacher_features.detach())).mean()


@wrong("06.attention_loss", "plain norm of the difference", "its gradient finite where they agree")
def gradient_at_zero(student_features, teacher_features):
    _same_size(student_features, teacher_features)
    d = _map(student_features) - _map(teacher_features.detach())
    return d.square().sum(1).sqrt().mean()


@wrong("06.attention_loss", "divides by the norm", "a map of zeros stays zero, nothing is NaN")
def zero_map(student_features, teacher_features):
    _same_size(student_features, teacher_features)

    def attention(f):
        q = f.square().mean(1).flatten(1)
        return q / q.norm(dim=1, keepdim=True)

    return _length(attention(student_features) - attention(teacher_features.detach())).mean()


@wrong("06.attention_loss", "exponent 1", "the squared features")
def exponent_one(student_features, teacher_features):
    _same_size(student_features, teacher_features)
    return _length(_map(student_features, 1) - _map(teacher_features.detach(), 1)).mean()


@wrong("06.attention_loss", "squares the mean over channels", "the mean of the squares")
def square_of_the_mean(student_features, teacher_features):
    _same_size(student_features, teacher_features)

    def attention(f):
        return F.normalize(f.mean(1).square().flatten(1), dim=1)

    return _length(attention(student_features) - attention(teacher_features.detach())).mean()


@wrong("06.attention_loss", "the teacher not detached", "no gradient arrives at its features")
def attention_not_detached(student_features, teacher_features):
    _same_size(student_features, teacher_features)
    return _length(_map(student_features) - _map(teacher_features)).mean()


@wrong("06.attention_loss", "pools maps of other sizes", "height and width may not differ")
def pooled(student_features, teacher_features):
    s, t = _fitted(student_features, teacher_features.detach())
    return _length(_map(s) - _map(t)).mean()


@wrong("06.attention_loss", "compares the number of positions", "height and width: ValueError")
def positions_compared(student_features, teacher_features):
    s, t = _map(student_features), _map(teacher_features.detach())
    if s.shape[1] != t.shape[1]:
        raise ValueError("maps differ in size")
    return _length(s - t).mean()


@wrong("06.attention_loss", "sum over images", "the mean over images")
def attention_sum(student_features, teacher_features):
    _same_size(student_features, teacher_features)
    return _length(_map(student_features) - _map(teacher_features.detach())).sum()


@wrong("06.attention_loss", "an epsilon of 1e-3 on the map's norm", "scaled to length one")
def small_maps_lost(student_features, teacher_features):
    _same_size(student_features, teacher_features)

    def attention(f):
        q = f.square().mean(1).flatten(1)
        return q / (q.norm(dim=1, keepdim=True) + 1e-3)

    return _length(attention(student_features) - attention(teacher_features.detach())).mean()


def _batches(a, b):
    if len(a) != len(b):
        raise ValueError(f"batches differ: {len(a)} and {len(b)}")


def _flow(a, b):
    return torch.einsum("bihw,bjhw->bij", a, b)


@wrong("06.fsp_matrix", "no division by hw", "1 / (hw)")
def undivided(first, second):
    _batches(first, second)
    return _flow(*_fitted(first, second, F.adaptive_max_pool2d))


@wrong("06.fsp_matrix", "divides by the larger map", "h and w of the compared maps")
def larger_map(first, second):
    _batches(first, second)
    count = max(first.shape[-2] * first.shape[-1], second.shape[-2] * second.shape[-1])
    return _flow(*_fitted(first, second, F.adaptive_max_pool2d)) / count


@wrong("06.fsp_matrix", "average pooling", "F.adaptive_max_pool2d")
def average_pooled(first, second):
    _batches(first, second)
    a, b = _fitted(first, second)
    return _flow(a, b) / (a.shape[-2] * a.shape[-1])


@wrong("06.fsp_matrix", "always pools the first", "the larger is brought down")
def first_pooled(first, second):
    _batches(first, second)
    a = F.adaptive_max_pool2d(first, second.shape[-2:])
    return _flow(a, second) / (second.shape[-2] * second.shape[-1])


@wrong("06.fsp_matrix", "transposed", "(B, C1, C2)")
def transposed(first, second):
    _batches(first, second)
    a, b = _fitted(first, second, F.adaptive_max_pool2d)
    return _flow(b, a) / (a.shape[-2] * a.shape[-1])


@wrong("06.fsp_matrix", "averages over the batch", "a matrix for each image")
def averaged_over_batch(first, second):
    _batches(first, second)
    a, b = _fitted(first, second, F.adaptive_max_pool2d)
    return (_flow(a, b) / (a.shape[-2] * a.shape[-1])).mean(0)


@wrong("06.fsp_matrix", "a batch of one broadcasts", "batches that differ raise a ValueError")
def broadcasting(first, second):
    a, b = _fitted(first, second, F.adaptive_max_pool2d)
    return a.flatten(2) @ b.flatten(2).transpose(1, 2) / (a.shape[-2] * a.shape[-1])


@wrong("06.fsp_matrix", "pools to a square", "maps of h x w")
def squares_only(first, second):
    _batches(first, second)
    size = min(first.shape[-1], second.shape[-1])
    a, b = F.adaptive_max_pool2d(first, size), F.adaptive_max_pool2d(second, size)
    return _flow(a, b) / size**2


@wrong("06.fsp_matrix", "divides by the root of hw, as in attention", "1 / (hw)")
def by_the_root(first, second):
    _batches(first, second)
    a, b = _fitted(first, second, F.adaptive_max_pool2d)
    return _flow(a, b) / (a.shape[-2] * a.shape[-1]) ** 0.5


@wrong("06.fsp_matrix", "centres the channels", "the plain products")
def centred(first, second):
    _batches(first, second)
    a, b = _fitted(first, second, F.adaptive_max_pool2d)
    a, b = a - a.mean((-2, -1), keepdim=True), b - b.mean((-2, -1), keepdim=True)
    return _flow(a, b) / (a.shape[-2] * a.shape[-1])


class _SimKD(nn.Module):
    def __init__(self, encoder, projector, teacher_head):
        super().__init__()
        self.encoder, self.projector, self.head = encoder, projector, teacher_head
        self.head.requires_grad_(False).eval()

    def train(self, mode=True):
        super().train(mode)
        self.head.eval()
        return self

    def features(self, images):
        return self.projector(self.encoder(images))

    def forward(self, images):
        return self.head(self.features(images))


@wrong("06.SimKDStudent", "head in eval once, train() not overridden", "the head is always in eval")
class TrainReachesTheHead(nn.Module):
    def __init__(self, encoder, projector, teacher_head):
        super().__init__()
        self.encoder, self.projector, self.head = encoder, projector, teacher_head
        self.head.requires_grad_(False).eval()

    def features(self, images):
        return self.projector(self.encoder(images))

    def forward(self, images):
        return self.head(self.features(images))


@wrong("06.SimKDStudent", "head under no_grad", "gradient passes through the head")
class NoGradHead(_SimKD):
    def forward(self, images):
        x = self.features(images)
        with torch.no_grad():
            return self.head(x)


@wrong("06.SimKDStudent", "features detached before the head", "gradient passes through the head")
class DetachedFeatures(_SimKD):
    def forward(self, images):
        return self.head(self.features(images).detach())


@wrong("06.SimKDStudent", "head left trainable", "the head's parameters do not change")
class TrainableHead(_SimKD):
    def __init__(self, encoder, projector, teacher_head):
        super().__init__(encoder, projector, teacher_head)
        self.head.requires_grad_(True)


@wrong("06.SimKDStudent", "features before the projector", "features(images) gives P(f_s(x))")
class BareFeatures(_SimKD):
    def features(self, images):
        return self.encoder(images)

    def forward(self, images):
        return self.head(self.projector(self.encoder(images)))


@wrong("06.SimKDStudent", "projector in a list", "its parameters are in model.parameters()")
class ProjectorInAList(nn.Module):
    def __init__(self, encoder, projector, teacher_head):
        super().__init__()
        self.encoder, self.head = encoder, teacher_head
        self.rest = [projector]
        self.head.requires_grad_(False).eval()

    def train(self, mode=True):
        super().train(mode)
        self.rest[0].train(mode)
        self.head.eval()
        return self

    def features(self, images):
        return self.rest[0](self.encoder(images))

    def forward(self, images):
        return self.head(self.features(images))


@wrong("06.SimKDStudent", "train() always trains", "model.eval() switches encoder and projector")
class IgnoresMode(_SimKD):
    def train(self, mode=True):
        super().train()
        self.head.eval()
        return self


@wrong(
    "06.SimKDStudent", "train() returns nothing", "an nn.Module: model.train().…, model.eval().…"
)
class TrainReturnsNothing(_SimKD):
    def train(self, mode=True):
        super().train(mode)
        self.head.eval()


@wrong("06.SimKDStudent", "freezes everything", "encoder and projector require gradient")
class FreezesEverything(_SimKD):
    def __init__(self, encoder, projector, teacher_head):
        super().__init__(encoder, projector, teacher_head)
        self.encoder.requires_grad_(False)


@wrong("06.SimKDStudent", "softmax on top", "model(images) gives the logits")
class ReturnsProbabilities(_SimKD):
    def forward(self, images):
        return super().forward(images).softmax(-1)


@wrong("06.SimKDStudent", "the head in eval from the first train() on", "always in eval mode")
class EvalComesLate(nn.Module):
    def __init__(self, encoder, projector, teacher_head):
        super().__init__()
        self.encoder, self.projector, self.head = encoder, projector, teacher_head
        self.head.requires_grad_(False)

    def train(self, mode=True):
        super().train(mode)
        self.head.eval()
        return self

    def features(self, images):
        return self.projector(self.encoder(images))

    def forward(self, images):
        return self.head(self.features(images))
