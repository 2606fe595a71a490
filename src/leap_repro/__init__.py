"""LEAP and its baselines as a pipeline of small, checkable stages, from models and data to tables and figures."""

__version__ = "0.1.0"

from leap_repro.portable import pin_libraries

pin_libraries()
