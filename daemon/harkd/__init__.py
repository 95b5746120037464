"""harkd: a private ear for the house.

Importing this package loads nothing heavy: the capture process and ``harkd --help`` import it too.
"""

__version__ = "0.1.0"
