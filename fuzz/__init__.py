"""Fuzz targets: each `fuzz_<name>.py` opens with its invariant and has `one(data)`.

`python -m fuzz` runs them; README.md says how a finding becomes a seed and a test.
"""
