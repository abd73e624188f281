"""`python -m hub` and the console script `farebox-hub`."""

import gc
import sys


def main() -> int:
    """Run one command; the exit status."""
    # Nothing of what is imported is ever garbage: it is not searched for some, neither now nor later.
    gc.disable()
    from hub import cli

    gc.freeze()
    gc.enable()
    return cli.main()


if __name__ == "__main__":
    sys.exit(main())
