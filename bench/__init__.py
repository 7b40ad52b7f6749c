"""Benchmarks: events per CPU-second of one core and peak memory, beside a per-event reference chain on the same data."""
