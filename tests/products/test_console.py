import os
import subprocess
import sys

import pytest

from glitchflow_plugin.products.console import resemble

CODE = """
from glitchflow_plugin.products.console import never_fail_on_output
from glitchflow_plugin.products.summary import *
never_fail_on_output()
summary = RunSummary("x/Trainer", now(), inputs={"über": "SNR²…"}, warnings=("日 😀",))
print(format_summary(summary))
"""


@pytest.mark.parametrize("encoding", ["ascii", "latin-1", "utf-8", "utf-8:replace"])
def test_a_summary_is_shown_in_any_encoding(encoding):
    command, environment = [sys.executable, "-c", CODE], {**os.environ, "PYTHONIOENCODING": encoding}
    ended = subprocess.run(command, env=environment, capture_output=True, check=False)
    assert ended.returncode == 0, ended.stderr.decode()
    text = ended.stdout.decode(encoding.partition(":")[0])
    if encoding == "ascii":
        assert "+---" in text
        assert "uber" in text
        assert "SNR2..." in text
        assert "? ?" in text
    if encoding.startswith("utf-8"):
        assert "─" in text


def test_what_has_no_likeness_is_a_question_mark():
    assert resemble("a日é│╋") == "a?e|+"
