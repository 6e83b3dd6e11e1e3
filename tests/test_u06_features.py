"""Unit 06: parity with the papers and with torchdistill, properties, errors, evidence."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn
from torch.autograd import gradcheck

from kdlib import evidence
from kdlib.losses import features
from kdlib.models import FashionTeacher, ThinDeep, load_teacher, seeded

CLOSE = {"rtol": 1e-10, "atol": 1e-10}


def maps(seed, *shape):
    g = torch.Generator().manual_seed(seed)
    return torch.randn(*shape, generator=g, dtype=torch.float64) + 0.3


def conv(channels, out, seed=0):
    return seeded(seed, nn.Conv2d, channels, out, 1).double()


def equal(ours, theirs):
    np.testing.assert_allclose(ours.detach().numpy(), np.asarray(theirs), **CLOSE)


def numpy_hint(s, t, weight, bias):
    """Romero et al.: half the squared norm, mean over images; blocks averaged down."""

    def shrink(x, h, w):
        n, c, big_h, big_w = x.shape
        return x.reshape(n, c, h, big_h // h, w, big_w // w).mean(axis=(3, 5))

    guess = np.einsum("dc,nchw->ndhw", weight[:, :, 0, 0], s) + bias[None, :, None, None]
    h, w = (min(guess.shape[i], t.shape[i]) for i in (2, 3))
    return np.mean([0.5 * np.sum(d**2) for d in shrink(guess, h, w) - shrink(t, h, w)])


def numpy_attention(s, t):
    """Zagoruyko and Komodakis, equation 2 with p = 2, for one pair of layers."""

    def look(x):
        q = (x**2).sum(axis=1).reshape(len(x), -1)
        return q / np.linalg.norm(q, axis=1, keepdims=True)

    return np.linalg.norm(look(s) - look(t), axis=1).mean()


def numpy_fsp(a, b):
    """Yim et al., equation 1, one entry at a time."""
    n, m, h, w = a.shape
    found = np.zeros((n, m, b.shape[1]))
    for i in range(m):
        for j in range(b.shape[1]):
            found[:, i, j] = (a[:, i] * b[:, j]).sum(axis=(1, 2)) / (h * w)
    return found


@pytest.mark.parametrize("seed", range(3))
class TestAgainstThePapers:
    @pytest.mark.parametrize(("s", "t"), [((6, 7), (6, 7)), ((8, 8), (4, 4)), ((4, 3), (8, 6))])
    def test_hint_loss(self, seed, s, t):
        student, teacher = maps(seed, 5, 3, *s), maps(seed + 10, 5, 4, *t)
        regressor = conv(3, 4, seed)
        weight, bias = (p.detach().numpy() for p in (regressor.weight, regressor.bias))
        ours = features.hint_loss(student, teacher, regressor)
        equal(ours, numpy_hint(student.numpy(), teacher.numpy(), weight, bias))

    def test_attention_loss(self, seed):
        student, teacher = maps(seed, 5, 3, 4, 5), maps(seed + 10, 5, 6, 4, 5)
        ours = features.attention_loss(student, teacher)
        equal(ours, numpy_attention(student.numpy(), teacher.numpy()))

    def test_fsp(self, seed):
        pair = [maps(seed + i, 5, 3 + i, 6, 7) for i in (0, 1)]
        other = [maps(seed + 10 + i, 5, 3 + i, 6, 7) for i in (0, 1)]
        mine, theirs = (numpy_fsp(*(x.numpy() for x in p)) for p in (pair, other))
        equal(features.fsp_matrix(*pair), mine)
        equal(features.fsp_loss(pair, other), ((mine - theirs) ** 2).sum(axis=(1, 2)).mean())


PAIRS = {"one": {k: {"path": k[0], "io": "output"} for k in ("student", "teacher")}}


class TestAgainstTorchdistill:
    def test_attention(self):
        ATLoss = pytest.importorskip("torchdistill.losses.mid_level").ATLoss

        s, t = maps(0, 5, 3, 4, 5).requires_grad_(True), maps(1, 5, 6, 4, 5)
        io = {"s": {"output": s}}, {"t": {"output": t}}
        ours, theirs = features.attention_loss(s, t), ATLoss(PAIRS, mode="paper")(*io)
        equal(ours, theirs.detach())
        equal(*(torch.autograd.grad(x, s, retain_graph=True)[0] for x in (ours, theirs)))

    def test_its_default_attention_is_the_authors_code_not_the_paper(self):
        """Mode 'code' averages squares over images and positions."""
        ATLoss = pytest.importorskip("torchdistill.losses.mid_level").ATLoss

        s, t = maps(0, 5, 3, 4, 5), maps(1, 5, 6, 4, 5)
        theirs = ATLoss(PAIRS)({"s": {"output": s}}, {"t": {"output": t}})
        difference = features.attention_map(s) - features.attention_map(t)
        equal(theirs, difference.square().mean())
        assert not torch.isclose(theirs, features.attention_loss(s, t), rtol=0.1)

    @pytest.mark.parametrize("sizes", [((6, 7), (6, 7)), ((8, 6), (4, 3)), ((4, 3), (8, 6))])
    def test_fsp_matrix(self, sizes):
        FSPLoss = pytest.importorskip("torchdistill.losses.mid_level").FSPLoss

        first, second = maps(0, 5, 3, *sizes[0]), maps(1, 5, 4, *sizes[1])
        equal(features.fsp_matrix(first, second), FSPLoss.compute_fsp_matrix(first, second))

    def test_its_fsp_loss_is_not_the_papers(self):
        """It sums the lengths of columns; equation 2 squares the norm of the whole matrix."""
        FSPLoss = pytest.importorskip("torchdistill.losses.mid_level").FSPLoss

        names = "student_first", "student_second", "teacher_first", "teacher_second"
        pairs = {"one": {n: {"path": n, "io": "output"} for n in names}}
        x = {n: maps(i, 5, 3 + i % 2, 4, 4) for i, n in enumerate(names)}
        io = {n: {"output": v} for n, v in x.items()}
        theirs = FSPLoss(pairs)(io, io)
        gap = features.fsp_matrix(x[names[0]], x[names[1]]) - features.fsp_matrix(
            x[names[2]], x[names[3]]
        )
        equal(theirs, gap.norm(dim=1).sum() / 5)
        ours = features.fsp_loss((x[names[0]], x[names[1]]), (x[names[2]], x[names[3]]))
        equal(ours, gap.square().sum() / 5)

    def test_hint_is_a_multiple_of_its_mse(self):
        SimpleLossWrapper = pytest.importorskip("torchdistill.losses.mid_level").SimpleLossWrapper

        s, t = maps(0, 5, 4, 6, 7), maps(1, 5, 4, 6, 7)
        wrapped = SimpleLossWrapper(
            nn.MSELoss(),
            input={"is_from_teacher": False, "module_path": "s", "io": "output"},
            target={"is_from_teacher": True, "module_path": "t", "io": "output"},
        )
        theirs = wrapped({"s": {"output": s}}, {"t": {"output": t}}, None)
        equal(features.hint_loss(s, t, nn.Identity()), theirs * 4 * 6 * 7 / 2)


shapes = st.tuples(st.integers(1, 4), st.integers(1, 5), st.integers(1, 6), st.integers(1, 6))
numbers = st.floats(-1e3, 1e3, width=32)


@st.composite
def feature_maps(draw, same_channels=False):
    n, c, h, w = draw(shapes)
    other = c if same_channels else draw(st.integers(1, 5))
    seed = draw(st.integers(0, 10_000))
    scale = draw(st.sampled_from([1e-3, 1.0, 1e3]))
    return scale * maps(seed, n, c, h, w), maps(seed + 1, n, other, h, w)


class TestProperties:
    @settings(max_examples=60)
    @given(feature_maps(), st.floats(1e-2, 1e2))
    def test_attention_is_bounded_and_blind_to_scale(self, pair, factor):
        s, t = pair
        loss = features.attention_loss(s, t)
        assert -1e-12 <= loss <= 2**0.5 + 1e-9
        torch.testing.assert_close(loss, features.attention_loss(factor * s, t))
        torch.testing.assert_close(loss, features.attention_loss(t, s))
        assert features.attention_loss(s, s) == 0

    @settings(max_examples=60)
    @given(feature_maps(), st.randoms(use_true_random=False))
    def test_attention_is_blind_to_the_order_of_channels(self, pair, random):
        s, t = pair
        order = list(range(s.shape[1]))
        random.shuffle(order)
        torch.testing.assert_close(
            features.attention_loss(s, t), features.attention_loss(s[:, order], t)
        )

    @settings(max_examples=60)
    @given(feature_maps())
    def test_fsp_turns_round_with_its_arguments(self, pair):
        a, b = pair
        torch.testing.assert_close(features.fsp_matrix(a, b), features.fsp_matrix(b, a).mT)

    @settings(max_examples=60)
    @given(feature_maps(same_channels=True))
    def test_hint_is_a_distance_and_ignores_duplication(self, pair):
        s, t = pair
        once = features.hint_loss(s, t, nn.Identity())
        assert once >= 0
        assert features.hint_loss(s, s, nn.Identity()) == 0
        twice = features.hint_loss(torch.cat([s, s]), torch.cat([t, t]), nn.Identity())
        torch.testing.assert_close(once, twice)

    @settings(max_examples=40)
    @given(feature_maps(), st.floats(1, 8))
    def test_maps_have_length_one(self, pair, power):
        length = features.attention_map(pair[0], power).flatten(1).norm(dim=1)
        torch.testing.assert_close(length, torch.ones_like(length))

    @pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32])
    @pytest.mark.parametrize("scale", [1e-4, 1.0, 1e4])
    def test_no_dtype_overflows(self, dtype, scale):
        s = (scale * maps(0, 2, 3, 4, 4)).to(dtype)
        exact = features.attention_map(s.double())
        found = features.attention_map(s)
        assert found.dtype == torch.float32
        torch.testing.assert_close(found.double(), exact, rtol=1e-4, atol=1e-4)

    def test_gradients_are_right(self):
        s, t = maps(0, 2, 2, 3, 3).requires_grad_(True), maps(1, 2, 3, 3, 3)
        regressor = conv(2, 3)
        assert gradcheck(lambda x: features.hint_loss(x, t, regressor), (s,))
        assert gradcheck(lambda x: features.attention_loss(x, t), (s,))
        assert gradcheck(lambda x: features.fsp_matrix(x, t), (s,))

    def test_silent_layers_and_equal_maps_have_finite_gradients(self):
        s, t = torch.zeros(2, 3, 4, 4, dtype=torch.float64), maps(0, 2, 3, 4, 4)
        s.requires_grad_(True)
        for teacher in (t, torch.zeros_like(t)):
            (found,) = torch.autograd.grad(features.attention_loss(s, teacher), s)
            assert found.isfinite().all()
        same = t.clone().requires_grad_(True)
        (found,) = torch.autograd.grad(features.attention_loss(same, t), same)
        assert found.abs().max() == 0


class TestHooks:
    def test_the_network_is_as_before(self):
        model = seeded(0, ThinDeep).eval()
        images = torch.randn(2, 1, 14, 14)
        before = model(images)
        try:
            with features.capture_features(model, ["stages.1"]) as seen:
                assert torch.equal(model(images), before)
                assert seen["stages.1"].requires_grad
                raise KeyError
        except KeyError:
            pass
        assert not any(m._forward_hooks for m in model.modules())

    def test_shapes_of_the_stages_fit_the_teacher(self):
        student, teacher = seeded(0, ThinDeep), FashionTeacher()
        with (
            features.capture_features(student, [f"stages.{i}" for i in range(3)]) as mine,
            features.capture_features(teacher, [f"features.{i}" for i in (5, 11, 17)]) as theirs,
        ):
            student(torch.zeros(2, 1, 14, 14))
            teacher(torch.zeros(2, 1, 14, 14))
        for a, b, side in zip(mine.values(), theirs.values(), (14, 7, 4), strict=True):
            assert a.shape[2:] == b.shape[2:] == (side, side)
            assert 4 * a.shape[1] == b.shape[1]


class TestWhatLearns:
    def test_hint_trainer_moves_student_and_regressor_only(self):
        student, teacher = seeded(0, ThinDeep), load_teacher()
        regressor = nn.Conv2d(16, 64, 1)
        trainer = features.HintTrainer(student, teacher, regressor, "stages.1", "features.11")
        before = [
            {k: v.clone() for k, v in m.state_dict().items()} for m in (student, regressor, teacher)
        ]
        losses = [trainer.step(torch.randn(8, 1, 14, 14)) for _ in range(2)]
        assert all(type(x) is float for x in losses)
        moved = [
            {k for k, v in m.state_dict().items() if not torch.equal(v, old[k])}
            for m, old in zip((student, regressor, teacher), before, strict=True)
        ]
        assert moved[1] == {"weight", "bias"}
        assert moved[2] == set()
        assert any(k.startswith("stages.1") for k in moved[0])
        assert not any(k.startswith("head") for k in moved[0])

    def test_simkd_with_the_teachers_features_is_the_teacher(self):
        teacher, images = load_teacher(), torch.randn(4, 1, 14, 14)
        copy = features.SimKDStudent(load_teacher().features, nn.Identity(), load_teacher().head)
        copy.train().encoder.eval()
        torch.testing.assert_close(copy(images), teacher(images))
        assert not copy.teacher_head.training
        assert not any(p.requires_grad for p in copy.teacher_head.parameters())


X = maps(0, 2, 3, 4, 4)
SAME = nn.Identity()


@pytest.mark.parametrize(
    ("call", "words"),
    [
        (lambda: features.hint_loss(X[..., 0], X, SAME), "student_features must have shape"),
        (lambda: features.hint_loss(X, maps(0, 2, 5, 4, 4), SAME), r"\(2, 5\).*got \(2, 3\)"),
        (lambda: features.attention_loss(X, X[..., :3]), "same shape"),
        (lambda: features.attention_loss(X, X[:1]), "same shape"),
        (lambda: features.attention_map(X, 0.5), "power must be at least 1, got 0.5"),
        (lambda: features.fsp_matrix(X[:1], X), "got 1, 2"),
        (lambda: features.fsp_matrix(X[:0], X[:0]), "first must have"),
        (lambda: features.fsp_loss((X, X), (X[:, :2], X)), "same shape"),
    ],
)
def test_bad_input_is_named(call, words):
    with pytest.raises(ValueError, match=words):
        call()


def test_an_unknown_layer_is_named():
    with (
        pytest.raises(ValueError, match=r"no layer 'stages\.7'"),
        features.capture_features(ThinDeep(), ["stages.0", "stages.7"]),
    ):
        pass


class TestEvidence:
    stored = None

    @pytest.fixture(autouse=True)
    def load(self):
        self.stored = evidence.load("u06_features")

    def test_every_arm_has_every_seed(self):
        for regime, arms in self.stored["results"].items():
            seeds = 10 if "labels" in regime else 5
            for arm, entry in arms.items():
                assert len(entry["accuracy"]) == seeds, (regime, arm)
                assert arm == "labels alone" or "accuracy_difference" in entry

    def test_headlines_come_from_the_results(self):
        intervals = [
            value
            for arms in self.stored["results"].values()
            for entry in arms.values()
            for value in entry.values()
            if len(value) == 3
        ]
        assert self.stored["headlines"]
        for row in self.stored["headlines"]:
            assert any(np.allclose(row["interval"], found) for found in intervals), row["claim"]

    def test_the_forgotten_regressor_leaves_a_higher_hint_loss(self):
        held, left_out = (self.stored["hint_losses"][k] for k in ("held", "left out"))
        assert len(held) == len(left_out) == self.stored["hint_steps"]
        assert held[-1] < left_out[-1]
