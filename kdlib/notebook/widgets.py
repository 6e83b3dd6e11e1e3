"""Live knobs under a picture, and the picture alone where nobody can turn them."""

from __future__ import annotations

import sys
from collections.abc import Callable

from kdlib.bar import watched


def knobs(draw: Callable[..., None], **controls: tuple | list | bool) -> None:
    """Show one control for each argument of `draw`, and call it again when one is moved.

    Where nobody can move them, `draw` shows its picture for the values that they begin with; the
    same picture is stored beside the controls, for whoever opens the saved notebook.

        knobs(show, T=(0.5, 20.0, 4.0, 0.5), divergence=["forward KL", "reverse KL"])

    Args:
        draw: draws a figure for these values and shows it (`plots.show`), or prints; well within a
            second, as it runs whenever somebody lets go of a slider.
        **controls: the name of an argument of `draw`, and a slider `(low, high, start, step)`, a
            list of choices of which the first is the start, or True or False for a box to tick.

    Raises:
        ValueError: there is no control, a slider's start lies outside, or a list is empty.
    """
    if not controls:
        raise ValueError("knobs needs a control, such as T=(0.5, 20.0, 4.0, 0.5)")
    values = {name: _start(name, control) for name, control in controls.items()}
    if "ipykernel" not in sys.modules or not watched():
        draw(**values)
        return
    try:
        import ipywidgets
    except ImportError:
        print("Knobs need ipywidgets: pip install ipywidgets")
        draw(**values)
        return
    from IPython.display import display
    from IPython.utils.capture import capture_output

    with capture_output() as still:
        draw(**values)
    widgets = {name: _widget(control, ipywidgets) for name, control in controls.items()}
    panel = ipywidgets.interactive(draw, **widgets)
    data, metadata = {**panel._repr_mimebundle_(), "text/plain": still.stdout}, {}
    for picture in still.outputs:
        data, metadata = {**data, **picture.data}, {**metadata, **picture.metadata}
    display(data, metadata=metadata, raw=True)


def _start(name: str, control: tuple | list | bool):
    if isinstance(control, bool):
        return control
    if isinstance(control, list) and control:
        return control[0]
    if isinstance(control, tuple) and len(control) == 4:
        low, high, start, step = control
        if low <= start <= high and step > 0:
            return start
    raise ValueError(
        f"{name} must be (low, high, start, step), a list of choices, or a bool, got {control!r}"
    )


def _widget(control: tuple | list | bool, ipywidgets):
    if isinstance(control, bool):
        return ipywidgets.Checkbox(value=control)
    if isinstance(control, list):
        return ipywidgets.Dropdown(options=control)
    whole = all(isinstance(number, int) for number in control)
    slider = ipywidgets.IntSlider if whole else ipywidgets.FloatSlider
    low, high, start, step = control
    return slider(value=start, min=low, max=high, step=step, continuous_update=False)
