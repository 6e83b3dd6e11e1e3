"""Right answers to unit 06 that look different from the reference and from each other."""

import copy
import functools
from contextlib import ExitStack, contextmanager
from itertools import chain

import torch
import torch.nn.functional as F
from torch import nn

from kdlib.losses import capture_features, hint_loss


@contextmanager
def capture_stack(model, names):
    found = {}
    with ExitStack() as stack:
        for name in names:
            try:
                layer = model.get_submodule(name)
            except AttributeError as error:
                raise ValueError(f"no layer {name!r}") from error

            def hook(module, inputs, output, name=name):
                found[name] = output + 0

            stack.callback(layer.register_forward_hook(hook).remove)
        yield found


class CaptureClass:
    def __init__(self, model, names):
        self.layers = {k: m for k, m in model.named_modules() if k in set(names)}
        if len(self.layers) < len(set(names)):
            raise ValueError("a name is unknown")
        self.found = {}

    def __enter__(self):
        self.handles = [
            layer.register_forward_hook(self.keep(name)) for name, layer in self.layers.items()
        ]
        return self.found

    def keep(self, name):
        return lambda module, inputs, output: self.found.update({name: output.clone()})

    def __exit__(self, *error):
        for handle in self.handles:
            handle.remove()


@contextmanager
def capture_wrapped(model, names):
    """No hooks at all: each layer's forward is replaced for a while."""
    layers = dict(model.named_modules())
    if not set(names) <= set(layers):
        raise ValueError(f"unknown: {set(names) - set(layers)}")
    found = {}
    for name in names:
        layer = layers[name]

        def forward(*args, layer=layer, name=name):
            output = type(layer).forward(layer, *args)
            found[name] = output.clone()
            return output

        layer.forward = forward
    try:
        yield found
    finally:
        for name in names:
            del layers[name].forward


@contextmanager
def capture_one_hook(model, names):
    """One hook function for all layers, which knows the layer it is called for."""
    by_layer = {}
    for name in names:
        layer = dict(model.named_modules()).get(name)
        if layer is None:
            raise ValueError(name)
        by_layer[layer] = name
    found = {}

    def hook(module, inputs, output):
        found[by_layer[module]] = torch.clone(output)

    handles = [layer.register_forward_hook(hook) for layer in by_layer]
    try:
        yield found
    finally:
        [handle.remove() for handle in handles]


class CaptureDict(dict):
    """The dict and the context manager in one."""

    def __init__(self, model, names):
        super().__init__()
        self.layers, self.handles = {}, []
        for name in names:
            if name not in dict(model.named_modules()):
                raise ValueError(f"there is no layer called {name}")
            self.layers[name] = model.get_submodule(name)

    def __enter__(self):
        for name, layer in self.layers.items():
            hook = functools.partial(self.store, name)
            self.handles.append(layer.register_forward_hook(hook))
        return self

    def store(self, name, layer, inputs, output):
        self[name] = output.clone()

    def __exit__(self, kind, error, trace):
        while self.handles:
            self.handles.pop().remove()
        return False


@contextmanager
def capture_entered_handles(model, names):
    """A handle is a context manager, too: it removes its hook on leaving."""
    layers, found = dict(model.named_modules()), {}
    missing = [name for name in names if name not in layers]
    if missing:
        raise ValueError(f"unknown layers: {missing}; there are {sorted(layers)}")

    def maker(name):
        def hook(module, args, output):
            found[name] = torch.empty_like(output).copy_(output)

        return hook

    with ExitStack() as stack:
        for name in names:
            stack.enter_context(layers[name].register_forward_hook(maker(name)))
        yield found


@contextmanager
def capture_for_all_modules(model, names):
    """One hook for every module there is, which looks for its own."""
    wanted = {id(m): name for name, m in model.named_modules() if name in list(names)}
    if len(wanted) != len(set(names)):
        raise ValueError(f"{set(names) - set(wanted.values())} not found")
    found = {}

    def hook(module, inputs, output):
        if id(module) in wanted:
            found[wanted[id(module)]] = output.clone()

    handle = nn.modules.module.register_module_forward_hook(hook)
    try:
        yield found
    finally:
        handle.remove()


class CaptureEarly:
    """The hooks stand in front of those of others, and are put there on entering."""

    def __init__(self, model, names):
        self.model, self.names, self.found = model, tuple(names), {}

    def __enter__(self):
        known = dict(self.model.named_modules())
        try:
            layers = [known[name] for name in self.names]
        except KeyError as error:
            raise ValueError(f"unknown layer {error}") from None
        self.handles = [
            layer.register_forward_hook(self._hook(name), prepend=True)
            for name, layer in zip(self.names, layers, strict=True)
        ]
        return self.found

    def _hook(self, name):
        def hook(*call):
            self.found[name] = call[-1] * 1.0

        return hook

    def __exit__(self, *_):
        for handle in reversed(self.handles):
            handle.remove()


def _channels(guess, hint):
    if guess.shape[1] != hint.shape[1] or len(guess) != len(hint):
        raise ValueError(f"{tuple(guess.shape)} against {tuple(hint.shape)}")


def hint_mse(student_features, teacher_features, regressor):
    guess, hint = regressor(student_features), teacher_features.detach()
    _channels(guess, hint)
    for side in (-2, -1):  # None leaves a side as it is
        size = [None, None]
        size[side] = min(guess.shape[side], hint.shape[side])
        guess, hint = F.adaptive_avg_pool2d(guess, size), F.adaptive_avg_pool2d(hint, size)
    return F.mse_loss(guess, hint, reduction="sum") / (2 * len(guess))


def hint_pooled_first(student_features, teacher_features, regressor):
    """A 1x1 convolution and an average commute."""
    h, w = (min(student_features.shape[i], teacher_features.shape[i]) for i in (2, 3))
    pool = nn.AdaptiveAvgPool2d((h, w))
    guess = regressor(pool(student_features))
    with torch.no_grad():
        hint = pool(teacher_features)
    _channels(guess, hint)
    return torch.linalg.vector_norm((guess - hint).flatten(1), dim=1).pow(2).mean() / 2


def hint_loop(student_features, teacher_features, regressor):
    total = student_features.new_zeros(())
    for s, t in zip(student_features, teacher_features.clone().detach(), strict=True):
        guess = regressor(s[None])[0]
        _channels(guess[None], t[None])
        size = [min(guess.shape[i], t.shape[i]) for i in (1, 2)]
        d = F.adaptive_avg_pool2d(guess, size) - F.adaptive_avg_pool2d(t, size)
        total = total + 0.5 * (d * d).sum()
    return total / len(student_features)


def _windows(size, smaller, like):
    """The average over adaptive windows as a matrix, (smaller, size)."""
    matrix = like.new_zeros(smaller, size)
    for i in range(smaller):
        window = slice(i * size // smaller, -(-(i + 1) * size // smaller))
        matrix[i, window] = 1 / (window.stop - window.start)
    return matrix


def hint_by_hand(student_features, teacher_features, regressor):
    """The 1x1 convolution written as a matrix product, the pooling as two more."""
    weight = regressor.weight.flatten(1)
    guess = torch.einsum("dc,nchw->ndhw", weight, student_features)
    guess = guess + regressor.bias[None, :, None, None]
    hint = teacher_features.detach()
    _channels(guess, hint)

    def shrink(x, h, w):
        rows, columns = (_windows(n, m, x) for n, m in ((x.shape[2], h), (x.shape[3], w)))
        return rows @ x @ columns.T

    h, w = (min(guess.shape[i], hint.shape[i]) for i in (2, 3))
    difference = shrink(guess, h, w) - shrink(hint, h, w)
    return difference.pow(2).flatten(1).sum(1).mean() * 0.5


def hint_area(student_features, teacher_features, regressor):
    """Interpolation by area is the adaptive average."""
    guess, hint = regressor(student_features), teacher_features.detach()
    _channels(guess, hint)
    size = (min(guess.shape[2], hint.shape[2]), min(guess.shape[3], hint.shape[3]))
    guess, hint = (F.interpolate(x, size=size, mode="area") for x in (guess, hint))
    return F.mse_loss(guess, hint, reduction="none").sum(dim=(1, 2, 3)).mean().div(2)


def hint_einsum(student_features, teacher_features, regressor):
    guess = regressor(student_features)
    with torch.no_grad():
        hint = teacher_features.clone()
    if guess.shape[1] != hint.shape[1]:
        raise ValueError(f"{guess.shape[1]} channels, {hint.shape[1]} asked for")
    for dim in (2, 3):
        length = min(guess.shape[dim], hint.shape[dim])
        for_one = (length, None) if dim == 2 else (None, length)
        pool = nn.AdaptiveAvgPool2d(for_one)
        guess, hint = pool(guess), pool(hint)
    d = guess - hint
    return 0.5 * torch.einsum("bchw,bchw->b", d, d).mean()


def hint_row_vectors(student_features, teacher_features, regressor):
    """Length of a difference squared: |a|^2 + |b|^2 - 2 a.b, in float64."""
    guess, hint = regressor(student_features), teacher_features.detach()
    _channels(guess, hint)
    size = torch.minimum(torch.tensor(guess.shape[2:]), torch.tensor(hint.shape[2:])).tolist()
    a, b = (F.adaptive_avg_pool2d(x, size).flatten(1).double() for x in (guess, hint))
    rows = (a * a).sum(1) + (b * b).sum(1) - 2 * torch.linalg.vecdot(a, b)
    return (rows / 2).mean().to(guess.dtype)


def hint_module(student_features, teacher_features, regressor):
    guess = regressor(student_features)
    _channels(guess, teacher_features)
    h, w = map(min, guess.shape[2:], teacher_features.shape[2:])
    shrink = nn.AdaptiveAvgPool2d((h, w))
    error = nn.MSELoss()(shrink(guess), shrink(teacher_features).detach())
    return error * guess.shape[1] * h * w / 2


class TrainerChained:
    def __init__(self, student, teacher, regressor, guided, hint, lr=2e-3):
        self.student, self.teacher, self.regressor = student, teacher.eval(), regressor
        self.guided, self.hint = guided, hint
        self.optimizer = torch.optim.Adam(nn.ModuleList([student, regressor]).parameters(), lr=lr)

    def step(self, inputs):
        self.student.train()
        self.teacher.eval()
        self.optimizer.zero_grad()
        with capture_features(self.student, [self.guided]) as seen:
            self.student(inputs)
        with torch.no_grad(), capture_features(self.teacher, [self.hint]) as target:
            self.teacher(inputs)
        loss = hint_loss(seen[self.guided], target[self.hint], self.regressor)
        loss.backward()
        self.optimizer.step()
        return float(loss.detach())


class TrainerGroups:
    def __init__(self, student, teacher, regressor, guided, hint, lr=2e-3):
        self.parts = student, teacher, regressor
        self.names = guided, hint
        self.optimizer = torch.optim.Adam([{"params": list(student.parameters())}], lr)
        self.optimizer.add_param_group({"params": list(regressor.parameters())})

    def step(self, inputs):
        (student, teacher, regressor), (guided, hint) = self.parts, self.names
        teacher.eval()
        student.train()
        with capture_stack(student, [guided]) as s, capture_stack(teacher, [hint]) as t:
            with torch.inference_mode():
                teacher(inputs)
            student(inputs)
        loss = hint_mse(s[guided], t[hint].clone(), regressor)
        for group in self.optimizer.param_groups:
            for p in group["params"]:
                p.grad = None
        loss.backward()
        self.optimizer.step()
        return loss.item()


class TrainerLower:
    """Runs only the part below the guided layer: the layer is called by name."""

    def __init__(self, student, teacher, regressor, guided, hint, lr=2e-3):
        self.student, self.teacher, self.regressor = student, teacher, regressor
        self.layers = [guided], [hint]
        parameters = {id(p): p for m in (student, regressor) for p in m.parameters()}
        self.optimizer = torch.optim.Adam(parameters.values(), lr)

    @torch.no_grad()
    def ask(self, inputs):
        self.teacher.train(False)
        with CaptureClass(self.teacher, self.layers[1]) as found:
            self.teacher(inputs)
        return found[self.layers[1][0]]

    def step(self, inputs):
        target = self.ask(inputs)
        with CaptureClass(self.student, self.layers[0]) as found:
            self.student.train(True)(inputs)
        loss = hint_loss(found[self.layers[0][0]], target, self.regressor)
        self.optimizer.zero_grad()
        loss.backward()
        self.optimizer.step()
        return loss.item()


class TrainerHandles:
    def __init__(self, student, teacher, regressor, guided, hint, lr=2e-3):
        self.s, self.t, self.r = student, teacher, regressor
        self.guided, self.hint = student.get_submodule(guided), teacher.get_submodule(hint)
        learn = [p for p in [*student.parameters(), *regressor.parameters()] if p.requires_grad]
        self.optimizer = torch.optim.Adam(learn, lr=lr)

    def step(self, inputs):
        self.s.train(), self.t.eval()
        kept = []
        handles = [
            layer.register_forward_hook(lambda m, i, o: kept.append(o))
            for layer in (self.guided, self.hint)
        ]
        try:
            self.s(inputs)
            with torch.set_grad_enabled(False):
                self.t(inputs)
        finally:
            for handle in handles:
                handle.remove()
        loss = (self.r(kept[0]) - kept[1]).square().sum() / (2 * len(inputs))
        self.optimizer.zero_grad(set_to_none=False)
        loss.backward()
        self.optimizer.step()
        return loss.detach().item()


class TrainerClosure:
    def __init__(self, student, teacher, regressor, guided, hint, lr=2e-3):
        self.student, self.teacher, self.regressor = student, teacher, regressor
        self.guided, self.hint = guided, hint
        learned = chain(student.parameters(), regressor.parameters())
        self.optimizer = torch.optim.Adam(learned, lr=lr)

    def step(self, inputs):
        self.teacher.eval()
        with capture_features(self.teacher, [self.hint]) as theirs, torch.no_grad():
            self.teacher(inputs)
        self.student.train()

        def closure():
            self.optimizer.zero_grad()
            with capture_features(self.student, [self.guided]) as mine:
                self.student(inputs)
            loss = hint_loss(mine[self.guided], theirs[self.hint], self.regressor)
            loss.backward()
            return loss

        return self.optimizer.step(closure).item()


class TrainerTeacherPutBack:
    """The teacher leaves each step in the mode in which it came."""

    def __init__(self, student, teacher, regressor, guided, hint, lr=2e-3):
        self.pair = ((student, guided), (teacher, hint))
        self.regressor = regressor
        groups = [{"params": m.parameters()} for m in (student, regressor)]
        self.optimizer = torch.optim.Adam(groups, lr)

    def step(self, inputs):
        (student, guided), (teacher, hint) = self.pair
        mode = teacher.training
        try:
            with torch.no_grad(), capture_features(teacher, [hint]) as theirs:
                teacher.eval()(inputs)
        finally:
            teacher.train(mode)
        with capture_features(student, [guided]) as mine:
            student.train()(inputs)
        self.optimizer.zero_grad()
        loss = hint_loss(mine[guided], theirs[hint], regressor=self.regressor)
        loss.backward()
        self.optimizer.step()
        return loss.item()


class TrainerModule(nn.Module):
    """A module that holds what learns; the teacher stands beside it."""

    def __init__(self, student, teacher, regressor, guided, hint, lr=2e-3):
        super().__init__()
        self.student, self.regressor = student, regressor
        self.frozen = [teacher]
        self.names = {"guided": guided, "hint": hint}
        self.optimizer = torch.optim.Adam(self.parameters(), lr=lr)

    def forward(self, inputs):
        with capture_features(self.student, [self.names["guided"]]) as found:
            self.student(inputs)
        return self.regressor(found[self.names["guided"]])

    @torch.no_grad()
    def target(self, inputs):
        teacher = self.frozen[0].eval()
        with capture_features(teacher, [self.names["hint"]]) as found:
            teacher(inputs)
        return found[self.names["hint"]]

    def step(self, inputs):
        self.student.train()
        loss = hint_loss(self(inputs), self.target(inputs), nn.Identity())
        self.zero_grad()
        loss.backward()
        self.optimizer.step()
        return loss.item()


class TrainerAutogradGrad:
    """Gradients put where the optimiser looks for them."""

    def __init__(self, student, teacher, regressor, guided, hint, lr=2e-3):
        self.student, self.teacher, self.regressor = student, teacher, regressor
        self.guided, self.hint, self.lr = guided, hint, lr
        self.learned = list(student.parameters()) + list(regressor.parameters())
        self.optimizer = torch.optim.Adam(self.learned, lr=lr)

    def step(self, inputs):
        self.student.train(True), self.teacher.train(False)
        with ExitStack() as stack:
            mine = stack.enter_context(capture_features(self.student, [self.guided]))
            theirs = stack.enter_context(capture_features(self.teacher, [self.hint]))
            self.student(inputs)
            stack.enter_context(torch.no_grad())
            self.teacher(inputs)
        loss = hint_loss(mine[self.guided], theirs[self.hint], self.regressor)
        found = torch.autograd.grad(loss, self.learned, allow_unused=True)
        for parameter, gradient in zip(self.learned, found, strict=True):
            parameter.grad = gradient
        self.optimizer.step()
        return loss.item()


class TrainerCopiedTeacher:
    """Asks a copy, so that nothing about the teacher can change."""

    def __init__(self, student, teacher, regressor, guided, hint, lr=2e-3):
        self.student, self.frozen = student, copy.deepcopy(teacher).eval()
        self.regressor, self.guided, self.hint = regressor, guided, hint
        self.optimizer = torch.optim.Adam([*student.parameters(), *regressor.parameters()], lr)

    def step(self, inputs):
        with torch.no_grad(), capture_features(self.frozen, [self.hint]) as theirs:
            self.frozen(inputs)
        with capture_features(self.student, [self.guided]) as mine:
            self.student.train()(inputs)
        loss = hint_loss(mine[self.guided], theirs[self.hint], self.regressor)
        self.optimizer.zero_grad()
        loss.backward()
        self.optimizer.step()
        return loss.item()


def _sizes(a, b):
    if a.shape[-2:] != b.shape[-2:]:
        raise ValueError("the maps differ in size")


def attention_normalize(student_features, teacher_features):
    _sizes(student_features, teacher_features)
    s, t = (
        F.normalize(x.pow(2).sum(1).flatten(1), p=2, dim=1)
        for x in (student_features, teacher_features.detach())
    )
    return (s - t).norm(p=2, dim=1).mean()


def attention_loop(student_features, teacher_features):
    _sizes(student_features, teacher_features)
    rows = []
    for s, t in zip(student_features, teacher_features.detach(), strict=True):
        q, p = (x.square().mean(0).reshape(-1) for x in (s, t))
        q, p = (x / x.norm().clamp(min=1e-12) for x in (q, p))
        rows.append(torch.dist(q, p))
    return torch.stack(rows).mean()


def attention_cosine(student_features, teacher_features):
    """|a - b|^2 = |a|^2 + |b|^2 - 2 a.b, with the root kept away from zero."""
    _sizes(student_features, teacher_features)
    with torch.no_grad():
        t = torch.einsum("nchw,nchw->nhw", teacher_features, teacher_features).flatten(1)
        t = t / t.square().sum(1, keepdim=True).sqrt().clamp_min(1e-12)
    s = torch.einsum("nchw,nchw->nhw", student_features, student_features).flatten(1)
    s = F.normalize(s, dim=-1)
    square = (s * s).sum(1) + (t * t).sum(1) - 2 * (s * t).sum(1)
    tiny = square < 1e-14
    return torch.where(tiny, 0.0, torch.where(tiny, 1.0, square).sqrt()).mean()


def attention_matrix_norm(student_features, teacher_features):
    _sizes(student_features, teacher_features)

    def look(x):
        q = (x * x).mean(dim=1)
        length = torch.linalg.matrix_norm(q, keepdim=True)
        return q / length.clamp_min(1e-12)

    difference = look(student_features) - look(teacher_features.detach())
    return torch.linalg.matrix_norm(difference).mean()


def attention_pairwise(student_features, teacher_features):
    _sizes(student_features, teacher_features)
    maps = []
    for x in (student_features, teacher_features.detach()):
        energy = x.square().sum(dim=1).flatten(start_dim=1)
        maps.append(energy / energy.norm(dim=1, keepdim=True).clamp_min(1e-12))
    return F.pairwise_distance(*maps, eps=0.0).mean()


def attention_cdist(student_features, teacher_features):
    _sizes(student_features, teacher_features)
    s = F.normalize(student_features.norm(dim=1).pow(2).flatten(1))
    with torch.no_grad():
        t = F.normalize(teacher_features.norm(dim=1).pow(2).flatten(1))
    return torch.cdist(s[:, None], t[:, None]).mean()


def attention_double_inside(student_features, teacher_features):
    if tuple(student_features.shape[-2:]) != tuple(teacher_features.shape[-2:]):
        raise ValueError("height and width of both maps have to be the same")

    def look(features):
        q = torch.einsum("bchw,bchw->bhw", features.double(), features.double()).flatten(1)
        length = torch.linalg.vector_norm(q, dim=1, keepdim=True)
        return q / torch.where(length > 0, length, 1.0)

    difference = look(student_features) - look(teacher_features.detach())
    distance = torch.linalg.vector_norm(difference, dim=1)
    return distance.mean().to(student_features.dtype)


def attention_columns(student_features, teacher_features):
    """The images in the columns; a root only of what is not zero."""
    _sizes(student_features, teacher_features)
    s, t = (
        nn.functional.normalize((x**2).mean(dim=(1,)).reshape(len(x), -1).T, dim=0)
        for x in (student_features, teacher_features.detach())
    )
    square = torch.square(s - t).sum(dim=0)
    apart = square > 0
    return square[apart].sqrt().sum() / len(square) + 0.0 * s.sum()


def _batches(a, b):
    if len(a) != len(b):
        raise ValueError("the batches differ")


def fsp_einsum(first, second):
    _batches(first, second)
    if first.shape[2:] != second.shape[2:]:
        size = [min(sides) for sides in zip(first.shape[2:], second.shape[2:], strict=True)]
        first, second = F.adaptive_max_pool2d(first, size), F.adaptive_max_pool2d(second, size)
    return torch.einsum("bihw,bjhw->bij", first, second) / (first.shape[2] * first.shape[3])


def fsp_bmm(first, second):
    _batches(first, second)
    size = tuple(min(first.shape[i], second.shape[i]) for i in (2, 3))
    a = F.adaptive_max_pool2d(first, size).flatten(start_dim=2)
    b = F.adaptive_max_pool2d(second, size).flatten(start_dim=2)
    return torch.bmm(a, b.permute(0, 2, 1)).div(size[0] * size[1])


def fsp_max_pool(first, second):
    """First the rows, then the columns; the mean over positions as a mean."""
    _batches(first, second)
    h, w = min(first.shape[2], second.shape[2]), min(first.shape[3], second.shape[3])
    for size in ((h, None), (None, w)):
        first, second = F.adaptive_max_pool2d(first, size), F.adaptive_max_pool2d(second, size)
    return (first[:, :, None] * second[:, None]).mean(dim=(3, 4))


def fsp_loop(first, second):
    _batches(first, second)
    h, w = (min(first.shape[i], second.shape[i]) for i in (2, 3))
    rows = []
    for a, b in zip(first, second, strict=True):
        a, b = (F.adaptive_max_pool2d(x, (h, w)).reshape(len(x), -1) for x in (a, b))
        rows.append(torch.stack([torch.stack([(x * y).mean() for y in b]) for x in a]))
    return torch.stack(rows)


def fsp_matmul(first, second):
    _batches(first, second)
    pool = nn.AdaptiveMaxPool2d(list(map(min, first.shape[2:], second.shape[2:])))
    a, b = pool(first).flatten(2), pool(second).flatten(2)
    return a @ b.mT / a.shape[-1]


def fsp_positions(first, second):
    """One outer product for each position, added up."""
    if first.size(0) != second.size(0):
        raise ValueError(f"{first.size(0)} against {second.size(0)} images")
    h, w = (min(first.size(d), second.size(d)) for d in (2, 3))
    first, second = F.adaptive_max_pool2d(first, (h, w)), F.adaptive_max_pool2d(second, (h, w))
    total = 0.0
    for s in range(h):
        for t in range(w):
            total = total + first[:, :, s, t].unsqueeze(2) * second[:, :, s, t].unsqueeze(1)
    return total / (h * w)


def fsp_double_inside(first, second):
    _batches(first, second)
    size = torch.minimum(torch.tensor(first.shape[2:]), torch.tensor(second.shape[2:])).tolist()
    a, b = (F.adaptive_max_pool2d(x, size).double() for x in (first, second))
    rows = [torch.tensordot(x, y, dims=([1, 2], [1, 2])) for x, y in zip(a, b, strict=True)]
    return (torch.stack(rows) / (size[0] * size[1])).to(first.dtype)


def fsp_windows(first, second):
    """The windows of the adaptive pooling written out."""
    _batches(first, second)
    h, w = (min(first.shape[i], second.shape[i]) for i in (2, 3))

    def shrink(x):
        H, W = x.shape[2:]
        rows = [slice(i * H // h, -(-(i + 1) * H // h)) for i in range(h)]
        columns = [slice(j * W // w, -(-(j + 1) * W // w)) for j in range(w)]
        return torch.stack([x[:, :, r, c].amax((2, 3)) for r in rows for c in columns], dim=2)

    return torch.einsum("bip,bjp->bij", shrink(first), shrink(second)).div(h * w)


class SimKDPlain(nn.Module):
    def __init__(self, encoder, projector, teacher_head):
        super().__init__()
        self.encoder, self.projector, self.head = encoder, projector, teacher_head
        for parameter in self.head.parameters():
            parameter.requires_grad = False
        self.head.eval()

    def train(self, mode=True):
        super().train(mode)
        self.head.train(False)
        return self

    def features(self, images):
        return self.projector(self.encoder(images))

    def forward(self, images):
        return self.head(self.features(images))


class SimKDSequential(nn.Module):
    def __init__(self, encoder, projector, teacher_head):
        super().__init__()
        self.features = nn.Sequential(encoder, projector)
        self.head = copy.deepcopy(teacher_head).requires_grad_(False).eval()
        teacher_head.eval()

    def train(self, mode=True):
        self.training = mode
        self.features.train(mode)
        return self

    def forward(self, images):
        return self.head(self.features(images))


class SimKDEvalInForward(nn.Module):
    """Puts the head in eval mode whenever somebody could look at it or use it."""

    def __init__(self, encoder, projector, teacher_head):
        super().__init__()
        self.body = nn.ModuleList([encoder, projector])
        self.head = teacher_head
        self.head.requires_grad_(False)

    def features(self, images):
        for module in self.body:
            images = module(images)
        return images

    def forward(self, images):
        return self.head.eval()(self.features(images))

    def train(self, mode=True):
        for module in self.children():
            module.train(mode and module is not self.head)
        self.training = mode
        return self


class SimKDHidden(nn.Module):
    """Keeps the head where `parameters()` and `train()` do not look: in a tuple."""

    def __init__(self, encoder, projector, teacher_head):
        super().__init__()
        self.encoder, self.projector = encoder, projector
        self.hidden = (teacher_head.eval().requires_grad_(False),)

    def features(self, images):
        return self.projector(self.encoder(images))

    def forward(self, images):
        return self.hidden[0](self.features(images))


class SimKDCopiedHead(nn.Module):
    """A copy of the head; the teacher's own stays as it is."""

    def __init__(self, encoder, projector, teacher_head):
        super().__init__()
        self.encoder, self.projector = encoder, projector
        self.head = copy.deepcopy(teacher_head)
        for parameter in self.head.parameters():
            parameter.requires_grad_(False)
        self.head.eval()

    def train(self, mode=True):
        result = super().train(mode)
        self.head.eval()
        return result

    def features(self, images):
        return self.projector(self.encoder(images))

    def forward(self, images):
        return self.head(self.features(images))


class SimKDBuffers(nn.Module):
    """The head's weights as buffers, its forward as a function of them."""

    def __init__(self, encoder, projector, teacher_head):
        super().__init__()
        self.body = nn.Sequential(encoder, projector)
        self.call = (teacher_head.eval(),)
        self.frozen = {k: v.detach().clone() for k, v in teacher_head.named_parameters()}

    def features(self, images):
        return self.body(images)

    def forward(self, images):
        head, found = self.call[0].eval(), self.features(images)
        return torch.func.functional_call(head, self.frozen, (found,))


class _Frozen(nn.Module):
    """Answers in eval mode, whatever it is told."""

    def __init__(self, inner):
        super().__init__()
        self.inner = inner.requires_grad_(False)
        self.train()

    def train(self, mode=True):
        return super().train(False)

    def forward(self, x):
        return self.inner(x)


class SimKDWrappedHead(nn.Module):
    def __init__(self, encoder, projector, teacher_head):
        super().__init__()
        self.encoder = encoder
        self.projector = projector
        self.head = _Frozen(teacher_head)

    def features(self, images):
        return self.projector(self.encoder(images))

    def forward(self, images):
        return self.head(self.features(images))


class SimKDBoundTrain(nn.Sequential):
    """A sequence of three parts, the last of which cannot be put into train mode."""

    def __init__(self, encoder, projector, teacher_head):
        super().__init__(encoder, projector, teacher_head)
        for parameter in self[2].parameters():
            parameter.requires_grad = False
        self.train(self.training)

    def train(self, mode=True):
        self.training = mode
        self[0].train(mode), self[1].train(mode), self[2].train(False)
        return self

    def features(self, images):
        return self[1](self[0](images))


ANSWERS = {
    "06.capture_features": [
        capture_stack,
        CaptureClass,
        capture_wrapped,
        capture_one_hook,
        CaptureDict,
        capture_entered_handles,
        capture_for_all_modules,
        CaptureEarly,
    ],
    "06.hint_loss": [
        hint_mse,
        hint_pooled_first,
        hint_loop,
        hint_by_hand,
        hint_area,
        hint_einsum,
        hint_row_vectors,
        hint_module,
    ],
    "06.HintTrainer": [
        TrainerChained,
        TrainerGroups,
        TrainerLower,
        TrainerHandles,
        TrainerClosure,
        TrainerTeacherPutBack,
        TrainerModule,
        TrainerAutogradGrad,
        TrainerCopiedTeacher,
    ],
    "06.attention_loss": [
        attention_normalize,
        attention_loop,
        attention_cosine,
        attention_matrix_norm,
        attention_pairwise,
        attention_cdist,
        attention_double_inside,
        attention_columns,
    ],
    "06.fsp_matrix": [
        fsp_einsum,
        fsp_bmm,
        fsp_max_pool,
        fsp_loop,
        fsp_matmul,
        fsp_positions,
        fsp_double_inside,
        fsp_windows,
    ],
    "06.SimKDStudent": [
        SimKDPlain,
        SimKDSequential,
        SimKDEvalInForward,
        SimKDHidden,
        SimKDCopiedHead,
        SimKDBuffers,
        SimKDWrappedHead,
        SimKDBoundTrain,
    ],
}

_UNASKED = "the contract does not ask for this check"
_WORDS = "the contract asks for a ValueError, not for its words"
_EVEN = "a squared difference has no sign, a distance no direction"
_FLOOR = "a floor against division by zero: any tiny number does"
_CANCELS = "a factor on an image's map cancels in the normalisation"
_GIVEN = "the exercise gives the parts, and these networks need no more of them"
_MAPS = {
    "a check left out @ *require_*": _UNASKED,
    "* @ if value.dim() != 4 or value.numel() == 0:*": _UNASKED,
    "*exception* @ raise ValueError(f'{name} must have shape*": _UNASKED,
    "* @  => value = *": "a check of shapes, which no number enters",
}

EQUIVALENT = {
    "06.capture_features": {
        "a check left out @ super().__init__()*": "an empty dict needs no setting up",
        "an exception without what was given @ *": _WORDS,
        "a step left out @ names = list(names)*": "the contract's names are a list",
        "not copied @ *": "nobody changes the list of names meanwhile",
        "an argument not passed on @ self.handles = *": "the order of other people's hooks is open",
        "the other truth value @ self.handles = *": "the order of other people's hooks is open",
        "multiplied for divided @ self.found[name] = *": "a copy, by one or by zero",
        "sign @ found[name] = *": "a copy, by one or by zero",
    },
    "06.hint_loss": {
        **_MAPS,
        "an exception without what was given @ *": _WORDS,
        "arguments exchanged @ *": "the smaller of two, or a product, is symmetric",
        "the wrong way round @ *": _EVEN,
        "cut off from the gradient @ return matrix*": "a constant matrix",
        "half a condition @ if guess.shape[1] != hint.shape[1]*": "the batches are the same",
        "not converted @ a, b = *": "right in the precision of the input, too",
        "not converted @ size = *": "whole numbers in a tensor are a size, too",
        "not copied @ for s, t in *": "nothing is changed in place",
    },
    "06.HintTrainer": {
        "* @ *guess.shape[side]*": _GIVEN,
        "* @ *size[side]*": _GIVEN,
        "* @ for side in *": _GIVEN,
        "* @ guess, hint = *": _GIVEN,
        "a check left out @ _channels(*": _GIVEN,
        "* @ found[name] = output + 0*": _GIVEN,
        "only the first @  => break": _GIVEN,
        "* @ raise ValueError(f'no layer {name!r}')*": _GIVEN,
        "cleared up only when all goes well @ *": "the contract does not speak of errors",
        "* @ teacher.train(mode)*": "the teacher's mode after the step is left open",
        "* @ self.optimizer.zero_grad(*": "nothing or zero",
        "arguments exchanged @ learned = *": "the order of parameters is left open",
        "left in another state @ *": "`step` sets the modes; that of the regressor is left open",
        "the other mode @ *": "the same in other words, or set anew in each step",
        "not copied @ loss = *": "what is computed from it is an ordinary tensor",
        "not copied @ self.optimizer*": "an optimiser makes a list of what it is given",
        "not detached @ *": "a number, or a hint without a graph",
        "the wrong way round @ loss = *": _EVEN,
        "kept between calls @ self.guided, self.hint, self.lr = *self).lr = *": (
            "the step size is in the optimiser already"
        ),
        "too much let through @ *": "the contract: every parameter of student and regressor",
        "two steps exchanged @ *": "the two do not depend on each other",
    },
    "06.attention_loss": {
        **_MAPS,
        "* @ if power < 1:*": "the power is 2 here",
        "*exception* @ raise ValueError(f'power must*": "the power is 2 here",
        "* @ energy = wide.square() if *": "the power is 2 here, and both branches square",
        "* @  => power = 2.0": "the power is 2 here",
        "* @ wide = wide / peak*": _CANCELS,
        "* @ peak = *": _CANCELS,
        "* @ wide = features.float() if *": "float16 is not in the contract",
        "mean for sum @ *": _CANCELS,
        "sum for mean @ *": _CANCELS,
        "* @ return square[apart]*0.0 * s.sum()*": "zero, for the graph alone",
        "divided by another number of entries @ return square[apart]*": "one number per image",
        "an argument not passed on @ *p=2*": "2 is the default",
        "an argument not passed on @ return F.pairwise_distance(*": _FLOOR,
        "another number @ *": _FLOOR,
        "at the boundary @ tiny = *": _FLOOR,
        "arguments exchanged @ *": _EVEN,
        "the wrong way round @ *": _EVEN,
        "dimension not kept @ *": "flattened in the next step, or a matrix for each image in both",
        "not copied @ if tuple(*": "torch compares sizes, too",
    },
    "06.fsp_matrix": {
        **_MAPS,
        "a check left out @ _batches(*": "a strict zip refuses the two lengths, too",
        "an exception without what was given @ *": _WORDS,
        "arguments exchanged @ return a @ *": "the order of two axes to be exchanged",
        "arguments exchanged @ *": "the smaller of two is symmetric",
        "not converted @ a, b = *": "right in the precision of the input, too",
        "not converted @ size = *": "whole numbers in a tensor are a size, too",
        "one more or one less @ if first.shape[*": "pooling to its own size changes nothing",
    },
    "06.SimKDStudent": {
        "* @ self.train(self.training)*": "in which mode a student starts is left open",
        "* @ self.training = mode*": "the contract speaks of encoder's and projector's mode",
        "* @ teacher_head.eval()*": "a copy answers; the mode of the teacher's own is left open",
        "cut off from the gradient @  => images = *": "images learn nothing",
        "half a condition @ module.train(mode and *": "`forward` sets the head before it answers",
        "only the first @  => break": "`forward` sets the head before it answers",
        "the loop ends too early @ *": "`forward` sets the head before it answers",
        "the other mode @ self.call = *": "`forward` sets the head before it answers",
        "the other mode @ *train(False)*": "the same in other words",
        "left in another state @ *": "in which mode the rest starts is left open",
        "not copied @ *": "the teacher's head may be used itself",
    },
}
