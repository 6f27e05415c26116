"""The version, read by the build and by ``portl --version``."""

__version__ = "0.1.0"
