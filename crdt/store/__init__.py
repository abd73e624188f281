"""The ledger on disk: SQLAlchemy Core over SQLCipher, one writer at a time.

In reading order: `driver` (which SQLCipher), `connection` (an encrypted connection), `keyfile` (its key),
`gate` and `jobs` (who writes when), `database` (the whole of it: open, write, read, close), `schema` (the
tables), `blocks` (the record), then the two ledgers: `terminal` with `held` and `settled`, and `hub`
with `admission`, `authors`, `balances`, `recording` and `projection`. `trouble` logs what fails unseen.
"""
