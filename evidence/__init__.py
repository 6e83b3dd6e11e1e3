"""Every empirical claim of the course: code, seeds, stored result."""
