"""What the course costs in time; printed, never asserted."""
