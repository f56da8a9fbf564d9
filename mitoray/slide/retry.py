"""When the storage fails: which `SlideError` that is, and asking again while the failure may pass."""

import itertools
import logging
import random
import time
from collections.abc import Callable, Iterator
from typing import Final, TypeVar

from mitoray.errors import NoByteRanges, NotASlide, SlideError, SlideForbidden, SlideNotFound, SlideUnreachable
from mitoray.slide.range_requests import WholeFileError
from mitoray.uris import brief, lacks_credentials

log = logging.getLogger(__name__)

ATTEMPTS: Final = 5
FIRST_PAUSE_S: Final = 0.25
"""Before the second attempt, on average; doubles with each."""

T = TypeVar("T")


def pauses_s() -> Iterator[float]:
    """Seconds to wait before the second and each further attempt, then no more.

    Random by half in both directions, lest all workers that one overload refused come back at once.
    """
    for attempt in range(ATTEMPTS - 1):
        yield FIRST_PAUSE_S * 2**attempt * random.uniform(0.5, 1.5)


def patiently(ask: Callable[[], T], name: str) -> T:
    """`ask()`, again after growing pauses while the failure may pass: `ATTEMPTS` times at most.

    Errors: a `SlideError` that `ask` raises, at once; what else it raises, as the `SlideError` for slide `name`.
    """
    for attempt, pause_s in enumerate(itertools.chain(pauses_s(), [None]), 1):
        try:
            return ask()
        except SlideError:
            raise
        except Exception as exc:
            error = named(exc, name)
            if error is None:
                raise
            if not isinstance(error, SlideUnreachable | NoByteRanges) or pause_s is None:
                # The cause's own text may hold a signed URL.
                raise error from None
            log.warning("%s; attempt %d of %d", error, attempt, ATTEMPTS)
            time.sleep(pause_s)
    raise AssertionError("the last attempt returns or raises")


def named(exc: BaseException, name: str) -> SlideError | None:
    """The `SlideError` for a storage failure, None for what is no storage failure."""
    if isinstance(exc, WholeFileError):
        return whole_files_only(name)
    asked_over_http = isinstance(exc, FileNotFoundError) and type(exc.__cause__).__module__.startswith(
        ("aiohttp", "builtins", "asyncio")
    )
    if asked_over_http:
        # fsspec calls whatever goes wrong over HTTP "not found"; the cause knows better.
        exc = exc.__cause__ if isinstance(exc.__cause__, Exception) else exc
    kind, status = type(exc).__name__, getattr(exc, "status", None)
    if isinstance(exc, FileNotFoundError | NotADirectoryError) or status in (404, 410):
        return SlideNotFound(f"{name}: no such file. Check the uri in the manifest.")
    if isinstance(exc, IsADirectoryError):
        return NotASlide(f"{name} is a folder. Give the URI of one slide file.")
    if isinstance(exc, PermissionError) or status in (401, 403, 407) or lacks_credentials(exc):
        return SlideForbidden(f"{name}: reading is not allowed ({brief(exc)}). Check credentials and permissions.")
    module = type(exc).__module__.partition(".")[0]
    if (asked_over_http and isinstance(exc, ValueError)) or kind == "ParamValidationError":
        return SlideNotFound(f"{name} is no address that can be asked ({brief(exc)}). Check the uri in the manifest.")
    if isinstance(exc, OSError | TimeoutError | EOFError) or module in ("aiohttp", "botocore", "aiobotocore"):
        return SlideUnreachable(
            f"{name}: the storage did not answer properly ({brief(exc)}). Check network and endpoint, then run again."
        )
    return None


def whole_files_only(name: str) -> NoByteRanges:
    """The error for slide `name` on a server that does not know ranges."""
    return NoByteRanges(
        f"{name}: the server gives whole files only. Slides are read by byte range: "
        "use a server that answers Range requests, or copy the slide to disk or S3."
    )
