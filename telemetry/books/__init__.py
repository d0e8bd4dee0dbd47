"""What is settled: the entries of segments, the ledger that keeps them, the totals.

entries  what a row of the ledger means, as values, and the arithmetic; pure
books    the snapshot that one flush works on, written through
ledger   the rows on disk; the only user of diskcache
view     how a row is stored, and reading it without changing it
"""
