"""Terminals as the registry has them."""

from typing import Any

from crdt.facts import ID_BYTES, ReplicaId, TerminalId
from hub.registry import Terminal


def registered(number: int, **known: Any) -> Terminal:
    """One that was paired and never heard of; `known`: what else is known of it."""
    of_its_own = bytes([number] * ID_BYTES)
    fields: dict[str, Any] = {
        "terminal": TerminalId(of_its_own),
        "name": f"Bus {number}",
        "replica": ReplicaId(of_its_own),
        "paired_ms": 0,
        "revoked_ms": None,
        "recalled": False,
        "seen_ms": None,
        "address": "",
        "status": {},
        "restored_ms": None,
        "renewed_ms": None,
        "settled_ms": None,
        "settled_fact": 0,
    }
    return Terminal(**fields | known)
