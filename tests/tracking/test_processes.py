import json
import subprocess
import sys

from glitchflow_plugin.tracking.processes import is_gone, this_process


def test_a_process_that_ended_is_told_from_one_that_lives():
    code = "import json, sys; from glitchflow_plugin.tracking.processes import this_process\n"
    code += "print(json.dumps(this_process()), flush=True); sys.stdin.read()"
    command = [sys.executable, "-c", code]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        described = json.loads(process.stdout.readline())
        assert not is_gone(described)
        process.kill()
    assert is_gone(described)


def test_what_cannot_be_seen_from_here_is_not_called_gone():
    here = this_process()
    assert not is_gone(here)
    for key in ("host", "machine", "namespace"):
        assert not is_gone({**here, key: "another", "pid": 2**22 + 1})
    for unknown in (None, {}, "text", [1], {"pid": 1}, {**here, "pid": "1"}):
        assert not is_gone(unknown)
    # its number was given to another process; the machine was started anew
    assert is_gone({**here, "started": "1"})
    assert is_gone({**here, "boot": "before"})
