"""``python -m harkd``."""

from harkd.cli import main

if __name__ == "__main__":
    main()
