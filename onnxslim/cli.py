"""The command line: argv to a request, a result to text, an error to one line and an exit code.

The only module that prints or exits. All heavy imports happen inside of `main`, so that Ctrl-C, or
SIGTERM, at any moment ends in one line and leaves no temporary file.
"""

from __future__ import annotations

import os
import signal
import sys
import warnings
from collections.abc import Sequence
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pathlib import Path

    from rich.console import Console

    from onnxslim.arguments import Arguments
    from onnxslim.config import Request
    from onnxslim.errors import CheckFailed, OnnxSlimError

OK, USER_ERROR, USAGE, CHECK_FAILED, BUG, INTERRUPTED = 0, 1, 2, 3, 70, 130

_PLAIN_WIDTH = 120  # of tables that go to a file or a pipe
_LONGEST_ERROR = 1000  # characters


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line; returns the exit code and never shows a traceback."""
    try:
        if argv is None:  # the process is ours
            _hear()
            _set_up()
        return _run(sys.argv[1:] if argv is None else argv)
    except KeyboardInterrupt as stop:
        if argv is None:  # the process ends: a second signal has nothing left to stop
            for number in (signal.SIGINT, *_enders()):
                signal.signal(number, signal.SIG_IGN)
        code = stop.code if isinstance(stop, _Ended) else INTERRUPTED
        return _say("interrupted; every file is whole, as new or as it was before", code)
    except MemoryError:
        return _say("out of memory; nothing was written", USER_ERROR)
    except BrokenPipeError:  # the reader of our output is gone: nobody to tell
        _drop_stdout()
        return OK
    except Exception as error:  # noqa: BLE001 - the last resort: a bug outside of the passes
        return _say(f"internal error: {_bug_file(error)}", BUG)


def _drop_stdout() -> None:
    """What is still to be written there must not fail once more at the end of the process."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


class _Ended(KeyboardInterrupt):
    """A signal that ends processes, taken as Ctrl-C is; the shell's exit code for it."""

    def __init__(self, number: int) -> None:
        super().__init__()
        self.code = 128 + number


def _enders() -> list[signal.Signals]:
    """SIGTERM, and SIGHUP where there is such."""
    return [number for number in signal.Signals if number.name in ("SIGTERM", "SIGHUP")]


def _set_up() -> None:
    """ONNX Runtime sends what it runs to its makers unless this is set before it is imported; and
    lines of our source are no message to a user, where a weight of 1e30 overflows."""
    for name in ("stdout", "stderr"):
        _make_writable(name)
    os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")
    warnings.filterwarnings("ignore", category=RuntimeWarning, module="onnxslim")


def _make_writable(name: str) -> None:
    """A stream that was closed takes anything; one of few characters takes `?` for the others."""
    stream = getattr(sys, name)
    if stream is None:
        setattr(sys, name, open(os.devnull, "w", encoding="utf-8"))  # noqa: SIM115
    elif hasattr(stream, "reconfigure"):
        stream.reconfigure(errors="replace")


def _hear() -> None:
    """End tidily; what starts this process may have signals ignored (`nohup`)."""

    def end(number: int, _: object) -> None:
        raise _Ended(number)

    for number in _enders():
        if signal.getsignal(number) is signal.SIG_DFL:
            signal.signal(number, end)


def _run(argv: Sequence[str]) -> int:
    from onnxslim.arguments import Arguments, UsageError, read_arguments
    from onnxslim.errors import CheckFailed, OnnxSlimError

    try:
        arguments = read_arguments(argv)
    except UsageError as error:
        return _say(f"{error}; python -m onnxslim --help lists the options", USAGE)
    if not isinstance(arguments, Arguments):
        arguments()  # prints the help or the version
        return OK
    try:
        return _compile(arguments)
    except CheckFailed as error:
        if not arguments.quiet:
            _show_failed(error)
        return _say_error(error)
    except OnnxSlimError as error:
        return _say_error(error)


def _compile(arguments: Arguments) -> int:
    if arguments.list_passes or arguments.list_rules or arguments.inspect:
        return _list(arguments)
    from onnxslim.driver import compile_file, make_plan

    request = arguments.request()
    plan = make_plan(request)
    if arguments.print_pipeline:
        print(plan.text)
        return OK
    if arguments.source is None or arguments.output is None:
        raise AssertionError("read_arguments asks for both files")
    if arguments.quiet:  # what shows progress and tables takes time to import
        compile_file(arguments.source, arguments.output, request)
        return OK
    _compile_and_show(arguments.source, arguments.output, request, len(plan.passes))
    return OK


def _compile_and_show(source: Path, output: Path, request: Request, passes: int) -> None:
    from onnxslim.driver import Watch, compile_file
    from onnxslim.errors import OutputError
    from onnxslim.report.live import Live
    from onnxslim.report.table import result_tables

    live = Live(_console(stderr=True), passes)
    with live.shown():
        report = compile_file(source, output, request, Watch(live.progress, (live,)))
    try:
        _console().print(result_tables(report))
    except BrokenPipeError:
        raise
    except OSError as error:
        _drop_stdout()
        reason = error.strerror or error
        raise OutputError(f"the result cannot be shown: {reason}; {output} was written") from error


def _list(arguments: Arguments) -> int:
    if arguments.inspect:
        from onnxslim.dropin import show_models

        show_models(arguments.files, arguments.dump_to_disk)
        return OK
    from onnxslim.passes.simplify.rules import list_rules
    from onnxslim.registry import list_passes
    from onnxslim.report.listing import passes_list, rules_table

    if arguments.list_passes:
        _console().print(passes_list(list_passes()))
    else:
        _console().print(rules_table([(r.name, r.summary, r.exact) for r in list_rules()]))
    return OK


def _show_failed(error: CheckFailed) -> None:
    from onnxslim.report.record import Report
    from onnxslim.report.table import result_tables

    if isinstance(error.report, Report):
        _console().print(result_tables(error.report))


def _console(*, stderr: bool = False) -> Console:
    from rich.console import Console

    stream = sys.stderr if stderr else sys.stdout
    width = None if stream.isatty() else _PLAIN_WIDTH
    return Console(stderr=stderr, width=width, highlight=False)


def _say_error(error: OnnxSlimError) -> int:
    from onnxslim.errors import PipelineSyntaxError

    text = str(error)
    if not isinstance(error, PipelineSyntaxError):  # that one points at the fault with a caret
        text = " ".join(text.split())
    return _say(text[:_LONGEST_ERROR], error.exit_code)


def _say(message: str, code: int) -> int:
    print(f"error: {message}", file=sys.stderr)
    return code


def _bug_file(error: Exception) -> str:
    """The error in one line, and where its traceback is."""
    import tempfile
    import traceback

    with tempfile.NamedTemporaryFile(
        "w", prefix="onnxslim-traceback-", suffix=".txt", delete=False
    ) as file:
        file.write("".join(traceback.format_exception(error)))
    return f"{type(error).__name__}: {' '.join(str(error).split())}; please report {file.name}"
