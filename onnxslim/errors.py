"""Every error that the program raises on purpose, and the exit code that each stands for.

A message says what was given, what was expected and what to do.
"""

from __future__ import annotations

from typing import ClassVar


class OnnxSlimError(Exception):
    """Base class: the command line prints these as one line, without a traceback."""

    exit_code: ClassVar[int] = 1


class ModelError(OnnxSlimError):
    """The input is not a model that can be compiled: missing, truncated, invalid, unsupported."""


class OutputError(OnnxSlimError):
    """The result cannot be written where it was asked for."""


class DataError(OnnxSlimError):
    """Calibration or evaluation data do not fit the model or cannot be read."""


class ConfigError(OnnxSlimError):
    """A flag or the TOML file says something that does not go together."""


class PipelineSyntaxError(OnnxSlimError):
    """The text given to --passes cannot be read."""


class OptionError(OnnxSlimError):
    """A pass or an option of one is unknown, of the wrong type or out of range."""


class RuntimeUnavailable(OnnxSlimError):
    """ONNX Runtime cannot run the model, and what was asked for needs to."""


class CheckFailed(OnnxSlimError):
    """The compressed model does not do its job well enough; nothing was written."""

    exit_code: ClassVar[int] = 3

    def __init__(self, message: str, report: object = None) -> None:
        """`report` is the `onnxslim.Report` of the run that failed, where there is one."""
        super().__init__(message)
        self.report = report


class EditError(Exception):
    """An edit was refused and nothing was changed; the caller declines with this reason."""


class PassError(OnnxSlimError):
    """A pass broke its contract: a bug of ours or of a plugin. Says which, and after which."""

    exit_code: ClassVar[int] = 70


def rounded_up(share: float) -> str:
    """The nearest share that can be had, to three digits and not below it, so that it can be asked
    for."""
    return f"{-(-share * 1000 // 1) / 1000:.3f}"
