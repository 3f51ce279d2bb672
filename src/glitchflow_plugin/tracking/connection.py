"""How this room talks to MLflow: quickly, quietly, and with errors in the user's words. Nothing here imports torch."""

import os
import socket
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from urllib.parse import unquote, urlparse

import mlflow
import requests
from google.protobuf.json_format import ParseError
from mlflow import MlflowClient
from mlflow.exceptions import MlflowException

from glitchflow_plugin.errors import ConnectionFailedError, GlitchflowError, RegistryError

DEFAULT_TRACKING_URI = "sqlite:///mlflow.db"
#: Where `make mlflow` shows a database.
DEFAULT_SERVER = "http://127.0.0.1:5005"
DEFAULT_EXPERIMENT = "glitchflow"
DEFAULT_ARTIFACTS = "./artifacts"
#: Tag by which MLflow's pages show an experiment as training of models, not as tracing of language models.
_KIND, _TRAINING = "mlflow.experimentKind", "custom_model_development"
#: MLflow tries seven times with growing pauses, which makes minutes of a server that is simply not there. What is
#: refused is kept here and sent later.
_QUICK = {"MLFLOW_HTTP_REQUEST_MAX_RETRIES": "1", "MLFLOW_HTTP_REQUEST_TIMEOUT": "20"}
#: Once the time for waiting is used up.
_HURRIED = {"MLFLOW_HTTP_REQUEST_MAX_RETRIES": "0", "MLFLOW_HTTP_REQUEST_TIMEOUT": "2"}
#: What MLflow's client raises over answers that are none.
_NONSENSE = (ValueError, TypeError, KeyError, AttributeError, ParseError)
_QUIET = {
    # a bar for each small file, and a link that nobody asked for
    "MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR": "false",
    "MLFLOW_SUPPRESS_PRINTING_URL_TO_STDOUT": "true",
}


@dataclass
class Patience:
    """How long this process waits in all for servers that do not answer.

    A server can stall at any of the dozens of requests of a run; each would wait anew. When the time is used up,
    requests get 2 s and no second try, so that all that is left goes to the outbox at once.

    Attributes:
        budget: s.
        share: Share of the process's time that comes on top: a run of a day may meet several outages.
        waited: Spent so far, s.
    """

    budget: float = 40.0
    share: float = 0.01
    waited: float = 0.0
    began: float = field(default_factory=time.monotonic)

    @property
    def used_up(self) -> bool:
        """Whether no more waiting is allowed."""
        return self.waited >= self.budget + self.share * (time.monotonic() - self.began)

    def spend(self, seconds: float) -> None:
        """Count time of waiting, s."""
        self.waited += seconds


patience = Patience()
"""Of this process."""
#: Databases whose files were found where they say.
_in_place: set[tuple[Path, int]] = set()


def ensure_experiment(tracking_uri: str, experiment: str, artifacts: Path | str = DEFAULT_ARTIFACTS) -> str:
    """Id of an experiment, which is made if it is new.

    Without a server the experiment gets the folder for artifacts, as an absolute path, so that models are found from
    any working directory; MLflow would otherwise write to `mlruns`. A server has its own place.

    Raises:
        RegistryError: The experiment was deleted, or the database cannot be used.
        ConnectionFailedError: The server cannot be reached.
    """
    with registry(tracking_uri):
        client = MlflowClient(tracking_uri, tracking_uri)
        found = client.get_experiment_by_name(experiment)
        if found is None:
            place = None if is_server(tracking_uri) else Path(artifacts).resolve().as_uri()
            try:
                made = client.create_experiment(experiment, artifact_location=place, tags={_KIND: _TRAINING})
            except MlflowException as error:
                # another run was faster
                found = client.get_experiment_by_name(experiment)
                if error.error_code != "RESOURCE_ALREADY_EXISTS" or found is None:
                    raise
                made = found.experiment_id
            if not made:
                raise nonsense(tracking_uri, "the experiment")
            return made
        if not found.experiment_id or found.name != experiment:
            raise nonsense(tracking_uri, "the experiment")
        if found.lifecycle_stage != "active":
            message = f"the experiment {experiment} was deleted. Restore it in MLflow, or choose another name."
            raise RegistryError(message)
        place = urlparse(found.artifact_location or "")
        if place.scheme in ("", "file") and not Path(unquote(place.path)).parent.is_dir():
            message = (
                f"the experiment {experiment} at {tracking_uri} keeps its files in {found.artifact_location}, which is "
                "not there. Were they moved? Where the database is: glitchflow models relocate --artifacts FOLDER"
            )
            raise RegistryError(message)
        if _KIND not in found.tags:
            client.set_experiment_tag(found.experiment_id, _KIND, _TRAINING)
        return found.experiment_id


def check_connection(tracking_uri: str, timeout: float = 5.0) -> None:
    """Find out in seconds, not minutes, whether a server answers. A database needs no server.

    Args:
        tracking_uri: Address of the registry.
        timeout: s.

    Raises:
        ConnectionFailedError: Nobody listens there.
        RegistryError: The address is unusable.
    """
    if not is_server(tracking_uri):
        if urlparse(tracking_uri).scheme not in ("sqlite", "postgresql", "mysql", "mssql"):
            message = (
                f"expected a database such as {DEFAULT_TRACKING_URI} or a server such as http://127.0.0.1:5005 as "
                f"tracking_uri, got {tracking_uri!r}."
            )
            raise RegistryError(message)
        return
    address = urlparse(tracking_uri)
    port = address.port or (443 if address.scheme == "https" else 80)
    try:
        with socket.create_connection((address.hostname or "", port), timeout=timeout):
            return
    except OSError as error:
        raise _unreachable(tracking_uri, error) from error


@contextmanager
def guarded(tracking_uri: str | None) -> Iterator[None]:
    """Code that talks to MLflow: errors in the user's words, no run left open by a failure.

    Args:
        tracking_uri: Address of the registry, for the messages; None if none is used.

    Raises:
        RegistryError: MLflow refused.
        ConnectionFailedError: The server cannot be reached.
    """
    with quick():
        try:
            yield
        except BaseException as error:
            # MLflow would otherwise try for minutes when the program ends
            with suppress(Exception), environment(_HURRIED, keep=False):
                mlflow.end_run("FAILED" if isinstance(error, Exception) else "KILLED")
            text = str(error)
            if is_silence(error):
                raise _unreachable(str(tracking_uri), error) from error
            if not isinstance(error, MlflowException):
                raise
            if "error responses" in text:
                message = f"the MLflow server at {tracking_uri} fails (is its disk full?): {text}"
                raise RegistryError(message) from error
            raise RegistryError(f"MLflow at {tracking_uri} refused: {text[:1000]}") from error


def is_silence(error: BaseException) -> bool:
    """Whether nobody answered."""
    if isinstance(error, requests.exceptions.ConnectionError | requests.exceptions.Timeout):
        return True
    signs = ("Max retries exceeded", "Connection refused", "timed out")
    return isinstance(error, MlflowException) and any(sign in str(error) for sign in signs)


@contextmanager
def quick() -> Iterator[None]:
    """MLflow that gives up in seconds and says no more than it must; what the user has set stays.

    All waiting of a process counts together, see `Patience`.
    """
    hurried = _HURRIED if patience.used_up else {}
    with environment({**_QUIET, **_QUICK}, keep=True), environment(hurried, keep=False):
        tries = 1 + float(os.environ["MLFLOW_HTTP_REQUEST_MAX_RETRIES"])
        longest = tries * float(os.environ["MLFLOW_HTTP_REQUEST_TIMEOUT"])
        began = time.monotonic()
        try:
            yield
        except Exception as error:
            if is_silence(error):
                patience.spend(min(time.monotonic() - began, longest))
            raise


@contextmanager
def registry(tracking_uri: str, *, must_exist: bool = False) -> Iterator[None]:
    """MLflow talking to this registry.

    Args:
        tracking_uri: A database or a server.
        must_exist: Refuse a database that is not there, which MLflow would make.

    Raises:
        RegistryError: MLflow refused, there is no such database, or a disk is full.
        ConnectionFailedError: The server cannot be reached.
    """
    check_connection(tracking_uri)
    path = _database_file(tracking_uri)
    if path is not None and must_exist and not path.exists():
        message = f"no registry at {tracking_uri}: {path} does not exist. Train a model first, or correct tracking_uri."
        raise RegistryError(message)
    if path is not None:
        # MLflow's stores are slow to import
        from glitchflow_plugin.tracking.database import ensure_database  # noqa: PLC0415

        ensure_database(path)
        _refuse_moved(path)
    before = mlflow.get_tracking_uri() if mlflow.is_tracking_uri_set() else None
    with guarded(tracking_uri):
        # the registry follows the tracking address as long as nobody sets it apart
        mlflow.set_tracking_uri(tracking_uri)
        try:
            yield
        except (GlitchflowError, ConnectionError, TimeoutError, MlflowException):
            raise
        except (requests.exceptions.JSONDecodeError, *_NONSENSE) as error:
            raise nonsense(tracking_uri, f"an answer ({type(error).__name__}: {str(error)[:200]})") from error
        except requests.exceptions.RequestException:
            raise
        except OSError as error:
            raise RegistryError(
                f"files of the registry at {tracking_uri} cannot be written or read: {error}."
            ) from error
        finally:
            mlflow.set_tracking_uri(before)  # pyright: ignore[reportArgumentType]  # None resets it


@contextmanager
def environment(values: Mapping[str, str], *, keep: bool) -> Iterator[None]:
    """Environment variables for a while; with `keep`, those that the user has set stay as they are."""
    before = {key: os.environ.get(key) for key in values}
    for key, value in values.items():
        if not (keep and before[key] is not None):
            os.environ[key] = value
    try:
        yield
    finally:
        for key, value in before.items():
            if value is None:
                os.environ.pop(key, None)
            else:
                os.environ[key] = value


def nonsense(tracking_uri: str, what: str) -> RegistryError:
    """Who answers is no MLflow, or an MLflow behind something that changes its answers."""
    message = (
        f"what answers at {tracking_uri} does not give {what} as MLflow does. Is there a proxy or another service in "
        "between? Correct tracking_uri, or have a look at the server."
    )
    return RegistryError(message)


def is_server(tracking_uri: str) -> bool:
    """Whether the address is one of a server, not of a database."""
    return urlparse(tracking_uri).scheme in ("http", "https")


def _database_file(tracking_uri: str) -> Path | None:
    prefix = "sqlite:///"
    name = tracking_uri.removeprefix(prefix).partition("?")[0]
    return Path(name) if tracking_uri.startswith(prefix) and name not in ("", ":memory:") else None


def _refuse_moved(path: Path) -> None:
    """Refuse a database that was moved or copied with its files, and names those of the old place.

    Raises:
        RegistryError: It was.
    """
    known = path.absolute(), path.stat().st_ino  # another database may come to the same place
    if known in _in_place:
        return
    from glitchflow_plugin.tracking.relocation import moved  # noqa: PLC0415  # slow to import

    for move in moved(path):
        raise RegistryError(
            f"the registry {path} was moved or copied: it expects its files in {move.old}, and they lie beside it, in "
            f"{move.new}. To go on with those: glitchflow models relocate --tracking-uri sqlite:///{path}"
        )
    _in_place.add(known)


def _unreachable(tracking_uri: str, error: BaseException) -> ConnectionFailedError:
    message = (
        f"the MLflow server at {tracking_uri} cannot be reached ({type(error).__name__}). Start it, correct "
        f"tracking_uri in registry.yaml, or use {DEFAULT_TRACKING_URI}, which needs no server."
    )
    return ConnectionFailedError(message)
