"""Mutants that teach: wrong answers that nobody wrote, with what can be said of them."""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterator

from kdlib.checks.exercise import Exercise
from kdlib.checks.mutation.mutants import Target

Clue = tuple[str, str]  # a name, and what it says

# what the mutants of a family have in common, when it is not known which of them it is
FAMILIES = {
    "reduction": "A sum or a mean is not the one that is asked for, or runs over other entries.",
    "temperature": "The temperature does not stand where it should, or not in the right power.",
    "exchange": "Two things that are not alike stand in each other's place.",
    "gradient": "The gradient flows where it should not, or does not where it should.",
    "mask": "The mask is not used as it should be.",
    "sign": "A sign is wrong, or something is taken the wrong way round.",
    "left out": "Something is left out: a term, a factor, a function or a step.",
    "broadcast": "Shapes are matched in another way than they should be.",
    "mode": "A network is in another mode, or another state, than it should be.",
    "numerics": "The equation may be right, but numbers run out of range or lose their digits.",
    "argument": "An argument does not have the effect that it should have.",
    "off by one": "Something is off by one, or a slice has another end: count positions again.",
    "condition": "A condition is not the right one.",
    "loop": "A loop does not go through what it should.",
    "algebra": "Something is multiplied that should be divided, or the other way round.",
    "constant": "A number or a switch is not the one that the exercise gives.",
    "default": "The default of an argument is not the one in the contract.",
    "order": "Two steps are done in the wrong order.",
    "in place": "Something is changed, or not copied, that somebody else still needs.",
    "type": "Numbers have another type, or lower precision, than they should.",
    "refusal": "Bad arguments are not refused as the contract says.",
    "state": "Something is kept from one call to the next, or shared between instances.",
    "text": "Text is read in another way than it should be.",
}


def variants(exercise: Exercise) -> Iterator[tuple[Callable, tuple[Clue, Clue]]]:
    """Yield mutants of an exercise's reference, made when they are asked for and then kept.

    Those of the operators that students need most come first. Each comes with two clues, the
    family's and the operator's. Where several mutants do what a student's answer does, only the
    clues that all of them begin with are true of it.

    Args:
        exercise: whose reference is changed.
    """
    to_make, made = _stock(exercise)
    place = 0
    while place < len(made) or (new := next(to_make, None)) is not None:
        if place == len(made):
            made.append(new)
        yield made[place]
        place += 1


@functools.lru_cache(maxsize=64)
def _stock(exercise: Exercise) -> tuple[Iterator, list]:
    """Hold an exercise's mutants: those that are still to be made, and those that are."""
    return _made(exercise), []


def _made(exercise: Exercise) -> Iterator[tuple[Callable, tuple[Clue, Clue]]]:
    try:
        target = Target(exercise.reference)
    except (ValueError, OSError):  # its source cannot be read
        return
    for mutant in target.mutants():
        operator = mutant.operator
        clues = (operator.family, FAMILIES[operator.family]), (operator.name, operator.says)
        try:
            yield mutant.answer(), clues
        except Exception:  # it does not even load
            continue
