"""Plots in one look: colour-blind safe (Okabe and Ito), labelled axes, readable at 700 pixels.

A figure keeps its white ground wherever it is shown, so black lines read on a dark page, too.
"""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure
    from torch import Tensor

BLUE, ORANGE, GREEN, VERMILLION, PURPLE, SKY, YELLOW, BLACK = (
    "#0072B2",
    "#E69F00",
    "#009E73",
    "#D55E00",
    "#CC79A7",
    "#56B4E9",
    "#F0E442",
    "#000000",
)
PALETTE = (BLUE, VERMILLION, GREEN, ORANGE, PURPLE, SKY, BLACK)
_STYLE = {
    "figure.dpi": 90,
    "savefig.dpi": 90,
    "figure.facecolor": "white",
    "savefig.facecolor": "auto",
    "axes.facecolor": "white",
    "axes.edgecolor": "black",
    "axes.labelcolor": "black",
    "text.color": "black",
    "xtick.color": "black",
    "ytick.color": "black",
    "font.size": 10,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "axes.axisbelow": True,
    "grid.alpha": 0.25,
    "legend.frameon": False,
}


def figure(columns: int = 1, height: float = 3.2, width: float = 7.0, **kwargs):
    """Make a figure of `columns` axes side by side in the course's style.

    Args:
        columns: how many axes.
        height: inches.
        width: inches.
        **kwargs: for `plt.subplots`.

    Returns:
        The figure and its axes (one `Axes`, or an array when there are several).
    """
    import matplotlib.pyplot as plt

    _use_style()
    return plt.subplots(1, columns, figsize=(width, height), layout="constrained", **kwargs)


def _use_style() -> None:
    import matplotlib.pyplot as plt
    from cycler import cycler

    plt.rcParams.update({**_STYLE, "axes.prop_cycle": cycler(color=PALETTE)})


def show(alt: str) -> None:
    """Show the current figure together with its alternative text.

    The text is for whoever does not see the picture: what is on the axes, and what one sees, with
    the numbers of this run. It goes into the output's metadata, where HTML exports look for it
    (`{"image/png": {"alt": ...}}`), and stands in place of `<Figure size ...>` as plain text.

    Args:
        alt: one to three sentences; a line break, as in titles, becomes a comma.

    Raises:
        ValueError: the text is empty.
    """
    import matplotlib.pyplot as plt

    text = ", ".join(filter(None, map(str.strip, alt.splitlines())))
    if not text:
        raise ValueError("alt is empty: say in a sentence or two what the figure shows")
    shell = _shell()
    if shell is None:
        plt.show()
        return
    from IPython.display import display

    drawn = plt.gcf()
    data, metadata = shell.display_formatter.format(drawn)
    plt.close(drawn)
    metadata["image/png"] = {**metadata.get("image/png", {}), "alt": text}
    display({**data, "text/plain": f"Figure: {text}"}, metadata=metadata, raw=True)


def spell(rows: Mapping[object, float | Sequence[float]], form: str = "+.1f") -> str:
    """Write named numbers as a line for `show`.

    Args:
        rows: a name for each number, or for each interval `(mean, low, high)`.
        form: how a number is written.

    Returns:
        `"a: +3.6 (+3.0 to +4.2); b: +0.1 (-0.4 to +0.6)"`.
    """
    said = []
    for name, value in rows.items():
        interval = isinstance(value, Sequence)
        number, *ends = (format(v, form) for v in (value[:3] if interval else [value]))
        said.append(f"{name}: {number}" + (f" ({' to '.join(ends)})" if ends else ""))
    return "; ".join(said)


def _shell():
    """Give the IPython shell that turns figures into PNGs, or None."""
    if "IPython" not in sys.modules:
        return None
    import matplotlib
    from IPython import get_ipython

    return get_ipython() if "inline" in matplotlib.get_backend() else None


def probability_bars(
    axes: Axes, probs: Tensor, class_names: Sequence[str], title: str = "", color: str = BLUE
) -> None:
    """Draw one distribution as horizontal bars, `(C,)`."""
    axes.barh(range(len(class_names)), probs.tolist(), color=color)
    axes.set_yticks(range(len(class_names)), class_names)
    axes.invert_yaxis()
    axes.set_xlim(0, 1)
    axes.set_xlabel("probability")
    axes.grid(axis="y", visible=False)
    axes.set_title(title)


def lines_with_intervals(
    axes: Axes, x: Sequence, series: Mapping[str, Sequence[tuple[float, float, float]]]
) -> None:
    """Draw lines whose points are `(mean, low, high)`, with the interval as a bar.

    Args:
        axes: where.
        x: positions, or labels.
        series: a name for each line, and its points.
    """
    markers = "osD^vP"
    for number, (name, points) in enumerate(series.items()):
        mean = [p[0] for p in points]
        spread = [[p[0] - p[1] for p in points], [p[2] - p[0] for p in points]]
        marker = markers[number % len(markers)]
        axes.errorbar(x, mean, yerr=spread, marker=marker, capsize=3, label=name)
    axes.legend()


def intervals(axes: Axes, rows: Mapping[str, tuple[float, float, float]], unit: str) -> None:
    """Draw one horizontal interval for each row, with a line at zero.

    Args:
        axes: where.
        rows: a name for each, and `(mean, low, high)`.
        unit: of the axis.
    """
    for y, (mean, low, high) in enumerate(rows.values()):
        color = GREEN if low > 0 else VERMILLION if high < 0 else BLACK
        axes.plot([low, high], [y, y], color=color, lw=2)
        axes.plot(mean, y, "o", color=color)
    axes.axvline(0, color=BLACK, lw=0.8)
    axes.set_yticks(range(len(rows)), rows.keys())
    axes.set_ylim(len(rows) - 0.5, -0.5)
    axes.set_xlabel(unit)


def reliability(axes: Axes, count: Tensor, confidence: Tensor, accuracy: Tensor) -> None:
    """Draw a reliability diagram from the three tensors of `kdlib.evaluation.reliability_bins`.

    A point is a bin; its area is the share of predictions in it. On the diagonal, the network is
    right as often as it says.
    """
    full = count > 0
    share = 900 * count[full] / count.sum()
    axes.plot([0, 1], [0, 1], color=BLACK, lw=0.8)
    axes.vlines(confidence[full], confidence[full], accuracy[full], color=VERMILLION, lw=2)
    axes.scatter(
        confidence[full], accuracy[full], s=share.clamp_min(6), color=BLUE, alpha=0.7, clip_on=False
    )
    axes.set_xlim(0, 1.02)
    axes.set_ylim(0, 1.02)
    axes.set_xlabel("confidence")


def image_row(images: Tensor, titles: Sequence[str] = (), height: float = 1.9) -> Figure:
    """Show images `(N, 1, side, side)` in a row, with a title each."""
    drawn, all_axes = figure(len(images), height=height, squeeze=False)
    for number, (axes, image) in enumerate(zip(all_axes[0], images, strict=True)):
        axes.imshow(image[0].numpy(), cmap="gray_r")
        axes.set_axis_off()
        if titles:
            axes.set_title(titles[number], fontsize=9)
    return drawn


def class_heatmap(axes: Axes, table: Tensor, class_names: Sequence[str], label: str) -> None:
    """Show a `(C, C)` table with its numbers in percent; rows are true classes."""
    axes.imshow(table.numpy(), cmap="Blues", vmin=0)
    names = list(class_names)
    axes.set_xticks(range(len(names)), names, rotation=45, ha="right")
    axes.set_yticks(range(len(names)), names)
    axes.set_xlabel(label)
    axes.set_ylabel("true class")
    axes.grid(visible=False)
    half = float(table.max()) / 2
    for i, row in enumerate(table.tolist()):
        for j, value in enumerate(row):
            if i != j:
                color = "white" if value > half else "black"
                axes.text(
                    j, i, f"{100 * value:.0f}", ha="center", va="center", color=color, fontsize=7
                )


def image_grid(rows: Mapping[str, Tensor], titles: Sequence[str] = (), height: float = 1.15):
    """Show rows of images `(N, H, W)` under one another, each row with its name.

    Args:
        rows: a name for each row, and its images; the first row in grey, each image with a colour
            scale of its own.
        titles: of the columns.
        height: inches for each row.

    Returns:
        The figure.
    """
    import matplotlib.pyplot as plt

    _use_style()
    columns = max(len(images) for images in rows.values())
    size = (7.0, height * len(rows) + 0.3)
    drawn, all_axes = plt.subplots(
        len(rows), columns, figsize=size, squeeze=False, layout="constrained"
    )
    for number, (name, images) in enumerate(rows.items()):
        line = all_axes[number]
        for axes, image in zip(line, images, strict=True):
            axes.imshow(image.numpy(), cmap="viridis" if number else "gray_r")
            axes.set_xticks([])
            axes.set_yticks([])
            axes.spines[:].set_visible(True)
        line[0].set_ylabel(name, rotation=0, ha="right", va="center", fontsize=9)
    for axes, title in zip(all_axes[0], titles, strict=False):
        axes.set_title(title, fontsize=9)
    return drawn
