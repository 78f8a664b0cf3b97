"""Errors that a user can act on: one line that names what was wrong and what would be right."""

import difflib
import errno
import sys
from collections.abc import Callable, Iterable


class UserError(Exception):
    """Bad input. Its message is one line; commands print it and leave with exit code 2."""


def unknown(what: str, name: str, known: Iterable[str]) -> UserError:
    """The error for a name that is not in a list, with the nearest match and every valid name.

    Args:
        what: the kind of thing that was named, as in "scenario".
        name: what the user wrote.
        known: the valid names.
    """
    known = sorted(known)
    near = difflib.get_close_matches(name, known, n=1)
    hint = f"; did you mean '{near[0]}'?" if near else ""
    return UserError(f"unknown {what} '{name}'{hint} (known: {', '.join(known)})")


def exit_on_user_error(main: Callable[[], None]) -> None:
    """Run a command's main function; a `UserError` or a full disk ends it with one line and exit code 2."""
    try:
        main()
    except UserError as error:
        print(f"error: {error}", file=sys.stderr)
        raise SystemExit(2) from None
    except OSError as error:
        if error.errno not in (errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EACCES):
            raise
        name = error.filename or "a file"
        print(f"error: cannot write {name}: {error.strerror}; nothing was replaced", file=sys.stderr)
        raise SystemExit(2) from None
