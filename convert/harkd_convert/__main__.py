"""`python -m harkd_convert`."""

from harkd_convert.cli import main

main()
