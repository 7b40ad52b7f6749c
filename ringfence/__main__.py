"""`python -m ringfence` is `ringfence`."""

from ringfence.cli import main

raise SystemExit(main())
