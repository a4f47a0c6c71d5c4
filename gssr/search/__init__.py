"""Looking for futures that satisfy what a user asks for: over beliefs."""
