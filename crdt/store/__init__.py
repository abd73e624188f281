"""The ledger on disk: SQLAlchemy Core over an encrypted SQLCipher file, or for a hub over a database server.

In reading order. The file: `driver` (which SQLCipher), `connection` (an encrypted one), `keyfile` (its key),
`lock` (one process at a time), `health` (whether it may still be used), `gate`, `jobs` and `futures` (who
writes when), `writer` and `reader`, `database` (the whole of it: open, write, read, close), `inline` with
`inline_direct` (the same without threads), `backup`. The server: `store` and `swapping` (what both have in
common), `server_url` (where it is), `link` (a connection that is made again), `server_writer` (groups under a
lock), `watch` (what other processes write), `sealed` (secrets there), `server` (the whole of it). The tables:
`schema` (of both ledgers), `terminal_schema`, `hub_schema`, `statement` (what runs often), `sql` (many rows
at once, for every database), `blocks` (the record), `quarantine` with `quarantine_list`, `papers` (signed
documents). Beside them: `marks`, `chore` (work in the background), `trouble` (logs what fails unseen).

Then the two ledgers. `terminal`, the public face, on a `local` store: `beginning`, `memory` with `held`,
`fares`, `authorship` and `peers_open`, `segment` (what is open, on disk), `owned` (the database in its
hands); `terminal_asking`; `tapping` and `sealing`; `settled`, `staged_rows`, `staged_heads`, `installer` and
`pruning`; `relaying` with `relay`, and `passing_on`; `conceding` with `canonical`, `concession_plan`,
`reissue` and `evidence`, `concession`; `keepsake`; `view` and `status`. `hub` with `hearing` and `asking`,
`hub_parts` (how they work together), `starting`, `markkeeper`, `authors`, `intake`, `record`, `admission`,
`merging`, `recording` with `moments`, `balances`, `numbers`, `paging`, `editions` with `recent` (pages that
many terminals are given), `overdrawn`, `own_chain` (whether the hub may go on with it), `ownfacts`,
`adopting` with `rounds`, `coincidences`, `reckoning`, `rewriting`, `content` and `kin`, `revoking` with
`cutting`, `amending`, `flags`, `flagging`, `standing`, `expectations`, `claims`, `silent`, `projection`,
`days` with `closing`, `arrivals`, `completeness`, `listening`, `neighbours` (other processes on the same
ledger) and `witness` (a server that went back under them).
"""
