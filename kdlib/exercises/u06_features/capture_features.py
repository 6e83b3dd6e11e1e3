"""06.capture_features."""

from __future__ import annotations

from contextlib import contextmanager, suppress

import torch

from kdlib.checks.criteria import facts, matches, rejects, side, tidy
from kdlib.checks.exercise import Arguments, Exercise, Mistake, Probe
from kdlib.checks.probes import draw
from kdlib.exercises.u06_features.inputs import ConvSpy, hooks_on
from kdlib.losses import features


class _Interrupted(Exception):
    """Stands for anything that may go wrong in the block."""


def _networks(g: torch.Generator) -> Arguments:
    seed, images = (int(torch.randint(*ends, (1,), generator=g)) for ends in ((0, 10_000), (1, 6)))
    networks = {
        "student": ConvSpy(seed, 3, 0.0, inplace=True).train(),
        "teacher": ConvSpy(seed + 1, 5, 0.0).eval(),
    }
    for network in networks.values():
        network.body[3].register_forward_hook(lambda *_: None)  # somebody else's
    return {**networks, "images": draw(g, 2, images, 1, 4, 4, scale=1.0)}


def _gradient(of: torch.Tensor, network: ConvSpy) -> torch.Tensor:
    """Differentiate with respect to the first weight; zero where nothing arrives."""
    weight = network.body[0].weight
    if not of.requires_grad:
        return torch.zeros_like(weight)
    return torch.autograd.grad(
        of.square().sum(), weight, retain_graph=True, allow_unused=True, materialize_grads=True
    )[0]


def _block(answer, a: Arguments) -> dict:
    """Capture from both networks at once, in two forward passes."""
    student, teacher, images = a["student"], a["teacher"], a["images"]
    out: dict = {}
    with (
        answer(student, ["body.1", "body.3"]) as seen,
        answer(teacher, ["body.3"]) as hint,
    ):
        logits = student(images[0])
        teacher(images[0])
        out["list of names"] = ", ".join(sorted(seen))
        if "body.1" in seen:  # else the message is that it is missing
            out["layer before an in-place ReLU"] = seen["body.1"]
        out["student's layer"] = seen["body.3"]
        out["teacher's layer"] = hint["body.3"]
        out["gradient through the captured layer"] = _gradient(seen["body.3"], student)
        out["network's answer"] = logits
        out["gradient through the logits"] = _gradient(logits, student)
        student(images[1])
        out["student's layer, second pass"] = seen["body.3"]
    return out


def _nested(answer, a: Arguments) -> dict:
    """Capture from one network twice at the same time, and every layer in a block after that."""
    student, images = a["student"], a["images"]
    first, second = answer(student, ["body.0"]), answer(student, ["body.1", "head.1"])
    answer(a["teacher"], ["body.3"])  # one that nobody enters
    with first as outer:
        with second as inner:
            student(images[0])
        out = {"outer block": outer["body.0"], "inner block": inner["body.1"]}
        out["names of the inner block"] = ", ".join(sorted(inner))
        student(images[1])
        out["outer block, second pass"] = outer["body.0"]
        out["inner block, after its end"] = [inner["body.1"], inner["head.1"]]
    with answer(student, [name for name, _ in student.named_modules()]) as later:
        student(images[1])
    # the network itself has a name, too: an empty one
    out["names of a later block"] = ", ".join(map(repr, sorted(later)))
    return {**out, "later block": later["head"], "later block, the network": later[""]}


def _after(answer, a: Arguments) -> dict:
    """Count the hooks after the same block, whatever was captured in it."""
    before = hooks_on(a["student"], a["teacher"])
    _block(answer, a)
    return {"hooks left": hooks_on(a["student"], a["teacher"]) - before}


def _interrupted(answer, a: Arguments) -> dict:
    """Leave a block by an error; a hook of any kind shows by what the next pass brings."""
    before, heard = hooks_on(a["student"]), False
    try:
        with answer(a["student"], ["body.3"]) as seen:
            a["student"](a["images"][0])
            last = seen["body.3"]
            raise _Interrupted
    except _Interrupted:
        heard = True
    a["student"](a["images"][1])
    left = hooks_on(a["student"]) - before or int(seen["body.3"] is not last)
    return {"mean": last.mean(), "hooks left after an error": left, "the error is heard": heard}


def _unknown(*names: str):
    def use(answer, a: Arguments) -> str:
        with answer(a["student"], list(names)) as seen:
            a["student"](a["images"][0])
            return ", ".join(sorted(seen))

    return use


def _refused(answer, a: Arguments) -> dict:
    """Count the hooks after a misspelt name."""
    before = hooks_on(a["student"])
    with suppress(ValueError):
        _unknown("body.3", "body.9")(answer, a)
    return {"hooks left after an unknown name": hooks_on(a["student"]) - before}


_SHARED: dict = {}


def _capture(
    keep=lambda inputs, output: output.clone(),
    remove=True,
    careful=True,
    strict=True,
    returns=lambda output: None,
    shared=False,
    first_only=False,
    late=False,
):
    """Assemble a context manager with one thing wrong."""

    @contextmanager
    def capture(model, names):
        layers = dict(model.named_modules())
        if strict and any(name not in layers for name in names):
            raise ValueError("no such layer")
        found = _SHARED if shared else {}
        handles = []
        last = names[-1]  # what a hook that is bound late sees of the loop
        for name in [n for n in names if n in layers]:

            def hook(module, inputs, output, name=last if late else name):
                if not (first_only and name in found):
                    found[name] = keep(inputs, output)
                return returns(output)

            handles.append(layers[name].register_forward_hook(hook))
        done = False
        try:
            yield found
            done = True
        finally:
            if remove and (done or careful):
                for handle in handles:
                    handle.remove()
            for name in names if shared else ():
                found.pop(name, None)  # so that each of its runs is like the first

    return capture


CAPTURE_FEATURES = Exercise(
    id="06.capture_features",
    title="Catch what a layer says",
    reference=features.capture_features,
    probes=(
        Probe("block", "two networks and two forward passes", _networks, run=_block),
        Probe("nested", "two blocks on one network and one after them", _networks, run=_nested),
        Probe("after", "two networks and two forward passes", _networks, run=_after),
        Probe("error", "a block that ends with an error", _networks, run=_interrupted),
        Probe(
            "unknown",
            "a name that the network does not have, after one that it has",
            _networks,
            run=_unknown("body.3", "body.9"),
        ),
        Probe(
            "misspelt",
            "a name that only begins like a layer's",
            _networks,
            run=_unknown("body.", "body.1"),
        ),
        Probe("refused", "a name that the network does not have", _networks, run=_refused),
    ),
    criteria=(
        matches(
            "each name gets its own layer's output",
            0.75,
            "block",
            keys=(
                "list of names",
                "student's layer",
                "teacher's layer",
                "student's layer, second pass",
            ),
        ),
        matches("each block is one of its own", 0.25, "nested"),
        matches(
            "the output as it left the layer",
            0.25,
            "block",
            keys=("layer before an in-place ReLU",),
        ),
        matches(
            "gradient flows, through the layer and through the network",
            0.5,
            "block",
            keys=(
                "gradient through the captured layer",
                "gradient through the logits",
                "network's answer",
            ),
        ),
        side(
            facts(
                "no hook stays behind",
                0.25,
                "after",
                ("hooks left", 0, "After the block the networks have more or fewer hooks: {seen}."),
            )
        ),
        side(
            facts(
                "not even after an error",
                0.25,
                "error",
                (
                    "hooks left after an error",
                    0,
                    "When something goes wrong inside the block, hooks stay on the network: "
                    "{seen}.",
                ),
                (
                    "the error is heard",
                    True,
                    "An error inside the block ends there: the code around it goes on as if all "
                    "were well. What does it mean when `__exit__` returns True?",
                ),
            )
        ),
        side(
            facts(
                "nor after an unknown name",
                0.25,
                "refused",
                (
                    "hooks left after an unknown name",
                    0,
                    "After a name that is refused, hooks stay on the network: {seen}. Look at all "
                    "names before the first hook.",
                ),
            )
        ),
        rejects("an unknown name is refused", 0.25, "unknown", "misspelt"),
        tidy(0.25),
    ),
    mistakes=(
        Mistake(
            "hooks never removed",
            _capture(remove=False),
            "The hooks stay on the network for good. Every later forward pass stores its features, "
            "and each use of your function adds another one. What does `register_forward_hook` "
            "give back?",
            "KamitaniLab/bdpy #72",
        ),
        Mistake(
            "hooks removed only when all goes well",
            _capture(careful=False),
            "When the block ends with an error, your clean-up is skipped. In a notebook that is "
            "the usual case: you interrupt a cell and run it again. Which statement runs whatever "
            "happens?",
        ),
        Mistake(
            "features detached",
            _capture(keep=lambda i, o: o.detach().clone()),
            "The captured features have no graph, so a loss on them teaches the student nothing "
            "and nothing complains. It is the teacher's side that has to be a constant, and the "
            "loss sees to that.",
            "Syencil/mobile-yolov5-pruning-distillation #83",
        ),
        Mistake(
            "not copied",
            _capture(keep=lambda i, o: o),
            "What you hand out for the layer before an in-place ReLU is what the ReLU left of it: "
            "both are one tensor. The hook ran first, but it only took a reference. (Somebody had "
            "the same surprise with a layer's input in pytorch/pytorch #95617.)",
        ),
        Mistake(
            "the layer's input",
            _capture(keep=lambda i, o: i[0].clone()),
            "You stored what goes into the layer. A forward hook is called with the module, its "
            "inputs and its output, in this order.",
        ),
        Mistake(
            "all hooks share one name",
            _capture(late=True),
            "Only one of the names is filled in. A function made in a loop sees the loop's last "
            "value. Bind it as a default argument or make the hook in a function of its own.",
        ),
        Mistake(
            "one dict for all",
            _capture(shared=True),
            "Student and teacher write into the same dict, and both have a layer of that name: "
            "whoever runs last overwrites the other. Where is your dict created?",
        ),
        Mistake(
            "the first pass for ever",
            _capture(first_only=True),
            "After the second forward pass you still hand out the features of the first. Training "
            "on that would compare every batch with the first one.",
        ),
        Mistake(
            "the hook changes the network",
            _capture(returns=lambda o: o.detach()),
            "Your hook returns something. PyTorch puts that in the place of the layer's output, so "
            "that here no gradient gets past the hooked layer. A hook that only looks returns "
            "None.",
        ),
        Mistake(
            "unknown names ignored",
            _capture(strict=False),
            "A misspelt name is passed over in silence; whoever made the mistake finds out much "
            "later, by a KeyError.",
        ),
    ),
    minutes=12,
    difficulty=2,
)
