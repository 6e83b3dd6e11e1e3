"""What a network computes on the way to its logits, and losses that compare it.

Feature maps are (B, C, H, W). The teacher is a constant everywhere: no gradient reaches
`teacher_features`. Reductions are means over the images of a batch.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import contextmanager

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from kdlib.errors import require_same_shape, require_tensor
from kdlib.seal import reference

__all__ = [
    "HintTrainer",
    "SimKDStudent",
    "attention_loss",
    "attention_map",
    "capture_features",
    "fsp_loss",
    "fsp_matrix",
    "hint_loss",
]


def _require_maps(value: Tensor, name: str) -> None:
    require_tensor(value, name)
    if value.dim() != 4 or value.numel() == 0:
        raise ValueError(f"{name} must have shape (B, C, H, W), got {tuple(value.shape)}")


@reference("06.capture_features")
@contextmanager
def capture_features(model: nn.Module, names: Iterable[str]) -> Iterator[dict[str, Tensor]]:
    """Give the outputs of named layers while a `with` block lasts.

    After each forward pass the dict holds that pass's outputs, with their graph, as they left the
    layer (a copy, so that an in-place layer that follows does no harm). The hooks are gone after
    the block, whether it ends well or not.

    Args:
        model: any network.
        names: of layers, as `model.named_modules()` spells them.

    Yields:
        A dict from each name to the layer's output; empty before the first forward pass.

    Raises:
        ValueError: the model has no layer of that name.
    """
    layers = dict(model.named_modules())
    names = list(names)
    if unknown := [name for name in names if name not in layers]:
        raise ValueError(f"the model has no layer {unknown[0]!r}")
    found: dict[str, Tensor] = {}

    def keep(name: str):
        def hook(module, inputs, output):
            found[name] = output.clone()

        return hook

    handles = [layers[name].register_forward_hook(keep(name)) for name in names]
    try:
        yield found
    finally:
        for handle in handles:
            handle.remove()


@reference("06.hint_loss")
def hint_loss(student_features: Tensor, teacher_features: Tensor, regressor: nn.Module) -> Tensor:
    """Half the squared distance of the teacher's hint and the regressed student features.

    L = 1/2 ||u_h(x) - r(v_g(x))||^2,   mean over images

    Romero et al. 2015, arXiv 1412.6550 (hint-based training). Where the maps differ in height or
    width, the larger side is averaged down to the smaller one.

    Args:
        student_features: v_g, `(B, C_s, H, W)`.
        teacher_features: u_h, `(B, C_t, H', W')`, a constant.
        regressor: `(B, C_s, H, W) -> (B, C_t, ., .)`; learns together with the student.

    Returns:
        A scalar, in squared units of the teacher's features.

    Raises:
        ValueError: not (B, C, H, W), batches that differ, or a regressor that does not give the
            teacher's channels.
    """
    _require_maps(student_features, "student_features")
    _require_maps(teacher_features, "teacher_features")
    guess, hint = regressor(student_features), teacher_features.detach()
    if guess.shape[:2] != hint.shape[:2]:
        raise ValueError(
            f"the regressor must give images and channels {tuple(hint.shape[:2])}, as "
            f"teacher_features; got {tuple(guess.shape[:2])}"
        )
    size = [min(a, b) for a, b in zip(guess.shape[2:], hint.shape[2:], strict=True)]
    guess, hint = (F.adaptive_avg_pool2d(x, size) for x in (guess, hint))
    return 0.5 * (guess - hint).square().sum(dim=(1, 2, 3)).mean()


def attention_map(features: Tensor, power: float = 2.0) -> Tensor:
    """Where a layer is active: the mean over channels of |F|^p, each image's map of length one.

    Q = vec(mean_c |F_c|^p),   Q / ||Q||_2

    Zagoruyko and Komodakis 2017, arXiv 1612.03928 (with a sum over channels, which is the same
    after normalisation).

    Args:
        features: `(B, C, H, W)`.
        power: p, at least 1.

    Returns:
        `(B, H, W)`; a map that is zero everywhere stays zero.

    Raises:
        ValueError: not (B, C, H, W), or power < 1.
    """
    _require_maps(features, "features")
    if power < 1:
        raise ValueError(f"power must be at least 1, got {power}")
    half = features.dtype in (torch.float16, torch.bfloat16)
    wide = features.float() if half else features
    # a factor cancels, so divide by the largest entry first: no square is too small or too large
    peak = wide.detach().abs().amax(dim=(1, 2, 3), keepdim=True)
    wide = wide / peak.clamp_min(torch.finfo(wide.dtype).tiny)
    energy = wide.square() if power == 2 else wide.abs().pow(power)
    return F.normalize(energy.mean(dim=1).flatten(1), dim=1).unflatten(1, features.shape[2:])


@reference("06.attention_loss")
def attention_loss(student_features: Tensor, teacher_features: Tensor) -> Tensor:
    """Distance of the two attention maps (p = 2), mean over images.

    L = || Q_s / ||Q_s||_2 - Q_t / ||Q_t||_2 ||_2,   Q = vec(mean_c F_c^2)

    Zagoruyko and Komodakis 2017, arXiv 1612.03928, equation 2, for one pair of layers and without
    its factor beta/2. The authors' code averages squares over all entries instead
    (szagoruyko/attention-transfer #34).

    Args:
        student_features: `(B, C_s, H, W)`.
        teacher_features: `(B, C_t, H, W)`, a constant.

    Returns:
        A scalar between 0 and sqrt(2), without a unit.

    Raises:
        ValueError: batch, height or width differ.
    """
    _require_maps(student_features, "student_features")
    _require_maps(teacher_features, "teacher_features")
    student, teacher = attention_map(student_features), attention_map(teacher_features.detach())
    require_same_shape(student, teacher, ("the student's map", "the teacher's map"))
    return torch.linalg.vector_norm((student - teacher).flatten(1), dim=1).mean()


@reference("06.fsp_matrix")
def fsp_matrix(first: Tensor, second: Tensor) -> Tensor:
    """How the channels of two layers go together, for each image.

    G[i, j] = 1/(h w) sum_{s,t} F1[i, s, t] F2[j, s, t]

    Yim, Joo, Bae, Kim, CVPR 2017, equation 1. Where the maps differ in size the larger one is
    max-pooled to the smaller.

    Args:
        first: `(B, C1, H, W)`.
        second: `(B, C2, H', W')`.

    Returns:
        `(B, C1, C2)`.

    Raises:
        ValueError: not (B, C, H, W), or batches that differ.
    """
    _require_maps(first, "first")
    _require_maps(second, "second")
    if len(first) != len(second):
        raise ValueError(
            f"first and second must have as many images, got {len(first)}, {len(second)}"
        )
    size = [min(a, b) for a, b in zip(first.shape[2:], second.shape[2:], strict=True)]
    a, b = (F.adaptive_max_pool2d(x, size).flatten(2) for x in (first, second))
    return a @ b.transpose(1, 2) / a.shape[-1]


def fsp_loss(student_pair: tuple[Tensor, Tensor], teacher_pair: tuple[Tensor, Tensor]) -> Tensor:
    """Squared distance of the two networks' FSP matrices, mean over images.

    L = ||G_t - G_s||^2_2   (sum over entries)

    Yim, Joo, Bae, Kim, CVPR 2017, equation 2, for one pair of layers. There is no regressor, so
    both networks need the same channels in these layers.

    Args:
        student_pair: two feature maps, `(B, C1, ., .)` and `(B, C2, ., .)`.
        teacher_pair: as many channels; a constant.

    Returns:
        A scalar.

    Raises:
        ValueError: the matrices differ in shape.
    """
    student = fsp_matrix(*student_pair)
    teacher = fsp_matrix(*(x.detach() for x in teacher_pair))
    require_same_shape(student, teacher, ("the student's FSP matrix", "the teacher's FSP matrix"))
    return (student - teacher).square().sum(dim=(1, 2)).mean()


class SimKDStudent(nn.Module):
    """A student that ends in its teacher's classifier (Chen et al. 2022, arXiv 2203.14001).

    logits = head_t(P(f_s(x))),   trained by L = ||f_t - P(f_s)||_2^2 alone

    The head is the teacher's own: frozen, always in eval mode, and open to gradient.

    Args:
        encoder: f_s, images to features.
        projector: P, the student's features to the shape of the teacher's.
        teacher_head: what the teacher does after those features.
    """

    @reference("06.SimKDStudent")
    def __init__(self, encoder: nn.Module, projector: nn.Module, teacher_head: nn.Module) -> None:
        super().__init__()
        self.encoder, self.projector = encoder, projector
        self.teacher_head = teacher_head.requires_grad_(False).eval()

    def train(self, mode: bool = True) -> SimKDStudent:
        """Switch encoder and projector; the head stays in eval mode."""
        super().train(mode)
        self.teacher_head.eval()
        return self

    def features(self, images: Tensor) -> Tensor:
        """Give the projected features, to be compared with the teacher's."""
        return self.projector(self.encoder(images))

    def forward(self, images: Tensor) -> Tensor:
        """Give the logits."""
        return self.teacher_head(self.features(images))


class HintTrainer:
    """Train a student's lower part on a teacher's hint: FitNets' first stage.

    Romero et al. 2015, arXiv 1412.6550. The optimiser (Adam) holds every parameter of
    the student and of the regressor that learns, once, and none of the teacher's.

    Args:
        student: the network that learns.
        teacher: a constant.
        regressor: the guided layer's channels to the hint's.
        guided: name of the student's layer.
        hint: name of the teacher's layer.
        lr: Adam's step size.
    """

    @reference("06.HintTrainer")
    def __init__(
        self,
        student: nn.Module,
        teacher: nn.Module,
        regressor: nn.Module,
        guided: str,
        hint: str,
        lr: float = 2e-3,
    ) -> None:
        self.student, self.teacher, self.regressor = student, teacher, regressor
        self.guided, self.hint = guided, hint
        parameters = [*student.parameters(), *regressor.parameters()]
        self.optimizer = torch.optim.Adam([p for p in parameters if p.requires_grad], lr)

    def step(self, inputs: Tensor) -> float:
        """Update student and regressor once; give the hint loss before the update."""
        self.student.train()
        self.teacher.eval()
        with (
            capture_features(self.student, [self.guided]) as student,
            capture_features(self.teacher, [self.hint]) as teacher,
        ):
            self.student(inputs)
            with torch.no_grad():
                self.teacher(inputs)
        loss = hint_loss(student[self.guided], teacher[self.hint], self.regressor)
        self.optimizer.zero_grad()
        loss.backward()
        self.optimizer.step()
        return loss.item()
