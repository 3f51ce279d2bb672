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

_QUALITY = 60
"""Of maps as WebP: nothing that a person sees is lost, and a third is left of the lossless file."""
_PICTURE_QUALITY = 80
"""Of pictures with text."""


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


def map_uri(colours: UInt8[np.ndarray, "row column 3"]) -> str:
    """Colours of a map as a data URI.

    Args:
        colours: Red, green and blue, the highest row first.
    """
    return _webp(Image.fromarray(colours), _QUALITY)


def picture_uri(path: Path) -> tuple[str, int, int]:
    """A picture file as a data URI, with its width and height in pixels."""
    with Image.open(path) as image:
        return _webp(image.convert("RGB"), _PICTURE_QUALITY, effort=0), *image.size


def _webp(image: Image.Image, quality: int, effort: int = 2) -> str:
    stream = io.BytesIO()
    image.save(stream, "WEBP", quality=quality, method=effort)
    return f"data:image/webp;base64,{base64.b64encode(stream.getvalue()).decode('ascii')}"
