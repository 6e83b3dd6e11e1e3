"""Traces to train on: sampled from a teacher, kept where a verifier agrees."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from kdlib.seal import reference

__all__ = ["rejection_sample"]


@reference("13.rejection_sample")
def rejection_sample(
    traces: Sequence[Sequence[str]],
    answers: Sequence[int],
    verifier: Callable[[str, int], bool],
    keep: int,
) -> list[tuple[int, str]]:
    """Keep, for each problem, the first `keep` different traces that the verifier accepts.

    Different reasoning paths are what rejection sampling brings to fine-tuning (Yuan et al. 2023,
    arXiv 2308.01825); `keep` stops easy problems, of which nearly every trace is right, from
    crowding out the hard ones.

    Args:
        traces: for each problem, what the teacher wrote, in the order it was drawn.
        answers: for each problem, the right answer.
        verifier: `verifier(trace, answer)` says whether a trace is right.
        keep: at most so many traces of a problem.

    Returns:
        (problem, trace) pairs, problems in order; a problem without a right trace has none.

    Raises:
        ValueError: lengths differ, or `keep` < 1.
    """
    if len(traces) != len(answers):
        raise ValueError(f"traces and answers differ in length: {len(traces)} and {len(answers)}")
    if keep < 1:
        raise ValueError(f"keep must be at least 1, got {keep}")
    kept = []
    for number, (drawn, answer) in enumerate(zip(traces, answers, strict=True)):
        right = dict.fromkeys(trace for trace in drawn if verifier(trace, answer))
        kept += [(number, trace) for trace in list(right)[:keep]]
    return kept
