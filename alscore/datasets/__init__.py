"""Readers for published data sets, a function that downloads them, and a synthetic data set."""

from alscore.datasets.fetch import fetch
from alscore.datasets.hetrec import hetrec_lastfm_2k, hetrec_lastfm_2k_table
from alscore.datasets.lastfm import lastfm_360k
from alscore.datasets.lastfm_1k import lastfm_1k, lastfm_1k_events
from alscore.datasets.lastfm_profiles import lastfm_1k_profiles, lastfm_360k_profiles
from alscore.datasets.movielens import movielens
from alscore.datasets.synthetic import synthetic, write_lastfm_360k

__all__ = [
    "fetch",
    "hetrec_lastfm_2k",
    "hetrec_lastfm_2k_table",
    "lastfm_1k",
    "lastfm_1k_events",
    "lastfm_1k_profiles",
    "lastfm_360k",
    "lastfm_360k_profiles",
    "movielens",
    "synthetic",
    "write_lastfm_360k",
]
