"""`python -m hub` and the console script `farebox-hub`."""

import sys

from hub.errors import INTERRUPTED, Stopped
from hub.importing import importing


def main() -> int:
    """Run one command; the exit status."""
    try:
        with importing():
            from hub import cli
    except Stopped as stopped:
        sys.stderr.write(f"farebox-hub: {stopped}\n")
        return INTERRUPTED
    return cli.main()


if __name__ == "__main__":
    sys.exit(main())
