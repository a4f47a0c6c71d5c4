"""Tests; torch is imported after this."""

from gssr.threads import wait_briefly

wait_briefly()
