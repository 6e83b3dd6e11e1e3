"""Plots in one look: colour-blind safe (Okabe and Ito), labelled axes, readable at 700 pixels."""

from __future__ import annotations

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
    from cycler import cycler

    plt.rcParams.update({**_STYLE, "axes.prop_cycle": cycler(color=PALETTE)})
    return plt.subplots(1, columns, figsize=(width, height), layout="constrained", **kwargs)


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

    columns = max(len(images) for images in rows.values())
    size = (7.0, height * len(rows) + 0.3)
    drawn, all_axes = plt.subplots(
        len(rows), columns, figsize=size, squeeze=False, layout="constrained", dpi=90
    )
    for number, (name, images) in enumerate(rows.items()):
        line = all_axes[number]
        for axes, image in zip(line, images, strict=True):
            axes.imshow(image.numpy(), cmap="viridis" if number else "gray_r")
            axes.set_xticks([])
            axes.set_yticks([])
        line[0].set_ylabel(name, rotation=0, ha="right", va="center", fontsize=9)
    for axes, title in zip(all_axes[0], titles, strict=False):
        axes.set_title(title, fontsize=9)
    return drawn
