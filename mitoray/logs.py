"""What mitoray tells of what it does: lines for people, or JSON objects for machines that collect them."""

import json
import logging
import os
import sys
import time
from dataclasses import dataclass
from typing import Final, Literal

from mitoray.uris import redact_text

LogLevel = Literal["debug", "info", "warning", "error"]
LogFormat = Literal["text", "json"]

FACTS: Final = (
    "cohort",
    "stage",
    "slide_id",
    "region_id",
    "status",
    "error",
    "n_detections",
    "mitotic_count",
    "duration_s",
    "attempt",
)
"""What a record may hold beside its message, given as `extra=` where it is logged."""


class Lines(logging.Formatter):
    """Level and message, with no secret of a URI in it, nor in what an exception tells."""

    def __init__(self) -> None:
        super().__init__("%(levelname)s %(message)s")

    def format(self, record: logging.LogRecord) -> str:
        """The record's line, and the exception's below it."""
        return redact_text(super().format(record))


class JsonLines(logging.Formatter):
    """One JSON object per record and line: `time` (UTC), `level`, `logger`, `message`, `process`, and its `FACTS`."""

    def format(self, record: logging.LogRecord) -> str:
        """The record's line. What an exception tells is in `exception`, its line ends escaped as JSON does."""
        seconds = time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(record.created))
        told = {
            "time": f"{seconds}.{int(record.msecs):03d}Z",
            "level": record.levelname.lower(),
            "logger": record.name,
            "message": redact_text(record.getMessage()),
            "process": record.process,
            **{name: getattr(record, name) for name in FACTS if getattr(record, name, None) is not None},
        }
        if record.exc_info:
            told["exception"] = redact_text(self.formatException(record.exc_info))
        return json.dumps(told, ensure_ascii=False, default=str)


@dataclass(frozen=True)
class LogSettings:
    """How much is told, and how. Small and picklable: the processes of a cluster apply those of the driver."""

    level: str = "warning"
    format: LogFormat = "text"

    @classmethod
    def here(cls) -> "LogSettings":
        """Those of this process."""
        level = logging.getLevelName(logging.getLogger("mitoray").getEffectiveLevel()).lower()
        handlers = logging.getLogger().handlers
        return cls(level, "json" if any(isinstance(one.formatter, JsonLines) for one in handlers) else "text")

    def apply(self) -> None:
        """Let this process' log go to its standard error in that form."""
        if self.format == "json":
            os.environ.setdefault("RAY_BACKEND_LOG_JSON", "1")  # for what Ray's own C++ part writes there
        handler = logging.StreamHandler(sys.stderr)
        handler.setFormatter(JsonLines() if self.format == "json" else Lines())
        logging.basicConfig(handlers=[handler], level=logging.WARNING, force=True)
        logging.getLogger("mitoray").setLevel(self.level.upper())
