"""The ledger on disk: SQLAlchemy Core over an encrypted SQLCipher file, or for a hub over a database server.

README.md says which modules a terminal's ledger and a hub's have in common and which are of one alone, in
reading order.
"""
