"""Code that a test runs in a process of its own."""

import os
import signal
import subprocess
import sys
from pathlib import Path

import trivec


def run_script(code: str, *arguments: object, timeout: float = 60, **environment: str) -> str:
    """What a script printed on stdout; it ends with 0 within the timeout, and says nothing on stderr.

    Args:
        code: the script.
        arguments: its sys.argv[1:].
        timeout: seconds; a process that hangs is killed, and the test fails.
        environment: variables beside those that this process has.
    """
    script = subprocess.Popen(
        [sys.executable, "-W", "ignore", "-c", code, *map(str, arguments)],
        env={**os.environ, "PYTHONPATH": str(Path(trivec.__file__).parents[1]), **environment},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )
    try:
        said, complaints = script.communicate(timeout=timeout)
    except subprocess.TimeoutExpired:
        if hasattr(os, "killpg"):
            os.killpg(script.pid, signal.SIGKILL)  # children that hang as well
        script.kill()
        raise
    assert (script.returncode, complaints) == (0, ""), complaints
    return said
