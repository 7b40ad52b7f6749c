"""Collectors: one file per protocol (a sans-IO decoder) and one per shell that reads the world for them."""
