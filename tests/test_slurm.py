"""The scripts of slurm/ and the presets of conf/slurm/ on a real SLURM of one node, started and ended here."""

import hashlib
import json
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import pytest
import yaml
from tests import _commands, _warm
from tests.components.test_stream import WHOLE, turning  # noqa: F401  # one is a fixture
from tests.preprocessing._runs import TARGET, WITNESS, write_events
from tests.streaming import _streams

from glitchflow_plugin.tracking import registry

pytestmark = [pytest.mark.slow, pytest.mark.pipeline]

BIN = Path(sys.executable).parent
_CONFIGURATION = """
ClusterName=test
SlurmctldHost={host}(127.0.0.1)
SlurmUser=root
SlurmdUser=root
AuthType=auth/munge
AuthInfo=socket={folder}/munge.socket,cred_expire=5
CredType=cred/munge
StateSaveLocation={folder}/state
SlurmdSpoolDir={folder}/spool
SlurmctldPidFile={folder}/slurmctld.pid
SlurmdPidFile={folder}/slurmd.pid
SlurmctldLogFile={folder}/slurmctld.log
SlurmdLogFile={folder}/slurmd.log
SlurmctldPort={ports[0]}
SlurmdPort={ports[1]}
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
SlurmdParameters=config_overrides
GresTypes=gpu
JobAcctGatherType=jobacct_gather/none
AccountingStorageType=accounting_storage/none
SelectType=select/cons_tres
SelectTypeParameters=CR_Core
SwitchType=switch/none
MpiDefault=none
ReturnToService=2
SchedulerType=sched/builtin
SchedulerParameters=sched_interval=1,batch_sched_delay=0
NodeName={host} NodeAddr=127.0.0.1 CPUs={cpus} RealMemory=500000 Gres=gpu:8 State=UNKNOWN
PartitionName=debug Nodes={host} Default=YES MaxTime=INFINITE State=UP
PartitionName=develbooster Nodes={host}
PartitionName=gpu Nodes={host}
PartitionName=small-g Nodes={host}
"""


@pytest.fixture
def slurm(monkeypatch, request):
    """SLURM's commands talk to a controller and one node on this machine, of two processors if not told otherwise.

    Its GPUs are only counted: nothing is behind them.
    """
    monkeypatch.setenv("PATH", os.pathsep.join([str(BIN), os.environ["PATH"], "/usr/sbin", "/sbin"]))
    needed = ("munged", "slurmctld", "slurmd", "sbatch", "squeue", "scontrol")
    if os.geteuid() != 0 or any(shutil.which(program) is None for program in needed):
        pytest.skip(f"needs root and {', '.join(needed)} (Debian: slurm-wlm, munge)")
    folder = Path(tempfile.mkdtemp(prefix="gf-slurm-", dir="/tmp"))  # a socket's path has at most 107 bytes
    for name in ("state", "spool"):
        (folder / name).mkdir()
    (folder / "munge.key").write_bytes(os.urandom(128))
    (folder / "munge.key").chmod(0o600)
    folder.chmod(0o711)
    with socket.socket() as first, socket.socket() as second:
        first.bind(("127.0.0.1", 0))
        second.bind(("127.0.0.1", 0))
        ports = first.getsockname()[1], second.getsockname()[1]
    host = socket.gethostname().partition(".")[0]
    cpus = getattr(request, "param", 2)
    (folder / "slurm.conf").write_text(_CONFIGURATION.format(folder=folder, host=host, ports=ports, cpus=cpus))
    for number in range(8):
        (folder / f"gpu{number}").symlink_to("/dev/null")
    (folder / "gres.conf").write_text(f"Name=gpu File={folder}/gpu[0-7]\n")
    monkeypatch.setenv("SLURM_CONF", str(folder / "slurm.conf"))
    files = {"key-file": "munge.key", "socket": "munge.socket", "pid-file": "munged.pid", "log-file": "munged.log"}
    options = [f"--{name}={folder / file}" for name, file in (files | {"seed-file": "munge.seed"}).items()]
    try:
        for command in (["munged", "--force", *options], ["slurmctld"], ["slurmd"]):
            subprocess.run(command, check=True, capture_output=True, timeout=30)
        # until the node has said what it has, jobs that ask for it are refused
        asked = ["sinfo", "--noheader", "--format=%T %G"]
        wait_for(
            lambda: subprocess.run(asked, capture_output=True, text=True, check=False).stdout.startswith("idle gpu")
        )
        yield
    finally:
        for daemon in ("slurmd", "slurmctld", "munged"):
            file = folder / f"{daemon}.pid"
            if file.exists():
                os.kill(int(file.read_text()), signal.SIGTERM)
                while file.exists():
                    time.sleep(0.05)
        shutil.rmtree(folder, ignore_errors=True)


def checksums(folder):
    files = [*folder.rglob("*.h5"), *folder.glob("manifest.json"), *folder.glob("quality.*"), *folder.glob("results.*")]
    return {path.name: hashlib.sha256(path.read_bytes()).hexdigest() for path in sorted(files)}


def run(folder, *command, **environment):
    start = _warm.run if command[0] in ("itwinai", "glitchflow") else _commands.run  # what jobs start, starts afresh
    answer = start(folder, *command, code=None, timeout=300, **environment)
    logs = "\n".join(path.read_text()[-3000:] for path in sorted(folder.glob("slurm-*.out")))
    assert answer.returncode == 0, f"{answer.stdout}\n{answer.stderr}\n{logs}"
    return answer.stdout


@pytest.mark.usefixtures("slurm")
def test_jobs_make_the_sets_that_one_process_makes(tmp_path):
    write_events(tmp_path / "raw", 5)
    run(tmp_path, "glitchflow", "init", tmp_path / "run")
    folder = tmp_path / "run"
    profile = {
        "datasets": [{"path": str(tmp_path / "raw"), "target": TARGET, "processing": {"batch": 1}}],
        "preproc_pipeline": {"steps": {"QT-dataset": {"ch_list": [WITNESS], "num_pictures": 0}}},
    }
    (folder / "conf" / "profile" / "tiny.yaml").write_text(f"# @package _global_\n{yaml.safe_dump(profile)}")
    sizes = ("--cpus-per-task=1", "--mem=1000")
    run(folder, "bash", "slurm/preprocess.sh", 2, *sizes, "conf/profile=tiny", "run_name=array")
    wait_for(lambda: not run(folder, "squeue", "--noheader"))
    logs = "\n".join(path.read_text() for path in sorted(folder.glob("slurm-*.out")))
    assert states(folder) == ["COMPLETED"] * 9, logs
    assert "of 2 is done" in logs
    preprocess = ("itwinai", "exec-pipeline", "+pipe_key=preproc_pipeline", "conf/profile=tiny")
    run(folder, *preprocess, "run_name=alone", "engine.workers=1")
    for kind in ("temp/{}/events", "annalisarun/{}", "QTdatasets/{}"):
        assert checksums(folder / kind.format("array")) == checksums(folder / kind.format("alone"))
    assert not list(folder.rglob("*.tmp.*"))


@pytest.mark.usefixtures("slurm")
def test_an_array_and_a_job_after_it_make_the_products_of_one_process(tmp_path, make_registry, turning):  # noqa: F811
    folder = tmp_path / "run"
    run(tmp_path, "glitchflow", "init", folder)
    registry.register(_streams.bundle(), "twin", make_registry(folder), artifacts=folder / "artifacts")
    profile = {
        "stream": {
            "model": {"name": "twin", "version": 1},
            "datasets": [{"path": str(turning)}],
            "segments": WHOLE,
            "settings": {"block_length": 25, "stride": 1.0, "spectrum": {"length": 48.0}},
        },
        "engine": {"workers": 1},
    }
    (folder / "conf" / "profile" / "tiny.yaml").write_text(f"# @package _global_\n{yaml.safe_dump(profile)}")
    submit = ("sbatch", "--parsable", "--cpus-per-task=1", "--mem=1000")
    stream = ("slurm/stream.sbatch", "conf/profile=tiny", "run_name=array")
    array = run(folder, *submit, "--array=0-1", *stream).strip()
    run(folder, *submit, f"--dependency=afterok:{array}", *stream)
    wait_for(lambda: not run(folder, "squeue", "--noheader"))
    logs = "\n".join(path.read_text() for path in sorted(folder.glob("slurm-*.out")))
    assert states(folder) == ["COMPLETED"] * 3, logs
    assert "of 2 is done" in logs
    run(folder, "itwinai", "exec-pipeline", "+pipe_key=stream_pipeline", "conf/profile=tiny", "run_name=alone")
    shared, alone = (products(folder / "stream" / name) for name in ("array", "alone"))
    assert sum(path.suffix == ".h5" and len(path.parts) == 2 for path in alone) == 4
    assert shared == alone
    stopped = {path.name: json.loads(path.read_text())["stopped"] for path in folder.glob("stream/*/*/products.json")}
    assert [one["part"] for one in stopped["products.json"]] == [_streams.GUIDE]
    assert not list(folder.rglob("*.tmp.*"))


def products(folder):
    """Checksums of all that lies below a folder but for what tells when it was made."""
    told = (".lock", "summary.json", "report.html")
    files = [path for path in folder.rglob("*") if path.is_file() and path.name not in told]
    return {path.relative_to(folder): hashlib.sha256(path.read_bytes()).hexdigest() for path in files}


def states(folder):
    jobs = run(folder, "scontrol", "--oneliner", "show", "job").splitlines()
    return sorted(word.partition("=")[2] for job in jobs for word in job.split() if word.startswith("JobState="))


def wait_for(what, seconds=450):
    end = time.monotonic() + seconds
    while not what():
        assert time.monotonic() < end, "waited for too long"
        time.sleep(0.3)


# Keeps to what slurm/train.sbatch asks of a training: USR1 leaves a checkpoint and status 75; the next start goes on.
# Its first process leaves late, and is ended by SLURM because the other one has left with a status of its own.
TRAINING = """#!{python}
import os, pathlib, signal, sys, time
assert sys.argv[1:3] == ["exec-pipeline", "+pipe_key=training_pipeline"], sys.argv
rank = os.environ["RANK"]
kept = pathlib.Path(f"kept-{{rank}}")
if kept.exists():
    world = [os.environ[key] for key in ("WORLD_SIZE", "LOCAL_RANK", "LOCAL_WORLD_SIZE", "MASTER_ADDR")]
    pathlib.Path(f"done-{{rank}}").write_text("\\n".join([*world, *sys.argv[3:]]))
    sys.exit(0)
def stop(*_):
    kept.touch()
    time.sleep(3 * (rank == "0"))
    sys.exit(75)
signal.signal(signal.SIGUSR1, stop)
pathlib.Path(f"running-{{rank}}").touch()
time.sleep(300)
"""
# What runs until USR1, as online_pipeline does: it ends with status 0, and goes on at the next start.
ENDLESS = """#!{python}
import os, pathlib, signal, sys, time
with open("started", "a") as file:
    file.write(" ".join(sys.argv[1:]) + os.linesep)
if len(pathlib.Path("started").read_text().splitlines()) > 2:
    sys.exit(3)
signal.signal(signal.SIGUSR1, lambda *_: sys.exit(0))
pathlib.Path("running").touch()
time.sleep(300)
"""
HOST = socket.gethostname().partition(".")[0]
ACCOUNT = {"SBATCH_ACCOUNT": "physics", "SBATCH_PARTITION": "debug"}


@pytest.fixture
def stand_in(tmp_path, request):
    """An environment whose itwinai is TRAINING, or what the test names, with a space in its path."""
    program = tmp_path / "an environment" / "bin" / "itwinai"
    program.parent.mkdir(parents=True)
    program.write_text(getattr(request, "param", TRAINING).format(python=sys.executable))
    program.chmod(0o755)
    return str(program.parents[1])


@pytest.mark.usefixtures("slurm")
def test_a_training_at_its_time_limit_comes_back(tmp_path, stand_in):
    folder = tmp_path / "run"
    run(tmp_path, "glitchflow", "init", folder)
    # nothing else of where it is submitted reaches the job
    options = ("--cpus-per-task=2", "--mem=1000", f"--export=GLITCHFLOW_VENV={stand_in},GLITCHFLOW_PROCESSES=2")
    words = ("run_name=with space", "training.epochs=3")
    job = run(folder, "sbatch", "--parsable", *options, "slurm/train.sbatch", *words).strip()
    wait_for(lambda: all((folder / f"running-{rank}").exists() for rank in (0, 1)))
    # what SLURM does two minutes before the time limit
    run(folder, "scancel", "--signal=USR1", "--batch", job)
    wait_for(lambda: all((folder / f"done-{rank}").exists() for rank in (0, 1)))
    wait_for(lambda: not run(folder, "squeue", "--noheader"))
    for rank in (0, 1):
        done = (folder / f"done-{rank}").read_text().splitlines()
        assert done[:4] == ["2", str(rank), "2", HOST]
        assert done[4:] == ["training.strategy=ddp", "training.resume=true", *words]
    described = run(folder, "scontrol", "show", "job", job)
    assert "JobState=COMPLETED" in described
    assert "Restarts=1" in described
    assert "gres" not in described.lower()
    assert "goes back into the queue" in (folder / f"slurm-{job}.out").read_text()


@pytest.mark.parametrize("stand_in", [ENDLESS], indirect=True)
@pytest.mark.usefixtures("slurm")
def test_what_follows_frames_comes_back_until_it_fails(tmp_path, stand_in):
    folder = tmp_path / "run"
    run(tmp_path, "glitchflow", "init", folder)
    options = ("--cpus-per-task=1", "--mem=1000", f"--export=GLITCHFLOW_VENV={stand_in}")
    job = run(folder, "sbatch", "--parsable", *options, "slurm/online.sbatch", "online.frames=[a b]").strip()
    for _ in range(2):
        wait_for((folder / "running").exists)
        (folder / "running").unlink()
        run(folder, "scancel", "--signal=USR1", "--batch", job)
    wait_for(lambda: not run(folder, "squeue", "--noheader"))
    told = "exec-pipeline +pipe_key=online_pipeline online.frames=[a b]"
    assert (folder / "started").read_text().splitlines() == [told] * 3
    described = run(folder, "scontrol", "show", "job", job)
    assert "JobState=FAILED" in described  # with the status of its third start
    assert "Restarts=2" in described
    assert "ExitCode=3:0" in described


PRESETS = sorted(path.stem for path in (Path(__file__).parents[1] / "conf" / "slurm").glob("*.yaml"))


@pytest.mark.parametrize("slurm", [64], indirect=True)
@pytest.mark.usefixtures("slurm")
def test_scripts_are_accepted_and_their_logs_are_found(tmp_path, stand_in):
    folder, elsewhere = tmp_path / "a run", tmp_path / "elsewhere"
    elsewhere.mkdir()
    run(tmp_path, "glitchflow", "init", folder)
    for name in PRESETS:
        file = folder / f"{name}.yaml"
        given = yaml.safe_load((folder / "conf" / "slurm" / f"{name}.yaml").read_text())
        file.write_text(yaml.safe_dump(given | {"run_name": "my run"}))
        run(folder, "itwinai", "generate-slurm", "-c", file, "--save-script", **ACCOUNT)
        script = (folder / "slurm-scripts/glitchflow-train.slurm").rename(folder / f"{name}.slurm")
        assert "run_name=my run" in script.read_text()
        run(elsewhere, "sbatch", "--test-only", script)
    preprocess = ["bash", "slurm/preprocess.sh", "2", "--partition=nowhere"]
    refused = subprocess.run(preprocess, cwd=folder, capture_output=True, text=True, check=False)
    assert refused.returncode == 1
    assert "refused a job of Data-processor" in refused.stderr
    assert not run(folder, "squeue", "--noheader")
    for script in ("train", "preprocess", "stream", "harm", "online"):
        assert "gpu" not in "".join(
            re.findall("^#SBATCH.*", (folder / f"slurm/{script}.sbatch").read_text(), re.MULTILINE)
        )
        run(folder, "sbatch", "--test-only", f"slurm/{script}.sbatch")

    # saved in the run folder, submitted elsewhere: four processes for four GPUs
    for rank in range(4):
        (folder / f"kept-{rank}").touch()
    job = run(elsewhere, "sbatch", "--parsable", folder / "generic.slurm", GLITCHFLOW_VENV=stand_in).strip()
    # where there is no image, no run folder, no itwinai
    small = ("--cpus-per-task=1", "--mem=1000")
    empty = run(folder, "sbatch", "--parsable", *small, folder / "lumi.slurm").strip()
    lost = run(elsewhere, "sbatch", "--parsable", *small, folder / "slurm/train.sbatch").strip()
    bare = {"PATH": "/usr/bin:/bin"}
    alone = run(folder, "sbatch", "--parsable", *small, "slurm/train.sbatch", **bare).strip()
    wait_for(lambda: not run(folder, "squeue", "--noheader"))
    log = "\n".join((elsewhere / f"glitchflow-train-{job}.{end}").read_text() for end in ("out", "err"))
    assert states(folder) == ["COMPLETED", "FAILED", "FAILED", "FAILED"], log
    for rank in range(4):
        done = (folder / f"done-{rank}").read_text().splitlines()
        assert (done[:3], done[-1]) == (["4", str(rank), "4"], "run_name=my run")
    assert "No container image glitchflow.sif" in (folder / f"glitchflow-train-{empty}.err").read_text()
    assert "Submit this in the run folder" in (elsewhere / f"slurm-{lost}.out").read_text()
    assert "itwinai is not on this job's PATH" in (folder / f"slurm-{alone}.out").read_text()


def test_a_preset_without_account_names_what_it_lacks(tmp_path):
    preset = Path(__file__).parents[1] / "conf" / "slurm" / "generic.yaml"
    known = {key: value for key, value in os.environ.items() if key not in ACCOUNT}
    command = [BIN / "itwinai", "generate-slurm", "-c", preset]
    answer = subprocess.run(command, cwd=tmp_path, env=known, capture_output=True, text=True, check=False)
    assert answer.returncode == 1
    assert "Traceback" not in answer.stderr
    for key in ("account", "partition", "run_name"):
        assert f"\n{key}\n  Input should be a valid string" in answer.stdout


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["run_name=o4"], "got 'run_name=o4'"),
        (["2"], "No config.yaml"),
        (["2", "-p", "batch"], "'-p' is neither"),
        (["2", "--account", "physics"], "'physics' is neither"),
    ],
)
def test_nothing_is_submitted_without_a_number_of_tasks_or_elsewhere(tmp_path, words, said):
    script = Path(__file__).parents[1] / "slurm" / "preprocess.sh"
    answer = subprocess.run(["bash", script, *words], cwd=tmp_path, capture_output=True, text=True, check=False)
    assert answer.returncode != 0
    assert said in answer.stderr
