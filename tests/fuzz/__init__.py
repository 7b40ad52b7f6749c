"""Fuzzing of every decoder with its framer; `python -m tests.fuzz` says how."""
