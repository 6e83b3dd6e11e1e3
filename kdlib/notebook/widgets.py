"""Sliders, always beside a static figure that says the same."""

from __future__ import annotations

from collections.abc import Callable


def slider(
    draw: Callable[[float], None],
    name: str,
    low: float,
    high: float,
    value: float,
    step: float,
) -> None:
    """Show a slider that calls `draw` with its number.

    Where nobody can move it (nbclient, nbgrader, a page on the web) the widget's output is only
    its text, which is why a static figure stands beside each.

    Args:
        draw: draws a figure for one number and shows it.
        name: shown to the left.
        low: smallest number.
        high: largest number.
        value: to begin with.
        step: between two positions.
    """
    try:
        import ipywidgets
    except ImportError:
        print("Sliders need ipywidgets: pip install ipywidgets")
        return
    ipywidgets.interact(
        lambda **number: draw(number[name]),  # draw may call its argument what it likes
        **{
            name: ipywidgets.FloatSlider(
                value=value, min=low, max=high, step=step, continuous_update=False
            )
        },
    )
