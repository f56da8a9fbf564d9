"""What stops a whole run, by name and with its remedy, where Ray hands it over wrapped in errors of its own."""

import errno
from collections.abc import Iterator
from contextlib import contextmanager

from mitoray.errors import MitorayError, ObjectStoreFull, OutputFull, OutputUnreachable
from mitoray.uris import lacks_credentials

_NO_SPACE = (errno.ENOSPC, errno.EDQUOT)
_STORE_FULL = ("ObjectStoreFullError", "OutOfDiskError")


def named_failure(error: BaseException, output: str) -> MitorayError | None:
    """The error by its name, None where it has none. output: the run's folder, as shown."""
    for cause in causes(error):
        kind, text = type(cause).__name__, str(cause)
        if kind in _STORE_FULL or any(name in text for name in _STORE_FULL):
            return ObjectStoreFull(
                "Ray's object store is full, and so is the disk that it spills to. Make /dev/shm larger, start Ray "
                "with a larger --object-store-memory, or give its temporary folder (RAY_TMPDIR) a disk with room; then "
                "give the same command again, which goes on from here."
            )
        full = isinstance(cause, OSError) and cause.errno in _NO_SPACE
        if full or "No space left on device" in text or "Disk quota exceeded" in text:
            return OutputFull(
                f"No space is left where {output} or Ray's temporary files are written. Make room there, or set "
                "RAY_TMPDIR to a folder with room; then give the same command again, which goes on from here."
            )
        if lacks_credentials(cause):
            return OutputUnreachable(
                f"A node of the cluster has no credentials for {output}. Give all nodes some: a role of their own, or "
                "variables in the job's runtime_env; then give the same command again, which goes on from here."
            )
        if isinstance(cause, MitorayError):
            return cause
    return None


def causes(error: BaseException) -> Iterator[BaseException]:
    """The error, what caused it, what caused that, each once; Ray's task errors hold theirs in `cause`."""
    seen: set[int] = set()
    waiting: list[BaseException | None] = [error]
    while waiting:
        found = waiting.pop(0)
        if isinstance(found, BaseException) and id(found) not in seen:
            seen.add(id(found))
            yield found
            waiting += [getattr(found, "cause", None), found.__cause__, found.__context__]


@contextmanager
def naming_failures(output: str) -> Iterator[None]:
    """Errors of the block come out by their own name where they have one."""
    try:
        yield
    except MitorayError:
        raise
    except Exception as error:
        named = named_failure(error, output)
        if named is None:
            raise
        raise named from error
