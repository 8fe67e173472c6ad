"""The session of the model that a pass has just run, for whoever runs that model next."""

from __future__ import annotations

from onnxslim.ir import Model
from onnxslim.pipeline.fingerprint import fingerprint
from onnxslim.runtime.session import Session


class Opened:
    """At most one session: opening one takes as long as some runs, and holding one takes memory."""

    def __init__(self) -> None:
        self._held: tuple[str, Session] | None = None

    def keep(self, model: Model, session: Session) -> None:
        """Hold the session of the model as it is now, with the threads of the run."""
        self._held = fingerprint(model), session

    def find(self, model: Model) -> Session | None:
        """The session, if the model is still what it was."""
        if self._held is None or self._held[0] != fingerprint(model):
            return None
        return self._held[1]

    def clear(self) -> None:
        """Let it go."""
        self._held = None
