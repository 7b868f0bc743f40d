"""The bridge beside modern libraries, timed in one run."""
