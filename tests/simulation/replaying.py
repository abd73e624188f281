"""The same seeds in other processes."""

import subprocess
import sys


def digests(module: str, *arguments: str) -> set[str]:
    """What a run of these seeds prints of them all, in processes that differ by their hash seed."""
    return {
        subprocess.run(
            [sys.executable, "-m", module, *arguments, "--digest"],
            env={"PYTHONHASHSEED": hash_seed, "PYTHONPATH": "."},
            capture_output=True,
            text=True,
            check=True,
        ).stdout.splitlines()[-1]
        for hash_seed in ("1", "2")
    }
