"""Figures: asserted on what they draw, small, and the same twice."""

import io
from pathlib import Path

import matplotlib
import nbformat
import pytest
import torch
from bs4 import BeautifulSoup
from nbclient import NotebookClient
from nbconvert import HTMLExporter

matplotlib.use("Agg")
from matplotlib import pyplot as plt

from kdlib.notebook import knobs, plots

TEMPLATES = Path(__file__).parents[1] / "course/jupyter/share/nbconvert/templates"
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


def test_a_figure_keeps_its_white_ground_and_black_text():
    matplotlib.style.use("dark_background")
    drawn, axes = plots.figure()
    assert matplotlib.colors.to_hex(drawn.get_facecolor()) == "#ffffff"
    assert axes.xaxis.label.get_color() == "black"


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


def test_numbers_and_intervals_in_words():
    rows = {"a": (3.62, 3.0, 4.2), 2: torch.tensor(-0.5)}
    assert plots.spell(rows) == "a: +3.6 (+3.0 to +4.2); 2: -0.5"
    assert plots.spell({"p": 0.25}, ".0%") == "p: 25%"


def test_a_figure_needs_a_text():
    plots.figure()
    with pytest.raises(ValueError, match="alt is empty"):
        plots.show(" ")


def test_knobs_draw_what_they_begin_with_where_nobody_can_move_them():
    seen = []
    controls = {"T": (0.5, 20.0, 4.0, 0.5), "arm": ["KL", "JSD"], "log": False, "n": (1, 5, 2, 1)}
    knobs(lambda **values: seen.append(values), **controls)
    assert seen == [{"T": 4.0, "arm": "KL", "log": False, "n": 2}]


@pytest.mark.parametrize("control", [(0.0, 1.0, 2.0, 0.1), (0.0, 1.0, 0.5), [], 3])
def test_a_knob_that_cannot_be_made_is_named(control):
    with pytest.raises(ValueError, match="T must be"):
        knobs(print, T=control)
    with pytest.raises(ValueError, match="needs a control"):
        knobs(print)


CELLS = r"""
from kdlib.notebook import knobs, plots

def draw(n):
    plots.figure()[1].plot([n, 2 * n])
    plots.show(f"From {n} to {2 * n}\na 'line'.")

knobs(draw, n=(1, 5, 2, 1))
from kdlib.bar import bar, watched
for _ in bar(range(3)):
    print(watched())
"""


def test_under_nbclient_there_is_a_picture_with_its_text_and_no_widget(tmp_path):
    notebook = nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell(CELLS)])
    NotebookClient(notebook, kernel_name="python3", timeout=300).execute(cwd=str(tmp_path))
    picture, printed = notebook.cells[0].outputs
    assert set(picture.data) == {"image/png", "text/plain"}
    assert picture.data["text/plain"] == "Figure: From 2 to 4, a 'line'."
    assert picture.metadata["image/png"] == {"alt": "From 2 to 4, a 'line'."}
    assert printed.text == "False\n" * 3
    exporter = HTMLExporter(
        template_name="course", extra_template_basedirs=[str(TEMPLATES)], embed_images=True
    )
    page, _ = exporter.from_notebook_node(notebook)
    (image,) = BeautifulSoup(page, "html.parser").select("img")
    assert image["alt"] == "From 2 to 4, a 'line'."
