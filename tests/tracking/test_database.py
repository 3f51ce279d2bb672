import multiprocessing
import os
import shutil
import sqlite3
import time
from contextlib import closing

import pytest
from mlflow.store.tracking.sqlalchemy_store import SqlAlchemyStore

from glitchflow_plugin.errors import RegistryError
from glitchflow_plugin.tracking.connection import ensure_experiment
from glitchflow_plugin.tracking.database import ensure_database

#: Of processes that have imported MLflow, which takes longer than to make a database.
FORKED = multiprocessing.get_context("fork")


def make(folder):
    return ensure_experiment(f"sqlite:///{folder / 'mlflow.db'}", "first", folder / "artifacts")


def make_as_mlflow_does(folder):
    """Killed, it leaves what a killed MLflow does."""
    SqlAlchemyStore(f"sqlite:///{folder / 'mlflow.db'}", str(folder / "artifacts"))


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    path = tmp_path_factory.mktemp("finished") / "mlflow.db"
    ensure_database(path)
    return path


@pytest.fixture
def path(tmp_path):
    return tmp_path / "mlflow.db"


def age(*paths):
    """As if nobody had written to them for a minute."""
    for one in paths:
        os.utime(one, (time.time() - 60.0,) * 2)


def run(path, *statements):
    with closing(sqlite3.connect(path)) as connection, connection:
        for statement in statements:
            connection.execute(statement)


def test_two_first_runs_at_once_make_one_database(tmp_path):
    with FORKED.Pool(2) as both:
        first, second = both.map(make, [tmp_path] * 2, chunksize=1)
    assert first == second


@pytest.mark.slow
@pytest.mark.parametrize("making", [make, make_as_mlflow_does])
@pytest.mark.parametrize("seconds", [0.01, 0.3, 1.0])
def test_killed_while_it_is_made_the_next_run_makes_it(path, tmp_path, making, seconds):
    process = FORKED.Process(target=making, args=(tmp_path,))
    process.start()
    while process.is_alive() and not any(tmp_path.glob("*.db")) and not any(tmp_path.glob(".mlflow-*")):
        time.sleep(0.005)
    time.sleep(seconds)
    process.kill()
    process.join()
    age(*tmp_path.glob("*.db"))
    assert make(tmp_path) == "1"
    assert path.exists()
    assert not list(tmp_path.glob(".mlflow-*"))


@pytest.mark.parametrize("statement", ["DROP TABLE model_versions", "DELETE FROM alembic_version", None])
def test_an_unfinished_one_that_holds_nothing_is_put_aside(path, finished, statement, caplog):
    shutil.copy(finished, path)
    run(path, statement) if statement else path.write_bytes(b"")
    before = path.read_bytes()
    age(path)
    assert ensure_experiment(f"sqlite:///{path}", "first") == "1"
    (aside,) = path.parent.glob("mlflow.db.unfinished-*")
    assert aside.read_bytes() == before
    assert str(aside) in caplog.text


@pytest.mark.parametrize("change", ["revision = 'fedcba987654'", "held"])
def test_one_that_holds_something_or_is_newer_is_left_alone(path, finished, change):
    shutil.copy(finished, path)
    if change == "held":
        run(
            path,
            "DROP TABLE model_versions",
            "INSERT INTO registered_models (name, workspace) VALUES ('twin', 'default')",
        )
    else:
        run(path, "UPDATE alembic_version SET version_num = 'fedcba987654'")
    before = path.read_bytes()
    age(path)
    with pytest.raises(RegistryError, match="mlflow db upgrade") as raised:
        ensure_experiment(f"sqlite:///{path}", "first")
    assert ("1 registered_models" in str(raised.value)) == (change == "held")
    assert path.read_bytes() == before


def test_what_is_no_database_is_told(path):
    path.write_text("not a database" * 100)
    with pytest.raises(RegistryError, match="cannot be read as a database"):
        ensure_experiment(f"sqlite:///{path}", "first")
