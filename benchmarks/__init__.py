"""Measurements of speed and quality, run by hand from a checkout; the test suite never runs them at full size."""

from gssr.threads import wait_briefly

wait_briefly()
