"""The scripts of slurm/ and the presets of conf/slurm/ on a real SLURM of one node, started and ended here."""

import hashlib
import os
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
from tests.preprocessing._runs import TARGET, WITNESS, write_events

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
JobAcctGatherType=jobacct_gather/none
AccountingStorageType=accounting_storage/none
SelectType=select/cons_tres
SelectTypeParameters=CR_Core
SwitchType=switch/none
MpiDefault=none
ReturnToService=2
SchedulerType=sched/builtin
SchedulerParameters=sched_interval=1,batch_sched_delay=0
NodeName={host} NodeAddr=127.0.0.1 CPUs=2 RealMemory=4000 State=UNKNOWN
PartitionName=debug Nodes={host} Default=YES MaxTime=INFINITE State=UP
"""


@pytest.fixture
def slurm(monkeypatch):
    """SLURM's commands talk to a controller and one node of two processors on this machine."""
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
    (folder / "slurm.conf").write_text(_CONFIGURATION.format(folder=folder, host=host, ports=ports))
    monkeypatch.setenv("SLURM_CONF", str(folder / "slurm.conf"))
    files = {"key-file": "munge.key", "socket": "munge.socket", "pid-file": "munged.pid", "log-file": "munged.log"}
    options = [f"--{name}={folder / file}" for name, file in (files | {"seed-file": "munge.seed"}).items()]
    try:
        for command in (["munged", "--force", *options], ["slurmctld"], ["slurmd"]):
            subprocess.run(command, check=True, capture_output=True, timeout=30)
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
    known = {key: value for key, value in os.environ.items() if key != "PYTHONDONTWRITEBYTECODE"}
    answer = subprocess.run(
        [str(word) for word in command],
        cwd=folder,
        env=known | environment,
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
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
    for _ in range(240):
        if not run(folder, "squeue", "--noheader"):
            break
        time.sleep(0.5)
    jobs = run(folder, "scontrol", "--oneliner", "show", "job").splitlines()
    states = [word for job in jobs for word in job.split() if word.startswith("JobState=")]
    logs = "\n".join(path.read_text() for path in sorted(folder.glob("slurm-*.out")))
    assert states == ["JobState=COMPLETED"] * 9, f"{jobs}\n{logs}"
    assert "of 2 is done" in logs
    preprocess = ("itwinai", "exec-pipeline", "+pipe_key=preproc_pipeline", "conf/profile=tiny")
    run(folder, *preprocess, "run_name=alone", "engine.workers=1")
    for kind in ("temp/{}/events", "annalisarun/{}", "QTdatasets/{}"):
        assert checksums(folder / kind.format("array")) == checksums(folder / kind.format("alone"))
    assert not list(folder.rglob("*.tmp.*"))


def submit(folder, name, **changes):
    """Submit a preset as a user does, with this cluster's account and sizes in it; the number of the job."""
    preset = yaml.safe_load((folder / "conf" / "slurm" / f"{name}.yaml").read_text())
    file = folder / f"{name}-here.yaml"
    file.write_text(yaml.safe_dump(preset | {"partition": "debug", "cpus_per_task": 1, "python_venv": None} | changes))
    run(folder, "itwinai", "generate-slurm", "-c", file, "--submit-job")
    return run(folder, "squeue", "--noheader", "--format=%A", "--sort=-i").split()[0]


def states(folder):
    jobs = run(folder, "scontrol", "--oneliner", "show", "job").splitlines()
    return sorted(word.partition("=")[2] for job in jobs for word in job.split() if word.startswith("JobState="))


def wait_for(what, seconds=120):
    end = time.monotonic() + seconds
    while not what():
        assert time.monotonic() < end, "waited for too long"
        time.sleep(0.3)


# Keeps to what the presets ask of a training: USR1 leaves a checkpoint and status 75; the next start goes on from it.
# Its first process leaves late, and is ended by SLURM because the other one has left with a status of its own.
TRAINING = """
import os, pathlib, signal, sys, time
rank = os.environ["RANK"]
kept = pathlib.Path(f"kept-{rank}")
if kept.exists():
    world = [os.environ[key] for key in ("WORLD_SIZE", "LOCAL_RANK", "LOCAL_WORLD_SIZE", "MASTER_ADDR")]
    pathlib.Path(f"done-{rank}").write_text(" ".join(world))
    sys.exit(0)
def stop(*_):
    kept.touch()
    time.sleep(3 * (rank == "0"))
    sys.exit(75)
signal.signal(signal.SIGUSR1, stop)
pathlib.Path(f"running-{rank}").touch()
time.sleep(300)
"""


@pytest.mark.usefixtures("slurm")
def test_presets_make_shares_and_bring_a_training_back(tmp_path):
    write_events(tmp_path / "raw", 4)
    folder = tmp_path / "run"
    run(tmp_path, "glitchflow", "init", folder)
    profile = {"datasets": [{"path": str(tmp_path / "raw"), "target": TARGET, "processing": {"batch": 1}}]}
    (folder / "conf" / "profile" / "tiny.yaml").write_text(f"# @package _global_\n{yaml.safe_dump(profile)}")
    command = "bash slurm/preprocess.sbatch Data-processor conf/profile=tiny run_name=array"
    submit(folder, "preprocess-array", memory="1000\n#SBATCH --array=0-1", exec_command=command)
    wait_for(lambda: not run(folder, "squeue", "--noheader"))
    logs = "\n".join(path.read_text() for path in sorted((folder / "slurm-job-logs").iterdir()))
    assert states(folder) == ["COMPLETED"] * 2, logs
    assert (folder / "temp/array/events/manifest.json").exists(), logs

    (folder / "training.py").write_text(TRAINING)
    preset = yaml.safe_load((folder / "conf/slurm/train-requeue.yaml").read_text())
    assert "requeue-launcher 'itwinai exec-pipeline" in preset["exec_command"]
    options = preset["memory"].partition("\n")[2]
    job = submit(
        folder,
        "train-requeue",
        memory=f"1000\n{options}",
        cpus_per_task=2,
        exec_command=f"requeue-launcher '{sys.executable} training.py'",
    )
    wait_for(lambda: all((folder / f"running-{rank}").exists() for rank in (0, 1)))
    # what SLURM does two minutes before the time limit
    run(folder, "scancel", "--signal=USR1", "--batch", job)
    wait_for(lambda: all((folder / f"done-{rank}").exists() for rank in (0, 1)))
    wait_for(lambda: not run(folder, "squeue", "--noheader"))
    host = socket.gethostname().partition(".")[0]
    assert [(folder / f"done-{rank}").read_text() for rank in (0, 1)] == [f"2 0 2 {host}", f"2 1 2 {host}"]
    described = run(folder, "scontrol", "show", "job", job)
    assert "JobState=COMPLETED" in described
    assert "Restarts=1" in described
    assert "goes back into the queue" in (folder / f"slurm-job-logs/glitchflow-train-{job}.out").read_text()
