"""Command lines of jobs as documents and configuration files show them, and their parsing by the jobs' own parsers."""

import re
import shlex
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).parents[1]
_STARTS = re.compile(
    r"^(?:[$-] )?(?:exec |nohup )?(?:\S*python|uv run|ray job submit|docker|kubectl|command:|entrypoint:)\b"
)
_JOB = re.compile(r"(?:^|[\s\"'])(?:\S*/)?jobs/(\w+)\.py(?=\s|$)(.*)")


@dataclass(frozen=True)
class CommandLine:
    """One use of a job: where it is shown, the job's name, its arguments."""

    where: str
    job: str
    arguments: tuple[str, ...]


def command_lines(path: Path) -> Iterator[CommandLine]:
    """Every command line of a job in a file, continued lines joined, up to a comment or the next shell command.

    "(the same options)" stands for those of the job's command before; another remark in brackets at the end is none of
    the command's.
    """
    text = path.read_text(encoding="utf-8").replace("\\\\\n", "\\\n")  # a docstring may double its backslashes
    # Continuations become one line, and the line numbers stay.
    joined = re.sub(
        r"(?:[^\n]*\\\n)+[^\n]*", lambda many: many[0].replace("\\\n", " ") + "\n" * many[0].count("\n"), text
    )
    before: dict[str, tuple[str, ...]] = {}
    for number, line in enumerate(joined.splitlines(), start=1):
        found = _JOB.search(line.strip()) if _STARTS.match(line.strip()) else None
        if not found:
            continue
        job, rest = found.groups()
        same, rest = "(the same options)" in rest, rest.replace("(the same options)", " ")
        rest = re.sub(r"\s\((?:[^()\"']*)\)\s*$", "", rest)
        words = shlex.shlex(rest, posix=True, punctuation_chars=";&|>")
        words.whitespace_split = True
        arguments: list[str] = []
        for word in words:
            if set(word) <= set(";&|>"):
                break
            arguments.append(word)
        if same:
            arguments = [*arguments[:1], *before[job][1:], *arguments[1:]]
        else:
            before[job] = tuple(arguments)
        yield CommandLine(f"{path.relative_to(ROOT)}:{number}", job, tuple(arguments))
