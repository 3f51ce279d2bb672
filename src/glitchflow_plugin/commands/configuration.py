"""The configuration of a run folder as `itwinai exec-pipeline` composes it; what does not compose is told in words."""

import os
import pickle
import re
from collections.abc import Sequence
from contextlib import chdir
from pathlib import Path
from typing import TYPE_CHECKING, Any

from glitchflow_plugin.errors import ConfigurationError, nearest

if TYPE_CHECKING:
    from omegaconf import DictConfig

CONFIG_NAME = "config.yaml"
CONF_FOLDER = "conf"
#: Groups of files of which one is chosen by name.
_GROUPS = ("conf/profile", "conf/model")
#: Keys of itwinai, which no file of conf/ has.
_ADDED = ("pipe_key", "pipe_steps")
#: What hydra says of an override whose key is not there,
_UNKNOWN = re.compile(r"Could not (?:override|delete from config\.) '([^']+)'")
#: of a group of conf/, or a key, that is added again,
_TWICE = re.compile(r"Multiple values for ([^.\s]+)\.")
_THERE = re.compile(r"An item is already at '([^']+)'")
#: and of a section that has the name of a folder, which it takes for a choice between files.
_FOLDER = re.compile(r"No match in the defaults list|Config group override must be")
#: A value that is another one.
_SAME = re.compile(r"\$\{(\w[\w.]*)\}")


def compose(folder: Path, overrides: Sequence[str] = ()) -> "DictConfig":
    """The configuration as `itwinai exec-pipeline` sees it when run in a folder.

    Args:
        folder: The folder that holds config.yaml.
        overrides: Hydra overrides, for instance `run_name=test`.

    Returns:
        The configuration; interpolations are resolved when they are read.

    Raises:
        ConfigurationError: There is no config.yaml, or the files do not fit together.
    """
    from hydra import compose as hydra_compose
    from hydra import initialize_config_dir
    from hydra.errors import HydraException
    from omegaconf import OmegaConf
    from omegaconf.errors import OmegaConfBaseException
    from yaml import YAMLError

    folder = folder.resolve()
    if not (folder / CONFIG_NAME).is_file():
        raise ConfigurationError(
            f"{folder} has no {CONFIG_NAME}. Go to the run folder, or make one: glitchflow init FOLDER"
        )
    # itwinai registers these when it runs a pipeline; a configuration may use them.
    OmegaConf.register_new_resolver("itwinai.cwd", os.getcwd, replace=True)
    OmegaConf.register_new_resolver("itwinai.multiply", lambda x, y: x * y, replace=True)
    name = Path(CONFIG_NAME).stem
    # Paths in the configuration, its search path among them, count from the run folder.
    with chdir(folder), initialize_config_dir(config_dir=str(folder), version_base=None):
        try:
            return hydra_compose(name, overrides=list(overrides))
        except (HydraException, OmegaConfBaseException, YAMLError, ValueError) as error:
            if _FOLDER.search(str(error)):
                reason = _whole_section(overrides, folder)
            elif unknown := _UNKNOWN.search(str(error)):  # what else there is, is known without the overrides
                files = [word for word in overrides if word.partition("=")[0] in _GROUPS]
                reason = _no_such_key(unknown.group(1), hydra_compose(name, files))
            else:
                reason = _no_such_file(error)
            reason = reason or _no_text(folder, error) or " ".join(str(error).split())
            raise ConfigurationError(f"The configuration in {folder} does not compose: {reason}") from error


def parse_once() -> None:
    """From now on a file is parsed again in this process only when it has changed.

    Hydra composes three times at each start of a pipeline, and this package once, of some fifty files each; parsing
    takes half of that.
    """
    from omegaconf import OmegaConf

    load = OmegaConf.load
    parsed: dict[tuple[object, ...], bytes] = {}

    def load_once(file_: Any) -> Any:
        try:
            found = os.fstat(file_.fileno())
        except (AttributeError, OSError):  # a path, or text that lies in no file
            return load(file_)
        version = file_.name, found.st_ino, found.st_mtime_ns, found.st_size
        if version not in parsed:
            parsed[version] = pickle.dumps(load(file_))
        # hydra takes the defaults out of what it is given; to unpickle is a tenth of the work of a deep copy
        return pickle.loads(parsed[version])  # noqa: S301  # our own

    OmegaConf.load = load_once


def _no_such_file(error: Exception) -> str:
    """What to say of a profile, or another file of conf/, that is not there, or is asked for twice."""
    options = getattr(error, "options", None)
    if there := _THERE.search(str(error)):
        return f"{there.group(1)} is there already, so it is set without a plus: {there.group(1)}=VALUE."
    if twice := _TWICE.search(str(error)):
        return f"{twice.group(1)} is there already, so it is set without a plus: {twice.group(1)}=NAME."
    if not options:
        return ""
    group, _, wanted = str(getattr(error, "missing_cfg_file", "")).rpartition("/")
    what = {"conf/profile": "profile", "conf/model": "network"}.get(group, f"file in {group}")
    advice = " Where none is named, the files of conf/ apply as they are." if what == "profile" else ""
    return f"there is no {what} {wanted!r}.{nearest(wanted, options)} There are {', '.join(options)}.{advice}"


def _no_text(folder: Path, error: Exception) -> str:
    """Which file of the configuration is in another encoding, where that is the trouble."""
    if not isinstance(error, UnicodeDecodeError):
        return ""
    for file in (folder / CONFIG_NAME, *sorted((folder / CONF_FOLDER).rglob("*.yaml"))):
        try:
            file.read_text(encoding="utf-8")
        except UnicodeDecodeError as wrong:
            line = file.read_bytes()[: wrong.start].count(b"\n") + 1
            return f"{file} is no UTF-8 in line {line}. Save it as UTF-8."
    return ""


def _whole_section(overrides: Sequence[str], folder: Path) -> str:
    """What to say where a section that is called like a folder is set as a whole; empty if none is."""
    for word in overrides:
        key = word.partition("=")[0].lstrip("+~")
        if (folder / key).is_dir() and (folder / CONF_FOLDER / f"{key}.yaml").is_file():
            return (
                f"{word}: {key} cannot be set as a whole here, because a folder is called so. Set single values "
                f"({key}.KEY=VALUE, in a list {key}.0.KEY=VALUE), or edit conf/{key}.yaml."
            )
    return ""


def _no_such_key(key: str, config: "DictConfig") -> str:
    """What to say of an override whose key the configuration does not have."""
    from omegaconf import OmegaConf

    from glitchflow_plugin.settings import former

    if key in _ADDED:
        return f"{key} is in no file of conf/, so it is added by a plus: +{key}=..."
    content: object = OmegaConf.to_container(config, resolve=False)
    parts, above = key.split("."), ""
    for place, part in enumerate(parts):
        if not isinstance(content, dict):
            if same := _SAME.fullmatch(str(content)):
                there = ".".join([same.group(1), *parts[place:]])
                return _no_such_key(there, config) or f"{above} is what {same.group(1)} is: set {there}."
            return f"{above} has no keys of its own, got {key!r}."
        if part not in content:
            known = [*map(str, content), *(() if above else _GROUPS)]
            where = above or CONFIG_NAME
            others = _networks_with(part) if above == "model" else []
            other = f" The networks {', '.join(others)} have it: conf/model=NAME." if others else ""
            return former(above, part) or (
                f"{where} has no key {part!r}.{nearest(part, known)} It has {', '.join(known)}.{other}"
            )
        content, above = content[part], f"{above}.{part}".lstrip(".")
    return ""


def _networks_with(key: str) -> list[str]:
    """Files of conf/model/, in the folder where this process is, whose network has a setting."""
    from omegaconf import OmegaConf

    files = sorted(Path(CONF_FOLDER, "model").glob("*.yaml"))
    return [file.stem for file in files if OmegaConf.select(OmegaConf.load(file), f"model.{key}") is not None]
