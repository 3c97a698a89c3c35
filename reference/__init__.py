"""Exact results in mpmath, and the goals that tests and benchmarks compare the library with."""
