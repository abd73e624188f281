"""What tests/hardware/test_independent_clients.py asks of nfcpy, in a process of its own.

nfcpy is older than our rules about warnings. Usage: python nfcpy_session.py TTY; prints one JSON object.
"""

import importlib
import json
import sys
from typing import Any

nfc: Any = importlib.import_module("nfc")  # no types, and not everywhere installed
pn532: Any = importlib.import_module("nfc.clf.pn532")
transport: Any = importlib.import_module("nfc.clf.transport")


def main(path: str) -> dict[str, Any]:
    frontend = nfc.ContactlessFrontend()
    # What ContactlessFrontend.open("tty:...") does; but that looks for devices in /dev only.
    frontend.device = pn532.init(transport.TTY(path))
    try:
        # The types of target that a real session looks for, without waiting for ever where there is none.
        tag = frontend.connect(rdwr={"on-connect": lambda tag: False}, terminate=_once())
        if not tag:
            return {"chip": str(frontend.device.chipset_name), "tag": None}
        return {"chip": str(frontend.device.chipset_name), **_describe(tag)}
    finally:
        frontend.close()


def _once() -> Any:
    answers = iter([False])
    return lambda: next(answers, True)


def _describe(tag: Any) -> dict[str, Any]:
    found = {"tag": type(tag).__name__, "uid": tag.identifier.hex(), "present": tag.is_present}
    if found["tag"].startswith("NTAG"):
        tag.write(4, b"FARE")
        found |= {
            "memory": tag.read(4)[:4].decode(),
            "dump": tag.dump()[:4],
            "signature": tag.signature.hex(),
        }
    if tag.type == "Type4Tag":
        try:
            tag.send_apdu(0, 0xA4, 4, 0, bytes.fromhex("d2760000850101"))
        except nfc.tag.TagCommandError as error:
            found["apdu"] = f"{error.errno:04x}"
    return found


if __name__ == "__main__":
    sys.stdout.write(json.dumps(main(sys.argv[1])) + "\n")
