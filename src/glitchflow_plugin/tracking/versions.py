"""Versions of registered models: which there are, which is champion and why, and whether their files are untouched.

Nothing here imports torch, so that `glitchflow models` answers at once.
"""

import hashlib
import json
import logging
import tempfile
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path, PurePosixPath
from typing import Any, TypedDict

from mlflow import MlflowClient
from mlflow.artifacts import download_artifacts, list_artifacts
from mlflow.utils.mlflow_tags import MLFLOW_RUN_NOTE

from glitchflow_plugin.data.files import sha256
from glitchflow_plugin.data.names import check_alias
from glitchflow_plugin.errors import FormatError, RegistryError, nearest
from glitchflow_plugin.tracking import card
from glitchflow_plugin.tracking.connection import DEFAULT_SERVER, DEFAULT_TRACKING_URI, is_server, nonsense, registry

logger = logging.getLogger(__name__)

CHAMPION = "champion"
BUNDLE_FILE = "bundle.json"
#: Folder of a version in which our own files are.
OWN_FILES = "extra_files"
#: Tag of a version: checksum by file. It lives in the database, apart from the files.
CHECKSUMS = "sha256"
#: Folder of a run's artifacts whose pictures its version shows.
PICTURES = "pictures"
#: Tag of a model: checksum of the description that this program wrote. MLflow's pages do not show tags that begin so.
_OWN_PAGE = "mlflow.glitchflow.page"
#: Longest text of a tag that every store of MLflow takes.
_LONGEST_TAG = 4000
#: Files of a version, and bytes of all of them: more is none of ours, and is not fetched.
_MOST_FILES, _MOST_BYTES = 100, 1 << 32


@dataclass(frozen=True)
class ModelVersion:
    """One version in the registry.

    Attributes:
        name: Name of the registered model.
        version: Its number.
        tracking_uri: Address of the registry.
        run_id: MLflow run that made it.
        promoted: Whether it has become the champion; None if that was not asked.
        reason: Why, or why not.
        gate_loss: Mean loss on the gate's events; None where the gate has not judged it.
        aliases: Its aliases.
        tags: All that is noted with it.
        created: ms since 1970, UTC.
    """

    name: str
    version: int
    tracking_uri: str
    run_id: str
    promoted: bool | None = None
    reason: str = ""
    gate_loss: float | None = None
    aliases: tuple[str, ...] = ()
    tags: Mapping[str, str] = field(default_factory=dict)
    created: int = 0

    @property
    def uri(self) -> str:
        """What MLflow's own API takes. Its loaders trust the files; `registry.load` compares and runs nothing."""
        return f"models:/{self.name}/{self.version}"

    @property
    def page(self) -> str:
        """Address of its page; of a database, once a server shows it on the usual port."""
        server = self.tracking_uri if is_server(self.tracking_uri) else DEFAULT_SERVER
        return f"{server.rstrip('/')}/{card.address(self.name, self.version)}"


class Decision(TypedDict, total=False):
    """What a gate has decided of a version, as the outbox keeps it.

    Attributes:
        promoted: Whether it becomes champion.
        reason: Why, or why not.
        figures: Figures behind the reason, by name.
        against: The champion that it was compared with; None or none where there is none yet.
    """

    promoted: bool
    reason: str
    figures: Mapping[str, float]
    against: int | None


def find(name: str, version_or_alias: int | str = CHAMPION, tracking_uri: str = DEFAULT_TRACKING_URI) -> ModelVersion:
    """Look a version up without loading it.

    Args:
        name: Name of the registered model.
        version_or_alias: A number (also as text) or an alias such as `champion`.
        tracking_uri: Address of the registry.

    Raises:
        RegistryError: There is no such model, version or alias; the message lists what there is.
        ConnectionFailedError: The server cannot be reached.
    """
    with registry(tracking_uri, must_exist=True):
        return _described(_client(tracking_uri), name, resolve(name, version_or_alias, tracking_uri), tracking_uri)


def model_names(tracking_uri: str = DEFAULT_TRACKING_URI) -> list[str]:
    """Names of the registered models; errors as for `find`."""
    with registry(tracking_uri, must_exist=True):
        return _model_names(_client(tracking_uri))


def list_versions(name: str, tracking_uri: str = DEFAULT_TRACKING_URI) -> list[ModelVersion]:
    """All versions of a model, the oldest first; errors as for `find`."""
    with registry(tracking_uri, must_exist=True):
        client = _client(tracking_uri)
        check_name(client, name, tracking_uri)
        return [_described(client, name, number, tracking_uri) for number in _numbers(client, name)]


def promote(
    name: str,
    version_or_alias: int | str,
    tracking_uri: str = DEFAULT_TRACKING_URI,
    *,
    alias: str = CHAMPION,
    reason: str = "by hand",
) -> ModelVersion:
    """Give a version the alias, and remember which had it.

    Args:
        name: Name of the registered model.
        version_or_alias: A number (also as text) or an alias.
        tracking_uri: Address of the registry.
        alias: The alias to give.
        reason: Kept with the version.

    Returns:
        The version.

    Raises:
        RegistryError: There is no such version, or it has the alias already.
        ConnectionFailedError: The server cannot be reached.
    """
    check_alias(alias, "alias")
    with registry(tracking_uri, must_exist=True):
        client = _client(tracking_uri)
        number = resolve(name, version_or_alias, tracking_uri)
        noted = client.get_model_version(name, str(number)).tags.get("promoted") == "true"
        if noted and aliases_of(client, name).get(alias) == number:
            raise RegistryError(f"version {number} of {name} is {alias} already.")
        give_alias(client, name, number, alias, reason)
        return _confirmed(client, name, number, tracking_uri, alias)


def rollback(
    name: str, tracking_uri: str = DEFAULT_TRACKING_URI, *, alias: str = CHAMPION, reason: str = "by hand"
) -> ModelVersion:
    """Give the alias back to the version that had it before.

    Args:
        name: Name of the registered model.
        tracking_uri: Address of the registry.
        alias: The alias to give back.
        reason: Kept with the version that loses it.

    Returns:
        The version that has the alias again.

    Raises:
        RegistryError: No version had the alias before, or that version is gone.
        ConnectionFailedError: The server cannot be reached.
    """
    with registry(tracking_uri, must_exist=True):
        client = _client(tracking_uri)
        check_name(client, name, tracking_uri)
        present, there = aliases_of(client, name).get(alias), _numbers(client, name)
        past = [number for number in _history(client, name, alias) if number in there]
        while past and past[-1] == present:
            past.pop()
        if not past:
            message = (
                f"{name} has no former {alias} to go back to. Versions: {', '.join(map(str, there))}. Give the alias "
                f"to one of them: glitchflow models promote {name} VERSION"
            )
            raise RegistryError(message)
        # the alias last: it says which version is to be left, should this fail in between and be repeated
        if present is not None:
            lost = f"rolled back to version {past[-1]}: {reason}"
            set_tags(client, name, present, {"promoted": "false", "promotion_reason": lost})
        again = f"{alias} again, after version {present}: {reason}"
        set_tags(client, name, past[-1], {"promoted": "true", "promotion_reason": again})
        client.set_registered_model_tag(name, _history_tag(alias), json.dumps(past))
        client.set_registered_model_alias(name, alias, str(past[-1]))
        return _confirmed(client, name, past[-1], tracking_uri, alias)


def read_description(version: ModelVersion) -> dict[str, Any]:
    """The content of a version's `bundle.json`: channels, recipe, figures. The network is not fetched.

    Raises:
        FormatError: The version was not made by this program, or the file has been changed.
        RegistryError: The registry refused it.
        ConnectionFailedError: The server cannot be reached.
    """
    place = f"{OWN_FILES}/{BUNDLE_FILE}"
    with registry(version.tracking_uri, must_exist=True), tempfile.TemporaryDirectory() as temporary:
        expected = expected_checksums(version)
        if place not in expected:
            raise FormatError(f"version {version.version} of {version.name} has no {BUNDLE_FILE}. Choose another one.")
        found = _listed(f"{version.uri}/{OWN_FILES}")
        _refuse_empty(version, found)
        _check_listing(version, {place: expected[place]}, found, whole=False)
        path = Path(download_artifacts(f"{version.uri}/{place}", dst_path=temporary))
        if sha256(path) != expected[place]:
            raise _tampered(version, f"{place} has been changed")
        return parse_description(version, path)


def fetch(name: str, version_or_alias: int | str, folder: Path | str, tracking_uri: str = DEFAULT_TRACKING_URI) -> Path:
    """Copy the files of a version, as they were registered, for other tools. Nothing in them is parsed or run.

    Args:
        name: Name of the registered model.
        version_or_alias: A number (also as text) or an alias such as `champion`.
        folder: Where they shall be; made, or empty.
        tracking_uri: Address of the registry.

    Returns:
        The folder, which MLflow's own loaders take, for instance `mlflow.pytorch.load_model(folder)`.

    Raises:
        RegistryError: There is no such model, version or alias, or the folder is not empty.
        ConnectionFailedError: The server cannot be reached.
        FormatError: The files are not those that were registered.
    """
    folder = Path(folder)
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise RegistryError(f"{folder} is not empty. Give a new folder for the files of the model.")
    version = find(name, version_or_alias, tracking_uri)
    with registry(tracking_uri, must_exist=True):
        expected = expected_checksums(version)
        found = _listed(version.uri)
        _refuse_empty(version, found)
        _check_listing(version, expected, found)
        folder.mkdir(parents=True, exist_ok=True)
        download_artifacts(version.uri, dst_path=str(folder))
        # MLflow's own note about where the model came from, made by the download
        (folder / "registered_model_meta").unlink(missing_ok=True)
        verify(version, folder)
    return folder


def parse_description(version: ModelVersion, path: Path) -> dict[str, Any]:
    """The content of a `bundle.json` whose checksum has been compared.

    Raises:
        FormatError: It is no description.
    """
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except (ValueError, RecursionError) as error:
        message = f"{BUNDLE_FILE} of version {version.version} of {version.name} is not valid JSON. Choose another one."
        raise FormatError(message) from error
    if not isinstance(content, dict):
        message = (
            f"{BUNDLE_FILE} of version {version.version} of {version.name} describes no model. Choose another one."
        )
        raise FormatError(message)
    return content


def differences(first: Mapping[str, Any], second: Mapping[str, Any]) -> list[tuple[str, str, str]]:
    """Where two descriptions differ in what is fed to the twin or in the network: key, value of each, short."""
    keys = ("target", "witnesses", "window_size", "recipe", "scaling", "model")
    one, other = (_flat({key: content.get(key) for key in keys}) for content in (first, second))
    names = sorted(key for key in {*one, *other} if one.get(key) != other.get(key))
    return [(key, _shown(one.get(key)), _shown(other.get(key))) for key in names]


# ------------------------------------------------------------------------------------------- for the rest of the room


def checksums(folder: Path) -> dict[str, str]:
    """Checksum of each file below a folder, by its path there."""
    files = sorted(path for path in folder.rglob("*") if path.is_file())
    return {path.relative_to(folder).as_posix(): sha256(path) for path in files}


def expected_checksums(version: ModelVersion) -> dict[str, str]:
    """Checksums as they were when the version was registered.

    Raises:
        FormatError: There are none: it was not registered by this program, or by an old version of it.
    """
    try:
        found = {str(key): str(value) for key, value in json.loads(version.tags[CHECKSUMS]).items()}
    except (KeyError, ValueError, AttributeError, RecursionError) as error:
        message = (
            f"version {version.version} of {version.name} has no checksums (and no {BUNDLE_FILE} that they vouch for): "
            "it was not registered by this program, or by an older one. Choose another version, or train again."
        )
        raise FormatError(message) from error
    # they name what is fetched and where it is put
    outside = [name for name in found if not _is_inside(name)]
    if outside:
        raise _tampered(version, f"its checksums name {outside[0]!r}, which is no file of a model")
    return found


def verify(version: ModelVersion, folder: Path) -> None:
    """Compare downloaded files with the checksums of the registration, before anything of them is parsed.

    Raises:
        FormatError: A file has been changed, is missing, or is one too many; the message says which.
    """
    expected, found = expected_checksums(version), checksums(folder)
    _refuse(
        version,
        _differing(expected, found)
        + [
            f"{file} has been changed" for file in sorted(expected) if found.get(file, expected[file]) != expected[file]
        ],
    )


def resolve(name: str, version_or_alias: int | str, tracking_uri: str) -> int:
    """Number of a version or alias; within `registry`."""
    client = _client(tracking_uri)
    check_name(client, name, tracking_uri)
    versions, aliases = _numbers(client, name), aliases_of(client, name)
    wanted = str(version_or_alias)
    number = int(wanted) if wanted.isdecimal() else aliases.get(wanted)
    if number is None or number not in versions:
        known = ", ".join(f"{key} (version {value})" for key, value in sorted(aliases.items())) or "none"
        message = (
            f"{name} has no version or alias {wanted!r} at {tracking_uri}.{nearest(wanted, aliases)} "
            f"Versions: {', '.join(map(str, versions)) or 'none'}. Aliases: {known}. "
            "glitchflow models list says why none was promoted. Name a version by its number "
            f"(inference.model.version), or give it the alias by hand: glitchflow models promote {name} VERSION"
        )
        raise RegistryError(message)
    return number


def check_name(client: MlflowClient, name: str, tracking_uri: str) -> None:
    """Refuse a model that is not registered, and say which are."""
    models = _model_names(client)
    if name not in models:
        message = (
            f"no registered model {name!r} at {tracking_uri}. Models there: {', '.join(models) or 'none'}."
            f"{nearest(name, models)} Train one (itwinai exec-pipeline), or correct the name."
        )
        raise RegistryError(message)


def versions_of(client: MlflowClient, name: str) -> list[Any]:
    """What MLflow knows of each version of a model."""
    quoted = name.replace("'", "''")
    return _all_pages(partial(client.search_model_versions, f"name='{quoted}'"))


def aliases_of(client: MlflowClient, name: str) -> dict[str, int]:
    """Version by alias."""
    return {alias: int(str(number)) for alias, number in client.get_registered_model(name).aliases.items()}


def settle(version: ModelVersion, decision: Decision, alias: str) -> ModelVersion:
    """Carry out what a gate has decided. Repeated after a failure, it completes what is there.

    Args:
        version: The version that was judged.
        decision: What was decided.
        alias: Alias of the champion.

    Raises:
        RegistryError: The registry refused it.
        ConnectionFailedError: The server cannot be reached.
    """
    name, number, uri = version.name, version.version, version.tracking_uri
    promoted, reason = bool(decision.get("promoted")), str(decision.get("reason", ""))
    with registry(uri):
        client = _client(uri)
        set_tags(client, name, number, {key: f"{value:.6g}" for key, value in (decision.get("figures") or {}).items()})
        if promoted:
            give_alias(client, name, number, alias, reason)
        else:
            set_tags(client, name, number, {"promoted": "false", "promotion_reason": reason})
        return _confirmed(client, name, number, uri, alias if promoted else None)


def write_pages(version: ModelVersion, content: Mapping[str, Any], alias: str = CHAMPION) -> None:
    """Write the pages by which people choose: of the version, its run, and the model.

    That of the model is left alone where somebody has edited it.

    Args:
        version: A version that is registered.
        content: Its `bundle.json`.
        alias: Alias of the champion.

    Raises:
        RegistryError: The registry refused it.
        ConnectionFailedError: The server cannot be reached.
    """
    name, run_id = version.name, version.run_id
    with registry(version.tracking_uri):
        client = _client(version.tracking_uri)
        pictures = [file.path for file in client.list_artifacts(run_id, PICTURES)] if run_id else []
        text = card.page(content, run_id=run_id, pictures=pictures)
        client.update_model_version(name, str(version.version), description=text)
        if run_id:
            client.set_tag(run_id, MLFLOW_RUN_NOTE, text)
        model = client.get_registered_model(name)
        written = model.tags.get(_OWN_PAGE)
        if not model.description or hashlib.sha256(model.description.encode()).hexdigest() == written:
            noted = {int(str(each.version)): dict(each.tags) for each in versions_of(client, name)}
            text = card.model_page(name, noted, alias)
            client.set_registered_model_tag(name, _OWN_PAGE, hashlib.sha256(text.encode()).hexdigest())
            client.update_registered_model(name, description=text)


def give_alias(client: MlflowClient, name: str, number: int, alias: str, reason: str) -> None:
    """Give the alias, put it into the history of the model, and note why. May be repeated after a failure."""
    held = aliases_of(client, name).get(alias)
    past = _history(client, name, alias)
    for each in (held, number):
        if each is not None and past[-1:] != [each]:
            past.append(each)
    # history first: a run that is killed in between leaves the alias where it was, and a harmless entry
    client.set_registered_model_tag(name, _history_tag(alias), json.dumps(past[-50:]))
    client.set_registered_model_alias(name, alias, str(number))
    # only now: no version shall count as promoted that has never had the alias
    set_tags(client, name, number, {"promotion_reason": reason, "promoted": "true"})


def set_tags(client: MlflowClient, name: str, number: int, tags: Mapping[str, str]) -> None:
    """Tags of a version."""
    for key, text in tags.items():
        client.set_model_version_tag(name, str(number), key, tag(text))


def tag(text: object) -> str:
    """A text as every store of MLflow takes it."""
    return str(text)[:_LONGEST_TAG]


def _listed(uri: str) -> dict[str, int]:
    """Size by path of the files of a version, in bytes, without fetching any."""
    root, waiting, found = uri, [""], {}
    while waiting and len(found) <= _MOST_FILES:
        under = waiting.pop()
        for item in list_artifacts(f"{root}/{under}".rstrip("/")):
            if item.is_dir:
                waiting.append(item.path)
            else:
                found[item.path] = item.file_size or 0
    return found


def _refuse_empty(version: ModelVersion, found: Mapping[str, int]) -> None:
    """Say where files were expected of which there is none: they are elsewhere, and nobody has changed them.

    Raises:
        RegistryError: There is none.
    """
    if not found:
        place = _client(version.tracking_uri).get_model_version_download_uri(version.name, str(version.version))
        raise RegistryError(
            f"the files of version {version.version} of {version.name} are expected in {place}, and nothing is there. "
            "If they were moved: glitchflow models relocate --artifacts FOLDER, where the database is (a server that "
            "passes files on: --artifacts-destination FOLDER). If not, restore them or choose another version."
        )


def _check_listing(
    version: ModelVersion, expected: Mapping[str, str], found: Mapping[str, int], *, whole: bool = True
) -> None:
    """Refuse a version by the names and sizes of its files, before any is fetched.

    None of ours is empty, as devices and pipes seem to be that never come to an end.
    """
    troubles = _differing(expected, found if whole else {name: found[name] for name in expected if name in found})
    troubles += [f"{name} is empty or no file" for name in sorted(set(expected) & set(found)) if not found[name]]
    if sum(found[name] for name in set(expected) & set(found)) > _MOST_BYTES:
        troubles.append(f"its files have more than {_MOST_BYTES >> 30} GiB")
    _refuse(version, troubles)


def _differing(expected: Mapping[str, object], found: Mapping[str, object]) -> list[str]:
    missing = [f"{file} is missing" for file in sorted(set(expected) - set(found))]
    return missing + [f"{file} does not belong to it" for file in sorted(set(found) - set(expected))]


def _refuse(version: ModelVersion, troubles: list[str]) -> None:
    if troubles:
        more = f"; and {len(troubles) - 5} more" if len(troubles) > 5 else ""
        raise _tampered(version, "; ".join(troubles[:5]) + more)


def _is_inside(name: str) -> bool:
    path = PurePosixPath(name)
    return bool(path.parts) and not path.is_absolute() and ".." not in path.parts and path.as_posix() == name


def _client(tracking_uri: str) -> MlflowClient:
    return MlflowClient(tracking_uri, tracking_uri)


def _described(client: MlflowClient, name: str, number: int, tracking_uri: str) -> ModelVersion:
    stored = client.get_model_version(name, str(number))
    tags = dict(stored.tags)
    loss = tags.get("gate_loss")
    return ModelVersion(
        name=name,
        version=number,
        tracking_uri=tracking_uri,
        run_id=stored.run_id or "",
        promoted={"true": True, "false": False}.get(tags.get("promoted", "")),
        reason=tags.get("promotion_reason", ""),
        gate_loss=float(loss) if loss else None,
        aliases=tuple(alias for alias, held in sorted(aliases_of(client, name).items()) if held == number),
        tags=tags,
        created=int(stored.creation_timestamp or 0),
    )


def _confirmed(client: MlflowClient, name: str, number: int, tracking_uri: str, alias: str | None) -> ModelVersion:
    """A version as it is now, which must have the alias, or no promotion where that is None: a server can forget."""
    now = _described(client, name, number, tracking_uri)
    if now.promoted is not (alias is not None) or (alias is not None and alias not in now.aliases):
        raise nonsense(tracking_uri, f"back what was noted of version {number} of {name}")
    return now


def _model_names(client: MlflowClient) -> list[str]:
    return sorted(model.name for model in _all_pages(client.search_registered_models))


def _all_pages(search: Callable[..., Any]) -> list[Any]:
    """All that a search of MLflow finds, which gives a page at a time."""
    found, token = [], None
    while True:
        page = search(page_token=token)
        found += page
        token = page.token
        if not token:
            return found


def _numbers(client: MlflowClient, name: str) -> list[int]:
    return sorted(int(str(version.version)) for version in versions_of(client, name))


def _history(client: MlflowClient, name: str, alias: str) -> list[int]:
    text = client.get_registered_model(name).tags.get(_history_tag(alias), "[]")
    return [int(number) for number in json.loads(text)]


def _history_tag(alias: str) -> str:
    return f"history.{alias}"


def _flat(content: object, prefix: str = "") -> dict[str, object]:
    if not isinstance(content, Mapping) or not content:
        return {prefix: content}
    found: dict[str, object] = {}
    for key, value in content.items():
        found |= _flat(value, f"{prefix}.{key}" if prefix else str(key))
    return found


def _shown(value: object) -> str:
    text = "-" if value is None else json.dumps(value)
    return text if len(text) <= 60 else f"{text[:57]}..."


def _tampered(version: ModelVersion, trouble: str) -> FormatError:
    message = (
        f"version {version.version} of {version.name} is not what was registered: {trouble}. It is not loaded. Find "
        "out who can write to the registry's files, and register the model again or choose another version."
    )
    return FormatError(message)
