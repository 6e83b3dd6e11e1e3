"""16.keep_layers."""

from __future__ import annotations

import copy
from collections.abc import Callable

import torch
from torch import Tensor, nn

from kdlib.checks.criteria import facts, law, matches, rejects, side, tidy
from kdlib.checks.exercise import Arguments, Evidence, Exercise, Mistake, Probe
from kdlib.models import pruning

WIDTH, WORDS, TOKENS = 4, 7, 6


class _Config:
    def __init__(self, num_hidden_layers: int) -> None:
        self.num_hidden_layers = num_hidden_layers


class _Cache:
    """Keys of the tokens read so far, one place for each layer that the config counts."""

    def __init__(self, places: int) -> None:
        self.places: list[Tensor | None] = [None] * places

    @property
    def length(self) -> int:
        """The tokens read so far: as in transformers, those in the first place."""
        return 0 if not self.places or self.places[0] is None else len(self.places[0])

    def update(self, keys: Tensor, place: int) -> Tensor:
        old = self.places[place]
        self.places[place] = keys if old is None else torch.cat([old, keys])
        return self.places[place]


class _Attention(nn.Module):
    def __init__(self, layer_idx: int) -> None:
        super().__init__()
        self.layer_idx = layer_idx
        self.weight = nn.Parameter(torch.randn(WIDTH, WIDTH, dtype=torch.float64))

    def forward(self, x: Tensor, cache: _Cache | None) -> Tensor:
        keys = x if cache is None else cache.update(x, self.layer_idx)
        scores = (x @ self.weight) @ keys.T  # (new tokens, all tokens)
        future = torch.ones_like(scores, dtype=torch.bool).triu(len(keys) - len(x) + 1)
        return scores.masked_fill(future, float("-inf")).softmax(-1) @ keys


class _Layer(nn.Module):
    def __init__(self, layer_idx: int) -> None:
        super().__init__()
        self.self_attn = _Attention(layer_idx)
        self.mlp = nn.Parameter(torch.randn(WIDTH, WIDTH, dtype=torch.float64))

    def forward(self, x: Tensor, cache: _Cache | None) -> Tensor:
        x = x + self.self_attn(x, cache)
        return (x + (x @ self.mlp).tanh()) / 2


class _Inner(nn.Module):
    def __init__(self, config: _Config) -> None:
        super().__init__()
        self.config = config
        self.embed_tokens = nn.Parameter(torch.randn(WORDS, WIDTH, dtype=torch.float64))
        self.layers = nn.ModuleList(_Layer(number) for number in range(config.num_hidden_layers))

    def forward(self, ids: Tensor, cache: _Cache | None = None) -> Tensor:
        start = 0 if cache is None else cache.length
        position = torch.arange(start, start + len(ids), dtype=torch.float64)[:, None]
        x = self.embed_tokens[ids] + (position * torch.arange(1, WIDTH + 1)).sin()
        for layer in self.layers[: self.config.num_hidden_layers]:  # as transformers does
            x = layer(x, cache)
        return x


class Decoder(nn.Module):
    """A language model of one row, with the parts named and nested as in transformers."""

    def __init__(self, config: _Config) -> None:
        super().__init__()
        self.config = config
        self.model = _Inner(config)
        self.lm_head = nn.Parameter(torch.randn(WIDTH, WORDS, dtype=torch.float64))

    def forward(self, ids: Tensor, cache: _Cache | None = None) -> Tensor:
        """Give the logits of the token after each, `(T, V)`."""
        return self.model(ids, cache) @ self.lm_head


def _decoder(choose: Callable[[torch.Generator, int], list[int]], training: bool = True):
    """Build a decoder of 5 to 7 layers; `choose(generator, depth)` gives those to keep."""

    def make(g: torch.Generator) -> Arguments:
        depth = int(torch.randint(5, 8, (), generator=g))
        model = Decoder(_Config(depth))
        for weight in model.parameters():
            weight.data = torch.randn(*weight.shape, generator=g, dtype=torch.float64) * 0.7
        return {"model": model.train(training), "keep": choose(g, depth)}

    return make


def _some(g: torch.Generator, depth: int) -> list[int]:
    """Choose two or three layers from the middle, and the last one."""
    count = int(torch.randint(2, 4, (), generator=g)) if depth > 5 else 2
    middle = torch.randperm(depth - 2, generator=g)[:count] + 1
    return [*sorted(middle.tolist()), depth - 1]


def _unordered(g: torch.Generator, depth: int) -> list[int]:
    """Choose the last layer, the first, and one or two from between, in this order."""
    count = int(torch.randint(1, 3, (), generator=g))
    middle = torch.randperm(depth - 3, generator=g)[:count] + 2
    return [depth - 1, 0, *middle.tolist()]


def _student(answer: Callable, a: Arguments) -> nn.Module:
    student = answer(a["model"], list(a["keep"]))
    if not isinstance(getattr(getattr(student, "model", None), "layers", None), nn.ModuleList):
        raise TypeError(
            "keep_layers has to return a model with a ModuleList `model.layers`, got "
            f"{type(student).__name__}"
        )
    return student


def _build(answer: Callable, a: Arguments) -> dict:
    """Say which layers the copy has, and what they and the config say of themselves."""
    names = {weight.sum().item(): str(n) for n, weight in enumerate(_first_weights(a["model"]))}
    student = _student(answer, a)
    return {
        "list of layers": " ".join(
            names.get(weight.sum().item(), "new") for weight in _first_weights(student)
        ),
        "list of places": " ".join(str(x.self_attn.layer_idx) for x in student.model.layers),
        "count in the config": student.config.num_hidden_layers,
        "number of weights": sum(weight.numel() for weight in student.parameters()),
    }


def _first_weights(model: nn.Module) -> list[Tensor]:
    return [layer.self_attn.weight.detach().clone() for layer in model.model.layers]


def _state(model: nn.Module) -> dict:
    return {
        "layers": len(model.model.layers),
        "places": " ".join(str(x.self_attn.layer_idx) for x in model.model.layers),
        "count": model.config.num_hidden_layers,
    }


@torch.no_grad()
def _original(answer: Callable, a: Arguments) -> dict:
    """Say what has become of the original: after the call, and after the copy has learned."""
    model = a["model"]
    before, had = [weight.clone() for weight in model.parameters()], _state(model)
    student = _student(answer, a)
    found = {what: "as before" if is_ == had[what] else is_ for what, is_ in _state(model).items()}
    for weight in student.parameters():
        weight.add_(1.0)
    after = list(model.parameters())
    learned = len(before) != len(after) or not all(map(torch.equal, before, after))
    return {**found, "learns with the copy": learned}


@torch.no_grad()
def _outputs(answer: Callable, a: Arguments) -> dict:
    """Run the copy on a row at once, and token by token with a cache."""
    student = _student(answer, a)
    ids = torch.arange(TOKENS) * 3 % WORDS
    cache, error = _Cache(student.config.num_hidden_layers), ""
    try:
        one_by_one = torch.cat([student(token[None], cache) for token in ids])
    except IndexError:
        one_by_one, error = torch.full((TOKENS, WORDS), float("nan")), "IndexError"
    return {
        "output": student(ids),
        "output with a cache": one_by_one.double(),
        "error with a cache": error,
    }


def _kept(model: nn.Module, keep, refuse=("none", "twice", "negative", "beyond")) -> list[int]:
    """Check the layers' numbers but for what `refuse` leaves out."""
    depth, numbers = len(model.model.layers), list(keep)
    found = {
        "none": not numbers,
        "twice": len(set(numbers)) < len(numbers),
        "negative": any(n < 0 for n in numbers),
        "beyond": any(n >= depth for n in numbers),
    }
    if any(found[what] for what in refuse):
        raise ValueError("keep must name different layers that exist")
    return numbers


def _renumber(student: nn.Module, places: bool = True, count: bool = True) -> nn.Module:
    for place, layer in enumerate(student.model.layers):
        layer.self_attn.layer_idx = place if places else layer.self_attn.layer_idx
    if count:
        student.config.num_hidden_layers = len(student.model.layers)
    return student


def _pick(
    order=sorted,
    copied=copy.deepcopy,
    source=None,
    places: bool = True,
    count: bool = True,
    refuse: tuple[str, ...] = ("none", "twice", "negative", "beyond"),
):
    """Assemble a wrong answer that picks layers out of a copy."""

    def wrong(model, keep):
        numbers = order(_kept(model, keep, refuse))
        student = copied(model)
        layers = (source or (lambda model, student: student))(model, student).model.layers
        student.model.layers = nn.ModuleList(layers[number] for number in numbers)
        return _renumber(student, places, count)

    return wrong


def _theirs(model, student):
    return model


def _others(model, keep):
    """Treat the numbers as those of the layers to go."""
    gone = _kept(model, keep)
    student = copy.deepcopy(model)
    layers = student.model.layers
    student.model.layers = nn.ModuleList(x for n, x in enumerate(layers) if n not in gone)
    return _renumber(student)


def _membership(model, keep):
    student = copy.deepcopy(model)
    layers = student.model.layers
    student.model.layers = nn.ModuleList(x for n, x in enumerate(layers) if n in keep)
    return _renumber(student)


def _shifting(model, keep):
    """Delete from the front, while the numbers behind move up."""
    numbers = _kept(model, keep)
    student = copy.deepcopy(model)
    for number in range(len(model.model.layers)):
        if number not in numbers and number < len(student.model.layers):
            del student.model.layers[number]
    return _renumber(student)


def _rebuilt(load: bool = True, names: bool = False, shared: bool = False):
    """Make a new, shallower model and load what fits."""

    def wrong(model, keep):
        numbers = sorted(_kept(model, keep))
        config = model.config if shared else copy.deepcopy(model.config)
        state = {name: weight.clone() for name, weight in model.state_dict().items()}
        if names:
            layers = model.model.layers
            for place, number in enumerate(numbers):
                for name, weight in layers[number].state_dict().items():
                    state[f"model.layers.{place}.{name}"] = weight.clone()
        elif not load:
            state = {name: weight for name, weight in state.items() if ".layers." not in name}
        config.num_hidden_layers = len(numbers)
        student = type(model)(config)
        student.load_state_dict(state, strict=False)
        return student

    return wrong


def _agrees(evidence: Evidence) -> str | None:
    if error := evidence.value("run", "error with a cache"):
        return (
            f"Read token by token with a cache, your copy stops with {error}. Where does a layer "
            "file its keys and values?"
        )
    whole, single = (evidence.value("run", k) for k in ("output", "output with a cache"))
    worst = (whole - single).abs().max().item()
    if not worst <= 1e-6 * max(1.0, whole.abs().max().item()):
        return (
            f"Your copy gives one output for a row read at once and another, up to {worst:.3g} "
            "away, for the same row read token by token with a cache."
        )
    return None


CHANGED = "The original {what} after your call. The teacher is needed as it was."

KEEP_LAYERS = Exercise(
    id="16.keep_layers",
    title="Cut a student out of the teacher",
    reference=pruning.keep_layers,
    probes=(
        Probe(
            "build",
            "5 to 7 layers of which the last and two or three more stay",
            _decoder(_some),
            run=_build,
        ),
        Probe(
            "order",
            "a list that is not in order: the last, the first, and others",
            _decoder(_unordered),
            run=_build,
        ),
        Probe(
            "all",
            "a list of all layers, from the last to the first",
            _decoder(lambda g, depth: list(range(depth))[::-1]),
            run=_build,
        ),
        Probe(
            "one",
            "a list of one layer, the last but one",
            _decoder(lambda g, depth: [depth - 2]),
            run=_build,
        ),
        Probe(
            "run",
            "5 to 7 layers of which the last and some others stay",
            _decoder(_some),
            run=_outputs,
        ),
        Probe(
            "original", "a teacher that is needed again", _decoder(_unordered, False), run=_original
        ),
        Probe("no layer", "an empty list of layers", _decoder(lambda g, depth: [])),
        Probe("twice", "a list that names layer 1 twice", _decoder(lambda g, depth: [1, 3, 1])),
        Probe("negative", "a list with the number -1", _decoder(lambda g, depth: [0, -1])),
        Probe("more negative", "a list with the number -2", _decoder(lambda g, depth: [-2, 1])),
        Probe("beyond", "a list with the number of layers", _decoder(lambda g, depth: [0, depth])),
        Probe("far beyond", "a list with the number 40", _decoder(lambda g, depth: [40, 2])),
    ),
    criteria=(
        matches(
            "the layers and their order",
            0.75,
            *("build", "order", "all", "one"),
            keys=("list of layers", "number of weights"),
        ),
        side(
            matches(
                "each layer knows its place, and the config their number",
                0.5,
                *("build", "order", "all", "one"),
                keys=("list of places", "count in the config"),
            )
        ),
        matches("the output", 0.5, "run", keys=("output",)),
        law("the same output with a cache", 0.5, ("run",), _agrees),
        side(
            facts(
                "the original stays as it is",
                0.5,
                "original",
                ("layers", "as before", CHANGED.format(what="has {seen} layers")),
                (
                    "places",
                    "as before",
                    CHANGED.format(what="has layers that think they are {seen}"),
                ),
                (
                    "count",
                    "as before",
                    CHANGED.format(what="has a config that counts {seen} layers"),
                ),
                (
                    "learns with the copy",
                    False,
                    "When your copy takes a step, the original's weights move too. The two have to "
                    "share nothing.",
                ),
            )
        ),
        rejects(
            *("numbers that make no sense are refused", 0.5),
            *("no layer", "twice", "negative", "more negative", "beyond", "far beyond"),
        ),
        tidy(0.25),
    ),
    mistakes=(
        Mistake(
            "only the list is cut",
            _pick(places=False, count=False),
            "You cut the list of layers and stop there. At once the copy reads a row well, so "
            "nothing shows. With a cache the first place stays empty, and every new token is "
            "taken for the first of the row. What else knows of the old numbers?",
            "huggingface/transformers #30508",
        ),
        Mistake(
            "places not renumbered",
            _pick(places=False),
            "Each layer still files its keys and values under its old number, and the cache has "
            "no such place any more. Without a cache nothing shows.",
            "huggingface/transformers #30508",
        ),
        Mistake(
            "config not updated",
            _pick(count=False),
            "The config still counts the layers that are gone. A cache is built for them, and "
            "when the copy is saved and loaded it gets them back, with random weights.",
        ),
        Mistake(
            "the original is cut",
            _pick(copied=lambda model: model),
            "You cut the model that you were given, and return it. A second name or a shallow "
            "copy is the same model: the teacher has lost its layers too.",
        ),
        Mistake(
            "layers shared",
            _pick(source=_theirs),
            "Your copy holds the original's own layers. Its places are overwritten now, and every "
            "step of the student will change the teacher.",
        ),
        Mistake(
            "config shared",
            _rebuilt(names=True, shared=True),
            "The two models hold the same config object. The original now thinks that it has as "
            "few layers as the copy, and runs no more of them.",
        ),
        Mistake(
            "in the order given",
            _pick(order=list),
            "You keep the layers in the order in which they are named. The numbers may come from "
            "a ranking; the layers were trained to follow one another as in the original.",
        ),
        Mistake(
            "removed instead of kept",
            _others,
            "You remove the layers that are named and keep the others.",
        ),
        Mistake(
            "deleted from the front",
            _shifting,
            "You delete layer after layer, and with each one all layers behind it move up by one: "
            "the next number means another layer than before.",
        ),
        Mistake(
            "the first layers",
            _rebuilt(),
            "You build a shallower model and load the state dict into it. There, a layer's name "
            "is its old place, so the copy gets the first layers whichever were asked for, and "
            "`strict=False` says nothing.",
        ),
        Mistake(
            "new weights",
            _rebuilt(load=False),
            "The layers of your copy have fresh random weights. What the teacher's layers learned "
            "is what the student should begin with.",
        ),
        Mistake(
            "nothing refused",
            _membership,
            "You keep whatever is `in` the list, so a number that does not exist is passed over, "
            "and an empty list gives a model without layers. A wrong list should stop the run.",
        ),
        Mistake(
            "a layer twice passes",
            _pick(
                order=lambda numbers: sorted(set(numbers)), refuse=("none", "negative", "beyond")
            ),
            "A layer that is named twice passes. Either it is kept once, and the student is "
            "shallower than asked for, or it stands there twice, with the same weights and one "
            "place in the cache.",
        ),
        Mistake(
            "counted from the end",
            _pick(refuse=("none", "twice", "beyond")),
            "For Python, -1 is the last element, so a negative number passes and picks a layer "
            "from the end. Where numbers are sorted, that layer even comes to stand in front.",
        ),
    ),
    minutes=15,
    difficulty=2,
)
