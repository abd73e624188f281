"""The ledger of Farebox: facts, blocks, join, settlement, sync session, settings documents. See README.md.

Everything outside `crdt.store` is free of I/O, clocks and randomness.
"""
