"""The scripts of slurm/ on a real SLURM of one node, started and ended here."""

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
AuthInfo=socket={folder}/munge.socket
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
