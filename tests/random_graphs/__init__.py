"""Random valid models over some hundred operators, for properties that hold for every model."""

from tests.random_graphs.case import Case, build, cases

__all__ = ["Case", "build", "cases"]
