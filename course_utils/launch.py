"""Several processes, on this computer or on many, that do one command together: torchrun, and its errors in a sentence.

`python -m course_utils.launch --processes 2 course_utils.tuning WORDS …`; on several computers once on each of them.
"""

import argparse
import logging
import os
import socket
import sys
from functools import partial

from course_utils.engines import as_command


def free_port() -> int:
    """A port that nobody uses."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def torchruns(args: argparse.Namespace) -> list[str]:
    """What torchrun is to do, in its own words."""
    host, port = args.address.rsplit(":", 1) if args.address else ("127.0.0.1", free_port())
    where = ["--nnodes", args.nodes, "--node-rank", args.node_rank, "--master-addr", host, "--master-port", port]
    return [str(word) for word in (*where, "--nproc-per-node", args.processes, "-m", args.module, *args.words)]


def start(args: argparse.Namespace) -> int:
    """Run all processes; if one fails it has said why, unless it was killed."""
    from torch.distributed import DistError, run
    from torch.distributed.elastic.multiprocessing.api import SignalException
    from torch.distributed.elastic.multiprocessing.errors import ChildFailedError

    logging.disable(logging.CRITICAL)  # torchrun's pages about a failure
    os.environ["COURSE_PARENT"] = str(os.getpid())  # none of them outlives this process
    if args.nodes > 1:
        print(f"Computer {args.node_rank} of 0 … {args.nodes - 1} waits for the others at {args.address}.", flush=True)
    try:
        run.run(run.parse_args(torchruns(args)))
    except SignalException:
        return 130
    except ChildFailedError as error:
        return failed(error.failures)
    except (DistError, OSError) as error:
        reason = str(error).splitlines()[0]
        raise OSError(f"the {args.nodes} computers did not find each other at {args.address} ({reason})") from error
    return 0


def failed(failures: dict) -> int:
    """The exit code of processes that failed; one that was killed could not say so itself."""
    codes = {rank: failure.exitcode for rank, failure in failures.items()}
    if 130 in codes.values():
        return 130
    killed = [rank for rank, code in codes.items() if code < 0]
    if killed and len(killed) == len(codes):
        why = "was killed (was there too little memory?); the same command goes on where it was"
        print(f"course.py: process {killed[0]} {why}.", file=sys.stderr)
    return 2


def main(argv: list[str] | None = None) -> int:
    """Start the module that the command line names."""
    parser = argparse.ArgumentParser("python -m course_utils.launch")
    for name, default in {"processes": 1, "nodes": 1, "node-rank": 0}.items():
        parser.add_argument(f"--{name}", type=int, default=default)
    parser.add_argument("--address", default="")
    parser.add_argument("module")
    parser.add_argument("words", nargs=argparse.REMAINDER)
    return as_command(partial(start, parser.parse_args(argv)))


if __name__ == "__main__":
    raise SystemExit(main())
