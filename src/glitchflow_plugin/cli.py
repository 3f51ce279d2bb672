"""The command `glitchflow`: small helpers around the pipelines; running them stays with `itwinai exec-pipeline`.

glitchflow init FOLDER      copy config.yaml, conf/ and slurm/ into a folder and make its run folders
glitchflow new FOLDER --data PATH...   look at your own data and make a run folder whose settings fit them
glitchflow check            is everything there that the pipelines need?
glitchflow show PATH...     print run summaries as tables
glitchflow folders FOLDER   make the run folders that conf/saveconf.yaml names
glitchflow models ...       list, compare, promote, roll back, upload and relocate models; rename or drop what waits
"""

import argparse
import os
import re
import shlex
import shutil
import sys
from collections.abc import Iterator, Sequence
from contextlib import chdir
from dataclasses import dataclass
from importlib import metadata
from importlib.util import cache_from_source, find_spec
from pathlib import Path
from typing import Any

from glitchflow_plugin import __version__
from glitchflow_plugin.data.names import LONGEST_MODEL, check_alias, check_name
from glitchflow_plugin.errors import ConfigurationError, GlitchflowError, nearest
from glitchflow_plugin.products.console import never_fail_on_output
from glitchflow_plugin.products.summary import SUMMARY_NAME, format_summary, read_summary

CONFIG_NAME = "config.yaml"
CONF_FOLDER = "conf"
BATCH_FOLDER = "slurm"
#: What a run of the demo leaves on disk, with room to spare, in GB.
MIN_FREE_GB = 2.0
#: Keys of conf/saveconf.yaml that hold an address or a name.
_NO_FOLDERS = ("tracking_uri", "registered_model")
#: Key of an override that hydra refuses.
_OVERRIDE = re.compile(r"Could not (?:override|delete from config\.) '([^']+)'")
#: Group of conf/ that hydra refuses to add again.
_TWICE = re.compile(r"Multiple values for ([^.\s]+)\.")
#: Key that hydra refuses to add again.
_THERE = re.compile(r"An item is already at '([^']+)'")
#: What hydra says of a section that has the name of a folder, which it takes for a choice between files.
_FOLDER = re.compile(r"No match in the defaults list|Config group override must be")
#: Keys of itwinai, which no file of conf/ has.
_ADDED = ("pipe_key", "pipe_steps")
#: Groups of files of which one is chosen by name.
_GROUPS = ("conf/profile", "conf/model")
_PIPELINES = ("itwinai.pipeline.Pipeline", "glitchflow_plugin.components.pipeline.NamedPipeline")


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command.

    Args:
        arguments: Words of the command line without the program's name; default: those of this process.

    Returns:
        Exit status: 0 success, 1 a failure that the message explains, 2 a wrong command line, 130 Ctrl-C.
    """
    never_fail_on_output()
    options = _parser().parse_args(arguments)
    try:
        return options.run(options)
    except KeyboardInterrupt:
        print("glitchflow: ended by Ctrl-C.", file=sys.stderr)
        return 130
    except BrokenPipeError:  # whoever reads has seen enough: glitchflow show ... | head
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 1
    except GlitchflowError as error:
        print(f"glitchflow: {error}", file=sys.stderr)
        return 1
    except OSError as error:
        place = f"{error.filename}: " if error.filename else ""
        print(f"glitchflow: {place}{error.strerror or error}. Check the path and its permissions.", file=sys.stderr)
        return 1


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="glitchflow", description="Helpers around the pipelines, which `itwinai exec-pipeline` runs."
    )
    parser.add_argument("--version", action="version", version=f"glitchflow_plugin {__version__}")
    commands = parser.add_subparsers(required=True, metavar="COMMAND")

    init = commands.add_parser("init", help="copy config.yaml, conf/ and slurm/ into a folder and make its run folders")
    init.add_argument("folder", type=Path)
    init.add_argument("--force", action="store_true", help="replace configuration files that are there already")
    init.set_defaults(run=_init)

    new = commands.add_parser("new", help="look at your own data and make a run folder whose settings fit them")
    new.add_argument("folder", type=Path)
    new.add_argument(
        "--data", type=Path, nargs="+", required=True, metavar="PATH", help="files, folders, patterns or cache files"
    )
    new.add_argument("--triggers", type=Path, help="GPS times of events: a table, a folder or a pattern")
    new.add_argument("--target", help="the strain channel (default: told by its name)")
    new.add_argument("--force", action="store_true", help="replace configuration files that are there already")
    new.set_defaults(run=_new)

    check = commands.add_parser("check", help="is everything there that the pipelines need?")
    check.add_argument("folder", type=Path, nargs="?", default=Path(), help="folder with config.yaml (default: here)")
    check.add_argument("overrides", nargs="*", help="configuration overrides, as for exec-pipeline: run_name=test")
    check.set_defaults(run=_check)

    show = commands.add_parser("show", help="print run summaries as tables")
    show.add_argument("paths", type=Path, nargs="+", metavar="PATH", help="a summary.json or a folder with summaries")
    show.add_argument("--newest", action="store_true", help="of each folder only the newest")
    show.set_defaults(run=_show)

    folders = commands.add_parser("folders", help="make the run folders that conf/saveconf.yaml names")
    folders.add_argument("folder", type=Path, nargs="?", default=Path(), help="folder with config.yaml (default: here)")
    folders.set_defaults(run=_folders)
    _models_parser(
        commands.add_parser(
            "models", help="list, compare, promote, roll back, upload, relocate, rename and drop models"
        )
    )
    return parser


def _models_parser(models: argparse.ArgumentParser) -> None:
    actions = models.add_subparsers(required=True, metavar="ACTION")

    def add(name: str, run: Any, text: str) -> argparse.ArgumentParser:
        action = actions.add_parser(name, help=text)
        action.add_argument("--tracking-uri", help="of the registry (default: conf/registry.yaml here, or mlflow.db)")
        action.set_defaults(run=run)
        return action

    listing = add("list", _models_list, "versions, aliases, figures, and why each became champion or not")
    listing.add_argument("name", nargs="?", help="registered model (default: all)")
    comparing = add("compare", _models_compare, "figures side by side, and where the recipes differ")
    comparing.add_argument("versions", nargs=2, metavar="NAME/VERSION", help="VERSION is a number or an alias")
    promoting = add("promote", _models_promote, "make a version champion by hand")
    promoting.add_argument("name")
    promoting.add_argument("version", help="a number or an alias")
    going_back = add("rollback", _models_rollback, "make the former champion champion again")
    going_back.add_argument("name")
    for action in (promoting, going_back):
        action.add_argument("--reason", default="by hand", help="kept with the version")
        action.add_argument("--alias", default="champion")
    uploading = add("upload", _models_upload, "register what training kept while the registry was down")
    relocating = add("relocate", _models_relocate, "go on with a registry whose folder or files were moved or copied")
    relocating.add_argument(
        "--artifacts",
        type=Path,
        metavar="FOLDER",
        help="where the files are now (default: looked for beside the database)",
    )
    renaming = add("rename", _models_rename, "give what waits in the outbox another name in the registry")
    dropping = add("drop", _models_drop, "remove what waits in the outbox; what it holds is lost")
    for action in (renaming, dropping):
        action.add_argument("entry", help="as `glitchflow models upload` calls it, the name of its folder")
    renaming.add_argument("name", help="of the registered model")
    renaming.add_argument("--alias", help="another alias for it, should it become champion")
    for action in (uploading, renaming, dropping):
        action.add_argument("--outbox", type=Path, help="default: outbox in conf/registry.yaml here, or ./outbox")


# ---------------------------------------------------------------------------------------------------- init, folders


def default_configuration() -> Path:
    """The folder that holds the config.yaml, conf/ and slurm/ that come with this package.

    Raises:
        ConfigurationError: The installation is incomplete.
    """
    package = Path(__file__).parent
    for folder in (package / "defaults", package.parents[1]):  # a wheel; a development checkout
        if (folder / CONFIG_NAME).is_file() and (folder / CONF_FOLDER).is_dir():
            return folder
    raise ConfigurationError(f"No {CONFIG_NAME} was found in {package / 'defaults'}. Install glitchflow_plugin again.")


def init(folder: Path, force: bool = False) -> list[Path]:
    """Copy the default configuration and the batch scripts into a folder and make its run folders.

    Args:
        folder: Where to copy to; made if missing.
        force: Replace files that are there already. Other files are never touched.

    Returns:
        The files written.

    Raises:
        ConfigurationError: A file would be replaced and `force` is not set.
    """
    files = _to_copy(folder, force)
    for file, target in files.items():
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(file, target)
    make_run_folders(folder)
    return list(files.values())


def _to_copy(folder: Path, force: bool) -> dict[Path, Path]:
    """The default configuration's files, and where each goes."""
    source = default_configuration()
    scripts = sorted((source / BATCH_FOLDER).glob("*.s*"))
    files = [source / CONFIG_NAME, *sorted((source / CONF_FOLDER).rglob("*.yaml")), *scripts]
    targets = {file: folder / file.relative_to(source) for file in files}
    if source.resolve() == folder.resolve():
        raise ConfigurationError(f"{folder} holds the original configuration already. Choose another folder.")
    present = [target for target in targets.values() if target.exists()]
    if present and not force:
        shown = ", ".join(str(path.relative_to(folder)) for path in present[:3])
        more = f" and {len(present) - 3} more of its files" if len(present) > 3 else ""
        raise ConfigurationError(
            f"{folder} already has {shown}{more}. Choose another folder, or replace them with --force."
        )
    return targets


def compose(folder: Path, overrides: Sequence[str] = ()) -> Any:
    """The configuration as `itwinai exec-pipeline` sees it when run in a folder.

    Args:
        folder: The folder that holds config.yaml.
        overrides: Hydra overrides, for instance `run_name=test`.

    Returns:
        An OmegaConf mapping; interpolations are resolved when they are read.

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
    # Paths in the configuration, its search path among them, count from the run folder.
    with chdir(folder), initialize_config_dir(config_dir=str(folder), version_base=None):
        name = Path(CONFIG_NAME).stem
        try:
            return hydra_compose(name, overrides=list(overrides))
        except (HydraException, OmegaConfBaseException, YAMLError, ValueError) as error:
            unknown = _OVERRIDE.search(str(error))  # what else there is, is known without the overrides
            if _FOLDER.search(str(error)):
                reason = _whole_section(overrides, folder)
            else:
                files = [word for word in overrides if word.partition("=")[0] in _GROUPS]
                reason = _no_such_key(unknown.group(1), hydra_compose(name, files)) if unknown else _no_such_file(error)
            reason = reason or _no_text(folder, error) or " ".join(str(error).split())
            raise ConfigurationError(f"The configuration in {folder} does not compose: {reason}") from error


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


def _no_such_key(key: str, config: Any) -> str:
    """What to say of an override whose key the configuration does not have."""
    from omegaconf import OmegaConf

    from glitchflow_plugin.settings import former

    if key in _ADDED:
        return f"{key} is in no file of conf/, so it is added by a plus: +{key}=..."
    content: Any = OmegaConf.to_container(config, resolve=False)
    above = ""
    for part in key.split("."):
        if not isinstance(content, dict):
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


def run_folders(folder: Path) -> list[Path]:
    """The folders directly below the run folder into which conf/saveconf.yaml directs results."""
    from omegaconf import OmegaConf

    section = compose(folder).get("saveconf")
    if section is None:
        raise ConfigurationError(f"The configuration in {folder} has no section saveconf (conf/saveconf.yaml).")
    with chdir(folder):
        places = OmegaConf.to_container(section, resolve=True)
    found = set()
    for key, value in places.items() if isinstance(places, dict) else ():
        if key not in _NO_FOLDERS and isinstance(value, str) and not Path(value).is_absolute():
            found.add(folder / next(part for part in Path(value).parts if part not in (".", "..")))
    return sorted(found)


def make_run_folders(folder: Path) -> list[Path]:
    """Make the folders of `run_folders` and return them."""
    folders = run_folders(folder)
    for path in folders:
        try:
            path.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise ConfigurationError(
                f"Cannot make {path}: {error.strerror}. Check the disk and permissions."
            ) from error
    return folders


def _init(options: argparse.Namespace) -> int:
    written = init(options.folder, force=options.force)
    print(f"{len(written)} configuration files are in {options.folder.resolve()}. Next:")
    print(f"  cd {options.folder}")
    print("  glitchflow check")
    print(
        "  itwinai exec-pipeline +pipe_key=simulate_pipeline conf/profile=demo    # your own data: conf/datasets.yaml"
    )
    return 0


def _new(options: argparse.Namespace) -> int:
    from glitchflow_plugin.preprocessing.proposal import propose
    from glitchflow_plugin.preprocessing.run_folder import channel_rows, data_lines, setting_lines, write_proposal
    from glitchflow_plugin.preprocessing.survey import look

    _to_copy(options.folder, options.force)  # refused before minutes of looking
    survey = look(options.data, options.triggers)
    proposal = propose(survey, options.target)
    run_name = _run_name(options.folder)
    init(options.folder, force=options.force)
    written = write_proposal(options.folder, proposal, run_name)
    for line in data_lines(survey):
        print(line)
    print()
    _print_columns(channel_rows(survey, proposal))
    print()
    for line in setting_lines(proposal):
        print(line)
    names = ", ".join(str(path.relative_to(options.folder)) for path in written)
    print(f"\nWritten in {options.folder.resolve()}, for you to read and change: {names}. Next:")
    print(f"  cd {shlex.quote(str(options.folder))}")
    print(f"  glitchflow check {shlex.quote(f'run_name={run_name}')}")
    print(f"  itwinai exec-pipeline +pipe_key=preproc_pipeline {shlex.quote(f'run_name={run_name}')}")
    return 0


def _run_name(folder: Path) -> str:
    """The folder's own name, as far as a run can be called so."""
    name = re.sub(r"[^A-Za-z0-9._-]+", "-", folder.resolve().name).strip("-._")[:80] or "mine"
    # on the command line 12 would be a number, and null nothing
    return name if name[0].isalpha() and name.lower() not in ("null", "true", "false", "nan", "inf") else f"run-{name}"


def _folders(options: argparse.Namespace) -> int:
    made = make_run_folders(options.folder.resolve())
    print("run folders: " + ", ".join(path.name for path in made))
    return 0


# ----------------------------------------------------------------------------------------------------------- models


def _registry_key(key: str, given: Any, otherwise: str) -> str:
    """A setting: as given, or of the configuration in this folder, or the usual one."""
    if given is not None:
        return str(given)
    if not Path(CONFIG_NAME).is_file():
        return otherwise
    value = compose(Path()).get("registry", {}).get(key)
    return otherwise if value is None else str(value)


def _uri(options: argparse.Namespace) -> str:
    return _registry_key("tracking_uri", options.tracking_uri, "sqlite:///mlflow.db")


def _models_list(options: argparse.Namespace) -> int:
    from datetime import UTC, datetime

    from glitchflow_plugin.tracking.runs import tidy
    from glitchflow_plugin.tracking.versions import list_versions, model_names

    uri = _uri(options)
    tidy(uri)
    names = [options.name] if options.name else model_names(uri)
    if not names:
        print(f"No model is registered at {uri}.")
    for name in names:
        rows = [["version", "alias", "made (UTC)", "loss", "harmed", "added", "promoted: reason"]]
        for version in reversed(list_versions(name, uri)):
            made = datetime.fromtimestamp(version.created / 1000, UTC).strftime("%Y-%m-%d %H:%M")
            loss, harmed, added = (version.tags.get(key, "-") for key in ("gate_loss", "harmed_share", "added_power"))
            promoted = {True: "yes", False: "no", None: "not asked"}[version.promoted]
            why = f"{promoted}: {version.reason}" if version.reason else promoted
            rows.append([str(version.version), ",".join(version.aliases) or "-", made, loss, harmed, added, why])
        print(name)
        _print_columns(rows)
    return 0


def _models_compare(options: argparse.Namespace) -> int:
    from glitchflow_plugin.tracking.versions import differences, find, read_description

    uri = _uri(options)
    found = []
    for text in options.versions:
        name, slash, version = text.rpartition("/")
        if not slash:
            name = _registry_key("name", None, "")
        if not name:
            raise ConfigurationError(f"expected NAME/VERSION, for instance glitchflow-demo/2, got {text}.")
        found.append(find(name, version, uri))
    first, second = (read_description(version) for version in found)
    rows = [["", *(f"{version.name}/{version.version}" for version in found)]]
    rows.append(["alias", *(",".join(version.aliases) or "-" for version in found)])
    rows.append(["run", *(version.run_id or "-" for version in found)])
    judged = ("gate_loss", "harmed_share", "added_power", "added_series", "worst_growth", "signal_lost_worst")
    tags = (*judged, "code_version", "git_commit", "dataset_fingerprint")
    rows += [[key, *(version.tags.get(key, "-")[:40] for version in found)] for key in tags]
    for key in sorted({*first["metrics"], *second["metrics"]}):
        rows.append([key, *(_number(content["metrics"].get(key)) for content in (first, second))])
    _print_columns(rows)
    differing = differences(first, second)
    print("The recipes are the same." if not differing else "Differences:")
    for key, one, other in differing:
        print(f"  {key}: {one} | {other}")
    return 0


def _models_promote(options: argparse.Namespace) -> int:
    from glitchflow_plugin.tracking.versions import promote

    now = promote(options.name, options.version, _uri(options), alias=options.alias, reason=options.reason)
    print(f"{now.name} version {now.version} is {options.alias} now. To undo: glitchflow models rollback {now.name}")
    return 0


def _models_rollback(options: argparse.Namespace) -> int:
    from glitchflow_plugin.tracking.versions import rollback

    now = rollback(options.name, _uri(options), alias=options.alias, reason=options.reason)
    print(f"{now.name} version {now.version} is {options.alias} again.")
    return 0


def _models_upload(options: argparse.Namespace) -> int:
    from glitchflow_plugin.tracking.outbox import survey, upload
    from glitchflow_plugin.tracking.runs import tidy

    outbox = _registry_key("outbox", options.outbox, "outbox")
    entries, damaged = survey(outbox)
    troubles = [str(error) for error in damaged]
    if not entries and not damaged:
        print(f"Nothing waits in {outbox}.")
    registries: dict[str, None] = {}
    for entry in entries:
        try:
            version = upload(entry)
        except GlitchflowError as error:
            troubles.append(f"{entry.id} was not uploaded: {error}")
            continue
        registries[version.tracking_uri] = None
        state = "champion" if version.promoted else f"not champion ({version.reason})"
        print(f"{entry.id}: {version.name} version {version.version} at {version.tracking_uri}, {state}")
    for uri in registries:
        try:
            tidy(uri)
        except GlitchflowError as error:
            troubles.append(str(error))
    for trouble in troubles:
        print(f"glitchflow: {trouble}", file=sys.stderr)
    return 1 if troubles else 0


def _models_relocate(options: argparse.Namespace) -> int:
    from tempfile import TemporaryDirectory

    from glitchflow_plugin.tracking.relocation import relocate
    from glitchflow_plugin.tracking.versions import fetch, list_versions, model_names

    uri, troubles = _uri(options), []
    for move in relocate(uri, options.artifacts):
        print(f"{move.old} is now {move.new}")
    for version in [version for name in model_names(uri) for version in list_versions(name, uri)]:
        try:
            with TemporaryDirectory() as folder:
                fetch(version.name, version.version, folder, uri)
        except GlitchflowError as error:
            troubles.append(str(error))
        else:
            print(f"{version.name} version {version.version}: the files are those that were registered")
    for trouble in troubles:
        print(f"glitchflow: {trouble}", file=sys.stderr)
    return 1 if troubles else 0


def _models_rename(options: argparse.Namespace) -> int:
    from glitchflow_plugin.tracking.outbox import rename

    check_name(options.name, "name", LONGEST_MODEL)
    if options.alias is not None:
        check_alias(options.alias, "--alias")
    outbox = _registry_key("outbox", options.outbox, "outbox")
    entry = rename(outbox, options.entry, options.name, options.alias)
    print(f"{entry.id} will be registered as {options.name}: glitchflow models upload --outbox {outbox}")
    return 0


def _models_drop(options: argparse.Namespace) -> int:
    from glitchflow_plugin.tracking.outbox import drop

    outbox = _registry_key("outbox", options.outbox, "outbox")
    drop(outbox, options.entry)
    print(f"{options.entry} is removed from {outbox}.")
    return 0


def _number(value: Any) -> str:
    return "-" if value is None else f"{value:.6g}"


def _print_columns(rows: Sequence[Sequence[str]]) -> None:
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]) - 1)]
    for row in rows:
        print("  ".join([*(text.ljust(width) for text, width in zip(row, widths, strict=False)), row[-1]]).rstrip())


# ------------------------------------------------------------------------------------------------------------- show


def _show(options: argparse.Namespace) -> int:
    for path in options.paths:
        found = _summaries(path)
        for summary in found[-1:] if options.newest else found:
            print(format_summary(read_summary(summary), place=summary.parent))
    return 0


def _summaries(path: Path) -> list[Path]:
    """A summary file itself, or the summaries below a folder, oldest first."""
    if not path.is_dir():
        return [path]
    found = sorted(path.rglob(SUMMARY_NAME), key=lambda file: (file.stat().st_mtime, file))
    if not found:
        raise ConfigurationError(f"There is no {SUMMARY_NAME} in {path} or below. Run a pipeline first.")
    return found


# ------------------------------------------------------------------------------------------------------------ check


@dataclass(frozen=True)
class Finding:
    """One line of `glitchflow check`.

    Attributes:
        level: "ok", "note" (works without it) or "ERROR" (pipelines will fail).
        subject: What was looked at.
        detail: What was found, and what to do.
    """

    level: str
    subject: str
    detail: str


def check(folder: Path, overrides: Sequence[str] = ()) -> list[Finding]:
    """Look at everything the pipelines need.

    Args:
        folder: The run folder, which holds config.yaml.
        overrides: Hydra overrides.

    Returns:
        All findings, whether good or bad.
    """
    findings: list[Finding] = []
    for part in (_check_python, _check_packages, _check_optional, _check_device):
        findings.extend(part())
    findings.extend(_check_configuration(folder, overrides))
    findings.extend(_check_disk(folder))
    return findings


def _check(options: argparse.Namespace) -> int:
    folder, overrides = options.folder, list(options.overrides)
    if "=" in str(folder):  # `glitchflow check run_name=test`: an override, no folder
        folder, overrides = Path(), [str(options.folder), *overrides]
    findings = check(folder, overrides)
    width = max(len(finding.subject) for finding in findings)
    for finding in findings:
        print(f"{finding.level:5}  {finding.subject:{width}}  {finding.detail}")
    errors = sum(finding.level == "ERROR" for finding in findings)
    print(f"{errors} error(s)" if errors else "Everything needed is there.")
    return 1 if errors else 0


def _check_python() -> Iterator[Finding]:
    version = ".".join(map(str, sys.version_info[:3]))
    supported = (3, 11) <= sys.version_info[:2] <= (3, 12)
    yield Finding(
        "ok" if supported else "ERROR", "Python", version if supported else f"{version}; 3.11 or 3.12 is needed"
    )
    spec = find_spec("torch")
    if spec and spec.origin and sys.dont_write_bytecode and not Path(cache_from_source(spec.origin)).exists():
        yield Finding("note", "byte code", "not cached: every start takes 30 s more; unset PYTHONDONTWRITEBYTECODE")


def _check_packages() -> Iterator[Finding]:
    from packaging.requirements import Requirement

    try:
        requirements = [Requirement(line) for line in metadata.requires("glitchflow_plugin") or []]
    except metadata.PackageNotFoundError:
        yield Finding("ERROR", "glitchflow_plugin", "not installed; run ./setup.sh or pip install glitchflow_plugin")
        return
    yield Finding("ok", "glitchflow_plugin", __version__)
    for requirement in requirements:
        if requirement.marker and not requirement.marker.evaluate({"extra": ""}):
            continue
        try:
            version = metadata.version(requirement.name)
        except metadata.PackageNotFoundError:
            yield Finding("ERROR", requirement.name, f"missing; {requirement} is needed. Run ./setup.sh")
            continue
        fits = requirement.specifier.contains(version, prereleases=True)
        yield Finding(
            "ok" if fits else "ERROR",
            requirement.name,
            version if fits else f"{version}; {requirement.specifier} is needed. Run ./setup.sh",
        )


def _check_optional() -> Iterator[Finding]:
    optional = (
        ("GWF frames", "lalframe", "pip install 'glitchflow_plugin[frames]' (lalsuite, GPL); HDF5 works without"),
        ("NDS2 client", "nds2", "from conda-forge: python-nds2-client; needed only to read from NDS2 servers"),
    )
    for subject, module, advice in optional:
        there = find_spec(module) is not None
        yield Finding("ok" if there else "note", subject, f"{module} is there" if there else f"not there: {advice}")
    server = os.environ.get("GWDATAFIND_SERVER")
    yield Finding(
        "ok" if server else "note", "datafind", server or "GWDATAFIND_SERVER is not set; needed only for datafind"
    )


def _check_device() -> Iterator[Finding]:
    try:
        import torch
    except (ImportError, OSError) as error:
        yield Finding("ERROR", "device", f"torch cannot be imported: {error}")
        return
    if torch.cuda.is_available():
        yield Finding("ok", "device", f"cuda: {torch.cuda.get_device_name(0)}")
    else:
        yield Finding("ok", "device", f"cpu with {torch.get_num_threads()} threads (no CUDA device)")


def _check_configuration(folder: Path, overrides: Sequence[str]) -> Iterator[Finding]:
    from omegaconf import OmegaConf
    from omegaconf.errors import OmegaConfBaseException

    try:
        config = compose(folder, overrides)
    except ConfigurationError as error:
        yield Finding("ERROR", "configuration", str(error))
        return
    yield Finding("ok", "configuration", f"composes (run_name: {config.get('run_name')})")
    try:
        check_name(str(config.get("run_name")), "run_name")
    except ConfigurationError as error:
        yield Finding("ERROR", "run_name", str(error))
    with chdir(folder):
        for name in config:
            section = OmegaConf.to_container(config[name], resolve=False) if OmegaConf.is_dict(config[name]) else None
            if not isinstance(section, dict) or section.get("_target_") not in _PIPELINES:
                continue
            try:
                pipeline = OmegaConf.to_container(config[name], resolve=True)
            except OmegaConfBaseException as error:
                yield Finding("ERROR", str(name), " ".join(str(error).split()))
                continue
            steps = pipeline.get("steps", {}) if isinstance(pipeline, dict) else {}
            missing = [target for target in map(_target, steps.values()) if not _module_exists(target)]
            if missing:
                yield Finding("ERROR", str(name), f"cannot find {', '.join(missing)}; correct its _target_")
            else:
                yield Finding("ok", str(name), ", ".join(steps))
    try:
        folders = run_folders(folder.resolve())
    except ConfigurationError as error:
        yield Finding("ERROR", "run folders", str(error))
        return
    unwritable = [path.name for path in folders if path.exists() and not os.access(path, os.W_OK)]
    if unwritable:
        yield Finding("ERROR", "run folders", f"cannot write to {', '.join(unwritable)}; check permissions")
    else:
        yield Finding("ok", "run folders", ", ".join(path.name for path in folders))


def _target(step: Any) -> str:
    return step.get("_target_", "a step without _target_") if isinstance(step, dict) else "a step without _target_"


def _module_exists(target: str) -> bool:
    """Whether the module of a `_target_` can be found; the module itself is not imported (that may take seconds)."""
    try:
        return find_spec(target.rpartition(".")[0]) is not None
    except (ImportError, ValueError):
        return False


def _check_disk(folder: Path) -> Iterator[Finding]:
    if not folder.is_dir():
        return
    free = shutil.disk_usage(folder).free / 1e9
    enough = free >= MIN_FREE_GB
    detail = f"{free:.0f} GB free" if enough else f"{free:.1f} GB free; the demo needs {MIN_FREE_GB:.0f} GB"
    yield Finding("ok" if enough else "ERROR", "disk", detail)


if __name__ == "__main__":
    sys.exit(main())
