"""Correlations of Sigma over matches of rules: event time, bounded state, snapshots. Opens nothing and reads no clock.

Everything waits until the watermark has passed it, and is then taken in the order of its event time. So neither batches nor
the order of arrival within the allowed lateness can change a detection.
"""
