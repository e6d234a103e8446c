"""``python -m posterior_bench`` is ``posterior-bench``."""

from .cli import main

main()
