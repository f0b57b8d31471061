"""Readers for published data sets, and a synthetic one that needs no download."""

from alscore.datasets.lastfm import lastfm_360k
from alscore.datasets.synthetic import synthetic, write_lastfm_360k

__all__ = ["lastfm_360k", "synthetic", "write_lastfm_360k"]
