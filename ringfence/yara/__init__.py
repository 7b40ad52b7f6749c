"""YARA rules on columns: one scan of many values at once, then exact scans of the few that may match.

`source.py` reads rule files as text, `blockwise.py` proves which rules may be scanned that way, `rules.py` loads and
compiles, `scan.py` scans within a budget of time, and `inquest.py` names the rules that broke it. libyara (YARA 4.5)
does the matching; the package of that name is imported as `yara`.
"""
