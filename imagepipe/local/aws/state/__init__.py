"""Records, the database that keeps them, and background jobs."""
