"""The nightly run itself: it draws the same seeds, names what is refused, forgives a pause."""

import dataclasses
import time

import torch

from kdlib.checks import catalogue
from tests.seeds import answers, draw_seeds, fingerprint, main, try_answers

EXERCISE = catalogue()["00.softmax_with_temperature"]


def _right(logits, temperature):
    if temperature <= 0:
        raise ValueError(f"got {temperature}")
    return torch.softmax(logits / temperature, dim=-1)


def test_more_seeds_begin_with_fewer():
    few, many = draw_seeds("02.kd_loss", 5), draw_seeds("02.kd_loss", 50)
    assert many[:5] == few
    assert len(set(many)) == 50
    assert few != draw_seeds("02.kd_gradient", 5)


def test_a_refusal_names_the_answer_and_the_seed():
    def wrong(logits, temperature):
        return _right(logits, temperature).sqrt()

    tally = try_answers(EXERCISE, [_right, wrong], [3, 4])
    assert [text.splitlines()[0] for text in tally.refused] == ["wrong, seed 3", "wrong, seed 4"]
    assert tally.slow == []


def test_an_answer_that_was_stopped_gets_a_second_try():
    naps = [4.0]  # more than a busy machine is given

    def slow_at_first(logits, temperature):
        if naps:
            time.sleep(naps.pop())
        return _right(logits, temperature)

    tally = try_answers(dataclasses.replace(EXERCISE, seconds=0.2), [slow_at_first], [0])
    assert tally.refused == []
    assert len(tally.slow) == 1


def test_what_has_passed_is_not_run_again(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr("tests.seeds.STATE", tmp_path / "build" / "seeds.json")
    monkeypatch.setattr("tests.seeds.units", lambda: ["u00_start"])
    only = {EXERCISE.id: answers("00")[EXERCISE.id][:1]}
    monkeypatch.setattr("tests.seeds.answers", lambda unit: only)
    assert main(["00", "--seeds", "1", "--processes", "1"]) == 0
    assert main(["00", "--seeds", "1"]) == 0
    assert "0 exercises run, 1 known from before" in capsys.readouterr().out


def test_the_fingerprint_is_that_of_the_unit():
    assert fingerprint("00") == fingerprint("00") != fingerprint("01")
