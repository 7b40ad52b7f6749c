"""Processors: pure steps from batch to batch. One file per verb; imports point to `ringfence` only."""
