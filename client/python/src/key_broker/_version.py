"""The version of this package: the one that is installed."""

from importlib.metadata import PackageNotFoundError, version

try:
    VERSION = version("key-broker")
except PackageNotFoundError:  # run from its sources
    VERSION = "0"
