"""heatbox: boxes in Label Studio that nobody drew.

This package is the service and every value in it. It knows Label Studio, Redis and the ledger, and never imports torch.
"""

from importlib.metadata import version as _distribution_version

__all__ = ["__version__"]

__version__ = _distribution_version("heatbox")
