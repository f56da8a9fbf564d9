"""What all jobs share: options written with dashes, and exit statuses with a meaning."""

import logging
import re
import sys
import traceback
from collections.abc import Callable, Sequence
from dataclasses import fields
from typing import Any

from jsonargparse import ArgumentParser, Namespace

from mitoray.errors import MitorayError, Stopped
from mitoray.logs import Lines
from mitoray.uris import redact_text

DONE = 0
FAILED = 1
BAD_INPUT = 2
PARTLY_FAILED = 3
STOPPED = 4

EXIT_STATUS_HELP = (
    "Exit status: 0 done, 2 bad arguments or input (nothing was started), 3 partly failed, 4 stopped by SIGTERM, "
    "1 anything else."
)


class JobParser(ArgumentParser):
    """A parser whose options are written with dashes: `--num-actors`; `--num_actors` is understood too.

    Takes `--config FILE`, a YAML file of options, which options on the command line override.
    """

    def __init__(self, prog: str, description: str) -> None:
        super().__init__(prog=prog, description=description, epilog=EXIT_STATUS_HELP)
        self.add_argument("--config", action="config", help="YAML file with any of the options below")

    def parse_args(self, args: Sequence[str] | None = None, *rest: Any, **options: Any) -> Namespace:  # type: ignore[override]
        """Options from the command line; ends the process with status 2 where they are wrong."""
        given = sys.argv[1:] if args is None else args
        return super().parse_args([_with("-", "_", word) for word in given], *rest, **options)

    def parsed(self, argv: Sequence[str] | None, *groups: type[Any]) -> tuple[Any, ...]:
        """The command line as objects of the dataclasses whose arguments were added; raises what they raise."""
        given = self.parse_args(argv).as_dict()
        return tuple(group(**{field.name: given[field.name] for field in fields(group)}) for group in groups)

    def format_help(self, *formatter: Any) -> str:
        """The help page, with dashes."""
        return _dashed(super().format_help(*formatter))

    def format_usage(self, *formatter: Any) -> str:
        """The usage lines, with dashes."""
        return _dashed(super().format_usage(*formatter))


def _dashed(text: str) -> str:
    return re.sub(r"(?<![\w-])--\w+", lambda option: _with("_", "-", option.group()), text)


def _with(old: str, new: str, word: str) -> str:
    """An option's name with one character for another; values, and what is no option, stay as they are."""
    if not word.startswith("--"):
        return word
    name, equals, value = word[2:].partition("=")
    return f"--{name.replace(old, new)}{equals}{value}"


def run_job(job: Callable[[], int], *, bad_input: tuple[type[MitorayError], ...]) -> int:
    """The exit status of a job; errors of mitoray's own, and of files and storage, are told without a traceback.

    Of none does a URI's secret part reach the terminal.

    bad_input: errors that mean that nothing was started.
    """
    handler = logging.StreamHandler()
    handler.setFormatter(Lines())
    logging.basicConfig(handlers=[handler], level=logging.WARNING)
    try:
        return job()
    except SystemExit as end:
        return int(end.code or 0)
    except bad_input as error:
        print(redact_text(f"{type(error).__name__}: {error}"), file=sys.stderr)
        return BAD_INPUT
    except Stopped as stopped:
        logging.getLogger("mitoray").warning("%s", stopped)
        return STOPPED
    except (MitorayError, OSError) as error:
        logging.getLogger("mitoray").debug("The job failed", exc_info=error)
        print(redact_text(f"{type(error).__name__}: {error}"), file=sys.stderr)
        return FAILED
    except Exception as error:  # an error of ours, told in full, but for what libraries repeat of URIs
        print(redact_text("".join(traceback.format_exception(error))), file=sys.stderr)
        return FAILED
    except KeyboardInterrupt:
        print("Interrupted. The same command goes on from here.", file=sys.stderr)
        return FAILED
