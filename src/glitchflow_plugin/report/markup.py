"""Templates, filled in: whatever comes from data, settings or files is escaped."""

import base64
import io
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import UInt8
from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup
from PIL import Image


@cache
def _environment() -> Environment:
    return Environment(
        loader=PackageLoader("glitchflow_plugin.report"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )


def rendered(template: str, **content: Any) -> Markup:
    """A template of this room, filled in; values are escaped unless they are `Markup`.

    Args:
        template: Name of the file in `templates/`.
        content: Values by the name under which the template knows them.
    """
    return Markup(_environment().get_template(template).render(**content))  # noqa: S704  # the template has escaped them


def map_uri(levels: UInt8[np.ndarray, "row column"], colours: UInt8[np.ndarray, "level 3"]) -> str:
    """A map as a data URI, pixel for pixel.

    Args:
        levels: Which colour each pixel has, the highest row first.
        colours: Red, green and blue.
    """
    image = Image.fromarray(levels)
    image.putpalette(colours.ravel().tolist())
    return _uri(image, "png")


def picture_uri(path: Path) -> tuple[str, int, int]:
    """A picture file as a data URI, with its width and height in pixels."""
    with Image.open(path) as image:
        return _uri(image.convert("RGB"), "webp", quality=80, method=0), *image.size


def _uri(image: Image.Image, kind: str, **options: Any) -> str:
    stream = io.BytesIO()
    image.save(stream, kind, **options)
    return f"data:image/{kind};base64,{base64.b64encode(stream.getvalue()).decode('ascii')}"
