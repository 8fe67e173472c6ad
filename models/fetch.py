"""Fetches outside models, makes their data, scores them and compares with the manifest.

python models/fetch.py NAME... | --all [--cache DIR] [--list]
"""

from __future__ import annotations

import argparse
import sys
import time
from pathlib import Path

sys.path[0] = str(Path(__file__).resolve().parent.parent)

from models.catalog import ModelError, Recipe, recipe, recipes  # noqa: E402
from models.zoo import default_cache, ensure, is_made, stamp  # noqa: E402


def parser() -> argparse.ArgumentParser:
    """The command line."""
    parsed = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parsed.add_argument("names", nargs="*", metavar="NAME")
    parsed.add_argument("--all", action="store_true", help="every model of the manifest")
    parsed.add_argument("--cache", type=Path, default=default_cache(), metavar="DIR")
    parsed.add_argument("--list", action="store_true", help="show what there is and stop")
    return parsed


def describe(wanted: Recipe, cache: Path) -> str:
    """One line of --list."""
    state = "here" if is_made(wanted, cache) else "absent"
    return f"{wanted.name:20} {state:7} {wanted.metric_name} {wanted.score}  {wanted.what}"


def fetch(wanted: Recipe, cache: Path) -> None:
    """Makes one model where it is absent and prints its scores."""
    start = time.perf_counter()
    folder = ensure(wanted, cache, tell=lambda line: print(f"  {line}", flush=True))
    noted = stamp(folder)
    values = ", ".join(f"{name} {value:.4f}" for name, value in noted["values"].items())
    print(f"{wanted.name}: {values} (expected {wanted.score} within {wanted.tolerance})")
    seconds = time.perf_counter() - start
    print(f"  {folder}, {noted['samples']} samples, {seconds:.1f} s", flush=True)


def main() -> int:
    """Exit code 1 where a model could not be made or scores otherwise than expected."""
    asked = parser().parse_args()
    known = recipes()
    try:
        wanted = [recipe(name) for name in (known if asked.all else asked.names)]
        if asked.list:
            print("\n".join(describe(entry, asked.cache) for entry in wanted or known.values()))
            return 0
        if not wanted:
            raise ModelError(f"name a model, or --all; known are {', '.join(known)}")
        for entry in wanted:
            fetch(entry, asked.cache)
    except ModelError as error:
        print(f"fetch.py: {error}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
