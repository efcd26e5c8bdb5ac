"""Several processes started by the course's launcher, on this computer or on two that are made for a test."""

import contextlib
import os
import shutil
import subprocess
import sys
import uuid
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent


def launch(*words, before=(), modules="", **env):
    """Start the launcher, which also finds modules in another folder; returns the process."""
    own = {k: v for k, v in os.environ.items() if k not in ("RANK", "WORLD_SIZE", "GLOO_SOCKET_IFNAME")}
    own |= {"PYTHONPATH": f"{ROOT}{os.pathsep}{modules}", "OMP_NUM_THREADS": "1", **env}
    command = [*before, sys.executable, "-m", "course_utils.launch", *map(str, words)]
    pipe = subprocess.PIPE
    return subprocess.Popen(command, cwd=ROOT, env=own, stdin=subprocess.DEVNULL, stdout=pipe, stderr=pipe, text=True)


def end(process, seconds=300):
    """What a process printed, and its exit code."""
    with process:
        try:
            out, err = process.communicate(timeout=seconds)
        except subprocess.TimeoutExpired:
            process.kill()
            raise
    return out, err, process.returncode


def can_have_hosts():
    """Why two hosts cannot be made here, or nothing."""
    if sys.platform != "linux" or os.geteuid() != 0:
        return "two network namespaces need Linux and root"
    if not shutil.which("ip"):
        return "two network namespaces need the command ip (Debian: iproute2)"
    name = f"pp-probe-{os.getpid()}"
    made = subprocess.run(["ip", "netns", "add", name], capture_output=True, text=True)
    subprocess.run(["ip", "netns", "del", name], capture_output=True)
    return f"no network namespace can be made here: {made.stderr.strip()}" if made.returncode else ""


@contextlib.contextmanager
def two_hosts() -> Iterator[tuple[list[str], str]]:
    """Two network namespaces, joined by a cable: names, and the address of the first. They can reach nothing else."""
    key = uuid.uuid4().hex[:6]
    names, ends = [f"pp{key}-{i}" for i in range(2)], [f"pp{key}{i}" for i in range(2)]

    def ip(*words):
        subprocess.run(["ip", *words], check=True, capture_output=True)

    try:
        for name in names:
            ip("netns", "add", name)
        ip("link", "add", ends[0], "netns", names[0], "type", "veth", "peer", "name", ends[1], "netns", names[1])
        for number, (name, link) in enumerate(zip(names, ends, strict=True), 1):
            ip("-n", name, "address", "add", f"10.77.0.{number}/24", "dev", link)
            ip("-n", name, "link", "set", link, "up")
            ip("-n", name, "link", "set", "lo", "up")
        yield names, "10.77.0.1"
    finally:
        for name in names:
            subprocess.run(["ip", "netns", "del", name], capture_output=True)


def on_two_hosts(*words, **env):
    """The same command on both hosts, with one process each; what each printed, and its exit code."""
    with two_hosts() as (names, address):
        many = [["--nodes", 2, "--node-rank", number, "--address", f"{address}:29511"] for number in range(2)]
        began = [launch(*many[i], *words, before=("ip", "netns", "exec", names[i]), **env) for i in range(2)]
        return [end(process) for process in began]
