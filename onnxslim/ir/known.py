"""What a message says of a name that the model does not have: the nearest, and what there is."""

from __future__ import annotations

import difflib
from collections.abc import Iterable

_SHOWN = 8


def unknown_name(what: str, name: str, there: Iterable[str]) -> str:
    """`no input 'imge': did you mean 'image'? There is: image, mask`."""
    names = list(dict.fromkeys(there))
    folded = {other.lower(): other for other in reversed(names)}
    close = difflib.get_close_matches(name.lower(), folded, n=1)
    close = close or [other for other in folded if name.lower() in other][:1]
    hint = f": did you mean '{folded[close[0]]}'?" if close else "."
    more = f" and {len(names) - _SHOWN} more" if len(names) > _SHOWN else ""
    listed = ", ".join(names[:_SHOWN]) + more
    return f"no {what} '{name}'{hint} There is: {listed or 'none'}"
