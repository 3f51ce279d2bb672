"""`glitchflow models`: what the registry and the outbox hold."""

import argparse
from datetime import UTC, datetime
from pathlib import Path
from tempfile import TemporaryDirectory

from glitchflow_plugin.commands.configuration import CONFIG_NAME, compose
from glitchflow_plugin.commands.printing import Command, complain, print_columns
from glitchflow_plugin.data.names import LONGEST_MODEL, check_alias, check_name
from glitchflow_plugin.errors import ConfigurationError, GlitchflowError


def add_models(models: argparse.ArgumentParser) -> None:
    """Add the actions of `glitchflow models`."""
    actions = models.add_subparsers(required=True, metavar="ACTION")

    def add(name: str, run: Command, text: str) -> argparse.ArgumentParser:
        action = actions.add_parser(name, help=text)
        action.add_argument("--tracking-uri", help="of the registry (default: conf/registry.yaml here, or mlflow.db)")
        action.set_defaults(run=run)
        return action

    listing = add("list", _list, "versions, aliases, figures, and why each became champion or not")
    listing.add_argument("name", nargs="?", help="registered model (default: all)")
    comparing = add("compare", _compare, "figures side by side, and where the recipes differ")
    comparing.add_argument("versions", nargs=2, metavar="NAME/VERSION", help="VERSION is a number or an alias")
    promoting = add("promote", _promote, "make a version champion by hand")
    promoting.add_argument("name")
    promoting.add_argument("version", help="a number or an alias")
    going_back = add("rollback", _rollback, "make the former champion champion again")
    going_back.add_argument("name")
    for action in (promoting, going_back):
        action.add_argument("--reason", default="by hand", help="kept with the version")
        action.add_argument("--alias", default="champion")
    exporting = add("export", _export, "write a version as one file for other tools")
    exporting.add_argument("name")
    exporting.add_argument("--version", default="champion", help="a number or an alias (default: champion)")
    exporting.add_argument("--format", default="pt2", choices=["pt2", "onnx"], help="default: pt2, of torch.export")
    exporting.add_argument("--out", type=Path, help="the file (default: NAME-VERSION.FORMAT here)")
    uploading = add("upload", _upload, "register what training kept while the registry was down")
    relocating = add("relocate", _relocate, "go on with a registry whose folder or files were moved or copied")
    relocating.add_argument(
        "--artifacts",
        type=Path,
        metavar="FOLDER",
        help="where the files are now (default: looked for beside the database)",
    )
    renaming = add("rename", _rename, "give what waits in the outbox another name in the registry")
    dropping = add("drop", _drop, "remove what waits in the outbox; what it holds is lost")
    for action in (renaming, dropping):
        action.add_argument("entry", help="as `glitchflow models upload` calls it, the name of its folder")
    renaming.add_argument("name", help="of the registered model")
    renaming.add_argument("--alias", help="another alias for it, should it become champion")
    for action in (uploading, renaming, dropping):
        action.add_argument("--outbox", type=Path, help="default: outbox in conf/registry.yaml here, or ./outbox")


def _registry_key(key: str, given: object, otherwise: str) -> str:
    """A setting: as given, or of the configuration in this folder, or the usual one."""
    if given is not None:
        return str(given)
    if not Path(CONFIG_NAME).is_file():
        return otherwise
    value = compose(Path()).get("registry", {}).get(key)
    return otherwise if value is None else str(value)


def registry_uri(given: str | None) -> str:
    """Address of the registry: as given, or of the configuration in this folder, or the usual one."""
    return _registry_key("tracking_uri", given, "sqlite:///mlflow.db")


def _list(options: argparse.Namespace) -> int:
    from glitchflow_plugin.tracking.runs import tidy
    from glitchflow_plugin.tracking.versions import list_versions, model_names

    uri = registry_uri(options.tracking_uri)
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
        print_columns(rows)
    return 0


def _compare(options: argparse.Namespace) -> int:
    from glitchflow_plugin.tracking.versions import differences, find, read_description

    uri = registry_uri(options.tracking_uri)
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
    harm = ("harmed_share", "added_power", "added_series", "worst_growth", "signal_lost_worst")
    judged = ("gate_loss", "linear_gate_loss", *harm)
    tags = (*judged, "code_version", "git_commit", "dataset_fingerprint")
    rows += [[key, *(version.tags.get(key, "-")[:40] for version in found)] for key in tags]
    for key in sorted({*first["metrics"], *second["metrics"]}):
        rows.append([key, *(_number(content["metrics"].get(key)) for content in (first, second))])
    print_columns(rows)
    differing = differences(first, second)
    print("The recipes are the same." if not differing else "Differences:")
    for key, one, other in differing:
        print(f"  {key}: {one} | {other}")
    return 0


def _promote(options: argparse.Namespace) -> int:
    from glitchflow_plugin.tracking.versions import promote

    now = promote(
        options.name, options.version, registry_uri(options.tracking_uri), alias=options.alias, reason=options.reason
    )
    print(f"{now.name} version {now.version} is {options.alias} now. To undo: glitchflow models rollback {now.name}")
    return 0


def _rollback(options: argparse.Namespace) -> int:
    from glitchflow_plugin.tracking.versions import rollback

    now = rollback(options.name, registry_uri(options.tracking_uri), alias=options.alias, reason=options.reason)
    print(f"{now.name} version {now.version} is {options.alias} again.")
    return 0


def _export(options: argparse.Namespace) -> int:
    from glitchflow_plugin.data.files import atomic_path
    from glitchflow_plugin.tracking.export import export

    content, version, told = export(options.name, options.version, registry_uri(options.tracking_uri), options.format)
    path = options.out or Path(f"{version.name}-{version.version}.{options.format}")
    with atomic_path(path) as temporary:
        temporary.write_bytes(content)
    print(f"{path}: {version.name} version {version.version}, {told}, {len(content) / 1e6:.3g} MB")
    return 0


def _upload(options: argparse.Namespace) -> int:
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
    return complain(*troubles)


def _relocate(options: argparse.Namespace) -> int:
    from glitchflow_plugin.tracking.relocation import relocate
    from glitchflow_plugin.tracking.versions import fetch, list_versions, model_names

    uri, troubles = registry_uri(options.tracking_uri), []
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
    return complain(*troubles)


def _rename(options: argparse.Namespace) -> int:
    from glitchflow_plugin.tracking.outbox import rename

    check_name(options.name, "name", LONGEST_MODEL)
    if options.alias is not None:
        check_alias(options.alias, "--alias")
    outbox = _registry_key("outbox", options.outbox, "outbox")
    entry = rename(outbox, options.entry, options.name, options.alias)
    print(f"{entry.id} will be registered as {options.name}: glitchflow models upload --outbox {outbox}")
    return 0


def _drop(options: argparse.Namespace) -> int:
    from glitchflow_plugin.tracking.outbox import drop

    outbox = _registry_key("outbox", options.outbox, "outbox")
    drop(outbox, options.entry)
    print(f"{options.entry} is removed from {outbox}.")
    return 0


def _number(value: float | None) -> str:
    return "-" if value is None else f"{value:.6g}"
