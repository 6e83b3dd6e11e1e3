"""Data, teachers, networks, training and evaluation."""

import math
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from kdlib import assets, evidence, profile
from kdlib.data import digits, fashion_mnist
from kdlib.evaluation import (
    accuracy,
    agreement,
    ece,
    fit_temperature,
    model_size,
    near_misses,
    nll,
    paired_interval,
    predict,
    predictive_kl,
    reliability_bins,
)
from kdlib.models import CNN, MLP, load_teacher, seeded, teacher_info
from kdlib.recipes.fashion_data import DEBIAN, originals, subset
from kdlib.training import TeacherCache, distill_step, fit


class TestData:
    def test_shapes_and_balance(self):
        train, test = fashion_mnist(), fashion_mnist(train=False)
        assert train.inputs.shape == (20_000, 1, 14, 14)
        assert test.inputs.shape == (10_000, 1, 14, 14)
        assert train.targets.bincount().tolist() == [2000] * 10
        assert abs(train.inputs.mean()) < 0.05
        assert len(test.class_names) == 10

    def test_a_subset_depends_on_its_seed_alone(self):
        a, b, c = (fashion_mnist(n=50, seed=s).inputs for s in (1, 1, 2))
        assert torch.equal(a, b)
        assert not torch.equal(a, c)
        with pytest.raises(ValueError, match=r"n must lie in 1\.\.20000, got 20001"):
            fashion_mnist(n=20_001)

    def test_digits_do_not_overlap(self):
        train, test = digits(), digits(train=False)
        assert (len(train.targets), len(test.targets)) == (1200, 597)
        assert train.inputs.shape[1:] == (1, 8, 8)
        both = torch.cat([train.inputs, test.inputs]).flatten(1)
        assert len(both.unique(dim=0)) == 1797
        share = train.targets.bincount() / (train.targets.bincount() + test.targets.bincount())
        assert (share - 1200 / 1797).abs().max() < 0.005

    @pytest.mark.skipif(not DEBIAN.exists(), reason="needs Debian's dataset-fashion-mnist")
    def test_the_recipe_makes_what_ships(self):
        with np.load(assets.verified("fashion_mnist_14.npz")) as file:
            images, targets = subset(*originals(DEBIAN, "train"))
            assert np.array_equal(file["train_images"], images.numpy())
            assert np.array_equal(file["train_targets"], targets.numpy())
            assert np.array_equal(file["test_images"], originals(DEBIAN, "t10k")[0].numpy())

    @pytest.mark.skipif(not DEBIAN.exists(), reason="needs Debian's dataset-fashion-mnist")
    def test_torchvision_gives_the_same_pixels(self, tmp_path):
        raw = tmp_path / "FashionMNIST" / "raw"
        raw.mkdir(parents=True)
        import gzip

        for file in DEBIAN.glob("*.gz"):
            (raw / file.stem).write_bytes(gzip.decompress(file.read_bytes()))
        for train in (True, False):
            theirs = fashion_mnist(train, source="torchvision", root=tmp_path, download=False)[:2]
            assert len(theirs[0]) == (60_000 if train else 10_000)
            for a, b in zip(
                subset(*theirs) if train else theirs, fashion_mnist(train), strict=False
            ):
                assert torch.equal(a, b)

    def test_damage_is_noticed(self, tmp_path, monkeypatch):
        shutil.copytree(assets.FOLDER, tmp_path / "a")
        monkeypatch.setattr(assets, "FOLDER", tmp_path / "a")
        assets.verified.cache_clear()
        with (tmp_path / "a" / "fashion_cnn.safetensors").open("ab") as file:
            file.write(b"x")
        with pytest.raises(ValueError, match="damaged"):
            load_teacher()
        (tmp_path / "a" / "fashion_cnn.safetensors").unlink()
        with pytest.raises(FileNotFoundError, match="missing"):
            load_teacher()
        assets.verified.cache_clear()

    def test_everything_that_ships_is_small_and_in_the_manifest(self):
        files = [f for f in assets.FOLDER.glob("*.*") if f.suffix not in (".py", ".json")]
        assert {f.name for f in files} == set(assets.manifest())
        assert max(f.stat().st_size for f in files) < 8e6
        assert sum(f.stat().st_size for f in assets.FOLDER.rglob("*") if f.is_file()) < 25e6


class TestTeacher:
    def test_reaches_the_accuracy_it_states(self):
        test, teacher = fashion_mnist(train=False), load_teacher()
        found = accuracy(predict(teacher, test.inputs), test.targets)
        assert abs(found - teacher_info()["accuracy"]) < 5e-4
        assert found >= 0.91

    def test_is_a_constant(self):
        teacher = load_teacher()
        assert not teacher.training
        assert not any(p.requires_grad for p in teacher.parameters())
        with pytest.raises(ValueError, match="no teacher 'x'"):
            load_teacher("x")


class TestTraining:
    def test_the_same_seed_gives_the_same_student_and_leaves_chance_alone(self):
        data = fashion_mnist(n=200)
        state = torch.get_rng_state()
        students = [seeded(3, CNN, 4) for _ in range(2)]
        for student in students:
            fit(student, data.inputs, data.targets, steps=5, seed=1)
        assert torch.equal(state, torch.get_rng_state())
        for a, b in zip(students[0].parameters(), students[1].parameters(), strict=True):
            assert torch.equal(a, b)

    def test_it_learns_from_labels_teacher_and_both(self):
        data = fashion_mnist(n=500)
        logits = predict(load_teacher(), data.inputs)
        for how in (
            {"targets": data.targets},
            {"teacher_logits": logits},
            {"targets": data.targets, "teacher_logits": logits},
        ):
            student = seeded(0, MLP)
            fit(student, data.inputs, steps=200, **how)
            assert accuracy(predict(student, data.inputs), data.targets) > 0.7

    @pytest.mark.parametrize(
        ("how", "words"),
        [
            ({}, "got neither"),
            ({"targets": torch.zeros(3, dtype=torch.long)}, "targets must have 100 rows"),
            ({"targets": torch.full((100,), 10)}, r"targets must lie in 0\.\.9"),
            ({"teacher_logits": torch.full((100, 10), math.nan)}, "teacher_logits must be finite"),
            (
                # the one bad label is in none of the batches that are trained on
                {"targets": torch.arange(100) // 99 * 10, "batch_size": 1, "seed": 0},
                r"targets must lie in 0\.\.9",
            ),
            ({"targets": torch.zeros(100, dtype=torch.long), "batch_size": 101}, "batch_size"),
            ({"targets": torch.zeros(100, dtype=torch.long), "steps": 0}, "got 0 and 0.002"),
            (
                {"teacher_logits": torch.zeros(100, 10), "label_smoothing": 0.1},
                "label_smoothing is for the cross-entropy loss alone",
            ),
            ({"teacher_logits": torch.zeros(100, 9)}, r"same shape, got .*9.* and .*10"),
            (
                {"targets": torch.zeros(100, dtype=torch.long), "loss_fn": lambda z, v, y: z},
                "scalar",
            ),
        ],
    )
    def test_bad_input_is_named_early(self, how, words):
        with pytest.raises(ValueError, match=words):
            fit(seeded(0, MLP), torch.zeros(100, 1, 14, 14), **{"steps": 2, **how})

    def test_a_loss_that_is_nan_says_where(self):
        y = torch.zeros(100, dtype=torch.long)
        with pytest.raises(FloatingPointError, match="at step 0"):
            fit(
                seeded(0, MLP),
                torch.zeros(100, 1, 14, 14),
                y,
                loss_fn=lambda z, v, y: z.sum() * float("nan"),
            )


class TestEvaluation:
    def test_against_scipy_and_by_hand(self):
        from scipy import stats

        a, b = [3.0, 4.0, 6.0, 5.5], [2.0, 3.5, 4.0, 5.0]
        found = paired_interval(a, b)
        theirs = stats.ttest_rel(a, b).confidence_interval(0.95)
        assert found.low == pytest.approx(theirs.low)
        assert found.high == pytest.approx(theirs.high)
        assert str(found).startswith("+1.00 [")
        with pytest.raises(ValueError, match="at least 2 pairs"):
            paired_interval([1.0], [2.0])

    def test_the_interval_covers_as_often_as_it_says(self):
        g = torch.Generator().manual_seed(0)
        hits = 0
        for _ in range(1000):
            d = torch.randn(5, generator=g, dtype=torch.float64).tolist()
            interval = paired_interval(d, [0.0] * 5)
            hits += interval.low <= 0 <= interval.high
        assert 930 <= hits <= 970

    def test_nll_accuracy_agreement(self):
        z = torch.tensor([[2.0, 0.0], [0.0, 1.0]])
        y = torch.tensor([0, 0])
        expected = (math.log1p(math.exp(-2)) + math.log1p(math.exp(1))) / 2
        assert nll(z, y) == pytest.approx(expected)
        assert accuracy(z, y) == 0.5
        assert agreement(z, -z) == 0
        assert predictive_kl(z, z) == 0

    def test_ece_of_a_calibrated_and_of_a_boastful_model(self):
        g = torch.Generator().manual_seed(0)
        z = torch.randn(40_000, 5, generator=g)
        y = torch.multinomial(z.softmax(-1), 1, generator=g).flatten()
        assert ece(z, y) < 0.012
        assert ece(5 * z, y) > 0.2
        assert reliability_bins(z, y, 10).count.sum() == 40_000
        assert fit_temperature(3 * z, y) == pytest.approx(3.0, rel=0.05)

    def test_model_size_and_predict_keep_the_mode(self):
        model = nn.Sequential(nn.Linear(3, 2), nn.Dropout(0.5)).train()
        assert model_size(model) == (8, 32)
        predict(model, torch.zeros(4, 3))
        assert model.training
        with pytest.raises(ValueError, match="at least one example"):
            predict(model, torch.zeros(0, 3))


class TestDistill:
    def test_a_step_lowers_the_loss(self):
        data = fashion_mnist(n=64)
        student, teacher = seeded(0, CNN, 8), load_teacher()
        optimizer = torch.optim.AdamW(student.parameters(), 1e-2)
        seen = [distill_step(student, teacher, *data[:2], optimizer) for _ in range(15)]
        assert seen[-1] < seen[0]

    def test_cache_errors(self):
        with pytest.raises(ValueError, match="at least one"):
            TeacherCache(nn.Identity(), torch.zeros(0, 2))
        cache = TeacherCache(nn.Identity(), torch.zeros(4, 2))
        with pytest.raises(IndexError, match=r"0\.\.3"):
            cache[torch.tensor([4])]
        assert cache[torch.tensor([], dtype=torch.long)].shape == (0, 2)

    def test_near_misses_needs_every_class(self):
        with pytest.raises(ValueError, match=r"got none of \[1\]"):
            near_misses(torch.zeros(2, 2), torch.tensor([0, 0]))


def test_profiles(monkeypatch):
    for name in profile.PROFILES:
        monkeypatch.setenv("KDLIB_PROFILE", name)
        assert profile.scale("grade", "cpu", "full") == name
    monkeypatch.setenv("KDLIB_PROFILE", "huge")
    with pytest.raises(ValueError, match="grade, cpu, full, got 'huge'"):
        profile.profile()


def test_evidence_is_complete_and_its_intervals_are_those_of_its_numbers():
    stored = sorted((assets.FOLDER / "evidence").glob("*.json"))
    modules = sorted(Path(__file__).parents[1].glob("evidence/u*.py"))
    assert [f.stem for f in stored] == [f.stem for f in modules]
    found = evidence.load("u02_soft_targets")
    assert len(found["seeds"]) >= 5
    for arms in found["results"].values():
        base = arms["labels alone"]["accuracy"]
        for arm in arms.values():
            if "accuracy_difference" in arm:
                interval = paired_interval(arm["accuracy"], base)[:3]
                assert arm["accuracy_difference"] == pytest.approx(interval, abs=0.01)


def test_the_pages_say_what_is_stored():
    from evidence import table

    for path, text in table.pages().items():
        assert len(table.rows(first_only=True)) > 10
        assert path.read_text(encoding="utf-8") == text, "run python -m evidence table"
