"""What can be forced and written through states, against controls of equal norm."""
