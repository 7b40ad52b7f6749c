"""Sinks: one file per place where batches are delivered."""
