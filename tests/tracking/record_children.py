"""A worker of `test_parallel_tracking`, spoken to by lines: prepare a database, then record runs below a parent."""

import sys

import mlflow  # noqa: F401  # so that the waiting below is for others, not for this import

from mitoray.tracking import RunRef, TrackedRun, prepare

CHILDREN, STEPS = 3, 20


def main(address: str, worker: str) -> None:
    say("ready")
    heard()
    say(prepare(address))
    parent = RunRef(address, heard())
    for number in range(CHILDREN):
        with TrackedRun.start(f"{worker}-{number}", parent=parent) as run:
            run.log_parameters({"worker": worker, "number": number})
            for step in range(STEPS):
                run.log_metrics({"loss": 1 / (step + 1), "f1/all": step / STEPS}, step)
            run.log_text(worker, "worker.txt")
    say("done")


def say(line: str) -> None:
    print(line, flush=True)


def heard() -> str:
    return sys.stdin.readline().strip()


if __name__ == "__main__":
    main(*sys.argv[1:])
