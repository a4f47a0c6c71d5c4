"""Tests; torch is imported after this."""

from gssr.threads import sleep_at_barriers

sleep_at_barriers()
