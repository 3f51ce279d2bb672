"""A registered model as one file for other tools."""

import tempfile
from typing import Literal

from glitchflow_plugin.errors import RegistryError
from glitchflow_plugin.tracking.trigger_models import PROGRAM_FILE, load_trigger_model
from glitchflow_plugin.tracking.versions import ModelVersion, fetch, find, read_description

#: Where the program of a version lies: of a model of triggers, and of a twin.
_PROGRAMS = (PROGRAM_FILE, "data/model.pt2")

Format = Literal["pt2", "onnx"]


def export(name: str, version_or_alias: int | str, tracking_uri: str, kind: Format) -> tuple[bytes, ModelVersion, str]:
    """The file, which version it is of, and what is told of it.

    A program (pt2) is the one that was registered. ONNX is made of networks of triggers, and compared with them.

    Args:
        name: Name of the registered model.
        version_or_alias: A number or an alias.
        tracking_uri: Address of the registry.
        kind: Format of the file.

    Raises:
        RegistryError: There is no such version, or it cannot be had in this format.
        FormatError: Its files are not those that were registered.
        MissingDependencyError: The extra `onnx` is not installed.
        DataError: ONNX does not answer as the network.
    """
    version = find(name, version_or_alias, tracking_uri)
    of = f"version {version.version} of {name}"
    if kind == "onnx":
        if read_description(version).get("kind") != "triggers":
            raise RegistryError(f"expected a model of triggers for ONNX, but {of} is a twin. Export it as pt2.")
        content, away = load_trigger_model(name, version.version, tracking_uri)[0].onnx()
        return content, version, f"answers differ by {away:.1g} of their size at most"
    with tempfile.TemporaryDirectory() as temporary:
        folder = fetch(name, version.version, temporary, tracking_uri)
        program = next((folder / one for one in _PROGRAMS if (folder / one).is_file()), None)
        if program is None:
            raise RegistryError(
                f"{of} has no program: trees are none, nor were networks of triggers given one by older releases. "
                "Choose another version: glitchflow models list."
            )
        return program.read_bytes(), version, "as registered"
