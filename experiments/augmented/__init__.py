"""Augmented Neural ODEs (2019): one module for each figure or table."""
