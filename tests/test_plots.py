"""Figures: asserted on what they draw, small, and the same twice."""

import io

import matplotlib
import pytest
import torch

matplotlib.use("Agg")
from matplotlib import pyplot as plt

from kdlib.notebook import plots, slider

NAMES = ("cat", "dog", "car")


@pytest.fixture(autouse=True)
def _own_style():
    with matplotlib.rc_context():
        yield
    plt.close("all")


def png(drawn) -> bytes:
    buffer = io.BytesIO()
    drawn.savefig(buffer, format="png")
    return buffer.getvalue()


def test_bars_show_the_distribution():
    _, axes = plots.figure()
    plots.probability_bars(axes, torch.tensor([0.7, 0.25, 0.05]), NAMES, "T = 1")
    assert [bar.get_width() for bar in axes.patches] == pytest.approx([0.7, 0.25, 0.05])
    assert [label.get_text() for label in axes.get_yticklabels()] == list(NAMES)
    assert axes.get_xlabel() == "probability"
    assert axes.get_ylim()[0] > axes.get_ylim()[1], "the first class stands at the top"


def test_lines_carry_their_intervals():
    _, axes = plots.figure()
    plots.lines_with_intervals(axes, [1, 2], {"a": [(3, 2, 5), (1, 0, 1.5)], "b": [(0, 0, 0)] * 2})
    segments = axes.containers[0].lines[2][0].get_segments()
    assert [sorted(s[:, 1].tolist()) for s in segments] == [[2, 5], [0, 1.5]]
    assert [text.get_text() for text in axes.get_legend().get_texts()] == ["a", "b"]


def test_intervals_are_coloured_by_what_they_exclude():
    _, axes = plots.figure()
    rows = {"up": (1, 0.5, 1.5), "down": (-1, -2, -0.5), "unsure": (0.1, -1, 1.2)}
    plots.intervals(axes, rows, "points")
    colours = [line.get_color() for line in axes.lines[0:6:2]]
    assert colours == [plots.GREEN, plots.VERMILLION, plots.BLACK]
    assert axes.get_xlabel() == "points"


def test_images_in_a_row():
    drawn = plots.image_row(torch.rand(3, 1, 14, 14), NAMES)
    assert [axes.get_title() for axes in drawn.axes] == list(NAMES)
    assert drawn.axes[0].images[0].get_array().shape == (14, 14)
    assert len(plots.image_row(torch.rand(1, 1, 8, 8)).axes) == 1


def test_heatmap_writes_percent_off_the_diagonal():
    _, axes = plots.figure()
    table = torch.tensor([[0.0, 0.9, 0.1], [0.6, 0.0, 0.4], [0.5, 0.5, 0.0]])
    plots.class_heatmap(axes, table, NAMES, "share, percent")
    written = {t.get_position(): t.get_text() for t in axes.texts}
    assert written == {
        (1, 0): "90",
        (2, 0): "10",
        (0, 1): "60",
        (2, 1): "40",
        (0, 2): "50",
        (1, 2): "50",
    }
    assert (axes.get_xlabel(), axes.get_ylabel()) == ("share, percent", "true class")


def test_a_figure_is_small_and_the_same_twice():
    def draw():
        drawn, axes = plots.figure(2)
        for ax in axes:
            plots.probability_bars(ax, torch.tensor([0.7, 0.25, 0.05]), NAMES)
        return drawn

    first, second = png(draw()), png(draw())
    assert first == second
    assert len(first) < 60_000
    assert draw().get_size_inches()[0] * draw().dpi <= 700


def test_a_slider_draws_its_first_value_and_nothing_breaks_without_a_frontend():
    seen = []
    slider(seen.append, "T", 0.5, 20.0, 4.0, 0.5)
    assert seen == [4.0]
