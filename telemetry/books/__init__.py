"""What is settled: the entries of segments, the ledger that keeps them, the totals."""
