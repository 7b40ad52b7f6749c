"""Sigma rules on columns: pySigma reads them (`rules.py`), `tree.py` is what they become, and two evaluators agree on it.

`rows.py` reads one row after the other, `masks.py` whole columns; `engine.py` chooses: a scan for literals leaves few rows
for most rules. `fields.py` says which columns a rule's fields and log source mean.
"""
