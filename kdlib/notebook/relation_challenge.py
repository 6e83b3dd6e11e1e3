"""Unit 07's open challenge: the budget and the images are held here, the loss is the reader's."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from kdlib.data import fashion_mnist
from kdlib.evaluation import knn_accuracy
from kdlib.models import MLP, load_teacher, seeded
from kdlib.profile import scale
from kdlib.training import fit


@torch.no_grad()
def relation_challenge(loss: Callable[[Tensor, Tensor], Tensor]) -> float:
    """Score a relational loss: train students on it alone, and ask their nearest neighbours.

    Three students of 16 outputs learn for 400 updates of 32 images each, from the teacher's 512
    features of 3,000 unlabelled images. The score is the mean accuracy of the five nearest
    neighbours for 5,000 test images among 4,000 labelled ones; the students saw none of either.

    Args:
        loss: `loss(student_features, teacher_features) -> scalar`, on `(32, 16)` and `(32, 512)`.

    Returns:
        Percent.
    """
    train, test = fashion_mnist(train=True), fashion_mnist(train=False)
    images, gallery, queries = train.inputs[12000:15000], slice(15000, 19000), slice(5000, 10000)
    teacher = load_teacher("fashion_cnn")
    features = torch.cat([teacher.head[:2](teacher.features(x)) for x in images.split(500)])
    steps, scores = scale(grade=5, cpu=400, full=400), []
    for seed in range(3):
        student = seeded(seed, MLP, 128, classes=16)
        how = {"steps": steps, "batch_size": 32, "lr": 3e-3, "seed": seed, "progress": False}
        with torch.enable_grad():
            fit(
                student,
                images,
                teacher_logits=features,
                loss_fn=lambda student_features, teacher_features, _: loss(
                    student_features, teacher_features
                ),
                **how,
            )
        scores.append(
            knn_accuracy(
                student(test.inputs[queries]),
                test.targets[queries],
                student(train.inputs[gallery]),
                train.targets[gallery],
            )
        )
    return 100 * sum(scores) / len(scores)
